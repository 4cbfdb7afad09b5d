"""Autoencoder: a picture through a narrow bottleneck and back.

Hinton & Salakhutdinov 2006; the first model of the chapter, with two latent dimensions so that the whole
space fits on a page. Nothing shapes that space, so a second stage learns where in it real pictures are (training/flow.py);
its graph, the prior, maps noise to latents. In the serving graphs each latent dimension has zero mean and unit variance over the
training pictures. `chapter` is the chapter's pair of small networks, trained on the same error, without a second stage.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from training.data import Dataset
from training.data.pixels import to_floats, to_pixels
from training.flow import Prior, transport
from training.layers import chapter_decoder, chapter_encoder, decoder, encoder, from_logits, from_pixels, infer, serve
from training.layers import to_pixels as graph_to_pixels
from training.loop import Run, contact_sheet
from training.recipes import About, setting
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
        "Knows only pictures like those it was trained on: one thing, bright on black, centred. Nothing shapes the "
        "latent space, so it has holes: a latent of one's own choosing may decode to nothing like them."
    ),
    misuse="Not a classifier, and no detector of odd pictures: its errors are not calibrated.",
)


@dataclass(frozen=True)
class Config:
    """Some 20 minutes on one CPU core, 3 of them the second stage."""

    variant: Literal["improved", "chapter"] = "improved"
    epochs: int = setting(12, "passes over the training pictures")
    batch_size: int = setting(128, "pictures a step")
    latent_dimension: int = setting(2, "numbers that a picture is encoded into")
    width: int = setting(64, "filters of the widest convolutions", only="improved")
    learning_rate: float = setting(1e-3, "of Adam, at its highest")
    prior_epochs: int = setting(30, "of the second stage, each of as many steps as one of --epochs; 0: none, noise is the latents", least=0)


CHAPTER = Config(variant="chapter", epochs=30, prior_epochs=0)


@dataclass(frozen=True)
class Trained:
    """The networks, the mean and deviation (d,) of the encoder's latents, and the flow to latents standardised by these."""

    encoder: keras.Model
    decoder: keras.Model
    mean: np.ndarray
    deviation: np.ndarray
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
            latents = infer(encode, data.train.images, to_floats)[0]
            mean, deviation = _moments(latents)
            prior.posterior = (latents - mean) / deviation, np.zeros_like(latents)
        return prior.step(random)

    shown = to_floats(data.validation.images[:32])

    def sheet() -> np.ndarray:
        with step.averaged():
            decoded = to_pixels(infer(decode, infer(encode, shown)[0])[0])
        return contact_sheet(np.concatenate([to_pixels(shown), decoded]), 16)

    variables = [*encode.variables, *decode.variables, *step.variables]
    run.fit(one, plan, variables=[*variables, *(prior.variables if prior else [])], sheet=sheet)
    step.finish()
    moments = _moments(infer(encode, data.train.images, to_floats)[0])
    return Trained(encode, decode, *moments, prior.finish() if prior else None)


def _moments(latents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (d,) of latents (n, d); a dimension that never varies is left in its units."""
    mean, deviation = latents.mean(axis=0, dtype=np.float64), latents.std(axis=0, dtype=np.float64)
    return mean.astype(np.float32), np.where(deviation > 1e-6, deviation, 1.0).astype(np.float32)


def serving(config: Config, data: Dataset, trained: Trained) -> dict[str, keras.Model]:
    """`encoder`: images -> embedding (standardised latents). `decoder`: latents (standardised) -> images. `prior`: noise -> latents."""
    size, channels = data.shape[0], data.shape[2]
    pixels, pictures = from_pixels(size, channels)
    latents = keras.Input((config.latent_dimension,), name="latents")
    graphs = {
        "encoder": serve([pixels], {"embedding": (trained.encoder(pictures) - trained.mean) / trained.deviation}),
        "decoder": serve([latents], {"images": graph_to_pixels(trained.decoder(latents * trained.deviation + trained.mean))}),
    }
    if trained.flow is not None:
        noise = keras.Input((config.latent_dimension,), name="noise")
        graphs["prior"] = serve([noise], {"latents": transport(trained.flow, noise)})
    return graphs
