"""Models built by hand, whose answers are known: small graphs from pictures to pictures of 32 x 32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from support import MODELS

from service.contract import manifest as manifests
from service.contract.manifest import SCALES, Fit, Graph, Manifest, Normal, Port, Training, TrainingData

SIDE = 32


def blur() -> list[onnx.NodeProto]:
    """The mean of 3 x 3 pixels of each channel; past the edge there is nothing."""
    kernel = helper.make_tensor("kernel", TensorProto.FLOAT, (3, 1, 3, 3), [1 / 9] * 27)
    return [
        helper.make_node("Constant", [], ["k"], value=kernel),
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["first"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["first", "k"], ["mean"], pads=[1, 1, 1, 1], group=3),
        helper.make_node("Transpose", ["mean"], ["last"], perm=[0, 2, 3, 1]),
        helper.make_node("Cast", ["last"], ["out"], to=TensorProto.UINT8),
    ]


def negative() -> list[onnx.NodeProto]:
    white = helper.make_tensor("white", TensorProto.UINT8, (), [255])
    return [helper.make_node("Constant", [], ["w"], value=white), helper.make_node("Sub", ["w", "images"], ["out"])]


def either() -> list[onnx.NodeProto]:
    """Label 0: as it is; label 1: the negative."""
    shape = helper.make_tensor("shape", TensorProto.INT64, (4,), [-1, 1, 1, 1])
    return [
        helper.make_node("Constant", [], ["s"], value=shape),
        helper.make_node("Cast", ["labels"], ["truth"], to=TensorProto.BOOL),
        helper.make_node("Reshape", ["truth", "s"], ["which"]),
        helper.make_node("Constant", [], ["w"], value=helper.make_tensor("white", TensorProto.UINT8, (), [255])),
        helper.make_node("Sub", ["w", "images"], ["other"]),
        helper.make_node("Where", ["which", "other", "images"], ["out"]),
    ]


def larger() -> list[onnx.NodeProto]:
    """Each pixel four times, each way."""
    scales = helper.make_tensor("scales", TensorProto.FLOAT, (4,), [1, 4, 4, 1])
    nearest = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return [
        helper.make_node("Constant", [], ["s"], value=scales),
        helper.make_node("Resize", ["images", "", "s"], ["out"], **nearest),
    ]


def painted() -> list[onnx.NodeProto]:
    """Level 200 under the mask; the rest as it is."""
    return [
        helper.make_node("Constant", [], ["half"], value=helper.make_tensor("half", TensorProto.UINT8, (), [127])),
        helper.make_node("Constant", [], ["paint"], value=helper.make_tensor("paint", TensorProto.UINT8, (), [200])),
        helper.make_node("Greater", ["masks", "half"], ["hole"]),
        helper.make_node("Where", ["hole", "paint", "images"], ["out"]),
    ]


def brightness() -> list[onnx.NodeProto]:
    """A pixel's error is its mean level, the score the largest of them; normal would have been black."""
    zero = helper.make_tensor("zero", TensorProto.UINT8, (), [0])
    return [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Constant", [], ["last"], value=helper.make_tensor("last", TensorProto.INT64, (1,), [3])),
        helper.make_node("Constant", [], ["inner"], value=helper.make_tensor("inner", TensorProto.INT64, (2,), [1, 2])),
        helper.make_node("Constant", [], ["black"], value=zero),
        helper.make_node("ReduceMean", ["floats", "last"], ["errors"], keepdims=0),
        helper.make_node("ReduceMax", ["errors", "inner"], ["scores"], keepdims=0),
        helper.make_node("Mul", ["images", "black"], ["reconstruction"]),
    ]


DETECTED = {"scores": ("float32", ()), "errors": ("float32", (SIDE, SIDE)), "reconstruction": ("uint8", (SIDE, SIDE, 3))}
NORMAL = Normal(
    threshold=100.0, pixel_threshold=64.0, false_positives=0.01, promised=0.01, pictures=200, quantiles=tuple(float(q) for q in range(101))
)
"""Scores of 0 to 100 are normal, all alike often."""


