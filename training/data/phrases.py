"""What things are called: articles and plurals, relations that boxes make plain, captions made of FRAMES, and captions read back."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cache
from itertools import pairwise, product
from pathlib import Path
from string import Formatter
from typing import NamedTuple

import numpy as np

from training.data import Box, Thing

SHAPES = {f"{colour} {shape}": (colour, shape) for colour in ("red", "yellow", "green", "blue") for shape in ("disc", "square")}
"""The things in drawn scenes, by their label."""
PLURAL = (
    *("blueberries", "books", "cherries", "chopsticks", "french fries", "glasses", "gloves", "grapes", "headphones", "jeans", "maracas"),
    *("pancakes", "peanuts", "scissors", "socks", "sunglasses"),
)
"""Labels that are plurals already."""
MASS = (
    *("bacon", "bread", "broccoli", "bubble tea", "candy", "cheese", "corn", "garlic", "ice cream", "luggage", "popcorn", "salad", "soap"),
    *("spaghetti", "sushi"),
)
"""Labels of what is not counted."""
IRREGULAR = {
    **{same: same for same in ("blowfish", "deer", "fish", "jellyfish")},
    **{"cactus": "cacti", "maple leaf": "maple leaves", "mouse": "mice", "scarf": "scarves", "snowman": "snowmen", "wolf": "wolves"},
    **{noun: f"{noun}es" for noun in ("mango", "mosquito", "potato", "tomato", "tornado", "volcano")},
}
"""Plurals that no rule gives."""
ARTICLES = {"hourglass": "an", "unicorn": "a"}
"""Articles that the first letter does not give."""
NUMBERS = {"a": 1, "an": 1, "some": 1, "two": 2, "three": 3}
OPPOSITE = {"to the left of": "to the right of", "to the right of": "to the left of", "above": "below", "below": "above"}
PLACES = ("on the left", "in the middle", "on the right")
IN_ORDER = "from left to right"
APART, ASIDE = 0.8, 1.4
"""When a relation is plain: how far apart the centres lie, of the distance at which the boxes would touch, and how much more in its
direction than across."""

FRAMES = (
    # one to three kinds of things; lists go from left to right
    "{all}",
    "a picture of {all}",
    "an image of {all}",
    "a scene with {all}",
    "the picture shows {all}",
    "you can see {all}",
    "there {are} {all}",
    "{all} on {ground}",
    "{all} against {ground}",
    "{all} in front of {ground}",
    "a picture of {all} on {ground}",
    "there {are} {all} on {ground}",
    "the picture shows {all} against {ground}",
    "{ground} with {all}",
    "{ground} behind {all}",
    # one kind
    "{alone} {where}",
    "{alone} {where} of the picture",
    "{where} {are} {alone}",
    "{where} of the picture there {are} {alone}",
    "there {are} {alone} {where}",
    "a picture with {alone} {where}",
    "{ground} with {alone} {where}",
    "{alone} {arranged}",
    "{alone} {arranged} on {ground}",
    "a picture of {alone} {arranged}",
    "there {are} {alone} {arranged}",
    # two kinds
    "{one} {to} {other}",
    "{other} {back} {one}",
    "{one} {one_is} {to} {other}",
    "there {one_is} {one} {to} {other}",
    "{to} {other} {one_is} {one}",
    "{back} {one} there {other_is} {other}",
    "a picture of {one} {to} {other}",
    "the picture shows {other} {back} {one}",
    "{one} {to} {other} on {ground}",
    "{other} {back} {one} against {ground}",
    "{ground} with {one} {to} {other}",
    "{left} on the left and {right} on the right",
    "{right} on the right and {left} on the left",
    "on the left {left_is} {left} and on the right {right_is} {right}",
    "a picture with {left} on the left and {right} on the right",
    "{ground} with {left} on the left and {right} on the right",
    # two or three kinds
    "{ordered} from left to right",
    "from left to right {ordered}",
    "{ordered} from left to right on {ground}",
    # three kinds
    "{first} on the left, {second} in the middle and {third} on the right",
    "a picture with {first} on the left, {second} in the middle and {third} on the right",
    "{both} {towards} {last}",
    "{last} {from} {both}",
    "there {last_is} {last} {from} {both}",
    "{both} {towards} {last} on {ground}",
    "besides {rest} there {this_is} {this} {beside} {that}",
    "{this} {beside} {that}, together with {rest}",
    "{that} {opposite} {this}, together with {rest}",
)
"""Sentences. A scene takes those for which it has all that is in braces."""


@cache
def objects() -> dict[str, str]:
    """The label of each emoji that may be in a scene, by its code point."""
    return dict(json.loads(Path(__file__).with_name("scene_objects.json").read_text()))


def countable(label: str) -> bool:
    return label not in PLURAL and label not in MASS


def article(noun: str) -> str:
    return ARTICLES.get(noun, "an" if noun[0] in "aeiou" else "a")


def plural(label: str) -> str:
    """Of a countable label."""
    if label in IRREGULAR:
        return IRREGULAR[label]
    if re.search(r"[^aeiou]y$", label):
        return f"{label[:-1]}ies"
    return f"{label}es" if re.search(r"(s|x|z|ch|sh)$", label) else f"{label}s"


def phrase(label: str, number: int = 1) -> str:
    """`a cat`, `an ant`, `three cats`, `some cheese`.

    Args:
        number: 1 to 3; 1 where the label is not countable.
    """
    if not countable(label):
        return f"some {label}"
    if number == 1:
        return f"{article(label)} {label}"
    return f"{next(word for word, value in NUMBERS.items() if value == number)} {plural(label)}"


def relation(first: Sequence[Box], second: Sequence[Box]) -> str | None:
    """How all of some things lie to all of others, one of OPPOSITE, where their boxes make it plain."""
    found = {_relation(one, other) for one, other in product(first, second)}
    return found.pop() if len(found) == 1 else None


def _relation(first: Box, second: Box) -> str | None:
    across, down = (b - a for a, b in zip(centre(first), centre(second), strict=True))
    if abs(across) >= max(APART * _touching(first, second, 0), ASIDE * abs(down)):
        return "to the left of" if across > 0 else "to the right of"
    if abs(down) >= max(APART * _touching(first, second, 1), ASIDE * abs(across)):
        return "above" if down > 0 else "below"
    return None


def holds(first: Box, stated: str, second: Box) -> bool:
    """Whether the centre of the first box lies on that side of the second's."""
    across, down = (b - a for a, b in zip(centre(first), centre(second), strict=True))
    return {"to the left of": across, "to the right of": -across, "above": down, "below": -down}[stated] > 0


