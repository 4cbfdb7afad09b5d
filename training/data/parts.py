"""Folders of good and bad parts: good ones alone, `good` beside folders of defects, or MVTec AD's layout (Bergmann et al. 2019)."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from service.contract import images
from service.contract.manifest import Fit
from training.data import GOOD, Dataset, Split, folder
from training.problems import TrainingError

TRUTH, MASKED = "ground_truth", "_mask"
VALIDATION, TEST = 0.2, 0.1
ALIKE = 1.03
"""Proportions that differ by this factor at most pass for the same."""


@dataclass(frozen=True)
class Layout:
    """Where the pictures lie.

    Attributes:
        training: a folder of good parts to learn from.
        good: one of good parts for figures; without it, some of those to learn from are held out.
        bad: one folder a defect, for figures.
        truth: by defect, where the masks are, `NAME_mask.png` for `NAME.png`.
    """

    training: Path
    good: Path | None
    bad: tuple[Path, ...]
    truth: Path

    @classmethod
    def of(cls, path: Path) -> Layout:
        """The layout of a folder."""
        if (path / "train" / GOOD).is_dir():
            own = path / "test" / GOOD
            return cls(path / "train" / GOOD, own if own.is_dir() else None, _folders(path / "test"), path / TRUTH)
        if (path / GOOD).is_dir():
            return cls(path / GOOD, None, _folders(path), path / TRUTH)
        return cls(path, None, (), path / TRUTH)


def _folders(path: Path) -> tuple[Path, ...]:
    """Those of defects."""
    return tuple(sorted(place for place in path.glob("*") if place.is_dir() and place.name not in (GOOD, TRUTH) and place.name[0] != "."))


def load(path: Path, image_size: int, channels: int) -> Dataset:
    """Reads a folder of good parts, or one with folders of bad ones beside the good ones; of any proportions, stretched to a square.

    The class `good` is 0. Bad parts serve figures only. Of the good ones a fifth is held out for thresholds, and a tenth for
    figures where no folder is there for that.
    Names on standard error what is no picture, pictures of other proportions than most, and folders that are taken for good ones without
    being called so.

    Raises:
        TrainingError: no such folder, too few good parts in it, a mask that does not fit, or a size or number of channels that cannot be.
    """
    fit = folder.square(path, image_size, channels).model_copy(update={"mode": "stretch"})
    layout = Layout.of(path)
    found = _read(layout.training, fit)
    folder.enough(layout.training, len(found))
    if layout.training == path and (inner := sorted({part.file.relative_to(path).parts[0] for part in found if part.file.parent != path})):
        print(f"{path} has no folder {GOOD}: all pictures are taken for good ones, also those in {', '.join(inner)}", file=sys.stderr)
    own = [] if layout.good is None else _read(layout.good, fit)
    masks = folder.splits([part.digest for part in found], VALIDATION, TEST)
    train, validation, test = ([part for part, chosen in zip(found, mask, strict=True) if chosen] for mask in masks)
    if own:
        train, test = train + test, own
    bad = [(part, label) for label, place in enumerate(layout.bad, 1) for part in _read(place, fit)]
    tested = [*((part, 0) for part in test), *bad]
    splits = [_split([(part, 0) for part in parts], path) for parts in (train, validation)]
    return Dataset(
        name="parts",
        source=f"parts:{path}",
        train=splits[0],
        validation=splits[1],
        test=_split(tested, path, _masks(layout, tested, fit)),
        fit=fit,
        title=f"{path.resolve().name} ({len(train)} good parts of {len(found)})",
        license="the owner's",
        origin="a folder of pictures",
        classes=(GOOD, *(place.name for place in layout.bad)),
    )


@dataclass(frozen=True)
class Part:
    """One file: the digest of its content, and its pixels as the model takes them."""

    file: Path
    digest: str
    pixels: np.ndarray


def _read(path: Path, fit: Fit) -> list[Part]:
    """The pictures below a folder."""
    parts, sizes = list[Part](), list[tuple[int, int]]()
    for file, digest, picture in folder.readable(path):
        parts.append(Part(file, digest, images.fit(picture, fit)))
        sizes.append(picture.size)
    others = sorted(
        file for file in path.rglob("*") if file.is_file() and file.suffix.lower() not in folder.ENDINGS and file.name[0] != "."
    )
    if others:
        print(f"{path}: {len(others)} files are no pictures and are left out, such as {others[0].name}", file=sys.stderr)
    usual = Counter(sizes).most_common(1)[0][0] if sizes else (1, 1)
    odd = [part.file for part, (width, height) in zip(parts, sizes, strict=True) if _unlike(width / height, usual[0] / usual[1])]
    if odd:
        told = f"{len(odd)} pictures have other proportions than the usual {usual[0]} x {usual[1]}, such as {odd[0].name}"
        print(f"{path}: {told}; all are stretched to {fit.width} x {fit.height}", file=sys.stderr)
    return parts


def _unlike(proportion: float, usual: float) -> bool:
    return not usual / ALIKE <= proportion <= usual * ALIKE


def _split(parts: list[tuple[Part, int]], path: Path, masks: np.ndarray | None = None) -> Split:
    pictures, labels = np.stack([part.pixels for part, _ in parts]), np.array([label for _, label in parts], np.int32)
    return Split(pictures, labels, masks, tuple(str(part.file.relative_to(path)) for part, _ in parts))


def _masks(layout: Layout, tested: list[tuple[Part, int]], fit: Fit) -> np.ndarray | None:
    """Masks of all test pictures at the model's size; nothing, where there are none at all."""
    if not layout.truth.is_dir():
        return None
    masks = np.zeros((len(tested), fit.height, fit.width), bool)
    grey = fit.model_copy(update={"channels": 1})
    for mask, (part, label) in zip(masks, tested, strict=True):
        if label == 0:
            continue
        path = layout.truth / part.file.parent.name / f"{part.file.stem}{MASKED}.png"
        try:
            drawn, shown = (images.decode(one.read_bytes()) for one in (path, part.file))
        except (OSError, images.UnreadableImage) as error:
            raise TrainingError(
                f"{path}, the mask of {part.file}, cannot be read ({getattr(error, 'strerror', None) or error})."
            ) from error
        if drawn.size != shown.size:
            raise TrainingError(f"{path} is {drawn.width} x {drawn.height}, {part.file} is {shown.width} x {shown.height}.")
        mask[:] = images.fit(drawn, grey)[..., 0] > 127
    return masks
