"""Digits drawn from Pillow's own font, turned, scaled and moved: tiny, made on the spot, for smoke runs."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from service.contract.manifest import Fit
from training.data import Dataset, Split


def load(number: int = 320) -> Dataset:
    """White digits on black, 28x28 grey, the same every time."""
    random = np.random.default_rng(0)
    labels = np.arange(number, dtype=np.int32) % 10
    images = np.stack([_draw(str(label), random) for label in labels])
    kept = number - 2 * (number // 5)
    cuts = [slice(0, kept), slice(kept, kept + number // 5), slice(kept + number // 5, number)]
    train, validation, test = (Split(images[cut], labels[cut]) for cut in cuts)
    return Dataset(
        name="drawn",
        source="drawn",
        train=train,
        validation=validation,
        test=test,
        fit=Fit(height=28, width=28, channels=1),
        title=f"Digits drawn from a font ({kept})",
        license="CC0-1.0",
        origin="drawn with Pillow's built-in font",
        classes=tuple("0123456789"),
    )


def _draw(digit: str, random: np.random.Generator) -> np.ndarray:
    canvas = Image.new("L", (56, 56))
    font = ImageFont.load_default(size=float(random.uniform(36, 48)))
    offset = random.uniform(-3, 3, 2)
    ImageDraw.Draw(canvas).text((28 + offset[0], 28 + offset[1]), digit, fill=255, font=font, anchor="mm")
    turned = canvas.rotate(float(random.uniform(-15, 15)), Image.Resampling.BICUBIC)
    return np.asarray(turned.resize((28, 28), Image.Resampling.BICUBIC), np.uint8)[..., None]
