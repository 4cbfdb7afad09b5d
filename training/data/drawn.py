"""Digits drawn from Pillow's own font, turned, scaled and moved: tiny, made on the spot, for smoke runs."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from service.contract.manifest import Fit
from training.data import Dataset, Split, Thing, phrases
from training.data.scenes import placed

PAIR_SIDE = 32
PART_SIDE = 64
SCENE_SIDE = 64
GROUNDS = {"white": "white", "black": "black", "grey": "#808080"}


def load(number: int = 320) -> Dataset:
    """White digits on black, 28x28 grey, the same every time."""
    random = np.random.default_rng(0)
    labels = np.arange(number, dtype=np.int32) % 10
    images = np.stack([_draw(str(label), random) for label in labels])
    train, validation, test = (Split(images[cut], labels[cut]) for cut in _cuts(number))
    return Dataset(
        name="drawn",
        source="drawn",
        train=train,
        validation=validation,
        test=test,
        fit=Fit(height=28, width=28, channels=1),
        title=f"Digits drawn from a font ({len(train)})",
        license="CC0-1.0",
        origin="drawn with Pillow's built-in font",
        classes=tuple("0123456789"),
    )


def pairs(number: int = 160) -> Dataset:
    """Outlined digits, and the same ones in a colour of their own, 32x32; the same every time."""
    random = np.random.default_rng(0)
    outlines, filled = (np.stack(pictures) for pictures in zip(*(_pair(index % 10, random) for index in range(number)), strict=True))
    train, validation, test = (
        Split(np.concatenate([outlines[cut], filled[cut]]), np.repeat(np.arange(2, dtype=np.int32), cut.stop - cut.start))
        for cut in _cuts(number)
    )
    return Dataset(
        name="drawn-pairs",
        source="drawn-pairs",
        train=train,
        validation=validation,
        test=test,
        fit=Fit(height=PAIR_SIDE, width=PAIR_SIDE, channels=3),
        title=f"Digits drawn from a font, outlined and filled ({len(train) // 2})",
        license="CC0-1.0",
        origin="drawn with Pillow's built-in font",
        classes=("outline", "filled"),
        paired=True,
        aligned=True,
    )


def parts(number: int = 160) -> Dataset:
    """Light discs on grey, 64x64, good ones; for figures also some with a scratch. The same every time."""
    random = np.random.default_rng(0)
    good = np.stack([_disc(random) for _ in range(number)])
    splits = [Split(good[cut], np.zeros(cut.stop - cut.start, np.int32)) for cut in _cuts(number)]
    scratched, masks = (np.stack(arrays) for arrays in zip(*(_scratched(_disc(random), random) for _ in splits[2].labels), strict=True))
    test = Split(
        np.concatenate([splits[2].images, scratched]),
        np.repeat(np.arange(2, dtype=np.int32), len(scratched)),
        np.concatenate([np.zeros_like(masks), masks]),
    )
    return Dataset(
        name="drawn-parts",
        source="drawn-parts",
        train=splits[0],
        validation=splits[1],
        test=test,
        fit=Fit(height=PART_SIDE, width=PART_SIDE, channels=1, mode="stretch"),
        title=f"Drawn discs ({len(splits[0])})",
        license="CC0-1.0",
        origin="drawn with Pillow",
        classes=("good", "scratched"),
    )


def scenes(number: int = 320) -> Dataset:
    """Scenes of one to three coloured discs and squares, 64x64, with captions. The same every time."""
    random = np.random.default_rng(0)
    pictures, captions, objects = zip(*(_scene(random) for _ in range(number)), strict=True)
    train, validation, test = (
        Split(np.stack(pictures[cut]), np.zeros(cut.stop - cut.start, np.int32), captions=captions[cut], objects=objects[cut])
        for cut in _cuts(number)
    )
    return Dataset(
        name="drawn-scenes",
        source="drawn-scenes",
        train=train,
        validation=validation,
        test=test,
        fit=Fit(height=SCENE_SIDE, width=SCENE_SIDE, channels=3, mode="stretch"),
        title=f"Drawn discs and squares ({len(train)})",
        license="CC0-1.0",
        origin="drawn with Pillow",
    )


def _scene(random: np.random.Generator) -> tuple[np.ndarray, tuple[str, ...], tuple[Thing, ...]]:
    labels = random.choice(list(phrases.SHAPES), random.integers(1, 4)).tolist()
    boxes = None
    while boxes is None:
        boxes = placed([(side, side) for side in random.integers(14, 25, len(labels)).tolist()], SCENE_SIDE, random)
    ground = str(random.choice(list(GROUNDS)))
    canvas = Image.new("RGB", (SCENE_SIDE, SCENE_SIDE), GROUNDS[ground])
    draw = ImageDraw.Draw(canvas)
    for label, (x, y, width, height) in zip(labels, boxes, strict=True):
        colour, shape = phrases.SHAPES[label]
        paint = draw.ellipse if shape == "disc" else draw.rectangle
        paint([x, y, x + width - 1, y + height - 1], fill=colour)
    things = tuple(Thing(label, box) for label, box in zip(labels, boxes, strict=True))
    return np.asarray(canvas), phrases.captions(things, f"a {ground} background", SCENE_SIDE, random), things


def _disc(random: np.random.Generator) -> np.ndarray:
    canvas = Image.new("L", (PART_SIDE, PART_SIDE), 90)
    middle, radius = PART_SIDE / 2 + random.uniform(-2, 2, 2), random.uniform(20, 23)
    ImageDraw.Draw(canvas).ellipse([*(middle - radius), *(middle + radius)], fill=int(random.integers(180, 200)))
    return np.asarray(canvas, np.uint8)[..., None]


def _scratched(disc: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A disc with a scratch, and the mask of that."""
    ends = PART_SIDE / 2 + random.uniform(-14, 14, (2, 2))
    scratch = Image.new("L", (PART_SIDE, PART_SIDE))
    ImageDraw.Draw(scratch).line([*ends[0], *ends[1]], fill=255, width=2)
    mask = np.asarray(scratch) > 0
    return np.where(mask[..., None], np.uint8(40), disc), mask


