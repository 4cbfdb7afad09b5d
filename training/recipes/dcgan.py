"""DCGAN: convolutional networks that draw from noise.

Radford et al. 2015. `improved`: doubled and convolved maps, no batch normalisation, R3GAN's objective (Huang et
al. 2024). `chapter`: the chapter's networks, transposed convolutions and batch normalisation in training mode, with the plain objective.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
from keras import layers

from training import adversarial
from training.data import Dataset
from training.layers import (
    convolutional_discriminator,
    convolutional_generator,
    leaky,
    quarter_map,
    strided_discriminator,
    transposed_generator,
)
from training.loop import Run
from training.recipes import About

TASKS = {"generate": {"decoder": "decoder"}}

ABOUT = About(
    title="DCGAN",
    description="Draws pictures from latent vectors with convolutions.",
    limits="Draws only what it was trained on, at that size. A rare sample is misshapen or lies between two classes.",
    misuse="Not for passing off what it draws as real: as somebody's handwriting, as goods, or as collected data.",
)


@dataclass(frozen=True)
class Config(adversarial.Settings):
    """Some 65 minutes on one CPU core for 24 epochs of MNIST; the shipped `dcgan` had 32."""


CHAPTER = Config(variant="chapter", epochs=50, batch_size=128, latent_dimension=512, width=128, learning_rate=2e-4)


def generator(size: int, channels: int, config: Config) -> keras.Model:
    """Latents (batch, d) -> pictures (batch, size, size, channels) in -1..1."""
    latents = keras.Input((config.latent_dimension,), name="latents")
    if config.variant == "chapter":
        pictures = transposed_generator(quarter_map(latents, size, 2 * config.width), channels, config.width)
    else:
        x = latents
        for _ in range(2):  # a mapping network (Karras et al. 2019, section 2) bends noise, which is in one piece, apart into classes
            x = leaky()(layers.Dense(2 * config.latent_dimension, kernel_initializer="he_normal")(x))
        pictures = convolutional_generator(x, size, channels, config.width)
    return keras.Model([latents], pictures, name="generator")


def discriminator(size: int, channels: int, config: Config) -> keras.Model:
    """Pictures -> logits (batch,)."""
    pictures = keras.Input((size, size, channels), name="pictures")
    judge = strided_discriminator if config.variant == "chapter" else convolutional_discriminator
    return keras.Model([pictures], layers.Reshape(())(layers.Dense(1)(judge(pictures, config.width))), name="discriminator")


def train(config: Config, data: Dataset, run: Run) -> keras.Model:
    """Trains the pair and returns the generator."""
    size, channels = data.shape[0], data.shape[2]
    return adversarial.train(generator(size, channels, config), discriminator(size, channels, config), config, data, run)


def serving(config: Config, data: Dataset, trained: Any) -> dict[str, keras.Model]:
    """`decoder`: latents -> images."""
    return adversarial.serving(config, trained)
