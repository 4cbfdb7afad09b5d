"""Scenes: one to three things of one to three kinds, emoji of one designer, on plain, gradient and photographic backgrounds, 192x192.

What is held out for choices and for figures are pairs of different labels that never come together in training, photographs, shades of
plain colours and directions of gradients; each label comes in all splits, by itself and more than once. The same scenes are composed every
time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image

from service.contract.manifest import Fit
from training.data import Box, Dataset, Split, Thing, emoji, photos, phrases

SIDE = 192
NUMBERS = {"train": 40000, "validation": 1000, "test": 1000}
EMPTY = 200
"""Photographs of the test split without things."""
HELD_OUT = {"test": 0.15, "validation": 0.05}
"""Shares of the pairs of labels."""
PATTERNS = {"a": 0.2, "aa": 0.1, "aaa": 0.05, "ab": 0.3, "aab": 0.1, "abc": 0.25}
"""How often there are so many things, like letters being of one kind."""
SIZES = {1: (0.35, 0.55), 2: (0.32, 0.48), 3: (0.28, 0.4)}
"""The longer side of a thing, as a share of the picture's, by how many there are."""
OVERLAP = 0.05
"""Of a box, at most."""
GROUNDS = {"plain": 0.4, "gradient": 0.25, "photo": 0.35}
COLOURS = {
    "red": ((165, 15, 25), (240, 60, 60)),
    "orange": ((225, 95, 0), (255, 160, 50)),
    "yellow": ((225, 190, 0), (255, 235, 90)),
    "green": ((15, 105, 40), (90, 195, 95)),
    "turquoise": ((0, 145, 145), (95, 220, 215)),
    "blue": ((15, 50, 150), (80, 150, 240)),
    "purple": ((85, 25, 125), (165, 95, 205)),
    "pink": ((235, 105, 165), (255, 195, 220)),
    "brown": ((80, 45, 20), (150, 100, 60)),
    "grey": ((85, 85, 85), (185, 185, 185)),
    "black": ((0, 0, 0), (32, 32, 32)),
    "white": ((255, 255, 255), (236, 236, 236)),
}
"""Of each colour the darkest and the lightest shade (of white, the other way about)."""
SHADES = {"train": ((0.0, 0.35), (0.65, 1.0)), "validation": ((0.4, 0.46),), "test": ((0.5, 0.6),)}
"""Of a colour, from the one shade to the other."""
DIRECTIONS = {"train": ((0, 20), (70, 180)), "validation": ((25, 35),), "test": ((40, 65),)}
"""Of gradients, in degrees."""
FAR = 90
"""Levels that the colours of a gradient differ by, at least, in one channel."""
CONTRAST, SEEN = 50, 0.5
"""Of a thing, at least such a share differs from what is behind it by so many levels in one channel."""
SOLID = 32
"""Alpha from which a pixel belongs to a thing."""
LARGEST = 2 * SIDE
"""The shorter side of a photograph that squares are cut out of."""
BENT = 0.5
"""How far the brightness of each channel of a photograph is bent in training, in powers of e."""
ONE_WAY = ("alarm clock", "calendar", "credit card", "money bag", "newspaper", "stopwatch", "watch")
"""Things with writing or a dial, which are never mirrored."""
DESIGNER = "google"
INSTEAD = "npm install emoji-datasource-google@16.0.0, and give --data scenes:PATH with the folder in which that made node_modules"


def load(path: Path | None = None) -> Dataset:
    """Composes the scenes, with five captions each.

    Args:
        path: the folder of the emoji's node_modules, if not that in the cache.

    Raises:
        TrainingError: the emoji or the photographs are not there.
    """
    package = emoji.package(DESIGNER, path)
    things = {label: _cut_out(emoji.picture(package, DESIGNER, f"{code}.png", INSTEAD)) for code, label in phrases.objects().items()}
    grounds: dict[str, list[Image.Image]] = {split: [] for split in NUMBERS}
    names: dict[str, list[str]] = {split: [] for split in NUMBERS}
    for name, split, pixels in photos.packages(photos.INSTALL):
        grounds[split].append(_reduced(Image.fromarray(pixels)))
        names[split].append(name)
    composers = {split: Composer(split, things, grounds[split]) for split in NUMBERS}
    splits = {split: _compose(composer, NUMBERS[split]) for split, composer in composers.items()}
    return Dataset(
        name="scenes",
        source="scenes",
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
        fit=Fit(height=SIDE, width=SIDE, channels=3, mode="stretch"),
        title=f"Scenes ({NUMBERS['train']:,} of {len(things)} objects; {NUMBERS['validation']:,} for choices and {NUMBERS['test']:,} for "
        "figures have pairs of objects, and backgrounds, that training has not)",
        license=f"Apache-2.0 (emoji), {photos.LICENSES} (backgrounds)",
        origin="composed of Noto Emoji by Google, from the npm package emoji-datasource-google 16.0.0, and "
        + photos.origin(name for split in names.values() for name in split),
        empty=composers["test"].photographed(EMPTY),
    )