def _cuts(number: int) -> list[slice]:
    """Where training, validation and test pictures lie: three, one and one fifth."""
    kept = number - 2 * (number // 5)
    return [slice(0, kept), slice(kept, kept + number // 5), slice(kept + number // 5, number)]


def _pair(digit: int, random: np.random.Generator) -> list[np.ndarray]:
    font = ImageFont.load_default(size=float(random.uniform(22, 28)))
    place = tuple(PAIR_SIDE / 2 + random.uniform(-2, 2, 2))
    colour = Image.new("HSV", (1, 1), (digit * 25, 255, 200)).convert("RGB").getpixel((0, 0))
    made = []
    for fill in ("white", colour):
        canvas = Image.new("RGB", (PAIR_SIDE, PAIR_SIDE), "white")
        ImageDraw.Draw(canvas).text(place, str(digit), fill=fill, font=font, anchor="mm", stroke_width=1, stroke_fill="black")
        made.append(np.asarray(canvas, np.uint8))
    return made


def _draw(digit: str, random: np.random.Generator) -> np.ndarray:
    canvas = Image.new("L", (56, 56))
    font = ImageFont.load_default(size=float(random.uniform(36, 48)))
    offset = random.uniform(-3, 3, 2)
    ImageDraw.Draw(canvas).text((28 + offset[0], 28 + offset[1]), digit, fill=255, font=font, anchor="mm")
    turned = canvas.rotate(float(random.uniform(-15, 15)), Image.Resampling.BICUBIC)
    return np.asarray(turned.resize((28, 28), Image.Resampling.BICUBIC), np.uint8)[..., None]
