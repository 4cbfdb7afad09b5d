"""python -m training, as a person calls it: smoke runs, resuming, a folder of pictures, and every way to get it wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
from PIL import Image
from support import MODELS, ROOT, Server, encoded, pixels

from service.contract.manifest import read, sha256
from training import recipes
from training.__main__ import main
from training.problems import TrainingError
from training.recipes import skip_ganomaly
from training.step import computed_in

Inside = Callable[..., subprocess.CompletedProcess[str]]
Failure = Callable[..., str]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "training", *arguments]


def about(checkpoint: Path) -> dict[str, Any]:
    with np.load(checkpoint) as stored:
        return dict(json.loads(str(stored["about"])))


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), cwd=folder, env=environment(), capture_output=True, text=True, timeout=600, check=False)


def until(process: subprocess.Popen[bytes], condition: Callable[[], bool]) -> None:
    """Waits for what a run that is to be stopped has to reach first."""
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        assert process.poll() is None, "the run ended before it could be stopped"
        time.sleep(0.005)


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Inside:
    """A command that is called in this process, so that Keras is loaded once, and in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        capsys.readouterr()
        try:
            code = main(list(arguments))
        except SystemExit as stopped:  # argparse
            code = int(stopped.code or 0)
        return subprocess.CompletedProcess(arguments, code, *capsys.readouterr())

    return run


@pytest.fixture
def failure(inside: Inside) -> Failure:
    """The last line of a command that has to fail."""

    def run(*arguments: str) -> str:
        result = inside(*arguments)
        assert result.returncode in (1, 2), result.stdout
        return result.stderr.strip().splitlines()[-1]

    return run


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


WIDE = ("context-encoder", "cyclegan", "cdcgan", "dcgan", "f-anogan", "pix2pix", "skip-ganomaly", "srgan", "srresnet")


SMOKED = [
    (recipe, variant)
    for recipe in recipes.NAMES
    for variant in get_args(get_type_hints(recipes.find(recipe).Config)["variant"])
    if recipe != "backbone"
]


@pytest.mark.parametrize(("recipe", "variant"), SMOKED)
def test_smoke_run_ends_in_a_model_that_serves(tmp_path: Path, inside: Inside, recipe: str, variant: str, start: type[Server]) -> None:
    # the chapter's convolutional networks are wide: a narrow one takes the same path
    narrow = ["--width", "8"] if variant == "chapter" and recipe in WIDE else []
    narrow += ["--longest", "6"] if recipe == "show-attend-tell" else []  # each word is a part of the graph that is traced
    result = inside("fit", recipe, "--smoke", "--variant", variant, *narrow, "--out", f"served/{recipe}")
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "served" / recipe
    manifest = read(folder)
    assert manifest.training.variant == variant
    assert ("prior" in manifest.graphs) == (recipe in ("autoencoder", "vae") and variant == "improved")
    assert {"README.md", "manifest.json", "samples.png", "golden"} <= {path.name for path in folder.iterdir()}
    runs = tmp_path / "runs" / "smoke" / recipe
    assert (runs / "checkpoint.npz").exists()
    if recipe != "padim":  # which minimises nothing
        assert (folder / "pictures" / "losses.png").exists()
        assert list((runs / "samples").glob("epoch-*.png"))
        assert list((runs / "tensorboard").iterdir())
    server = start(ATELIER_MODELS=str(folder.parent))
    assert server.until_loaded().status_code == 200
    task = next(
        task for task in ("digits", "generate", "translate", "swap", "upscale", "inpaint", "anomaly", "caption") if task in manifest.tasks
    )
    if task == "anomaly":
        answer = server.client.post("/v1/anomaly", files={"image": encoded(Image.new("L", (50, 40)))})
        assert np.isfinite(answer.json()["score"])
        return
    if task == "caption":
        answer = server.client.post("/v1/caption", files={"image": encoded(Image.new("RGB", (50, 40), "red"))}, data={"attention": "true"})
        assert all(np.isclose(np.sum(word["attention"]), 1, atol=1e-3) for word in answer.json()["words"])
        assert answer.json()["caption"]
        return
    if task in ("translate", "swap", "upscale", "inpaint"):
        fields = {"identity": manifest.classes[1]} if task == "swap" else {}
        files = {"image": encoded(Image.new("RGB", (50, 40), "red"))}
        files |= {"mask": encoded(Image.linear_gradient("L").resize((50, 40)))} if task == "inpaint" else {}
        answer = server.client.post(f"/v1/{task}", files=files, data=fields)
        scale = 4 if task == "upscale" else 1
        assert pixels(answer.content).shape == (40 * scale, 50 * scale, 3)
        return
    answer = server.client.post(f"/v1/{task}", json={"digits": "407"} if task == "digits" else {"n": 3})
    assert len(answer.json()["images"]) == 3


