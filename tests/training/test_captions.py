"""Figures of captions: against the published evaluation, and on captions whose figures can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from training import captions
from training.data import Thing
from training.recipes.show_attend_tell import mark

CAPTIONED = [
    (
        "a man riding a wave on top of a surfboard",
        [
            "a man on a surfboard riding a wave",
            "a surfer rides a large wave in the ocean",
            "a man is riding a wave on a surfboard in the sea",
            "someone surfing on a big wave",
        ],
    ),
    (
        "a cat sitting on top of a laptop computer",
        [
            "a cat is lying on the keyboard of a laptop",
            "a grey cat sitting on a laptop computer",
            "a cat that is on top of a computer",
        ],
    ),
    (
        "a group of people standing around a table with food",
        [
            "several people stand around a table full of food",
            "a group of friends eating at a long table",
            "people gathered at a table with plates of food on it",
            "a group of people standing in front of a table",
            "a party with food on a table",
        ],
    ),
    (
        "a dog a dog and a dog",
        [
            "a brown dog and a black dog play with a ball",
            "two dogs running after a ball in the grass",
            "a dog chases another dog on a lawn",
        ],
    ),
    (
        "a red bus",
        [
            "a red double decker bus driving down a street",
            "a red bus is parked at the side of the road in front of a building",
            "a large red bus in a city street",
            "a bus on a street",
        ],
    ),
    (
        "a plate of pasta and broccoli on a wooden table with a glass of red wine beside it",
        [
            "a plate of pasta with broccoli",
            "broccoli and noodles on a white plate",
            "a white plate with pasta and broccoli on a table",
        ],
    ),
]
"""What was captioned, and its references. One caption repeats itself, one is too short, one too long."""


@pytest.mark.parametrize(
    ("number", "bleu", "rouge_l", "cider_d"),
    [
        (6, (0.807017543845491, 0.7226256447691431, 0.60411915878069, 0.44601587314167257), 0.6603004985934532, 1.8006142319449274),
        (5, (0.8769329362721997, 0.7981686216971026, 0.6635636829058307, 0.463773859509267), 0.6696858874021387, 2.0857446812510543),
    ],
)
def test_figures_are_those_of_the_published_evaluation(number: int, bleu: tuple[float, ...], rouge_l: float, cider_d: float) -> None:
    """The numbers are what Bleu(4), Rouge and Cider of pycocoevalcap 1.2 gave for CAPTIONED, and without its last entry, in this order.

    Without the last, the captions are together shorter than their references.
    """
    made, references = zip(*CAPTIONED[:number], strict=True)
    assert captions.bleu(made, references) == pytest.approx(bleu, abs=1e-6)
    assert captions.rouge_l(made, references) == pytest.approx(rouge_l, abs=1e-6)
    assert captions.cider_d(made, references) == pytest.approx(cider_d, abs=1e-6)


def test_references_agree_as_the_published_evaluation_says() -> None:
    """The mean of what Cider of pycocoevalcap 1.2 gave for the first, second and third reference against the others."""
    assert captions.agreement([references for _, references in CAPTIONED]) == pytest.approx(1.0767397149980231, abs=1e-6)
    assert captions.agreement([["a cat"], ["a dog"]]) == 0


def test_captions_of_nothing_have_low_figures_and_no_error() -> None:
    references = [["a cat", "a grey cat"], ["a dog"]]
    assert captions.bleu(["", ""], references) == (0, 0, 0, 0)
    assert captions.rouge_l(["", "fish"], references) == 0
    assert captions.cider_d(["", "fish"], references) == 0
    assert captions.bleu(["a cat", "a dog"], references)[:2] == pytest.approx((1, 1))
    assert captions.rouge_l(["a cat", "a dog"], references) == pytest.approx(1)
    assert captions.distinct(["a cat", "a dog", "a cat", "a cat"]) == 0.5


CAT, DOG, HIGH = Thing("cat", (0, 60, 30, 30)), Thing("dog", (60, 60, 30, 30)), Thing("cat", (60, 5, 30, 30))


def test_words_of_the_nearest_reference_count_but_for_those_that_name_nothing() -> None:
    references = [["a red apple", "some fruit"], ["the zebra and a horse"], ["it is a"]]
    assert captions.word_recall(["an apple on a table", "a zebra", "a"], references) == pytest.approx((0.5 + 0.5) / 2)
    assert captions.word_recall(["fruit", "a", "a"], references) == pytest.approx(0.5)
    assert captions.word_recall(["a"], [["a"]]) == 0.0


def test_objects_count_as_often_as_they_are_named() -> None:
    scenes = [(CAT, DOG), (CAT, HIGH), (DOG,)]
    assert captions.object_figures(["a cat and a dog", "two cats", "a dog"], scenes) == (1, 1)
    assert captions.object_figures(["a dog", "a cat", "a dog and some cheese"], scenes) == (3 / 5, 3 / 4)
    assert captions.object_figures(["three cats", "nothing", "a hot dog"], scenes) == (1 / 5, 1 / 4)


def test_relations_hold_by_the_boxes() -> None:
    made = ["a cat to the left of a dog", "a dog above a cat", "a cat and a dog", "a dog below some cheese", "a dog on the right"]
    scenes = [(CAT, DOG), (HIGH, DOG), (CAT, DOG), (CAT, DOG), (DOG,)]
    assert captions.relation_figures(made, scenes) == (1 / 2, 2 / 3)
    assert captions.relation_figures(["two cats to the left of a dog"], [(CAT, HIGH, DOG)]) == (0, 1)
    assert captions.relation_figures(["a fish above a fish"], [(CAT, DOG)]) == (0, 0)


def test_attention_points_at_what_a_word_names() -> None:
    words = ["a", "cat", "to", "the", "left", "of", "a", "dog", "and", "some", "cheese"]
    maps = np.zeros((len(words), 4, 4))
    maps[1, 2, 0] = maps[7, 0, 3] = maps[10, 0, 0] = 1  # the cat's place, not the dog's, and of cheese there is none
    assert captions.pointing_game([words], [maps], [(CAT, DOG)], 100) == 1 / 2
    maps[7, 2, 3] = 2
    assert captions.pointing_game([words], [maps], [(CAT, DOG)], 100) == 1
    assert captions.pointing_game([["nothing"]], [maps], [(CAT, DOG)], 100) == 0


def test_words_are_to_be_looked_for_where_the_things_lie_that_they_name() -> None:
    places = np.zeros((7, 4, 4), np.float32)
    mark(places, "a red apple and two zebras on blue", [Thing("zebra", (0, 0, 48, 48)), Thing("zebra", (144, 100, 40, 20))], 192)
    assert places[5].tolist() == [[1, 0, 0, 0], [0] * 4, [0, 0, 0, 1], [0] * 4]
    assert places.sum() == 2  # no apple is there, and the other words name nothing
