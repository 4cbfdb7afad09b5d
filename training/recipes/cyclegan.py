"""CycleGAN: from pictures of one kind to pictures of another and back, learned without pairs.

Zhu et al. 2017. `improved`: U-Nets without statistics over space, R3GAN's relativistic objective (Huang et al. 2024) on
patches. `chapter`: the chapter's networks with instance normalisation, cross-entropy. Both: cycle and identity losses, and a pool of
earlier pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
from keras import layers, ops

from training import translation
from training.data import Dataset
from training.data.pixels import to_floats, to_pixels
from training.judges import Judges, PlainJudge
from training.layers import from_pixels, infer, leaky, serve
from training.layers import to_pixels as graph_to_pixels
from training.loop import Run, evenly, group_sheet
from training.recipes import About, setting
from training.step import Step

TASKS = {"translate": {"translator": "translator"}}
DATA = "maps"
SMOKE = "drawn-pairs"
SERVING = ("direction",)

ABOUT = About(
    title="CycleGAN",
    description="Turns a picture of one kind into a picture of another kind, having seen no pairs of them.",
    limits="Knows the two kinds of pictures that it was trained on; of any other it makes something that looks like them. What its "
    "input does not show it invents, and it may hide in its picture what it needs for the way back.",
    misuse="Not for measuring, navigating or proving anything: what it draws looks real and is not.",
)


@dataclass(frozen=True)
class Config:
    """Some two hours on two CPU cores."""

    variant: Literal["improved", "chapter"] = "improved"
    direction: Literal["forward", "backward"] = setting("forward", "from the data's first kind to its second, or back")
    epochs: int = setting(12, "passes over the larger kind's training pictures")
    batch_size: int = setting(4, "pictures of each kind a step")
    crop: int = setting(128, "side of the random crops that a step sees")
    turned: Literal["no", "yes"] = setting("no", "whether pictures are shown mirrored and turned by quarters too")
    width: int = setting(32, "filters of the first convolutions")
    levels: int = setting(3, "how often a generator halves a picture", only="improved")
    blocks: int = setting(3, "residual blocks at the narrowest place", only="improved")
    learning_rate: float = setting(3e-4, "of Adam, at its highest")
    cycle: float = setting(2.0, "weight of what comes back from where it went, L1", least=0)
    identity: float = setting(0.5, "weight of leaving alone what is of the wanted kind already, L1", least=0)
    pool: int = setting(50, "earlier pictures of each kind from which the discriminators see half of theirs", least=0)
    judge: Literal["pictures", "features"] = setting(
        "features", "what the discriminators see: pixels, or also maps of EfficientNet-Lite0", only="improved"
    )
    penalty: float = setting(0.2, "weight of the gradient penalties", least=0, only="improved")
    average: float = setting(0.999, "momentum of the generators' moving average, which is what ships", least=0, below=1, only="improved")
    tile: int = setting(0, "side of the tiles in which it serves; 0: pictures are resized", least=0, only="improved")
    margin: int = setting(80, "pixels at a tile's edge, next to other tiles, that are not used", least=0, only="improved")


NEEDED = "cyclegan needs two kinds of pictures"
CHAPTER = Config(variant="chapter", width=64, learning_rate=2e-4, batch_size=1, cycle=10.0, identity=5.0)
"""Its weights, the paper's, go with cross-entropy. R3GAN's penalties keep slopes small, and with them pictures would stay as they are."""


def generator(size: int, channels: int, config: Config) -> keras.Model:
    """Pictures (batch, h, w, channels) in -1..1 -> pictures alike."""
    if config.variant == "chapter":
        return _chapter_generator(size, channels, config.width)
    return translation.u_net(size, channels, config.width, config.levels, config.blocks)


def train(config: Config, data: Dataset, run: Run) -> dict[str, keras.Model]:
    """Trains two generators against two discriminators; returns the generators by direction."""
    sources = translation.kinds(data, data.train, NEEDED)
    side, channels = translation.seen(config, data.fit), data.shape[2]
    draw = {way: generator(side, channels, config) for way in ("forward", "backward")}
    judges = [_judges(side, channels, config) for _ in range(2)]  # of the first kind, of the second
    plan = run.plan(max(map(len, sources)), config.batch_size, config.epochs)
    judge_loss, draw_loss = _losses(draw["forward"], draw["backward"], judges, config)
    learned, frozen = _all(judge.trained for judge in judges), _all(judge.frozen for judge in judges)
    draw_step = Step(
        draw_loss,
        _all(model.trainable_variables for model in draw.values()),
        translation.adam(config, plan.steps, average=config.variant == "improved"),
        _all([*(model.non_trainable_variables for model in draw.values()), learned, frozen]),
    )
    judge_step = Step(judge_loss, learned, translation.adam(config, plan.steps), frozen)
    pools = [Pool(config.pool, (side, side, channels)) for _ in range(2)]

    def step(indices: np.ndarray, random: np.random.Generator) -> dict[str, Any]:
        chosen = translation.of_both(sources, indices, random)
        cropped = [translation.cropped([pictures], side, random) for pictures in chosen]
        real = [to_floats((translation.turned(part, random) if config.turned == "yes" else part)[0]) for part in cropped]
        corner = judges[0].corner(random)
        scalars = draw_step(*real, corner)
        made = [ops.convert_to_numpy(scalars.pop(name)) for name in ("made_first", "made_second")]
        seen = [pool.exchange(pictures, random) for pool, pictures in zip(pools, made, strict=True)]
        return scalars | judge_step(*real, *seen, corner)

    shown = [evenly(pictures, 8) for pictures in translation.kinds(data, data.validation, NEEDED)]

    def sheet() -> np.ndarray:
        made = []
        with draw_step.averaged():
            for given, way in zip(shown, ("forward", "backward"), strict=True):
                whole = translation.at(data.shape[0], draw[way], lambda size: generator(size, channels, config))
                made.append(to_pixels(infer(whole, given, to_floats)[0]))
        return group_sheet([np.concatenate(shown), np.concatenate(made)], 4)

    networks = [*draw.values(), *judges]
    variables = _all(
        [*(network.variables for network in networks), judge_step.variables, draw_step.variables, *(pool.pictures for pool in pools)]
    )
    run.fit(step, plan, variables=variables, sheet=sheet)
    draw_step.finish()
    return draw


def _all(groups: Any) -> list[Any]:
    return [variable for group in groups for variable in group]


class Pool:
    """Earlier pictures of a generator, of which its discriminator sees half instead of new ones (Shrivastava et al. 2017, section 2.3).

    Args:
        number: how many are kept; 0: every picture goes through.
        shape: (h, w, c) of one.

    Attributes:
        pictures: a variable (number, h, w, c) for the checkpoint, and one that counts.
    """

    def __init__(self, number: int, shape: tuple[int, ...]) -> None:
        self.number = number
        self._kept = keras.Variable(np.zeros((number, *shape), np.float32), trainable=False)
        self._count = keras.Variable(np.zeros((), np.int32), trainable=False, dtype="int32")
        self.pictures = [self._kept, self._count]

    def exchange(self, made: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Keeps some of the pictures (n, h, w, c) and gives as many, each a new or an earlier one."""
        if self.number == 0:
            return made
        kept, count = np.array(ops.convert_to_numpy(self._kept)), int(ops.convert_to_numpy(self._count))
        given = made.copy()
        for index, picture in enumerate(made):
            if count < self.number:
                kept[count], count = picture, count + 1
            elif random.random() < 0.5:
                place = random.integers(self.number)
                given[index], kept[place] = kept[place].copy(), picture
        self._kept.assign(kept)
        self._count.assign(count)
        return given


