"""Show, attend and tell: a sentence for a picture, word by word, each from what the model looks at for it.

Xu et al. 2015: a frozen ImageNet network's map as a grid of features, additive attention (Bahdanau et al. 2015, appendix A.1.2) and a GRU,
trained by teacher forcing with doubly stochastic attention (section 4.2.1). `improved`: two maps of EfficientNet-Lite0, places told by a
learned code and by what is around them, a gate on what is seen (section 4.2.1), label smoothing, dropout, a moving average of the weights,
where the data says where things are, attention that learns to lie there when they are named (Liu et al. 2017), and pictures of nothing
known, of which any sentence may be said, so that none is sure. `chapter`: without these; its own frozen network is Inception v3
(`--backbone inception_v3`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import keras
import numpy as np
from keras import layers, ops
from PIL import Image, ImageDraw, ImageFont

from service.contract.manifest import END, SPECIAL, START, unsayable
from training import backbone
from training.data import Dataset, Thing, phrases
from training.data.pixels import to_floats
from training.layers import double, from_pixels, infer, serve
from training.loop import Run, contact_sheet, evenly
from training.problems import TrainingError
from training.recipes import About, setting
from training.step import Step, annealed
from training.unknown import unknown

TASKS = {"caption": {"encoder": "encoder", "step": "step"}}
DATA = "scenes"
SMOKE = "drawn-scenes"
IMAGE_SIZE = 192

ABOUT = About(
    title="Show, attend and tell",
    description="Says in a sentence what a picture shows, and where it looked for each word.",
    limits="Knows the words, the things and the kind of picture that it was trained on, and says something of any other picture too, "
    "which is a guess then. Trained with --doubt, it gives plain, noisy and scribbled pictures away: the mean log-probability of a beam "
    "search's sentence lies below the 1st percentile of test pictures, which stands among the figures. Of most photographs and drawings of "
    "something else it does not.",
    misuse="Not for describing pictures to people who cannot see them where a wrong description harms them, and not for telling who "
    "somebody is.",
)
INCEPTION_SIDE = 299


@dataclass(frozen=True)
class Config:
    """Some 80 minutes on two CPU cores for 40,000 scenes, twelve of them for the frozen network's maps."""

    variant: Literal["improved", "chapter"] = "improved"
    backbone: Literal["efficientnet-lite0", "inception_v3"] = setting("efficientnet-lite0", "the frozen network")
    epochs: int = setting(20, "passes over the training pictures, each time with another of their sentences")
    batch_size: int = setting(64, "pictures a step")
    units: int = setting(384, "of the GRU's state")
    width: int = setting(256, "numbers that a place of the picture, or a word, is told in")
    attention: int = setting(128, "units of the attention")
    words: int = setting(8000, "of the vocabulary, at most")
    fewest: int = setting(4, "how often a word has to be used to belong to it")
    longest: int = setting(24, "words of the sentences that are learned whole, at most; of longer ones the beginning is")
    learning_rate: float = setting(1e-3, "of Adam, at its highest")
    coverage: float = setting(0.5, "weight of looking at all places alike over a sentence", least=0)
    pointing: float = setting(
        0.5, "weight of looking at a thing while naming it, where the data says where it is", least=0, only="improved"
    )
    doubt: float = setting(0.05, "share of pictures of nothing known, in other pictures' place", least=0, below=1, only="improved")
    smoothing: float = setting(0.1, "share of the probability that goes to all words alike", least=0, below=1, only="improved")
    dropout: float = setting(0.3, "share of values that are left out before words are chosen", least=0, below=1, only="improved")


CHAPTER = Config(variant="chapter", units=512, pointing=0.0, doubt=0.0, smoothing=0.0, dropout=0.0)
DOUBTED = 1000
"""Pictures of nothing known, at most."""


@dataclass(frozen=True)
class Teller:
    """The networks that are trained.

    Attributes:
        look: maps of the frozen network, flattened (batch, n) -> features (batch, rows, columns, width), keys (batch, rows, columns,
            attention) and the first state (batch, units).
        tell: features, keys, state, words (batch,) -> log-probabilities of the next word, the next state, attention (batch, rows, columns).
        vocabulary: the words, by their numbers.
    """

    look: keras.Model
    tell: keras.Model
    vocabulary: tuple[str, ...]


