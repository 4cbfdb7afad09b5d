"""Every folder in models/: what it was exported with comes out again, and what is written about it is true."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image
from support import MODELS, ROOT

from service.contract import images
from service.contract.manifest import Manifest, read, sha256
from service.engine.cpu import usable_cores
from service.engine.session import Placement, Session
from service.engine.tiling import Grid, Mosaic
from training import card, recipes
from training.__main__ import DATA, chosen, parser
from training.graphs import unread

FOLDERS = sorted(path for path in MODELS.iterdir() if path.is_dir() and not path.name.startswith("."))


@pytest.fixture(params=FOLDERS, ids=lambda folder: folder.name)
def folder(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


@pytest.fixture
def manifest(folder: Path) -> Manifest:
    return read(folder)


def test_uploads_are_fitted_as_at_export(folder: Path, manifest: Manifest) -> None:
    uploads = sorted((folder / "golden" / "uploads").iterdir())
    with np.load(folder / "golden" / "fitted.npz") as stored:
        fitted = stored["fitted"]
    assert len(uploads) == len(fitted) >= 6
    if manifest.fit is None:
        return
    for upload, expected in zip(uploads, fitted, strict=True):
        found = images.fit(images.decode(upload.read_bytes()), manifest.fit)
        allowed = 2 if upload.suffix == ".jpg" else 0
        assert np.abs(found.astype(int) - expected).max() <= allowed, upload.name


def test_graphs_answer_as_keras_did(folder: Path, manifest: Manifest) -> None:
    for name, graph in manifest.graphs.items():
        assert sha256(folder / graph.file) == graph.sha256
        session = Session(folder / graph.file, graph, Placement("cpu", usable_cores()))
        with np.load(folder / "golden" / f"{name}.npz") as stored:
            inputs = {port.name: stored[f"input.{port.name}"] for port in graph.inputs}
            expected = {port.name: stored[f"output.{port.name}"] for port in graph.outputs}
        found = session.run(inputs)
        for key, ours in expected.items():
            difference = np.abs(found[key].astype(np.float64) - ours).max()
            assert difference <= (1 if ours.dtype == np.uint8 else 1e-3 * np.abs(ours).max()), key


def test_answers_depend_on_every_input(folder: Path, manifest: Manifest) -> None:
    for graph in manifest.graphs.values():
        assert unread(onnx.load(folder / graph.file).graph) == [], graph.file


def test_an_answer_does_not_depend_on_what_shares_its_run(folder: Path, manifest: Manifest) -> None:
    random, most = np.random.default_rng(0), manifest.largest_batch
    for graph in manifest.graphs.values():
        session = Session(folder / graph.file, graph, Placement("cpu", usable_cores()))
        numbers = len(manifest.classes or manifest.vocabulary)
        rows = {port.name: _rows(port.dtype, (most, *port.item), numbers, random) for port in graph.inputs}
        whole = session.run(rows)
        for number in range(1, most):
            part = session.run({name: values[:number] for name, values in rows.items()})
            assert all(np.array_equal(part[name], whole[name][:number]) for name in whole), (graph.file, number)
        turned = session.run({name: values[::-1] for name, values in rows.items()})
        assert all(np.array_equal(turned[name][::-1], whole[name]) for name in whole), graph.file


def _rows(dtype: str, shape: tuple[int, ...], numbers: int, random: np.random.Generator) -> np.ndarray:
    if dtype == "float32":
        return random.standard_normal(shape, np.float32)
    return random.integers(0, 256 if dtype == "uint8" else numbers, shape).astype(dtype)


def test_the_commands_of_the_card_are_commands(manifest: Manifest) -> None:
    for command in {manifest.training.command, *(metric.command for metric in manifest.metrics.values())}:
        words = shlex.split(command)
        assert words[:3] == ["python", "-m", "training"]
        options = parser(words[3:]).parse_args(words[3:])
        if words[3] == "fit":
            config = chosen(options, recipes.find(manifest.training.recipe))
            training = manifest.training
            assert config == {**training.config, "variant": training.variant}
            assert (options.seed, options.data or DATA) == (training.seed, training.data.source)
            assert tuple(options.default_for or ()) == manifest.default_for
        else:
            assert options.name == manifest.name


def test_the_card_is_that_of_the_manifest(folder: Path, manifest: Manifest) -> None:
    assert (folder / "README.md").read_text() == card.render(manifest, folder)
    assert (folder / "samples.png").exists()


def test_figures_were_measured(manifest: Manifest) -> None:
    assert manifest.metrics
    assert all(
        np.isfinite(metric.value) and metric.command.startswith("python -m training evaluate") for metric in manifest.metrics.values()
    )


@pytest.mark.parametrize("document", card.TABLES)
def test_the_documents_have_the_tables_of_the_manifests(document: str) -> None:
    text = (ROOT / document).read_text()
    assert card.with_table(document, text, [read(folder) for folder in FOLDERS]) == text, "stale: run python -m training cards"


@pytest.mark.parametrize(("source", "task"), [("mnist", "generate"), ("mnist", "digits"), ("fashion", "generate")])
def test_models_of_a_table_were_held_against_the_same_floor(source: str, task: str) -> None:
    manifests = [one for one in map(read, FOLDERS) if one.training.data.source == source and task in one.tasks]
    assert len(manifests) >= 2
    assert all("frechet_distance" in one.metrics for one in manifests)
    for figure in card.COLUMNS:
        floors = {one.metrics[figure].reference for one in manifests if figure in one.metrics}
        assert len(floors) <= 1, (figure, floors)
        assert len({one.metrics[figure].command.replace(one.name, "NAME") for one in manifests if figure in one.metrics}) <= 1, figure


def test_notes_are_finished(folder: Path) -> None:
    notes = (folder / "notes.md").read_text() if (folder / "notes.md").exists() else ""
    assert not re.search(r"@[A-Z]|TODO|XXX", notes)


def test_the_graphs_are_small_enough_to_ship(folder: Path) -> None:
    assert sum(path.stat().st_size for path in folder.glob("*.onnx")) < 12e6


def test_the_report_is_of_this_model(folder: Path, manifest: Manifest) -> None:
    report = json.loads((folder / card.REPORT).read_text())
    assert (report["model"], report["digest"]) == (manifest.name, manifest.digest)
    assert {name: figure["value"] for name, figure in report["figures"].items()} == {n: m.value for n, m in manifest.metrics.items()}


def test_the_pictures_open(folder: Path) -> None:
    pictures = list((folder / card.PICTURES).iterdir())
    assert pictures
    for path in pictures:
        with Image.open(path) as picture:
            picture.load()
            assert path.suffix != ".webp" or picture.n_frames > 1


def test_tiles_have_no_seams(folder: Path, manifest: Manifest) -> None:
    """The same place through other tiles: a picture, and the same from a tile's step further on, with all seams elsewhere."""
    if manifest.large != "tile":
        return
    ((task, roles),) = manifest.tasks.items()
    (role,) = roles
    graph, fit, scale = manifest.graphs[roles[role]], manifest.fit, manifest.scale(task, role)
    assert fit is not None
    session = Session(folder / graph.file, graph, Placement("cpu", usable_cores()))
    step = fit.height - 2 * manifest.margin
    side, shift = 2 * step + fit.height, step // 2
    with np.load(folder / "golden" / "fitted.npz") as stored:
        fitted = stored["fitted"]
    picture = np.concatenate(
        [np.concatenate([fitted[index % len(fitted)] for index in (row, row + 1, row + 2)], axis=1) for row in range(3)]
    )

    def whole(pixels: np.ndarray) -> np.ndarray:
        grid = Grid(*pixels.shape[:2], (fit.height, fit.width), manifest.margin, manifest.feather, scale)
        mosaic = Mosaic(grid, fit.channels)
        for row in range(grid.rows.number):
            mosaic.add(next(iter(session.run({"images": grid.cut(pixels, [row])}).values())), row)
        return mosaic.pixels

    one, other = whole(picture[:side, :side]), whole(picture[shift : shift + side, shift : shift + side])
    inner = slice((shift + manifest.margin) * scale, (side - manifest.margin) * scale)
    moved = slice(manifest.margin * scale, (side - manifest.margin - shift) * scale)
    assert np.abs(one[inner, inner].astype(int) - other[moved, moved]).max() <= 1
