"""Pictures of one domain to pictures of another: networks, batches and sizes that pix2pix and CycleGAN share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from service.contract.manifest import Fit
from training.data import Dataset, Split
from training.layers import convolution, double, infer, leaky, spread
from training.loop import evenly, group_sheet
from training.problems import TrainingError
from training.step import balanced

BATCH_PIXELS = 2**19
"""Of the largest batch: it takes some 200 MB in a translator."""
FINE = 8
"""Channels at full size."""


def pixel_norm(x: Any) -> Any:
    """Each position's channels at unit mean square (Karras et al. 2018, section 4.2): no statistics over space, so that a
    picture in tiles becomes what it becomes as a whole.

    The mean is a convolution: ONNX Runtime's own mean rounds differently in batches of one and of many. What is added to it has a mean's
    shape: at a number without one the converter's pass over transpositions breaks off with a traceback.
    """
    filters = x.shape[-1]
    mean = ops.conv(ops.square(x), np.full((1, 1, filters, 1), 1 / filters, np.float32), padding="same")
    return x * ops.rsqrt(mean + np.full((1, 1, 1, 1), 1e-6, np.float32))


def residual(x: Any) -> Any:
    """Normalised, activated, convolved twice, added: starts as the identity."""
    y = leaky()(convolution(x.shape[-1])(leaky()(pixel_norm(x))))
    return layers.Add()([x, layers.Conv2D(x.shape[-1], 3, padding="same", kernel_initializer="zeros")(y)])


def u_net(size: int | None, channels: int, width: int, levels: int, blocks: int) -> keras.Model:
    """Pictures (batch, h, w, channels) in -1..1 -> pictures alike: halved, and doubled again with skips (Ronneberger et al. 2015).

    Hardly anything is computed at full size: the first convolution halves it, and the last but one gives four pixels a position (Shi
    et al. 2016), between which the last one evens out what would else be a pattern of squares.
    Convolutions and pixel norms alone, so that an output pixel depends on inputs `reach` pixels around it at most.

    Args:
        size: the side, if it is fixed; else any multiple of 2^levels.
        levels: how often it is halved.
        width: filters after the first halving; doubled with each, to four times that.
        blocks: residual blocks at the narrowest place.
    """
    pictures = keras.Input((size, size, channels), name="pictures")
    x, skips = pictures, []
    for level in range(levels):
        x = residual(convolution(min(width * 2**level, 4 * width), 4, strides=2)(x))
        skips.append(x)
    for _ in range(blocks - 1):
        x = residual(x)
    for skip in reversed(skips[:-1]):
        x = residual(convolution(skip.shape[-1])(layers.Concatenate()([double(x), skip])))
    x = leaky()(spread(convolution(4 * FINE)(leaky()(pixel_norm(x))), 2))
    return keras.Model(pictures, layers.Conv2D(channels, 3, padding="same", activation="tanh")(x), name="translator")


def reach(levels: int, blocks: int) -> int:
    """How many pixels away from an output pixel of `u_net` the furthest input lies that it depends on."""
    radius = 2  # of the last two convolutions; from here on in the positions of each level
    for level in range(1, levels):
        radius = (radius if level == 1 else -(-radius // 2)) + 3
    radius = -(-radius // 2) + 2 * blocks
    for level in reversed(range(levels)):
        radius = 2 * radius + 2 + (2 if level else 0)
    return radius


def kinds(data: Dataset, split: Split, needed: str) -> tuple[np.ndarray, np.ndarray]:
    """The pictures of both of two kinds, uint8 (n, h, w, c) and (m, h, w, c).

    Args:
        needed: what needs them, for the message.

    Raises:
        TrainingError: there are not two of them.
    """
    names(data, needed)
    return split.of(0), split.of(1)


def names(data: Dataset, needed: str) -> tuple[str, str]:
    """What both of two kinds of pictures are called.

    Raises:
        TrainingError: as `kinds`.
    """
    if len(data.classes) != 2:
        raise TrainingError(f"{needed}; {data.source} has {len(data.classes) or 'none'}.")
    first, second = data.classes
    return first, second


def of_both(sources: tuple[np.ndarray, np.ndarray], indices: np.ndarray, random: np.random.Generator) -> list[np.ndarray]:
    """A batch of each kind: of the first by indices, which start again where it is the smaller one, and random ones of the second."""
    first, second = sources
    return [first[indices % len(first)], second[random.integers(0, len(second), len(indices))]]


def adam(config: Any, steps: int, average: bool = False) -> keras.optimizers.Optimizer:
    """R3GAN's Adam, if asked with a moving average of the weights; or the chapter's, at one rate."""
    if config.variant == "chapter":
        return keras.optimizers.Adam(config.learning_rate, beta_1=0.5)
    return balanced(config.learning_rate, steps, config.average if average else None)


def cropped(pictures: list[np.ndarray], side: int, random: np.random.Generator) -> list[np.ndarray]:
    """A random square of each place, the same one from every array (n, h, w, c)."""
    number, height, width, _ = pictures[0].shape
    if (height, width) == (side, side):
        return pictures
    tops, lefts = random.integers(0, height - side + 1, number), random.integers(0, width - side + 1, number)
    return [np.stack([one[y : y + side, x : x + side] for one, y, x in zip(part, tops, lefts, strict=True)]) for part in pictures]


def turned(pictures: list[np.ndarray], random: np.random.Generator) -> list[np.ndarray]:
    """Each place mirrored or not and turned by quarters, alike in every array (n, h, h, c)."""
    ways = random.integers(0, 8, len(pictures[0]))

    def shown(one: np.ndarray, way: int) -> np.ndarray:
        return np.rot90(one[:, ::-1] if way >= 4 else one, way % 4)

    return [np.stack([shown(*pair) for pair in zip(part, ways, strict=True)]) for part in pictures]


def at(size: int, trained: keras.Model, build: Callable[[int], keras.Model]) -> keras.Model:
    """The same network for pictures of another size."""
    if trained.inputs[0].shape[1] == size:
        return trained
    model = build(size)
    model.set_weights(trained.get_weights())
    return model


def seen(config: Any, own: Fit) -> int:
    """The side of the squares that a step sees of pictures.

    Raises:
        TrainingError: the networks cannot halve them, or the pictures, as often as they do.
    """
    side, chapter = min(config.crop, own.height), config.variant == "chapter"
    multiple = 2 if chapter else 2**config.levels
    for option, size in (("image-size", own.height), ("crop", side)):
        if size % multiple:
            raise TrainingError(f"--{option} {size}: it has to be a multiple of {multiple}, such as {-(-size // multiple) * multiple}.")
    if chapter and side < own.height:
        raise TrainingError(
            f"--crop {side}: the chapter's networks are as deep as pictures are large, and see them whole: --crop {own.height}."
        )
    return side


def sizes(tile: int, margin: int, multiple: int, own: Fit) -> dict[str, Any]:
    """The manifest's fields on how pictures of other sizes go through a translator: in tiles, or resized to the data's own size and back.

    Args:
        tile: the side of the tiles; 0: none.
        multiple: what their step has to be a multiple of, so that each tile is halved as the whole picture would be.

    Raises:
        TrainingError: it is not; or the data is grey.
    """
    if own.channels != 3:
        raise TrainingError("The pictures are grey; translators and face swaps are trained on colour (--channels 3).")
    most = {"largest_batch": max(1, min(64, BATCH_PIXELS // (tile or own.height) ** 2))}
    if not tile:
        return most | {"fit": own.model_copy(update={"mode": "contain", "fill": 255})}
    if tile <= 2 * margin or (tile - 2 * margin) % multiple or tile % multiple:
        raise TrainingError(
            f"--tile {tile} --margin {margin}: the tile, and what is left between two margins, are to be multiples of {multiple}."
        )
    return most | {"fit": own.model_copy(update={"height": tile, "width": tile}), "large": "tile", "margin": margin}


def triples(graph: keras.Model, given: np.ndarray, wanted: np.ndarray | None, number: int = 12) -> np.ndarray:
    """A sheet of input, output and, if it is known, truth of some pictures, uint8 (n, h, w, channels) each; four such groups in a row.

    Of pictures that are larger than what the graph takes it shows the upper left corners, and fills up smaller ones.
    """
    taken = graph.input["images"].shape[1]
    shown, truths = ([] if part is None else [evenly(part, number)[:, :taken, :taken]] for part in (given, wanted))
    _, height, width, _ = shown[0].shape
    padded = np.pad(shown[0], ((0, 0), (0, taken - height), (0, taken - width), (0, 0)), mode="edge")
    made = infer(graph, {"images": padded})[0][:, :height, :width]
    return group_sheet([*shown, made, *truths], 4)
