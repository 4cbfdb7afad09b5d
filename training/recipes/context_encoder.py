"""Context encoder: what a hole in a picture may have held, from what is around it.

Pathak et al. 2016. `improved`: gated convolutions (Yu et al. 2019, section 3.1) with skips and dilation, added to what spreads into a hole
from its edge (`diffused`), holes of all kinds, taught first by decibels alone, then also by a perceptual distance and, if asked, R3GAN's
relativistic objective (Huang et al. 2024) on patches. `chapter`: the paper's encoder and decoder through a bottleneck, squared
differences and cross-entropy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
from keras import layers, ops

from training import judges, translation
from training.data import Dataset, masks
from training.data.pixels import to_floats, to_pixels
from training.layers import convolution, double, from_pixels, infer, leaky, serve, spread
from training.layers import to_pixels as graph_to_pixels
from training.loop import Run, evenly, group_sheet
from training.losses import binary_cross_entropy, relativistic
from training.problems import TrainingError
from training.recipes import About, setting
from training.step import Step, annealed

TASKS = {"inpaint": {"inpainter": "inpainter"}}
DATA = "photos"
SMOKE = "drawn-pairs"

ABOUT = About(
    title="Context encoder",
    description="Paints holes in a picture anew: scratches, writing, blocks, whatever a mask covers.",
    limits="Large holes get what is likely there, without the detail of the rest; a thing that is mostly covered does not come back. "
    "Trained on photographs.",
    misuse="Not for passing off a picture as untouched, nor for taking marks of ownership out: what it paints never was there.",
)


@dataclass(frozen=True)
class Config:
    """Some hour and a half on one CPU core; what is shipped is larger and was trained on a GPU (its card has the command)."""

    variant: Literal["improved", "chapter"] = "improved"
    epochs: int = setting(39, "passes over the training pictures, of which a step sees a random square each")
    batch_size: int = setting(12, "pictures a step")
    crop: int = setting(96, "side of those squares")
    width: int = setting(24, "filters of the first convolutions")
    blocks: int = setting(3, "residual blocks at the narrowest place, dilated by 1, 2, 4 and 8 in turn", only="improved")
    fine_blocks: int = setting(0, "residual blocks at a quarter and at a half of the size, on the way back", least=0, only="improved")
    latent_dimension: int = setting(512, "numbers that a picture is kept in", only="chapter")
    pretraining: float = setting(0.7, "share of the steps that are taught by decibels alone", least=0, below=1, only="improved")
    learning_rate: float = setting(8e-4, "of Adam, at its highest")
    reconstruction: float = setting(1.0, "weight of the logarithm of mean squares in a hole; chapter: of those", least=0)
    perceptual: float = setting(2.0, "weight of the distance on EfficientNet-Lite0", least=0, only="improved")
    adversarial: float = setting(0.0, "weight of the discriminator's judgement; 0: none", least=0)
    penalty: float = setting(0.1, "weight of the gradient penalties", least=0, only="improved")
    average: float = setting(0.999, "momentum of the painter's moving average, which is what ships", least=0, below=1, only="improved")
    window: int = setting(256, "side of the squares round holes in which it serves", only="improved")


FINE = 16
"""Channels at the pictures' full size."""
KNOWN = 1e-4
"""What is added to shares that means are divided by."""
MASKS = 4096
"""How many of them squares are cut out of."""
SWEEPS = 4
"""How often what is spread into holes is evened out at each size."""
FLOOR = 5e-4
"""What is added to mean squared differences before their logarithm: those of three levels. Smoother pictures teach little but their
noise."""
CHAPTER = Config(
    variant="chapter", epochs=80, crop=128, width=64, learning_rate=2e-4, reconstruction=1000.0, adversarial=1.0, batch_size=32
)


def painter(size: int, channels: int, config: Config) -> keras.Model:
    """Pictures (batch, size, size, channels) in -1..1 and holes (batch, size, size, 1), 1 where there is one -> pictures alike.

    What lies in holes is not looked at.
    """
    pictures, holes = keras.Input((size, size, channels), name="pictures"), keras.Input((size, size, 1), name="holes")
    if config.variant == "chapter":
        seen = layers.Concatenate()([pictures - pictures * holes, holes])
        made = _chapter_painter(seen, channels, config)
    else:
        made = _gated_painter(pictures, holes, config)
    return keras.Model([pictures, holes], made, name="painter")


