"""SRGAN: pictures four times as wide and as high that look sharp.

Ledig et al. 2017, sections 2.1 and 2.2: SRResNet, taught first by differences of pixels, then also by those of features and against a
discriminator. `improved`: no batch normalisation, R3GAN's relativistic objective (Huang et al. 2024) on patches, features of pictures whose
colours change places from step to step, so that less of what is learned holds for their network alone, and a weight on patterns that repeat
(Odena et al. 2016). `chapter`: the paper's discriminator of whole squares and cross-entropy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
from keras import layers, ops

from training import judges, translation, upscaling
from training.data import Dataset
from training.layers import convolution, leaky
from training.loop import Run
from training.losses import binary_cross_entropy, relativistic
from training.recipes import About, setting
from training.step import Step, annealed

TASKS = {"upscale": {"upscaler": "upscaler"}}
DATA = "photos"
SMOKE = "drawn-pairs"

ABOUT = About(
    title="SRGAN",
    description="Makes a picture four times as wide and as high, as sharp as photographs are.",
    limits="Texture is made up where the small picture does not show it, and looks plausible at most. Trained on photographs: drawings and "
    "text gain less.",
    misuse="Not for reading what a picture does not show, such as faces or number plates, nor for measuring: its detail is invented.",
)


@dataclass(frozen=True)
class Config:
    """Some two hours on two CPU cores."""

    variant: Literal["improved", "chapter"] = "improved"
    degradation: Literal["clean", "real"] = setting("clean", "what made the small pictures: bicubic alone, or also blur, noise and JPEG")
    epochs: int = setting(64, "passes over the training pictures, of which a step sees a random square each")
    batch_size: int = setting(16, "pictures a step")
    crop: int = setting(96, "side of those squares")
    width: int = setting(48, "filters of the generator")
    blocks: int = setting(7, "residual blocks of the generator")
    judge_width: int = setting(32, "filters of the discriminator's first convolution")
    pretraining: float = setting(0.75, "share of the steps that are taught by pixels alone", least=0, below=1)
    learning_rate: float = setting(4e-4, "of Adam, at its highest")
    reconstruction: float = setting(2.5, "weight of mean absolute differences", least=0)
    perceptual: float = setting(2.0, "weight of the distance on the backbone's features", least=0)
    backbone: Literal["efficientnet-lite0", "vgg19", "inception_v3"] = setting("efficientnet-lite0", "whose features are compared")
    checkerboard: float = setting(20.0, "weight of what repeats from one small pixel to the next", least=0, only="improved")
    adversarial: float = setting(1.0, "weight of the discriminator's judgement; 0: none", least=0)
    penalty: float = setting(0.1, "weight of the gradient penalties", least=0, only="improved")
    average: float = setting(0.999, "momentum of the generator's moving average, which is what ships", least=0, below=1, only="improved")
    tile: int = setting(144, "side of the tiles in which it serves")
    margin: int = setting(8, "pixels at a tile's edge, next to other tiles, that are not used", least=0)
    feather: int = setting(4, "pixels on both sides of where two tiles meet over which one fades into the other", least=0)


CHAPTER = Config(
    variant="chapter",
    epochs=300,
    width=64,
    blocks=16,
    pretraining=0.5,
    learning_rate=1e-4,
    reconstruction=10.0,
    perceptual=1.0,
    adversarial=0.5,
)


def network(size: int, channels: int, config: Config) -> keras.Model:
    """Pictures (batch, size, size, channels) in -1..1 -> four times as large."""
    return upscaling.network(size, channels, config.width, config.blocks)


def train(config: Config, data: Dataset, run: Run) -> keras.Model:
    """Trains the generator, by pixels and then against the discriminator, and returns it."""
    side, channels = upscaling.side(data, config.crop), data.shape[2]
    pictures, draw = data.train.images, network(side // upscaling.SCALE, channels, config)
    judge = _discriminator(side, channels, config)
    perceptual = judges.Perceptual(side, config.backbone) if config.perceptual else None
    plan = run.plan(len(pictures), config.batch_size, config.epochs)
    first = int(plan.steps * config.pretraining)
    pixel_loss, draw_loss, judge_loss = _losses(draw, judge, perceptual, config)
    pixel_step = Step(pixel_loss, draw.trainable_variables, annealed(config.learning_rate, max(1, first)))
    moved = translation.adam(config, plan.steps - first, average=config.variant == "improved")
    draw_step = Step(draw_loss, draw.trainable_variables, moved, [*judge.variables, *(perceptual.variables if perceptual else [])])
    judged = translation.adam(config, plan.steps - first)
    judge_step = Step(judge_loss, judge.trainable_variables, judged, [*judge.non_trainable_variables, *draw.variables])

    def step(indices: np.ndarray, random: np.random.Generator) -> dict[str, Any]:
        batch = upscaling.pairs(pictures[indices], side, config.degradation, random)
        if run.step < first:
            return pixel_step(*batch)
        if run.step == first:
            pixel_step.finish()
        scalars = judge_step(*batch) if config.adversarial else {}
        order = random.permutation(channels) if config.variant == "improved" else np.arange(channels)
        return scalars | draw_step(*batch, judges.corner(side, random), order.astype(np.int32))

    shown = upscaling.held_out(data, side, config.degradation)

    def sheet() -> np.ndarray:
        with (pixel_step if run.step <= first else draw_step).averaged():
            return upscaling.drawn(draw, shown)

    steps = (pixel_step, draw_step, judge_step)
    run.fit(step, plan, variables=[*draw.variables, *judge.variables, *(one for step in steps for one in step.variables)], sheet=sheet)
    draw_step.finish()
    return draw


def _losses(draw: keras.Model, judge: keras.Model, perceptual: judges.Perceptual | None, config: Config) -> tuple[Any, Any, Any]:
    improved = config.variant == "improved"

    def pixel_loss(small: Any, large: Any) -> tuple[Any, dict[str, Any]]:
        difference = ops.mean(ops.abs(draw(small, training=True) - large))
        return difference, {"reconstruction": difference}

    def draw_loss(small: Any, large: Any, place: Any, order: Any) -> tuple[Any, dict[str, Any]]:
        made = draw(small, training=True)
        scalars = {"reconstruction": ops.mean(ops.abs(made - large))}
        value = config.reconstruction * scalars["reconstruction"]
        if improved and config.checkerboard:
            scalars["checkerboard"] = upscaling.checkerboard(made, large)
            value += config.checkerboard * scalars["checkerboard"]
        if perceptual is not None:
            ours, theirs = (ops.take(pictures, order, axis=-1) for pictures in (made, large))
            scalars["perceptual"] = perceptual(ours, theirs, place)
            value += config.perceptual * scalars["perceptual"]
        if config.adversarial:
            score = judge(made, training=True)
            scalars["generator"] = relativistic(score, judge(large, training=True)) if improved else binary_cross_entropy(score, 1.0)
            value += config.adversarial * scalars["generator"]
        return value, scalars

    def judge_loss(small: Any, large: Any) -> tuple[Any, dict[str, Any]]:
        made = ops.stop_gradient(draw(small, training=True))
        if improved:
            return judges.judged(lambda x: judge(x, training=True), large, made, config.penalty)
        value = (binary_cross_entropy(judge(large, training=True), 1.0) + binary_cross_entropy(judge(made, training=True), 0.0)) / 2
        return value, {"discriminator": value}

    return pixel_loss, draw_loss, judge_loss


def _discriminator(side: int, channels: int, config: Config) -> keras.Model:
    """Pictures (batch, side, side, channels) -> logits of patches; in `chapter` one logit of the whole."""
    if config.variant == "improved":
        return judges.patch_discriminator(channels, config.judge_width, 3)
    pictures = keras.Input((side, side, channels), name="pictures")
    x = leaky()(convolution(config.judge_width)(pictures))
    for level in range(4):
        filters = config.judge_width * 2**level
        x = leaky()(layers.BatchNormalization()(convolution(filters, strides=2)(x)))
        x = leaky()(layers.BatchNormalization()(convolution(2 * filters)(x)))
    x = leaky()(layers.Dense(16 * config.judge_width)(layers.Flatten()(x)))
    return keras.Model(pictures, layers.Dense(1)(x)[..., 0], name="discriminator")


def serving(config: Config, data: Dataset, trained: keras.Model) -> dict[str, keras.Model]:
    """`upscaler`: images -> upscaled."""
    channels = data.shape[2]
    return upscaling.serving(translation.at(config.tile, trained, lambda size: network(size, channels, config)))


def describe(config: Config, data: Dataset) -> dict[str, Any]:
    """In which tiles pictures go through it, and what small pictures it learned from."""
    return upscaling.described(ABOUT.title, config)


def samples(config: Config, data: Dataset, graphs: dict[str, keras.Model]) -> np.ndarray:
    """Pictures held out for choices: small, bicubic, upscaled, truth."""
    return upscaling.samples(graphs["upscaler"], config.degradation, data)
