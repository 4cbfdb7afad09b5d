"""Pictures of one domain to pictures of another: networks and losses that pix2pix and CycleGAN share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from service.contract.manifest import Fit
from training import backbone
from training.data import Dataset, Split
from training.layers import convolution, double, infer, leaky, spread
from training.loop import evenly, group_sheet
from training.losses import relativistic, zero_centred_penalty
from training.problems import TrainingError
from training.step import balanced

BATCH_PIXELS = 2**19
"""Of the largest batch: it takes some 200 MB in a translator."""
FINE = 8
"""Channels at full size."""


def pixel_norm(x: Any) -> Any:
    """Each position's channels at unit mean square (Karras et al. 2018, section 4.2): no statistics over space, so that a
    picture in tiles becomes what it becomes as a whole.

    The mean is a convolution: ONNX Runtime's own mean rounds differently in batches of one and of many.
    """
    filters = x.shape[-1]
    mean = ops.conv(ops.square(x), np.full((1, 1, filters, 1), 1 / filters, np.float32), padding="same")
    return x * ops.rsqrt(mean + 1e-6)


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


def patch_discriminator(channels: int, width: int, halvings: int) -> keras.Model:
    """Pictures (batch, h, w, channels) -> one logit a patch (batch, h / 2^halvings, w / 2^halvings) (Isola et al. 2017, section 3.2.2)."""
    pictures = keras.Input((None, None, channels), name="pictures")
    x = pictures
    for level in range(halvings):
        x = leaky()(convolution(min(width * 2**level, 4 * width), 4, strides=2)(x))
    x = leaky()(convolution(min(width * 2**halvings, 4 * width))(x))
    return keras.Model(pictures, layers.Conv2D(1, 3, padding="same")(x)[..., 0], name="discriminator")


def slope(patches: Callable[[Any], Any], pictures: Any) -> Any:
    """The zero-centred gradient penalty of a discriminator of patches, by the patch, so that it weighs alike whatever the pictures' size.

    Args:
        patches: maps pictures (batch, h, w, c) to logits (batch, h', w').
    """

    def total(x: Any) -> Any:
        logits = patches(x)
        return ops.sum(logits, axis=(1, 2)) / (logits.shape[1] * logits.shape[2]) ** 0.5

    return zero_centred_penalty(total, pictures)


def judged(scores: Callable[[Any], Any], real: Any, made: Any, penalty: float) -> tuple[Any, dict[str, Any]]:
    """A discriminator's loss (R3GAN, Huang et al. 2024, section 2): relativistic on patches, with gradient penalties on both sides.

    Args:
        scores: maps pictures (batch, h, w, c) to logits of patches (batch, h', w').
        penalty: the weight of the penalties.

    Returns:
        The loss, and what to report of it.
    """
    pairing = relativistic(scores(real), scores(made))
    slopes = sum(slope(scores, pictures) for pictures in (real, made))
    return pairing + penalty / 2 * slopes, {"discriminator": pairing, "penalty": slopes}


def kinds(data: Dataset, split: Split, needed: str) -> tuple[np.ndarray, np.ndarray]:
    """The pictures of both of two kinds, uint8 (n, h, w, c) and (m, h, w, c).

    Args:
        needed: what needs them, for the message.

    Raises:
        TrainingError: there are not two of them.
    """
    if len(data.classes) != 2:
        raise TrainingError(f"{needed}; {data.source} has {len(data.classes) or 'none'}.")
    return split.of(0), split.of(1)


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


def sizes(tile: int, margin: int, multiple: int, own: Fit) -> dict[str, Any]:
    """The manifest's fields on how pictures of other sizes go through a translator: in tiles, or resized to the data's own size and back.

    Args:
        tile: the side of the tiles; 0: none.
        multiple: what their step has to be a multiple of, so that each tile is halved as the whole picture would be.

    Raises:
        TrainingError: it is not.
    """
    most = {"largest_batch": max(1, min(64, BATCH_PIXELS // (tile or own.height) ** 2))}
    if not tile:
        return most | {"fit": own.model_copy(update={"mode": "contain", "fill": 255})}
    if tile <= 2 * margin or (tile - 2 * margin) % multiple or tile % multiple:
        raise TrainingError(
            f"--tile {tile} --margin {margin}: the tile, and what is left between two margins, are to be multiples of {multiple}."
        )
    return most | {"fit": own.model_copy(update={"height": tile, "width": tile}), "large": "tile", "margin": margin}


def triples(graph: keras.Model, given: np.ndarray, wanted: np.ndarray | None, number: int = 12) -> np.ndarray:
    """A sheet of input, output and, if it is known, truth of some pictures, uint8 (n, h, w, channels) each; four such groups in a row."""
    shown = evenly(given, number)
    _, height, width, _ = given.shape
    missing = graph.input["images"].shape[1] - height
    padded = np.pad(shown, ((0, 0), (0, missing), (0, missing), (0, 0)), mode="edge")
    made = infer(graph, {"images": padded})[0][:, :height, :width]
    return group_sheet([shown, made, *([] if wanted is None else [evenly(wanted, number)])], 4)


class Perceptual:
    """The mean difference of pictures on the maps of a network (`backbone.difference`).

    Args:
        size: the side of the pictures.
        name: of the network.
    """

    def __init__(self, size: int, name: backbone.Name = "efficientnet-lite0") -> None:
        self.network = backbone.maps(name, size)

    @property
    def variables(self) -> list[keras.Variable]:
        return list(self.network.variables)

    def __call__(self, ours: Any, theirs: Any) -> Any:
        return ops.mean(backbone.difference(*(self.network(x, training=False) for x in (ours, ops.stop_gradient(theirs)))))


class Projected:
    """Discriminators of patches on maps of a network that stays as it is: they tell from the first step on what a network of their own
    would first have to learn to see (Projected GANs: Sauer et al. 2021, section 3; without its random projections).

    Args:
        network: maps pictures to maps (`backbone.maps`).
        width: filters of each discriminator.
        conditional: maps of what pictures were made from are looked at beside them.
    """

    def __init__(self, network: keras.Model, width: int, conditional: bool = False) -> None:
        self.network = network
        seen = [network.inputs[0], *network.outputs]
        self.heads = [_head(maps.shape[1:], width, conditional, fine=index == 0) for index, maps in enumerate(seen)]

    def maps(self, pictures: Any) -> list[Any]:
        """Pictures (batch, h, w, 3) in -1..1 themselves, since the network is blind to the finest patterns, and what it sees in them."""
        return [pictures, *(maps / MAP_SCALE for maps in self.network(pictures, training=False))]

    def judged(self, real: list[Any], made: list[Any], penalty: float, given: list[Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """The discriminators' mean loss (`judged`), and what to report of it."""
        sides = zip(self._scores(given), real, made, strict=True)
        parts = [judged(scores, theirs, ours, penalty) for scores, theirs, ours in sides]
        scalars = {name: sum(part[name] for _, part in parts) / len(parts) for name in parts[0][1]}
        return sum(value for value, _ in parts) / len(parts), scalars

    def convincing(self, made: list[Any], real: list[Any], given: list[Any] | None = None) -> Any:
        """The generator's mean loss."""
        pairs = zip(self._scores(given), made, real, strict=True)
        return sum(relativistic(scores(ours), scores(theirs)) for scores, ours, theirs in pairs) / len(self.heads)

    def _scores(self, given: list[Any] | None) -> list[Callable[[Any], Any]]:
        if given is None:
            return list(self.heads)
        return [partial(_beside, head, side) for head, side in zip(self.heads, given, strict=True)]