def _judges(side: int, channels: int, config: Config) -> Judges:
    if config.variant == "chapter":
        return PlainJudge(_chapter_discriminator(channels, config.width))
    return Judges(side, channels, config.width, config.judge)


def _losses(forward: keras.Model, backward: keras.Model, judges: list[Judges], config: Config) -> tuple[Any, Any]:
    def judge_loss(first: Any, second: Any, made_first: Any, made_second: Any, corner: Any) -> tuple[Any, dict[str, Any]]:
        sides = zip(judges, (first, second), (made_first, made_second), strict=True)
        views = [(judge, judge.views(real, corner), judge.views(made, corner)) for judge, real, made in sides]
        parts = [judge.loss(real, made, config.penalty) for judge, real, made in views]
        return sum(value for value, _ in parts), {name: sum(scalars[name] for _, scalars in parts) / 2 for name in parts[0][1]}

    def draw_loss(first: Any, second: Any, corner: Any) -> tuple[Any, dict[str, Any]]:
        made_second, made_first = forward(first, training=True), backward(second, training=True)
        sides = zip(judges, (made_first, made_second), (first, second), strict=True)
        adversarial = sum(judge.convincing(judge.views(made, corner), judge.views(real, corner)) for judge, made, real in sides)
        cycle = _difference(backward(made_second, training=True), first) + _difference(forward(made_first, training=True), second)
        value, scalars = adversarial + config.cycle * cycle, {"generator": adversarial / 2, "cycle": cycle / 2}
        if config.identity:
            identity = _difference(backward(first, training=True), first) + _difference(forward(second, training=True), second)
            value, scalars = value + config.identity * identity, scalars | {"identity": identity / 2}
        return value, scalars | {"made_first": made_first, "made_second": made_second}

    return judge_loss, draw_loss


