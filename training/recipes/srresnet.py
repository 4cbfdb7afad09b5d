"""SRResNet: pictures four times as wide and as high, as near to the truth as can be.

Ledig et al. 2017, section 2.1. `improved`: no batch normalisation (Lim et al. 2017), mean absolute differences, added to a bicubic picture.
`chapter`: the paper's network with batch normalisation, mean squared differences.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
from keras import layers, ops

from training import translation, upscaling
from training.data import Dataset
from training.layers import spread
from training.loop import Run
from training.recipes import About, setting
from training.step import Step, annealed

TASKS = {"upscale": {"upscaler": "upscaler"}}
DATA = "photos"
SMOKE = "drawn-pairs"

ABOUT = About(
    title="SRResNet",
    description="Makes a picture four times as wide and as high, sharper than by interpolation, without inventing what is not there.",
    limits="Fine texture that the small picture does not show stays smooth. Trained on photographs: drawings and text gain less.",
    misuse="Not for reading what a picture does not show, such as faces or number plates: what looks like detail is a guess.",
)


@dataclass(frozen=True)
class Config:
    """Some two hours on two CPU cores; half an hour with `--width 48 --blocks 7`."""

    variant: Literal["improved", "chapter"] = "improved"
    degradation: Literal["clean", "real"] = setting("clean", "what made the small pictures: bicubic alone, or also blur, noise and JPEG")
    epochs: int = setting(400, "passes over the training pictures, of which a step sees a random square each")
    batch_size: int = setting(16, "pictures a step")
    crop: int = setting(96, "side of those squares")
    width: int = setting(64, "filters")
    blocks: int = setting(16, "residual blocks")
    learning_rate: float = setting(5e-4, "of Adam, at its highest")
    tile: int = setting(144, "side of the tiles in which it serves")
    margin: int = setting(8, "pixels at a tile's edge, next to other tiles, that are not used", least=0)
    feather: int = setting(4, "pixels on both sides of where two tiles meet over which one fades into the other", least=0)


CHAPTER = Config(variant="chapter", learning_rate=1e-4)


def network(size: int, channels: int, config: Config) -> keras.Model:
    """Pictures (batch, size, size, channels) in -1..1 -> four times as large."""
    if config.variant == "chapter":
        return _chapter_network(size, channels, config)
    return upscaling.network(size, channels, config.width, config.blocks)


def train(config: Config, data: Dataset, run: Run) -> keras.Model:
    """Trains the network and returns it."""
    side, channels = upscaling.side(data, config.crop), data.shape[2]
    pictures, model = data.train.images, network(side // upscaling.SCALE, channels, config)
    plan = run.plan(len(pictures), config.batch_size, config.epochs)

    def loss(small: Any, large: Any) -> tuple[Any, dict[str, Any]]:
        difference = model(small, training=True) - large
        value = ops.mean(ops.abs(difference) if config.variant == "improved" else ops.square(difference))
        return value, {"difference": value}

    improved = config.variant == "improved"
    optimizer = annealed(config.learning_rate, plan.steps) if improved else keras.optimizers.Adam(config.learning_rate)
    optimise = Step(loss, model.trainable_variables, optimizer, model.non_trainable_variables)

    def step(indices: np.ndarray, random: np.random.Generator) -> dict[str, Any]:
        return optimise(*upscaling.pairs(pictures[indices], side, config.degradation, random))

    shown = upscaling.held_out(data, side, config.degradation)

    def sheet() -> np.ndarray:
        with optimise.averaged():
            return upscaling.drawn(model, shown)

    run.fit(step, plan, variables=[*model.variables, *optimise.variables], sheet=sheet)
    optimise.finish()
    return model


def serving(config: Config, data: Dataset, trained: keras.Model) -> dict[str, keras.Model]:
    """`upscaler`: images -> upscaled."""
    channels = data.shape[2]
    return upscaling.serving(translation.at(config.tile, trained, lambda size: network(size, channels, config)))


def describe(config: Config, data: Dataset) -> dict[str, Any]:
    """In which tiles pictures go through it, and what small pictures it learned from."""
    return upscaling.described(ABOUT.title, config)


def samples(config: Config, data: Dataset, graphs: dict[str, keras.Model]) -> np.ndarray:
    """Pictures held out for choices: small, bicubic, upscaled, truth."""
    return upscaling.samples(graphs["upscaler"], config.degradation, data)


def _chapter_network(size: int, channels: int, config: Config) -> keras.Model:
    """The paper's generator (figure 4): batch normalisation, parametric ReLU, two pixel shuffles, kernels of 9 at both ends."""
    pictures = keras.Input((size, size, channels), name="pictures")
    x = start = _parametric()(layers.Conv2D(config.width, 9, padding="same")(pictures))
    for _ in range(config.blocks):
        y = _parametric()(layers.BatchNormalization()(layers.Conv2D(config.width, 3, padding="same")(x)))
        x = layers.Add()([x, layers.BatchNormalization()(layers.Conv2D(config.width, 3, padding="same")(y))])
    x = layers.Add()([start, layers.BatchNormalization()(layers.Conv2D(config.width, 3, padding="same")(x))])
    for _ in range(2):
        x = _parametric()(spread(layers.Conv2D(4 * config.width, 3, padding="same")(x), 2))
    return keras.Model(pictures, layers.Conv2D(channels, 9, padding="same", activation="tanh")(x), name="upscaler")


def _parametric() -> Any:
    return layers.PReLU(shared_axes=(1, 2))
