"""ONNX files: run, put in order, computed in half precision."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from service.contract import manifest
from service.contract.manifest import Float16
from training.problems import TrainingError

WITHIN_A_LEVEL, LEVELS = 0.999, 3
RELATIVE = 1e-2
"""By how much the answers of a variant in half precision may differ: that share of the pixels by one level and all by three; other
values by a hundredth of the largest."""


def run_graph(path: Path, inputs: dict[str, np.ndarray], optimised: bool = True) -> dict[str, np.ndarray]:
    """One run of an ONNX file on the CPU.

    Raises:
        TrainingError: ONNX Runtime does not load it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise TrainingError(f"{path.name} does not load in ONNX Runtime: {str(error).splitlines()[0]}") from error
    names = [port.name for port in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def unread(graph: Any) -> list[str]:
    """The inputs on which nothing depends."""
    read = {name for node in graph.node for name in node.input}
    return [port.name for port in graph.input if port.name not in read]


def in_order(graph: Any) -> list[Any]:
    """Copies of the nodes, each after those that it needs, found from the outputs backwards."""
    makers = {name: node for node in graph.node for name in node.output}
    ordered: dict[int, Any] = {}
    waiting = [(name, False) for name in reversed([port.name for port in graph.output])]
    while waiting:
        name, needs_met = waiting.pop()
        node = makers.get(name)
        if node is None or id(node) in ordered:
            continue
        if needs_met:
            ordered[id(node)] = node
        else:
            waiting += [(name, True), *((needed, False) for needed in reversed(node.input))]
    copies = []
    for node in ordered.values():
        copies.append(onnx.NodeProto())
        copies[-1].CopyFrom(node)
    return copies


def float16(path: Path, inputs: dict[str, np.ndarray]) -> Float16 | None:
    """Writes a variant of a graph in half precision beside it, for GPUs; its inputs and outputs keep their types.

    Nothing, and a line on standard error, where it cannot be made or its answers differ by more than allowed.
    """
    half = path.with_name(f"{path.stem}.float16.onnx")
    try:
        _convert(path, half)
        difference = _difference(run_graph(path, inputs), _run_rounded(half, inputs))
    except Exception as error:  # the converter and the checker raise what they like
        why = str(error).strip().splitlines()[0]
    else:
        if difference is not None:
            return Float16(file=half.name, sha256=manifest.sha256(half), difference=difference)
        why = "its answers differ by too much"
    half.unlink(missing_ok=True)
    print(f"{path.name} has no variant in float16: {why}", file=sys.stderr)
    return None


def _convert(path: Path, half: Path) -> None:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = convert_float_to_float16(onnx.load(path), keep_io_types=True)
    nodes = in_order(model.graph)
    del model.graph.node[:], model.graph.value_info[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, half)


def _run_rounded(half: Path, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """One run on the CPU, as on a GPU each node's outputs rounded to half precision.

    ONNX Runtime's CPU computes in float32, and leaves out the roundings between nodes, and with them a single Identity; but not two.
    """
    model, made = onnx.load(half), onnx.helper.make_node
    nodes = list(model.graph.node)
    del model.graph.node[:]
    for node in nodes:
        named = [name for name in node.output if name]
        node.output[:] = [f"{name}_exact" if name else "" for name in node.output]
        model.graph.node.append(node)
        for name in named:
            model.graph.node.append(made("Identity", [f"{name}_exact"], [f"{name}_rounded"]))
            model.graph.node.append(made("Identity", [f"{name}_rounded"], [name]))
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / half.name
        onnx.save(model, path)
        return run_graph(path, inputs, optimised=False)


def _difference(expected: dict[str, np.ndarray], found: dict[str, np.ndarray]) -> float | None:
    """The largest difference as a share of the largest value, which is 255 in pictures; nothing where it is more than allowed."""
    shares = [0.0]
    for name, ours in expected.items():
        differences = np.abs(ours.astype(np.float64) - found[name])
        if ours.dtype == np.uint8:
            allowed = differences.max() <= LEVELS and (differences <= 1).mean() >= WITHIN_A_LEVEL
            shares.append(differences.max() / 255)
        else:
            shares.append(differences.max() / max(1e-6, np.abs(ours).max()))
            allowed = shares[-1] <= RELATIVE
        if not allowed:  # nor is what is no number
            return None
    return round(float(max(shares)), 6)
