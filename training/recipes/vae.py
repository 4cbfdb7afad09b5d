"""Variational autoencoder: an autoencoder whose latents are pushed towards a standard normal.

Kingma & Welling 2014. The likelihood is Gaussian with one variance, which at each batch has its optimal
value, the mean squared error (sigma-VAE: Rybkin, Daniilidis & Levine 2021, section 4): no weight between
reconstruction and KL has to be chosen. With two latent dimensions it draws a map; with 16 to 32 it reconstructs well.

The latents of real pictures are not the standard normal that they are pushed towards, so a second stage learns
where they are (Dai & Wipf 2019, two-stage VAE; here a flow): its graph, the prior, maps noise to latents.

`chapter` is the chapter's pair of small networks under KL and per-pixel cross-entropy; noise is its latents.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from training.data import Dataset
from training.data.pixels import to_floats, to_pixels
from training.flow import matching_loss, transport, velocity
from training.layers import chapter_decoder, chapter_encoder, decoder, encoder, from_logits, from_pixels, infer, serve
from training.layers import to_pixels as graph_to_pixels
from training.loop import Run, contact_sheet
from training.losses import binary_cross_entropy
from training.recipes import About
from training.step import Step, averaging

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
    misuse="Not a reader of handwriting: an embedding is no classification, and its errors are not calibrated.",
)

PRIOR_BATCH = 1024


@dataclass(frozen=True)
class Config:
    """Some 30 minutes on one CPU core, 3 of them the second stage (`improved` only), whose epochs are counted apart."""

    variant: Literal["improved", "chapter"] = "improved"
    epochs: int = 20
    batch_size: int = 128
    latent_dimension: int = 16
    width: int = 64
    learning_rate: float = 1e-3
    prior_epochs: int = 30


CHAPTER = Config(variant="chapter", epochs=30, latent_dimension=2)


@dataclass(frozen=True)
class Trained:
    """The encoder gives the posterior's mean and log variance (batch, 2 d). Without a flow, noise itself is the latents."""

    encoder: keras.Model
    decoder: keras.Model
    flow: keras.Model | None


