"""Conditional DCGAN: one network draws any asked class.

Radford et al. 2015 (the convolutional pair), Mirza & Osindero 2014 (the condition). `improved`: the projection
discriminator (Miyato & Koyama 2018) and R3GAN's objective (Huang et al. 2024), without batch normalisation; an exponential
moving average of the generator is what ships. `chapter`: the chapter's networks, label-as-vector (here a map beside the
first one) in the generator and label-as-picture in the discriminator, with the plain objective.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
from keras import layers

from training import adversarial
from training.adversarial import classes_of, label_picture, projected
from training.data import Dataset
from training.layers import (
    convolutional_discriminator,
    convolutional_generator,
    quarter_map,
    strided_discriminator,
    transposed_generator,
)
from training.loop import Run
from training.recipes import About, setting

TASKS = {"digits": {"decoder": "decoder"}}

ABOUT = About(
    title="Conditional DCGAN",
    description="Draws a picture of the asked class from a latent vector; one latent across all classes keeps one handwriting.",
    limits="Draws only what it was trained on, at that size. A rare sample is misshapen or reads as another class.",
    misuse="Not for passing off what it draws as real: as somebody's handwriting, as goods, or as collected data.",
)


@dataclass(frozen=True)
class Config(adversarial.GeneratorSettings):
    """Some 50 minutes on two CPU cores for 24 epochs of MNIST.

    On MNIST a truncation of 0.9 is the largest twentieth at which a nearest-neighbour reader in pixel space reads as
    many drawn digits right as held-out ones.
    """

    truncation: float = setting(0.9, "folded into the model: what it scales its noise by")


CHAPTER = Config(variant="chapter", epochs=50, batch_size=128, latent_dimension=512, width=128, learning_rate=2e-4, truncation=1.0)


def generator(size: int, channels: int, classes: int, config: Config) -> keras.Model:
    """(latents (batch, d), labels (batch,)) -> pictures (batch, size, size, channels) in -1..1."""
    latents = keras.Input((config.latent_dimension,), name="latents")
    labels = keras.Input((), dtype="int32", name="labels")
    if config.variant == "chapter":
        x = layers.Concatenate()([quarter_map(latents, size, 2 * config.width), label_picture(labels, classes, size // 4)])
        pictures = transposed_generator(x, channels, config.width)
    else:
        condition = layers.Embedding(classes, config.latent_dimension, embeddings_initializer="random_normal")(labels)
        pictures = convolutional_generator(layers.Concatenate()([latents, condition]), size, channels, config.width)
    return keras.Model([latents, labels], pictures, name="generator")


def discriminator(size: int, channels: int, classes: int, config: Config) -> keras.Model:
    """(pictures, labels) -> logits (batch,)."""
    pictures = keras.Input((size, size, channels), name="pictures")
    labels = keras.Input((), dtype="int32", name="labels")
    if config.variant == "chapter":
        both = layers.Concatenate()([pictures, label_picture(labels, classes, size)])
        scores = layers.Reshape(())(layers.Dense(1)(strided_discriminator(both, config.width)))
    else:
        scores = projected(convolutional_discriminator(pictures, config.width), labels, classes)
    return keras.Model([pictures, labels], scores, name="discriminator")


def train(config: Config, data: Dataset, run: Run) -> keras.Model:
    """Trains the pair and returns the generator.

    Raises:
        TrainingError: the data has no classes.
    """
    size, channels, classes = data.shape[0], data.shape[2], classes_of(data, "cdcgan")
    pair = generator(size, channels, classes, config), discriminator(size, channels, classes, config)
    return adversarial.train(*pair, config, data, run)


def serving(config: Config, data: Dataset, trained: Any) -> dict[str, keras.Model]:
    """`decoder`: latents and labels -> images."""
    return adversarial.serving(config, trained)