def maps(side: int, config: Config) -> tuple[keras.Model, list[tuple[int, int, int]]]:
    """The frozen network: pictures (batch, side, side, 3) in -1..1 -> its maps of them, flattened and put together (batch, n); and the
    maps' shapes."""
    pictures = keras.Input((side, side, 3), name="pictures")
    if config.backbone == "inception_v3":
        resized = ops.image.resize(pictures, (INCEPTION_SIDE, INCEPTION_SIDE), interpolation="bilinear")
        seen = [backbone.maps("inception_v3", INCEPTION_SIDE)(resized)[-1]]
    else:
        found = backbone.network("lite0", size=side)(pictures)
        seen = [found["stage5"], found["stage7"]]
    shapes = [tuple(part.shape[1:]) for part in seen]
    flat = [ops.reshape(part, (-1, math.prod(shape))) for part, shape in zip(seen, shapes, strict=True)]
    return keras.Model(pictures, ops.concatenate(flat, axis=-1)), shapes


def networks(shapes: list[tuple[int, int, int]], vocabulary: tuple[str, ...], config: Config) -> Teller:
    """The networks that are trained, for maps of these shapes; a second map has half as many rows and columns."""
    improved, (rows, columns, _) = config.variant == "improved", shapes[0]
    flat = keras.Input((sum(map(math.prod, shapes)),), name="maps")
    parts, start = [], 0
    for shape in shapes:
        size = math.prod(shape)
        part = ops.reshape(flat[:, start : start + size], (-1, *shape))
        parts.append(part if shape[0] == rows else double(part))
        start += size
    seen = layers.Conv2D(config.width, 1, name="projection")(layers.Concatenate()(parts) if len(parts) > 1 else parts[0])
    if improved:
        seen = Places(name="places")(seen)
        around = layers.Conv2D(config.width, 3, padding="same", name="around")(layers.Dropout(config.dropout)(layers.ReLU()(seen)))
        seen = layers.Add()([seen, around])
    seen = layers.ReLU()(seen)
    # not GlobalAveragePooling2D, and below no sum: ONNX Runtime rounds both differently in batches of one and of many
    overall = ops.reshape(layers.AveragePooling2D((rows, columns))(seen), (-1, config.width))
    state = layers.Dense(config.units, activation="tanh", name="first_state")(overall)
    look = keras.Model(flat, {"features": seen, "keys": layers.Conv2D(config.attention, 1, name="keys")(seen), "state": state})

    features, keys = (
        keras.Input((rows, columns, size), name=name) for name, size in (("features", config.width), ("keys", config.attention))
    )
    state, words = keras.Input((config.units,), name="state"), keras.Input((), dtype="int32", name="words")
    places = rows * columns
    asked = ops.reshape(keys, (-1, places, config.attention)) + layers.Dense(config.attention, name="query")(state)[:, None]
    attention = ops.softmax(layers.Conv1D(1, 1, use_bias=False, name="score")(ops.tanh(asked))[..., 0])
    context = ops.matmul(attention[:, None], ops.reshape(features, (-1, places, config.width)))[:, 0]
    if improved:
        context = layers.Dense(config.width, activation="sigmoid", name="gate")(state) * context
    said = layers.Embedding(len(vocabulary), config.width, name="words_in")(words)
    _, (following,) = layers.GRUCell(config.units, name="memory")(layers.Concatenate()([said, context]), [state])
    thought = layers.Dense(config.width, activation="tanh", name="thought")(layers.Concatenate()([following, context, said]))
    if improved:
        thought = layers.Dropout(config.dropout)(thought)
    log_probabilities = ops.log_softmax(layers.Dense(len(vocabulary), name="words_out")(thought))
    outputs = {"log_probabilities": log_probabilities, "next_state": following, "attention": ops.reshape(attention, (-1, rows, columns))}
    return Teller(look, keras.Model({"features": features, "keys": keys, "state": state, "words": words}, outputs), vocabulary)


class Places(layers.Layer):
    """Adds to each place of a map (batch, rows, columns, n) a learned code of where it is."""

    def build(self, shape: tuple[int, ...]) -> None:
        self.code = self.add_weight(shape=shape[1:], initializer=keras.initializers.RandomNormal(stddev=0.1), name="code")

    def call(self, x: Any) -> Any:
        return x + self.code


def vocabulary(data: Dataset, config: Config) -> tuple[str, ...]:
    """The words that the training pictures' sentences often use, the most frequent first, after the special ones.

    Raises:
        TrainingError: they have no sentences, or no word is used often enough.
    """
    if not data.train.captions:
        raise TrainingError(f"show-attend-tell learns from captions; {data.source} has none.")
    counts = Counter(word for sentences in data.train.captions for sentence in sentences for word in phrases.words(sentence))
    often = sorted((word for word in counts if counts[word] >= config.fewest), key=lambda word: (-counts[word], word))
    if not often:
        raise TrainingError(f"In the captions of {data.source} no word is used {config.fewest} times: lower --fewest.")
    return (*SPECIAL, *often[: config.words])


