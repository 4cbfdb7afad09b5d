"""Layers, networks and sizes that more than one recipe uses."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from training.problems import TrainingError
from training.step import SINGLE_CHANNELS_ARE_SLOW

INFERRED = 500
"""Pictures of one call of `infer`, unless it is told otherwise."""


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


class DepthwiseConv2D(layers.DepthwiseConv2D):
    """Keras's layer of one filter a channel, but as a sum of shifted products where that is faster."""

    def call(self, inputs: Any) -> Any:
        """(batch, h, w, channels) -> (batch, h', w', channels)."""
        if not SINGLE_CHANNELS_ARE_SLOW:
            return super().call(inputs)
        (height, width), step = self.kernel_size, self.strides[0]
        around = [_around(side, size, step, self.padding) for side, size in zip(inputs.shape[1:3], (height, width), strict=True)]
        rows, columns = (
            (before + side + after - size) // step + 1
            for side, size, (before, after) in zip(inputs.shape[1:3], (height, width), around, strict=True)
        )
        padded, made = ops.pad(inputs, [(0, 0), *around, (0, 0)]), self.bias
        for top, left in np.ndindex(height, width):
            shifted = padded[:, top : top + (rows - 1) * step + 1 : step, left : left + (columns - 1) * step + 1 : step]
            made = made + shifted * self.kernel[top, left, :, 0]
        return made


