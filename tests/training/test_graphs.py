"""Variants of graphs in half precision, and the gate before them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from support import MODELS

from service.contract.manifest import read, sha256
from training import graphs


def copied(tmp_path: Path, model: str, name: str) -> tuple[Path, dict[str, np.ndarray]]:
    """A shipped graph, and its golden inputs."""
    graph = read(MODELS / model).graphs[name]
    shutil.copy(MODELS / model / graph.file, tmp_path)
    with np.load(MODELS / model / "golden" / f"{name}.npz") as stored:
        return tmp_path / graph.file, {port.name: stored[f"input.{port.name}"] for port in graph.inputs}


@pytest.mark.parametrize(("model", "name"), [("cdcgan", "decoder"), ("vae", "encoder"), ("srresnet-light", "upscaler")])
def test_a_variant_answers_nearly_the_same(tmp_path: Path, model: str, name: str) -> None:
    path, inputs = copied(tmp_path, model, name)
    variant = graphs.float16(path, inputs)
    assert variant is not None
    half = tmp_path / variant.file
    assert (half.name, sha256(half)) == (f"{name}.float16.onnx", variant.sha256)
    assert 0 < variant.difference <= 0.01
    types = {node.op_type: node for node in onnx.load(half).graph.node}
    assert types["Cast"]
    for key, ours in graphs.run_graph(path, inputs).items():
        theirs = graphs.run_graph(half, inputs)[key]
        assert theirs.dtype == ours.dtype
        assert (np.abs(ours.astype(float) - theirs) <= (3 if ours.dtype == np.uint8 else 0.01 * np.abs(ours).max())).all()


def test_what_is_beyond_half_precision_has_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its numbers end at 65,504."""
    far = helper.make_tensor("far", TensorProto.FLOAT, (), [1000.0])
    nodes = [
        helper.make_node("Constant", [], ["f"], value=far),
        helper.make_node("Mul", ["latents", "f"], ["large"]),
        helper.make_node("Mul", ["large", "f"], ["larger"]),
        helper.make_node("Div", ["larger", "f"], ["back"]),
        helper.make_node("Div", ["back", "f"], ["embedding"]),
    ]
    ports = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, ("batch", 2))] for name in ("latents", "embedding")]
    model = helper.make_model(helper.make_graph(nodes, "graph", *ports), opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, tmp_path / "graph.onnx")
    assert graphs.float16(tmp_path / "graph.onnx", {"latents": np.ones((3, 2), np.float32)}) is None
    assert "graph.onnx has no variant in float16: its answers differ by too much" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["graph.onnx"]


def test_what_cannot_be_converted_has_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, inputs = copied(tmp_path, "padim-brick", "detector")
    assert graphs.float16(path, inputs) is None
    assert "detector.onnx has no variant in float16: " in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["detector.onnx"]
