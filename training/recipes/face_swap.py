"""Face swap: one encoder of faces, and a decoder for each of two identities.

The architecture behind face swaps (Perov et al. 2020, section 3.2, without the later stages): each decoder learns to restore its own
identity from what the encoder kept of a warped picture in other colours; to swap is to take the other decoder. `improved`: what is kept
is a small map, and swapped pictures are judged by discriminators of patches and swapped back (as Liu et al. 2017, section 2, do with an
encoder for each domain); where the data has both identities in one pose, swapped pictures also learn from that. `chapter`: what is kept
is a vector, colours stay, and nothing is asked of swapped pictures.
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
from training.judges import Judges
from training.layers import convolution, double, from_pixels, halvings, infer, leaky, serve, spread
from training.layers import to_pixels as graph_to_pixels
from training.loop import Run, evenly, group_sheet
from training.recipes import About, setting
from training.step import Step

TASKS = {"swap": {"swapper": "swapper"}}
DATA = "emoji-people"
SMOKE = "drawn-pairs"

ABOUT = About(
    title="Face swap",
    description="Draws a face of one identity as the other identity: the same pose and expression, the other's looks.",
    limits="Knows the two identities that it was trained on and nobody else; it looks for no faces in a picture, and cannot take "
    "an identity from one picture. Details that it seldom saw are lost.",
    misuse="Never for showing a person in what they did not do or say, for passing for somebody, or on anybody who has not agreed: it is "
    "meant for drawn figures, and every picture that it serves is marked as synthetic.",
)


@dataclass(frozen=True)
class Config:
    """Some 50 minutes on two CPU cores."""

    variant: Literal["improved", "chapter"] = "improved"
    epochs: int = setting(24, "passes over the larger identity's training pictures")
    batch_size: int = setting(8, "pictures of each identity a step")
    width: int = setting(96, "filters of the encoder's last convolutions")
    latent_channels: int = setting(16, "channels of the map of 8 x 8 that a face is kept in", only="improved")
    latent_dimension: int = setting(256, "numbers that a face is kept in", only="chapter")
    learning_rate: float = setting(5e-4, "of Adam, at its highest")
    warp: float = setting(3.0, "how far a picture's points are moved on the way in, in pixels of 64", least=0)
    colour: float = setting(
        0.3, "how far the brightness of a picture's colours is bent on the way in, in powers of e", least=0, only="improved"
    )
    mask: float = setting(3.0, "weight of the figure's pixels over the white around it", least=1)
    perceptual: float = setting(0.5, "weight of the distance on EfficientNet-Lite0", least=0, only="improved")
    adversarial: float = setting(1.0, "weight of the discriminators' judgement of swapped pictures; 0: none", least=0, only="improved")
    cycle: float = setting(0.5, "weight of what is swapped there and back", least=0, only="improved")
    twins: float = setting(
        1.0,
        "weight of a swapped picture's likeness to the other identity's of the same, where the data has pairs",
        least=0,
        only="improved",
    )
    judge: Literal["pictures", "features"] = setting(
        "features", "what the discriminators see: pixels, or also maps of EfficientNet-Lite0", only="improved"
    )
    judge_width: int = setting(32, "filters of the discriminators", only="improved")
    penalty: float = setting(0.2, "weight of the gradient penalties", least=0, only="improved")
    average: float = setting(0.999, "momentum of the networks' moving average, which is what ships", least=0, below=1, only="improved")


NEEDED = "face-swap needs pictures of two identities"
CHAPTER = Config(variant="chapter", learning_rate=5e-5, colour=0.0, twins=0.0)


def encoder(size: int, channels: int, config: Config) -> keras.Model:
    """Pictures (batch, size, size, channels) in -1..1 -> a small map (batch, s, s, width), through a bottleneck."""
    pictures = keras.Input((size, size, channels), name="pictures")
    x, levels = pictures, halvings(size)
    for level in range(levels):
        x = leaky()(convolution(max(16, config.width // 2 ** (levels - 1 - level)), 5, strides=2)(x))
    base, width = x.shape[1], x.shape[3]
    if config.variant == "improved":
        kept = layers.Conv2D(config.latent_channels, 1)(translation.residual(x))
        return keras.Model(pictures, leaky()(convolution(width)(kept)), name="encoder")
    x = layers.Dense(config.latent_dimension)(ops.reshape(x, (-1, base * base * width)))
    x = leaky()(layers.Dense(base * base * width)(x))
    return keras.Model(pictures, ops.reshape(x, (-1, base, base, width)), name="encoder")


def decoder(name: str, shape: tuple[int, int, int], size: int, channels: int) -> keras.Model:
    """A small map (batch, s, s, width) -> pictures (batch, size, size, channels) in -1..1. Hardly anything is computed at full size."""
    features = keras.Input(shape, name="features")
    x, width = features, shape[2]
    for level in range(halvings(size) - 1):
        x = translation.residual(leaky()(convolution(max(24, width // 2**level))(double(x))))
    x = leaky()(spread(convolution(4 * translation.FINE)(leaky()(translation.pixel_norm(x))), 2))
    return keras.Model(features, layers.Conv2D(channels, 3, padding="same", activation="tanh")(x), name=name)


def train(config: Config, data: Dataset, run: Run) -> tuple[keras.Model, list[keras.Model]]:
    """Trains the encoder and both decoders, and returns them."""
    sources = translation.kinds(data, data.train, NEEDED)
    size, channels = data.shape[0], data.shape[2]
    shared = encoder(size, channels, config)
    decoders = [decoder(f"decoder{number}", shared.output.shape[1:], size, channels) for number in (1, 2)]
    improved = config.variant == "improved"
    judges = [_judges(size, channels, config) for _ in range(2)] if improved else []
    plan = run.plan(max(map(len, sources)), config.batch_size, config.epochs)
    twins = config.twins if data.paired else 0.0
    draw_loss, judge_loss = _losses(shared, decoders, judges, config, twins)
    drawing = [shared, *decoders]
    trained = [variable for model in drawing for variable in model.trainable_variables]
    judging = [variable for judge in judges for variable in judge.trained]
    frozen = [variable for judge in judges for variable in judge.frozen]
    draw_step = Step(draw_loss, trained, translation.adam(config, plan.steps, average=improved), [*judging, *frozen])
    judge_step = Step(judge_loss, judging, translation.adam(config, plan.steps), frozen)

    def step(indices: np.ndarray, random: np.random.Generator) -> dict[str, Any]:
        chosen = [pictures[indices] for pictures in sources] if twins else translation.of_both(sources, indices, random)
        mirrored = [random.random(len(indices)) < 0.5 for _ in chosen]
        turns = mirrored[:1] * 2 if twins else mirrored
        batch = [array for pictures, turn in zip(chosen, turns, strict=True) for array in _prepared(pictures, turn, config, random)]
        if not improved:
            return draw_step(*batch)
        scalars = draw_step(*batch, judges[0].corner(random))
        views = scalars.pop("views")
        return scalars | (judge_step(*views) if config.adversarial else {})

    shown = np.concatenate([evenly(pictures, 8) for pictures in translation.kinds(data, data.validation, NEEDED)])

    def sheet() -> np.ndarray:
        with draw_step.averaged():
            kept = infer(shared, shown, to_floats)[0]
            return group_sheet([shown, *(to_pixels(infer(model, kept)[0]) for model in decoders)], 4)

    run.fit(step, plan, variables=[*trained, *judging, *judge_step.variables, *draw_step.variables], sheet=sheet)
    draw_step.finish()
    return shared, decoders


def _prepared(pictures: np.ndarray, mirrored: np.ndarray, config: Config, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """What goes in, warped and in other colours, and what should come out, floats in -1..1; both mirrored or neither."""
    pictures = np.where(mirrored[:, None, None, None], pictures[:, :, ::-1], pictures)
    given = warped(pictures, config.warp * pictures.shape[1] / 64, random)
    return to_floats(coloured(given, config.colour, random) if config.colour else given), to_floats(pictures)


def coloured(pictures: np.ndarray, most: float, random: np.random.Generator) -> np.ndarray:
    """Pictures uint8 (n, h, w, 3) with other colours: each raised to a power, half of it all channels' and half each one's own, from
    -most to most in powers of e. White stays white.

    So a decoder learns its identity's colours for what it is shown, rather than to keep those that come in (the random colour transfer of
    Perov et al. 2020, section 3.2).
    """
    number, *_, channels = pictures.shape
    powers = random.uniform(-most, most, (number, 1)) / 2 + random.uniform(-most, most, (number, channels)) / 2
    bent = (np.arange(256) / 255.0) ** np.exp(powers)[..., None]  # (n, channels, 256)
    item, channel = np.arange(number)[:, None, None, None], np.arange(channels)
    return np.rint(255 * bent).astype(np.uint8)[item, channel, pictures]


def warped(pictures: np.ndarray, most: float, random: np.random.Generator) -> np.ndarray:
    """Pictures uint8 (n, h, w, c) with their points moved, by offsets of a 5 x 5 grid of up to `most` pixels and smooth between."""
    number, height, width, _ = pictures.shape
    rows, columns = np.linspace(0, 4, height), np.linspace(0, 4, width)
    offsets = _between(random.uniform(-most, most, (number, 5, 5, 2)), rows, columns)
    y = np.clip(np.arange(height)[None, :, None] + offsets[..., 0], 0, height - 1.001)
    x = np.clip(np.arange(width)[None, None, :] + offsets[..., 1], 0, width - 1.001)
    top, left = y.astype(int), x.astype(int)
    below, right = (y - top)[..., None], (x - left)[..., None]
    item = np.arange(number)[:, None, None]
    corners = [[pictures[item, top + dy, left + dx] for dx in (0, 1)] for dy in (0, 1)]
    upper, lower = (row[0] * (1 - right) + row[1] * right for row in corners)
    return np.rint(upper * (1 - below) + lower * below).astype(np.uint8)


def _between(grid: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """A grid (n, k, k, c) at places between its points, (n, rows, columns, c), linearly."""

    def weights(places: np.ndarray) -> np.ndarray:
        return np.maximum(0, 1 - np.abs(places[:, None] - np.arange(grid.shape[1])))

    return np.einsum("ri,cj,nijk->nrck", weights(rows), weights(columns), grid)


def _judges(size: int, channels: int, config: Config) -> Judges:
    return Judges(size, channels, config.judge_width, config.judge, compared=config.perceptual > 0)


def _losses(shared: keras.Model, decoders: list[keras.Model], judges: list[Judges], config: Config, twins: float) -> tuple[Any, Any]:
    """Of the decoders and the encoder, and of the discriminators, which step after them on the views that the former gives.

    Args:
        twins: the weight of a swapped picture's likeness to the picture of the other identity beside it in the batch.
    """

    def kept(pictures: list[Any]) -> list[Any]:
        return [shared(part, training=True) for part in pictures]

    def drawn(features: list[Any]) -> list[Any]:
        return [decode(part, training=True) for decode, part in zip(decoders, features, strict=True)]

    def difference(made: list[Any], wanted: list[Any]) -> Any:
        return sum(_weighted(ours, theirs, config.mask) for ours, theirs in zip(made, wanted, strict=True)) / 2

    def plain_loss(warped_first: Any, first: Any, warped_second: Any, second: Any) -> tuple[Any, dict[str, Any]]:
        value = difference(drawn(kept([warped_first, warped_second])), [first, second])
        return value, {"reconstruction": value}

    def draw_loss(warped_first: Any, first: Any, warped_second: Any, second: Any, corner: Any) -> tuple[Any, dict[str, Any]]:
        features, wanted = kept([warped_first, warped_second]), [first, second]
        restored, swapped = drawn(features), drawn(features[::-1])  # each in the order of what it should look like

        def views(pictures: list[Any]) -> list[list[Any]]:
            return [judge.views(part, corner) for judge, part in zip(judges, pictures, strict=True)]

        made, real = views(swapped), views(wanted)

        def perceptual(pictures: list[list[Any]]) -> Any:
            return sum(judge.difference(ours, theirs) for judge, ours, theirs in zip(judges, pictures, real, strict=True)) / 2

        scalars = {"reconstruction": difference(restored, wanted)}
        if config.perceptual:
            scalars["perceptual"] = perceptual(views(restored))
        if twins:
            scalars["twins"] = difference(swapped, wanted) + (config.perceptual * perceptual(made) if config.perceptual else 0.0)
        if config.adversarial:
            sides = zip(judges, made, real, strict=True)
            scalars["generator"] = sum(judge.convincing(ours, theirs) for judge, ours, theirs in sides) / 2
        if config.cycle:
            scalars["cycle"] = difference(drawn(kept(swapped[::-1])), wanted)
        weights = {"perceptual": config.perceptual, "twins": twins, "generator": config.adversarial, "cycle": config.cycle}
        value = sum(weights.get(name, 1.0) * part for name, part in scalars.items())
        return value, scalars | {"views": [view for kind in (*made, *real) for view in kind]}

    def judge_loss(*views: Any) -> tuple[Any, dict[str, Any]]:
        number = len(views) // 4
        made, real = ([list(views[at : at + number]) for at in (start, start + number)] for start in (0, 2 * number))
        parts = [judge.loss(theirs, ours, config.penalty) for judge, ours, theirs in zip(judges, made, real, strict=True)]
        return sum(value for value, _ in parts), {name: sum(scalars[name] for _, scalars in parts) / 2 for name in parts[0][1]}

    return draw_loss if judges else plain_loss, judge_loss


def _weighted(made: Any, wanted: Any, weight: float) -> Any:
    """Mean absolute difference, the figure's pixels (all that are not white) counting `weight` times."""
    figure = ops.cast(ops.min(wanted, axis=-1, keepdims=True) < 0.98, "float32")
    weights = 1.0 + (weight - 1.0) * figure
    return ops.sum(ops.abs(made - wanted) * weights) / (ops.sum(weights) * wanted.shape[-1])


