"""Figures of captions, in Python and NumPy.

Captions are words with one space between them, without punctuation (training.data.captions.cleaned makes them so); `references` are the
sentences that people, or a data source, wrote about each picture. BLEU, ROUGE-L and CIDEr-D are computed as the published evaluation of
COCO's captions does (Chen et al. 2015), save for its tokeniser. A share of nothing is 0.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np

from training.data import Box, Thing, phrases

ORDERS = (1, 2, 3, 4)
BETA = 1.2
"""How much more recall weighs in ROUGE-L than precision."""
SIGMA = 6.0
"""Words by which lengths may differ in CIDEr-D."""

FUNCTION_WORDS = frozenset(
    phrases.words("a an the some any our your another this that it its and or of on in at with by to for from is are be")
)
"""Words that name nothing."""

Gram = tuple[str, ...]
References = Sequence[Sequence[str]]
Scenes = Sequence[Sequence[Thing]]


def bleu(captions: Sequence[str], references: References) -> tuple[float, float, float, float]:
    """BLEU-1 to BLEU-4 of all captions together, 0 to 1 (Papineni et al. 2002).

    The geometric mean of the clipped precisions of n-grams, less where the captions are shorter than their references, of which
    the one of the closest length counts (of two such the shorter).
    """
    right, made, length, wanted = Counter[int](), Counter[int](), 0, 0
    for caption, sentences in zip(captions, references, strict=True):
        words, others = caption.split(), [sentence.split() for sentence in sentences]
        length += len(words)
        wanted += min((abs(len(other) - len(words)), len(other)) for other in others)[1]
        for order in ORDERS:
            most = Counter[Gram]()
            for other in others:
                most |= _grams(other, order)
            found = _grams(words, order)
            right[order] += (found & most).total()
            made[order] += found.total()
    precisions = np.array([right[order] / max(1, made[order]) for order in ORDERS])
    brevity = math.exp(min(0.0, 1 - wanted / max(1, length)))
    one, two, three, four = (float(brevity * np.prod(precisions[:order]) ** (1 / order)) for order in ORDERS)
    return one, two, three, four


def _grams(words: Sequence[str], order: int) -> Counter[Gram]:
    return Counter(tuple(words[start : start + order]) for start in range(len(words) - order + 1))


def rouge_l(captions: Sequence[str], references: References) -> float:
    """ROUGE-L, 0 to 1 (Lin 2004, section 3): the longest common subsequence with a reference, as F measure, on average over the pictures.

    Precision and recall are each the best that a reference gives.
    """
    return float(
        np.mean([_rouge_l(caption.split(), [s.split() for s in some]) for caption, some in zip(captions, references, strict=True)])
    )


def _rouge_l(words: list[str], references: list[list[str]]) -> float:
    common = [_common(words, reference) for reference in references]
    precision = max(common) / max(1, len(words))
    recall = max(length / max(1, len(reference)) for length, reference in zip(common, references, strict=True))
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision) if precision else 0.0


def _common(first: list[str], second: list[str]) -> int:
    """The length of the longest common subsequence."""
    above = [0] * (len(second) + 1)
    for word in first:
        row = [0]
        for place, other in enumerate(second):
            row.append(above[place] + 1 if word == other else max(row[-1], above[place + 1]))
        above = row
    return above[-1]


def cider_d(captions: Sequence[str], references: References) -> float:
    """CIDEr-D, 0 to 10 (Vedantam et al. 2015, section 4 and its D variant), on average over the pictures.

    The similarity of n-grams of 1 to 4 words, weighted by how few pictures of this set have them in their references, with clipping and a
    penalty for another length.
    """
    frequency = Counter[Gram]()
    for sentences in references:
        frequency.update({gram for sentence in sentences for order in ORDERS for gram in _grams(sentence.split(), order)})
    log_pictures = math.log(len(references))
    scores = []
    for caption, sentences in zip(captions, references, strict=True):
        words, similarity = caption.split(), 0.0
        for sentence in sentences:
            other = sentence.split()
            penalty = math.exp(-((len(words) - len(other)) ** 2) / (2 * SIGMA**2))
            similarity += penalty * sum(
                _similarity(_weighed(words, order, frequency, log_pictures), _weighed(other, order, frequency, log_pictures))
                for order in ORDERS
            )
        scores.append(10 * similarity / len(ORDERS) / len(sentences))
    return float(np.mean(scores))


def _weighed(words: list[str], order: int, frequency: Counter[Gram], log_pictures: float) -> dict[Gram, float]:
    return {gram: count * (log_pictures - math.log(max(1, frequency[gram]))) for gram, count in _grams(words, order).items()}


def _similarity(caption: Mapping[Gram, float], reference: Mapping[Gram, float]) -> float:
    """The cosine of two weighed sets of n-grams, in which what a caption repeats counts no more often than in the reference."""
    norms = math.sqrt(sum(weight**2 for weight in caption.values()) * sum(weight**2 for weight in reference.values()))
    both = sum(min(weight, reference.get(gram, 0.0)) * reference.get(gram, 0.0) for gram, weight in caption.items())
    return both / norms if norms else 0.0


def agreement(references: References) -> float:
    """CIDEr-D of one reference against the others of its picture, on average over which one: what one of its authors would reach.

    Pictures with one reference are left out; 0 where there are no others.
    """
    several = [some for some in references if len(some) > 1]
    left_out = range(min(map(len, several), default=0))
    found = [cider_d([some[one] for some in several], [[*some[:one], *some[one + 1 :]] for some in several]) for one in left_out]
    return float(np.mean(found)) if found else 0.0


def distinct(captions: Sequence[str]) -> float:
    """The share of different captions among all."""
    return len(set(captions)) / len(captions)


def word_recall(captions: Sequence[str], references: References) -> float:
    """The share of a reference's words, function words left out, that are said: of the reference of which most are, on average over the
    pictures."""
    shares = []
    for caption, sentences in zip(captions, references, strict=True):
        said, named = set(caption.split()), [set(sentence.split()) - FUNCTION_WORDS for sentence in sentences]
        shares += [max(found)] if (found := [len(words & said) / len(words) for words in named if words]) else []
    return float(np.mean(shares)) if shares else 0.0


def object_figures(captions: Sequence[str], objects: Scenes) -> tuple[float, float]:
    """Recall and precision of the things that captions name, as often as they count them, over all pictures."""
    right = there = named = 0
    for caption, things in zip(captions, objects, strict=True):
        seen, said = Counter(thing.label for thing in things), Counter(phrases.mentioned(caption))
        right += (seen & said).total()
        there += seen.total()
        named += said.total()
    return right / max(1, there), right / max(1, named)


def relation_figures(captions: Sequence[str], objects: Scenes) -> tuple[float, float]:
    """Of the relations stated between things that are both in the picture, the share that hold; and how often one is stated.

    A relation holds where it does by the centres of the boxes, for all things of the two labels. The second figure is the share, among the
    captions that name two or more of the picture's labels, of those that state a relation between such.
    """
    right = stated = able = stating = 0
    for caption, things in zip(captions, objects, strict=True):
        boxes: dict[str, list[Box]] = {}
        for thing in things:
            boxes.setdefault(thing.label, []).append(thing.box)
        found = [(one, way, other) for one, way, other in phrases.relations(caption) if one in boxes and other in boxes and one != other]
        right += sum(all(phrases.holds(a, way, b) for a, b in product(boxes[one], boxes[other])) for one, way, other in found)
        stated += len(found)
        able += len(boxes.keys() & set(phrases.mentioned(caption))) > 1
        stating += bool(found)
    return right / max(1, stated), stating / max(1, able)


def pointing_game(captions: Sequence[Sequence[str]], maps: Sequence[np.ndarray], objects: Scenes, side: int) -> float:
    """The share of words naming a thing of the picture whose attention is highest within a box of it (Zhang et al. 2016, section 4).

    Args:
        captions: the words of each.
        maps: for each caption (words, rows, columns), grids that cover the whole picture.
        side: of the pictures that the boxes are in, in pixels.
    """
    hits = tries = 0
    for words, attention, things in zip(captions, maps, objects, strict=True):
        for mention in phrases.mentions(words):
            boxes = [thing.box for thing in things if thing.label == mention.label]
            for grid in attention[mention.start : mention.stop] if boxes else ():
                row, column = np.unravel_index(grid.argmax(), grid.shape)
                x, y = (column + 0.5) * side / grid.shape[1], (row + 0.5) * side / grid.shape[0]
                hits += any(left <= x < left + width and top <= y < top + height for left, top, width, height in boxes)
                tries += 1
    return hits / max(1, tries)
