"""DCGAN: convolutional networks that draw from noise.

Radford et al. 2015. `improved`: doubled and convolved maps, no batch normalisation, R3GAN's objective (Huang et
al. 2024). `chapter`: the chapter's networks, transposed convolutions and batch normalisation in training mode, with the plain objective.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras

from training import adversarial
from training.data import Dataset
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
class Config(adversarial.GeneratorSettings):
    """Some 65 minutes on one CPU core for 24 epochs of MNIST; the shipped `dcgan` had 32."""


CHAPTER = Config(variant="chapter", epochs=50, batch_size=128, latent_dimension=512, width=128, learning_rate=2e-4)


def train(config: Config, data: Dataset, run: Run) -> keras.Model:
    """Trains the pair and returns the generator."""
    draw, features = adversarial.convolutional_pair(data.shape[0], data.shape[2], config)
    return adversarial.train(draw, adversarial.logits(features), config, data, run)


def serving(config: Config, data: Dataset, trained: Any) -> dict[str, keras.Model]:
    """`decoder`: latents -> images."""
    return adversarial.serving(config, trained)
