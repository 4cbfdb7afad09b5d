"""GAN: dense networks that draw from noise.

Goodfellow et al. 2014; the chapter's vanilla pair of dense layers. Both variants train the same networks;
the losses differ, and the chapter's are narrower by default.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
from keras import layers

from training import adversarial
from training.data import Dataset
from training.layers import dense_discriminator, dense_generator
from training.loop import Run
from training.recipes import About, setting

TASKS = {"generate": {"decoder": "decoder"}}

ABOUT = About(
    title="GAN",
    description="Draws pictures from latent vectors with dense layers only: the plainest adversarial pair.",
    limits="Draws only what it was trained on, at that size. Dense layers know no neighbourhood: strokes are ragged, some misshapen.",
    misuse="Not for passing off what it draws as real: as somebody's handwriting, as goods, or as collected data.",
)


@dataclass(frozen=True)
class Config(adversarial.GeneratorSettings):
    """Some 25 minutes on one CPU core for 40 epochs of MNIST."""

    epochs: int = setting(40, "passes over the training pictures")
    batch_size: int = setting(128, "pictures a step")
    width: int = setting(256, "units of the narrowest dense layer")


CHAPTER = Config(variant="chapter", epochs=30, latent_dimension=512, width=64, learning_rate=2e-4)


def generator(size: int, channels: int, config: Config) -> keras.Model:
    """Latents (batch, d) -> pictures (batch, size, size, channels) in -1..1."""
    latents = keras.Input((config.latent_dimension,), name="latents")
    return keras.Model([latents], dense_generator(latents, size, channels, config.width), name="generator")


def discriminator(size: int, channels: int, config: Config) -> keras.Model:
    """Pictures -> logits (batch,)."""
    pictures = keras.Input((size, size, channels), name="pictures")
    return keras.Model([pictures], layers.Reshape(())(layers.Dense(1)(dense_discriminator(pictures, config.width))), name="discriminator")


def train(config: Config, data: Dataset, run: Run) -> keras.Model:
    """Trains the pair and returns the generator."""
    size, channels = data.shape[0], data.shape[2]
    return adversarial.train(generator(size, channels, config), discriminator(size, channels, config), config, data, run)


def serving(config: Config, data: Dataset, trained: Any) -> dict[str, keras.Model]:
    """`decoder`: latents -> images."""
    return adversarial.serving(config, trained)