def numbered(sentences: list[str], words: tuple[str, ...], longest: int) -> np.ndarray:
    """Sentences as the numbers of their words, int32 (n, longest + 1), END after the last word and to the end of the row; of a sentence of
    more than `longest` words its beginning, without END, for there it does not end."""
    number = {word: index for index, word in enumerate(words)}
    found = np.full((len(sentences), longest + 1), END, np.int32)
    for row, sentence in zip(found, sentences, strict=True):
        known = [number.get(word, SPECIAL.index("<unknown>")) for word in phrases.words(sentence)[: longest + 1]]
        row[: len(known)] = known
    return found


def train(config: Config, data: Dataset, run: Run) -> Teller:
    """Looks at all training pictures once, and then learns to say one of their sentences each."""
    plan = run.plan(len(data.train), config.batch_size, config.epochs)
    words = vocabulary(data, config)
    frozen, shapes = maps(data.shape[0], config)
    teller = networks(shapes, words, config)
    known = cache(lambda: _seen(frozen, data.train.images))  # of many pictures, and none when a finished run is exported again
    doubted = cache(lambda: _doubted(frozen, data.train.images, config, run.generator()))
    sentences = [numbered(list(of), words, config.longest) for of in data.train.captions]
    trained = [*teller.look.trainable_variables, *teller.tell.trainable_variables]
    state = [*teller.look.non_trainable_variables, *teller.tell.non_trainable_variables]
    step = Step(_loss(teller, config), trained, annealed(config.learning_rate, plan.steps, clipnorm=5.0), state)

    def one(indices: np.ndarray, random: np.random.Generator) -> dict[str, Any]:
        which = [random.integers(len(sentences[index])) for index in indices]
        chosen = np.stack([sentences[index][number] for index, number in zip(indices, which, strict=True)])
        shown, where = known()[indices].astype(np.float32), np.zeros((*chosen.shape, *shapes[0][:2]), np.float32)
        if config.pointing and data.train.objects:
            for place, index, number in zip(where, indices, which, strict=True):
                mark(place, data.train.captions[index][number], data.train.objects[index], data.shape[0])
        unsure = random.random(len(indices)) < config.doubt
        shown[unsure], where[unsure] = doubted()[random.integers(len(doubted()), size=unsure.sum())], 0
        return step(shown, chosen, where)

    shown = evenly(data.validation.images, 16)

    def sheet() -> np.ndarray:
        with step.averaged():
            return told(shown, greedy(teller, infer(frozen, shown, to_floats, AT_ONCE)[0], config.longest))

    run.fit(one, plan, variables=[*trained, *state, *step.variables], sheet=sheet)
    step.finish()
    return teller


def mark(places: np.ndarray, sentence: str, things: Sequence[Thing], side: int) -> None:
    """Writes 1 where the things lie that a sentence names, at the words that name them.

    Args:
        places: (words, rows, columns), zeros; a grid over the whole picture for each word, or for the first ones.
        things: of the picture, with their boxes.
        side: of the picture that the boxes are in, in pixels.
    """
    rows, columns = places.shape[1:]
    for mention in phrases.mentions(phrases.words(sentence)):
        for left, top, width, height in (thing.box for thing in things if thing.label == mention.label):
            down, across = (
                slice(int(first * cells / side), math.ceil((first + size) * cells / side))
                for first, size, cells in ((top, height, rows), (left, width, columns))
            )
            places[mention.start : mention.stop, down, across] = 1.0


AT_ONCE = 64
"""Pictures of one call of the frozen network."""


def _seen(frozen: keras.Model, pictures: np.ndarray) -> np.ndarray:
    """The frozen network's maps of pictures uint8 (n, h, w, c), float16 (n, size): they never change."""
    found = np.empty((len(pictures), frozen.output.shape[1]), np.float16)
    for start in range(0, len(pictures), AT_ONCE):
        found[start : start + AT_ONCE] = infer(frozen, pictures[start : start + AT_ONCE], to_floats)[0]
    return found


def _doubted(frozen: keras.Model, pictures: np.ndarray, config: Config, random: np.random.Generator) -> np.ndarray:
    """The maps of pictures of nothing known, made once, as many as matter; at least one."""
    number = min(DOUBTED, 1 + int(config.doubt * len(pictures)))
    return _seen(frozen, unknown(pictures, number, random))


