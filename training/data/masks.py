"""Holes of the kinds that people have: what is to be painted anew in a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Draw = Callable[[Image.Image, np.random.Generator], None]
SMALLEST = 32
"""Side of a picture in which holes of all kinds have room."""
MOST = 0.6
"""Of a mask, the share that is hole at most."""
LETTERS = np.array(list("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789&!?"))


def drawn(kind: str, number: int, side: int, random: np.random.Generator) -> np.ndarray:
    """Masks of one kind, bool (n, side, side), true where there is a hole; neither empty nor full.

    Args:
        kind: one of KINDS.
        side: at least SMALLEST.
    """
    return np.stack([_one(KINDS[kind], side, random) for _ in range(number)])


def wholes(number: int, side: int, largest: int, random: np.random.Generator) -> list[np.ndarray]:
    """Masks of all kinds, each bool (s, s) with s from `side` to `largest`, for `squares` to be cut out of: to draw one takes longer.

    Args:
        side: at least SMALLEST.
        largest: at least `side`.
    """
    kinds, sizes = random.choice(list(KINDS), number), random.integers(side, largest, number, endpoint=True)
    return [_one(KINDS[kind], int(size), random) for kind, size in zip(kinds, sizes, strict=True)]


def squares(masks: Sequence[np.ndarray], number: int, side: int, random: np.random.Generator) -> np.ndarray:
    """Squares at random places of some of `wholes`, bool (n, side, side), neither empty nor more than MOST of them hole."""
    return np.stack([_square(masks, side, random) for _ in range(number)])


def _square(masks: Sequence[np.ndarray], side: int, random: np.random.Generator) -> np.ndarray:
    while True:
        whole = masks[int(random.integers(len(masks)))]
        top, left = random.integers(0, len(whole) - side, 2, endpoint=True)
        square = whole[top : top + side, left : left + side]
        if 0 < square.mean() < MOST:
            return square


def _one(draw: Draw, side: int, random: np.random.Generator) -> np.ndarray:
    while True:
        picture = Image.new("1", (side, side))
        draw(picture, random)
        mask = np.array(picture, bool)
        if 0 < mask.mean() < MOST:
            return mask


def _centre(picture: Image.Image, random: np.random.Generator) -> None:
    """The middle quarter (Pathak et al. 2016, section 3.3)."""
    side = picture.width
    _rectangle(picture, side // 4, side // 4, side // 2, side // 2)


def _blocks(picture: Image.Image, random: np.random.Generator) -> None:
    side = picture.width
    for _ in range(random.integers(1, 5)):
        height, width = random.integers(side // 10, side // 3, 2)
        _rectangle(picture, random.integers(0, side - width), random.integers(0, side - height), width, height)


def _rectangle(picture: Image.Image, left: int, top: int, width: int, height: int) -> None:
    ImageDraw.Draw(picture).rectangle((int(left), int(top), int(left + width) - 1, int(top + height) - 1), fill=1)


def _strokes(picture: Image.Image, random: np.random.Generator) -> None:
    """Thick lines with turns, as from a brush (Yu et al. 2019, section 3.4)."""
    side = picture.width
    for _ in range(random.integers(1, 4)):
        point, angle, width = random.uniform(0, side, 2), random.uniform(0, 2 * np.pi), int(random.integers(side // 24, side // 9))
        for _ in range(random.integers(3, 9)):
            angle += random.uniform(-1.2, 1.2)
            step = random.uniform(side / 12, side / 4)
            end = point + step * np.array([np.cos(angle), np.sin(angle)])
            _line(picture, [point, end], width)
            point = end


def _line(picture: Image.Image, points: list[np.ndarray], width: int) -> None:
    draw = ImageDraw.Draw(picture)
    draw.line([tuple(point) for point in points], fill=1, width=width)
    for x, y in points:
        draw.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=1)


def _text(picture: Image.Image, random: np.random.Generator) -> None:
    side = picture.width
    size = random.uniform(side / 12, side / 5)
    font, draw = ImageFont.load_default(size=float(size)), ImageDraw.Draw(picture)
    for row in range(random.integers(1, 4)):
        words = "".join(random.choice(LETTERS, 24))
        place = random.uniform(-size, side / 3), random.uniform(0, side / 4) + 1.3 * size * row
        draw.text(place, words, fill=1, font=font, stroke_width=int(random.integers(0, 2)))


def _scratches(picture: Image.Image, random: np.random.Generator) -> None:
    """Thin lines across, nearly straight."""
    side = picture.width
    for _ in range(random.integers(2, 9)):
        start, end = random.uniform(0, side, 2), random.uniform(0, side, 2)
        middle = (start + end) / 2 + random.uniform(-side / 12, side / 12, 2)
        draw = ImageDraw.Draw(picture)
        draw.line([tuple(start), tuple(middle), tuple(end)], fill=1, width=int(random.integers(1, 4)))


KINDS: dict[str, Draw] = {"centre": _centre, "blocks": _blocks, "strokes": _strokes, "text": _text, "scratches": _scratches}
"""A block in the middle, blocks anywhere, strokes of a brush, writing, scratches."""
