"""Pictures that show nothing that a model knows, to learn doubt from (outlier exposure: Hendrycks et al. 2019)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

Random = np.random.Generator
Maker = Callable[[np.ndarray, Random], np.ndarray]

PARTS = 8
"""Rows, and columns, of the squares that a picture is taken apart into."""
STROKES = 6
"""Of a scribble, at most."""


def unknown(pictures: np.ndarray, number: int, random: Random) -> np.ndarray:
    """Makes so many pictures of each of some kinds in turn, uint8 (number, h, w, 3): plain, noise fine or coarse, taken apart, scribbled.

    Args:
        pictures: what is known, uint8 (n, h, w, 3): for the size, and some are taken apart.
    """
    chosen = pictures[random.integers(len(pictures), size=number)]
    return np.stack([MAKERS[index % len(MAKERS)](picture, random) for index, picture in enumerate(chosen)])


def plain(picture: np.ndarray, random: Random) -> np.ndarray:
    """Of one colour, or of one grey."""
    return np.broadcast_to(_colour(random), picture.shape).copy()


def noise(picture: np.ndarray, random: Random) -> np.ndarray:
    """Noise from as fine as pixels to as coarse as the picture, in colours or in greys."""
    height, width, channels = picture.shape
    cells = int(2 ** random.integers(1, int(np.log2(min(height, width))) + 2))
    grid = random.integers(0, 256, (cells, cells, 1 if random.random() < 0.5 else channels))
    grid = np.broadcast_to(grid, (cells, cells, channels)).astype(np.uint8)
    return np.asarray(Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC))


def apart(picture: np.ndarray, random: Random) -> np.ndarray:
    """A picture's squares, each somewhere else and turned."""
    side = max(1, min(picture.shape[:2]) // PARTS)
    made = picture.copy()
    places = [(row * side, column * side) for row in range(picture.shape[0] // side) for column in range(picture.shape[1] // side)]
    for (y, x), other in zip(places, random.permutation(len(places)), strict=True):
        from_y, from_x = places[other]
        made[y : y + side, x : x + side] = np.rot90(picture[from_y : from_y + side, from_x : from_x + side], int(random.integers(4)))
    return made


def scribble(picture: np.ndarray, random: Random) -> np.ndarray:
    """Some strokes of one colour on another."""
    height, width, _ = picture.shape
    ground, ink = (tuple(_colour(random).tolist()) for _ in range(2))
    canvas = Image.new("RGB", (width, height), ground)
    draw = ImageDraw.Draw(canvas)
    thick = int(random.integers(1, max(2, min(height, width) // 8)))
    for _ in range(random.integers(1, STROKES + 1)):
        points = random.uniform(0, 1, (random.integers(2, 5), 2)) * (width, height)
        draw.line([tuple(point) for point in points.tolist()], fill=ink, width=thick, joint="curve")
    return np.asarray(canvas)


MAKERS: tuple[Maker, ...] = (plain, noise, apart, scribble)


def _colour(random: Random) -> np.ndarray:
    """A colour, half the time a grey, black and white among them, uint8 (3,)."""
    if random.random() < 0.5:
        return random.integers(0, 256, 3).astype(np.uint8)
    return np.full(3, (0, 255, random.integers(256))[random.integers(3)], np.uint8)
