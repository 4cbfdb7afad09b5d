"""A user's own pictures: any folder, read through the path that serves (EXIF, colour profiles, resizing)."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Literal, cast

import numpy as np

from service.contract import images
from service.contract.manifest import Fit
from training.data import Dataset, Split
from training.problems import TrainingError

ENDINGS = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
FEWEST = 8


def load(path: Path, image_size: int, channels: int) -> Dataset:
    """Reads every picture below a folder at one size, cut to a square about its centre.

    Subfolders of `path` that hold pictures are classes, by name. A tenth of the pictures each is held
    out for choices and for figures, decided by the file's content, so that adding files moves none.
    A file that is not a readable picture is named on standard error and left out.

    Raises:
        TrainingError: no such folder, too few pictures in it, or a size or number of channels that cannot be.
    """
    if channels not in (1, 3):
        raise TrainingError(f"--channels {channels}: it has to be 1 (grey) or 3 (colour).")
    if not 8 <= image_size <= 512:
        raise TrainingError(f"--image-size {image_size}: it has to be 8 to 512.")
    if not path.is_dir():
        raise TrainingError(f"--data folder:{path}: there is no such folder.")
    fit = Fit(height=image_size, width=image_size, channels=cast("Literal[1, 3]", channels), mode="cover")
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in ENDINGS and file.is_file())
    pictures, folders, places = [], [], []
    for file in files:
        parts = file.relative_to(path).parts
        if any(part.startswith((".", "__MACOSX")) for part in parts):
            continue
        try:
            content = file.read_bytes()
            pictures.append(images.fit(images.decode(content), fit))
        except (images.UnreadableImage, OSError) as error:
            print(f"{file} is left out: {error}", file=sys.stderr)
            continue
        folders.append(parts[0] if len(parts) > 1 else "")
        places.append(hashlib.sha256(content).hexdigest())
    if len(pictures) < FEWEST:
        raise TrainingError(f"--data folder:{path}: {len(pictures)} readable pictures; at least {FEWEST} are needed.")
    classes = () if "" in folders else tuple(sorted(set(folders)))  # pictures beside the subfolders: they are no classes then
    labels = [classes.index(folder) if classes else 0 for folder in folders]
    order = np.argsort(places)
    ranks = np.empty(len(order), int)
    ranks[order] = np.arange(len(order))
    share = np.array([int(place[:8], 16) / 2**32 for place in places])
    held = max(1, len(pictures) // 10)
    test = (share >= 0.9) if (share >= 0.9).any() else ranks >= len(ranks) - held
    validation = ~test & ((share < 0.1) if ((share < 0.1) & ~test).any() else ranks < held)
    chosen = [~test & ~validation, validation, test]
    train, held_out, figures = (Split(np.stack(pictures)[mask], np.array(labels, np.int32)[mask]) for mask in chosen)
    return Dataset(
        name="folder",
        source=f"folder:{path}",
        train=train,
        validation=held_out,
        test=figures,
        fit=fit,
        title=f"{path.resolve().name} ({len(train)} training pictures of {len(pictures)})",
        license="the owner's",
        origin="a folder of pictures",
        classes=classes,
    )
