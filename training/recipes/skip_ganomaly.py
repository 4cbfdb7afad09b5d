"""Skip-GANomaly: a generator that restores normal pictures, against a discriminator that knows them; what it cannot restore is anomalous.

Akçay et al. 2019: contextual, adversarial and latent loss. `improved`: the skips are thinned to a few channels and what goes in is forged
(training.forging), so that copying is no way to restore; the contextual loss counts squares too; the discriminator also learns to point
at forged places (Zavrtanik et al. 2021, section 3.2, have a network of its own for that), and all errors count. `chapter`: whole skips,
nothing forged, batch normalisation, two errors (section 3.4).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
from keras import layers, ops

from training import detection, forging, judges, translation
from training.data import Dataset
from training.data.pixels import mirrored, to_floats, to_pixels
from training.layers import convolution, double, from_pixels, infer, leaky, serve
from training.layers import to_pixels as graph_to_pixels
from training.loop import Run, evenly, group_sheet
from training.losses import binary_cross_entropy, relativistic
from training.recipes import About, setting
from training.step import Step, annealed

TASKS = {"anomaly": {"detector": "detector"}}
SMOKE = "drawn-parts"

ABOUT = About(
    title="Skip-GANomaly",
    description="Restores a picture as if it were normal, and says how far it was from that, and where.",
    limits="Knows the one kind of normal picture that it was trained on, at its size; a defect that is restored as well as the rest is not "
    "seen.",
    misuse=detection.MISUSE,
)
SMALLEST = 3.5
"""The smallest map is so wide at least."""
RISING = 0.1
"""Share of the steps in which the learning rate rises: at once in full it drives outputs so far into black that no gradient comes back."""
PENALISED = 4
"""Of a batch, the part on which gradient penalties are taken: they cost more than all the rest."""


@dataclass(frozen=True)
class Config:
    """Some three minutes on two CPU cores for 6,000 digits."""

    variant: Literal["improved", "chapter"] = "improved"
    normal: int = setting(-1, "number of the class that is normal (-1: the class good; without classes, all pictures)", least=-1)
    false_positives: float = setting(0.01, "share of normal pictures that may be taken for anomalous", below=1)
    epochs: int = setting(12, "passes over the normal training pictures")
    batch_size: int = setting(64, "pictures a step")
    width: int = setting(24, "filters of the first convolutions; doubled with each halving, to eight times that")
    latent_dimension: int = setting(16, "numbers that the smallest map is kept in", only="improved")
    skips: int = setting(1, "how many skips there are, the smallest maps' first, each of one channel", least=0, only="improved")
    noise: float = setting(1.0, "deviation of the noise on what skips pass on, of -1..1", least=0, only="improved")
    forged: float = setting(0.6, "share of the pictures that are forged on their way in", least=0, only="improved")
    forgeries: Literal["plain", "varied"] = setting(
        "plain", "parts moved, covered, erased and bent; varied: uneven places of another level and contrast too", only="improved"
    )
    mirrored: Literal["no", "sideways", "both"] = setting(
        "no", "whether pictures are shown mirrored too, from left to right or also upside down: for parts that are good that way round too"
    )
    learning_rate: float = setting(1e-3, "of Adam, at its highest")
    contextual: float = setting(20.0, "weight of the difference to the normal picture, L1; unless the chapter's, halved, and L2", least=0)
    adversarial: float = setting(0.3, "weight of the discriminator's judgement", least=0)
    latent: float = setting(1.0, "weight of the difference of the discriminator's features, squared", least=0)
    penalty: float = setting(0.3, "weight of the gradient penalties", least=0, only="improved")
    average: float = setting(0.999, "momentum of the networks' moving average, which is what ships", least=0, below=1, only="improved")


CHAPTER = Config(variant="chapter", epochs=15, width=64, learning_rate=2e-4, contextual=50.0, adversarial=1.0)


@dataclass(frozen=True)
class Trained:
    """The networks, and the mean of each error over normal pictures that were held out."""

    generator: keras.Model
    discriminator: keras.Model
    usual: np.ndarray


def generator(size: int, channels: int, config: Config) -> keras.Model:
    """Pictures (batch, size, size, channels) in -1..1 -> pictures alike."""
    pictures = keras.Input((size, size, channels), name="pictures")
    filters = [min(config.width * 2**level, 8 * config.width) for level in range(_levels(size))]
    draw = _chapter_map if config.variant == "chapter" else _thinned_map
    made = draw(_framed(pictures, "reflect"), filters, config)
    made = _unframed(layers.Conv2D(channels, 3, padding="same", activation="tanh")(made), size)
    return keras.Model(pictures, made, name="generator")


def _levels(size: int) -> int:
    return max(1, math.floor(math.log2(size / SMALLEST)))


def _margins(size: int) -> tuple[int, int]:
    """By how many pixels a picture is continued before and after, so that it halves evenly."""
    missing = -size % 2 ** _levels(size)
    return missing // 2, missing - missing // 2


def _framed(pictures: Any, mode: str) -> Any:
    around = _margins(pictures.shape[1])
    return ops.pad(pictures, ((0, 0), around, around, (0, 0)), mode=mode) if any(around) else pictures


def _unframed(pictures: Any, size: int) -> Any:
    before, _ = _margins(size)
    return pictures[:, before : before + size, before : before + size]


def _thinned_map(x: Any, filters: list[int], config: Config) -> Any:
    """A U-Net with few numbers in its middle and skips of one channel: what is passed on is not enough to copy."""
    maps = []
    for number in filters:
        x = translation.residual(convolution(number, 4, strides=2)(x))
        maps.append(x)
    shape = x.shape[1:]
    x = layers.Dense(config.latent_dimension)(ops.reshape(translation.pixel_norm(x), (-1, math.prod(shape))))
    x = ops.reshape(leaky()(layers.Dense(math.prod(shape))(x)), (-1, *shape))
    for place, (number, map_) in enumerate(zip(reversed(filters[:-1]), reversed(maps[:-1]), strict=True)):
        x = double(x)
        if place < config.skips:
            x = translation.residual(_Joined(number)(layers.Concatenate()([x, _thinned(map_, config.noise)])))
        else:
            x = translation.residual(convolution(number)(x))
    return leaky()(convolution(filters[0])(double(x)))


class _Joined(layers.Conv2D):
    """A convolution of maps of which the last channel is a skip's, and is convolved by itself: of 97 channels, say, ONNX Runtime rounds
    differently in batches of one and of many."""

    def __init__(self, filters: int) -> None:
        super().__init__(filters, 3, padding="same", kernel_initializer="he_normal")

    def call(self, inputs: Any) -> Any:
        """(batch, h, w, channels + 1) -> (batch, h, w, filters)."""
        maps = ops.conv(inputs[..., :-1], self.kernel[:, :, :-1], padding="same")
        return maps + ops.conv(inputs[..., -1:], self.kernel[:, :, -1:], padding="same") + self.bias


def _thinned(x: Any, noise: float) -> Any:
    """One bounded number a position, noisy while training: each of them tells little."""
    return layers.GaussianNoise(noise)(ops.tanh(layers.Conv2D(1, 1)(translation.pixel_norm(x))))


def _chapter_map(x: Any, filters: list[int], config: Config) -> Any:
    """The chapter's U-Net: strided and transposed convolutions with batch normalisation, and whole skips."""
    skips = []
    for number in filters:
        x = leaky()(layers.BatchNormalization()(layers.Conv2D(number, 4, strides=2, padding="same")(x)))
        skips.append(x)
    for number, skip in zip([*reversed(filters[:-1]), filters[0]], [*reversed(skips[:-1]), None], strict=True):
        x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2DTranspose(number, 4, strides=2, padding="same")(x)))
        x = x if skip is None else layers.Concatenate()([x, skip])
    return x