def diffused(pictures: Any, holes: Any) -> Any:
    """Pictures (batch, h, w, c) with holes (batch, h, w, 1) filled from their edges, as heat spreads.

    Push and pull (Gortler et al. 1996, section 3.4): means over ever larger squares of what is known, and from the largest ones back to
    pixels, where nothing finer is known; evened out at each size, so that little is left to do at the next one.
    """
    known, total = 1.0 - holes, pictures * (1.0 - holes)
    levels = [(total, known)]
    while known.shape[1] % 2 == known.shape[2] % 2 == 0:
        total, known = (layers.AveragePooling2D(2)(x) for x in (total, known))
        levels.append((total, known))
    height, width = known.shape[1:3]
    if height * width > 1:
        total, known = (layers.AveragePooling2D((height, width))(x) for x in (total, known))
    made = ops.image.resize(total / (known + KNOWN), (height, width), interpolation="nearest")
    for total, known in reversed(levels):
        if made.shape[1] != known.shape[1]:
            made = ops.image.resize(made, known.shape[1:3], interpolation="bilinear")
        mean, share = total / (known + KNOWN), ops.minimum(1.0, 4.0 * known)
        made = made + (mean - made) * share
        for _ in range(SWEEPS if min(made.shape[1:3]) > 2 else 0):
            made = layers.AveragePooling2D(3, strides=1, padding="same")(made)
            made = made + (mean - made) * share
    return made


def _gated_painter(pictures: Any, holes: Any, config: Config) -> Any:
    start = diffused(pictures, holes)
    seen = layers.Concatenate()([start, holes])
    x = _gated(seen, config.width, 4, strides=2)
    half = x = _gated(x, config.width)
    x = _gated(x, 2 * config.width, 4, strides=2)
    quarter = x = _gated(x, 2 * config.width)
    x = _gated(x, 4 * config.width, 4, strides=2)
    for block in range(config.blocks):
        x = _residual(x, 4 * config.width, dilation_rate=2 ** (block % 4))
    x = _gated(layers.Concatenate()([double(_gated(x, 2 * config.width)), quarter]), 2 * config.width)
    for _ in range(config.fine_blocks):
        x = _residual(x, 2 * config.width)
    x = _gated(layers.Concatenate()([double(_gated(x, config.width)), half]), config.width)
    for _ in range(config.fine_blocks):
        x = _residual(x, config.width)
    x = leaky()(spread(convolution(4 * FINE)(x), 2))
    x = _gated(layers.Concatenate()([x, seen]), FINE)
    return start + layers.Conv2D(pictures.shape[-1], 3, padding="same", kernel_initializer="zeros")(x)


def _residual(x: Any, filters: int, **options: Any) -> Any:
    """Starts as nothing."""
    y = _gated(translation.pixel_norm(x), filters, **options)
    return layers.Add()([x, layers.Conv2D(filters, 3, padding="same", kernel_initializer="zeros")(y)])


def _gated(x: Any, filters: int, size: int = 3, **options: Any) -> Any:
    """A convolution whose every value another one lets pass or holds back."""
    y = convolution(2 * filters, size, **options)(x)
    return leaky()(y[..., :filters]) * ops.sigmoid(y[..., filters:])


def _chapter_painter(seen: Any, channels: int, config: Config) -> Any:
    x, levels = seen, 0
    while x.shape[1] % 2 == 0 and x.shape[1] > 4:
        x = layers.Conv2D(min(config.width * 2**levels, 8 * config.width), 4, strides=2, padding="same")(x)
        x = leaky()(layers.BatchNormalization()(x) if levels else x)
        levels += 1
    _, height, width, filters = x.shape
    x = leaky()(layers.BatchNormalization()(layers.Conv2D(config.latent_dimension, (height, width))(x)))
    x = layers.Conv2DTranspose(filters, (height, width))(x)
    for level in reversed(range(levels)):
        x = layers.ReLU()(layers.BatchNormalization()(x))
        last = level == 0
        wanted = channels if last else min(config.width * 2 ** (level - 1), 8 * config.width)
        x = layers.Conv2DTranspose(wanted, 4, strides=2, padding="same", activation="tanh" if last else None)(x)
    return x


