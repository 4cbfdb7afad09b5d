"""The manifest: what it refuses, and what its digest covers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from service.contract.manifest import SPECIAL, Manifest, ManifestError, Metric, read, write

IMAGES = {"name": "images", "dtype": "uint8", "shape": ["batch", 28, 28, 1]}
NOISE = {"name": "noise", "dtype": "float32", "shape": ["batch", 4, 4]}
WIDE = {"name": "latents", "dtype": "float32", "shape": ["batch", 9]}
LABELS = {"name": "labels", "dtype": "int32", "shape": ["batch"]}


def valid() -> dict[str, Any]:
    port = {"name": "latents", "dtype": "float32", "shape": ["batch", 8]}
    image = {"name": "images", "dtype": "uint8", "shape": ["batch", 28, 28, 1]}
    return {
        "name": "tiny",
        "version": "1",
        "title": "Tiny",
        "description": "d",
        "limits": "l",
        "misuse": "m",
        "license": "Apache-2.0",
        "tasks": {"generate": {"decoder": "decoder"}},
        "graphs": {"decoder": {"file": "decoder.onnx", "sha256": "0" * 64, "inputs": [port], "outputs": [image], "parameters": 3}},
        "latent_dimension": 8,
        "opset": 18,
        "training": {
            "recipe": "vae",
            "variant": "improved",
            "config": {"epochs": 1},
            "seed": 0,
            "steps": 1,
            "seconds": 1.0,
            "cpu_seconds": 1.0,
            "device": "CPU",
            "backend": "tensorflow",
            "command": "python -m training fit vae",
            "data": {"source": "mnist", "title": "t", "license": "l", "origin": "o"},
        },
    }


def parsed(**changes: Any) -> Manifest:
    return Manifest.model_validate_json(json.dumps(valid() | changes))


def test_a_vocabulary_begins_with_the_special_words_and_has_others() -> None:
    assert parsed(vocabulary=[*SPECIAL, "a"]).vocabulary[-1] == "a"
    for vocabulary, said in (([*SPECIAL], "no words beside"), (["a", *SPECIAL], "does not begin with"), ([*SPECIAL, "a", "a"], "twice")):
        with pytest.raises(ValidationError, match=said):
            parsed(vocabulary=vocabulary)


def test_written_and_read_again_it_is_the_same(tmp_path: Path) -> None:
    write(parsed(), tmp_path)
    assert read(tmp_path) == parsed()
    assert [file.name for file in tmp_path.iterdir()] == ["manifest.json"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"colour": "red"}, "colour"),
        ({"schema_version": 2}, "schema_version"),
        ({"name": "../up"}, "name"),
        ({"tasks": {}}, "tasks"),
        ({"tasks": {"generate": {"decoder": "elsewhere"}}}, "elsewhere"),
        ({"default_for": ["digits"]}, "digits"),
        ({"graphs": {"decoder": {**valid()["graphs"]["decoder"], "file": "../../etc/passwd"}}}, "file"),
        ({"graphs": {"decoder": {**valid()["graphs"]["decoder"], "sha256": "abc"}}}, "sha256"),
        ({"fit": {"height": 0, "width": 28, "channels": 1}}, "height"),
        ({"fit": {"height": 28, "width": 28, "channels": 2}}, "channels"),
        ({"latent_dimension": None}, "latent_dimension"),
        ({"latent_dimension": 9}, "latent_dimension"),
        ({"graphs": {"decoder": {**valid()["graphs"]["decoder"], "inputs": [IMAGES]}}}, "fit"),
        (
            {"graphs": {"decoder": {**valid()["graphs"]["decoder"], "inputs": [IMAGES]}}, "fit": {"height": 9, "width": 28, "channels": 1}},
            "fit",
        ),
        ({"graphs": {"decoder": {**valid()["graphs"]["decoder"], "inputs": [LABELS]}}}, "classes"),
        ({"graphs": {"decoder": {**valid()["graphs"]["decoder"], "inputs": [NOISE]}}}, "noise"),
        ({"graphs": {**valid()["graphs"], "prior": {**valid()["graphs"]["decoder"], "outputs": [WIDE]}}}, "latent_dimension"),
    ],
)
def test_what_breaks_the_schema_is_named(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps(valid() | changes))
    with pytest.raises(ManifestError, match=r"manifest\.json") as caught:
        read(tmp_path)
    assert said in str(caught.value)


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"manifest\.json: No such file"):
        read(tmp_path)
    (tmp_path / "manifest.json").write_text('{"name": "ti')
    with pytest.raises(ManifestError, match=r"manifest\.json"):
        read(tmp_path)


def test_the_digest_covers_what_changes_an_answer() -> None:
    before = parsed().digest
    graph = valid()["graphs"]["decoder"]
    for changes in (
        {"graphs": {"decoder": {**graph, "sha256": "1" * 64}}},
        {"fit": {"height": 28, "width": 28, "channels": 1}},
        {"largest_picture": 1000},
        {"classes": ["0", "1"]},
    ):
        assert parsed(**changes).digest != before
    metric = Metric(value=1.0, command="c").model_dump()
    for changes in ({"metrics": {"m": metric}}, {"description": "other"}, {"default_for": ["generate"]}, {"version": "2"}):
        assert parsed(**changes).digest == before


def test_a_manifest_does_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        parsed().name = "other"


def test_the_digest_covers_a_variant_where_there_is_one() -> None:
    def digest(**variant: Any) -> str:
        return parsed(graphs={"decoder": {**valid()["graphs"]["decoder"], **variant}}).digest

    def half(sha256: str, difference: float) -> dict[str, Any]:
        return {"float16": {"file": "decoder.float16.onnx", "sha256": sha256 * 64, "difference": difference}}

    assert digest() == digest(float16=None) == parsed().digest
    assert digest(**half("1", 0.001)) == digest(**half("1", 0.002)) != digest()
    assert digest(**half("2", 0.001)) != digest(**half("1", 0.001))