def split_of(first: str, second: str) -> str:
    """The split in which things of these two labels come together, by a digest of both, so that a label more moves no pair."""
    pair = "|".join(sorted((first, second)))
    place = int(hashlib.sha256(pair.encode()).hexdigest()[:8], 16) / 2**32
    for split, share in HELD_OUT.items():
        if place < share:
            return split
        place -= share
    return "train"


def placed(sizes: Sequence[tuple[int, int]], side: int, random: np.random.Generator) -> list[Box] | None:
    """Boxes of these widths and heights anywhere in a square picture, hardly overlapping; nothing, where the first tries find none."""
    boxes = list[Box]()
    for width, height in sizes:
        for _ in range(20):
            box = (int(random.integers(side - width + 1)), int(random.integers(side - height + 1)), width, height)
            if all(_overlap(box, other) <= OVERLAP for other in boxes):
                boxes.append(box)
                break
        else:
            return None
    return boxes


def _overlap(first: Box, second: Box) -> float:
    """The share of the smaller box that the other one covers."""
    width, height = (
        min(first[axis] + first[2 + axis], second[axis] + second[2 + axis]) - max(first[axis], second[axis]) for axis in (0, 1)
    )
    return max(width, 0) * max(height, 0) / min(first[2] * first[3], second[2] * second[3])


def _cut_out(picture: Image.Image) -> Image.Image:
    """A thing without the clear margin around it."""
    return picture.crop(picture.getchannel("A").point([255 * (alpha >= SOLID) for alpha in range(256)]).getbbox())


def _reduced(photograph: Image.Image) -> Image.Image:
    scale = LARGEST / min(photograph.size)
    if scale >= 1:
        return photograph
    return photograph.resize((round(photograph.width * scale), round(photograph.height * scale)), Image.Resampling.BICUBIC, reducing_gap=2)


def _compose(composer: Composer, number: int) -> Split:
    pictures, captions, objects = np.empty((number, SIDE, SIDE, 3), np.uint8), list[tuple[str, ...]](), list[tuple[Thing, ...]]()
    for index, picture in enumerate(pictures):
        random = np.random.default_rng([list(NUMBERS).index(composer.split), index])
        picture[:], ground, things = composer.scene(random)
        captions.append(phrases.captions(things, f"{phrases.article(ground)} {ground} background", SIDE, random))
        objects.append(things)
    return Split(pictures, np.zeros(number, np.int32), captions=tuple(captions), objects=tuple(objects))


