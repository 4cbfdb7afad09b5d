"""Variational autoencoder: an autoencoder whose latents are pushed towards a standard normal.

Kingma & Welling 2014. The likelihood is Gaussian with one variance, which at each batch has its optimal
value, the mean squared error (sigma-VAE: Rybkin, Daniilidis & Levine 2021, section 4): no weight between
reconstruction and KL has to be chosen. With two latent dimensions it draws a map; with 16 to 32 it reconstructs well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from training.data import Dataset
from training.data.pixels import to_floats, to_pixels
from training.layers import decoder, encoder, from_pixels, serve
from training.layers import to_pixels as graph_to_pixels
from training.loop import Run, contact_sheet
from training.recipes import About
from training.step import Step, averaging

TASKS = {"embed": {"encoder": "encoder"}, "generate": {"decoder": "decoder"}, "reconstruct": {"encoder": "encoder", "decoder": "decoder"}}

ABOUT = About(
    title="Variational autoencoder",
    description="Encodes a picture into a latent vector that is close to normally distributed, and decodes such vectors.",
    limits=(
        "Knows only pictures like those it was trained on: bright strokes on black, one digit, centred. What is decoded "
        "from noise is softer than what the adversarial models draw, and some of it lies between two digits."
    ),
    misuse="Not a reader of handwriting: an embedding is no classification, and its errors are not calibrated.",
)


@dataclass(frozen=True)
class Config:
    """Some 20 minutes on two CPU cores."""

    epochs: int = 20
    batch_size: int = 128
    latent_dimension: int = 16
    width: int = 64
    learning_rate: float = 1e-3


@dataclass(frozen=True)
class Trained:
    encoder: keras.Model
    decoder: keras.Model


def train(config: Config, data: Dataset, run: Run) -> Trained:
    """Minimises D/2 log MSE + KL, averaged over the batch; the weights are a moving average."""
    size, channels = data.shape[0], data.shape[2]
    encode = encoder(size, channels, 2 * config.latent_dimension, config.width)
    decode = decoder(size, channels, config.latent_dimension, config.width)
    dimensions = size * size * channels

    def loss(pictures: Any, noise: Any) -> tuple[Any, dict[str, Any]]:
        mean, log_variance = ops.split(encode(pictures, training=True), 2, axis=-1)
        decoded = decode(mean + ops.exp(0.5 * log_variance) * noise, training=True)
        error = ops.mean(ops.square(decoded - pictures)) / 4  # on the scale 0..1
        divergence = 0.5 * ops.mean(ops.sum(ops.exp(log_variance) + ops.square(mean) - 1.0 - log_variance, axis=-1))
        value = 0.5 * dimensions * ops.log(error) + divergence
        return value, {"loss": value, "mse": error, "kl": divergence}

    plan = run.plan(len(data.train), config.batch_size, config.epochs)
    rate = keras.optimizers.schedules.CosineDecay(config.learning_rate, plan.steps, alpha=0.01)
    optimizer = keras.optimizers.Adam(rate, use_ema=True, ema_momentum=averaging(plan.steps), global_clipnorm=500.0)
    step = Step(loss, [*encode.trainable_variables, *decode.trainable_variables], optimizer)
    shown = to_floats(data.validation.images[:16])
    noise = run.generator(0).standard_normal((32, config.latent_dimension), np.float32)

    def sheet() -> np.ndarray:
        with step.averaged():
            mean = encode.predict_on_batch(shown)[:, : config.latent_dimension]
            decoded = decode.predict_on_batch(np.concatenate([mean, noise]))
        return contact_sheet(np.concatenate([to_pixels(shown), to_pixels(decoded)]), 16)

    def one(indices: np.ndarray, random: np.random.Generator) -> dict[str, Any]:
        drawn = random.standard_normal((len(indices), config.latent_dimension), np.float32)
        return step(to_floats(data.train.images[indices]), drawn)

    variables = [*encode.variables, *decode.variables, *step.variables]
    run.fit(one, plan, variables=variables, sheet=sheet)
    step.finish()
    return Trained(encode, decode)


def serving(config: Config, data: Dataset, trained: Trained) -> dict[str, keras.Model]:
    """`encoder`: images -> embedding (the posterior's mean). `decoder`: latents -> images."""
    pixels, pictures = from_pixels(data.shape[0], data.shape[2])
    latents = keras.Input((config.latent_dimension,), name="latents")
    mean = trained.encoder(pictures)[:, : config.latent_dimension]
    return {
        "encoder": serve([pixels], {"embedding": mean}),
        "decoder": serve([latents], {"images": graph_to_pixels(trained.decoder(latents))}),
    }
