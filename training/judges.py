"""Discriminators of patches, on pictures themselves or on what a network that stays as it is sees in them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import keras
import numpy as np
from keras import layers, ops

from training import backbone
from training.layers import convolution, leaky
from training.losses import binary_cross_entropy, relativistic, zero_centred_penalty

Kind = Literal["pictures", "features"]
MAP_SCALE = 6.0
"""Standard deviation of EfficientNet-Lite0's maps of photographs."""
SHIFTED = 8
"""Of a picture's side, the part by which it is larger than what the network sees of it."""


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


def corner(side: int, random: np.random.Generator) -> np.ndarray:
    """A place (y, x), int32, for what a network sees of pictures in a step to begin at.

    A network that halves pictures sees every second pixel differently. Were it always the same ones, a generator would hide a pattern
    between them.
    """
    return random.integers(0, side // SHIFTED + 1, 2).astype(np.int32)


def _shown(side: int) -> int:
    """The side of what lies right of and below any `corner`."""
    return side - side // SHIFTED


def _from(pictures: Any, place: Any) -> Any:
    """Pictures (batch, side, side, c) -> what lies right of and below a `corner`."""
    number, side, _, channels = pictures.shape
    start = ops.concatenate([ops.zeros(1, "int32"), place, ops.zeros(1, "int32")])
    return ops.slice(pictures, start, (number, _shown(side), _shown(side), channels))


class Perceptual:
    """The mean difference of pictures on the maps of a network (`backbone.difference`).

    Args:
        size: the side of the pictures.
        name: of the network.
    """

    def __init__(self, size: int, name: backbone.Name = "efficientnet-lite0") -> None:
        self.network = backbone.maps(name, _shown(size))

    @property
    def variables(self) -> list[keras.Variable]:
        return list(self.network.variables)

    def __call__(self, ours: Any, theirs: Any, place: Any) -> Any:
        """Of pictures (batch, size, size, c), from a `corner` on."""
        sides = (_from(ours, place), ops.stop_gradient(_from(theirs, place)))
        return ops.mean(backbone.difference(*(self.network(side, training=False) for side in sides)))


class Judges:
    """The discriminators of one kind of picture: one of patches of pixels, or small ones on maps of EfficientNet-Lite0, which tell from
    the first step on what a network of their own would first have to learn to see (Projected GANs: Sauer et al. 2021, section 3; without
    its random projections).

    What they judge are `views` of pictures: the pictures themselves, since the network is blind to the finest patterns, and its maps. The
    views can be compared too (`difference`).

    Args:
        side, channels: of the pictures.
        width: filters of each discriminator.
        kind: what they see.
        conditional: views of what pictures were made from are looked at beside them.
        compared: there are maps in the views whatever `kind` is.
    """

    def __init__(self, side: int, channels: int, width: int, kind: Kind, *, conditional: bool = False, compared: bool = False) -> None:
        self.side = side
        self.network = backbone.maps("efficientnet-lite0", _shown(side)) if compared or kind == "features" else None
        if self.network is None or kind == "pictures":
            self.heads = [patch_discriminator(channels * (1 + conditional), width, 3)]
        else:
            seen = [self.network.inputs[0], *self.network.outputs]
            self.heads = [_head(maps.shape[1:], width, conditional, fine=index == 0) for index, maps in enumerate(seen)]

    @property
    def variables(self) -> list[keras.Variable]:
        """All of the discriminators'."""
        return [variable for head in self.heads for variable in head.variables]

    @property
    def trained(self) -> list[keras.Variable]:
        """What the discriminators learn."""
        return [variable for head in self.heads for variable in head.trainable_variables]

    @property
    def frozen(self) -> list[keras.Variable]:
        """What is used and not learned."""
        statistics = [variable for head in self.heads for variable in head.non_trainable_variables]
        return statistics + (list(self.network.variables) if self.network else [])

    def corner(self, random: np.random.Generator) -> np.ndarray:
        """Where the views of a step begin (`corner`)."""
        return corner(self.side, random)

    def views(self, pictures: Any, place: Any) -> list[Any]:
        """Pictures (batch, side, side, c) in -1..1 -> what lies right of and below a corner, and what the network sees in that."""
        if self.network is None:
            return [pictures]
        pictures = _from(pictures, place)
        return [pictures, *(maps / MAP_SCALE for maps in self.network(pictures, training=False))]

    def difference(self, ours: list[Any], theirs: list[Any]) -> Any:
        """The mean difference of two views on the network's maps (`backbone.difference`)."""
        return ops.mean(backbone.difference(ours[1:], theirs[1:]))

    def loss(self, real: list[Any], made: list[Any], penalty: float, given: list[Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """The discriminators' mean loss of views (`judged`), and what to report of it."""
        sides = zip(self._scores(given), real, made, strict=False)
        parts = [judged(scores, theirs, ours, penalty) for scores, theirs, ours in sides]
        scalars = {name: sum(part[name] for _, part in parts) / len(parts) for name in parts[0][1]}
        return sum(value for value, _ in parts) / len(parts), scalars

    def convincing(self, made: list[Any], real: list[Any], given: list[Any] | None = None) -> Any:
        """The generator's mean loss."""
        pairs = zip(self._scores(given), made, real, strict=False)
        return sum(relativistic(scores(ours), scores(theirs)) for scores, ours, theirs in pairs) / len(self.heads)

    def _scores(self, given: list[Any] | None) -> list[Callable[[Any], Any]]:
        """What each discriminator says of its view."""
        if given is None:
            return [partial(head, training=True) for head in self.heads]
        return [partial(_beside, head, side) for head, side in zip(self.heads, given, strict=False)]


class PlainJudge(Judges):
    """One discriminator of the pictures themselves, by cross-entropy: the chapter's (Goodfellow et al. 2014, section 3)."""

    def __init__(self, head: keras.Model) -> None:
        self.side, self.network, self.heads = 0, None, [head]

    def loss(self, real: list[Any], made: list[Any], penalty: float, given: list[Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Cross-entropy; there is no penalty."""
        (scores,) = self._scores(given)
        value = (binary_cross_entropy(scores(real[0]), 1.0) + binary_cross_entropy(scores(made[0]), 0.0)) / 2
        return value, {"discriminator": value}

    def convincing(self, made: list[Any], real: list[Any], given: list[Any] | None = None) -> Any:
        """The generator's: what it made is to be taken for real."""
        (scores,) = self._scores(given)
        return binary_cross_entropy(scores(made[0]), 1.0)


def _beside(head: keras.Model, given: Any, maps: Any) -> Any:
    return head(ops.concatenate([given, maps], axis=-1), training=True)


def _head(shape: tuple[int, int, int], width: int, conditional: bool, fine: bool) -> keras.Model:
    """A map (h, w, c), or two in one, -> one logit a position, or for every second of `fine` ones."""
    height, side, channels = shape
    maps = keras.Input((height, side, channels * (1 + conditional)), name="maps")
    x = leaky()(convolution(width, 4, strides=2)(maps) if fine else convolution(width)(maps))
    x = leaky()(convolution(width)(x))
    return keras.Model(maps, layers.Conv2D(1, 1)(x)[..., 0])