@dataclass(frozen=True)
class Composer:
    """Makes the scenes of one split.

    Attributes:
        things: by label, RGBA.
        photographs: RGB, those of the split.
    """

    split: str
    things: dict[str, Image.Image]
    photographs: list[Image.Image]

    def scene(self, random: np.random.Generator) -> tuple[np.ndarray, str, tuple[Thing, ...]]:
        """A picture, uint8 (SIDE, SIDE, 3), what its background is called, and what is where."""
        labels = self.labels(random)
        while True:
            pictures = [self._sized(label, len(labels), random) for label in labels]
            boxes = placed([picture.size for picture in pictures], SIDE, random)
            if boxes is None:
                continue
            canvas, ground = self.ground(random)
            if all(_stands_out(picture, canvas, box) for picture, box in zip(pictures, boxes, strict=True)):
                break
        for picture, box in zip(pictures, boxes, strict=True):
            canvas.paste(picture, box[:2], picture)
        return np.asarray(canvas), ground, tuple(Thing(label, box) for label, box in zip(labels, boxes, strict=True))

    def labels(self, random: np.random.Generator) -> list[str]:
        """Of one scene: two that are of different kinds, or alike, may come together in this split."""
        names = list(self.things)
        pattern = str(random.choice(list(PATTERNS), p=list(PATTERNS.values())))
        while True:
            chosen = random.choice(len(names), len(set(pattern)), replace=False)
            labels = [names[chosen["abc".index(letter)]] for letter in pattern]
            if all(self._together(*pair) for pair in combinations(labels, 2)):
                return labels

    def _together(self, first: str, second: str) -> bool:
        return phrases.countable(first) if first == second else split_of(first, second) == self.split

    def _sized(self, label: str, number: int, random: np.random.Generator) -> Image.Image:
        picture = self.things[label]
        scale = random.uniform(*SIZES[number]) * SIDE / max(picture.size)
        turned = random.random() < 0.5 and label not in ONE_WAY
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if turned else picture
        return picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BICUBIC)

    def ground(self, random: np.random.Generator) -> tuple[Image.Image, str]:
        """A background and what it is called: its colour, `gradient` or `photo`."""
        kind = str(random.choice(list(GROUNDS), p=list(GROUNDS.values())))
        return {"plain": self._plain, "gradient": self._gradient, "photo": self._photo}[kind](random)

    def _plain(self, random: np.random.Generator) -> tuple[Image.Image, str]:
        name = str(random.choice(list(COLOURS)))
        red, green, blue = self._shade(name, random).astype(int).tolist()
        return Image.new("RGB", (SIDE, SIDE), (red, green, blue)), name

    def _shade(self, name: str, random: np.random.Generator) -> np.ndarray:
        one, other = np.array(COLOURS[name], float)
        return np.rint(one + (other - one) * _within(SHADES[self.split], random))

    def _gradient(self, random: np.random.Generator) -> tuple[Image.Image, str]:
        one = other = np.zeros(3)
        while np.abs(one - other).max() < FAR:
            one, other = (self._shade(str(name), random) for name in random.choice(list(COLOURS), 2, replace=False))
        angle = np.deg2rad(_within(DIRECTIONS[self.split], random))
        place = np.linspace(-0.5, 0.5, SIDE)
        along = np.cos(angle) * place + np.sin(angle) * place[:, None]
        along = along / (abs(np.cos(angle)) + abs(np.sin(angle))) + 0.5
        channels = [np.rint(first + (last - first) * along) for first, last in zip(one, other, strict=True)]
        return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8)), "gradient"

    def photographed(self, number: int) -> np.ndarray:
        """Photographic backgrounds without things, uint8 (number, SIDE, SIDE, 3)."""
        return np.stack([np.asarray(self._photo(np.random.default_rng([len(NUMBERS), index]))[0]) for index in range(number)])

    def _photo(self, random: np.random.Generator) -> tuple[Image.Image, str]:
        photograph = self.photographs[random.integers(len(self.photographs))]
        side = int(random.integers(min(SIDE, *photograph.size), min(photograph.size) + 1))
        x, y = (int(random.integers(extent - side + 1)) for extent in photograph.size)
        square = photograph.resize((SIDE, SIDE), Image.Resampling.BICUBIC, (x, y, x + side, y + side), reducing_gap=2)
        return _varied(square, random) if self.split == "train" else square, "photo"


def _varied(square: Image.Image, random: np.random.Generator) -> Image.Image:
    """Mirrored, turned by quarters and in other colours, or not: there are few photographs to learn from, and any may come."""
    ways = [None, *Image.Transpose]
    way = ways[random.integers(len(ways))]
    levels = 255 * (np.arange(256) / 255) ** np.exp(random.uniform(-BENT, BENT, (3, 1)))
    return (square if way is None else square.transpose(way)).point(np.rint(levels).astype(int).ravel().tolist())


def _within(ranges: Sequence[tuple[float, float]], random: np.random.Generator) -> float:
    """Any number within one of some ranges."""
    place = random.uniform(0, sum(last - first for first, last in ranges))
    for first, last in ranges:
        if place <= last - first:
            break
        place -= last - first
    return first + place


def _stands_out(picture: Image.Image, canvas: Image.Image, box: Box) -> bool:
    x, y, width, height = box
    pixels = np.asarray(picture)[::2, ::2].astype(int)
    behind = np.asarray(canvas.crop((x, y, x + width, y + height)))[::2, ::2]
    solid = pixels[..., 3] > 127
    differing = np.abs(pixels[..., :3] - behind).max(axis=2)[solid] >= CONTRAST
    return bool(differing.mean() >= SEEN)