def train(config: Config, data: Dataset, run: Run) -> Trained:
    """Trains the pair, and then, for `improved`, the flow on what the encoder makes of the training pictures."""
    if config.variant == "chapter":
        return _train_chapter(config, data, run)
    size, channels = data.shape[0], data.shape[2]
    encode = encoder(size, channels, 2 * config.latent_dimension, config.width)
    decode = decoder(size, channels, config.latent_dimension, config.width)
    flow = velocity(config.latent_dimension)
    dimensions = size * size * channels

    def loss(pictures: Any, noise: Any) -> tuple[Any, dict[str, Any]]:
        mean, log_variance = ops.split(encode(pictures, training=True), 2, axis=-1)
        decoded = decode(mean + ops.exp(0.5 * log_variance) * noise, training=True)
        error = ops.mean(ops.square(decoded - pictures)) / 4  # on the scale 0..1
        divergence = _divergence(mean, log_variance)
        value = 0.5 * dimensions * ops.log(error) + divergence
        return value, {"loss": value, "mse": error, "kl": divergence}

    def prior_loss(noise: Any, latents: Any, times: Any) -> tuple[Any, dict[str, Any]]:
        value = matching_loss(flow, noise, latents, times)
        return value, {"prior": value}

    plan = run.plan(len(data.train), config.batch_size, config.epochs + config.prior_epochs)
    first = max(1, plan.steps * config.epochs // (config.epochs + config.prior_epochs))
    step = Step(loss, [*encode.trainable_variables, *decode.trainable_variables], _adam(config, first, global_clipnorm=500.0))
    prior_step = Step(prior_loss, flow.trainable_variables, _adam(config, max(1, plan.steps - first)))
    posterior: list[np.ndarray] = []

    def one(indices: np.ndarray, random: np.random.Generator) -> dict[str, Any]:
        if run.step < first:
            drawn = random.standard_normal((len(indices), config.latent_dimension), np.float32)
            return step(to_floats(data.train.images[indices]), drawn)
        if not posterior:  # the first stage is over, perhaps in an earlier session
            step.finish()
            posterior.extend(infer(encode, to_floats(data.train.images)))
        mean, log_variance = np.split(posterior[0][random.integers(0, len(data.train), PRIOR_BATCH)], 2, axis=1)
        noise = random.standard_normal((2, *mean.shape), np.float32)
        return prior_step(noise[0], mean + np.exp(0.5 * log_variance) * noise[1], random.random((len(mean), 1), np.float32))

    shown = to_floats(data.validation.images[:10])
    noise = run.generator(0).standard_normal((80, config.latent_dimension), np.float32)

    def sheet() -> np.ndarray:
        """Held-out pictures, what comes back of them, and what is drawn from noise: through the prior, once that is being trained."""
        drawn = noise
        if run.step > first:
            with prior_step.averaged():
                drawn = ops.convert_to_numpy(transport(flow, ops.convert_to_tensor(noise)))
        with step.averaged():
            mean = infer(encode, shown)[0][:, : config.latent_dimension]
            decoded = infer(decode, np.concatenate([mean, drawn]))[0]
        return contact_sheet(np.concatenate([to_pixels(shown), to_pixels(decoded)]), 10)

    variables = [*encode.variables, *decode.variables, *flow.variables, *step.variables, *prior_step.variables]
    run.fit(one, plan, variables=variables, sheet=sheet)
    step.finish()
    prior_step.finish()
    return Trained(encode, decode, flow)


def _adam(config: Config, steps: int, **options: Any) -> keras.optimizers.Optimizer:
    rate = keras.optimizers.schedules.CosineDecay(config.learning_rate, steps, alpha=0.01)
    return keras.optimizers.Adam(rate, use_ema=True, ema_momentum=averaging(steps), **options)


def _divergence(mean: Any, log_variance: Any) -> Any:
    """KL of the posterior from the standard normal, averaged over the batch (Kingma & Welling 2014, appendix B)."""
    return 0.5 * ops.mean(ops.sum(ops.exp(log_variance) + ops.square(mean) - 1.0 - log_variance, axis=-1))


def _train_chapter(config: Config, data: Dataset, run: Run) -> Trained:
    """Minimises cross-entropy, summed over the pixels, + KL."""
    size, channels = data.shape[0], data.shape[2]
    encode = chapter_encoder(size, channels, 2 * config.latent_dimension)
    decode = chapter_decoder(size, channels, config.latent_dimension)
    pictured = from_logits(decode)

    def loss(pictures: Any, noise: Any) -> tuple[Any, dict[str, Any]]:
        mean, log_variance = ops.split(encode(pictures, training=True), 2, axis=-1)
        logits = decode(mean + ops.exp(0.5 * log_variance) * noise, training=True)
        entropy = size * size * channels * binary_cross_entropy(logits, (pictures + 1.0) / 2.0)
        divergence = _divergence(mean, log_variance)
        return entropy + divergence, {"loss": entropy + divergence, "cross_entropy": entropy, "kl": divergence}

    plan = run.plan(len(data.train), config.batch_size, config.epochs)
    step = Step(loss, [*encode.trainable_variables, *decode.trainable_variables], keras.optimizers.Adam(config.learning_rate))
    shown = to_floats(data.validation.images[:10])
    noise = run.generator(0).standard_normal((80, config.latent_dimension), np.float32)

    def one(indices: np.ndarray, random: np.random.Generator) -> dict[str, Any]:
        drawn = random.standard_normal((len(indices), config.latent_dimension), np.float32)
        return step(to_floats(data.train.images[indices]), drawn)

    def sheet() -> np.ndarray:
        mean = infer(encode, shown)[0][:, : config.latent_dimension]
        decoded = infer(pictured, np.concatenate([mean, noise]))[0]
        return contact_sheet(np.concatenate([to_pixels(shown), to_pixels(decoded)]), 10)

    run.fit(one, plan, variables=[*encode.variables, *decode.variables, *step.variables], sheet=sheet)
    return Trained(encode, pictured, None)


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
