"""f-AnoGAN: a generator that can draw normal pictures only, and an encoder that looks for the one nearest to a given picture.

Schlegl et al. 2019: a DCGAN of normal pictures first, which then stays as it is; then the encoder as its inverse, trained on pictures and
on the discriminator's features of them (section 2.2.2, izi_f). Both errors together are the score (equation 5). `improved`: DCGAN's
improved networks and objective. `chapter`: the chapter's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from training import adversarial, detection
from training.data import Dataset
from training.data.pixels import to_floats, to_pixels
from training.layers import encoder, from_pixels, infer, serve
from training.layers import to_pixels as graph_to_pixels
from training.loop import Run, contact_sheet, evenly, group_sheet
from training.recipes import About, setting
from training.step import Step, annealed

TASKS = {"anomaly": {"detector": "detector"}}
SMOKE = "drawn-parts"

ABOUT = About(
    title="f-AnoGAN",
    description="Looks for the picture that a generator of normal ones would have drawn, and says how far it is from that, and where.",
    limits="Knows the one kind of normal picture that it was trained on, and of that what its generator can draw: a rare normal picture is "
    "an anomaly to it.",
    misuse=detection.MISUSE,
)


@dataclass(frozen=True)
class Config(adversarial.Settings):
    """Some eight minutes on two CPU cores for 6,000 digits."""

    epochs: int = setting(40, "passes over the normal training pictures")
    latent_dimension: int = setting(32, "numbers that a picture is drawn from")
    width: int = setting(32, "filters of the convolutions")
    normal: int = setting(-1, "number of the class that is normal (-1: the class good; without classes, all pictures)", least=-1)
    false_positives: float = setting(0.01, "share of normal pictures that may be taken for anomalous", below=1)
    inversion: float = setting(0.4, "share of the steps that the encoder learns in, after the generator", below=1)
    features: float = setting(1.0, "weight of the difference of the discriminator's features, squared", least=0)


CHAPTER = Config(variant="chapter", epochs=60, batch_size=64, width=64, learning_rate=2e-4)


@dataclass(frozen=True)
class Trained:
    """The networks: of the generator's `draw`, its inverse `encode` and what the discriminator `sees`; and what errors are usual."""

    encode: keras.Model
    draw: keras.Model
    sees: keras.Model
    usual: np.ndarray


def train(config: Config, data: Dataset, run: Run) -> Trained:
    """Trains the generator against the discriminator, and then the encoder; returns all three."""
    pictures = detection.normals(data, data.train, config.normal)
    size, channels = data.shape[0], data.shape[2]
    draw, sees = adversarial.convolutional_pair(size, channels, config)
    encode = encoder(size, channels, config.latent_dimension, config.width)
    plan = run.plan(len(pictures), config.batch_size, config.epochs)
    first = max(1, min(plan.steps - 1, round(plan.steps * (1 - config.inversion))))
    contest = adversarial.Contest(draw, adversarial.logits(sees), config, first)
    invert = Step(
        _inversion(encode, draw, sees, config.features),
        encode.trainable_variables,
        annealed(1e-3, max(1, plan.steps - first)),
        [*draw.variables, *sees.variables],
    )

    def step(indices: np.ndarray, random: np.random.Generator) -> dict[str, Any]:
        if run.step < first:
            return contest.step(run.step, pictures[indices], [], random)
        if run.step == first:
            contest.finish()
        return invert(to_floats(pictures[indices]))

    latents = run.generator(0).standard_normal((64, config.latent_dimension), np.float32)
    shown = evenly(detection.normals(data, data.validation, config.normal), 16)

    def sheet() -> np.ndarray:
        if run.step <= first:
            with contest.averaged():
                return contact_sheet(to_pixels(infer(draw, [latents])[0]), 16)
        with invert.averaged():
            return group_sheet([shown, to_pixels(infer(draw, [infer(encode, shown, to_floats)[0]])[0])], 4)

    run.fit(step, plan, variables=[*contest.variables, *encode.variables, *invert.variables], sheet=sheet)
    invert.finish()
    given = keras.Input((size, size, channels))
    errors = keras.Model(given, _errors(given, encode, draw, sees)[0])
    return Trained(encode, draw, sees, detection.usual(errors, data, config.normal))


def _inversion(encode: keras.Model, draw: keras.Model, sees: keras.Model, weight: float) -> Any:
    def loss(pictures: Any) -> tuple[Any, dict[str, Any]]:
        restored = draw([encode(pictures, training=True)], training=False)
        scalars = {"reconstruction": ops.mean(ops.square(restored - pictures))}
        theirs = sees([pictures], training=False)
        scalars["features"] = ops.mean(ops.square(sees([restored], training=False) - theirs)) / (ops.mean(ops.square(theirs)) + 1e-6)
        return scalars["reconstruction"] + weight * scalars["features"], scalars

    return loss


def _errors(pictures: Any, encode: keras.Model, draw: keras.Model, sees: keras.Model) -> tuple[list[Any], Any]:
    """The squared difference by the pixel (batch, h, w), that of the discriminator's features (batch, n), and the restored pictures."""
    restored = draw([encode(pictures, training=False)], training=False)
    seen = ops.square(sees([restored], training=False) - sees([pictures], training=False))
    return [detection.mean_of_channels(ops.square(restored - pictures)), seen], restored


def serving(config: Config, data: Dataset, trained: Trained) -> dict[str, keras.Model]:
    """`detector`: images -> scores, errors (squared differences, 1 on average in normal pictures) and reconstruction."""
    pixels, pictures = from_pixels(data.shape[0], data.shape[2])
    (errors, seen), restored = _errors(pictures, trained.encode, trained.draw, trained.sees)
    by_pixel, by_feature = (float(value) for value in trained.usual)
    scores = detection.mean(errors) / by_pixel + config.features * detection.mean(seen) / by_feature
    outputs = {
        "scores": scores,
        "errors": detection.smoothed(errors / by_pixel, data.shape[0] / 64),
        "reconstruction": graph_to_pixels(restored),
    }
    return {"detector": serve([pixels], outputs)}


def describe(config: Config, data: Dataset) -> dict[str, Any]:
    """What is normal to it."""
    return detection.described(ABOUT.title, data, config.normal) | {"largest_batch": 64}


def samples(config: Config, data: Dataset, graphs: dict[str, keras.Model]) -> np.ndarray:
    """Normal pictures held out for choices, what is made of them, and their errors."""
    return detection.sheet(graphs["detector"], data, config.normal)
