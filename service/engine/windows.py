"""Where a model of one size looks at a picture of any size to fill the holes in it: squares round them, with what is near in sight.

Small holes that lie together share a square at the picture's own scale. A long and thin one (a scratch, a line of text) gets a row of
squares, of which the middles are used. A large one gets a square of twice its size, which is scaled down and what fills it up again.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
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
        used: the rows and columns of the picture that are filled from it.
    """

    top: int
    left: int
    size: int
    holes: frozenset[int]
    used: tuple[slice, slice]


_Cells = defaultdict[tuple[int, int], set[int]]
"""By row and column of a grid, the numbers of holes."""


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
        inner = ndimage.minimum_filter(mask, 2 * (side // THIN) + 1, mode="constant")
        thick = set(np.flatnonzero(np.bincount(self.numbers[inner])).tolist())
        self.windows: list[Window] = []
        small, middling, long = _Cells(set), _Cells(set), set[int]()
        for number, place in enumerate(ndimage.find_objects(self.numbers), 1):
            extent = max(along.stop - along.start for along in place)
            row, column = ((along.start + along.stop) // 2 for along in place)
            if extent <= side // 4:
                small[row // (side // 2), column // (side // 2)].add(number)
            elif extent <= side // 2:
                middling[row // (side // 4), column // (side // 4)].add(number)
            elif number not in thick:
                long.add(number)
            else:
                self._cover(place, number)
        self._share(small, side // 2, side // 4)
        self._share(middling, side // 4, 3 * side // 8)
        self._share(self._along(long, side // 2), side // 2, 0)

    def _cover(self, place: tuple[slice, ...], number: int) -> None:
        """A square of twice a large hole's size; where the picture is long and narrow, several along the hole."""
        most = max(min(self.mask.shape), self.side)
        for rows, columns in itertools.product(*(_parts(along, most) for along in place)):
            size = min(2 * max(rows.stop - rows.start, columns.stop - columns.start), max(self.mask.shape))
            size = max(size, self.side)
            top, left = (_inside(part, size, length) for part, length in zip((rows, columns), self.mask.shape, strict=True))
            self.windows.append(Window(top, left, size, frozenset([number]), (rows, columns)))

    def _along(self, long: set[int], step: int) -> _Cells:
        """Through which cells of a grid some holes go."""
        found, chosen = _Cells(set), np.zeros(self.numbers.max() + 1, bool)
        chosen[list(long)] = True
        for row in range(0, self.mask.shape[0] if long else 0, step):
            strip = self.numbers[row : row + step]
            rows, columns = np.nonzero(chosen[strip])
            for place in np.unique(columns // step * len(chosen) + strip[rows, columns]).tolist():
                found[row // step, place // len(chosen)].add(place % len(chosen))
        return found

    def _share(self, cells: _Cells, step: int, beyond: int) -> None:
        """A square round each cell of a grid, for all holes that are filled from there, which may reach so far beyond the cell."""
        edge = (self.side - step) // 2
        for cell, found in cells.items():
            used = tuple(slice(max(0, place * step - beyond), (place + 1) * step + beyond) for place in cell)
            self.windows.append(Window(cell[0] * step - edge, cell[1] * step - edge, self.side, frozenset(found), (used[0], used[1])))

    @property
    def area(self) -> int:
        """Pixels of the picture that all windows together cover."""
        return sum(window.size**2 for window in self.windows)

    def lots(self, area: int) -> Iterator[list[Window]]:
        """The windows in lots that cover about so many pixels of the picture each."""
        lot, covered = list[Window](), 0
        for window in self.windows:
            if lot and covered + window.size**2 > area:
                yield lot
                lot, covered = [], 0
            lot.append(window)
            covered += window.size**2
        if lot:
            yield lot

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
        numbers = self.numbers[window.used]
        holes = np.isin(numbers, list(window.holes))
        top, left = (used.start - start for used, start in zip(window.used, (window.top, window.left), strict=True))
        own = filled[top : top + holes.shape[0], left : left + holes.shape[1]]
        pixels[window.used][holes] = own[holes]


def _parts(along: slice, most: int) -> list[slice]:
    """A stretch in as few equal parts as have `most` pixels each."""
    number = -(-(along.stop - along.start) // most)
    bounds = np.linspace(along.start, along.stop, number + 1).astype(int).tolist()
    return [slice(*both) for both in itertools.pairwise(bounds)]


def _inside(part: slice, size: int, length: int) -> int:
    """Where a square round a part of a side begins that is moved into the picture as far as it fits."""
    start: int = (part.start + part.stop - size) // 2
    return max(0, min(start, length - size))


def _resized(square: np.ndarray, side: int) -> np.ndarray:
    """uint8 (s, s, channels) -> (side, side, channels)."""
    image = images.picture(square).resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(image).reshape(side, side, -1)