WORDS = ("<end>", "<start>", "<unknown>", "a", "the", "cat", "dog", "sun")
AFTER = {
    "<start>": {"a": 0.6, "the": 0.4},
    "a": {"cat": 0.35, "dog": 0.33, "sun": 0.32},
    "the": {"sun": 0.9, "dog": 0.1},
    **{word: {"<end>": 1.0} for word in ("cat", "dog", "sun")},
}
"""How likely a word is after another: the likeliest first word leads to no likely sentence."""


def captioner(models: Path, name: str = "talks", **fields: object) -> None:
    """A captioner of AFTER. What it sees are the levels of the picture's four quarters; it looks at each by its brightness."""
    folder = models / name
    folder.mkdir(parents=True)
    table = np.full((len(WORDS), len(WORDS)), 1e-9, np.float32)
    for word, following in AFTER.items():
        for other, chance in following.items():
            table[WORDS.index(word), WORDS.index(other)] = chance

    def constant(name: str, value: np.ndarray) -> onnx.NodeProto:
        return helper.make_node("Constant", [], [name], value=onnx.numpy_helper.from_array(value))

    look = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["first"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["first"], ["pooled"], kernel_shape=[SIDE // 2] * 2, strides=[SIDE // 2] * 2),
        helper.make_node("Transpose", ["pooled"], ["features"], perm=[0, 2, 3, 1]),
        constant("last", np.array([3])),
        constant("all", np.array([1, 2])),
        helper.make_node("ReduceMean", ["features", "last"], ["keys"], keepdims=1),
        helper.make_node("ReduceMean", ["keys", "all"], ["state"], keepdims=0),
    ]
    tell = [
        constant("table", np.log(table)),
        helper.make_node("Gather", ["table", "words"], ["log_probabilities"]),
        helper.make_node("Identity", ["state"], ["next_state"]),
        constant("last", np.array([3])),
        constant("all", np.array([1, 2])),
        helper.make_node("ReduceMean", ["features", "last"], ["levels"], keepdims=0),
        constant("little", np.array(1e-6, np.float32)),
        helper.make_node("ReduceSum", ["levels", "all"], ["light"], keepdims=1),
        helper.make_node("Add", ["light", "little"], ["sum"]),
        helper.make_node("Div", ["levels", "sum"], ["shares"]),
        helper.make_node("ReduceMean", ["keys", "last"], ["unused"], keepdims=0),
        constant("none", np.array(0, np.float32)),
        helper.make_node("Mul", ["unused", "none"], ["zeros"]),
        helper.make_node("Add", ["shares", "zeros"], ["attention"]),
    ]
    seen = {"features": ("float32", (2, 2, 3)), "keys": ("float32", (2, 2, 1)), "state": ("float32", (1,))}
    said = {"log_probabilities": ("float32", (len(WORDS),)), "next_state": ("float32", (1,)), "attention": ("float32", (2, 2))}
    graphs = {
        "encoder": _saved(folder, "encoder", look, {"images": ("uint8", (SIDE, SIDE, 3))}, seen),
        "step": _saved(folder, "step", tell, {**seen, "words": ("int32", ())}, said),
    }
    _describe(folder, {"caption": {"encoder": "encoder", "step": "step"}}, graphs, vocabulary=WORDS, **fields)


def complete(models: Path) -> None:
    """A folder with a model for every operation: the shipped ones, and one built by hand for each operation that none of them serves."""
    models.mkdir()
    for model in MODELS.iterdir():
        (models / model.name).symlink_to(model)
    served = {task for model in MODELS.iterdir() for task in manifests.read(model).tasks}
    if "caption" not in served:
        captioner(models, default_for=("caption",), fit=Fit(height=SIDE, width=SIDE, channels=3, mode="stretch"))
    if "inpaint" not in served:
        build(models, "paint", painted(), "inpaint", "inpainter", "inpainted", default_for=("inpaint",))
    if "swap" not in served:
        build(models, "other", either(), "swap", "swapper", "swapped", default_for=("swap",), classes=("google", "twitter"))


def small(models: Path) -> None:
    """A folder with a model for every operation that answers in a millisecond or two: built by hand, save for those of digits."""
    build(models, "negative", negative(), "translate", "translator", "translated", default_for=("translate",))
    build(models, "either", either(), "swap", "swapper", "swapped", default_for=("swap",), classes=("ann", "bob"))
    build(models, "larger", larger(), "upscale", "upscaler", "upscaled", default_for=("upscale",), large="tile", margin=4)
    build(models, "painted", painted(), "inpaint", "inpainter", "inpainted", default_for=("inpaint",))
    whole = Fit(height=SIDE, width=SIDE, channels=3, mode="stretch")
    build(models, "bright", brightness(), "anomaly", "detector", DETECTED, normal=NORMAL, fit=whole, default_for=("anomaly",))
    captioner(models, default_for=("caption",))
    for name in ("cdcgan", "vae"):
        (models / name).symlink_to(MODELS / name)


def build(
    models: Path, name: str, nodes: list[onnx.NodeProto], task: str, role: str, output: str | dict[str, Any], **fields: object
) -> None:
    """A model folder with one graph from images (and labels, masks) of 32 x 32.

    Args:
        output: the name of the picture `out` that the nodes make; or all outputs, with their types and shapes.
    """
    folder, item = models / name, (SIDE, SIDE, 3)
    folder.mkdir(parents=True)
    if isinstance(output, str):
        nodes, output = (
            [*nodes, helper.make_node("Identity", ["out"], [output])],
            {output: ("uint8", (SCALES[output] * SIDE, SCALES[output] * SIDE, 3))},
        )
    more = {"swap": {"labels": ("int32", ())}, "inpaint": {"masks": ("uint8", (SIDE, SIDE, 1))}}
    graph = _saved(folder, "graph", nodes, {"images": ("uint8", item), **more.get(task, {})}, output)
    _describe(folder, {task: {role: "graph"}}, {"graph": graph}, **fields)


TYPES = {"uint8": TensorProto.UINT8, "int32": TensorProto.INT32, "float32": TensorProto.FLOAT}


def _saved(folder: Path, name: str, nodes: list[onnx.NodeProto], inputs: dict[str, Any], outputs: dict[str, Any]) -> Graph:
    """An ONNX file of nodes, and how a manifest tells of it.

    Args:
        inputs, outputs: their types and shapes, without the batch.
    """
    told = [
        [helper.make_tensor_value_info(port, TYPES[dtype], ("batch", *shape)) for port, (dtype, shape) in ports.items()]
        for ports in (inputs, outputs)
    ]
    model = helper.make_model(helper.make_graph(nodes, name, *told), opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, folder / f"{name}.onnx")
    return Graph(
        file=f"{name}.onnx",
        sha256=manifests.sha256(folder / f"{name}.onnx"),
        inputs=tuple(Port(name=port, dtype=dtype, shape=("batch", *shape)) for port, (dtype, shape) in inputs.items()),
        outputs=tuple(Port(name=port, dtype=dtype, shape=("batch", *shape)) for port, (dtype, shape) in outputs.items()),
        parameters=0,
    )


def _describe(folder: Path, tasks: dict[str, dict[str, str]], graphs: dict[str, Graph], **fields: object) -> None:
    data = TrainingData(source="drawn", title="none", license="CC0-1.0", origin="made by hand")
    training = Training(
        command="none", recipe="none", variant="improved", config={}, seed=0, steps=0, seconds=0.0, cpu_seconds=0.0, device="", backend="",
        data=data,
    )  # fmt: skip
    manifests.write(
        Manifest(
            name=folder.name,
            version="1",
            title=folder.name,
            description="",
            limits="",
            misuse="",
            license="CC0-1.0",
            tasks=tasks,
            graphs=graphs,
            opset=18,
            training=training,
            **{"fit": Fit(height=SIDE, width=SIDE, channels=3, fill=255), **fields},
        ),
        folder,
    )
