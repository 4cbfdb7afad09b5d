"""pix2pix: from a picture to the picture that belongs to it, learned from pairs.

Isola et al. 2017. `improved`: a U-Net without statistics over space, R3GAN's relativistic objective (Huang et al. 2024) on
patches of pairs, L1, and a perceptual distance. `chapter`: the chapter's U-Net and patch discriminator with batch
normalisation, cross-entropy and L1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
from keras import layers, ops

from training import translation
from training.data import Dataset, Split, edges
from training.data.pixels import to_floats, to_pixels
from training.judges import Judges, PlainJudge
from training.layers import from_pixels, infer, leaky, serve
from training.layers import to_pixels as graph_to_pixels
from training.loop import Run, evenly, group_sheet
from training.problems import TrainingError
from training.recipes import About, setting
from training.step import Step

TASKS = {"translate": {"translator": "translator"}}
DATA = "maps"
SMOKE = "drawn-pairs"

ABOUT = About(
    title="pix2pix",
    description="Turns a picture of one kind into the picture of another kind that belongs to it.",
    limits="Knows the kinds of pictures that it was trained on; of any other it makes something that looks like them. What its "
    "input does not show it invents.",
    misuse="Not for measuring, navigating or proving anything: what it draws looks real and is not.",
)


@dataclass(frozen=True)
class Config:
    """Some 75 minutes on two CPU cores."""

    variant: Literal["improved", "chapter"] = "improved"
    input: Literal["pairs", "edges"] = setting("pairs", "what goes in: the pairs' first pictures, or edges of those that should come out")
    direction: Literal["forward", "backward"] = setting("forward", "from the data's first kind to its second, or back")
    epochs: int = setting(6, "passes over the training pairs")
    batch_size: int = setting(4, "pairs a step")
    crop: int = setting(128, "side of the random crops that a step sees")
    turned: Literal["no", "yes", "early"] = setting(
        "no", "whether pairs are shown mirrored and turned by quarters too; early: in the first two thirds of the training"
    )
    width: int = setting(32, "filters of the first convolutions")
    levels: int = setting(3, "how often the generator halves a picture", only="improved")
    blocks: int = setting(2, "residual blocks at the narrowest place", only="improved")
    learning_rate: float = setting(4e-4, "of Adam, at its highest")
    reconstruction: float = setting(20.0, "weight of L1", least=0)
    perceptual: float = setting(2.0, "weight of the distance on EfficientNet-Lite0", least=0, only="improved")
    adversarial: float = setting(1.0, "weight of the discriminator's judgement; 0: none", least=0)
    judge: Literal["pictures", "features"] = setting(
        "features", "what the discriminators see: pixels, or also maps of EfficientNet-Lite0", only="improved"
    )
    penalty: float = setting(1.0, "weight of the gradient penalties", least=0, only="improved")
    average: float = setting(0.999, "momentum of the generator's moving average, which is what ships", least=0, below=1, only="improved")
    tile: int = setting(0, "side of the tiles in which it serves; 0: pictures are resized", least=0, only="improved")
    margin: int = setting(64, "pixels at a tile's edge, next to other tiles, that are not used", least=0, only="improved")


CHAPTER = Config(variant="chapter", width=64, learning_rate=2e-4, reconstruction=100.0, batch_size=1)
EARLY = 2 / 3
"""Of a training, the part in which pairs are turned early."""


def pairs(config: Config, data: Dataset, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """What goes in and what should come out, uint8 (n, h, w, c) each.

    Raises:
        TrainingError: the data has no pairs that agree pixel by pixel, and `input` is not `edges`.
    """
    if config.input == "edges":
        targets = pictures(data, split)
        return edges.sketches(targets, np.random.default_rng(0)), targets
    _need_pairs(data)
    first, second = (split.of(label) for label in (0, 1))
    return (first, second) if config.direction == "forward" else (second, first)


def _need_pairs(data: Dataset) -> None:
    if not data.aligned:
        raise TrainingError(
            f"pix2pix needs pairs that agree pixel by pixel; {data.source} has none (--paired reads files of two pictures side by side, "
            "--input edges draws what goes in)."
        )


def pictures(data: Dataset, split: Split) -> np.ndarray:
    """What is drawn where edges go in: all pictures, or of pairs the first ones."""
    return split.of(0) if data.paired else split.images


def generator(size: int | None, channels: int, config: Config) -> keras.Model:
    """Pictures (batch, h, w, channels) in -1..1 -> pictures alike."""
    if config.variant == "chapter":
        return _chapter_generator(size, channels, config.width)
    return translation.u_net(size, channels, config.width, config.levels, config.blocks)


def train(config: Config, data: Dataset, run: Run) -> keras.Model:
    """Trains the generator against the discriminator and returns it."""
    if config.input == "edges":
        inputs, targets = np.empty(0), pictures(data, data.train)  # drawn anew at each step
    else:
        inputs, targets = pairs(config, data, data.train)
    side, channels = translation.seen(config, data.fit), data.shape[2]
    draw, judges = generator(side, channels, config), _judges(side, channels, config)
    judge_loss, draw_loss = _losses(draw, judges, config)
    plan = run.plan(len(targets), config.batch_size, config.epochs)
    moved = translation.adam(config, plan.steps, average=config.variant == "improved")
    draw_step = Step(draw_loss, draw.trainable_variables, moved, [*draw.non_trainable_variables, *judges.trained, *judges.frozen])
    judge_step = Step(judge_loss, judges.trained, translation.adam(config, plan.steps), judges.frozen)

    def step(indices: np.ndarray, random: np.random.Generator) -> dict[str, Any]:
        drawn = edges.sketches(targets[indices], random) if config.input == "edges" else inputs[indices]
        both = translation.cropped([drawn, targets[indices]], side, random)
        turned = config.turned == "yes" or (config.turned == "early" and run.step < plan.steps * EARLY)
        given, wanted = map(to_floats, translation.turned(both, random) if turned else both)
        scalars = draw_step(given, wanted, judges.corner(random))
        views = scalars.pop("views")
        return scalars | (judge_step(*views) if config.adversarial else {})

    given_shown, wanted_shown = (evenly(part, 8) for part in pairs(config, data, data.validation))

    def sheet() -> np.ndarray:
        with draw_step.averaged():
            whole = translation.at(data.shape[0], draw, lambda size: generator(size, channels, config))
            made = to_pixels(infer(whole, given_shown, to_floats)[0])
        return group_sheet([given_shown, made, wanted_shown], 2)

    run.fit(step, plan, variables=[*draw.variables, *judges.variables, *judge_step.variables, *draw_step.variables], sheet=sheet)
    draw_step.finish()
    return draw


def _judges(side: int, channels: int, config: Config) -> Judges:
    if config.variant == "chapter":
        return PlainJudge(_chapter_discriminator(channels, config.width))
    return Judges(side, channels, config.width, config.judge, conditional=True, compared=config.perceptual > 0)


def _losses(draw: keras.Model, judges: Judges, config: Config) -> tuple[Any, Any]:
    """Of the discriminators, which step after the generator on the views that its loss gives, and of the generator."""

    def judge_loss(*views: Any) -> tuple[Any, dict[str, Any]]:
        made, wanted, given = (list(views[start : start + len(views) // 3]) for start in range(0, len(views), len(views) // 3))
        return judges.loss(wanted, made, config.penalty, given)

    def draw_loss(given: Any, wanted: Any, corner: Any) -> tuple[Any, dict[str, Any]]:
        made = draw(given, training=True)
        views = [judges.views(pictures, corner) for pictures in (made, wanted, given)]
        scalars = {"reconstruction": ops.mean(ops.abs(made - wanted))}
        value = config.reconstruction * scalars["reconstruction"]
        if config.adversarial:
            scalars["generator"] = judges.convincing(*views)
            value += config.adversarial * scalars["generator"]
        if config.variant == "improved" and config.perceptual:
            scalars["perceptual"] = judges.difference(*views[:2])
            value += config.perceptual * scalars["perceptual"]
        return value, scalars | {"views": [view for kind in views for view in kind]}

    return judge_loss, draw_loss


def serving(config: Config, data: Dataset, trained: keras.Model) -> dict[str, keras.Model]:
    """`translator`: images -> translated."""
    pixels, pictures = from_pixels(config.tile or data.shape[0], data.shape[2])
    model = translation.at(pictures.shape[1], trained, lambda size: generator(size, data.shape[2], config))
    return {"translator": serve([pixels], {"translated": graph_to_pixels(model(pictures, training=False))})}


def describe(config: Config, data: Dataset) -> dict[str, Any]:
    """Which way it translates, and how large pictures go through it."""
    if config.input == "edges":
        kinds = "edges", data.classes[0] if data.paired else data.name
    else:
        _need_pairs(data)
        kinds = data.classes if config.direction == "forward" else data.classes[::-1]  # type: ignore[assignment]
    given, wanted = kinds
    return {
        "title": f"pix2pix, {given} to {wanted}",
        "description": f"Turns a picture of kind `{given}` into the picture of kind `{wanted}` that belongs to it.",
        **translation.sizes(config.tile, config.margin, 2**config.levels, data.fit),
    }


def samples(config: Config, data: Dataset, graphs: dict[str, keras.Model]) -> np.ndarray:
    """Pairs held out for choices: input, output, truth."""
    return translation.triples(graphs["translator"], *pairs(config, data, data.validation))


def _chapter_generator(size: int | None, channels: int, width: int) -> keras.Model:
    """The chapter's U-Net: halved to a single position, doubled with transposed convolutions; batch normalisation and dropout."""
    assert size is not None
    pictures = keras.Input((size, size, channels), name="pictures")
    x, skips, level = pictures, [], 0
    while x.shape[1] % 2 == 0:
        x = layers.Conv2D(min(width * 2**level, 8 * width), 4, strides=2, padding="same", use_bias=level == 0)(x)
        x = leaky()(layers.BatchNormalization()(x) if level else x)
        skips.append(x)
        level += 1
    for position, skip in enumerate(reversed(skips[:-1])):
        x = layers.BatchNormalization()(layers.Conv2DTranspose(skip.shape[-1], 4, strides=2, padding="same", use_bias=False)(x))
        x = layers.Dropout(0.5)(x) if position < 3 else x
        x = layers.Concatenate()([layers.ReLU()(x), skip])
    return keras.Model(pictures, layers.Conv2DTranspose(channels, 4, strides=2, padding="same", activation="tanh")(x), name="translator")


def _chapter_discriminator(channels: int, width: int) -> keras.Model:
    """The chapter's: pairs (batch, h, w, 2 channels) -> logits of patches of 70 x 70 pixels."""
    pictures = keras.Input((None, None, 2 * channels), name="pictures")
    x = leaky()(layers.Conv2D(width, 4, strides=2, padding="same")(pictures))
    for filters in (2 * width, 4 * width):
        x = leaky()(layers.BatchNormalization()(layers.Conv2D(filters, 4, strides=2, padding="same", use_bias=False)(x)))
    x = leaky()(layers.BatchNormalization()(layers.Conv2D(8 * width, 4, padding="same", use_bias=False)(x)))
    return keras.Model(pictures, layers.Conv2D(1, 4, padding="same")(x)[..., 0], name="discriminator")
