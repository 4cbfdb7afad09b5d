"""Autoencoder: a picture through a narrow bottleneck and back.

Hinton & Salakhutdinov 2006; the first model of the chapter, with two latent dimensions so that the whole
space fits on a page. The latents are whitened in the serving graphs (zero mean, unit covariance over the
training pictures), so that seeded Gaussian noise has the spread of real latents; not their shape: some of it falls into holes.
`chapter` is the chapter's pair of small networks, trained on the same error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
from keras import layers, ops

from training.data import Dataset
from training.data.pixels import to_floats, to_pixels
from training.layers import chapter_decoder, chapter_encoder, decoder, encoder, from_logits, from_pixels, infer, serve
from training.layers import to_pixels as graph_to_pixels
from training.loop import Run, contact_sheet
from training.recipes import About
from training.step import Step, averaging

TASKS = {"embed": {"encoder": "encoder"}, "generate": {"decoder": "decoder"}, "reconstruct": {"encoder": "encoder", "decoder": "decoder"}}

ABOUT = About(
    title="Autoencoder",
    description="Encodes a picture into a few numbers and decodes it again, trained on the reconstruction alone.",
    limits=(
        "Knows only pictures like those it was trained on: bright strokes on black, one digit, centred. Nothing shapes the "
        "latent space, so it has holes, and what is decoded from noise is often no digit; the variational models do better."
    ),
    misuse="Not a reader of handwriting: an embedding is no classification, and its errors are not calibrated.",
)


@dataclass(frozen=True)
class Config:
    """Some 10 minutes on two CPU cores."""

    variant: Literal["improved", "chapter"] = "improved"
    epochs: int = 12
    batch_size: int = 128
    latent_dimension: int = 2
    width: int = 64
    learning_rate: float = 1e-3


CHAPTER = Config(variant="chapter", epochs=30)


@dataclass(frozen=True)
class Trained:
    """The encoder, the decoder, and the affine map that whitens: white = (latent - mean) @ whiten."""

    encoder: keras.Model
    decoder: keras.Model
    mean: np.ndarray
    whiten: np.ndarray


def train(config: Config, data: Dataset, run: Run) -> Trained:
    """Minimises the mean squared error; the weights of `improved` are a moving average."""
    size, channels, improved = data.shape[0], data.shape[2], config.variant == "improved"
    if improved:
        encode = encoder(size, channels, config.latent_dimension, config.width)
        decode = decoder(size, channels, config.latent_dimension, config.width)
    else:
        encode = chapter_encoder(size, channels, config.latent_dimension)
        decode = from_logits(chapter_decoder(size, channels, config.latent_dimension))

    def loss(pictures: Any) -> tuple[Any, dict[str, Any]]:
        value = ops.mean(ops.square(decode(encode(pictures, training=True), training=True) - pictures))
        return value, {"loss": value}

    plan = run.plan(len(data.train), config.batch_size, config.epochs)
    rate = keras.optimizers.schedules.CosineDecay(config.learning_rate, plan.steps, alpha=0.01) if improved else config.learning_rate
    optimizer = keras.optimizers.Adam(rate, use_ema=improved, ema_momentum=averaging(plan.steps))
    step = Step(loss, [*encode.trainable_variables, *decode.trainable_variables], optimizer)
    shown = to_floats(data.validation.images[:32])

    def sheet() -> np.ndarray:
        with step.averaged():
            decoded = to_pixels(infer(decode, infer(encode, shown)[0])[0])
        return contact_sheet(np.concatenate([to_pixels(shown), decoded]), 16)

    run.fit(
        lambda indices, _: step(to_floats(data.train.images[indices])),
        plan,
        variables=[*encode.variables, *decode.variables, *step.variables],
        sheet=sheet,
    )
    step.finish()
    latents = infer(encode, to_floats(data.train.images[:20000]))[0].astype(np.float64)
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(latents, rowvar=False)))
    return Trained(encode, decode, latents.mean(axis=0), vectors / np.sqrt(np.maximum(values, 1e-12)))


def serving(config: Config, data: Dataset, trained: Trained) -> dict[str, keras.Model]:
    """`encoder`: images -> embedding (whitened latents). `decoder`: latents (whitened) -> images."""
    size, channels = data.shape[0], data.shape[2]
    whiten = _affine(trained.whiten, -trained.mean @ trained.whiten)
    colour = _affine(np.linalg.inv(trained.whiten), trained.mean)
    pixels, pictures = from_pixels(size, channels)
    latents = keras.Input((config.latent_dimension,), name="latents")
    return {
        "encoder": serve([pixels], {"embedding": whiten(trained.encoder(pictures))}),
        "decoder": serve([latents], {"images": graph_to_pixels(trained.decoder(colour(latents)))}),
    }


def _affine(matrix: np.ndarray, offset: np.ndarray) -> layers.Dense:
    layer = layers.Dense(matrix.shape[1])
    layer.build((None, matrix.shape[0]))
    layer.set_weights([matrix.astype(np.float32), offset.astype(np.float32)])
    return layer
