"""Pixels as networks see them while they train: floats in -1..1, the same arithmetic as the exported graphs."""

from __future__ import annotations

import numpy as np


def to_floats(pixels: np.ndarray) -> np.ndarray:
    """uint8 0..255 to float32 -1..1."""
    return pixels.astype(np.float32) / np.float32(127.5) - np.float32(1.0)


def to_pixels(values: np.ndarray) -> np.ndarray:
    """Floats -1..1 to uint8 0..255, rounded and clipped; what is no number is black."""
    return np.clip(np.rint((np.nan_to_num(np.asarray(values), nan=-1.0) + 1.0) * 127.5), 0, 255).astype(np.uint8)


def mirrored(pictures: np.ndarray, random: np.random.Generator, axis: int = 2) -> np.ndarray:
    """Pictures (n, height, width, channels), each from left to right or as it was, at random; upside down with the axis 1."""
    turned = random.random(len(pictures)) < 0.5
    return np.where(turned[:, None, None, None], np.flip(pictures, axis), pictures)
