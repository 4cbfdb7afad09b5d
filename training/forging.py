"""Negatives forged from normal pictures, to learn from: parts moved, covered, erased, bent, mottled.

Figures are measured on defects that other code makes (training.data.defects). Dark and light places look alike whoever makes them: holes
like some of what is covered, stains like some of what is mottled. Nothing is scratched, blurred or crumbled here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from scipy import ndimage

Forgeries = Literal["plain", "varied"]
Forge = Callable[[np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]]


def forged(
    pictures: np.ndarray, random: np.random.Generator, share: float = 1.0, kinds: Forgeries = "plain"
) -> tuple[np.ndarray, np.ndarray]:
    """One part of each picture is spoilt, or of a share of them.

    Args:
        pictures: uint8 (n, h, w, c).
        kinds: of FORGERIES, from which each picture's is drawn.

    Returns:
        Pictures alike, and where they were changed, bool (n, h, w).
    """
    made, masks, forges = pictures.copy(), np.zeros(pictures.shape[:3], bool), FORGERIES[kinds]
    for index in np.flatnonzero(random.random(len(pictures)) < share):
        made[index], masks[index] = forges[random.integers(len(forges))](pictures[index], random)
    return made, masks & (np.abs(made.astype(np.int16) - pictures).max(axis=-1) > CHANGED)


CHANGED = 8
"""Levels by which a pixel has to differ to count as spoilt."""


def moved(picture: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A rectangle cut out and pasted elsewhere, turned by any number of quarters (CutPaste: Li et al. 2021, section 3.2)."""
    (y, x), (height, width) = _rectangle(picture, random)
    part = picture[y : y + height, x : x + width]
    part = np.rot90(part, int(random.integers(4)))
    height, width = part.shape[:2]
    limits = np.maximum(1, np.array(picture.shape[:2]) - (height, width) + 1)
    return _pasted(picture, part, *random.integers(0, limits))


def covered(picture: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A rectangle of one level with some noise, dark or light, thin now and then."""
    (y, x), (height, width) = _rectangle(picture, random)
    part = random.uniform(0, 255) + random.normal(0, random.uniform(0, 40), (height, width, picture.shape[2]))
    return _pasted(picture, part.clip(0, 255).astype(np.uint8), y, x)


def erased(picture: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A rectangle of the level that is most usual on its edge."""
    (y, x), (height, width) = _rectangle(picture, random)
    part = picture[y : y + height, x : x + width]
    edge = np.concatenate([part[0], part[-1], part[:, 0], part[:, -1]])
    return _pasted(picture, np.broadcast_to(np.median(edge, axis=0).astype(np.uint8), part.shape), y, x)


def bent(picture: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """All of it warped, by up to a sixth of its side."""
    height, width, _ = picture.shape
    side = min(height, width)
    offsets = ndimage.gaussian_filter(random.standard_normal((2, height, width)), (0, side / 6, side / 6), mode="reflect")
    offsets *= random.uniform(0.06, 0.17) * side / np.abs(offsets).max()
    places = np.mgrid[:height, :width] + offsets
    warped = [ndimage.map_coordinates(channel, places, order=1, mode="nearest") for channel in np.moveaxis(picture, -1, 0)]
    return np.stack(warped, axis=-1), np.ones((height, width), bool)


def mottled(picture: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """An uneven place where another part of the picture, turned and of another level and contrast, covers it or shines through.

    As Zavrtanik et al. 2021, section 3.3, do it with pictures of other textures.
    """
    height, width, _ = picture.shape
    side = min(height, width)
    noise = ndimage.gaussian_filter(random.standard_normal((height, width)), random.uniform(1 / 40, 1 / 8) * side, mode="wrap")
    (y, x), centre = np.mgrid[:height, :width], random.uniform(0, (height, width))
    away = np.hypot(y - centre[0], x - centre[1]) / (random.uniform(0.15, 0.5) * side)
    field = noise / max(1e-9, noise.std()) - 1.5 * away
    mask = field > np.quantile(field, 1 - random.uniform(0.005, 0.12))
    turns = int(random.integers(4)) if height == width else 2 * int(random.integers(2))
    other = np.roll(np.rot90(picture, turns), random.integers(1, max(2, side), 2), (0, 1)).astype(np.float64)
    level, shift = picture.mean(), random.uniform(15, 90)
    shift *= 1 if level < shift else -1 if level > 255 - shift else random.choice([-1, 1])  # to where there is room
    other = (other - level) * random.uniform(0.2, 1.8) + level + shift
    opacity = random.uniform(0.4, 1)
    made = np.where(mask[..., None], np.clip((1 - opacity) * picture + opacity * other, 0, 255), picture)
    return np.rint(made).astype(np.uint8), mask


PLAIN: tuple[Forge, ...] = (moved, moved, covered, erased, bent)
FORGERIES: dict[Forgeries, tuple[Forge, ...]] = {"plain": PLAIN, "varied": (*PLAIN, *[mottled] * 4)}


def _rectangle(picture: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Corner and size of one that covers 1 to 15 percent of a picture, up to six times as long as wide."""
    size = np.array(picture.shape[:2])
    area, form = random.uniform(0.01, 0.15) * size.prod(), np.exp(random.uniform(-0.9, 0.9))
    sides = np.clip(np.rint(np.sqrt(area) * np.array([form, 1 / form])).astype(int), 2, size)
    return random.integers(0, size - sides + 1), sides


def _pasted(picture: np.ndarray, part: np.ndarray, y: int, x: int) -> tuple[np.ndarray, np.ndarray]:
    made, mask = picture.copy(), np.zeros(picture.shape[:2], bool)
    place = slice(y, y + part.shape[0]), slice(x, x + part.shape[1])
    made[place], mask[place] = part[: made[place].shape[0], : made[place].shape[1]], True
    return made, mask
