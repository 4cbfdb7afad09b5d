"""Photographs from Debian's packages of backgrounds, or from a folder of one's own, as squares cut out at their own scale.

Each photograph lies in one split as a whole. RESERVED ones are left out of everything.
"""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from service.contract import images
from service.contract.manifest import Fit
from training.data import Dataset, Split
from training.data.folder import files, splits
from training.problems import TrainingError

SIDE, STRIDE = 192, 128
LARGE = 384
"""Side of the squares of the test split, a few of each photograph."""
A_PHOTOGRAPH = {"train": 240, "validation": 8, "test": 6}
"""Squares of one, at most."""
TOGETHER = {"train": 12_000, "validation": 1_000, "test": 500}
"""Squares of all photographs, 1.6 GB, where one of each is not more: of many photographs there are fewer each."""
FLAT = 2.0
"""Levels from a pixel to the next, on average, below which there is nothing to learn from a square."""
BACKGROUNDS, WALLPAPERS = Path("/usr/share/backgrounds"), Path("/usr/share/wallpapers")
LOMIRI = (
    *("Bridge_by_Sander_Klootwijk", "Dragonfly_by_Bolly", "Picture_0B_by_freespace", "Wine_by_Jakkub_Mede"),
    *("aitzgorri_by_Aitzol_Berasategi", "analogpattern_by_Peter_Nerlich", "free_by_Peter_Nerlich", "greentock_by_Peter_Nerlich"),
    *("life_by_Aitzol_Berasategi", "seeding_by_Clements_Engelhardt", "sunset_by_Aitzol_Berasategi"),
)
"""Soft at their full size: halved first."""
MATE = ("Aqua", "Blinds", "FreshFlower", "Garden", "GreenMeadow", "RainDrops", "Storm", "TwoWings", "Wood", "YellowFlower")
PLASMA = ("BytheWater", "ColdRipple", "ColorfulCups", "DarkestHour", "FallenLeaf", "Grey", "Kite", "Path", "summer_1am")
RESERVED = (
    *("Kleiber_by_Lukas_Baubkus", "picosdeeuropa_by_Aitzol_Berasategi", "Picture_1A_by_freespace", "friends_by_Aitzol_Berasategi"),
    *("Dune", "LadyBird", "EveningGlow", "OneStandsOut"),
)
HELD_OUT = {
    "validation": ("aitzgorri_by_Aitzol_Berasategi", "TwoWings", "ColdRipple"),
    "test": ("life_by_Aitzol_Berasategi", "Picture_0B_by_freespace", "RainDrops", "ColorfulCups", "FallenLeaf"),
}
LICENSES = "CC0, CC BY 4.0, CC BY-SA 4.0, GPL-2+"
INSTALL = "apt install lomiri-wallpapers-16.04 lomiri-wallpapers-20.04 mate-backgrounds plasma-workspace-wallpapers"
INSTEAD = f"{INSTALL}, or give --data photos:FOLDER with photographs of your own"


