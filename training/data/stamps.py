"""Stamps of Tux Paint, photographs and drawings of single things on white, with what they are called, at 192x192.

Only PNG files are read: nothing here draws SVG. `symbols` and the reserved stamps are left out, whatever folder they lie in, and so are
texts that name nothing, such as `Eat your broccoli!`.

The split goes by the caption: mirrored twins and series of one thing (`Candy_cane_photo_1`, `-2`) share it, so that no picture of which
there is a twin in training serves figures. By the noun alone no thing of the test split would occur in training at all, and so few
pictures teach no word that is not in them.
"""

from __future__ import annotations

import hashlib
import re
import sys
from functools import cache
from pathlib import Path

from service.contract import images
from service.contract.manifest import Fit
from training.data import Dataset, folder
from training.data.captions import Captioned, cleaned, split
from training.data.phrases import article
from training.problems import TrainingError

SIDE = 192
MARGINS = Fit(height=SIDE, width=SIDE, channels=3, fill=255)
"""How a stamp becomes square here: on white."""
FIT = Fit(height=SIDE, width=SIDE, channels=3, mode="stretch")
"""How a picture that is asked about does: whole, so that attention covers it."""
VALIDATION, TEST = 0.1, 0.2
DEBIAN = Path("/usr/share/tuxpaint/stamps")
SYMBOLS, MIRRORED = "symbols", "_mirror"
DETERMINERS = ("a", "an", "another", "our", "some", "the", "two")
ONE = (
    *("adenium", "anthurium", "balsam", "cathedral", "circus tent", "hibiscus", "measuring tape", "pedestrian crossing"),
    *("red plastic flower", "school crossing", "teddy bear"),
)
"""Names without an article that get `a` or `an`."""
SOME = (
    *("big fireworks", "confetti", "fire", "hard candy", "holly leaves", "magic stones", "roast turkey", "rugby goal posts"),
    "sweet yellow corn",
)
"""Names without an article that get `some`."""
MENDED = {"an hippopotamus": "a hippopotamus", "an important part of hanukkah": "a menorah"}
ENDS = r"[.!?;:(\u2013\u2014]|,(?= (?:an?|the|also)\b)| (?:is|are|carries|gets|lets|means|resembles)\b"
"""Where the name of a thing ends and a sentence about it goes on."""
INSTEAD = "apt install tuxpaint-stamps-default, or give --data stamps:FOLDER with stamps (NAME.png, and NAME.txt with what it is called)"


def load(path: Path | None = None) -> Dataset:
    """Reads the stamps, each with one caption.

    Args:
        path: a folder of stamps, if not that of the Debian package.

    Raises:
        TrainingError: they are not there, or too few.
    """
    place = path if path is not None else DEBIAN
    found, nameless = list[Captioned](), list[str]()
    for file in sorted(place.rglob("*.png")):
        stem = file.relative_to(place).with_suffix("").as_posix().removesuffix(MIRRORED)
        text = place / f"{stem}.txt"
        if stem in reserved() or stem.split("/")[0] == SYMBOLS or not text.exists():
            continue
        first = text.read_text(encoding="utf-8", errors="replace").strip().partition("\n")[0]
        if (caption := named(first)) is None:
            nameless.append(first)
        else:
            found.append(_read(file, file.relative_to(place).as_posix(), caption))
    if len(found) < folder.FEWEST:
        raise TrainingError(f"{place} has {len(found)} stamps with a name; at least {folder.FEWEST} are needed: {INSTEAD}.")
    if nameless:
        print(f"{place}: {len(nameless)} stamps are left out, for their texts name nothing, such as: {nameless[0]}", file=sys.stderr)
    masks = folder.splits([one.digest for one in found], VALIDATION, TEST)
    train, validation, test = (split([one for one, chosen in zip(found, mask, strict=True) if chosen]) for mask in masks)
    return Dataset(
        name="stamps",
        source="stamps" if path is None else f"stamps:{path}",
        train=train,
        validation=validation,
        test=test,
        fit=FIT,
        title=f"Stamps of Tux Paint ({len(train)} training pictures of {len(found)})" if path is None else f"Stamps ({len(train)})",
        license="GPL-2+" if path is None else "the owner's",
        origin="Tux Paint's stamps, by its contributors, from the Debian package tuxpaint-stamps-default"
        if path is None
        else "a folder of stamps",
    )


@cache
def reserved() -> frozenset[str]:
    """Stamps that serve tests of finished models only, without their endings."""
    listed = Path(__file__).with_name("reserved_stamps.txt").read_text().split()
    return frozenset(name.rpartition(".")[0] for name in listed)


def named(text: str) -> str | None:
    """What a stamp's text calls it, with an article; nothing, where it is no name."""
    name = cleaned(re.split(ENDS, text.strip(), maxsplit=1)[0])
    if name in SOME:
        return f"some {name}"
    if name in ONE:
        return f"{article(name)} {name}"
    return MENDED.get(name, name) if name.partition(" ")[0] in DETERMINERS else None


def _read(file: Path, name: str, caption: str) -> Captioned:
    try:
        pixels = images.fit(images.decode(file.read_bytes()), MARGINS)
    except (OSError, images.UnreadableImage) as error:
        raise TrainingError(f"{file} cannot be read ({getattr(error, 'strerror', None) or error}): {INSTEAD}.") from error
    return Captioned(name, hashlib.sha256(caption.encode()).hexdigest(), pixels, (caption,))