def test_variants_in_half_precision_are_listed_and_served(tmp_path: Path, inside: Inside, start: type[Server]) -> None:
    assert inside("fit", "cdcgan", "--smoke", "--float16", "--width", "8", "--out", "served/cdcgan").returncode == 0
    manifest = read(tmp_path / "served" / "cdcgan")
    variant = manifest.graphs["decoder"].float16
    assert variant is not None
    assert sha256(tmp_path / "served" / "cdcgan" / variant.file) == variant.sha256
    assert "--float16" in manifest.training.command
    assert inside("export", "smoke/cdcgan", "--out", "again/cdcgan").returncode == 0
    assert read(tmp_path / "again" / "cdcgan").graphs["decoder"].float16 is None
    settings = {"ATELIER_MODELS": str(tmp_path / "served"), "ATELIER_PRECISION": "float16"}
    for module, precision in (("faked", "float16"), ("service", "float32")):  # a GPU takes them, a CPU does not
        server = start("-m", module, PYTHONPATH=str(ROOT / "tests"), **settings)
        assert server.until_loaded().json()["models"][0]["precision"] == precision
        assert len(server.client.post("/v1/digits", json={"digits": "407"}).json()["images"]) == 3


@pytest.mark.parametrize(("recipe", "figure"), [("srresnet", "upscale_jpeg_psnr"), ("context-encoder", "inpaint_scratches_psnr")])
def test_pictures_of_any_size_are_measured(tmp_path: Path, inside: Inside, recipe: str, figure: str) -> None:
    assert inside("fit", recipe, "--smoke", "--width", "8", "--blocks", "2", "--out", "models/one").returncode == 0
    result = inside("evaluate", "one", "--data", "drawn-pairs")
    assert result.returncode == 0, result.stderr
    metric = read(tmp_path / "models" / "one").metrics[figure]
    assert np.isfinite(metric.value)
    assert metric.reference is not None


