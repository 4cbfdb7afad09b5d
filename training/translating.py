"""Figures of translators and swappers on pictures that they have not seen, and the sheet that shows them.

Features are those of EfficientNet-Lite1, which is in no loss and chooses no checkpoint. Where pairs agree pixel by pixel, each figure
stands beside what the best table from colour to colour reaches that the training pairs give; else beside that of the untouched input.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from training import metrics
from training.backbone import Features
from training.data import Dataset, Split, edges
from training.loop import evenly, group_sheet
from training.problems import TrainingError
from training.served import Served, decoded

SHOWN = 12
GALLERY, NEAREST = 200, 5
RIDGES = (1e-3, 1e-2, 1e-1, 1.0)
SHEET, MATCHING = "translations.png", "matching.png"
GAP = 14
FEWEST = 500
"""Pictures without which distances between sets of them say little."""
BITS = range(3, 8)
"""Of each channel, among which the colour table's fineness is chosen by the validation pairs."""

Figures = dict[str, tuple[float, float | None, str | None]]
Measure = Callable[[np.ndarray], float]
Judge = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Group:
    """Pictures uint8 (n, h, w, c) that went in, came out and should have, and the label of the kind that they should be of."""

    given: np.ndarray
    made: np.ndarray
    truth: np.ndarray
    label: int


async def measure_translate(model: Served, data: Dataset, folder: Path) -> tuple[Figures, dict[str, Any]]:
    """What becomes of the test pairs' first pictures, beside their second ones; or of edges of pictures, beside these.

    Raises:
        TrainingError: the data has no pairs.
    """
    config = model.manifest.training.config
    backward, drawn = config.get("direction") == "backward", config.get("input") == "edges"
    find = _sketches if drawn else partial(_pairs, backward=backward, model=model.model)
    given, truth = find(data, data.test)
    made = np.stack([decoded(answer["image"]) for answer in await model.shown("translate", given)])
    _sheet(given, made, truth, folder / SHEET)
    details = {"pairs": len(given), "matching": _matching(made, truth, folder / MATCHING)}
    if not data.aligned and not drawn:
        return _likeness([Group(given, made, truth, 0 if backward else 1)], data), details
    training, checks = (find(data, split) for split in (data.train, data.validation))
    table = ColourTable.best(*training, *checks)
    return _closeness(made, table(given), truth, "a table from colour to colour"), details | {"table_bits": table.bits}


