"""Two networks against each other: what the adversarial recipes share.

`improved` is R3GAN's objective (Huang et al. 2024): relativistic pairing loss with zero-centred gradient
penalties on real and generated pictures. `chapter` is the plain one (Goodfellow et al. 2014, section 3):
binary cross-entropy from logits with one-sided label smoothing (Salimans et al. 2016, section 3.4), k
discriminator steps for one of the generator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
from keras import layers, ops

from training.data import Dataset
from training.data.pixels import to_floats, to_pixels
from training.layers import infer, serve
from training.layers import to_pixels as graph_to_pixels
from training.loop import Run, contact_sheet
from training.losses import binary_cross_entropy, relativistic, zero_centred_penalty
from training.problems import TrainingError
from training.recipes import setting
from training.step import Step, balanced

Loss = Callable[..., tuple[Any, dict[str, Any]]]


@dataclass(frozen=True)
class Settings:
    """What each adversarial recipe's Config has.

    `truncation` is folded into the serving graph (Brock et al. 2018, section 3.1, by scaling): its latents have unit variance
    and are scaled by it. It does not touch training.
    """

    variant: Literal["improved", "chapter"] = "improved"
    epochs: int = setting(24, "passes over the training pictures")
    batch_size: int = setting(64, "pictures a step")
    latent_dimension: int = setting(128, "numbers that a picture is drawn from")
    width: int = setting(64, "filters of the convolutions, or units of the narrowest dense layer")
    learning_rate: float = setting(4e-4, "of Adam, at its highest")
    discriminator_steps: int = setting(1, "k: of the discriminator for one of the generator, each on pictures of its own")
    penalty: float = setting(0.1, "weight of the gradient penalties", least=0, only="improved")
    average: float = setting(0.999, "momentum of the generator's moving average, which is what ships", least=0, below=1, only="improved")
    smoothing: float = setting(0.1, "what the discriminator's target for real pictures lacks of 1", least=0, below=1, only="chapter")
    truncation: float = setting(1.0, "folded into the model: what it scales its noise by")


def classes_of(data: Dataset, recipe: str) -> int:
    """How many classes there are to ask for.

    Raises:
        TrainingError: the data has none.
    """
    if not data.classes:
        raise TrainingError(f"{recipe} needs classes: sort the pictures into one subfolder a class.")
    return len(data.classes)


def train(draw: keras.Model, judge: keras.Model, config: Settings, data: Dataset, run: Run) -> keras.Model:
    """Trains a pair of networks and returns the generator.

    Args:
        draw: the generator, [latents (batch, d)] or [latents, labels (batch,)] -> pictures (batch, h, w, c) in -1..1.
        judge: the discriminator, [pictures] or, if the generator takes labels, [pictures, labels] -> logits (batch,).

    Raises:
        TrainingError: fewer steps than the generator waits for, or fewer pictures than a batch.
    """
    improved = config.variant == "improved"
    conditional = len(draw.inputs) == 2
    make_losses = _relativistic_losses if improved else _plain_losses
    judge_loss, draw_loss = make_losses(draw, judge, config)
    plan = run.plan(len(data.train), config.batch_size, config.epochs)
    every = config.discriminator_steps
    if every > plan.steps:
        raise TrainingError(f"--discriminator-steps {every}: the generator would never step in {plan.steps} steps; lower it.")
    judge_step = Step(judge_loss, judge.trainable_variables, _adam(config, plan.steps), [*judge.non_trainable_variables, *draw.variables])
    draw_step = Step(
        draw_loss, draw.trainable_variables, _adam(config, plan.steps // every, improved), [*draw.non_trainable_variables, *judge.variables]
    )
    scalars: dict[str, Any] = {}

    def step(indices: np.ndarray, random: np.random.Generator) -> dict[str, Any]:
        real, labels = to_floats(data.train.images[indices]), [data.train.labels[indices]] * conditional
        noise = random.standard_normal((2, len(indices), config.latent_dimension), np.float32)
        scalars.update(judge_step(real, noise[0], *labels))
        if (run.step + 1) % every == 0:
            scalars.update(draw_step(real, noise[1], *labels))
        return scalars

    shown, columns = run.generator(0).standard_normal((10, 10, config.latent_dimension), np.float32), 10
    if conditional:  # a row a latent, a column a class
        columns = len(data.classes)
        shown = np.repeat(shown[0], columns, axis=0)
    shown = shown.reshape(-1, config.latent_dimension)
    labels = [np.tile(np.arange(columns, dtype=np.int32), 10)] * conditional

    def sheet() -> np.ndarray:
        with draw_step.averaged():
            return contact_sheet(to_pixels(infer(draw, [shown, *labels])[0]), columns)

    variables = [*draw.variables, *judge.variables, *judge_step.variables, *draw_step.variables]
    run.fit(step, plan, variables=variables, sheet=sheet)
    draw_step.finish()
    return draw


def _adam(config: Settings, steps: int, average: bool = False) -> keras.optimizers.Optimizer:
    if config.variant == "chapter":
        return keras.optimizers.Adam(config.learning_rate, beta_1=0.5, epsilon=1e-8)
    return balanced(config.learning_rate, steps, config.average if average else None)


def _relativistic_losses(draw: keras.Model, judge: keras.Model, config: Settings) -> tuple[Loss, Loss]:
    def scores(real: Any, noise: Any, labels: tuple[Any, ...]) -> tuple[Any, Any, Any]:
        fake = draw([noise, *labels], training=True)
        both = judge([ops.concatenate([real, fake]), *(ops.concatenate([given, given]) for given in labels)], training=True)
        return both[: config.batch_size], both[config.batch_size :], fake

    def judge_loss(real: Any, noise: Any, *labels: Any) -> tuple[Any, dict[str, Any]]:
        on_real, on_fake, fake = scores(real, noise, labels)
        penalty = sum(
            zero_centred_penalty(lambda x: judge([x, *labels], training=True), pictures) for pictures in (real, ops.stop_gradient(fake))
        )
        pairing = relativistic(on_real, on_fake)
        return pairing + config.penalty / 2 * penalty, {"discriminator": pairing, "penalty": penalty}

    def draw_loss(real: Any, noise: Any, *labels: Any) -> tuple[Any, dict[str, Any]]:
        on_real, on_fake, _ = scores(real, noise, labels)
        value = relativistic(on_fake, on_real)
        return value, {"generator": value}

    return judge_loss, draw_loss


def _plain_losses(draw: keras.Model, judge: keras.Model, config: Settings) -> tuple[Loss, Loss]:
    """Real and generated pictures are judged in batches of their own, so that batch statistics do not give them away to each other."""

    def judge_loss(real: Any, noise: Any, *labels: Any) -> tuple[Any, dict[str, Any]]:
        fake = draw([noise, *labels], training=True)
        on_real, on_fake = (judge([pictures, *labels], training=True) for pictures in (real, fake))
        value = (binary_cross_entropy(on_real, 1.0 - config.smoothing) + binary_cross_entropy(on_fake, 0.0)) / 2
        return value, {"discriminator": value}

    def draw_loss(real: Any, noise: Any, *labels: Any) -> tuple[Any, dict[str, Any]]:
        value = binary_cross_entropy(judge([draw([noise, *labels], training=True), *labels], training=True), 1.0)
        return value, {"generator": value}

    return judge_loss, draw_loss


def label_vector(labels: Any, classes: int, units: int) -> Any:
    """Labels (batch,) as learned vectors (batch, units): how the chapter's generators are told what to draw."""
    return layers.Dense(units)(layers.Embedding(classes, 50)(labels))


def label_picture(labels: Any, classes: int, size: int) -> Any:
    """Labels (batch,) as learned pictures (batch, size, size, 1): how the chapter's discriminators are told what it should be."""
    return layers.Reshape((size, size, 1))(label_vector(labels, classes, size * size))


def projected(features: Any, labels: Any, classes: int) -> Any:
    """Scores (batch,) of features (batch, n): w.h + e(label).h, the projection discriminator (Miyato & Koyama 2018)."""
    condition = layers.Embedding(classes, features.shape[-1])(labels)
    return layers.Reshape(())(layers.Add()([layers.Dense(1)(features), layers.Dot(axes=1)([features, condition])]))


def serving(config: Settings, trained: keras.Model) -> dict[str, keras.Model]:
    """`decoder`: latents (and labels, if the generator takes some) -> images."""
    latents = keras.Input((config.latent_dimension,), name="latents")
    labels = [keras.Input((), dtype="int32", name="labels")] * (len(trained.inputs) - 1)
    return {"decoder": serve([latents, *labels], {"images": graph_to_pixels(trained([latents * config.truncation, *labels]))})}
