"""Pictures as somebody might draw their outlines: edges thinned to strokes, moved a little, here and there left out."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.feature import canny
from skimage.measure import label
from skimage.morphology import skeletonize

SIGMA = 1.0
"""Of the smoothing before edges are looked for, in pixels (Canny 1986)."""
MOVED = 0.8
"""How far strokes are moved, smoothly over the picture, in pixels (standard deviation)."""
LEFT_OUT = 0.1
"""The share of short strokes that are forgotten."""
WIDTHS = (0.7, 1.3)
"""Half the width of a stroke's dark core, and its soft rim, in pixels."""


def sketches(pictures: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Drawings of pictures, uint8 (n, h, w, 3) each: dark strokes on white."""
    return np.stack([sketch(picture, random) for picture in pictures])


def sketch(picture: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A drawing of one picture, uint8 (h, w, channels): no two are alike."""
    found = np.zeros(picture.shape[:2], bool)
    for channel in range(picture.shape[2]):
        found |= canny(picture[..., channel] / 255.0, SIGMA)
    strokes = _forgetful(skeletonize(found), random)
    if not strokes.any():
        return np.full_like(picture, 255)
    distance = ndimage.distance_transform_edt(~strokes)
    moves = [ndimage.gaussian_filter(random.standard_normal(found.shape), 6.0, mode="reflect") for _ in range(2)]
    places = [axis + MOVED * move / (move.std() + 1e-6) for axis, move in zip(np.indices(found.shape), moves, strict=True)]
    distance = ndimage.map_coordinates(distance, places, order=1, mode="nearest")
    ink = np.clip(random.uniform(*WIDTHS) + 0.5 - distance, 0.0, 1.0) * random.uniform(0.75, 1.0)
    return np.repeat(np.rint(255 * (1 - ink)).astype(np.uint8)[..., None], picture.shape[2], axis=2)


def _forgetful(strokes: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Without some of the strokes that are no longer than a twelfth of the picture's side."""
    labels = label(strokes, connectivity=2)
    sizes = np.bincount(labels.ravel())
    forgotten = (sizes <= max(3, strokes.shape[0] // 12)) & (random.random(len(sizes)) < LEFT_OUT)
    forgotten[0] = False
    return strokes & ~forgotten[labels]
