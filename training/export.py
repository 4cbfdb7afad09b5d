"""The serving graphs -> ONNX -> parity -> golden -> card -> manifest, in that order.

A folder without a manifest does not exist for the server, so an export that breaks off serves nothing.
"""

from __future__ import annotations

import io
import math
import shutil
import sys
import tempfile
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import keras
import numpy as np
import onnx
from PIL import Image

from service.contract import images, manifest
from service.contract.manifest import Graph, Manifest, Normal, Port, Training, TrainingData
from training import card, detection, history
from training.data import Dataset
from training.graphs import float16, in_order, run_graph, unread
from training.loop import Run, contact_sheet
from training.problems import TrainingError
from training.recipes import Recipe

OPSET = 18
GOLDEN_ROWS = 6
HALVED = 10_000
"""Weights of at least so many values are rounded to half precision and stored so; they are computed with in float32."""
RELATIVE = 1e-3
LEVELS = 1


def export(
    recipe: Recipe,
    config: Any,
    data: Dataset,
    trained: Any,
    run: Run,
    folder: Path,
    default_for: tuple[str, ...] | None,
    command: str,
    half: bool = False,
) -> Manifest:
    """Writes a model folder whole: into a neighbour first, which then takes its place.

    Args:
        half: with variants of the graphs in half precision.

    Raises:
        TrainingError: a graph does not load in ONNX Runtime, or its answers differ from Keras's.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as place:
        fresh = Path(place) / "new"
        (fresh / "golden" / "uploads").mkdir(parents=True)
        graphs = recipe.serving(config, data, trained)
        for variable in (variable for graph in graphs.values() for variable in graph.variables if math.prod(variable.shape) >= HALVED):
            variable.assign(keras.ops.convert_to_numpy(variable).astype(np.float16).astype(np.float32))
        own = recipe.describe(config, data) if hasattr(recipe, "describe") else {}
        fit = own.get("fit", data.fit)
        uploads = _uploads(data, fresh / "golden" / "uploads")
        fitted = np.stack([images.fit(images.decode(upload), fit) for upload in uploads])
        np.savez_compressed(fresh / "golden" / "fitted.npz", fitted=fitted)
        declared = {name: _graph(name, model, fresh, fitted, len(data.classes), half) for name, model in graphs.items()}
        _samples(recipe, config, graphs, data, fresh / "samples.png")
        earlier = _earlier(folder)
        if default_for is None:
            default_for = tuple(task for task in earlier.default_for if task in recipe.TASKS) if earlier else ()
        more = " ".join([*([" --float16"] if half else [""]), *(["--default-for", *default_for] if default_for else [])])
        training = _training(recipe, config, own.pop("data", None) or _data(data), run, f"{command} --out models/{folder.name}{more}")
        if "anomaly" in recipe.TASKS:
            own["normal"] = _normal(fresh / declared["detector"].file, config, data)
            fitted_on, held_out = (detection.normals(data, split, config.normal) for split in (data.train, data.validation))
            detection.remember(fresh, data, fitted=fitted_on, thresholds=held_out)
        described = _describe(recipe, data, folder.name, declared, training, default_for, own)
        history.draw(run, fresh / card.PICTURES)
        described = _keep(earlier, folder, fresh, described)
        card.write(described, fresh)
        manifest.write(described, fresh)
        if folder.exists():
            folder.replace(Path(place) / "old")
        fresh.replace(folder)
    return described


def _normal(detector: Path, config: Any, data: Dataset) -> Normal:
    """Thresholds from normal pictures that are held out for choices; names on standard error what looks unlike the other normal ones."""
    found = detection.run(detector, detection.normals(data, data.validation, config.normal), run_graph)
    normal = detection.normal(*found, config.false_positives)
    print(detection.told(normal), file=sys.stderr)
    if data.train.names:  # each split by itself: what was fitted on scores lower
        for split, scores in ((data.train, detection.run(detector, data.train.images, run_graph)[0]), (data.validation, found[0])):
            for index in detection.outliers(scores):
                print(f"{split.names[index]} looks unlike the other good ones (score {scores[index]:.3g}): is it one?", file=sys.stderr)
    return normal


def _describe(
    recipe: Recipe,
    data: Dataset,
    name: str,
    graphs: dict[str, Graph],
    training: Training,
    default_for: tuple[str, ...],
    own: dict[str, Any],
) -> Manifest:
    inputs = {port.name: port for graph in graphs.values() for port in graph.inputs}
    fields: dict[str, Any] = {
        "title": f"{recipe.ABOUT.title} ({data.title.split(' (')[0]})",
        "description": recipe.ABOUT.description,
        "fit": data.fit if "images" in inputs else None,
        "classes": data.classes if "labels" in inputs else (),
        "license": "Apache-2.0",
    }
    return Manifest(
        name=name,
        version="1",
        limits=recipe.ABOUT.limits,
        misuse=recipe.ABOUT.misuse,
        tasks={task: {role: graph for role, graph in roles.items() if graph in graphs} for task, roles in recipe.TASKS.items()},
        default_for=default_for,
        graphs=graphs,
        latent_dimension=inputs["latents"].item[0] if "latents" in inputs else None,
        opset=OPSET,
        training=training,
        **{**fields, **own},
    )


def _training(recipe: Recipe, config: Any, data: TrainingData, run: Run, command: str) -> Training:
    return Training(
        recipe=recipe.__name__.rpartition(".")[2].replace("_", "-"),  # type: ignore[attr-defined]
        variant=config.variant,
        config={name: value for name, value in asdict(config).items() if name != "variant"},
        seed=run.seed,
        steps=run.step,
        seconds=round(run.seconds, 1),
        cpu_seconds=round(run.cpu_seconds, 1),
        device=run.device,
        backend=run.backend,
        data=data,
        command=command,
    )


def _data(data: Dataset) -> TrainingData:
    return TrainingData(source=data.source, title=data.title, license=data.license, origin=data.origin)


def _earlier(folder: Path) -> Manifest | None:
    """The model that is replaced, where there is one that can be read."""
    try:
        return manifest.read(folder)
    except manifest.ManifestError:
        return None


def _keep(earlier: Manifest | None, before: Path, after: Path, described: Manifest) -> Manifest:
    """Takes over what people wrote, and what was measured and drawn of the same weights."""
    kept = ["notes.md"]
    if earlier is not None and earlier.digest == described.digest:
        kept.append(card.REPORT)
        described = described.model_copy(update={"metrics": earlier.metrics})
        kept += [f"{card.PICTURES}/{picture.name}" for picture in (before / card.PICTURES).glob("*")]
    for name in kept:
        if (before / name).is_file() and not (after / name).exists():
            shutil.copy(before / name, after / name)
    return described


def _uploads(data: Dataset, folder: Path) -> list[bytes]:
    """Held-out pictures as a user may send them: as they are, larger, oblong, with alpha, as JPEG."""
    height, width, channels = data.shape
    pictures = [Image.fromarray(pixels[..., 0] if channels == 1 else pixels) for pixels in _some(data, 4)]
    oblong = Image.new(pictures[3].mode, (2 * width, height))
    oblong.paste(pictures[3], (width // 2, 0))
    made = [
        ("plain.png", pictures[0], {}),
        ("large.png", pictures[1].resize((5 * width, 5 * height), Image.Resampling.BICUBIC), {}),
        ("alpha.png", pictures[2].convert("RGBA"), {}),
        ("oblong.png", oblong, {}),
        ("plain.jpg", pictures[0], {"quality": 95}),
        ("large.jpg", pictures[1].resize((5 * width, 5 * height), Image.Resampling.BICUBIC).convert("RGB"), {"quality": 90}),
    ]
    contents = []
    for name, picture, options in made:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG" if name.endswith("jpg") else "PNG", **options)
        (folder / name).write_bytes(buffer.getvalue())
        contents.append(buffer.getvalue())
    order = sorted(range(len(made)), key=lambda index: made[index][0])
    return [contents[index] for index in order]


def _some(data: Dataset, number: int) -> np.ndarray:
    """Held-out pictures; where there are fewer, some of them again."""
    return data.validation.images[np.arange(number) % len(data.validation)]


def _graph(name: str, model: keras.Model, folder: Path, fitted: np.ndarray, classes: int, half: bool) -> Graph:
    """Exports one graph, checks it against Keras on the golden inputs, and keeps both."""
    path = folder / f"{name}.onnx"
    inputs = _golden_inputs(model, fitted, classes)
    model.predict_on_batch(inputs)  # Keras exports only what was called
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.export(str(path), format="onnx", opset_version=OPSET, verbose=False)
    _tidy(path)
    expected = {key: np.asarray(value) for key, value in model.predict_on_batch(inputs).items()}
    compare(name, expected, run_graph(path, inputs))
    kept: dict[str, Any] = {f"input.{key}": value for key, value in inputs.items()}
    kept |= {f"output.{key}": value for key, value in expected.items()}
    np.savez_compressed(folder / "golden" / f"{name}.npz", **kept)
    return Graph(
        file=path.name,
        sha256=manifest.sha256(path),
        inputs=_ports(inputs),
        outputs=_ports(expected),
        parameters=model.count_params(),
        float16=float16(path, inputs) if half else None,
    )


def _ports(arrays: dict[str, np.ndarray]) -> tuple[Port, ...]:
    return tuple(Port(name=name, dtype=cast("Any", str(array.dtype)), shape=("batch", *array.shape[1:])) for name, array in arrays.items())


def _golden_inputs(model: keras.Model, fitted: np.ndarray, classes: int) -> dict[str, np.ndarray]:
    random, inputs = np.random.RandomState(0), {}
    for name, tensor in model.input.items():
        if name == "masks":
            inputs[name] = _holes(*tensor.shape[1:])
        elif tensor.dtype == "uint8":
            inputs[name] = fitted
        elif tensor.dtype == "int32":
            inputs[name] = np.arange(GOLDEN_ROWS, dtype=np.int32) % max(classes, 1)
        else:
            inputs[name] = random.standard_normal((GOLDEN_ROWS, *tensor.shape[1:])).astype(np.float32)
    return inputs


def _holes(height: int, width: int, channels: int) -> np.ndarray:
    """Masks with a block each, further to the right from one to the next."""
    masks = np.zeros((GOLDEN_ROWS, height, width, channels), np.uint8)
    for row in range(GOLDEN_ROWS):
        masks[row, height // 4 : height // 2, row * width // 8 : (row + 2) * width // 8] = 255
    return masks


def _tidy(path: Path) -> None:
    """Names the batch dimension and checks the model. The converter names and orders things differently at each
    export: nodes are put in the order in which the outputs ask for them, and numbered, so that the same weights
    always give the same file and digest."""
    model = onnx.load(path)
    graph = model.graph
    for port in (*graph.input, *graph.output):
        port.type.tensor_type.shape.dim[0].dim_param = "batch"
    nodes = in_order(graph)
    names = {port.name: port.name for port in (*graph.input, *graph.output)} | {"": ""}
    for number, node in enumerate(nodes):
        node.name = f"{node.op_type}_{number}"
        for tensors in (node.input, node.output):
            tensors[:] = [names.setdefault(name, f"t{len(names)}") for name in tensors]
        if node.op_type == "Resize":
            _mend_resize(node)
    weights = sorted((weight for weight in graph.initializer if weight.name in names), key=lambda weight: int(names[weight.name][1:]))
    for weight in weights:
        weight.name = names[weight.name]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    for weight in weights:
        values = onnx.numpy_helper.to_array(weight)
        if values.dtype == np.float32 and values.size >= HALVED:
            name, weight = weight.name, onnx.numpy_helper.from_array(values.astype(np.float16), f"{weight.name}_half")
            graph.node.append(onnx.helper.make_node("Cast", [weight.name], [name], f"Cast_{name}", to=onnx.TensorProto.FLOAT))
        graph.initializer.append(weight)
    graph.node.extend(nodes)
    graph.name = path.stem
    model.doc_string = graph.doc_string = ""
    onnx.checker.check_model(model, full_check=True)
    if missed := unread(graph):
        raise TrainingError(f"{path.name}: its answers do not depend on {', '.join(missed)}.")
    onnx.save(model, path)


def _mend_resize(node: Any) -> None:
    """The converter writes a mode that ONNX has dropped; at whole factors, all that is used here, `asymmetric` and `floor` say the same."""
    for attribute in node.attribute:
        if attribute.name == "coordinate_transformation_mode" and attribute.s == b"tf_half_pixel_for_nn":
            attribute.s = b"asymmetric"
        elif attribute.name == "nearest_mode":
            attribute.s = b"floor"


def compare(name: str, expected: dict[str, np.ndarray], found: dict[str, np.ndarray]) -> None:
    """Pictures within one level, floats within 1e-3 of the largest.

    Raises:
        TrainingError: they differ by more.
    """
    if set(expected) != set(found):
        raise TrainingError(f"{name}: ONNX gives {sorted(found)}, Keras {sorted(expected)}.")
    for key, ours in expected.items():
        if not np.isfinite(ours).all():
            raise TrainingError(f"{name}.{key} has values that are not finite: the training diverged; lower --learning-rate.")
        theirs = found[key]
        if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
            raise TrainingError(f"{name}.{key}: ONNX gives {theirs.dtype}{theirs.shape}, Keras {ours.dtype}{ours.shape}.")
        difference = np.abs(ours.astype(np.float64) - theirs).max()
        allowed = LEVELS if ours.dtype == np.uint8 else RELATIVE * max(1e-6, np.abs(ours).max())
        if not difference <= allowed:
            raise TrainingError(f"{name}.{key}: ONNX differs from Keras by {difference:.3g}, at most {allowed:.3g} is allowed.")


def _samples(recipe: Recipe, config: Any, models: dict[str, keras.Model], data: Dataset, path: Path) -> None:
    """A sheet: the recipe's own, or ten latents through the decoder (across the classes, where it has any), or pictures above their
    reconstructions."""
    if hasattr(recipe, "samples"):
        Image.fromarray(recipe.samples(config, data, models)).save(path)
        return
    decoder, random = models["decoder"], np.random.RandomState(1)
    if "labels" in decoder.input:
        columns = min(len(data.classes), 10)
        latents = random.standard_normal((10, *decoder.input["latents"].shape[1:])).astype(np.float32)
        inputs = {"latents": np.repeat(latents, columns, axis=0), "labels": np.tile(np.arange(columns, dtype=np.int32), 10)}
    else:
        columns = 10
        inputs = {"latents": _drawn(models, random, 100)}
    sheet = decoder.predict(inputs, batch_size=50, verbose=0)["images"]
    if "encoder" in models:
        shown = _some(data, 20)
        embedding = models["encoder"].predict({"images": shown}, verbose=0)["embedding"]
        decoded = decoder.predict({"latents": embedding}, verbose=0)["images"]
        rows = [half for start in range(0, len(shown), 10) for half in (shown[start : start + 10], decoded[start : start + 10])]
        sheet = np.concatenate([*rows, np.zeros_like(shown[:10]), sheet])
    Image.fromarray(contact_sheet(sheet, columns)).save(path)


def _drawn(models: dict[str, keras.Model], random: np.random.RandomState, number: int) -> np.ndarray:
    """Latents (number, d) from noise: noise itself, or what the prior makes of it."""
    if "prior" not in models:
        return random.standard_normal((number, *models["decoder"].input["latents"].shape[1:])).astype(np.float32)
    noise = random.standard_normal((number, *models["prior"].input["noise"].shape[1:])).astype(np.float32)
    return np.asarray(models["prior"].predict({"noise": noise}, verbose=0)["latents"])
