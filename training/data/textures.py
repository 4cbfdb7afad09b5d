"""Textures: bricks, grass and gravel, grey, in crops of 96 x 96 pixels of scikit-image's pictures; for figures, with defects put in.

Only the left two thirds of each picture are used. Training, choices and figures have areas of their own, so no crop of one shares a
pixel with a crop of another; those of choices and figures take turns, since a texture is not the same all over a picture.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import skimage

from service.contract import images
from service.contract.manifest import Fit
from training.data import GOOD, Dataset, Split, defects
from training.problems import TrainingError

NAMES = ("brick", "grass", "gravel")
ORIGINS = {
    "brick": "brick.png of the package scikit-image, from CC0Textures' Bricks25",
    "grass": "grass.png of the package scikit-image, from linolafett's Grass 01",
    "gravel": "gravel.png of the package scikit-image, from CC0Textures' Gravel04",
}
SIDE = 96
AREAS = {
    "train": [(0, 512, 0, 170)],
    "validation": [(0, 128, 170, 341), (256, 384, 170, 341)],
    "test": [(128, 256, 170, 341), (384, 512, 170, 341)],
}
"""First and one past the last row and column of each; the columns to the right of them are reserved."""
NUMBERS = {"train": 400, "validation": 300, "test": 300}
HEIGHT = WIDTH = 512
INSTEAD = "install scikit-image (pip install scikit-image), or give --data {name}:FOLDER with {name}.png"


def load(name: str, path: Path | None = None) -> Dataset:
    """Cuts crops out of one texture. The class `good` is 0; the test split also has as many crops with defects (training.data.defects).

    Raises:
        TrainingError: the picture is not there, or of another size.
    """
    folder = path if path is not None else Path(skimage.__file__).parent / "data"
    instead = INSTEAD.format(name=name)
    try:
        picture = images.decode((folder / f"{name}.png").read_bytes())
    except (OSError, images.UnreadableImage) as error:
        raise TrainingError(f"{folder / name}.png cannot be read ({getattr(error, 'strerror', None) or error}): {instead}.") from error
    if picture.size != (WIDTH, HEIGHT):
        raise TrainingError(f"{folder / name}.png is {picture.width} x {picture.height}, not {WIDTH} x {HEIGHT}: {instead}.")
    pixels, random = images.whole(picture, 1), np.random.default_rng(0)
    crops = {split: _crops(pixels, AREAS[split], number, random) for split, number in NUMBERS.items()}
    bad, masks, kinds = defects.damaged(_crops(pixels, AREAS["test"], NUMBERS["test"], random), random)
    clean = np.zeros(crops["test"].shape[:3], bool)
    test = Split(
        np.concatenate([crops["test"], bad]),
        np.concatenate([np.zeros(len(clean), np.int32), kinds + 1]),
        masks=np.concatenate([clean, masks]),
    )
    return Dataset(
        name=name,
        source=name,
        train=_good(crops["train"]),
        validation=_good(crops["validation"]),
        test=test,
        fit=Fit(height=SIDE, width=SIDE, channels=1, mode="stretch"),
        title=f"{name.capitalize()} ({NUMBERS['train']} overlapping crops; defects for figures are synthetic)",
        license="CC0-1.0",
        origin=ORIGINS[name],
        classes=(GOOD, *defects.KINDS),
    )


def _good(pictures: np.ndarray) -> Split:
    return Split(pictures, np.zeros(len(pictures), np.int32))


def _crops(pixels: np.ndarray, areas: list[tuple[int, int, int, int]], number: int, random: np.random.Generator) -> np.ndarray:
    """Random crops, as many of each area."""
    crops = []
    for index in range(number):
        top, bottom, left, right = areas[index % len(areas)]
        y, x = random.integers(top, bottom - SIDE + 1), random.integers(left, right - SIDE + 1)
        crops.append(pixels[y : y + SIDE, x : x + SIDE])
    return np.stack(crops)