def discriminator(size: int, channels: int, config: Config) -> keras.Model:
    """Pictures -> `features`, a list of maps; logits of the smallest one's patches (batch, h, w): `real`, higher for pictures that are not
    restored, and `forged`, higher where something is."""
    pictures = keras.Input((size, size, channels), name="pictures")
    x, maps = _framed(pictures, "reflect"), []
    for level in range(_levels(size)):
        x = layers.Conv2D(min(config.width * 2**level, 8 * config.width), 4, strides=2, padding="same", kernel_initializer="he_normal")(x)
        x = leaky()(layers.BatchNormalization()(x) if config.variant == "chapter" and level else x)
        maps.append(x)
    logits = layers.Conv2D(2, 1)(leaky()(convolution(x.shape[-1])(x)))
    return keras.Model(pictures, {"features": maps, "real": logits[..., 0], "forged": logits[..., 1]}, name="discriminator")


def train(config: Config, data: Dataset, run: Run) -> Trained:
    """Trains the generator against the discriminator and returns both."""
    pictures = detection.normals(data, data.train, config.normal)
    size, channels = data.shape[0], data.shape[2]
    draw, judge = generator(size, channels, config), discriminator(size, channels, config)
    plan, improved = run.plan(len(pictures), config.batch_size, config.epochs), config.variant == "improved"
    judge_loss, draw_loss = _losses(draw, judge, config)

    def moved() -> keras.optimizers.Optimizer:
        return (
            annealed(config.learning_rate, plan.steps, rising=round(plan.steps * RISING))
            if improved
            else keras.optimizers.Adam(config.learning_rate, beta_1=0.5)
        )

    draw_step = Step(draw_loss, draw.trainable_variables, moved(), [*draw.non_trainable_variables, *judge.variables])
    judge_step = Step(judge_loss, judge.trainable_variables, moved(), [*judge.non_trainable_variables, *draw.variables])

    def step(indices: np.ndarray, random: np.random.Generator) -> dict[str, Any]:
        clean = pictures[indices]
        if config.mirrored != "no":
            clean = mirrored(clean, random)
        if config.mirrored == "both":
            clean = mirrored(clean, random, axis=1)
        spoilt, masks = forging.forged(clean, random, config.forged if improved else 0.0, config.forgeries)
        batch = to_floats(clean), to_floats(spoilt), masks.astype(np.float32)
        return judge_step(*batch) | draw_step(*batch)

    shown = evenly(detection.normals(data, data.validation, config.normal), 8)
    shown = np.concatenate([shown, forging.forged(shown, np.random.default_rng(0), kinds=config.forgeries)[0]])

    def sheet() -> np.ndarray:
        with draw_step.averaged():
            return group_sheet([shown, to_pixels(infer(draw, shown, to_floats)[0])], 4)

    run.fit(step, plan, variables=[*draw.variables, *judge.variables, *judge_step.variables, *draw_step.variables], sheet=sheet)
    draw_step.finish()
    judge_step.finish()
    given = keras.Input((size, size, channels))
    return Trained(draw, judge, detection.usual(keras.Model(given, _errors(given, draw, judge, config)[0]), data, config.normal))