def train(config: Config, data: Dataset, run: Run) -> keras.Model:
    """Trains the painter, by differences and then against the discriminator, and returns it."""
    side, channels = min(config.crop, data.shape[0]), data.shape[2]
    if side % 8 or side < masks.SMALLEST:
        raise TrainingError(f"--crop {side}: it has to be a multiple of 8, and {masks.SMALLEST} at least.")
    if channels != 3:
        raise TrainingError(f"{data.source} is grey; holes are painted in colour (--channels 3).")
    pictures, paint = data.train.images, painter(side, channels, config)
    judge = judges.patch_discriminator(channels + 1, config.width, 3)
    perceptual = judges.Perceptual(side) if config.variant == "improved" and config.perceptual else None
    plan = run.plan(len(pictures), config.batch_size, config.epochs)
    wholes = masks.wholes(min(MASKS, plan.steps * config.batch_size), side, max(side, _window(config, data)), run.generator(3))
    first = int(plan.steps * config.pretraining) if config.variant == "improved" else 0
    pixel_loss, paint_loss, judge_loss = _losses(paint, judge, perceptual, config)
    pixel_step = Step(pixel_loss, paint.trainable_variables, annealed(config.learning_rate, max(1, first)), paint.non_trainable_variables)
    frozen = perceptual.variables if perceptual else []
    rest = max(1, plan.steps - first)
    alone = config.variant == "improved" and not config.adversarial
    moved = annealed(config.learning_rate, rest) if alone else translation.adam(config, rest, average=config.variant == "improved")
    paint_step = Step(paint_loss, paint.trainable_variables, moved, [*paint.non_trainable_variables, *judge.variables, *frozen])
    judged = translation.adam(config, rest)
    judge_step = Step(judge_loss, judge.trainable_variables, judged, [*judge.non_trainable_variables, *paint.variables])

    def step(indices: np.ndarray, random: np.random.Generator) -> dict[str, Any]:
        (chosen,) = translation.cropped([pictures[indices]], side, random)
        holes = masks.squares(wholes, len(chosen), side, random)[..., None].astype(np.float32)
        batch = to_floats(translation.turned([chosen], random)[0]), holes
        if run.step < first:
            return pixel_step(*batch)
        if run.step == first:
            pixel_step.finish()
        scalars = judge_step(*batch) if config.adversarial else {}
        return scalars | paint_step(*batch, judges.corner(side, random))

    whole, holes = _held_out(data, side)

    def sheet() -> np.ndarray:
        with (pixel_step if run.step <= first else paint_step).averaged():
            made = to_pixels(infer(paint, [to_floats(whole), holes[..., None].astype(np.float32)])[0])
        return _sheet(whole, holes, np.where(holes[..., None], made, whole))

    steps = (pixel_step, judge_step, paint_step)
    run.fit(step, plan, variables=[*paint.variables, *judge.variables, *(one for step in steps for one in step.variables)], sheet=sheet)
    paint_step.finish()
    return paint


