"""Figures of translators on pairs that they have not seen, and the sheet that shows them.

Distances are measured on EfficientNet-Lite1, which is in no loss and chooses no checkpoint. Beside each stands what the best
table from colour to colour reaches that the training pairs give, and, where there is one, the floor that real pictures reach.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from service.contract.manifest import Manifest
from training import metrics
from training.backbone import Features
from training.data import Dataset, Split
from training.loop import contact_sheet
from training.problems import TrainingError
from training.served import Served, decoded

SHOWN = 12
SHEET = "translations.png"
BITS = range(3, 8)
"""Of each channel, among which the colour table's fineness is chosen by the validation pairs."""

Figures = dict[str, tuple[float, float | None, str | None]]


async def measure_translate(model: Served, data: Dataset, folder: Path) -> tuple[Figures, dict[str, Any]]:
    """What becomes of the test pairs' first pictures, beside their second ones.

    Raises:
        TrainingError: the data has no pairs.
    """
    if not data.paired:
        raise TrainingError(f"--data {data.name} has no pairs to hold {model.model} against.")
    given, truth = _pairs(model.manifest, data, data.test)
    answers = await model.shown("translate", given)
    made = np.stack([decoded(answer["image"]) for answer in answers])
    table = ColourTable.best(*_pairs(model.manifest, data, data.train), *_pairs(model.manifest, data, data.validation))(given)
    features = Features("lite1")
    name = "a table from colour to colour"
    figures: Figures = {
        "translation_psnr": (metrics.peak_signal_to_noise(truth, made), metrics.peak_signal_to_noise(truth, table), name),
        "translation_feature_distance": (features.distance(made, truth), features.distance(table, truth), name),
    }
    pooled = [features.pooled(pictures) for pictures in (truth, made, table)]
    figures["translation_frechet"] = (metrics.frechet_distance(pooled[0], pooled[1]), metrics.frechet_distance(pooled[0], pooled[2]), name)
    _sheet(given, made, truth, folder / SHEET)
    return figures, {"pairs": len(given)}


def _pairs(manifest: Manifest, data: Dataset, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and truths of a model, in its direction."""
    first, second = split.of(0), split.of(1)
    return (second, first) if manifest.training.config.get("direction") == "backward" else (first, second)


def _sheet(given: np.ndarray, made: np.ndarray, truth: np.ndarray, path: Path) -> None:
    """Input, output, truth of test pictures, evenly chosen; four such triples in a row."""
    chosen = np.linspace(0, len(given) - 1, SHOWN).astype(int)
    triples = np.stack([given[chosen], made[chosen], truth[chosen]], axis=1)
    Image.fromarray(contact_sheet(triples.reshape(-1, *given.shape[1:]), 12)).save(path)


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