def _losses(draw: keras.Model, judge: keras.Model, config: Config) -> tuple[Any, Any]:
    improved = config.variant == "improved"

    def real(pictures: Any) -> Any:
        return judge(pictures, training=True)["real"]

    def judge_loss(clean: Any, spoilt: Any, masks: Any) -> tuple[Any, dict[str, Any]]:
        made = ops.stop_gradient(draw(spoilt, training=True))
        if not improved:
            value = (binary_cross_entropy(real(clean), 1.0) + binary_cross_entropy(real(made), 0.0)) / 2
            return value, {"discriminator": value}
        some = max(1, clean.shape[0] // PENALISED)
        scalars = {"discriminator": relativistic(real(clean), real(made))}
        scalars["penalty"] = sum(judges.slope(real, pictures[:some]) for pictures in (clean, made))
        found = judge(spoilt, training=True)["forged"]
        scalars["forged"] = binary_cross_entropy(found, _of_patches(masks, found))
        return scalars["discriminator"] + config.penalty / 2 * scalars["penalty"] + scalars["forged"], scalars

    def draw_loss(clean: Any, spoilt: Any, masks: Any) -> tuple[Any, dict[str, Any]]:
        made = draw(spoilt, training=True)
        ours, theirs = judge(made, training=True), judge(clean, training=True)
        scalars = {
            "contextual": _difference(made, clean) if improved else ops.mean(ops.abs(made - clean)),
            "generator": relativistic(ours["real"], theirs["real"]) if improved else binary_cross_entropy(ours["real"], 1.0),
            "latent": sum(_relative(*pair) for pair in zip(ours["features"], theirs["features"], strict=True)) / len(ours["features"]),
        }
        value = config.contextual * scalars["contextual"] + config.adversarial * scalars["generator"] + config.latent * scalars["latent"]
        return value, scalars

    return judge_loss, draw_loss


def _difference(made: Any, clean: Any) -> Any:
    """The mean of the absolute and the squared difference, halved.

    By the absolute one alone black is the best restoration of thin strokes on black for as long as nothing tells where they are, and some
    trainings never get further.
    """
    apart = ops.abs(made - clean)
    return ops.mean(apart + ops.square(apart)) / 2


def _of_patches(masks: Any, logits: Any) -> Any:
    """Which share of each patch (batch, h', w') a mask (batch, h, w) covers, doubled: all of it counts as forged from a half on."""
    framed = _framed(masks[..., None], "constant")
    side = framed.shape[1] // logits.shape[1]
    return ops.minimum(1.0, 2 * ops.average_pool(framed, side, side)[..., 0])


def _relative(ours: Any, theirs: Any) -> Any:
    """The mean squared difference of maps over the mean square of the latter."""
    return ops.mean(ops.square(ours - theirs)) / (ops.mean(ops.square(theirs)) + 1e-6)


def _errors(pictures: Any, draw: keras.Model, judge: keras.Model, config: Config) -> tuple[list[Any], Any]:
    """Each error's map (batch, h, w), and the restored pictures."""
    restored, size = draw(pictures, training=False), pictures.shape[1]
    given, made = judge(pictures, training=False), judge(restored, training=False)
    pairs = list(zip(given["features"], made["features"], strict=True))
    if config.variant == "chapter":
        pairs = pairs[-1:]
    found = [detection.mean_of_channels(ops.abs(pictures - restored))]
    found += [_whole(detection.mean_of_channels(ops.square(a - b)), size) for a, b in pairs]
    if config.variant == "improved":
        found.append(_whole(ops.softplus(given["forged"]), size))
    return found, restored


def _whole(map_: Any, size: int) -> Any:
    """A map (batch, h, w) at the picture's size."""
    framed = ops.image.resize(map_[..., None], (size + sum(_margins(size)),) * 2, interpolation="bilinear")
    return _unframed(framed, size)[..., 0]


def serving(config: Config, data: Dataset, trained: Trained) -> dict[str, keras.Model]:
    """`detector`: images -> scores, errors (1 on average in normal pictures) and reconstruction."""
    size, channels = data.shape[0], data.shape[2]
    pixels, pictures = from_pixels(size, channels)
    found, restored = _errors(pictures, trained.generator, trained.discriminator, config)
    errors = detection.smoothed(detection.relative(found, trained.usual), size / 64)
    outputs = {"scores": detection.largest(errors), "errors": errors, "reconstruction": graph_to_pixels(restored)}
    return {"detector": serve([pixels], outputs)}


def describe(config: Config, data: Dataset) -> dict[str, Any]:
    """What is normal to it."""
    return detection.described(ABOUT.title, data, config.normal) | {"largest_batch": 64 if data.shape[0] <= 64 else 8}


def samples(config: Config, data: Dataset, graphs: dict[str, keras.Model]) -> np.ndarray:
    """Normal pictures held out for choices, what is made of them, and their errors."""
    return detection.sheet(graphs["detector"], data, config.normal)
