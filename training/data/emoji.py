"""Emoji of two designers, Google's and Twitter's: the same things drawn twice, on white, 64x64.

They belong together by their code points, not pixel by pixel. All skin tones of one emoji lie in one split; a test or validation split has
the uncoloured one only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from service.contract import images
from service.contract.manifest import Fit
from training.data import Dataset, Split
from training.data.fetch import cache
from training.problems import TrainingError

DESIGNERS = ("google", "twitter")
SIDE = 64
LEFT_OUT = ("Flags", "Component")
PEOPLE = ("face-", "person", "monkey-face", "cat-face", "family")
"""How the names of the subcategories of faces and people begin."""
HELD_OUT = {"validation": 0.06, "test": 0.14}
INSTEAD = (
    "npm install emoji-datasource-google@16.0.0 emoji-datasource-twitter@16.0.0, and give --data {name}:PATH with the folder in which "
    "that made node_modules"
)


def load(name: str, path: Path | None = None) -> Dataset:
    """Reads `emoji`, all but flags, or `emoji-people`, faces and people.

    The classes are the designers; the pictures of one are in the order of those of the other.

    Raises:
        TrainingError: the packages are not there, or not what they should be.
    """
    packages = {designer: package(designer, path) for designer in DESIGNERS}
    found: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for emoji in _emoji(packages["google"] / "emoji.json", name):
        split = _split(emoji["unified"])
        found[split] += [one["image"] for one in _drawn_by_both(emoji, with_tones=split == "train")]
    fit = Fit(height=SIDE, width=SIDE, channels=3, fill=255)
    splits = {split: _read(packages, files, fit, name) for split, files in found.items()}
    return Dataset(
        name=name,
        source=name,
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
        fit=fit,
        title=f"Emoji{' of faces and people' if name == 'emoji-people' else ''} ({len(found['train']):,} of two designers, "
        f"{len(found['validation'])} held out for choices, {len(found['test'])} for figures)",
        license="Apache-2.0 (Google's), CC BY 4.0 (Twitter's)",
        origin="Noto Emoji by Google and Twemoji by Twitter and contributors, from the npm packages emoji-datasource-* 16.0.0",
        classes=DESIGNERS,
        paired=True,
    )


def package(designer: str, path: Path | None) -> Path:
    """Where a designer's npm package lies: in the folder given, or in the cache."""
    return (path if path is not None else cache() / "emoji") / "node_modules" / f"emoji-datasource-{designer}"


def picture(package: Path, designer: str, file: str, instead: str) -> Image.Image:
    """One emoji, RGBA.

    Args:
        instead: what to do where it is not there, for the message.

    Raises:
        TrainingError: it is not there, or no picture.
    """
    path = package / "img" / designer / str(SIDE) / file
    try:
        return images.decode(path.read_bytes())
    except (OSError, images.UnreadableImage) as error:
        raise TrainingError(f"{path} cannot be read ({getattr(error, 'strerror', None) or error}): {instead}.") from error


def _emoji(listing: Path, name: str) -> Iterator[dict[str, Any]]:
    try:
        entries = json.loads(listing.read_text())
    except (OSError, ValueError) as error:
        raise TrainingError(f"The emoji are not here ({listing}): {INSTEAD.format(name=name)}.") from error
    for entry in sorted(entries, key=lambda entry: str(entry["unified"])):
        if entry["category"] not in LEFT_OUT and (name == "emoji" or entry["subcategory"].startswith(PEOPLE)):
            yield entry


def _drawn_by_both(emoji: dict[str, Any], with_tones: bool) -> Iterator[dict[str, Any]]:
    for one in (emoji, *(emoji.get("skin_variations", {}).values() if with_tones else ())):
        if all(one[f"has_img_{designer}"] for designer in DESIGNERS):
            yield one


def _split(code: str) -> str:
    """By a digest of the code point, so that an emoji more moves none of the others."""
    place = int(hashlib.sha256(code.encode()).hexdigest()[:8], 16) / 2**32
    for split, share in HELD_OUT.items():
        if place < share:
            return split
        place -= share
    return "train"


def _read(packages: dict[str, Path], files: list[str], fit: Fit, name: str) -> Split:
    instead = INSTEAD.format(name=name)
    pictures = [images.fit(picture(package, designer, file, instead), fit) for designer, package in packages.items() for file in files]
    return Split(np.stack(pictures), np.repeat(np.arange(len(packages), dtype=np.int32), len(files)))