def centre(box: Box) -> tuple[float, float]:
    return box[0] + box[2] / 2, box[1] + box[3] / 2


def _touching(first: Box, second: Box, axis: int) -> float:
    """How far apart the centres are where two boxes just touch, across (0) or down (1)."""
    return (first[2 + axis] + second[2 + axis]) / 2


def captions(things: Sequence[Thing], ground: str, side: int, random: np.random.Generator, number: int = 5) -> tuple[str, ...]:
    """Differently worded captions of a picture, each true; those that say where things are come twice as often as the others.

    Args:
        things: one to three; of a label that is not countable, one.
        ground: what is behind them, such as `a red background`.
        side: of the picture, in pixels.
    """
    slots = _slots(things, side, random) | {"ground": ground}
    frames = [frame for frame in FRAMES if _fields(frame) <= slots.keys()]
    weights = np.array([2.0 if _fields(frame) - {"all", "are", "ground"} else 1.0 for frame in frames])
    chosen = random.choice(len(frames), number, replace=False, p=weights / weights.sum())
    return tuple(frames[index].format_map(slots) for index in chosen)


@cache
def _fields(frame: str) -> frozenset[str]:
    return frozenset(field for _, field, _, _ in Formatter().parse(frame) if field)


class _Kind(NamedTuple):
    """All things of one label in a picture."""

    label: str
    boxes: list[Box]

    def __str__(self) -> str:
        return phrase(self.label, len(self.boxes))

    @property
    def verb(self) -> str:
        return "are" if len(self.boxes) > 1 or self.label in PLURAL else "is"


def _slots(things: Sequence[Thing], side: int, random: np.random.Generator) -> dict[str, str]:
    """What the frames have in braces, as far as it is true of a picture."""
    labels = dict.fromkeys(thing.label for thing in things)
    kinds = [_Kind(label, [thing.box for thing in things if thing.label == label]) for label in labels]
    kinds.sort(key=lambda kind: float(np.mean([centre(box)[0] for box in kind.boxes])))
    slots = {"all": _list(kinds), "are": kinds[0].verb}
    if len(kinds) == 1:
        return slots | _alone(kinds[0], side)
    if all(_clear(*two) for two in pairwise(kinds)):
        slots["ordered"] = slots["all"]
    return slots | (_two(kinds, side, random) if len(kinds) == 2 else _three(kinds, side, random))


def _list(kinds: Sequence[_Kind]) -> str:
    *first, last = map(str, kinds)
    return f"{', '.join(first)} and {last}" if first else last


def _alone(kind: _Kind, side: int) -> dict[str, str]:
    slots = {"alone": str(kind)}
    places = {_place(box, side) for box in kind.boxes}
    if len(places) == 1 and (place := places.pop()):
        slots["where"] = place
    if len(kind.boxes) == 2 and (way := _relation(*kind.boxes)):
        slots["arranged"] = "one above the other" if way in ("above", "below") else "side by side"
    return slots


def _place(box: Box, side: int) -> str | None:
    """Where a thing plainly is in its picture, one of PLACES."""
    across, down = (coordinate / side for coordinate in centre(box))
    if abs(across - 0.5) < 0.08 and abs(down - 0.5) < 0.15:
        return PLACES[1]
    return PLACES[0] if across < 0.36 else PLACES[2] if across > 0.64 else None


def _clear(left: _Kind, right: _Kind) -> bool:
    """Whether all things of one kind lie to the left of those of another, however high."""
    return all(centre(b)[0] - centre(a)[0] >= APART * _touching(a, b, 0) for a, b in product(left.boxes, right.boxes))


