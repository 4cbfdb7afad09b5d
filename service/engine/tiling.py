"""Large pictures through a graph of one size: tiles that overlap, of which the middles are kept.

Where a pixel of a graph's answer depends on its input within `margin` alone, the tiles together are what a graph of the whole
picture's size would give. The picture is continued past its right and lower edge by its last pixels until the tiles cover it.
"""

from __future__ import annotations

from collections.abc import Iterator
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
    """

    def __init__(self, height: int, width: int, tile: tuple[int, int], margin: int) -> None:
        self.rows = Axis(height, tile[0], margin)
        self.columns = Axis(width, tile[1], margin)

    @property
    def number(self) -> int:
        return self.rows.number * self.columns.number

    def cut(self, pixels: np.ndarray, row: int) -> np.ndarray:
        """One row of tiles (n, tile height, tile width, channels) of a picture (height, width, channels)."""
        top = row * self.rows.step
        strip = pixels[top : top + self.rows.tile]
        missing = (self.rows.tile - len(strip), self.columns.covered - pixels.shape[1])
        strip = np.pad(strip, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
        starts = range(0, self.columns.number * self.columns.step, self.columns.step)
        return np.stack([strip[:, start : start + self.columns.tile] for start in starts])

    def strip(self, tiles: np.ndarray, row: int) -> np.ndarray:
        """What a row of tiles gave, joined: (height of the row's share, width, channels)."""
        top, bottom = self.rows.kept(row)
        return np.concatenate([tile[top:bottom, first:last] for tile, (first, last) in zip(tiles, self._columns(), strict=True)], axis=1)

    def _columns(self) -> Iterator[tuple[int, int]]:
        return (self.columns.kept(index) for index in range(self.columns.number))
