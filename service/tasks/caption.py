"""A sentence for a picture, word by word, and where the model looked for each."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Literal, Self, TypeVar

import numpy as np
from pydantic import BaseModel, Field, model_validator
from starlette.responses import Response

from service import bodies
from service.call import CurrentCall
from service.contract.manifest import END, START, unsayable
from service.engine import latents
from service.engine.store import Model, Role

TASK = "caption"
ROLES = {
    "encoder": Role(frozenset({"images"}), frozenset({"features", "keys", "state"})),
    "step": Role(frozenset({"features", "keys", "state", "words"}), frozenset({"log_probabilities", "next_state", "attention"})),
}

LENGTH_PENALTY = 0.7
"""The power of a sentence's length by which its log-probability is divided, so that short sentences are not preferred (Wu et al. 2016,
equation 14)."""
DECIMALS = 5
"""Of attention in an answer."""

router = bodies.router()


class CaptionRequest(bodies.Body):
    """`beams` belongs to `beam`; `temperature` and `seed` belong to `sample`; a field that is at its default is as good as left out."""

    image: bodies.Picture
    model: bodies.Model = None
    decoding: Annotated[
        Literal["beam", "greedy", "sample"],
        Field(description="the likeliest sentence that a beam search finds, the likeliest word each time, or words drawn by chance"),
    ] = "beam"
    beams: Annotated[int, Field(ge=1, le=10, description="how many sentences are followed at a time")] = 3
    temperature: Annotated[
        float, Field(gt=0, le=5, allow_inf_nan=False, description="what log-probabilities are divided by before a word is drawn")
    ] = 1.0
    seed: Annotated[bodies.Seed | None, Field(description="decides the words; drawn and reported in X-Seed when absent")] = None
    max_words: Annotated[int, Field(ge=1, le=50, description="after so many words, commas counted, the sentence breaks off")] = 30
    attention: Annotated[bool, Field(description="tell where the model looked for each word")] = False

    @model_validator(mode="after")
    def _together(self) -> Self:
        for name, decoding in (("beams", "beam"), ("temperature", "sample"), ("seed", "sample")):
            if getattr(self, name) != type(self).model_fields[name].default and self.decoding != decoding:
                raise ValueError(f"{name} belongs to decoding={decoding}")
        return self


class Word(BaseModel):
    word: str
    log_probability: float
    attention: list[list[float]] | None = Field(
        default=None, description="how much the model looked at each part of the picture, row by row; together 1; absent unless asked for"
    )


Ended = Annotated[bool, Field(description="whether the sentence came to its end; false where it broke off after max_words")]


class Alternative(BaseModel):
    caption: str
    log_probability: float
    ended: Ended


class CaptionAnswer(BaseModel):
    caption: str
    log_probability: float = Field(description="natural logarithm, of the words and, where the sentence ended, of the end after them")
    mean_log_probability: float = Field(
        description="the same by the word, the end included. Of a beam search's sentence it is low for plain, noisy and scribbled "
        "pictures: below the 1st percentile of test pictures, which the model's card gives. For most photographs and drawings of something "
        "else that the model does not know it is not"
    )
    ended: Ended
    words: list[Word]
    alternatives: list[Alternative] = Field(
        description="the other sentences that the beam search found, best first: those that ended before those that broke off, and by "
        f"log_probability over the number of words, commas and the end counted, to the power of {LENGTH_PENALTY}; the caption is the best"
    )
    model: str


REQUEST = CaptionRequest


@router.post("/v1/caption", **bodies.operation(CaptionRequest, CaptionAnswer, "Caption a picture"))
async def caption(call: CurrentCall, request: Annotated[CaptionRequest, bodies.body(CaptionRequest)]) -> Response:
    """Says what a picture shows. A model knows the words that it was trained with, and says something of any picture, often as surely as of
    one that it knows: `mean_log_probability` gives away plain, noisy and scribbled pictures, but not most of something else."""
    call.accepts_json()
    model = call.model(TASK, request.model)
    pixels = await call.pixels(request.image, model)
    seen = await call.run(model, TASK, "encoder", images=pixels[None])
    step = Step({"features": seen["features"], "keys": seen["keys"]})
    if request.decoding == "sample":
        seed = latents.draw_seed() if request.seed is None else request.seed
        call.headers["X-Seed"] = str(seed)
        found = [await call.run_steps(model, TASK, "step", drawn(step, seen["state"], request.max_words, request.temperature, seed))]
    else:
        beams = request.beams if request.decoding == "beam" else 1
        found = await call.run_steps(model, TASK, "step", searched(step, seen["state"], request.max_words, beams))
    return call.json(_answer(found, model, request.attention))


@dataclass(frozen=True)
class Sentence:
    """The beginning of a sentence, or a whole one.

    Attributes:
        words: their numbers; the last one is END if it is whole.
        log_probabilities: of each word after those before it.
        attention: for each word, (rows, columns).
        total: the sum of the log-probabilities.
    """

    words: tuple[int, ...] = ()
    log_probabilities: tuple[float, ...] = ()
    attention: tuple[np.ndarray, ...] = ()
    total: float = 0.0

    def longer(self, word: int, log_probability: float, attention: np.ndarray) -> Sentence:
        log_probabilities, total = (*self.log_probabilities, log_probability), self.total + log_probability
        return Sentence((*self.words, word), log_probabilities, (*self.attention, attention), total)

    @property
    def ended(self) -> bool:
        return self.words[-1:] == (END,)

    @property
    def rank(self) -> tuple[bool, float]:
        """Higher is better; of sentences of any length, whole ones first."""
        return self.ended, self.total / len(self.words) ** LENGTH_PENALTY


class Step:
    """The inputs of the graph that finds a word, for sentences of one picture.

    Args:
        seen: those that are the picture's, one row each.
    """

    def __init__(self, seen: dict[str, np.ndarray]) -> None:
        self._one, self._seen, self._rows = seen, dict[str, np.ndarray](), 0

    def __call__(self, words: np.ndarray, state: np.ndarray) -> dict[str, np.ndarray]:
        """Of sentences whose last words are (n,), and states (n, units). Their number seldom changes: pictures are not copied each time."""
        if len(words) != self._rows:
            self._rows = len(words)
            self._seen = {name: array.repeat(self._rows, axis=0) for name, array in self._one.items()}
        return {**self._seen, "state": state, "words": words}


Found = TypeVar("Found")
Search = Generator[dict[str, np.ndarray], dict[str, np.ndarray], Found]
"""Yields a step's inputs, is sent its outputs, `log_probabilities` (n, vocabulary) of the next words, `next_state` (n, units) and
`attention` (n, rows, columns), and returns what it found."""


def searched(step: Step, state: np.ndarray, most: int, beams: int) -> Search[list[Sentence]]:
    """The best sentences that a beam search finds, best first; with one beam, that of the likeliest word each time.

    It ends when it has found as many whole sentences as beams. What has not come to its end after `most` words ranks below those.

    Args:
        state: (1, units), before the first word.
    """
    whole, begun, words = list[Sentence](), [Sentence()], np.array([START], np.int32)
    for _ in range(most):
        found = yield step(words, state)
        log_probabilities = _sayable(found["log_probabilities"], first=not begun[0].words)
        totals = np.array([[sentence.total] for sentence in begun]) + log_probabilities
        longer, rows = list[Sentence](), list[int]()
        for rank, (row, word) in enumerate(_highest(totals, 2 * beams)):
            sentence = begun[row].longer(word, float(log_probabilities[row, word]), found["attention"][row])
            if word == END:
                whole += [sentence] * (rank < beams)
            elif len(longer) < beams:
                longer.append(sentence)
                rows.append(row)
        begun = longer
        if len(whole) >= beams or not begun:
            break
        words, state = np.array([sentence.words[-1] for sentence in begun], np.int32), found["next_state"][rows]
    if len(whole) < beams:
        whole += begun
    return sorted(whole, key=lambda sentence: sentence.rank, reverse=True)[:beams]


def drawn(step: Step, state: np.ndarray, most: int, temperature: float, seed: int) -> Search[Sentence]:
    """A sentence whose words are drawn by their probabilities, sharpened or evened out by the temperature.

    From NumPy's frozen `RandomState`, whose stream never changes between releases.
    """
    sentence, word, chances = Sentence(), START, np.random.RandomState(seed).random_sample(most)
    for chance in chances:
        found = yield step(np.array([word], np.int32), state)
        log_probabilities = _sayable(found["log_probabilities"], first=not sentence.words)[0]
        weights = np.exp((log_probabilities - log_probabilities.max()) / temperature)
        summed = np.cumsum(weights)
        word = int(np.searchsorted(summed, chance * summed[-1], side="right"))
        sentence = sentence.longer(word, float(log_probabilities[word]), found["attention"][0])
        if word == END:
            break
        state = found["next_state"]
    return sentence


def _sayable(log_probabilities: np.ndarray, first: bool) -> np.ndarray:
    """Without words that are never said, and without an end where nothing was said yet; float64."""
    said: np.ndarray = log_probabilities + _silence(log_probabilities.shape[1], first)
    return said


@cache
def _silence(vocabulary: int, first: bool) -> np.ndarray:
    """0 for words that may be said, and minus infinity for others, (vocabulary,)."""
    levels = np.zeros(vocabulary)
    levels[unsayable(first)] = -np.inf
    return levels


def _highest(values: np.ndarray, number: int) -> list[tuple[int, int]]:
    """Where the highest of values (n, m) are, highest first; without those that are minus infinity."""
    flat = values.ravel()
    number = min(number, int(np.isfinite(flat).sum()))
    chosen = np.argpartition(-flat, number - 1)[:number] if number else np.array([], int)
    order = chosen[np.lexsort((chosen, -flat[chosen]))]
    return [divmod(int(index), values.shape[1]) for index in order]


def _answer(found: list[Sentence], model: Model, attention: bool) -> CaptionAnswer:
    best, vocabulary = found[0], model.manifest.vocabulary

    def said(sentence: Sentence) -> list[str]:
        return [vocabulary[word] for word in sentence.words if word != END]

    def told(sentence: Sentence) -> str:
        return " ".join(said(sentence)).replace(" ,", ",")

    words = zip(said(best), best.log_probabilities, best.attention, strict=False)
    return CaptionAnswer(
        caption=told(best),
        log_probability=best.total,
        mean_log_probability=best.total / len(best.words),
        ended=best.ended,
        words=[
            Word(word=word, log_probability=value, attention=np.round(map_.astype(float), DECIMALS).tolist() if attention else None)
            for word, value, map_ in words
        ],
        alternatives=[Alternative(caption=told(other), log_probability=other.total, ended=other.ended) for other in found[1:]],
        model=model.name,
    )
