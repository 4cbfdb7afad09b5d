"""A user's own pictures: any folder, read through the path that serves (EXIF, colour profiles, resizing)."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, cast

import numpy as np
from PIL import Image

from service.contract import images
from service.contract.manifest import Fit
from training.data import Dataset, Split
from training.problems import TrainingError

ENDINGS = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
FEWEST = 8
KINDS = ("A", "B")


def load(path: Path, image_size: int, channels: int) -> Dataset:
    """Reads every picture below the folder at one size, cut to a square about its centre.

    Subfolders of `path` that hold pictures are classes, by name; `trainA` and `trainB` (and `testA` and `testB`, if they are there) are
    two kinds of pictures, as CycleGAN's data sets have them. A tenth of the pictures each is held out for choices and for
    figures, decided by the file's content, so that adding files moves none.
    A file that is not a readable picture is named on standard error and left out.

    Raises:
        TrainingError: no such folder, too few pictures in it, or a size or number of channels that cannot be.
    """
    fit = square(path, image_size, channels)
    if all((path / f"train{kind}").is_dir() for kind in KINDS):
        return _kinds(path, fit)
    read = [(file.relative_to(path).parts, digest, images.fit(picture, fit)) for file, digest, picture in readable(path)]
    enough(path, len(read))
    folders = [parts[0] if len(parts) > 1 else "" for parts, _, _ in read]
    classes = () if "" in folders else tuple(sorted(set(folders)))  # pictures beside the subfolders: they are no classes then
    labels = np.array([classes.index(folder) if classes else 0 for folder in folders], np.int32)
    pictures = np.stack([pixels for _, _, pixels in read])
    train, validation, test = (Split(pictures[mask], labels[mask]) for mask in splits([digest for _, digest, _ in read]))
    return _dataset(f"folder:{path}", path, fit, (train, validation, test), classes)


def pairs(path: Path, image_size: int, channels: int) -> Dataset:
    """Reads pairs: every file below the folder has two pictures of one size side by side, as pix2pix's data sets have them.

    Where those lie in a folder `train`, nothing else is trained on: what is in `test`, or in `val` where that is all there is, serves
    figures, and `val` beside `test` serves choices. For what has no folder a tenth is held out, as by `load`.

    Raises:
        TrainingError: as `load`; or the folder has `trainA` and `trainB`, of single pictures.
    """
    fit = square(path, image_size, channels)
    if all((path / f"train{kind}").is_dir() for kind in KINDS):
        raise TrainingError(f"--data folder:{path}: trainA and trainB hold single pictures: leave --paired out.")
    whole = path / "train" if (path / "train").is_dir() else path
    first, second, digests = _halves(whole, fit)
    enough(whole, len(digests))
    training, choices, figures = splits(digests)
    own = [_halves(path / name, fit)[:2] for name in ("val", "test")] if whole != path else [([], []), ([], [])]
    validation, test = own if own[1][0] else own[::-1]
    both = np.stack(first), np.stack(second)

    def held(given: tuple[list[np.ndarray], list[np.ndarray]], mask: np.ndarray) -> Split:
        return _two(*map(np.stack, given)) if given[0] else _two(*(part[mask] for part in both))

    left = training | (choices if validation[0] else False) | (figures if test[0] else False)
    train = _two(*(part[left] for part in both))
    return _dataset(f"pairs:{path}", path, fit, (train, held(validation, choices), held(test, figures)), KINDS, paired=True)


def _halves(path: Path, fit: Fit) -> tuple[list[np.ndarray], list[np.ndarray], list[str]]:
    """Left and right halves of the pictures below a folder, and the digests of their files."""
    left, right, digests = list[np.ndarray](), list[np.ndarray](), list[str]()
    for file, digest, picture in readable(path):
        half = picture.width // 2
        if half == 0:
            print(f"{file} is left out: it is one pixel wide", file=sys.stderr)
            continue
        left.append(images.fit(picture.crop((0, 0, half, picture.height)), fit))
        right.append(images.fit(picture.crop((picture.width - half, 0, picture.width, picture.height)), fit))
        digests.append(digest)
    return left, right, digests


def _kinds(path: Path, fit: Fit) -> Dataset:
    """`trainA`, `trainB`, `testA`, `testB`; without the last two, a tenth of the training pictures is held out for figures."""
    found: dict[str, list[np.ndarray]] = {"train": [], "validation": [], "test": []}
    for kind in KINDS:
        read = [(digest, images.fit(picture, fit)) for _, digest, picture in readable(path / f"train{kind}")]
        enough(path / f"train{kind}", len(read))
        own = [images.fit(picture, fit) for _, _, picture in readable(path / f"test{kind}")]
        pictures = np.stack([pixels for _, pixels in read])
        training, choices, figures = splits([digest for digest, _ in read])
        found["train"].append(pictures[training | figures] if own else pictures[training])
        found["validation"].append(pictures[choices])
        found["test"].append(np.stack(own) if own else pictures[figures])
    train, validation, test = (_two(*found[name]) for name in ("train", "validation", "test"))
    return _dataset(f"folder:{path}", path, fit, (train, validation, test), KINDS)


def _two(first: np.ndarray, second: np.ndarray) -> Split:
    return Split(np.concatenate([first, second]), np.repeat(np.arange(2, dtype=np.int32), [len(first), len(second)]))


def _dataset(
    source: str, path: Path, fit: Fit, splits: tuple[Split, Split, Split], classes: tuple[str, ...], paired: bool = False
) -> Dataset:
    train, validation, test = splits
    return Dataset(
        name="folder",
        source=source,
        train=train,
        validation=validation,
        test=test,
        fit=fit,
        title=f"{path.resolve().name} ({len(train)} training pictures of {sum(map(len, splits))})",
        license="the owner's",
        origin="a folder of pictures",
        classes=classes,
        paired=paired,
        aligned=paired,
    )


def square(path: Path, image_size: int, channels: int) -> Fit:
    if channels not in (1, 3):
        raise TrainingError(f"--channels {channels}: it has to be 1 (grey) or 3 (colour).")
    if not 8 <= image_size <= 512:
        raise TrainingError(f"--image-size {image_size}: it has to be 8 to 512.")
    if not path.is_dir():
        raise TrainingError(f"--data folder:{path}: there is no such folder.")
    return Fit(height=image_size, width=image_size, channels=cast("Literal[1, 3]", channels), mode="cover")


def files(path: Path) -> list[Path]:
    """What lies below a folder and is named as a picture, in order."""
    found = (file for file in path.rglob("*") if file.suffix.lower() in ENDINGS and file.is_file())
    return sorted(file for file in found if not any(part.startswith((".", "__MACOSX")) for part in file.relative_to(path).parts))


def readable(path: Path) -> Iterator[tuple[Path, str, Image.Image]]:
    """The pictures below a folder in order, each with its file and the digest of its content."""
    for file in files(path):
        try:
            content = file.read_bytes()
            yield file, hashlib.sha256(content).hexdigest(), images.decode(content)
        except (images.UnreadableImage, OSError) as error:
            print(f"{file} is left out: {error}", file=sys.stderr)


def enough(path: Path, number: int) -> None:
    if number < FEWEST:
        raise TrainingError(f"--data folder:{path}: {number} readable pictures; at least {FEWEST} are needed.")


def splits(digests: list[str], validation: float = 0.1, test: float = 0.1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Masks of training, validation and test pictures: by the digests, and where one would be empty, as with few pictures it may, by
    their order. Those of one digest are together.

    Raises:
        TrainingError: nothing is left for training, since too many digests are the same.
    """
    different, which = np.unique(digests, return_inverse=True)
    ranks, share = np.arange(len(different)), np.array([int(digest[:8], 16) / 2**32 for digest in different])
    chosen, held = (max(1, int(part * len(different))) for part in (validation, test))
    last = (share >= 1 - test) if (share >= 1 - test).any() else ranks >= len(ranks) - held
    first = ~last & ((share < validation) if ((share < validation) & ~last).any() else ranks < chosen)
    if (last | first).all():
        last, first = ranks >= len(ranks) - held, ranks < chosen
    if (last | first).all():
        raise TrainingError(f"Of {len(digests)} pictures too many have the same content: none is left to train on.")
    return (~last & ~first)[which], first[which], last[which]
