"""Where a model of one size looks at a picture of any size to fill the holes in it: squares round them, with what is near in sight.

Small holes that lie together share a square at the picture's own scale. A long and thin one (a scratch, a line of text) gets a row of
squares, of which the middles are used. A large one gets a square of twice its size, which is scaled down and what fills it up again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

from service.contract import images

GAP = 8
"""Pixels: holes no farther from one another than twice this are one."""
THIN = 16
"""A hole is thin where no square of side / THIN each way fits into it."""
REACH = 2
"""Pixels round a hole that scaling down mixes with what is in it."""


@dataclass(frozen=True)
class Window:
    """A square of a picture, which it may overhang, and what is filled from it.

    Attributes:
        top, left, size: in the picture's pixels.
        holes: the numbers of the holes in it that are filled.
        used: first and one past the last row and column of it that are used.
    """

    top: int
    left: int
    size: int
    holes: frozenset[int]
    used: tuple[int, int]


class Holes:
    """The holes of a picture.

    Args:
        mask: bool (height, width), true where it is to be filled.
        side: of the model's pictures.

    Attributes:
        windows: squares that hold each pixel of a hole in a used part of one of them at least.
    """

    def __init__(self, mask: np.ndarray, side: int) -> None:
        self.mask, self.side = mask, side
        self.numbers, _ = ndimage.label(ndimage.maximum_filter(mask, 2 * GAP + 1), np.ones((3, 3)))
        self.numbers[~mask] = 0
        thick = set(self.numbers[ndimage.minimum_filter(mask, 2 * (side // THIN) + 1)].tolist())
        self.windows: list[Window] = []
        small, long = defaultdict[tuple[int, int], set[int]](set), set[int]()
        for number, (rows, columns) in enumerate(ndimage.find_objects(self.numbers), 1):
            extent = max(rows.stop - rows.start, columns.stop - columns.start)
            centre = (rows.start + rows.stop) // 2, (columns.start + columns.stop) // 2
            if extent <= side // 2:
                small[centre[0] // (side // 4), centre[1] // (side // 4)].add(number)
            elif number not in thick:
                long.add(number)
            else:
                size = min(2 * extent, max(*mask.shape, side))
                self.windows.append(Window(*self._inside(centre, size), size, frozenset([number]), (0, size)))
        self._share(small, side // 4, (0, side))
        self._share(self._along(long, side // 2), side // 2, (side // 4, side // 4 + side // 2))

    def _along(self, long: set[int], step: int) -> dict[tuple[int, int], set[int]]:
        """Through which cells of a grid some holes go."""
        rows, columns = np.nonzero(np.isin(self.numbers, list(long)))
        shape = (*(length // step + 1 for length in self.mask.shape), self.numbers.max() + 1)
        places = np.unique(np.ravel_multi_index((rows // step, columns // step, self.numbers[rows, columns]), shape))
        found = defaultdict[tuple[int, int], set[int]](set)
        for row, column, number in zip(*(part.tolist() for part in np.unravel_index(places, shape)), strict=True):
            found[row, column].add(number)
        return found

    def _share(self, cells: dict[tuple[int, int], set[int]], step: int, used: tuple[int, int]) -> None:
        """A square round each cell of a grid, for all holes that are filled from there."""
        edge = (self.side - step) // 2
        for (row, column), found in cells.items():
            self.windows.append(Window(row * step - edge, column * step - edge, self.side, frozenset(found), used))

    def _inside(self, centre: tuple[int, int], size: int) -> tuple[int, int]:
        """The upper left corner of a square round a place, moved into the picture as far as it fits."""
        top, left = (max(min(middle - size // 2, length - size), 0) for middle, length in zip(centre, self.mask.shape, strict=True))
        return top, left

    def cut(self, pixels: np.ndarray, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """What the model sees: uint8 (side, side, channels) and the mask (side, side, 1), 255 in all holes.

        Beyond the picture it goes on as its last pixels.
        """
        place = self._place(window)
        square, mask = pixels[place], self.mask[place]
        if window.size != self.side:
            square = _resized(square, self.side)
            share = np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize((self.side,) * 2, Image.Resampling.BOX))
            mask = ndimage.maximum_filter(share > 0, 2 * REACH + 1)
        return square, (mask * np.uint8(255))[..., None]

    def cut_all(self, pixels: np.ndarray, windows: Sequence[Window]) -> tuple[np.ndarray, np.ndarray]:
        """Squares (n, side, side, channels) and masks (n, side, side, 1)."""
        pairs = [self.cut(pixels, window) for window in windows]
        return np.stack([square for square, _ in pairs]), np.stack([mask for _, mask in pairs])

    def fill_all(self, pixels: np.ndarray, windows: Sequence[Window], filled: np.ndarray) -> None:
        """Writes what the model made of windows, uint8 (n, side, side, channels), into their holes, and nowhere else."""
        for window, square in zip(windows, filled, strict=True):
            self._fill(pixels, window, square)

    def _place(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        height, width = self.mask.shape
        rows, columns = (np.arange(start, start + window.size) for start in (window.top, window.left))
        return rows.clip(0, height - 1)[:, None], columns.clip(0, width - 1)[None, :]

    def _fill(self, pixels: np.ndarray, window: Window, filled: np.ndarray) -> None:
        if window.size != self.side:
            filled = _resized(filled, window.size)
        first, last = window.used
        height, width = self.mask.shape
        top, left = max(0, window.top + first), max(0, window.left + first)
        bottom, right = min(height, window.top + last), min(width, window.left + last)
        numbers = self.numbers[top:bottom, left:right]
        holes = np.isin(numbers, list(window.holes))
        own = filled[top - window.top : bottom - window.top, left - window.left : right - window.left]
        pixels[top:bottom, left:right][holes] = own[holes]


def _resized(square: np.ndarray, side: int) -> np.ndarray:
    """uint8 (s, s, channels) -> (side, side, channels)."""
    image = images.picture(square).resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(image).reshape(side, side, -1)
