"""Models built by hand, whose answers are known: small graphs from pictures to pictures of 32 x 32."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, helper

from service.contract import manifest as manifests
from service.contract.manifest import SCALES, Fit, Graph, Manifest, Port, Training, TrainingData

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


def build(models: Path, name: str, nodes: list[onnx.NodeProto], task: str, role: str, output: str, **fields: object) -> None:
    """A model folder with one graph from images (and labels, masks) of 32 x 32."""
    folder, item = models / name, (SIDE, SIDE, 3)
    folder.mkdir(parents=True)
    made = (SCALES[output] * SIDE, SCALES[output] * SIDE, 3)
    more = {"swap": {"labels": ("int32", ())}, "inpaint": {"masks": ("uint8", (SIDE, SIDE, 1))}}
    ports = {"images": ("uint8", item), **more.get(task, {})}
    types = {"uint8": TensorProto.UINT8, "int32": TensorProto.INT32}
    graph = helper.make_graph(
        [*nodes, helper.make_node("Identity", ["out"], [output])],
        name,
        [helper.make_tensor_value_info(port, types[dtype], ("batch", *shape)) for port, (dtype, shape) in ports.items()],
        [helper.make_tensor_value_info(output, TensorProto.UINT8, ("batch", *made))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, folder / "graph.onnx")
    declared = Graph(
        file="graph.onnx",
        sha256=manifests.sha256(folder / "graph.onnx"),
        inputs=tuple(Port(name=port, dtype=dtype, shape=("batch", *shape)) for port, (dtype, shape) in ports.items()),
        outputs=(Port(name=output, dtype="uint8", shape=("batch", *made)),),
        parameters=0,
    )
    data = TrainingData(source="drawn", title="none", license="CC0-1.0", origin="made by hand")
    training = Training(
        command="none", recipe="none", variant="improved", config={}, seed=0, steps=0, seconds=0.0, cpu_seconds=0.0, device="", backend="",
        data=data,
    )  # fmt: skip
    manifests.write(
        Manifest(
            name=name,
            version="1",
            title=name,
            description="",
            limits="",
            misuse="",
            license="CC0-1.0",
            tasks={task: {role: "graph"}},
            graphs={"graph": declared},
            opset=18,
            training=training,
            **{"fit": Fit(height=SIDE, width=SIDE, channels=3, fill=255), **fields},
        ),
        folder,
    )
