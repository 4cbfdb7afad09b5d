"""Figures through the served path: the server's own application, or a running server by its address.

Distances between sets of pictures are measured on the features of the evaluation classifier
(training/classifier.py), each beside the floor that real pictures reach against real ones.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from service.contract.manifest import Manifest, Metric, read, write
from training import card, detection, metrics
from training.captioning import ATTENTION, measure_caption
from training.data import Dataset
from training.detecting import HEATMAPS, SCORES, measure_anomaly
from training.generation import MEASURED, Figures, flat, measure_digits, measure_generate
from training.loop import evenly, group_sheet
from training.problems import TrainingError
from training.restoring import INPAINTED, UPSCALED, measure_inpaint, measure_upscale
from training.served import Served, decoded, served
from training.translating import MATCHING, SHEET, measure_swap, measure_translate


def evaluate(
    folder: Path, data: Dataset, command: str, url: str | None = None, tasks: list[str] | None = None, references: int | None = None
) -> Manifest:
    """Measures the tasks of a model (or some of them), and writes the figures into its manifest and card.

    What they were made from goes into `report.json` and `pictures/`.

    Args:
        references: among so many training pictures, taken at random, the neighbours of embeddings are looked for.

    Raises:
        TrainingError: the model cannot be served or reached.
    """
    manifest = read(folder)
    if unknown := set(tasks or ()) - set(manifest.tasks):
        raise TrainingError(f"--tasks {', '.join(sorted(unknown))}: {manifest.name} serves {', '.join(manifest.tasks)}.")
    with tempfile.TemporaryDirectory() as place:
        drawn = Path(place)
        figures, details = asyncio.run(_measure(folder, drawn, data, url, set(manifest.tasks) & set(tasks or manifest.tasks), references))
        if broken := [name for name, (value, _, _) in figures.items() if not np.isfinite(value)]:
            raise TrainingError(f"{', '.join(broken)} of {manifest.name} cannot be measured on {data.name}: too few pictures?")
        _take(drawn, folder / card.PICTURES, replaced=() if tasks else DRAWN)
    found = {
        name: Metric(value=round(value, 6), reference=beside, reference_is=what, command=command)
        for name, (value, beside, what) in figures.items()
    }
    # without `tasks` all is measured: nothing of an earlier measurement stays, which would stand beside this one as if they were alike
    kept = {name: metric for name, metric in manifest.metrics.items() if tasks and name in card.MEANING}
    updated = manifest.model_copy(update={"metrics": {**kept, **found}})
    path = folder / card.REPORT
    _report(updated, {**(_kept_details(manifest, path) if tasks else {}), **details}, path)
    card.write(updated, folder)
    write(updated, folder)
    return updated


def _take(drawn: Path, pictures: Path, replaced: tuple[str, ...]) -> None:
    """Moves the pictures that were drawn to where the card takes them from, in place of those `replaced`."""
    pictures.mkdir(exist_ok=True)
    for name in replaced:
        (pictures / name).unlink(missing_ok=True)
    for picture in drawn.iterdir():
        shutil.move(picture, pictures / picture.name)


def _report(manifest: Manifest, details: dict[str, Any], path: Path) -> None:
    figures = {name: metric.model_dump() for name, metric in manifest.metrics.items()}
    report = {**details, "model": manifest.name, "digest": manifest.digest, "figures": figures}
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(json.dumps(report, indent=2) + "\n")
    unfinished.replace(path)


def _kept_details(manifest: Manifest, path: Path) -> dict[str, Any]:
    """What an earlier report of the same weights says beyond the figures."""
    try:
        earlier = dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return {}
    return earlier if earlier.get("digest") == manifest.digest else {}


NEIGHBOURS, SHOWN_IN_COLUMN = "neighbours.png", 8
DRAWN = (*MEASURED, NEIGHBOURS, SHEET, MATCHING, UPSCALED, INPAINTED, HEATMAPS, SCORES, ATTENTION)
"""Pictures that measuring makes."""


async def _measure(
    folder: Path, drawn: Path, data: Dataset, url: str | None, tasks: set[str], references: int | None
) -> tuple[Figures, dict[str, Any]]:
    figures: Figures = {}
    details: dict[str, Any] = {}
    measures: dict[str, Callable[[Served, Dataset, Path], Any]] = {
        "digits": measure_digits,
        "generate": measure_generate,
        "embed": partial(_embed, references=references),
        "reconstruct": _reconstruct,
        "translate": measure_translate,
        "swap": measure_swap,
        "upscale": measure_upscale,
        "inpaint": measure_inpaint,
        "anomaly": partial(measure_anomaly, known=set().union(*detection.seen(folder).values())),
        "caption": measure_caption,
    }
    async with served(folder, url) as model:
        for task, measure in measures.items():
            if task in tasks:
                found, more = await measure(model, data, drawn)
                figures |= found
                details |= more
    return figures, details


async def _embed(model: Served, data: Dataset, pictures: Path, references: int | None) -> tuple[Figures, dict[str, Any]]:
    if not data.classes:
        return {}, {}
    chosen = np.random.default_rng(0).permutation(len(data.train))[:references]
    known, labels = data.train.images[chosen], (data.train.labels[chosen], data.test.labels)
    train, test = await model.shown("embed", known), await model.shown("embed", data.test.images)
    points, queries = (np.array([answer["embedding"] for answer in answers], np.float32) for answers in (train, test))
    _neighbours(points, known, queries, data.test.images, pictures / NEIGHBOURS)
    directions_wanted = min(points.shape[1], flat(known[:1]).shape[1])
    mean, directions = metrics.principal_components(flat(data.train.images), directions_wanted)
    projected, projected_queries = ((flat(images) - mean) @ directions for images in (known, data.test.images))
    ours = metrics.neighbour_accuracy(points, labels[0], queries, labels[1])
    theirs = metrics.neighbour_accuracy(projected, labels[0], projected_queries, labels[1])
    return {"neighbour_accuracy": (ours, theirs, f"PCA of {directions_wanted} dimensions")}, {"references": len(known)}


def _neighbours(points: np.ndarray, known: np.ndarray, queries: np.ndarray, asked: np.ndarray, path: Path) -> None:
    """Test pictures, and beside each the five known ones whose embeddings are nearest; two such groups in a row."""
    chosen = evenly(np.arange(len(queries)), 2 * SHOWN_IN_COLUMN)
    nearest = np.argsort(metrics.pairwise_distances(queries[chosen], points), axis=1)[:, :5]
    sheet = group_sheet([asked[chosen], *(known[column] for column in nearest.T)], 2)
    Image.fromarray(sheet).save(path)


async def _reconstruct(model: Served, data: Dataset, pictures: Path) -> tuple[Figures, dict[str, Any]]:
    answers = await model.shown("reconstruct", data.test.images)
    back = np.stack([decoded(answer["image"]) for answer in answers])
    mean, directions = metrics.principal_components(flat(data.train.images), len(answers[0]["embedding"]))
    points = flat(data.test.images)
    projected = np.clip(np.rint(((points - mean) @ directions @ directions.T + mean) * 255), 0, 255)
    ours = metrics.peak_signal_to_noise(data.test.images, back)
    theirs = metrics.peak_signal_to_noise(data.test.images.reshape(len(points), -1), projected)
    return {"reconstruction_psnr": (ours, theirs, f"PCA of {directions.shape[1]} dimensions")}, {}
