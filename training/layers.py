"""Layers, networks and sizes that more than one recipe uses."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import layers, ops

from training.problems import TrainingError


def halvings(size: int) -> int:
    """How often a side is halved on the way to the smallest feature map, which is 5 to 8 wide.

    Raises:
        TrainingError: the side is under 8, or does not halve evenly that often.
    """
    if size < 8:
        raise TrainingError(f"--image-size {size}: these networks need at least 8 pixels a side.")
    levels = max(1, math.ceil(math.log2(size / 8)))
    if size % 2**levels:
        raise TrainingError(f"--image-size {size}: it has to be a multiple of {2**levels}, such as {size // 2**levels * 2**levels}.")
    return levels


def leaky() -> Any:
    return layers.LeakyReLU(negative_slope=0.2)


def convolution(filters: int, size: int = 3, **options: Any) -> Any:
    """A convolution that keeps the picture's size, with He's initial weights."""
    return layers.Conv2D(filters, size, padding="same", kernel_initializer="he_normal", **options)


def double(x: Any) -> Any:
    """Twice as high and wide, each pixel four times. (`UpSampling2D` says the same, but its ONNX graph computes shapes.)"""
    _, height, width, _ = x.shape
    return ops.image.resize(x, (2 * height, 2 * width), interpolation="nearest")


def encoder(size: int, channels: int, outputs: int, width: int) -> keras.Model:
    """Pictures (batch, size, size, channels) -> (batch, outputs): strided convolutions, then two dense layers."""
    pictures = keras.Input((size, size, channels), name="pictures")
    x, levels = pictures, halvings(size)
    for level in range(levels):
        filters = min(width, max(16, width // 2 ** (levels - 1 - level)))
        x = convolution(filters, strides=2, activation="silu")(x)
        x = convolution(filters, activation="silu")(x)
    x = ops.reshape(x, (-1, math.prod(x.shape[1:])))  # not Flatten: of its shape arithmetic the converter makes this or that
    x = layers.Dense(4 * width, activation="silu")(x)
    return keras.Model(pictures, layers.Dense(outputs)(x), name="encoder")


def decoder(size: int, channels: int, latent_dimension: int, width: int) -> keras.Model:
    """Latents (batch, d) -> pictures (batch, size, size, channels) in -1..1: the encoder's mirror image."""
    latents = keras.Input((latent_dimension,), name="latents")
    levels = halvings(size)
    base = size // 2**levels
    x = layers.Dense(4 * width, activation="silu")(latents)
    x = layers.Dense(base * base * width, activation="silu")(x)
    x = layers.Reshape((base, base, width))(x)
    for level in range(levels):
        filters = max(16, width // 2 ** (level + 1))
        x = convolution(width if level == 0 else filters, activation="silu")(x)
        x = convolution(filters, activation="silu")(double(x))
    return keras.Model(latents, convolution(channels, activation="tanh")(x), name="decoder")


def from_pixels(size: int, channels: int, name: str = "images") -> tuple[Any, Any]:
    """The head of a serving graph: its uint8 input and the same as floats in -1..1."""
    pixels = keras.Input((size, size, channels), dtype="uint8", name=name)
    return pixels, ops.cast(pixels, "float32") / 127.5 - 1.0


def to_pixels(values: Any) -> Any:
    """The tail of a serving graph: floats in -1..1 to uint8 0..255, rounded and clipped."""
    return ops.cast(ops.clip(ops.round((values + 1.0) * 127.5), 0.0, 255.0), "uint8")


def serve(inputs: list[Any], outputs: dict[str, Any]) -> keras.Model:
    """A serving graph. Its output names are the keys."""
    return keras.Model({tensor.name: tensor for tensor in inputs}, outputs)