async def measure_swap(model: Served, data: Dataset, folder: Path) -> tuple[Figures, dict[str, Any]]:
    """What becomes of both identities' test pictures, each drawn as the other.

    Raises:
        TrainingError: the data has no pairs, or other identities than the model.
    """
    if data.classes != model.manifest.classes:
        raise TrainingError(f"--data {data.name} has the identities {', '.join(data.classes) or 'none'}; {model.model} others.")
    groups = []
    for label, identity in enumerate(data.classes):
        given, truth = _pairs(data, data.test, label == 0, model.model)
        answers = await model.shown("swap", given, identity=identity)
        groups.append(Group(given, np.stack([decoded(answer["image"]) for answer in answers]), truth, label))
    given, made, truth = (np.concatenate([getattr(group, part) for group in groups]) for part in ("given", "made", "truth"))
    _sheet(given, made, truth, folder / SHEET)
    return _likeness(groups, data), {"pairs": len(data.test) // 2}


def _sketches(data: Dataset, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Edges, drawn as by hand, and the pictures that they were taken from; of pairs the first ones."""
    pictures = split.of(0) if data.paired else split.images
    return edges.sketches(pictures, np.random.default_rng(0)), pictures


def _pairs(data: Dataset, split: Split, backward: bool, model: str) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and truths.

    Raises:
        TrainingError: the data has none.
    """
    if not data.paired:
        raise TrainingError(
            f"--data {data.name} has no pairs to hold {model} against; --data pairs:PATH reads files of two pictures side by side."
        )
    first, second = split.of(0), split.of(1)
    return (second, first) if backward else (first, second)


def _closeness(made: np.ndarray, other: np.ndarray, truth: np.ndarray, name: str) -> Figures:
    """How near pictures are to their truths, and all of them to all of the truths; the same of other pictures beside it."""
    features = Features("lite1")
    pooled = features.pooled(truth)
    measures: dict[str, Measure] = {
        "translation_psnr": lambda pictures: metrics.peak_signal_to_noise(truth, pictures),
        "translation_feature_distance": lambda pictures: features.distance(pictures, truth),
        "translation_frechet": lambda pictures: metrics.frechet_distance(pooled, features.pooled(pictures)),
    }
    if len(truth) < FEWEST:
        del measures["translation_frechet"]
    return {figure: (measure(made), measure(other), name) for figure, measure in measures.items()}


def _likeness(groups: list[Group], data: Dataset) -> Figures:
    """How much pictures are like the target's: near to its own picture of the same thing, taken for its, and recognised among others;
    the mean over the groups counts."""
    features = Features("lite1")
    judge = _judge(features, data)
    found: dict[str, list[tuple[float, float]]] = {}
    for group in groups:
        for figure, measure in _measures(features, judge, group, _gallery(group.truth, data.train.of(group.label))).items():
            found.setdefault(figure, []).append((measure(group.made), measure(group.given)))
    means = {figure: np.mean(values, axis=0).tolist() for figure, values in found.items()}
    return {figure: (ours, untouched, "the untouched input") for figure, (ours, untouched) in means.items()}


def _measures(features: Features, judge: Judge, group: Group, gallery: np.ndarray) -> dict[str, Measure]:
    return {
        "translation_feature_distance": lambda pictures: features.distance(pictures, group.truth),
        "taken_for_target": lambda pictures: float((judge(pictures) == group.label).mean()),
        "twin_among_nearest": lambda pictures: _found_again(features, pictures, gallery),
    }


def _judge(features: Features, data: Dataset) -> Judge:
    """Tells which kind pictures are of: ridge regression on pooled features of all training pictures, as strong as validation pictures
    like it best."""
    known, checks = features.pooled(data.train.images), features.pooled(data.validation.images)
    centre, scale = known.mean(axis=0), known.std(axis=0) + 1e-6
    points, targets = (known - centre) / scale, 2.0 * data.train.labels - 1.0
    square = points.T @ points

    def label(found: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return np.asarray((found - centre) / scale @ weights > 0, np.int32)

    tried = [np.linalg.solve(square + ridge * len(points) * np.eye(len(square)), points.T @ targets) for ridge in RIDGES]
    best = max(tried, key=lambda weights: (label(checks, weights) == data.validation.labels).mean())
    return lambda pictures: label(features.pooled(pictures), best)


def _gallery(truth: np.ndarray, others: np.ndarray) -> np.ndarray:
    """200 of the target's pictures: the truths, and where those are fewer others."""
    chosen = np.random.default_rng(0).permutation(len(others))[: max(0, GALLERY - len(truth))]
    return np.concatenate([truth[:GALLERY], others[chosen]])


def _found_again(features: Features, pictures: np.ndarray, gallery: np.ndarray) -> float:
    """The share of pictures whose own twin, at the same place in the gallery, is among the five nearest by the angle of pooled features."""
    points, others = (features.pooled(part) for part in (pictures[:GALLERY], gallery))
    likeness = (points / np.linalg.norm(points, axis=1, keepdims=True)) @ (others / np.linalg.norm(others, axis=1, keepdims=True)).T
    own = np.diagonal(likeness)[:, None]
    return float(((likeness > own).sum(axis=1) < NEAREST).mean())


def _sheet(given: np.ndarray, made: np.ndarray, truth: np.ndarray, path: Path) -> None:
    """Input, output, truth of test pictures, evenly chosen; four such triples in a row."""
    Image.fromarray(group_sheet([evenly(pictures, SHOWN) for pictures in (given, made, truth)], 4)).save(path)


def _matching(made: np.ndarray, truth: np.ndarray, path: Path) -> str:
    """Draws outputs above their truths, which are shuffled, to be matched by eye; gives the solution: of each output in order, its
    truth's letter. They are twelve, or all if there are fewer, from the half whose truths show most: of plain ice nobody can tell where it
    lies."""
    number = min(SHOWN, len(truth))
    order = np.random.default_rng(len(truth)).permutation(number)
    varied = np.argsort(-truth.std(axis=(1, 2)).mean(axis=-1), kind="stable")[: max(SHOWN, len(truth) // 2)]
    outputs, truths = (evenly(pictures[np.sort(varied)], number) for pictures in (made, truth))
    _, height, width, _ = made.shape
    columns, rows = SHOWN // 2, -(-number // (SHOWN // 2))
    canvas = Image.new("RGB", (columns * (width + GAP), 2 * rows * (height + GAP)), "white")
    draw = ImageDraw.Draw(canvas)
    for first, pictures, names in ((0, outputs, list(map(str, range(1, number + 1)))), (rows, truths[order], list(ascii_uppercase))):
        for index, (picture, name) in enumerate(zip(pictures, names, strict=False)):
            row, column = divmod(index, columns)
            left, top = column * (width + GAP), (first + row) * (height + GAP)
            draw.text((left + 2, top), name, fill="black")
            canvas.paste(Image.fromarray(picture), (left, top + GAP))
    canvas.save(path)
    return "".join(ascii_uppercase[place] for place in np.argsort(order))


class ColourTable:
    """From a pixel's colour to the mean colour that belongs to it: what can be had without looking at what is around.

    Args:
        given, wanted: pairs of pictures, uint8 (n, h, w, 3).
        bits: of each channel that count. A colour that was never given has the mean of the nearest one that was.
    """

    def __init__(self, given: np.ndarray, wanted: np.ndarray, bits: int) -> None:
        self.bits = bits
        places, colours, cells = self._cells(given).ravel(), wanted.reshape(-1, 3), 2 ** (3 * bits)
        counts = np.bincount(places, minlength=cells)
        sums = np.stack([np.bincount(places, colours[:, channel], cells) for channel in range(3)], axis=1)
        self.known = np.flatnonzero(counts)
        self.means = sums[self.known] / counts[self.known, None]

    @classmethod
    def best(cls, given: np.ndarray, wanted: np.ndarray, check: np.ndarray, checked: np.ndarray) -> ColourTable:
        """The table of training pairs whose fineness does best by PSNR on validation pairs."""
        tables = [cls(given, wanted, bits) for bits in BITS]
        return max(tables, key=lambda table: metrics.peak_signal_to_noise(checked, table(check)))

    def __call__(self, pictures: np.ndarray) -> np.ndarray:
        """uint8 (n, h, w, 3) -> uint8 of the same shape."""
        asked, places = np.unique(self._cells(pictures), return_inverse=True)
        found = np.searchsorted(self.known, asked).clip(max=len(self.known) - 1)
        strange = self.known[found] != asked
        found[strange] = metrics.nearest(self._colours(asked[strange]), self._colours(self.known))[1]
        return np.rint(self.means[found]).astype(np.uint8)[places.reshape(pictures.shape[:-1])]

    def _cells(self, pictures: np.ndarray) -> np.ndarray:
        parts = (pictures >> (8 - self.bits)).astype(np.int32)
        return (parts[..., 0] << (2 * self.bits)) | (parts[..., 1] << self.bits) | parts[..., 2]

    def _colours(self, cells: np.ndarray) -> np.ndarray:
        mask = 2**self.bits - 1
        return np.stack([cells >> (2 * self.bits), (cells >> self.bits) & mask, cells & mask], axis=1).astype(np.float32)
