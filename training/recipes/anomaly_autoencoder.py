"""Anomaly autoencoder: what a bottleneck that was trained on normal pictures cannot restore is anomalous.

The plain first method of the chapter (Sakurada & Yairi 2014, section 3): the score is the mean squared difference between a picture and
what is left of it. `improved`: deeper networks and a moving average of the weights. `chapter`: the chapter's pair of small networks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from training import detection
from training.data import Dataset
from training.data.pixels import to_floats, to_pixels
from training.layers import chapter_decoder, chapter_encoder, decoder, encoder, from_logits, from_pixels, infer, serve
from training.layers import to_pixels as graph_to_pixels
from training.loop import Run, evenly, group_sheet
from training.recipes import About, setting
from training.step import Step, annealed

TASKS = {"anomaly": {"detector": "detector"}}
SMOKE = "drawn-parts"

ABOUT = About(
    title="Anomaly autoencoder",
    description="Restores a picture from a few numbers, having seen normal ones only, and says how far it was from that, and where.",
    limits="Knows the one kind of normal picture that it was trained on. Its restored pictures are soft, so that fine texture is an error "
    "everywhere and small defects are lost in it.",
    misuse=detection.MISUSE,
)


@dataclass(frozen=True)
class Config:
    """A minute on two CPU cores for 6,000 digits."""

    variant: Literal["improved", "chapter"] = "improved"
    normal: int = setting(-1, "number of the class that is normal (-1: the class good; without classes, all pictures)", least=-1)
    false_positives: float = setting(0.01, "share of normal pictures that may be taken for anomalous", below=1)
    epochs: int = setting(20, "passes over the normal training pictures")
    batch_size: int = setting(64, "pictures a step")
    latent_dimension: int = setting(16, "numbers that a picture is restored from")
    width: int = setting(32, "filters of the widest convolutions", only="improved")
    learning_rate: float = setting(1e-3, "of Adam, at its highest")


CHAPTER = Config(variant="chapter", epochs=30)


def network(size: int, channels: int, config: Config) -> keras.Model:
    """Pictures (batch, size, size, channels) in -1..1 -> pictures alike."""
    if config.variant == "improved":
        encode = encoder(size, channels, config.latent_dimension, config.width)
        decode = decoder(size, channels, config.latent_dimension, config.width)
    else:
        encode = chapter_encoder(size, channels, config.latent_dimension)
        decode = from_logits(chapter_decoder(size, channels, config.latent_dimension))
    given = keras.Input((size, size, channels), name="given")
    return keras.Model(given, decode(encode(given)), name="autoencoder")


def train(config: Config, data: Dataset, run: Run) -> keras.Model:
    """Minimises the mean squared error of normal pictures."""
    pictures = detection.normals(data, data.train, config.normal)
    restore = network(data.shape[0], data.shape[2], config)
    plan = run.plan(len(pictures), config.batch_size, config.epochs)

    def loss(batch: Any) -> tuple[Any, dict[str, Any]]:
        value = ops.mean(ops.square(restore(batch, training=True) - batch))
        return value, {"loss": value}

    improved = config.variant == "improved"
    step = Step(
        loss,
        restore.trainable_variables,
        annealed(config.learning_rate, plan.steps) if improved else keras.optimizers.Adam(config.learning_rate),
    )
    shown = evenly(detection.normals(data, data.validation, config.normal), 16)

    def sheet() -> np.ndarray:
        with step.averaged():
            return group_sheet([shown, to_pixels(infer(restore, shown, to_floats)[0])], 4)

    run.fit(lambda indices, random: step(to_floats(pictures[indices])), plan, variables=[*restore.variables, *step.variables], sheet=sheet)
    step.finish()
    return restore


def serving(config: Config, data: Dataset, trained: keras.Model) -> dict[str, keras.Model]:
    """`detector`: images -> scores (the mean error), errors (squared differences, over channels) and reconstruction."""
    pixels, pictures = from_pixels(data.shape[0], data.shape[2])
    restored = trained(pictures, training=False)
    errors = detection.mean_of_channels(ops.square(pictures - restored))
    outputs = {
        "scores": detection.mean(errors),
        "errors": detection.smoothed(errors, data.shape[0] / 64),
        "reconstruction": graph_to_pixels(restored),
    }
    return {"detector": serve([pixels], outputs)}


def describe(config: Config, data: Dataset) -> dict[str, Any]:
    """What is normal to it."""
    return detection.described(ABOUT.title, data, config.normal) | {"largest_batch": 64}


def samples(config: Config, data: Dataset, graphs: dict[str, keras.Model]) -> np.ndarray:
    """Normal pictures held out for choices, what is made of them, and their errors."""
    return detection.sheet(graphs["detector"], data, config.normal)
