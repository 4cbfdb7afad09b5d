"""Defects put into good pictures, with masks of where they are, for figures: no training sees any that this code makes.

They are what the sets of real ones show (MVTec AD: Bergmann et al. 2019, table 1): scratches, stains, holes, smeared and crumbled
places, and things that do not belong there. Scratches and stains go by the picture's own contrast, so that an eye finds them on any
ground.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

Defect = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]
"""What becomes of a picture, float (h, w, c) in levels, where a place, bool (h, w), is damaged."""


def damaged(pictures: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One defect in each picture, the kinds of KINDS in turn.

    Args:
        pictures: uint8 (n, h, w, c), good.

    Returns:
        The pictures with defects; masks, bool (n, h, w); and the kinds' numbers in KINDS, int32 (n,).
    """
    kinds = np.arange(len(pictures), dtype=np.int32) % len(KINDS)
    made, places = list[np.ndarray](), list[np.ndarray]()
    for picture, kind in zip(pictures, kinds, strict=True):
        lay_out, damage = KINDS[tuple(KINDS)[kind]]
        place = lay_out(picture.shape[0], picture.shape[1], random)
        whole = damage(picture.astype(np.float64), place, random)
        made.append(np.where(place[..., None], np.clip(np.rint(whole), 0, 255), picture).astype(np.uint8))
        places.append(place)
    return np.stack(made), np.stack(places), kinds


def blob(height: int, width: int, random: np.random.Generator) -> np.ndarray:
    """A rounded place with an uneven edge, some 14 to 28 percent of the picture across."""
    side = min(height, width)
    y, x = _from_centre(height, width, random)
    uneven = _smooth(height, width, side / 20, random)
    return np.asarray(np.hypot(y, x) < random.uniform(0.07, 0.14) * side * (1 + 0.2 * uneven))


def line(height: int, width: int, random: np.random.Generator) -> np.ndarray:
    """A bent line, a quarter to three fifths of the picture long and one to three hundredths wide, a pixel and a half at least."""
    side = min(height, width)
    y, x = _from_centre(height, width, random)
    angle, bend = random.uniform(0, np.pi), random.uniform(-1, 1) / side
    along, across = y * np.sin(angle) + x * np.cos(angle), y * np.cos(angle) - x * np.sin(angle)
    thick = max(1.5, random.uniform(0.01, 0.03) * side)
    return np.asarray((np.abs(across - bend * along**2) < thick / 2) & (np.abs(along) < random.uniform(0.125, 0.3) * side))


def scratch(picture: np.ndarray, place: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return picture + _sign(random) * max(50.0, random.uniform(2, 3.5) * picture.std())


def stain(picture: np.ndarray, place: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return picture + _sign(random) * max(35.0, random.uniform(1.5, 2.5) * picture.std())


def hole(picture: np.ndarray, place: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return np.full_like(picture, random.uniform(0, 40)) + random.normal(0, 4, picture.shape)


def smear(picture: np.ndarray, place: np.ndarray, random: np.random.Generator) -> np.ndarray:
    width = max(2.0, min(place.shape) / 24)
    return np.asarray(ndimage.gaussian_filter(picture, (width, width, 0), mode="reflect"))


def crumble(picture: np.ndarray, place: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Each pixel in the place of one near by."""
    height, width = place.shape
    reach = max(2, min(height, width) // 16)
    y, x = (axis + random.integers(-reach, reach + 1, axis.shape) for axis in np.mgrid[:height, :width])
    return picture[y.clip(0, height - 1), x.clip(0, width - 1)]


def intruder(picture: np.ndarray, place: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A striped thing."""
    height, width = place.shape
    y, x = _from_centre(height, width, random)
    angle, period = random.uniform(0, np.pi), random.uniform(0.03, 0.06) * min(height, width)
    stripes = np.sin(2 * np.pi * (y * np.sin(angle) + x * np.cos(angle)) / max(3.0, period))
    return np.broadcast_to(128 + 90 * stripes[..., None], picture.shape)


KINDS: dict[str, tuple[Callable[[int, int, np.random.Generator], np.ndarray], Defect]] = {
    "scratch": (line, scratch),
    "stain": (blob, stain),
    "hole": (blob, hole),
    "smear": (blob, smear),
    "crumble": (blob, crumble),
    "intruder": (blob, intruder),
}
"""Where each kind of defect lies, and what it does there."""


def _from_centre(height: int, width: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """How far down and to the right of a random place, not near an edge, each pixel lies."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    return y - random.uniform(0.2, 0.8) * height, x - random.uniform(0.2, 0.8) * width


def _smooth(height: int, width: int, scale: float, random: np.random.Generator) -> np.ndarray:
    """Noise (h, w) of variance 1 that is smooth over so many pixels."""
    values = ndimage.gaussian_filter(random.standard_normal((height, width)), scale, mode="wrap")
    return np.asarray(values / max(1e-6, values.std()))


def _sign(random: np.random.Generator) -> float:
    return float(random.choice([-1.0, 1.0]))