def _around(side: int, size: int, step: int, padding: str) -> tuple[int, int]:
    """Zeros before and after a side, as TensorFlow counts them."""
    missing = max(0, (-(-side // step) - 1) * step + size - side) if padding == "same" else 0
    return missing // 2, missing - missing // 2


def spread(x: Any, factor: int) -> Any:
    """Pixel shuffle (Shi et al. 2016, section 2): channels as pixels, (batch, h, w, factor^2 c) -> (batch, factor h, factor w, c)."""
    _, height, width, channels = x.shape
    filters = channels // factor**2
    x = ops.transpose(ops.reshape(x, (-1, height, width, factor, factor, filters)), (0, 1, 3, 2, 4, 5))
    return ops.reshape(x, (-1, factor * height, factor * width, filters))


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


def chapter_encoder(size: int, channels: int, outputs: int) -> keras.Model:
    """The chapter's: pictures (batch, size, size, channels) in -1..1 -> (batch, outputs) through two strided convolutions."""
    pictures = keras.Input((size, size, channels), name="pictures")
    x = pictures
    for filters in (32, 64):
        x = layers.Conv2D(filters, 3, strides=2, padding="same", activation="relu")(x)
    x = ops.reshape(x, (-1, math.prod(x.shape[1:])))
    return keras.Model(pictures, layers.Dense(outputs)(x), name="encoder")


def chapter_decoder(size: int, channels: int, latent_dimension: int) -> keras.Model:
    """The chapter's: latents (batch, d) -> logits (batch, size, size, channels) of the brightness, through transposed convolutions.

    Raises:
        TrainingError: the side is no multiple of 4.
    """
    base, latents = _quarter(size), keras.Input((latent_dimension,), name="latents")
    x = layers.Dense(base * base * 64, activation="relu")(latents)
    x = layers.Reshape((base, base, 64))(x)
    x = layers.Conv2DTranspose(32, 3, strides=2, padding="same", activation="relu")(x)
    return keras.Model(latents, layers.Conv2DTranspose(channels, 3, strides=2, padding="same")(x), name="decoder")


def from_logits(decoder: keras.Model) -> keras.Model:
    """A decoder of pictures in -1..1 from one of logits of their brightness: 2 sigmoid(x) - 1 = tanh(x / 2)."""
    return keras.Model(decoder.input, ops.tanh(decoder.output / 2), name="pictures")


def dense_generator(x: Any, size: int, channels: int, width: int) -> Any:
    """Vectors (batch, n) -> pictures (batch, size, size, channels) in -1..1 through three dense layers, each wider than the last."""
    for units in (width, 2 * width, 4 * width):
        x = leaky()(layers.Dense(units)(x))
    return layers.Reshape((size, size, channels))(layers.Dense(size * size * channels, activation="tanh")(x))


def dense_discriminator(x: Any, width: int) -> Any:
    """Pictures (batch, size, size, channels) -> features (batch, width) through three dense layers, each narrower than the last."""
    x = layers.Flatten()(x)
    for units in (4 * width, 2 * width, width):
        x = leaky()(layers.Dense(units)(x))
    return x


def convolutional_generator(x: Any, size: int, channels: int, width: int) -> Any:
    """Vectors (batch, n) -> pictures (batch, size, size, channels) in -1..1: a small map, doubled and convolved until it fits."""
    levels = halvings(size)
    base = size // 2**levels
    x = layers.Dense(base * base * width, name="base")(x)
    x = leaky()(layers.Reshape((base, base, width))(x))
    for level in range(levels):
        filters = max(3 * width // 2 ** (level + 2), 8)
        x = leaky()(convolution(filters)(double(x)))
        if level < levels - 1:
            x = leaky()(convolution(filters)(x))
    return layers.Conv2D(channels, 3, padding="same", activation="tanh")(x)


def convolutional_discriminator(x: Any, width: int) -> Any:
    """Pictures (batch, size, size, channels) -> features (batch, 2 width) through strided convolutions."""
    for level in range(halvings(x.shape[1])):
        x = leaky()(convolution(min(width // 2 * 2**level, width), 4, strides=2)(x))
    x = leaky()(convolution(width)(x))
    return leaky()(layers.Dense(2 * width, kernel_initializer="he_normal")(layers.Flatten()(x)))


def transposed_generator(x: Any, channels: int, width: int) -> Any:
    """The chapter's DCGAN generator: a small map (batch, size / 4, size / 4, n), twice a transposed convolution and batch normalisation."""
    for _ in range(2):
        x = layers.Conv2DTranspose(width, 4, strides=2, padding="same")(x)
        x = leaky()(layers.BatchNormalization()(x))
    return layers.Conv2DTranspose(channels, 3, padding="same", activation="tanh")(x)


def quarter_map(latents: Any, size: int, width: int) -> Any:
    """Latents (batch, d) -> (batch, size / 4, size / 4, width), with which `transposed_generator` begins.

    Raises:
        TrainingError: the side is no multiple of 4.
    """
    base = _quarter(size)
    return layers.Reshape((base, base, width))(leaky()(layers.Dense(base * base * width)(latents)))


def _quarter(size: int) -> int:
    if size % 4:
        raise TrainingError(f"--image-size {size}: the chapter's networks need a multiple of 4.")
    return size // 4


def strided_discriminator(x: Any, width: int) -> Any:
    """The chapter's DCGAN discriminator: pictures (batch, h, w, channels) -> features (batch, n). Its first layer is activated too."""
    x = leaky()(layers.Conv2D(width // 2, 3, padding="same")(x))
    for filters in (width, width, 2 * width):
        x = layers.Conv2D(filters, 3, strides=2, padding="same")(x)
        x = leaky()(layers.BatchNormalization()(x))
    return layers.Flatten()(x)


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


def infer(
    model: keras.Model, inputs: Any, prepare: Callable[[np.ndarray], np.ndarray] | None = None, at_once: int = INFERRED
) -> list[np.ndarray]:
    """What a network gives in inference mode: one array (n, ...) an output, from its input (n, ...) or a list of its inputs.

    (Keras's own `predict` gives the memory of the variables away on JAX, so that they cannot be saved afterwards.)

    Args:
        prepare: is applied to each part of the inputs on its way in, so that a whole data set never stands in memory as floats.
        at_once: pictures of one call.
    """
    number = len(keras.tree.flatten(inputs)[0])
    parts = []
    for start in range(0, number, at_once):
        batch = keras.tree.map_structure(lambda array: array[start : start + at_once], inputs)  # noqa: B023
        batch = batch if prepare is None else keras.tree.map_structure(prepare, batch)
        parts.append([ops.convert_to_numpy(part) for part in keras.tree.flatten(model(batch))])
    return [np.concatenate(output) for output in zip(*parts, strict=True)]
