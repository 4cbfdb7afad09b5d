"""Corrupt and half-written model folders: the server says which file and why, and serves the others."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support import MODELS, Server

Damage = Callable[[Path], object]


def truncate(folder: Path) -> None:
    path = folder / "decoder.onnx"
    path.write_bytes(path.read_bytes()[:1000])


def empty(folder: Path) -> None:
    (folder / "decoder.onnx").write_bytes(b"")


def exchange(folder: Path) -> None:
    shutil.copy(MODELS / "vae" / "decoder.onnx", folder / "decoder.onnx")


def change(folder: Path, **changes: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (truncate, ["decoder.onnx", "sha256"]),
        (empty, ["decoder.onnx", "sha256"]),
        (exchange, ["decoder.onnx", "sha256"]),
        (lambda folder: (folder / "decoder.onnx").unlink(), ["decoder.onnx", "No such file"]),
        (lambda folder: (folder / "manifest.json").unlink(), ["cdcgan/manifest.json", "No such file"]),
        (lambda folder: (folder / "manifest.json").write_text('{"name": "cdc'), ["manifest.json", "JSON"]),
        (lambda folder: (folder / "manifest.json").write_text(""), ["manifest.json", "JSON"]),
        (lambda folder: change(folder, colour="red"), ["manifest.json", "colour"]),
        (lambda folder: change(folder, name="other"), ["manifest.json", "other"]),
        (lambda folder: change(folder, tasks={"fly": {"decoder": "decoder"}}, default_for=[]), ["manifest.json", "no task fly"]),
        (lambda folder: change(folder, tasks={"embed": {"encoder": "decoder"}}, default_for=[]), ["manifest.json", "encoder of embed"]),
        (lambda folder: change(folder, tasks={"digits": {}}, default_for=[]), ["manifest.json", "lacks the role decoder"]),
        (
            lambda folder: change(folder, tasks={"digits": {"decoder": "decoder", "prior": "decoder"}}, default_for=[]),
            ["manifest.json", "no role prior"],
        ),
        (
            lambda folder: change(folder, tasks={"generate": {"decoder": "decoder", "prior": "decoder"}}, default_for=[]),
            ["manifest.json", "prior of generate"],
        ),
    ],
)
def test_a_bad_folder_is_named_and_the_others_serve(start: Callable[..., Server], tmp_path: Path, damage: Damage, said: list[str]) -> None:
    models = tmp_path / "models"
    for name in ("cdcgan", "vae"):
        shutil.copytree(MODELS / name, models / name)
    damage(models / "cdcgan")
    server = start(ATELIER_MODELS=str(models))
    ready = server.until_loaded()
    assert ready.status_code == 200
    failed = next(model for model in ready.json()["models"] if not model["ready"])
    assert failed["name"] == "cdcgan"
    for words in said:
        assert words in failed["failure"]
    assert any(words in line and "cdcgan" in line for line in server.log for words in said)
    assert server.client.post("/v1/generate", json={}).status_code == 200
    answer = server.client.post("/v1/digits", json={"digits": "1", "model": "cdcgan"})
    assert (answer.status_code, answer.json()["code"]) == (503, "model_unavailable")
    assert "retry-after" in answer.headers


def test_what_load_asks_for_has_to_be_there(start: Callable[..., Server], tmp_path: Path) -> None:
    shutil.copytree(MODELS / "vae", tmp_path / "vae")
    server = start(ATELIER_MODELS=str(tmp_path), ATELIER_LOAD="vae,digits")
    ready = server.until_loaded()
    assert (ready.status_code, ready.json()["ready"]) == (503, False)
    assert any("digits" in model.get("failure", "") for model in ready.json()["models"])
    assert server.client.post("/v1/generate", json={}).status_code == 200
    assert server.client.get("/health/live").status_code == 200


def test_a_default_that_is_broken_is_not_replaced_by_another_model(start: Callable[..., Server], tmp_path: Path) -> None:
    for name in ("autoencoder", "vae"):
        shutil.copytree(MODELS / name, tmp_path / name)
    truncate(tmp_path / "vae")
    server = start(ATELIER_MODELS=str(tmp_path))
    assert server.until_loaded().status_code == 200
    answer = server.client.post("/v1/generate", json={})
    assert (answer.status_code, answer.json()["code"]) == (503, "model_unavailable")
    assert answer.json()["detail"].startswith("vae is not served: vae/decoder.onnx: its sha256")
    assert server.client.post("/v1/generate", json={"model": "autoencoder"}).status_code == 200


def test_while_a_manifest_is_unreadable_nothing_takes_the_place_of_a_default(start: Callable[..., Server], tmp_path: Path) -> None:
    for name in ("autoencoder", "vae"):
        shutil.copytree(MODELS / name, tmp_path / name)
    (tmp_path / "vae" / "manifest.json").write_text("{")
    server = start(ATELIER_MODELS=str(tmp_path))
    server.until_loaded()
    answer = server.client.post("/v1/generate", json={})
    assert (answer.status_code, answer.json()["code"]) == (503, "model_unavailable")
    assert "autoencoder" in answer.json()["detail"]
    assert "vae/manifest.json" in answer.json()["detail"]
    assert server.client.post("/v1/generate", json={"model": "autoencoder"}).status_code == 200


def test_more_classes_than_the_graph_has_are_found_at_the_start(start: Callable[..., Server], tmp_path: Path) -> None:
    shutil.copytree(MODELS / "cdcgan", tmp_path / "cdcgan")
    change(tmp_path / "cdcgan", classes=[str(number) for number in range(12)])
    ready = start(ATELIER_MODELS=str(tmp_path)).until_loaded()
    assert "the first run failed" in ready.json()["models"][0]["failure"]


@pytest.mark.parametrize("setting", [{"ATELIER_LOAD": "vae"}, {"ATELIER_PROVIDER": "cpu"}, {}])
def test_a_bad_folder_that_nobody_asked_for_does_not_block(start: Callable[..., Server], tmp_path: Path, setting: dict[str, str]) -> None:
    for name in ("autoencoder", "vae"):
        shutil.copytree(MODELS / name, tmp_path / name)
    (tmp_path / "autoencoder" / "manifest.json").write_text("{")
    assert start(ATELIER_MODELS=str(tmp_path), **setting).until_loaded().status_code == 200


def test_a_folder_that_load_names_blocks_when_bad(start: Callable[..., Server], tmp_path: Path) -> None:
    for name in ("autoencoder", "vae"):
        shutil.copytree(MODELS / name, tmp_path / name)
    (tmp_path / "autoencoder" / "manifest.json").write_text("{")
    assert start(ATELIER_MODELS=str(tmp_path), ATELIER_LOAD="vae,autoencoder").until_loaded().status_code == 503


def test_load_takes_only_what_it_names(start: Callable[..., Server]) -> None:
    server = start(ATELIER_LOAD="digits,vae-map")
    ready = server.until_loaded()
    assert (ready.status_code, {model["name"] for model in ready.json()["models"]}) == (200, {"cdcgan", "cgan", "vae-map"})
    assert server.client.post("/v1/generate", json={}).headers["x-model"].startswith("generate/vae-map@")


def test_a_provider_that_is_demanded_and_missing_is_not_ready(start: Callable[..., Server]) -> None:
    ready = start(ATELIER_PROVIDER="cuda", ATELIER_LOAD="vae").until_loaded()
    assert ready.status_code == 503
    assert "cuda was demanded" in ready.json()["models"][0]["failure"]


def test_no_models_folder(start: Callable[..., Server], tmp_path: Path) -> None:
    server = start(ATELIER_MODELS=str(tmp_path / "nowhere"))
    ready = server.until_loaded()
    assert ready.status_code == 503
    assert "cannot be read: No such file" in ready.json()["models"][0]["failure"]
    assert server.client.post("/v1/generate", json={}).json()["code"] == "model_unavailable"


def test_health_tells_provider_and_warmed_batches(server: Server) -> None:
    assert server.client.get("/health/live").json() == {"status": "live"}
    models = {model["name"]: model for model in server.client.get("/health/ready").json()["models"]}
    assert models["cdcgan"]["provider"] == "cpu"
    assert models["cdcgan"]["warmed"] == {"decoder": [1, 64]}
    assert models["srresnet"]["warmed"] == {"upscaler": [1]}  # a row of it is longer than a run may be: no run will have more
    assert models["cdcgan"]["queue_depth"] == 0


def test_the_catalogue_and_one_manifest(server: Server) -> None:
    entries = server.client.get("/v1/models").json()["models"]
    pairs = [(entry["task"], entry["name"]) for entry in entries]
    assert len(pairs) == len(set(pairs))
    for task in ("generate", "digits", "embed", "reconstruct"):
        assert [entry["default"] for entry in entries if entry["task"] == task].count(True) == 1
    entry = next(entry for entry in entries if entry["name"] == "cdcgan")
    assert {"task", "name", "default", "digest", "inputs", "outputs", "license", "metrics"} <= entry.keys()
    shown = server.client.get("/v1/models/cdcgan").json()
    stored = json.loads((MODELS / "cdcgan" / "manifest.json").read_text())
    assert shown["graphs"] == stored["graphs"]
    assert shown["training"] == stored["training"]