def load(path: Path | None = None) -> Dataset:
    """Cuts photographs into squares of 192 x 192 pixels, those of the test split of 384 x 384.

    Args:
        path: a folder of photographs, of which about every tenth each is held out for choices and for figures, by its content. Copies of
            one are held out together.

    Raises:
        TrainingError: a package is missing; a folder with fewer than three photographs of at least 384 x 384 pixels that are not flat.
    """
    photographs = None if path is None else _photographs(path)
    found = packages(INSTEAD) if photographs is None else _read(photographs)
    number = Counter(photographs.values() if photographs is not None else ())
    most = {split: max(1, min(each, TOGETHER[split] // max(1, number[split]))) for split, each in A_PHOTOGRAPH.items()}
    names: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    squares: dict[str, list[np.ndarray]] = {"train": [], "validation": [], "test": []}
    for name, split, pixels in found:
        names[split].append(name)
        squares[split] += _squares(pixels, split, most[split])
    if empty := [split for split, held in squares.items() if not held]:
        raise TrainingError(f"--data photos:{path}: photographs for {', '.join(empty)} are flat but for their edges: {INSTEAD}.")
    splits = {split: Split(np.stack(held), np.zeros(len(held), np.int32)) for split, held in squares.items()}
    return Dataset(
        name="photos",
        source="photos" if path is None else f"photos:{path}",
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
        fit=Fit(height=SIDE, width=SIDE, channels=3, mode="cover"),
        title=f"Photographs ({len(splits['train']):,} squares of {len(names['train'])}; {len(names['validation'])} others for choices, "
        f"{len(names['test'])} for figures)",
        license=LICENSES if path is None else "the owner's",
        origin=origin(names["train"]) if path is None else "a folder of photographs",
    )


def origin(names: Iterable[str]) -> str:
    """Where photographs of the packages are from, with their names."""
    return (
        "backgrounds of Lomiri, MATE and Plasma as Debian packages them (lomiri-wallpapers-16.04, lomiri-wallpapers-20.04, "
        f"mate-backgrounds, plasma-workspace-wallpapers): {', '.join(sorted(names)).replace('_', ' ')}"
    )


def packages(instead: str) -> Iterator[tuple[str, str, np.ndarray]]:
    """Name, split and pixels (height, width, 3) of each photograph of the packages.

    Args:
        instead: what to do where one is not there, for the message.

    Raises:
        TrainingError: one is not there.
    """
    files = {
        **{name: BACKGROUNDS / f"{name}.jpg" for name in LOMIRI},
        **{name: BACKGROUNDS / "mate" / "nature" / f"{name}.jpg" for name in MATE},
        **{name: WALLPAPERS / name / "contents" / "images" / "2560x1600.jpg" for name in PLASMA},
    }
    for name, file in files.items():
        split = next((split for split, held in HELD_OUT.items() if name in held), "train")
        try:
            picture = images.decode(file.read_bytes())
        except (OSError, images.UnreadableImage) as error:
            raise TrainingError(f"{file} cannot be read ({getattr(error, 'strerror', None) or error}): {instead}.") from error
        if name in LOMIRI:
            picture = picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.BOX)
        yield name, split, images.whole(picture, 3)


def _photographs(path: Path) -> dict[Path, str]:
    """The split of each photograph below a folder that is large enough and not flat."""
    if not path.is_dir():
        raise TrainingError(f"--data photos:{path}: there is no such folder.")
    digests = {file: digest for file in files(path) if (digest := _usable(file)) is not None}
    if len(set(digests.values())) < FEWEST:
        wanted = f"{FEWEST} photographs of {LARGE} x {LARGE} pixels or more that differ and are not flat"
        raise TrainingError(f"--data photos:{path}: there are no {wanted}: {INSTEAD}.")
    _, validation, test = splits(list(digests.values()))
    held = zip(digests, validation, test, strict=True)
    return {file: "validation" if chosen else "test" if measured else "train" for file, chosen, measured in held}


FEWEST = 3


def _usable(file: Path) -> str | None:
    """The digest of a photograph's content, if squares can be cut out of it. Of what is too small only the header is read."""
    content = file.read_bytes()
    try:
        if min(images.declared_size(content)) < LARGE:
            return None
        if _squares(images.whole(images.decode(content), 3), "test", 1):
            return hashlib.sha256(content).hexdigest()
        why = "it is flat"
    except (images.UnreadableImage, OSError) as error:
        why = str(error)
    print(f"{file} is left out: {why}", file=sys.stderr)
    return None


def _read(photographs: dict[Path, str]) -> Iterator[tuple[str, str, np.ndarray]]:
    """One photograph at a time: all of them at once would not fit into memory."""
    for file, split in photographs.items():
        yield file.name, split, images.whole(images.decode(file.read_bytes()), 3)


def _squares(pixels: np.ndarray, split: str, most: int) -> list[np.ndarray]:
    """Squares of a photograph that are not flat, spread over it; those for training overlap."""
    side, stride = (LARGE, LARGE) if split == "test" else (SIDE, STRIDE if split == "train" else SIDE)
    height, width, _ = pixels.shape
    places = [(y, x) for y in range(0, height - side + 1, stride) for x in range(0, width - side + 1, stride)]
    rough = [square for square in (pixels[y : y + side, x : x + side] for y, x in places) if _roughness(square) >= FLAT]
    chosen = np.linspace(0, len(rough) - 1, min(len(rough), most)).astype(int)
    return [rough[index].copy() for index in chosen]


def _roughness(square: np.ndarray) -> float:
    """Levels from a pixel to its neighbours, on average."""
    grey = square.mean(axis=2)
    return float(np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean()) / 2