def _two(kinds: Sequence[_Kind], side: int, random: np.random.Generator) -> dict[str, str]:
    left, right = kinds
    slots: dict[str, str] = {}
    if _clear(left, right) and all(centre(a)[0] < side / 2 < centre(b)[0] for a, b in product(left.boxes, right.boxes)):
        slots |= {"left": str(left), "left_is": left.verb, "right": str(right), "right_is": right.verb}
    one, other = kinds if random.random() < 0.5 else kinds[::-1]
    if to := relation(one.boxes, other.boxes):
        slots |= {"one": str(one), "one_is": one.verb, "other": str(other), "other_is": other.verb, "to": to, "back": OPPOSITE[to]}
    return slots


def _three(kinds: Sequence[_Kind], side: int, random: np.random.Generator) -> dict[str, str]:
    slots: dict[str, str] = {}
    first, second, third = kinds
    across = [centre(kind.boxes[0])[0] / side for kind in kinds]
    if _clear(first, second) and _clear(second, third) and across[0] < 0.4 and 0.3 < across[1] < 0.7 and across[2] > 0.6:
        slots |= {"first": str(first), "second": str(second), "third": str(third)}
    for index in random.permutation(3):
        last, both = kinds[index], [*kinds[:index], *kinds[index + 1 :]]
        if to := relation(both[0].boxes, both[1].boxes):
            slots |= {"rest": str(last), "this": str(both[0]), "this_is": both[0].verb, "that": str(both[1])}
            slots |= {"beside": to, "opposite": OPPOSITE[to]}
        if to := relation(both[0].boxes + both[1].boxes, last.boxes):
            slots |= {"both": _list(both), "towards": to, "last": str(last), "last_is": last.verb, "from": OPPOSITE[to]}
    return slots


class Mention(NamedTuple):
    """A thing that a caption names: how many, and where the words of its label lie among the caption's, the last excluded."""

    label: str
    number: int
    start: int
    stop: int


@cache
def _nouns() -> dict[tuple[str, ...], str]:
    """The label that each noun belongs to, singular or plural, by its words."""
    labels = (*objects().values(), *SHAPES)
    return {tuple(noun.split()): label for label in labels for noun in (label, plural(label) if countable(label) else label)}


def words(caption: str) -> list[str]:
    """The words of a caption, commas among them."""
    return re.findall(r"[^\s,]+|,", caption)


def mentions(words: Sequence[str]) -> list[Mention]:
    """The things that a caption names, by the longest labels that match; without a number that is one."""
    found, nouns, start = list[Mention](), _nouns(), 0
    longest = max(map(len, nouns))
    while start < len(words):
        stop = next((stop for stop in range(min(start + longest, len(words)), start, -1) if tuple(words[start:stop]) in nouns), None)
        if stop is not None:
            number = NUMBERS.get(words[start - 1], 1) if start else 1
            found.append(Mention(nouns[tuple(words[start:stop])], number, start, stop))
        start = stop or start + 1
    return found


def mentioned(caption: str) -> list[str]:
    """The labels of the things that a caption names, in the order of mention, as often as it counts them."""
    return [mention.label for mention in mentions(words(caption)) for _ in range(mention.number)]


_RELATION, _PLACE = (f"({'|'.join(names)})" for names in (OPPOSITE, PLACES))
_STATED = re.compile(rf"(?=<(\d+)>(?: is| are)? {_RELATION} <(\d+)>)")
_AHEAD = re.compile(rf"{_RELATION} <(\d+)>(?: there)? (?:is|are) <(\d+)>")
_PLACED = re.compile(rf"<(\d+)> {_PLACE}")
_PLACED_AHEAD = re.compile(rf"{_PLACE}(?: of the picture)?(?: there)? (?:is|are) <(\d+)>")


def relations(caption: str) -> list[tuple[str, str, str]]:
    """What a caption states of how things lie to each other: label, one of OPPOSITE, label.

    Of `a cat on the left and a dog on the right` and of `a cat and a dog from left to right` it is that the cat is to the left of the dog.
    Of `a cat and a dog above a pig` it is what is stated of the dog.
    """
    said = words(caption)
    found = mentions(said)
    for index, (_, _, start, stop) in reversed([*enumerate(found)]):
        said[start:stop] = [f"<{index}>"]
    text = " ".join(word for word in said if word not in NUMBERS)
    stated = [(int(first), way, int(second)) for first, way, second in _STATED.findall(text)]
    stated += [(int(first), way, int(second)) for way, second, first in _AHEAD.findall(text)]
    placed = [(PLACES.index(place), int(index)) for index, place in _PLACED.findall(text)]
    placed += [(PLACES.index(place), int(index)) for place, index in _PLACED_AHEAD.findall(text)]
    stated += [(first, "to the left of", second) for (a, first), (b, second) in pairwise(sorted(placed)) if a < b]
    if IN_ORDER in text:
        stated += [(index, "to the left of", index + 1) for index in range(len(found) - 1)]
    return [(found[first].label, way, found[second].label) for first, way, second in stated]