def _beside(head: keras.Model, given: Any, maps: Any) -> Any:
    return head(ops.concatenate([given, maps], axis=-1))


SHIFT = 16
"""Pixels by which pictures are larger than what the network sees of them."""


def shifted(pictures: Any, corner: Any) -> Any:
    """What lies right of and below a corner, int32 (y, x) from 0 to SHIFT, of pictures (batch, h, w, c): (batch, h - SHIFT, w - SHIFT, c).

    A network that halves pictures sees every second pixel differently. Were it always the same ones, a generator would hide a pattern
    between them.
    """
    number, height, width, channels = pictures.shape
    start = ops.concatenate([ops.zeros(1, "int32"), corner, ops.zeros(1, "int32")])
    return ops.slice(pictures, start, (number, height - SHIFT, width - SHIFT, channels))


MAP_SCALE = 6.0
"""Standard deviation of EfficientNet-Lite0's maps of photographs."""


def _head(shape: tuple[int, int, int], width: int, conditional: bool, fine: bool) -> keras.Model:
    """A map (h, w, c), or two in one, -> one logit a position, or for every second of `fine` ones."""
    height, side, channels = shape
    maps = keras.Input((height, side, channels * (1 + conditional)), name="maps")
    x = leaky()(convolution(width, 4, strides=2)(maps) if fine else convolution(width)(maps))
    x = leaky()(convolution(width)(x))
    return keras.Model(maps, layers.Conv2D(1, 1)(x)[..., 0])
