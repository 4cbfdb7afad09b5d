"""python -m training, as a person calls it: smoke runs, resuming, a folder of pictures, and every way to get it wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import ROOT, Server

from service.contract.manifest import read


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "training", *arguments]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), cwd=folder, env=environment(), capture_output=True, text=True, timeout=120, check=False)


def failure(folder: Path, *arguments: str) -> str:
    """The last line of a command that has to fail, which has to be no traceback."""
    result = run(folder, *arguments)
    assert result.returncode in (1, 2), result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr.strip().splitlines()[-1]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Forty small colour pictures in two classes, one of them damaged."""
    random = np.random.default_rng(0)
    for name, base in (("dark", 0), ("light", 150)):
        (tmp_path / "parts" / name).mkdir(parents=True)
        for index in range(20):
            noise = random.integers(base, base + 100, (40, 50, 3), np.uint8)
            Image.fromarray(noise).save(tmp_path / "parts" / name / f"{index}.png")
    (tmp_path / "parts" / "dark" / "broken.jpg").write_bytes(b"nothing")
    return tmp_path / "parts"


@pytest.mark.parametrize("recipe", ["autoencoder", "cdcgan", "vae"])
def test_smoke_run_ends_in_a_model_that_serves(tmp_path: Path, recipe: str, start: type[Server]) -> None:
    result = run(tmp_path, "fit", recipe, "--smoke", "--out", f"served/{recipe}")
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "served" / recipe
    manifest = read(folder)
    assert {"README.md", "manifest.json", "samples.png", "golden"} <= {path.name for path in folder.iterdir()}
    assert (tmp_path / "runs" / recipe / "checkpoint.npz").exists()
    assert list((tmp_path / "runs" / recipe / "samples").glob("epoch-*.png"))
    assert list((tmp_path / "runs" / recipe / "tensorboard").iterdir())
    server = start(ATELIER_MODELS=str(folder.parent))
    assert server.until_loaded().status_code == 200
    body: dict[str, object] = {"digits": "407"} if recipe == "cdcgan" else {"n": 3}
    answer = server.client.post(f"/v1/{next(t for t in ('digits', 'generate') if t in manifest.tasks)}", json=body)
    assert len(answer.json()["images"]) == 3


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    options = ["fit", "autoencoder", "--data", "drawn", "--epochs", "60", "--batch-size", "32", "--width", "16", "--out", "models/ae"]
    whole = tmp_path / "whole"
    whole.mkdir()
    assert run(whole, *options).returncode == 0
    parts = tmp_path / "parts"
    parts.mkdir()
    process = subprocess.Popen(command(*options), cwd=parts, env=environment(), stderr=subprocess.DEVNULL)
    samples = parts / "runs" / "ae" / "samples"
    deadline = time.monotonic() + 60
    while len(list(samples.glob("*.png")) if samples.exists() else []) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert not (parts / "models").exists()
    resumed = run(parts, *options, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    with np.load(whole / "runs/ae/checkpoint.npz") as one, np.load(parts / "runs/ae/checkpoint.npz") as other:
        assert json.loads(str(one["about"]))["step"] == json.loads(str(other["about"]))["step"] == 60 * (192 // 32)
        names = [name for name in one.files if name != "about"]
        assert all(np.allclose(one[name], other[name], atol=1e-3) for name in names)


def test_export_makes_the_same_model_of_a_finished_run(tmp_path: Path) -> None:
    options = ["fit", "vae", "--data", "drawn", "--epochs", "1", "--batch-size", "32", "--width", "16", "--out", "models/small"]
    assert run(tmp_path, *options).returncode == 0
    first = read(tmp_path / "models" / "small")
    shutil.rmtree(tmp_path / "models")
    result = run(tmp_path, "export", "small")
    assert result.returncode == 0, result.stderr
    assert read(tmp_path / "models" / "small").training == first.training


@pytest.mark.parametrize("recipe", ["vae", "cdcgan"])
def test_a_users_own_pictures(tmp_path: Path, pictures: Path, recipe: str) -> None:
    result = run(
        tmp_path, "fit", recipe, "--data", f"folder:{pictures}", "--image-size", "48", "--channels", "3", "--latent-dimension", "6",
        "--epochs", "1", "--batch-size", "8", "--width", "16", "--out", f"models/my-{recipe}",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "broken.jpg is left out" in result.stderr
    manifest = read(tmp_path / "models" / f"my-{recipe}")
    assert manifest.latent_dimension == 6
    shapes = [port.shape[1:] for graph in manifest.graphs.values() for port in graph.outputs if port.name == "images"]
    assert shapes == [(48, 48, 3)]
    if recipe == "cdcgan":
        assert manifest.classes == ("dark", "light")


def test_mistakes_end_in_one_line_that_says_what_to_do(tmp_path: Path, pictures: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.npz").write_text("no arrays")
    (tmp_path / "file").write_text("")
    for arguments, said in (
        (["fit", "vae", "--data", "mnist:missing.npz"], "missing.npz"),
        (["fit", "vae", "--data", "mnist:text.npz"], "is not mnist.npz"),
        (["fit", "vae", "--data", "imagenet"], "Sources: mnist"),
        (["fit", "vae", "--data", "folder:nowhere"], "no such folder"),
        (["fit", "vae", "--data", "folder:empty"], "at least 8"),
        (["fit", "vae", "--data", f"folder:{pictures}", "--image-size", "50"], "multiple of"),
        (["fit", "vae", "--data", f"folder:{pictures}", "--channels", "2"], "--channels 2"),
        (["fit", "vae", "--data", "drawn", "--batch-size", "5000"], "lower --batch-size"),
        (["fit", "vae", "--data", "drawn", "--epochs", "0"], "not above 0"),
        (["fit", "vae", "--data", "drawn", "--epochs", "many"], "not a number"),
        (["fit", "vae", "--colour", "red"], "--colour"),
        (["fit", "magic"], "magic"),
        (["fit", "vae", "--data", "drawn", "--resume"], "leave out --resume"),
        (["fit", "vae", "--data", "drawn", "--epochs", "1", "--out", "models/My Model"], "name"),
        (["fit", "autoencoder", "--data", "drawn", "--epochs", "1", "--learning-rate", "1e30", "--out", "models/x"], "--learning-rate"),
        (["fit", "vae", "--smoke", "--out", "file/model"], "file"),
        (["export", "nobody"], "does not exist"),
        (["evaluate", "nobody", "--data", "drawn"], "manifest.json"),
    ):  # fmt: skip
        line = failure(tmp_path, *arguments)
        assert said in line, (arguments, line)


def test_cdcgan_without_classes_says_how_to_give_some(tmp_path: Path, pictures: Path) -> None:
    line = failure(tmp_path, "fit", "cdcgan", "--data", f"folder:{pictures / 'light'}", "--image-size", "32")
    assert "subfolder" in line


def test_resuming_with_other_options_is_refused(tmp_path: Path) -> None:
    options = ["fit", "autoencoder", "--smoke", "--out", "models/ae"]
    assert run(tmp_path, *options).returncode == 0
    line = failure(tmp_path, *options, "--resume", "--latent-dimension", "5")
    assert "latent_dimension 2 (not 5)" in line


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    full = tmp_path / "runs"
    full.symlink_to("/dev/full")
    line = failure(tmp_path, "fit", "autoencoder", "--smoke", "--out", "models/ae")
    assert "runs" in line


def test_list_names_recipes_and_sources(tmp_path: Path) -> None:
    result = run(tmp_path, "list")
    assert result.returncode == 0
    for name in ("autoencoder", "cdcgan", "vae", "mnist", "folder"):
        assert name in result.stdout