def _losses(paint: keras.Model, judge: keras.Model, perceptual: Any, config: Config) -> tuple[Any, Any, Any]:
    improved = config.variant == "improved"

    def filled(pictures: Any, holes: Any) -> tuple[Any, Any]:
        """What is painted, and the pictures with that in their holes."""
        made = paint([pictures, holes], training=True)
        return made, pictures + (made - pictures) * holes

    def scores(pictures: Any, holes: Any) -> Any:
        return judge(ops.concatenate([pictures, holes], axis=-1), training=True)

    def differences(made: Any, pictures: Any, holes: Any) -> tuple[Any, dict[str, Any]]:
        squares = ops.square(made - pictures) * holes
        if not improved:
            inside = ops.sum(squares) / (ops.sum(holes) * made.shape[-1])
            return config.reconstruction * inside, {"reconstruction": inside}
        inside = ops.sum(squares, axis=(1, 2, 3)) / (ops.sum(holes, axis=(1, 2, 3)) * made.shape[-1])
        value = ops.mean(ops.log(inside + FLOOR))
        return config.reconstruction * value, {"decibels": -10 / np.log(10) * (value - np.log(4.0))}

    def pixel_loss(pictures: Any, holes: Any) -> tuple[Any, dict[str, Any]]:
        return differences(paint([pictures, holes], training=True), pictures, holes)

    def paint_loss(pictures: Any, holes: Any, place: Any) -> tuple[Any, dict[str, Any]]:
        made, whole = filled(pictures, holes)
        value, scalars = differences(made, pictures, holes)
        if perceptual is not None:
            scalars["perceptual"] = perceptual(whole, pictures, place)
            value += config.perceptual * scalars["perceptual"]
        if config.adversarial:
            ours = scores(whole, holes)
            scalars["generator"] = relativistic(ours, scores(pictures, holes)) if improved else binary_cross_entropy(ours, 1.0)
            value += config.adversarial * scalars["generator"]
        return value, scalars

    def judge_loss(pictures: Any, holes: Any) -> tuple[Any, dict[str, Any]]:
        whole = ops.stop_gradient(filled(pictures, holes)[1])
        if improved:
            return judges.judged(lambda x: scores(x, holes), pictures, whole, config.penalty)
        value = (binary_cross_entropy(scores(pictures, holes), 1.0) + binary_cross_entropy(scores(whole, holes), 0.0)) / 2
        return value, {"discriminator": value}

    return pixel_loss, paint_loss, judge_loss


def _held_out(data: Dataset, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of the validation split, cut to a side, and a hole of each kind in turn."""
    chosen, random = evenly(data.validation.images, 2 * len(masks.KINDS))[:, :side, :side], np.random.default_rng(0)
    kinds = [*masks.KINDS] * 2
    return chosen, np.concatenate([masks.drawn(kind, 1, side, random) for kind in kinds])


def _sheet(pictures: np.ndarray, holes: np.ndarray, made: np.ndarray) -> np.ndarray:
    """With holes in grey, painted, the truth; two such groups in a row."""
    return group_sheet([np.where(holes[..., None], np.uint8(128), pictures), made, pictures], 2)


def serving(config: Config, data: Dataset, trained: keras.Model) -> dict[str, keras.Model]:
    """`inpainter`: images and masks -> inpainted, with what is outside of the masks as it came."""
    size, channels = _window(config, data), data.shape[2]
    pixels, pictures = from_pixels(size, channels)
    given = keras.Input((size, size, 1), dtype="uint8", name="masks")
    holes = ops.cast(ops.cast(given, "int32") > 127, "float32")
    model = translation.at(size, trained, lambda size: painter(size, channels, config))
    made = graph_to_pixels(model([pictures, holes], training=False))
    return {"inpainter": serve([pixels, given], {"inpainted": ops.where(holes > 0, made, pixels)})}


def _window(config: Config, data: Dataset) -> int:
    return config.window if config.variant == "improved" else min(config.crop, data.shape[0])


def describe(config: Config, data: Dataset) -> dict[str, Any]:
    """In which squares it looks at pictures."""
    size = _window(config, data)
    if size % 16:
        raise TrainingError(f"--{'window' if config.variant == 'improved' else 'crop'} {size}: it has to be a multiple of 16.")
    return {
        "fit": data.fit.model_copy(update={"height": size, "width": size, "mode": "cover"}),
        "largest_batch": max(1, min(64, translation.BATCH_PIXELS // size**2)),
    }


def samples(config: Config, data: Dataset, graphs: dict[str, keras.Model]) -> np.ndarray:
    """Pictures held out for choices: with a hole, painted, the truth."""
    size = _window(config, data)
    side = min(size, data.shape[0])
    pictures, holes = _held_out(data, side)
    beyond = ((0, 0), (0, size - side), (0, size - side), (0, 0))
    images, covered = (np.pad(part, beyond, mode="edge") for part in (pictures, holes[..., None]))
    given = {"images": images, "masks": covered.astype(np.uint8) * 255}
    return _sheet(pictures, holes, infer(graphs["inpainter"], given, at_once=4)[0][:, :side, :side])
