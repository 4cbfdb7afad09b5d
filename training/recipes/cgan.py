"""Conditional GAN: dense networks that draw any asked class.

Mirza & Osindero 2014. `improved`: the label as a vector beside the latents, a projection discriminator (Miyato &
Koyama 2018), R3GAN's objective. `chapter`: label-as-vector in the generator, label-as-picture in the discriminator, the plain objective.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
from keras import layers

from training import adversarial
from training.adversarial import classes_of, label_picture, label_vector, projected
from training.data import Dataset
from training.layers import dense_discriminator, dense_generator
from training.loop import Run
from training.recipes import About, setting

TASKS = {"digits": {"decoder": "decoder"}}

ABOUT = About(
    title="Conditional GAN",
    description="Draws a picture of the asked class from a latent vector, with dense layers only.",
    limits="Draws only what it was trained on, at that size. Dense layers know no neighbourhood: strokes are more ragged than cdcgan's.",
    misuse="Not for passing off what it draws as real: as somebody's handwriting, as goods, or as collected data.",
)


@dataclass(frozen=True)
class Config(adversarial.GeneratorSettings):
    """Some 25 minutes on one CPU core for 40 epochs of MNIST."""

    epochs: int = setting(40, "passes over the training pictures")
    batch_size: int = setting(128, "pictures a step")
    width: int = setting(256, "units of the narrowest dense layer")


CHAPTER = Config(variant="chapter", epochs=30, latent_dimension=512, width=64, learning_rate=2e-4)


def generator(size: int, channels: int, classes: int, config: Config) -> keras.Model:
    """(latents (batch, d), labels (batch,)) -> pictures (batch, size, size, channels) in -1..1."""
    latents = keras.Input((config.latent_dimension,), name="latents")
    labels = keras.Input((), dtype="int32", name="labels")
    x = layers.Concatenate()([latents, label_vector(labels, classes, 50)])
    return keras.Model([latents, labels], dense_generator(x, size, channels, config.width), name="generator")


def discriminator(size: int, channels: int, classes: int, config: Config) -> keras.Model:
    """(pictures, labels) -> logits (batch,)."""
    pictures = keras.Input((size, size, channels), name="pictures")
    labels = keras.Input((), dtype="int32", name="labels")
    if config.variant == "chapter":
        both = layers.Concatenate()([pictures, label_picture(labels, classes, size)])
        scores = layers.Reshape(())(layers.Dense(1)(dense_discriminator(both, config.width)))
    else:
        scores = projected(dense_discriminator(pictures, config.width), labels, classes)
    return keras.Model([pictures, labels], scores, name="discriminator")


def train(config: Config, data: Dataset, run: Run) -> keras.Model:
    """Trains the pair and returns the generator.

    Raises:
        TrainingError: the data has no classes.
    """
    size, channels, classes = data.shape[0], data.shape[2], classes_of(data, "cgan")
    pair = generator(size, channels, classes, config), discriminator(size, channels, classes, config)
    return adversarial.train(*pair, config, data, run)


def serving(config: Config, data: Dataset, trained: Any) -> dict[str, keras.Model]:
    """`decoder`: latents and labels -> images."""
    return adversarial.serving(config, trained)
