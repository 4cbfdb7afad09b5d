"""Figures of captions: against the published evaluation, and on captions whose figures can be counted by hand."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from service.contract.manifest import END, SPECIAL, Fit
from training import captioning, captions
from training.data import Dataset, Split, Thing
from training.problems import TrainingError
from training.recipes import show_attend_tell
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


def test_sentences_end_only_where_they_do() -> None:
    words = (*SPECIAL, "a", "cat", "dog")
    found = show_attend_tell.numbered(["a cat", "a cat a dog", "a cat a dog a", "a zebra a cat a dog"], words, 4)
    assert found.tolist() == [[3, 4, END, END, END], [3, 4, 3, 5, END], [3, 4, 3, 5, 3], [3, 2, 3, 4, 3]]


def told(*sentences: str) -> Dataset:
    """A picture for each sentence."""
    split = Split(
        np.zeros((len(sentences), 8, 8, 3), np.uint8), np.zeros(len(sentences), np.int32), captions=tuple((s,) for s in sentences)
    )
    return Dataset("told", "told", split, split, split, Fit(height=8, width=8, channels=3, mode="stretch"), "told", "none", "told")


def test_words_that_are_often_used_are_learned() -> None:
    data, config = told("a cat", "a dog", "a cat, asleep"), show_attend_tell.Config(fewest=2)
    assert show_attend_tell.vocabulary(data, config) == (*SPECIAL, "a", "cat")
    assert show_attend_tell.vocabulary(data, dataclasses.replace(config, words=1)) == (*SPECIAL, "a")
    with pytest.raises(TrainingError, match="no word is used 4 times: lower --fewest"):
        show_attend_tell.vocabulary(data, dataclasses.replace(config, fewest=4))


def test_samples_say_what_the_server_would() -> None:
    """No special word, and no empty sentence, however likely."""
    chances = np.array([0.4, 0.2, 0.3, 0.1])  # of <end>, <start>, <unknown> and `cat`, after each word
    looked = {name: np.zeros((2, 1)) for name in ("features", "keys", "state")}
    following = {"next_state": np.zeros((2, 1)), "log_probabilities": np.log([chances, chances])}
    teller: Any = SimpleNamespace(look=lambda _: looked, tell=lambda _: following, vocabulary=(*SPECIAL, "cat"))
    assert show_attend_tell.greedy(teller, None, 5) == ["cat", "cat"]


class Sure:
    """A server that is as sure of a picture as it is bright, and calls all of them a cat."""

    model = "sure"

    async def shown(self, task: str, pictures: np.ndarray, **fields: str) -> list[dict[str, Any]]:
        words = [{"word": word, "attention": [[1.0]]} for word in ("a", "cat")]
        return [{"caption": "a cat", "words": words, "mean_log_probability": picture.mean() / 255 - 1} for picture in pictures]


def measured(data: Dataset, folder: Path) -> captioning.Figures:
    return asyncio.run(captioning.measure_caption(cast("Any", Sure()), data, folder))[0]


def test_how_well_doubt_tells_other_pictures_is_measured(tmp_path: Path) -> None:
    data = told("a cat", "a dog")
    data.test.images[:] = 200
    assert measured(data, tmp_path)["caption_digits_auroc"][0] == 1
    assert "caption_photographs_auroc" not in measured(data, tmp_path)
    photographs = np.array([100, 220, 230, 200], np.uint8)[:, None, None, None] * np.ones((8, 8, 3), np.uint8)
    found = measured(dataclasses.replace(data, empty=photographs), tmp_path)
    assert found["caption_photographs_auroc"][0] == pytest.approx((1 + 0.5) / 4), "one less sure of, one just as sure"


def test_one_picture_has_no_cider_d(tmp_path: Path) -> None:
    names = {"caption_cider_d", "caption_greedy_cider_d"}
    assert not names & measured(told("a cat"), tmp_path).keys()
    assert names <= measured(told("a cat", "a dog"), tmp_path).keys()


def test_all_boxes_of_a_label_are_hit_by_chance() -> None:
    things = [
        (Thing("cat", (0, 0, 10, 10)), Thing("cat", (50, 50, 20, 10)), Thing("dog", (0, 0, 100, 50))),
        (Thing("cat", (5, 0, 10, 100)),),
    ]
    split = dataclasses.replace(told("a cat", "a dog").test, objects=tuple(things))
    assert captioning._by_chance(split, 100) == pytest.approx((0.03 + 0.5 + 0.1) / 3)