def test_a_backbone_names_what_it_sees(tmp_path: Path, inside: Inside, start: type[Server]) -> None:
    result = inside("fit", "backbone", "--smoke", "--out", "served/backbone")
    assert result.returncode == 0, result.stderr
    manifest = read(tmp_path / "served" / "backbone")
    export = inside("export", "smoke/backbone", "--out", "served/again")
    assert export.returncode == 0, export.stderr
    assert read(tmp_path / "served" / "again").digest == manifest.digest
    assert (len(manifest.classes), manifest.training.steps, manifest.training.data.title[:8]) == (1000, 0, "ImageNet")
    server = start(ATELIER_MODELS=str(tmp_path / "served"))
    assert server.until_loaded().status_code == 200
    y, x = np.mgrid[0:224, 0:224] * 255 // 224
    ramp = np.stack([y, x, (np.mgrid[0:224, 0:224].sum(axis=0) * 255) // 448], axis=-1).astype(np.uint8)
    answer = server.client.post("/v1/embed", files={"image": encoded(Image.fromarray(ramp))}, data={"model": "backbone"}).json()
    with np.load(Path(__file__).parent / "lite.npz") as kept:  # what the original gives for the same picture
        features, logits = kept["lite0.features"][1], kept["lite0.logits"][1]
    assert answer["dimension"] == len(answer["embedding"]) == 1280
    assert np.abs(np.array(answer["embedding"]) - features).max() < 0.02  # weights are stored in half precision
    odds = np.exp(logits - logits.max())
    likeliest = np.argsort(-odds)[:5]
    assert [label["label"] for label in answer["labels"]] == [manifest.classes[index] for index in likeliest]
    assert np.allclose([label["probability"] for label in answer["labels"]], (odds / odds.sum())[likeliest], atol=0.01)


def test_both_ways_of_one_run_are_exported(tmp_path: Path, inside: Inside) -> None:
    assert inside("fit", "cyclegan", "--smoke", "--width", "8", "--out", "models/there").returncode == 0
    back = inside("export", "smoke/there", "--direction", "backward", "--out", "models/back")
    assert back.returncode == 0, back.stderr
    there, back = (read(tmp_path / "models" / name) for name in ("there", "back"))
    assert (there.title, back.title) == ("CycleGAN, outline to filled", "CycleGAN, filled to outline")
    assert there.graphs["translator"].sha256 != back.graphs["translator"].sha256
    assert "--direction backward" in back.training.command
    assert inside("fit", "pix2pix", "--smoke", "--out", "models/one").returncode == 0
    refused = inside("export", "smoke/one", "--direction", "backward", "--out", "models/other")
    assert (refused.returncode, "in one direction" in refused.stderr) == (1, True)


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    options = ["fit", "autoencoder", "--data", "drawn", "--epochs", "30", "--batch-size", "32", "--width", "16", "--prior-epochs", "0"]
    options += ["--out", "models/ae"]
    whole = tmp_path / "whole"
    whole.mkdir()
    assert run(whole, *options).returncode == 0
    parts = tmp_path / "parts"
    parts.mkdir()
    process = subprocess.Popen(command(*options), cwd=parts, env=environment(), stderr=subprocess.DEVNULL)
    samples = parts / "runs" / "ae" / "samples"
    until(process, lambda: len(list(samples.glob("*.png"))) >= 3)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert not (parts / "models").exists()
    resumed = run(parts, *options, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    with np.load(whole / "runs/ae/checkpoint.npz") as one, np.load(parts / "runs/ae/checkpoint.npz") as other:
        assert json.loads(str(one["about"]))["step"] == json.loads(str(other["about"]))["step"] == 30 * (192 // 32)
        names = [name for name in one.files if name != "about"]
        assert all(np.allclose(one[name], other[name], atol=1e-3) for name in names)


@pytest.mark.parametrize("recipe", ["vae", "dcgan"])
def test_a_run_killed_in_mid_epoch_ends_as_an_unbroken_one(tmp_path: Path, recipe: str) -> None:
    options = ["fit", recipe, "--data", "drawn", "--batch-size", "32", "--width", "16", "--epochs", "5", "--checkpoint-seconds", "0.001"]
    options += ["--prior-epochs", "5"] if recipe == "vae" else ["--discriminator-steps", "2"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    assert run(whole, *options).returncode == 0
    process = subprocess.Popen(command(*options), cwd=parts, env=environment(), stderr=subprocess.DEVNULL)
    checkpoint = parts / "runs" / recipe / "checkpoint.npz"

    def in_mid_epoch() -> bool:
        step = about(checkpoint)["step"] if checkpoint.exists() else 0
        return step > 10 and step % 6 != 0  # 6 steps an epoch

    until(process, in_mid_epoch)
    process.kill()
    assert process.wait(60) == -signal.SIGKILL
    killed = about(checkpoint)
    assert 0 < killed["step"] < killed["steps"]
    resumed = run(parts, *options, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    unbroken = whole / "runs" / recipe / "checkpoint.npz"
    assert about(checkpoint)["step"] == about(unbroken)["step"] == about(unbroken)["steps"]
    with np.load(unbroken) as one, np.load(checkpoint) as other:
        names = [name for name in one.files if name != "about"]
        assert names == [name for name in other.files if name != "about"]
        for name in names:  # weights, and the optimizers' moments, averages and counters
            np.testing.assert_allclose(other[name], one[name], atol=1e-3, rtol=1e-2)
    lines = [(folder / "runs" / recipe / "scalars.csv").read_text().splitlines() for folder in (whole, parts)]
    assert [line.rpartition(",")[0] for line in lines[0]] == [line.rpartition(",")[0] for line in lines[1]]


@pytest.mark.parametrize(("recipe", "steps"), [("gan", 4), ("skip-ganomaly", 3), ("padim", 4)])
def test_a_run_on_jax_is_exported_by_tensorflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: str, steps: int) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    result = run(tmp_path, "fit", recipe, "--smoke")
    assert result.returncode == 0, result.stderr
    manifest = read(tmp_path / "runs" / "smoke" / "models" / recipe)
    assert manifest.training.backend == "jax"
    assert manifest.training.steps == steps


def test_variants_begin_with_their_own_defaults(tmp_path: Path, inside: Inside) -> None:
    options = ["fit", "gan", "--data", "drawn", "--epochs", "1", "--batch-size", "32"]
    assert inside(*options, "--variant", "chapter", "--width", "16", "--out", "models/plain").returncode == 0
    config = read(tmp_path / "models" / "plain").training.config
    assert (config["latent_dimension"], config["learning_rate"], config["width"]) == (512, 2e-4, 16)


def test_export_makes_the_same_model_of_a_finished_run(tmp_path: Path, inside: Inside) -> None:
    options = ["fit", "gan", "--data", "drawn", "--epochs", "1", "--batch-size", "32", "--width", "16", "--out", "models/small"]
    assert inside(*options).returncode == 0
    first = read(tmp_path / "models" / "small")
    shutil.rmtree(tmp_path / "models")
    result = inside("export", "small")
    assert result.returncode == 0, result.stderr
    again = read(tmp_path / "models" / "small")
    assert (again.digest, again.training) == (first.digest, first.training)
    result = inside("export", "small", "--out", "elsewhere/other")
    assert result.returncode == 0, result.stderr
    assert read(tmp_path / "elsewhere" / "other").digest == first.digest


@pytest.mark.parametrize("recipe", ["vae", "cdcgan"])
def test_a_users_own_pictures(tmp_path: Path, pictures: Path, inside: Inside, recipe: str) -> None:
    result = inside(
        "fit", recipe, "--data", f"folder:{pictures}", "--image-size", "48", "--channels", "3", "--latent-dimension", "6",
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


def test_mistakes_end_in_one_line_that_says_what_to_do(tmp_path: Path, pictures: Path, failure: Failure) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.npz").write_text("no arrays")
    (tmp_path / "file").write_text("")
    odd = {f"{kind}_{part}": np.zeros((9, 5) if kind == "x" else 9, np.uint8) for kind in "xy" for part in ("train", "test")}
    np.savez(tmp_path / "odd.npz", **odd)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "odd.npz").read_bytes()[:200])
    for arguments, said in (
        (["fit", "vae", "--data", "mnist:missing.npz"], "missing.npz"),
        (["fit", "vae", "--data", "mnist:text.npz"], "is not mnist.npz"),
        (["fit", "vae", "--data", "imagenet"], "Sources: mnist"),
        (["fit", "vae", "--data", "fashion:nowhere"], "install Debian's dataset-fashion-mnist"),
        (["fit", "vae", "--variant", "fancy"], "invalid choice"),
        (["fit", "gan", "--variant", "chapter", "--data", "drawn", "--batch-size", "5000"], "lower --batch-size"),
        (["fit", "dcgan", "--variant", "chapter", "--data", f"folder:{pictures}", "--image-size", "30"], "multiple of 4"),
        (["fit", "vae", "--data", "folder:nowhere"], "no such folder"),
        (["fit", "vae", "--data", "folder:empty"], "at least 8"),
        (["fit", "vae", "--data", f"folder:{pictures}", "--image-size", "50", "--batch-size", "8"], "multiple of"),
        (["fit", "gan", "--variant", "chapter", "--penalty", "1"], "--penalty has no effect with --variant chapter"),
        (["fit", "gan", "--smoothing", "0.1"], "--smoothing has no effect with --variant improved"),
        (["fit", "gan", "--smoke", "--discriminator-steps", "9"], "lower it"),
        (["fit", "gan", "--smoke", "--data", "mnist"], "leave --data out"),
        (["fit", "cyclegan", "--data", f"folder:{pictures / 'light'}"], "cyclegan needs two kinds of pictures; folder:"),
        (["fit", "face-swap", "--data", f"folder:{pictures / 'light'}"], "face-swap needs pictures of two identities; folder:"),
        (["fit", "pix2pix", "--data", f"folder:{pictures / 'light'}"], "--paired reads files of two pictures side by side"),
        (["fit", "pix2pix", "--data", f"folder:{pictures}"], "--paired reads files of two pictures side by side"),
        (["fit", "cyclegan", "--data", f"folder:{pictures}", "--image-size", "60"], "60: it has to be a multiple of 8, such as 64"),
        (["fit", "pix2pix", "--input", "edges", "--data", f"folder:{pictures}", "--crop", "36"], "--crop 36: it has to be a multiple of 8"),
        (["fit", "cyclegan", "--variant", "chapter", "--data", f"folder:{pictures}", "--image-size", "31"], "a multiple of 2, such as 32"),
        (["fit", "cyclegan", "--variant", "chapter", "--data", f"folder:{pictures}", "--crop", "32"], "see them whole: --crop 64"),
        (["fit", "face-swap", "--data", f"folder:{pictures}", "--channels", "1"], "The pictures are grey"),
        (["fit", "show-attend-tell", "--data", "drawn"], "learns from captions; drawn has none"),
        (["fit", "show-attend-tell", "--data", "drawn-scenes", "--fewest", "100000"], "no word is used 100000 times: lower --fewest"),
        (["fit", "gan", "--average", "1"], "not below 1"),
        (["fit", "gan", "--learning-rate", "inf"], "not below infinity"),
        (["fit", "vae", "--prior-epochs", "-1"], "below 0"),
        (["fit", "vae", "--epochs", "1.5"], "not a whole number"),
        (["evaluate", "vae", "--references", "5"], "below 6"),
        (["fit", "vae", "--data", f"folder:{pictures}", "--channels", "2"], "--channels 2"),
        (["fit", "vae", "--data", "drawn", "--batch-size", "5000"], "lower --batch-size"),
        (["fit", "vae", "--data", "drawn", "--epochs", "0"], "not above 0"),
        (["fit", "vae", "--data", "drawn", "--learning-rate", "high"], "not a number"),
        (["fit", "vae", "--colour", "red"], "--colour"),
        (["fit", "magic"], "magic"),
        (["fit", "vae", "--data", "drawn", "--resume"], "leave out --resume"),
        (["fit", "vae", "--data", "drawn", "--epochs", "1", "--out", "models/My Model"], "name"),
        (["fit", "autoencoder", "--data", "drawn", "--epochs", "9", "--learning-rate", "1e30", "--out", "models/x"], "--learning-rate"),
        (["fit", "vae", "--smoke", "--out", "file/model"], "file"),
        (["fit", "vae", "--data", "mnist:cut.npz"], "is not mnist.npz"),
        (["fit", "vae", "--data", "mnist:odd.npz"], "(n, 28, 28)"),
        (["fit", "vae", "--seed", "-1"], "whole number"),
        (["fit", "vae", "--smoke", "--default-for", "digits"], "vae serves embed"),
        (["classifier", "--data", "drawn"], "kept for mnist"),
        (["export", "nobody"], "does not exist"),
        (["evaluate", "nobody", "--data", "drawn"], "there is no model nobody in models/: --models FOLDER"),
        (["calibrate", "nobody", "--data", "drawn", "--models", "elsewhere"], "there is no model nobody in elsewhere/"),
        (["maps", "nobody"], "there is no model nobody"),
        (["evaluate", "vae", "--models", str(MODELS), "--data", "drawn", "--tasks", "fly"], "serves embed"),
    ):  # fmt: skip
        line = failure(*arguments)
        assert said in line, (arguments, line)


@pytest.mark.parametrize("recipe", ["cdcgan", "cgan"])
def test_without_classes_a_conditional_model_says_how_to_give_some(pictures: Path, failure: Failure, recipe: str) -> None:
    line = failure("fit", recipe, "--data", f"folder:{pictures / 'light'}", "--image-size", "32")
    assert "subfolder" in line


def test_resuming_with_other_options_is_refused(failure: Failure, inside: Inside) -> None:
    options = ["fit", "gan", "--smoke", "--out", "models/ae"]
    assert inside(*options).returncode == 0
    line = failure(*options, "--resume", "--latent-dimension", "5")
    assert "latent_dimension 128 (not 5)" in line


def test_resuming_with_other_pictures_is_refused(pictures: Path, failure: Failure, inside: Inside) -> None:
    options = ["fit", "gan", "--data", f"folder:{pictures}", "--image-size", "16", "--batch-size", "4", "--width", "16"]
    options += ["--epochs", "1", "--out", "models/ae"]
    assert inside(*options).returncode == 0
    assert inside(*options, "--resume").returncode == 0
    Image.new("RGB", (40, 50)).save(pictures / "dark" / "0.png")
    for arguments in ([*options, "--resume"], ["export", "ae"]):
        assert "was written with pictures" in failure(*arguments)


def test_a_model_of_another_run_is_not_replaced_unasked(tmp_path: Path, failure: Failure, inside: Inside) -> None:
    options = ["fit", "gan", "--smoke", "--seed", "1", "--out", "models/ae"]
    assert inside(*options).returncode == 0
    assert inside(*options, "--resume").returncode == 0
    shutil.rmtree(tmp_path / "models" / "ae")
    shutil.copytree(MODELS / "gan", tmp_path / "models" / "ae")
    for arguments in (options, [*options, "--resume"], ["export", "smoke/ae", "--out", "models/ae"]):
        assert "is a model already" in failure(*arguments)
    assert inside("export", "smoke/ae").returncode == 0
    assert read(tmp_path / "runs" / "smoke" / "models" / "ae").training.seed == 1
    assert read(tmp_path / "models" / "ae").digest == read(MODELS / "gan").digest
    assert inside("export", "smoke/ae", "--out", "models/ae", "--overwrite").returncode == 0
    assert "--smoke" in read(tmp_path / "models" / "ae").training.command


def test_a_finished_run_is_not_lost_by_mistake(tmp_path: Path, failure: Failure, inside: Inside) -> None:
    options = ["fit", "gan", "--data", "drawn", "--epochs", "1", "--batch-size", "32", "--width", "16"]
    assert inside(*options, "--out", "first/ae").returncode == 0
    assert "holds a finished run" in failure(*options, "--out", "second/ae")
    assert inside(*options, "--out", "second/ae", "--overwrite").returncode == 0
    assert read(tmp_path / "first" / "ae").digest == read(tmp_path / "second" / "ae").digest
    # as if the first had taken longer: the same command, but the run is not the one that it came of
    longer = (tmp_path / "first" / "ae" / "manifest.json").read_text().replace('"seconds": ', '"seconds": 9')
    (tmp_path / "first" / "ae" / "manifest.json").write_text(longer)
    assert "is a model already" in failure("export", "ae", "--out", "first/ae")
    assert inside("export", "ae", "--out", "second/ae").returncode == 0


def test_an_export_keeps_what_belongs_to_the_weights(tmp_path: Path, inside: Inside) -> None:
    assert inside("fit", "gan", "--smoke", "--out", "models/tiny", "--default-for", "generate").returncode == 0
    assert inside("evaluate", "tiny").returncode == 0
    folder = tmp_path / "models" / "tiny"
    (folder / "notes.md").write_text("Known to be tiny.\n")
    report = json.loads((folder / "report.json").read_text())
    assert report["figures"]["milliseconds_alone"]["command"] == "python -m training evaluate tiny"
    before = read(folder)
    assert inside("export", "smoke/tiny", "--out", "models/tiny").returncode == 0
    after = read(folder)
    assert (after.default_for, after.metrics, after.training) == (("generate",), before.metrics, before.training)
    assert after.training.command.endswith("--out models/tiny --default-for generate")
    assert json.loads((folder / "report.json").read_text()) == report
    assert "Known to be tiny." in (folder / "README.md").read_text()
    assert inside("export", "smoke/tiny", "--out", "models/tiny", "--default-for").returncode == 0
    assert read(folder).default_for == ()
    assert "--default-for" not in read(folder).training.command


def test_pictures_that_moved_are_the_same_pictures(tmp_path: Path, pictures: Path, inside: Inside) -> None:
    place = tmp_path / "my parts"
    pictures.rename(place)
    options = ["--image-size", "16", "--batch-size", "4", "--width", "16", "--epochs", "1", "--out", "models/ae"]
    assert inside("fit", "gan", "--data", f"folder:{place}", *options).returncode == 0
    first = read(tmp_path / "models" / "ae")
    assert f"--data 'folder:{place}'" in first.training.command
    place.rename(tmp_path / "moved")
    result = inside("export", "ae", "--data", f"folder:{tmp_path / 'moved'}")
    assert result.returncode == 0, result.stderr
    again = read(tmp_path / "models" / "ae")
    assert again.digest == first.digest
    assert again.training.data.source == f"folder:{tmp_path / 'moved'}"
    result = inside("fit", "gan", "--data", f"folder:{tmp_path / 'moved'}", *options, "--resume")
    assert result.returncode == 0, result.stderr


def test_the_classifier_that_figures_were_measured_with_is_not_replaced_unasked(tmp_path: Path, failure: Failure) -> None:
    digits = {f"{kind}_{part}": np.zeros((20, 28, 28) if kind == "x" else 20, np.uint8) for kind in "xy" for part in ("train", "test")}
    np.savez(tmp_path / "few.npz", **digits)
    assert "mnist.npz is there" in failure("classifier", "--data", f"mnist:{tmp_path / 'few.npz'}")


def test_measuring_one_task_keeps_what_the_others_are_made_of(tmp_path: Path, inside: Inside) -> None:
    assert inside("fit", "vae", "--smoke", "--prior-epochs", "0", "--out", "models/tiny").returncode == 0
    folder = tmp_path / "models" / "tiny"
    assert inside("evaluate", "tiny").returncode == 0
    report = json.loads((folder / "report.json").read_text())
    (folder / "report.json").write_text(json.dumps({**report, "class_shares": {"0": 1.0}}))
    (folder / "pictures" / "nearest.png").write_bytes((folder / "samples.png").read_bytes())
    assert inside("evaluate", "tiny", "--tasks", "reconstruct").returncode == 0
    assert (folder / "pictures" / "nearest.png").exists()
    again = json.loads((folder / "report.json").read_text())
    assert again["class_shares"] == {"0": 1.0}
    commands = {name: figure["command"].partition(" --tasks ")[2] for name, figure in again["figures"].items()}
    assert commands["reconstruction_psnr"] == "reconstruct"
    assert commands["milliseconds_alone"] == ""
    (folder / "report.json").write_text("{")
    assert inside("evaluate", "tiny").returncode == 0
    assert "class_shares" not in json.loads((folder / "report.json").read_text())
    assert not (folder / "pictures" / "nearest.png").exists()  # of an earlier measurement, for all that was known
    assert (folder / "pictures" / "losses.png").exists()


def test_a_run_that_starts_afresh_forgets_the_finished_one(tmp_path: Path, inside: Inside) -> None:
    options = ["fit", "gan", "--smoke", "--out", "models/ae"]
    assert inside(*options).returncode == 0
    assert inside(*options, "--overwrite", "--learning-rate", "1e30").returncode == 1
    assert not (tmp_path / "runs" / "smoke" / "ae" / "checkpoint.npz").exists()


def test_a_full_disk_is_said_and_loses_nothing(tmp_path: Path) -> None:
    options = ["fit", "gan", "--data", "drawn", "--epochs", "2", "--batch-size", "32", "--width", "16", "--out", "models/ae"]
    limited = ["sh", "-c", 'ulimit -f 100; exec "$@"', "sh", *command(*options)]  # no file above 50 KB, as on a disk that is full
    result = subprocess.run(limited, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=600, check=False)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "Free some space" in result.stderr.splitlines()[-1]
    assert run(tmp_path, *options).returncode == 0


def test_an_unfinished_run_is_not_lost_by_mistake(tmp_path: Path, failure: Failure) -> None:
    options = ["fit", "autoencoder", "--data", "drawn", "--epochs", "400", "--batch-size", "32", "--width", "16", "--prior-epochs", "0"]
    options += ["--out", "models/ae"]
    process = subprocess.Popen(command(*options), cwd=tmp_path, env=environment(), stderr=subprocess.DEVNULL)
    until(process, (tmp_path / "runs" / "ae" / "samples").exists)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 130
    assert "--resume goes on" in failure(*options)
    assert "finish it" in failure("export", "ae")
    checkpoint = tmp_path / "runs" / "ae" / "checkpoint.npz"
    checkpoint.write_bytes(checkpoint.read_bytes()[:5000])
    assert "is damaged" in failure(*options, "--resume")
    assert "--overwrite starts afresh" in failure(*options)


def test_what_is_no_model_is_not_replaced(pictures: Path, failure: Failure, inside: Inside) -> None:
    assert "is no model" in failure("fit", "vae", "--smoke", "--out", str(pictures))
    assert len(list(pictures.rglob("*.png"))) == 40
    options = ["fit", "gan", "--smoke", "--out", "models/ae"]
    assert inside(*options).returncode == 0
    assert "is a model already" in failure(*options)
    assert inside(*options, "--overwrite").returncode == 0


def test_a_handful_of_pictures_is_enough(tmp_path: Path, inside: Inside) -> None:
    (tmp_path / "few").mkdir()
    for index in range(9):
        Image.new("RGB", (30, 20), (index * 20, 100, 0)).save(tmp_path / "few" / f"{index}.jpg")
    options = [
        "--data",
        "folder:few",
        "--image-size",
        "16",
        "--batch-size",
        "4",
        "--epochs",
        "1",
        "--width",
        "16",
        "--latent-dimension",
        "2",
    ]
    result = inside("fit", "gan", *options, "--out", "models/few")
    assert result.returncode == 0, result.stderr
    assert "--data folder:few --image-size 16 --channels 3" in (tmp_path / "models" / "few" / "README.md").read_text()


def test_evaluate_measures_through_the_server_into_manifest_and_card(tmp_path: Path, inside: Inside) -> None:
    assert inside("fit", "vae", "--smoke", "--out", "models/tiny").returncode == 0
    before = read(tmp_path / "models" / "tiny")
    result = inside("evaluate", "tiny", "--data", "drawn")
    assert result.returncode == 0, result.stderr
    after = read(tmp_path / "models" / "tiny")
    assert after.digest == before.digest
    assert {
        "neighbour_accuracy",
        "reconstruction_psnr",
        "nearest_training_distance_pixels",
        "milliseconds_per_picture",
        "milliseconds_alone",
    } == after.metrics.keys()
    assert 0.1 < after.metrics["neighbour_accuracy"].value <= 1
    assert after.metrics["reconstruction_psnr"].command == "python -m training evaluate tiny"  # it was trained on drawn digits
    report = json.loads((tmp_path / "models" / "tiny" / "report.json").read_text())
    assert (report["digest"], report["figures"].keys()) == (after.digest, after.metrics.keys())
    assert "PSNR of reconstructed test pictures" in (tmp_path / "models" / "tiny" / "README.md").read_text()
    assert "reconstruction psnr" in result.stdout


def test_evaluate_measures_a_running_server(server: Server, tmp_path: Path, failure: Failure, inside: Inside) -> None:
    (tmp_path / "models").mkdir()
    shutil.copytree(MODELS / "cdcgan", tmp_path / "models" / "cdcgan")
    line = failure("evaluate", "cdcgan", "--data", "drawn", "--url", "http://127.0.0.1:9")
    assert "cannot be reached" in line
    result = inside("evaluate", "cdcgan", "--data", "drawn", "--url", server.url)
    assert result.returncode == 0, result.stderr
    assert "nearest training distance" in result.stdout


def test_list_names_recipes_and_sources(tmp_path: Path) -> None:
    result = run(tmp_path, "list")
    assert result.returncode == 0
    for name in ("autoencoder", "cdcgan", "cgan", "dcgan", "gan", "vae", "mnist", "fashion", "folder"):
        assert name in result.stdout


def test_a_run_in_half_precision_exports_a_model_that_says_so(tmp_path: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    result = inside("fit", "autoencoder", "--smoke", "--precision", "bfloat16")  # its ONNX file has to give what Keras gives in float32
    assert result.returncode == 0, result.stderr
    assert "--precision bfloat16" in read(tmp_path / "runs" / "smoke" / "models" / "autoencoder").training.command
    monkeypatch.setattr("training.step._BACKEND", "jax")
    with pytest.raises(TrainingError, match="--precision bfloat16 is for TensorFlow on a CPU"), computed_in("bfloat16"):
        pass


@pytest.mark.parametrize(
    ("settings", "kinds", "axes"), [((), "plain", []), (("--forgeries", "varied", "--mirrored", "both"), "varied", [2, 1])]
)
def test_what_a_restorer_learns_from_is_forged_and_mirrored_as_asked(
    inside: Inside, monkeypatch: pytest.MonkeyPatch, settings: tuple[str, ...], kinds: str, axes: list[int]
) -> None:
    forged, mirrored = [], []
    forge, mirror = skip_ganomaly.forging.forged, skip_ganomaly.mirrored
    monkeypatch.setattr(
        skip_ganomaly.forging, "forged", lambda *given, **named: forged.append((*given, *named.values())) or forge(*given, **named)
    )
    monkeypatch.setattr(skip_ganomaly, "mirrored", lambda *given, axis=2: mirrored.append(axis) or mirror(*given, axis=axis))
    result = inside("fit", "skip-ganomaly", "--smoke", "--width", "8", *settings)
    assert result.returncode == 0, result.stderr
    assert {given[-1] for given in forged} == {kinds}
    assert mirrored[:2] == axes
