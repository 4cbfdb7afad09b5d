"""COCO's captions of 2014 (Lin et al. 2014; Chen et al. 2015): five sentences about each of 123,287 photographs.

Either in the splits of Karpathy & Fei-Fei (2015), 113,287 for training, 5,000 for choices and 5,000 for figures, by their
`dataset_coco.json`; or as it is published, `annotations/captions_train2014.json` and `captions_val2014.json`, where half of the pictures
for validation serve choices and half figures. The pictures lie beside, in `train2014` and `val2014`.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from service.contract import images
from training.data import Dataset, Split
from training.data.captions import FIT, cleaned
from training.data.fetch import cache
from training.problems import TrainingError

KARPATHY = "dataset_coco.json"
OFFICIAL = {"train2014": "captions_train2014.json", "val2014": "captions_val2014.json"}
SPLITS = {"train": "train", "restval": "train", "val": "validation", "test": "test"}
"""What Karpathy's splits are here."""
INSTEAD = (
    "unpack train2014.zip, val2014.zip and annotations_trainval2014.zip of cocodataset.org in one folder (for Karpathy's splits put "
    "dataset_coco.json there too), and give --data coco:FOLDER"
)

Entry = tuple[str, Path, tuple[str, ...]]
"""The split, the file and the captions of a picture."""


def load(path: Path) -> Dataset:
    """Reads the captions, and the pictures at 192 x 192. A picture without captions is left out.

    The pictures take 14 GB, so they are a file in the cache that is mapped into memory: it is made once for a folder.

    Raises:
        TrainingError: a file is not there, or not what it should be.
    """
    source = path / KARPATHY
    try:
        found = [entry for entry in (_karpathy(path) if source.exists() else _official(path)) if entry[2]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrainingError(f"COCO's captions cannot be read from {path} ({error}): {INSTEAD}.") from error
    parts = {name: [entry for entry in found if entry[0] == name] for name in ("train", "validation", "test")}
    if empty := [name for name, entries in parts.items() if not entries]:
        raise TrainingError(f"{path} has no pictures with captions for {', '.join(empty)}: {INSTEAD}.")
    pictures, start, splits = _mapped(path, [file for entries in parts.values() for _, file, _ in entries]), 0, {}
    for name, entries in parts.items():
        stop = start + len(entries)
        captions = tuple(sentences for _, _, sentences in entries)
        splits[name] = Split(pictures[start:stop], np.zeros(len(entries), np.int32), captions=captions)
        start = stop
    division = "Karpathy and Fei-Fei's splits" if source.exists() else "the official split"
    return Dataset(
        name="coco",
        source=f"coco:{path}",
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
        fit=FIT,
        title=f"COCO captions 2014 ({len(splits['train']):,} training pictures; {division})",
        license="CC BY 4.0 (captions), the terms of Flickr (photographs)",
        origin="COCO, cocodataset.org",
    )


def _karpathy(path: Path) -> Iterator[Entry]:
    for picture in json.loads((path / KARPATHY).read_text())["images"]:
        sentences = [sentence["raw"] for sentence in picture["sentences"]]
        yield SPLITS[picture["split"]], path / picture["filepath"] / picture["filename"], _cleaned(sentences)


def _official(path: Path) -> Iterator[Entry]:
    for place, name in OFFICIAL.items():
        listed: dict[str, Any] = json.loads((path / "annotations" / name).read_text())
        sentences: dict[int, list[str]] = {}
        for annotation in listed["annotations"]:
            sentences.setdefault(annotation["image_id"], []).append(annotation["caption"])
        for picture in sorted(listed["images"], key=lambda picture: int(picture["id"])):
            number = picture["id"]
            split = "train" if place == "train2014" else ("validation", "test")[number % 2]
            yield split, path / place / picture["file_name"], _cleaned(sentences.get(number, []))


def _cleaned(sentences: list[str]) -> tuple[str, ...]:
    return tuple(filter(None, map(cleaned, sentences)))


def _mapped(path: Path, files: list[Path]) -> np.ndarray:
    """The pictures, uint8 (n, height, width, 3), read-only."""
    try:
        listing = [[str(file.relative_to(path)), file.stat().st_size] for file in files]
    except OSError as error:
        raise TrainingError(f"{error.filename} cannot be read ({error.strerror}): {INSTEAD}.") from error
    target = cache() / "coco" / f"{hashlib.sha256(json.dumps([listing, FIT.model_dump()]).encode()).hexdigest()[:16]}.npy"
    if not target.exists():
        print(f"{len(files):,} pictures are brought to {FIT.width} x {FIT.height} in {target}, once", file=sys.stderr)
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_suffix(".unfinished")
        made = np.lib.format.open_memmap(unfinished, "w+", np.uint8, (len(files), FIT.height, FIT.width, FIT.channels))
        for pixels, file in zip(made, files, strict=True):
            try:
                pixels[:] = images.fit(images.decode(file.read_bytes()), FIT)
            except (OSError, images.UnreadableImage) as error:
                raise TrainingError(f"{file} cannot be read ({getattr(error, 'strerror', None) or error}): {INSTEAD}.") from error
        made.flush()
        unfinished.replace(target)
    return np.load(target, mmap_mode="r")
