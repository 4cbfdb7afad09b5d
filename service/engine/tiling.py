"""Large pictures through a graph of one size: tiles that overlap, of which the middles are kept.

Where a pixel of a graph's answer depends on its input within `margin` alone, the tiles together are what a graph of the whole
picture's size would give; where it depends on more, but little, one tile fades into the next. The picture is continued past its
right and lower edge by its last pixels until the tiles cover it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Axis:
    """Tiles along one side of a picture.

    Attributes:
        length: of the side, in pixels, as `tile` and `margin` are.
    """

    length: int
    tile: int
    margin: int

    @property
    def step(self) -> int:
        return self.tile - 2 * self.margin

    @property
    def number(self) -> int:
        return 1 + max(0, -(-(self.length - self.tile) // self.step))

    @property
    def covered(self) -> int:
        """From the first tile's start to the last one's end."""
        return self.tile + self.step * (self.number - 1)

    def kept(self, index: int) -> tuple[int, int]:
        """First and one past the last pixel of a tile's answer that is used, counted in the tile; past the picture's end nothing is."""
        start = index * self.step
        first = 0 if index == 0 else self.margin
        last = self.tile if index == self.number - 1 else self.tile - self.margin
        return first, min(last, self.length - start)


class Grid:
    """The tiles of one picture, row by row.

    Args:
        height, width: of the picture.
        tile: height and width of the graph's input.
        margin: of a tile, next to other tiles.
        feather: pixels on both sides of where two tiles meet over which one fades into the other, `margin` at most.
        scale: how many pixels of the answer, each way, belong to one of the picture.
    """

    def __init__(self, height: int, width: int, tile: tuple[int, int], margin: int, feather: int = 0, scale: int = 1) -> None:
        self.rows, self.columns = Axis(height, tile[0], margin), Axis(width, tile[1], margin)
        self.feather, self.scale = feather, scale

    @property
    def number(self) -> int:
        return self.rows.number * self.columns.number

    def cut(self, pixels: np.ndarray, rows: Iterable[int]) -> np.ndarray:
        """Some rows of tiles (n, tile height, tile width, channels) of a picture (height, width, channels), row by row."""
        corners = [(row * self.rows.step, column * self.columns.step) for row in rows for column in range(self.columns.number)]
        tiles = np.empty((len(corners), self.rows.tile, self.columns.tile, pixels.shape[2]), pixels.dtype)
        for tile, (top, left) in zip(tiles, corners, strict=True):
            there = pixels[top : top + self.rows.tile, left : left + self.columns.tile]
            height, width, _ = there.shape
            tile[:height, :width] = there
            tile[:height, width:] = there[:, -1:]
            tile[height:] = tile[height - 1]
        return tiles


class Mosaic:
    """What becomes of a picture whose tiles are answered row by row.

    Attributes:
        pixels: uint8 (scale x height, scale x width, channels), as far as rows were added.
    """

    def __init__(self, grid: Grid, channels: int) -> None:
        self.grid = grid
        self.pixels = np.empty((grid.rows.length * grid.scale, grid.columns.length * grid.scale, channels), np.uint8)
        self._before = self.pixels[:0]  # the last row's tiles, joined

    def add(self, tiles: Sequence[np.ndarray], row: int) -> None:
        """Adds what a row of tiles became, each uint8 (scale x tile height, scale x tile width, channels); rows come in order."""
        height, _, channels = tiles[0].shape
        across = np.empty((height, self.pixels.shape[1], channels), np.uint8)
        for column, tile in enumerate(tiles):
            before = tiles[column - 1] if column else tile
            self._join(across.swapaxes(0, 1), self.grid.columns, column, before.swapaxes(0, 1), tile.swapaxes(0, 1))
        self._join(self.pixels, self.grid.rows, row, self._before, across)
        self._before = across

    def _join(self, whole: np.ndarray, axis: Axis, index: int, before: np.ndarray, own: np.ndarray) -> None:
        """Puts a tile in its place along the first dimension, and fades the one `before` it into it."""
        scale, half = self.grid.scale, self.grid.feather * self.grid.scale
        (first, last), step = axis.kept(index), axis.step * scale
        first, last, start = first * scale, last * scale, index * step
        whole[start + first : start + last] = own[first:last]
        if index and half:
            old, new = before[step + first - half : step + first + half], own[first - half : first + half]
            faded = np.subtract(new, old, dtype=np.float32)
            faded *= ((np.arange(2 * half, dtype=np.float32) + 0.5) / (2 * half))[:, None, None]
            faded += old
            np.rint(faded, out=whole[start + first - half : start + first + half], casting="unsafe")