def _difference(ours: Any, theirs: Any) -> Any:
    return ops.mean(ops.abs(ours - theirs))


def serving(config: Config, data: Dataset, trained: dict[str, keras.Model]) -> dict[str, keras.Model]:
    """`translator`: images -> translated, in the direction that the Config says."""
    pixels, pictures = from_pixels(config.tile or data.shape[0], data.shape[2])
    model = translation.at(pictures.shape[1], trained[config.direction], lambda size: generator(size, data.shape[2], config))
    return {"translator": serve([pixels], {"translated": graph_to_pixels(model(pictures, training=False))})}


def describe(config: Config, data: Dataset) -> dict[str, Any]:
    """Which way it translates, and how large pictures go through it."""
    given, wanted = _ordered(config, translation.names(data, NEEDED))
    return {
        "title": f"CycleGAN, {given} to {wanted}",
        "description": f"Turns a picture of kind `{given}` into one of kind `{wanted}`, having seen no pairs of them.",
        **translation.sizes(config.tile, config.margin, 2**config.levels, data.fit),
    }


def samples(config: Config, data: Dataset, graphs: dict[str, keras.Model]) -> np.ndarray:
    """Pictures held out for choices: input, output and, where there is one, truth."""
    given, wanted = _ordered(config, translation.kinds(data, data.validation, NEEDED))
    return translation.triples(graphs["translator"], given, wanted if data.paired else None)


def _ordered(config: Config, both: tuple[Any, ...]) -> tuple[Any, Any]:
    first, second = both
    return (first, second) if config.direction == "forward" else (second, first)


def _chapter_generator(size: int, channels: int, width: int) -> keras.Model:
    """The chapter's U-Net: halved to a single position, doubled with transposed convolutions; instance normalisation, no dropout."""
    pictures = keras.Input((size, size, channels), name="pictures")
    x, skips, level = pictures, [], 0
    while x.shape[1] % 2 == 0 and x.shape[1] > 2:
        x = layers.Conv2D(min(width * 2**level, 8 * width), 4, strides=2, padding="same")(x)
        x = leaky()(_instance_norm()(x) if level else x)
        skips.append(x)
        level += 1
    for skip in reversed(skips[:-1]):
        x = _instance_norm()(layers.Conv2DTranspose(skip.shape[-1], 4, strides=2, padding="same")(x))
        x = layers.Concatenate()([layers.ReLU()(x), skip])
    return keras.Model(pictures, layers.Conv2DTranspose(channels, 4, strides=2, padding="same", activation="tanh")(x), name="translator")


def _chapter_discriminator(channels: int, width: int) -> keras.Model:
    """The chapter's: pictures (batch, h, w, channels) -> logits of patches of 70 x 70 pixels."""
    pictures = keras.Input((None, None, channels), name="pictures")
    x = leaky()(layers.Conv2D(width, 4, strides=2, padding="same")(pictures))
    for filters in (2 * width, 4 * width):
        x = leaky()(_instance_norm()(layers.Conv2D(filters, 4, strides=2, padding="same")(x)))
    return keras.Model(pictures, layers.Conv2D(1, 4, padding="same")(x)[..., 0], name="discriminator")


def _instance_norm() -> Any:
    return layers.GroupNormalization(groups=-1, epsilon=1e-5)
