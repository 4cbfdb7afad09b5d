"""Conditional DCGAN: one network draws any asked class.

Radford et al. 2015 (the convolutional pair), Mirza & Osindero 2014 (the condition), Miyato & Koyama 2018
(the projection discriminator), Huang et al. 2024 (R3GAN: relativistic pairing loss with zero-centred
gradient penalties on real and generated pictures, no batch normalisation). An exponential moving average
of the generator is what ships.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from training.data import Dataset
from training.data.pixels import to_floats, to_pixels
from training.layers import convolution, double, halvings, leaky, serve
from training.layers import to_pixels as graph_to_pixels
from training.loop import Run, contact_sheet
from training.losses import relativistic, zero_centred_penalty
from training.problems import TrainingError
from training.recipes import About
from training.step import Step, averaging

TASKS = {"digits": {"decoder": "decoder"}}

ABOUT = About(
    title="Conditional DCGAN",
    description="Draws a picture of the asked class from a latent vector; one latent across all classes keeps one handwriting.",
    limits="Draws only what it was trained on, at that size. A rare sample is misshapen or reads as another class.",
    misuse="Not for forging anyone's handwriting, nor as training data that passes for real.",
)


@dataclass(frozen=True)
class Config:
    """Some 50 minutes on two CPU cores for 24 epochs of MNIST.

    `truncation` is folded into the serving graph (Brock et al. 2018, section 3.1, by scaling): its latents have
    unit variance and are scaled by it. It does not touch training. On MNIST 0.9 is the largest twentieth at which
    a nearest-neighbour reader in pixel space reads as many drawn digits right as held-out ones.
    """

    epochs: int = 24
    batch_size: int = 64
    latent_dimension: int = 128
    width: int = 64
    learning_rate: float = 4e-4
    penalty: float = 0.1
    average: float = 0.999
    truncation: float = 0.9


def generator(size: int, channels: int, classes: int, config: Config) -> keras.Model:
    """(latents (batch, d), labels (batch,)) -> pictures (batch, size, size, channels) in -1..1."""
    levels = halvings(size)
    base = size // 2**levels
    latents = keras.Input((config.latent_dimension,), name="latents")
    labels = keras.Input((), dtype="int32", name="labels")
    condition = layers.Embedding(classes, config.latent_dimension, embeddings_initializer="random_normal")(labels)
    x = layers.Concatenate()([latents, condition])
    x = layers.Dense(base * base * config.width, name="base")(x)
    x = leaky()(layers.Reshape((base, base, config.width))(x))
    for level in range(levels):
        width = max(3 * config.width // 2 ** (level + 2), 8)
        x = leaky()(convolution(width)(double(x)))
        if level < levels - 1:
            x = leaky()(convolution(width)(x))
    pictures = layers.Conv2D(channels, 3, padding="same", activation="tanh")(x)
    return keras.Model([latents, labels], pictures, name="generator")


def discriminator(size: int, channels: int, classes: int, config: Config) -> keras.Model:
    """(pictures, labels) -> scores (batch,): w.h(x) + e(label).h(x), the projection discriminator."""
    pictures = keras.Input((size, size, channels), name="pictures")
    labels = keras.Input((), dtype="int32", name="labels")
    x = pictures
    for level in range(halvings(size)):
        width = min(config.width // 2 * 2**level, config.width)
        x = leaky()(convolution(width, 4, strides=2)(x))
    x = leaky()(convolution(config.width)(x))
    features = leaky()(layers.Dense(2 * config.width, kernel_initializer="he_normal")(layers.Flatten()(x)))
    condition = layers.Embedding(classes, 2 * config.width)(labels)
    projected = layers.Dot(axes=1)([features, condition])
    scores = layers.Add()([layers.Dense(1)(features), projected])
    return keras.Model([pictures, labels], layers.Reshape(())(scores), name="discriminator")


def train(config: Config, data: Dataset, run: Run) -> keras.Model:
    """Trains the pair and returns the averaged generator.

    Raises:
        TrainingError: the data has no classes.
    """
    if not data.classes:
        raise TrainingError("cdcgan needs classes: sort the pictures into one subfolder a class.")
    size, channels, classes = data.shape[0], data.shape[2], len(data.classes)
    draw, judge = generator(size, channels, classes, config), discriminator(size, channels, classes, config)
    half = config.batch_size

    def scores(real: Any, labels: Any, noise: Any) -> tuple[Any, Any, Any]:
        fake = draw([noise, labels], training=True)
        both = judge([ops.concatenate([real, fake]), ops.concatenate([labels, labels])], training=True)
        return both[:half], both[half:], fake

    def discriminator_loss(real: Any, labels: Any, noise: Any) -> tuple[Any, dict[str, Any]]:
        on_real, on_fake, fake = scores(real, labels, noise)
        penalty = sum(
            zero_centred_penalty(lambda x: judge([x, labels], training=True), pictures) for pictures in (real, ops.stop_gradient(fake))
        )
        pairing = relativistic(on_real, on_fake)
        return pairing + config.penalty / 2 * penalty, {"discriminator": pairing, "penalty": penalty}

    def generator_loss(real: Any, labels: Any, noise: Any) -> tuple[Any, dict[str, Any]]:
        on_real, on_fake, _ = scores(real, labels, noise)
        value = relativistic(on_fake, on_real)
        return value, {"generator": value}

    plan = run.plan(len(data.train), config.batch_size, config.epochs)

    def adam(**options: Any) -> keras.optimizers.Optimizer:
        rate = keras.optimizers.schedules.CosineDecay(config.learning_rate, plan.steps, alpha=0.05)
        return keras.optimizers.Adam(rate, beta_1=0.0, beta_2=0.99, **options)

    judge_step = Step(discriminator_loss, judge.trainable_variables, adam(), draw.variables)
    draw_step = Step(
        generator_loss, draw.trainable_variables, adam(use_ema=True, ema_momentum=averaging(plan.steps, config.average)), judge.variables
    )

    def step(indices: np.ndarray, random: np.random.Generator) -> dict[str, Any]:
        real, labels = to_floats(data.train.images[indices]), data.train.labels[indices]
        noise = random.standard_normal((2, len(indices), config.latent_dimension), np.float32)
        return {**judge_step(real, labels, noise[0]), **draw_step(real, labels, noise[1])}

    shown = run.generator(0).standard_normal((10, config.latent_dimension), np.float32)

    def sheet() -> np.ndarray:
        latents, labels = np.repeat(shown, classes, axis=0), np.tile(np.arange(classes, dtype=np.int32), 10)
        with draw_step.averaged():
            return contact_sheet(to_pixels(draw.predict_on_batch([latents, labels])), classes)

    variables = [*draw.variables, *judge.variables, *judge_step.variables, *draw_step.variables]
    run.fit(step, plan, variables=variables, sheet=sheet)
    draw_step.finish()
    return draw


def serving(config: Config, data: Dataset, trained: keras.Model) -> dict[str, keras.Model]:
    """`decoder`: latents and labels -> images."""
    latents = keras.Input((config.latent_dimension,), name="latents")
    labels = keras.Input((), dtype="int32", name="labels")
    return {"decoder": serve([latents, labels], {"images": graph_to_pixels(trained([latents * config.truncation, labels]))})}