def serving(config: Config, data: Dataset, trained: tuple[keras.Model, list[keras.Model]]) -> dict[str, keras.Model]:
    """`swapper`: images and labels, which identity to draw -> swapped."""
    shared, decoders = trained
    pixels, pictures = from_pixels(data.shape[0], data.shape[2])
    labels = keras.Input((), dtype="int32", name="labels")
    kept = shared(pictures, training=False)
    first, second = (model(kept, training=False) for model in decoders)
    chosen = ops.where(ops.equal(ops.reshape(labels, (-1, 1, 1, 1)), 0), first, second)
    return {"swapper": serve([pixels, labels], {"swapped": graph_to_pixels(chosen)})}


def describe(config: Config, data: Dataset) -> dict[str, Any]:
    """Whose identities it knows, and that pictures are resized to its size and back."""
    first, second = translation.names(data, NEEDED)
    return {"title": f"Face swap, {first} and {second}", **translation.sizes(0, 0, 1, data.fit)}


def samples(config: Config, data: Dataset, graphs: dict[str, keras.Model]) -> np.ndarray:
    """Pictures held out for choices: input, swapped and, where there is one, truth; first one identity's, then the other's."""
    sheets = []
    both = [evenly(pictures, 12) for pictures in translation.kinds(data, data.validation, NEEDED)]
    for label, given in enumerate(both):
        made = infer(graphs["swapper"], {"images": given, "labels": np.full(len(given), 1 - label, np.int32)})[0]
        sheets.append(group_sheet([given, made, *([both[1 - label]] if data.paired else [])], 4))
    return np.concatenate(sheets)
