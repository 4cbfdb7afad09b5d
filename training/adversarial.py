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
from training.layers import (
    convolutional_discriminator,
    convolutional_generator,
    infer,
    leaky,
    quarter_map,
    serve,
    strided_discriminator,
    transposed_generator,
)
from training.layers import to_pixels as graph_to_pixels
from training.loop import Run, contact_sheet
from training.losses import binary_cross_entropy, relativistic, zero_centred_penalty
from training.problems import TrainingError
from training.recipes import setting
from training.step import Step, balanced

Loss = Callable[..., tuple[Any, dict[str, Any]]]


@dataclass(frozen=True)
class Settings:
    """What each adversarial recipe's Config has."""

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


@dataclass(frozen=True)
class GeneratorSettings(Settings):
    """Of recipes whose generator is what is served.

    `truncation` is folded into the serving graph (Brock et al. 2018, section 3.1, by scaling): its latents have unit variance
    and are scaled by it. It does not touch training.
    """

    truncation: float = setting(1.0, "folded into the model: what it scales its noise by")


def classes_of(data: Dataset, recipe: str) -> int:
    """How many classes there are to ask for.

    Raises:
        TrainingError: the data has none.
    """
    if not data.classes:
        raise TrainingError(f"{recipe} needs classes: sort the pictures into one subfolder a class.")
    return len(data.classes)


class Contest:
    """Two networks that are trained against each other, a step at a time.

    Args:
        draw: the generator, [latents (batch, d)] or [latents, labels (batch,)] -> pictures (batch, h, w, c) in -1..1.
        judge: the discriminator, [pictures] or, if the generator takes labels, [pictures, labels] -> logits (batch,).
        steps: of the discriminator, over all.

    Raises:
        TrainingError: fewer steps than the generator waits for.
    """

    def __init__(self, draw: keras.Model, judge: keras.Model, config: Settings, steps: int) -> None:
        self.draw, self.judge, self.config = draw, judge, config
        improved, every = config.variant == "improved", config.discriminator_steps
        judge_loss, draw_loss = (_relativistic_losses if improved else _plain_losses)(draw, judge, config)
        if every > steps:
            raise TrainingError(f"--discriminator-steps {every}: the generator would never step in {steps} steps; lower it.")
        judge_state = [*judge.non_trainable_variables, *draw.variables]
        draw_state = [*draw.non_trainable_variables, *judge.variables]
        self._judge_step = Step(judge_loss, judge.trainable_variables, _adam(config, steps), judge_state)
        self._draw_step = Step(draw_loss, draw.trainable_variables, _adam(config, steps // every, improved), draw_state)
        self._scalars: dict[str, Any] = {}
        self.averaged, self.finish = self._draw_step.averaged, self._draw_step.finish

    @property
    def variables(self) -> list[keras.Variable]:
        """What a checkpoint has to hold."""
        return [*self.draw.variables, *self.judge.variables, *self._judge_step.variables, *self._draw_step.variables]

    def step(self, number: int, pictures: np.ndarray, labels: list[np.ndarray], random: np.random.Generator) -> dict[str, Any]:
        """One step of the discriminator and, now and then, one of the generator; the scalars of each one's last step.

        Args:
            number: of the step, from 0.
            pictures: uint8 (batch, h, w, c).
            labels: int32 (batch,), or none.
        """
        real = to_floats(pictures)
        noise = random.standard_normal((2, len(real), self.config.latent_dimension), np.float32)
        self._scalars |= self._judge_step(real, noise[0], *labels)
        if (number + 1) % self.config.discriminator_steps == 0:
            self._scalars |= self._draw_step(real, noise[1], *labels)
        return self._scalars


def train(draw: keras.Model, judge: keras.Model, config: Settings, data: Dataset, run: Run) -> keras.Model:
    """Trains a pair of networks (`Contest`) and returns the generator.

    Raises:
        TrainingError: fewer steps than the generator waits for, or fewer pictures than a batch.
    """
    conditional = len(draw.inputs) == 2
    plan = run.plan(len(data.train), config.batch_size, config.epochs)
    contest = Contest(draw, judge, config, plan.steps)

    def step(indices: np.ndarray, random: np.random.Generator) -> dict[str, Any]:
        return contest.step(run.step, data.train.images[indices], [data.train.labels[indices]] * conditional, random)

    shown, columns = run.generator(0).standard_normal((10, 10, config.latent_dimension), np.float32), 10
    if conditional:  # a row a latent, a column a class
        columns = len(data.classes)
        shown = np.repeat(shown[0], columns, axis=0)
    shown = shown.reshape(-1, config.latent_dimension)
    labels = [np.tile(np.arange(columns, dtype=np.int32), 10)] * conditional

    def sheet() -> np.ndarray:
        with contest.averaged():
            return contact_sheet(to_pixels(infer(draw, [shown, *labels])[0]), columns)

    run.fit(step, plan, variables=contest.variables, sheet=sheet)
    contest.finish()
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


def convolutional_pair(size: int, channels: int, config: Settings) -> tuple[keras.Model, keras.Model]:
    """DCGAN's networks (Radford et al. 2015): the generator, latents (batch, d) -> pictures (batch, size, size, channels) in -1..1, and the
    discriminator's features, pictures -> (batch, n); `logits` judges by these."""
    latents, pictures = keras.Input((config.latent_dimension,), name="latents"), keras.Input((size, size, channels), name="pictures")
    if config.variant == "chapter":
        drawn = transposed_generator(quarter_map(latents, size, 2 * config.width), channels, config.width)
        seen = strided_discriminator(pictures, config.width)
    else:
        x = latents
        for _ in range(2):  # a mapping network (Karras et al. 2019, section 2) bends noise, which is in one piece, apart into classes
            x = leaky()(layers.Dense(2 * config.latent_dimension, kernel_initializer="he_normal")(x))
        drawn = convolutional_generator(x, size, channels, config.width)
        seen = convolutional_discriminator(pictures, config.width)
    return keras.Model([latents], drawn, name="generator"), keras.Model([pictures], seen, name="features")


def logits(features: keras.Model) -> keras.Model:
    """A discriminator, pictures -> logits (batch,), from its features."""
    return keras.Model(features.inputs, layers.Reshape(())(layers.Dense(1)(features.output)), name="discriminator")


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


def serving(config: GeneratorSettings, trained: keras.Model) -> dict[str, keras.Model]:
    """`decoder`: latents (and labels, if the generator takes some) -> images."""
    latents = keras.Input((config.latent_dimension,), name="latents")
    labels = [keras.Input((), dtype="int32", name="labels")] * (len(trained.inputs) - 1)
    return {"decoder": serve([latents, *labels], {"images": graph_to_pixels(trained([latents * config.truncation, *labels]))})}
