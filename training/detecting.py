"""Figures of detectors of anomalies, through the server: how well they tell bad pictures from normal ones, and find what is bad."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from service.contract.manifest import Normal
from training import detection, metrics
from training.data import Dataset
from training.generation import flat
from training.loop import evenly, group_sheet
from training.served import Served, decoded

HEATMAPS, SCORES = "heatmaps.png", "scores.png"
SHOWN = 12
EXPLAINED = 0.95
"""Share of the variance that the principal components keep with which a detector is compared. Not chosen by any figure."""
FITTED = 4000

Figures = dict[str, tuple[float, float | None, str | None]]


async def measure_anomaly(model: Served, data: Dataset, folder: Path, known: set[str]) -> tuple[Figures, dict[str, Any]]:
    """Scores and heatmaps of the test pictures, those of the normal class against all others.

    Of a folder that the model was not fitted on, all normal pictures are test pictures, but for those that it has seen.

    Args:
        known: digests of the pictures that it has seen (detection.seen).

    Raises:
        TrainingError: there are no normal pictures.
    """
    manifest = model.manifest
    normal, number = manifest.normal, manifest.training.config["normal"]
    assert normal is not None
    label = detection.label_of(data, number)
    good = detection.unseen(data, manifest, data.test, known)
    anomalous = data.test.labels != label
    bad = data.test.images[anomalous]
    answers = await model.shown("anomaly", np.concatenate([good, bad]))
    scores = np.array([answer["score"] for answer in answers])
    negatives, positives = scores[: len(good)], scores[len(good) :]
    figures: Figures = {"flagged_normals": (float((negatives > normal.threshold).mean()), normal.promised, "promised at most")}
    details: dict[str, Any] = {"normal": len(good), "anomalous": len(bad)}
    _histogram(negatives, positives, normal, folder / SCORES)
    if not len(bad):
        return figures, details
    levels = np.stack([decoded(answer["heatmap"])[..., 0] for answer in answers])
    figures |= _picture_figures(negatives, positives, normal, data, number, good, bad)
    masks = None
    if data.test.masks is not None:
        masks = np.concatenate([np.zeros((len(good), *data.shape[:2]), bool), data.test.masks[anomalous]])
        figures |= _pixel_figures(levels, masks)
    kinds = data.test.labels[anomalous]
    details["auroc_by_kind"] = {
        data.classes[kind]: round(metrics.auroc(negatives, positives[kinds == kind]), 4) for kind in np.unique(kinds)
    }
    _sheet(np.concatenate([good, bad]), answers, levels, masks, len(good), folder / HEATMAPS)
    return figures, details


def _picture_figures(
    negatives: np.ndarray, positives: np.ndarray, normal: Normal, data: Dataset, number: int, good: np.ndarray, bad: np.ndarray
) -> Figures:
    fitted = detection.normals(data, data.train, number)[:FITTED]
    peer, new = Components(fitted), detection.without(good, set(detection.digests(fitted)))
    theirs = metrics.auroc(peer(new), peer(bad)) if len(new) else None
    return {
        "anomaly_auroc": (metrics.auroc(negatives, positives), theirs, "what principal components leave of the picture"),
        "anomaly_f1": (metrics.f1(negatives, positives, normal.threshold), None, None),
        "found_anomalies": (float((positives > normal.threshold).mean()), None, None),
    }


def _pixel_figures(levels: np.ndarray, masks: np.ndarray) -> Figures:
    return {
        "anomaly_pixel_auroc": (metrics.auroc(levels[~masks], levels[masks]), None, None),
        "anomaly_region_overlap": (metrics.region_overlap(levels, masks), None, None),
    }


class Components:
    """What the principal components of normal pictures leave of others: the mean squared difference (n,)."""

    def __init__(self, pictures: np.ndarray) -> None:
        points = flat(pictures)
        most = min(points.shape) - 1
        self.mean, directions = metrics.principal_components(points, most)
        variance = ((points - self.mean) @ directions).var(axis=0)
        kept = int(np.searchsorted(np.cumsum(variance) / variance.sum(), EXPLAINED)) + 1
        self.directions = directions[:, :kept]

    def __call__(self, pictures: np.ndarray) -> np.ndarray:
        points = flat(pictures) - self.mean
        return np.asarray(((points - points @ self.directions @ self.directions.T) ** 2).mean(axis=1))


def _histogram(negatives: np.ndarray, positives: np.ndarray, normal: Normal, path: Path) -> None:
    """How scores are distributed, and where the threshold is."""
    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    low, high = (float(np.percentile(np.concatenate([negatives, positives]), q)) for q in (0, 99))
    bins = np.linspace(low, max(high, 1.1 * normal.threshold), 60)
    for values, name in ((negatives, "normal"), (positives, "anomalous")):
        if len(values):
            axes.hist(values.clip(max=bins[-1]), bins.tolist(), alpha=0.6, density=True, label=f"{name} ({len(values):,})")
    axes.axvline(normal.threshold, color="black", linestyle="--", label="threshold")
    axes.set(xlabel="score", yticks=[])
    axes.legend()
    figure.savefig(path, dpi=100)


def _sheet(
    pictures: np.ndarray, answers: list[dict[str, Any]], levels: np.ndarray, masks: np.ndarray | None, good: int, path: Path
) -> None:
    """Some normal pictures, then anomalous ones, three groups in a row: the picture, what normal would have been (if the model says so),
    errors in red, where they are above the threshold, and (if it is known) where the defect is."""
    chosen = np.concatenate([evenly(np.arange(good), SHOWN // 3), good + evenly(np.arange(len(pictures) - good), SHOWN - SHOWN // 3)])
    shown = _coloured(pictures[chosen])

    def answered(name: str) -> np.ndarray:
        return _coloured(np.stack([decoded(answers[index][name]) for index in chosen]))

    columns = [shown]
    if "reconstruction" in answers[0]:
        columns.append(answered("reconstruction"))
    heat = levels[chosen][..., None].astype(np.float32) / 255
    columns.append(np.rint(shown * (1 - heat) + np.array([255, 0, 0], np.float32) * heat).astype(np.uint8))
    columns.append(answered("mask"))
    if masks is not None:
        columns.append(_coloured(masks[chosen][..., None] * np.uint8(255)))
    Image.fromarray(group_sheet(columns, 3)).save(path)


def _coloured(pictures: np.ndarray) -> np.ndarray:
    """Grey or coloured pictures (n, h, w, c) as coloured ones."""
    return np.repeat(pictures, 3, axis=-1) if pictures.shape[-1] == 1 else pictures
