"""A user's own pictures with captions: a file with one JSON object a line, `{"image": "path from there", "captions": ["...", ...]}`."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from service.contract import images
from service.contract.manifest import Fit
from training.data import Dataset, Split, folder
from training.problems import TrainingError

SIDE = 192
FIT = Fit(height=SIDE, width=SIDE, channels=3, mode="stretch")
"""So that what looks at a grid of such a picture looks at all of it."""

WORD = re.compile(r"[^\W_][^\s'-]*(?:['-]+[^\W_][^\s'-]*)*")


def cleaned(sentence: str) -> str:
    """Words in lower case, composed (NFC), with a space between them.

    A word is letters and digits with their combining marks and joiners; of punctuation only hyphens and apostrophes within words are left.
    """
    composed = unicodedata.normalize("NFC", sentence.lower()).replace("\u2019", "'")
    return " ".join(WORD.findall("".join(letter if _within(letter) else " " for letter in composed)))


def _within(letter: str) -> bool:
    """Whether it may lie within a word."""
    return letter.isalnum() or letter in "'-\u200c\u200d" or unicodedata.category(letter).startswith("M")


def load(path: Path) -> Dataset:
    """Reads the pictures that a file lists at 192 x 192, and their captions.

    A tenth of the pictures each is held out for choices and for figures, by the content of the picture. A line that cannot be used is
    named on standard error and left out.

    Raises:
        TrainingError: no such file, or too few pictures in it.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # splitlines would break at what JSON may have within strings
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"--data captions:{path} cannot be read ({getattr(error, 'strerror', None) or error}).") from error
    found = list(_read(path, lines))
    if len(found) < folder.FEWEST:
        raise TrainingError(f"--data captions:{path}: {len(found)} pictures with captions; at least {folder.FEWEST} are needed.")
    train, validation, test = (
        split([one for one, chosen in zip(found, mask, strict=True) if chosen]) for mask in folder.splits([one.digest for one in found])
    )
    return Dataset(
        name="captions",
        source=f"captions:{path}",
        train=train,
        validation=validation,
        test=test,
        fit=FIT,
        title=f"{path.stem} ({len(train)} training pictures of {len(found)}, with captions)",
        license="the owner's",
        origin="a file of pictures and captions",
    )


@dataclass(frozen=True)
class Captioned:
    """One picture as the model takes it, uint8 (height, width, 3), its captions, and a digest that decides its split."""

    name: str
    digest: str
    pixels: np.ndarray
    captions: tuple[str, ...]


def split(found: list[Captioned]) -> Split:
    return Split(
        np.stack([one.pixels for one in found]),
        np.zeros(len(found), np.int32),
        names=tuple(one.name for one in found),
        captions=tuple(one.captions for one in found),
    )


def _read(path: Path, lines: list[str]) -> Iterator[Captioned]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            name, captions = _parsed(line)
            content = (path.parent / name).read_bytes()
            yield Captioned(name, hashlib.sha256(content).hexdigest(), images.fit(images.decode(content), FIT), captions)
        except (ValueError, OSError) as error:  # of the line, or of its picture
            print(f"{path}, line {number} is left out: {getattr(error, 'strerror', None) or error}", file=sys.stderr)


def _parsed(line: str) -> tuple[str, tuple[str, ...]]:
    """Raises ValueError, which says what is wrong."""
    entry = json.loads(line)
    name, captions = (entry.get(key) for key in ("image", "captions")) if isinstance(entry, dict) else (None, None)
    if not isinstance(name, str) or not isinstance(captions, list) or not all(isinstance(one, str) for one in captions):
        raise ValueError('it is not {"image": "…", "captions": ["…", …]}')
    if not (sentences := tuple(filter(None, map(cleaned, captions)))):
        raise ValueError("it has no captions")
    return name, sentences
