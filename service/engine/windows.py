"""Where a model of one size looks at a picture of any size to fill the holes in it: squares round them, with what is near in sight.

Small holes that lie together share a square at the picture's own scale. A long one (a scratch, a stroke, a line of text) gets a row of
squares, of which the middles are used and fade into one another, at that scale too unless it is so thick that little would be seen on both
of its sides: more runs than one for each hole, and nearer to the truth by a half to a whole decibel. Any other gets a square of twice its
size. Squares that are larger than the model's pictures are scaled down, and what fills them up again.
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
AROUND = 2
"""How many times as large as a long hole is thick squares along it are, about. It is as thick as the largest upright square in it."""
REACH = 2
"""Pixels round a hole that scaling down mixes with what is in it."""


@dataclass(frozen=True)
class Window:
    """A square of a picture, which it may overhang, and what is filled from it.

    Attributes:
        top, left, size: in the picture's pixels.
        holes: the numbers of the holes in it that are filled.
        used: the rows and columns of the picture that are filled from it.
        fade: over so many of them at each edge it fades into its neighbours, of which those above and to the left are filled before.
    """

    top: int
    left: int
    size: int
    holes: frozenset[int]
    used: tuple[slice, slice]
    fade: int = 0

    def share(self, height: int, width: int) -> np.ndarray:
        """Of the first rows and columns that are used, how much of each pixel is this window's, where the rest is what was filled before:
        so that all windows together weigh as much as they would added up."""
        (rows, above), (columns, left) = (
            _weights(along, number, self.fade) for along, number in zip(self.used, (height, width), strict=True)
        )
        own = rows[:, None] * columns
        total = rows[:, None] * left
        total += above[:, None]
        total += own
        return np.asarray(np.divide(own, total, out=own))


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
        self.windows: list[Window] = []
        small, middling, long = _Cells(set), _Cells(set), defaultdict[int, list[int]](list)
        places, sizes = ndimage.find_objects(self.numbers), None
        for number, place in enumerate(places, 1):
            extent = max(along.stop - along.start for along in place)
            row, column = ((along.start + along.stop) // 2 for along in place)
            if extent <= side // 4:
                small[row // (side // 2), column // (side // 2)].add(number)
            elif extent <= side // 2:
                middling[row // (side // 4), column // (side // 4)].add(number)
            else:
                sizes = self._sizes(len(places)) if sizes is None else sizes
                if (size := int(sizes[number])) < min(2 * extent, max(mask.shape)):
                    long[size].append(number)
                else:
                    self._cover(place, number)
        self._share(small, side // 2, side // 4)
        self._share(middling, side // 4, 3 * side // 8)
        for size, numbers in long.items():
            step, reach = size // 2, size // 8
            self._share(self._along(numbers, step, reach), step, reach, size, 2 * reach)

    def _sizes(self, number: int) -> np.ndarray:
        """By the number of a hole, how large squares along it are: the side, doubled as often as its thickness asks."""
        sizes, size, mask, numbers = np.full(number + 1, self.side), self.side, self.mask, self.numbers
        least = max(2, self.side // AROUND)
        while (deep := ndimage.minimum_filter(mask, least, mode="constant")).any():
            size *= 2
            sizes[np.flatnonzero(np.bincount(numbers[deep]))] = size
            height, width = (length // 2 * 2 for length in mask.shape)
            mask = np.logical_and.reduce(mask[:height, :width].reshape(height // 2, 2, width // 2, 2), axis=(1, 3))
            numbers = numbers[:height:2, :width:2]
        return sizes

    def _cover(self, place: tuple[slice, ...], number: int) -> None:
        """A square of twice a large hole's size; where the picture is long and narrow, several along the hole."""
        most = max(min(self.mask.shape), self.side)
        for rows, columns in itertools.product(*(_parts(along, most) for along in place)):
            size = min(2 * max(rows.stop - rows.start, columns.stop - columns.start), max(self.mask.shape))
            size = max(size, self.side)
            top, left = (_inside(part, size, length) for part, length in zip((rows, columns), self.mask.shape, strict=True))
            self.windows.append(Window(top, left, size, frozenset([number]), (rows, columns)))

    def _along(self, long: Sequence[int], step: int, reach: int) -> _Cells:
        """In or near which cells of a grid some holes lie, row by row."""
        height, width = self.mask.shape
        found, chosen = _Cells(set), np.zeros(self.numbers.max() + 1, bool)
        chosen[long] = True
        for row, column in itertools.product(range(0, height, step), range(0, width, step)):
            near = self.numbers[max(0, row - reach) : row + step + reach, max(0, column - reach) : column + step + reach]
            if (own := np.unique(near[chosen[near]])).size:
                found[row // step, column // step].update(own.tolist())
        return found

    def _share(self, cells: _Cells, step: int, beyond: int, size: int | None = None, fade: int = 0) -> None:
        """A square round each cell of a grid, for all holes that are filled from there, which may reach so far beyond the cell."""
        size = self.side if size is None else size
        for cell, found in cells.items():
            own = [slice(place * step, (place + 1) * step) for place in cell]
            top, left = (part.start - (size - step) // 2 for part in own)
            rows, columns = (slice(max(0, part.start - beyond), part.stop + beyond) for part in own)
            self.windows.append(Window(top, left, size, frozenset(found), (rows, columns), fade))

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
        own = filled[top : top + holes.shape[0], left : left + holes.shape[1]][holes]
        if window.fade:
            before, share = pixels[window.used][holes].astype(np.float32), window.share(*holes.shape)[holes]
            own = np.rint(before + (own - before) * share[:, None]).astype(np.uint8)
        pixels[window.used][holes] = own


def _weights(along: slice, number: int, fade: int) -> tuple[np.ndarray, np.ndarray]:
    """Of the first pixels of a stretch: its weights, which rise from its start, unless that is the picture's, and fall to its end, unless
    the next stretch's own part would lie beyond the picture; and those of the stretch before it."""
    pixels = np.arange(number, dtype=np.float32) + np.float32(0.5)
    rising = np.ones(number, np.float32) if along.start == 0 or not fade else (pixels / fade).clip(max=1.0)
    whole = along.stop - along.start
    falling = ((whole - pixels) / max(fade, 1)).clip(max=1.0)
    if number <= whole - fade // 2:
        falling[:] = 1.0
    return np.minimum(rising, falling), 1.0 - rising


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
