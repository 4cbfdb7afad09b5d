"""Variational autoencoder: an autoencoder whose latents are pushed towards a standard normal.

Kingma & Welling 2014. The likelihood is Gaussian with one variance, which at each batch has its optimal
value, the mean squared error (sigma-VAE: Rybkin, Daniilidis & Levine 2021, section 4): no weight between
reconstruction and KL has to be chosen. With two latent dimensions it draws a map; with 16 to 32 it reconstructs well.

The latents of real pictures are not the standard normal that they are pushed towards, so a second stage learns
where they are (Dai & Wipf 2019, two-stage VAE; here a flow): its graph, the prior, maps noise to latents.

`chapter` is the chapter's pair of small networks under KL and per-pixel cross-entropy; noise is its latents.
"""

from __future__ import annotations

import math
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
from training.losses import binary_cross_entropy
from training.recipes import About, setting
from training.step import Step, annealed

TASKS = {
    "embed": {"encoder": "encoder"},
    "generate": {"prior": "prior", "decoder": "decoder"},
    "reconstruct": {"encoder": "encoder", "decoder": "decoder"},
}

ABOUT = About(
    title="Variational autoencoder",
    description="Encodes a picture into a latent vector, and decodes such vectors, given ones or ones that it draws from noise.",
    limits=(
        "Knows only pictures like those it was trained on: one thing, bright on black, centred. What is drawn "
        "from noise is softer than what the adversarial models draw, and some of it lies between two classes."
    ),
    misuse="Not a classifier, and no detector of odd pictures: its errors are not calibrated.",
)


@dataclass(frozen=True)
class Config:
    """Some 30 minutes on one CPU core, 3 of them the second stage."""

    variant: Literal["improved", "chapter"] = "improved"
    epochs: int = setting(20, "passes over the training pictures")
    batch_size: int = setting(128, "pictures a step")
    latent_dimension: int = setting(16, "numbers that a picture is encoded into")
    width: int = setting(64, "filters of the widest convolutions", only="improved")
    learning_rate: float = setting(1e-3, "of Adam, at its highest")
    prior_epochs: int = setting(30, "of the second stage, each of as many steps as one of --epochs; 0: none, noise is the latents", least=0)


CHAPTER = Config(variant="chapter", epochs=30, latent_dimension=2, prior_epochs=0)


@dataclass(frozen=True)
class Trained:
    """The encoder gives the posterior's mean and log variance (batch, 2 d)."""

    encoder: keras.Model
    decoder: keras.Model
    flow: keras.Model | None


def train(config: Config, data: Dataset, run: Run) -> Trained:
    """Trains the pair, and then the flow on what the encoder makes of the training pictures."""
    size, channels = data.shape[0], data.shape[2]
    plan = run.plan(len(data.train), config.batch_size, config.epochs + config.prior_epochs)
    first = max(1, plan.steps * config.epochs // (config.epochs + config.prior_epochs))
    improved = config.variant == "improved"
    likelihood = _gaussian if improved else _bernoulli
    if improved:
        encode = encoder(size, channels, 2 * config.latent_dimension, config.width)
        decode = drawn = decoder(size, channels, config.latent_dimension, config.width)
        optimizer = annealed(config.learning_rate, first, global_clipnorm=500.0)
    else:
        encode = chapter_encoder(size, channels, 2 * config.latent_dimension)
        decode = chapter_decoder(size, channels, config.latent_dimension)
        drawn = from_logits(decode)
        optimizer = keras.optimizers.Adam(config.learning_rate)

    def loss(pictures: Any, noise: Any) -> tuple[Any, dict[str, Any]]:
        mean, log_variance = ops.split(encode(pictures, training=True), 2, axis=-1)
        unlikely, scalars = likelihood(decode(mean + ops.exp(0.5 * log_variance) * noise, training=True), pictures)
        divergence = 0.5 * ops.mean(ops.sum(ops.exp(log_variance) + ops.square(mean) - 1.0 - log_variance, axis=-1))
        return unlikely + divergence, {"loss": unlikely + divergence, **scalars, "kl": divergence}

    step = Step(loss, [*encode.trainable_variables, *decode.trainable_variables], optimizer)
    prior = Prior(config.latent_dimension, config.learning_rate, plan.steps - first) if config.prior_epochs else None

    def one(indices: np.ndarray, random: np.random.Generator) -> dict[str, Any]:
        if prior is None or run.step < first:
            noise = random.standard_normal((len(indices), config.latent_dimension), np.float32)
            return step(to_floats(data.train.images[indices]), noise)
        if prior.posterior is None:  # the first stage is over, perhaps before this run was resumed
            step.finish()
            mean, log_variance = np.split(infer(encode, data.train.images, to_floats)[0], 2, axis=1)
            prior.posterior = mean, np.exp(0.5 * log_variance)
        return prior.step(random)

    shown = to_floats(data.validation.images[:10])
    noise = run.generator(0).standard_normal((80, config.latent_dimension), np.float32)

    def sheet() -> np.ndarray:
        """Held-out pictures, what comes back of them, and what is drawn from noise: through the prior, once that is being trained."""
        latents = prior(noise) if prior is not None and run.step > first else noise
        with step.averaged():
            mean = infer(encode, shown)[0][:, : config.latent_dimension]
            decoded = infer(drawn, np.concatenate([mean, latents]))[0]
        return contact_sheet(np.concatenate([to_pixels(shown), to_pixels(decoded)]), 10)

    variables = [*encode.variables, *decode.variables, *step.variables]
    run.fit(one, plan, variables=[*variables, *(prior.variables if prior else [])], sheet=sheet)
    step.finish()
    return Trained(encode, drawn, prior.finish() if prior else None)


def _gaussian(decoded: Any, pictures: Any) -> tuple[Any, dict[str, Any]]:
    """Negative log-likelihood of a picture, up to a constant, under the variance that is best for the batch."""
    error = ops.mean(ops.square(decoded - pictures)) / 4  # on the scale 0..1
    return 0.5 * math.prod(pictures.shape[1:]) * ops.log(error), {"mse": error}


def _bernoulli(logits: Any, pictures: Any) -> tuple[Any, dict[str, Any]]:
    """Cross-entropy, summed over the pixels of a picture."""
    entropy = math.prod(pictures.shape[1:]) * binary_cross_entropy(logits, (pictures + 1.0) / 2.0)
    return entropy, {"cross_entropy": entropy}


def serving(config: Config, data: Dataset, trained: Trained) -> dict[str, keras.Model]:
    """`encoder`: images -> embedding (the posterior's mean). `decoder`: latents -> images. `prior`: noise -> latents."""
    pixels, pictures = from_pixels(data.shape[0], data.shape[2])
    latents = keras.Input((config.latent_dimension,), name="latents")
    mean = trained.encoder(pictures)[:, : config.latent_dimension]
    graphs = {
        "encoder": serve([pixels], {"embedding": mean}),
        "decoder": serve([latents], {"images": graph_to_pixels(trained.decoder(latents))}),
    }
    if trained.flow is not None:
        noise = keras.Input((config.latent_dimension,), name="noise")
        graphs["prior"] = serve([noise], {"latents": transport(trained.flow, noise)})
    return graphs
