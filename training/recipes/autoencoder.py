"""Autoencoder: a picture through a narrow bottleneck and back.

Hinton & Salakhutdinov 2006; the first model of the chapter, with two latent dimensions so that the whole
space fits on a page. Nothing shapes that space, so a second stage learns where in it real pictures are (training/flow.py);
its graph, the prior, maps noise to latents. The latents are whitened in the serving graphs (zero mean, unit covariance over the
training pictures). `chapter` is the chapter's pair of small networks, trained on the same error, without a second stage.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
from keras import layers, ops

from training.data import Dataset
from training.data.pixels import to_floats, to_pixels
from training.flow import Prior, transport
from training.layers import chapter_decoder, chapter_encoder, decoder, encoder, from_logits, from_pixels, infer, serve
from training.layers import to_pixels as graph_to_pixels
from training.loop import Run, contact_sheet
from training.recipes import About
from training.step import Step, annealed

TASKS = {
    "embed": {"encoder": "encoder"},
    "generate": {"prior": "prior", "decoder": "decoder"},
    "reconstruct": {"encoder": "encoder", "decoder": "decoder"},
}

ABOUT = About(
    title="Autoencoder",
    description="Encodes a picture into a few numbers and decodes it again, trained on the reconstruction alone.",
    limits=(
        "Knows only pictures like those it was trained on: bright strokes on black, one digit, centred. Nothing shapes the "
        "latent space, so it has holes: a latent of one's own choosing may decode to no digit."
    ),
    misuse="Not a reader of handwriting: an embedding is no classification, and its errors are not calibrated.",
)


@dataclass(frozen=True)
class Config:
    """Some 20 minutes on one CPU core, 3 of them the second stage.

    Attributes:
        prior_epochs: of the second stage, counted apart; 0 for none, and noise is the latents.
    """

    variant: Literal["improved", "chapter"] = "improved"
    epochs: int = 12
    batch_size: int = 128
    latent_dimension: int = 2
    width: int = 64
    learning_rate: float = 1e-3
    prior_epochs: int = 30


CHAPTER = Config(variant="chapter", epochs=30, prior_epochs=0)


@dataclass(frozen=True)
class Trained:
    """The encoder, the decoder, the affine map that whitens, white = (latent - mean) @ whiten, and the flow to white latents."""

    encoder: keras.Model
    decoder: keras.Model
    mean: np.ndarray
    whiten: np.ndarray
    flow: keras.Model | None


def train(config: Config, data: Dataset, run: Run) -> Trained:
    """Minimises the mean squared error, and then trains the flow on the latents of the training pictures."""
    size, channels, improved = data.shape[0], data.shape[2], config.variant == "improved"
    plan = run.plan(len(data.train), config.batch_size, config.epochs + config.prior_epochs)
    first = max(1, plan.steps * config.epochs // (config.epochs + config.prior_epochs))
    if improved:
        encode = encoder(size, channels, config.latent_dimension, config.width)
        decode = decoder(size, channels, config.latent_dimension, config.width)
    else:
        encode = chapter_encoder(size, channels, config.latent_dimension)
        decode = from_logits(chapter_decoder(size, channels, config.latent_dimension))

    def loss(pictures: Any) -> tuple[Any, dict[str, Any]]:
        value = ops.mean(ops.square(decode(encode(pictures, training=True), training=True) - pictures))
        return value, {"loss": value}

    optimizer = annealed(config.learning_rate, first) if improved else keras.optimizers.Adam(config.learning_rate)
    step = Step(loss, [*encode.trainable_variables, *decode.trainable_variables], optimizer)
    prior = Prior(config.latent_dimension, config.learning_rate, plan.steps - first) if config.prior_epochs else None

    def one(indices: np.ndarray, random: np.random.Generator) -> dict[str, Any]:
        if prior is None or run.step < first:
            return step(to_floats(data.train.images[indices]))
        if prior.posterior is None:  # the first stage is over, perhaps before this run was resumed
            step.finish()
            latents = infer(encode, to_floats(data.train.images))[0]
            mean, whiten = _whitening(latents)
            prior.posterior = np.asarray((latents - mean) @ whiten, np.float32), np.zeros_like(latents)
        return prior.step(random)

    shown = to_floats(data.validation.images[:32])

    def sheet() -> np.ndarray:
        with step.averaged():
            decoded = to_pixels(infer(decode, infer(encode, shown)[0])[0])
        return contact_sheet(np.concatenate([to_pixels(shown), decoded]), 16)

    variables = [*encode.variables, *decode.variables, *step.variables]
    run.fit(one, plan, variables=[*variables, *(prior.variables if prior else [])], sheet=sheet)
    step.finish()
    whitening = _whitening(infer(encode, to_floats(data.train.images))[0])
    return Trained(encode, decode, *whitening, prior.finish() if prior else None)


def _whitening(latents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean (d,) of latents (n, d), and the matrix (d, d) that gives them, once centred, unit covariance."""
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(latents.astype(np.float64), rowvar=False)))
    return latents.mean(axis=0, dtype=np.float64), vectors / np.sqrt(np.maximum(values, 1e-12))


def serving(config: Config, data: Dataset, trained: Trained) -> dict[str, keras.Model]:
    """`encoder`: images -> embedding (whitened latents). `decoder`: latents (whitened) -> images. `prior`: noise -> latents."""
    size, channels = data.shape[0], data.shape[2]
    whiten = _affine(trained.whiten, -trained.mean @ trained.whiten)
    colour = _affine(np.linalg.inv(trained.whiten), trained.mean)
    pixels, pictures = from_pixels(size, channels)
    latents = keras.Input((config.latent_dimension,), name="latents")
    graphs = {
        "encoder": serve([pixels], {"embedding": whiten(trained.encoder(pictures))}),
        "decoder": serve([latents], {"images": graph_to_pixels(trained.decoder(colour(latents)))}),
    }
    if trained.flow is not None:
        noise = keras.Input((config.latent_dimension,), name="noise")
        graphs["prior"] = serve([noise], {"latents": transport(trained.flow, noise)})
    return graphs


def _affine(matrix: np.ndarray, offset: np.ndarray) -> layers.Dense:
    layer = layers.Dense(matrix.shape[1])
    layer.build((None, matrix.shape[0]))
    layer.set_weights([matrix.astype(np.float32), offset.astype(np.float32)])
    return layer