def _loss(teller: Teller, config: Config) -> Any:
    improved = config.variant == "improved"

    def loss(seen: Any, sentences: Any, where: Any) -> tuple[Any, dict[str, Any]]:
        looked = teller.look(seen, training=True)
        state, words = looked["state"], ops.full_like(sentences[:, 0], START)
        counted, total, covered, names, missed = 0.0, 0.0, 0.0, 0.0, 0.0
        goes_on = ops.ones_like(state[:, 0])  # 1 until the end has been said
        for place in range(sentences.shape[1]):
            given = {"features": looked["features"], "keys": looked["keys"], "state": state, "words": words}
            found = teller.tell(given, training=True)
            words, state = sentences[:, place], found["next_state"]
            likely = ops.take_along_axis(found["log_probabilities"], words[:, None], axis=1)[:, 0]
            if improved:
                likely = (1 - config.smoothing) * likely + config.smoothing * ops.mean(found["log_probabilities"], axis=1)
            total -= ops.sum(goes_on * likely)
            counted += ops.sum(goes_on)
            covered += goes_on[:, None, None] * found["attention"]
            if config.pointing:
                named = ops.max(where[:, place], axis=(1, 2))
                names += ops.sum(named)
                missed -= ops.sum(named * ops.log(ops.sum(where[:, place] * found["attention"], axis=(1, 2)) + 1e-3))
            goes_on = goes_on * ops.cast(words != END, "float32")
        scalars = {"loss": total / counted, "coverage": ops.mean(ops.square(1.0 - covered))}
        value = scalars["loss"] + config.coverage * scalars["coverage"]
        if config.pointing:
            scalars["pointing"] = missed / ops.maximum(names, 1.0)
            value += config.pointing * scalars["pointing"]
        return value, scalars

    return loss


def greedy(teller: Teller, seen: Any, longest: int) -> list[str]:
    """The likeliest word after word for each picture, of those that may be said there, as the server says them.

    Args:
        seen: what `teller.look` takes.
    """
    looked = {name: ops.convert_to_numpy(value) for name, value in teller.look(seen).items()}
    features, keys, state = (looked[name] for name in ("features", "keys", "state"))
    words, said = np.full(len(state), START, np.int32), np.full((len(state), longest), END, np.int32)
    for place in range(longest):
        found = teller.tell({"features": features, "keys": keys, "state": state, "words": words})
        state, scores = (np.array(ops.convert_to_numpy(found[name])) for name in ("next_state", "log_probabilities"))
        scores[:, unsayable(first=place == 0)] = -np.inf
        words = np.where(words == END, END, scores.argmax(axis=1)).astype(np.int32)
        said[:, place] = words
    return [" ".join(teller.vocabulary[word] for word in row if word != END) for row in said]


LINE, LETTERS = 13, 30
"""Height of a line of text in pixels, and letters in it."""


def told(pictures: np.ndarray, sentences: list[str]) -> np.ndarray:
    """Pictures (n, h, w, 3) with a sentence below each; four in a row."""
    _, height, width, _ = pictures.shape
    shown = []
    for picture, sentence in zip(pictures, sentences, strict=True):
        card = Image.new("RGB", (max(width, 192), height + 4 * LINE), "white")
        card.paste(Image.fromarray(picture))
        ImageDraw.Draw(card).multiline_text((2, height), _broken(sentence), fill="black", font=ImageFont.load_default(11), spacing=1)
        shown.append(np.asarray(card))
    return contact_sheet(np.stack(shown), 4)


def _broken(sentence: str) -> str:
    """In lines of so many letters, at most three."""
    lines = [""]
    for word in sentence.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > LETTERS:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines[:3])


def serving(config: Config, data: Dataset, trained: Teller) -> dict[str, keras.Model]:
    """`encoder`: images -> features, keys, state. `step`: these and words -> log_probabilities, next_state, attention."""
    pixels, pictures = from_pixels(data.shape[0], data.shape[2])
    looked = trained.look(maps(data.shape[0], config)[0](pictures), training=False)
    inputs = [keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=name) for name, tensor in trained.tell.input.items()]
    following = trained.tell({tensor.name: tensor for tensor in inputs}, training=False)
    return {"encoder": serve([pixels], looked), "step": serve(inputs, following)}


def describe(config: Config, data: Dataset) -> dict[str, Any]:
    """What it says.

    Raises:
        TrainingError: there are no captions to learn from; the pictures are not shown whole, so that attention would not cover them.
    """
    words = vocabulary(data, config)
    if data.fit.mode != "stretch":
        raise TrainingError(f"show-attend-tell looks at a grid over the whole picture; {data.source} has pictures of another make.")
    return {"vocabulary": words, "largest_batch": 32}


def samples(config: Config, data: Dataset, graphs: dict[str, keras.Model]) -> np.ndarray:
    """Pictures held out for choices, and what it says of them, the likeliest word each time."""
    shown = evenly(data.validation.images, 16)
    teller = Teller(graphs["encoder"], graphs["step"], vocabulary(data, config))
    return told(shown, greedy(teller, {"images": shown}, config.longest))
