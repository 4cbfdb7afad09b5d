"""POST /v1/caption over HTTP, with small graphs whose words are known: which one is likely hangs on the one before; and the search itself,
with words made by hand."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from math import log
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from built import SIDE, captioner
from PIL import Image
from support import Server, encoded

from service.contract.manifest import END, SPECIAL, Fit
from service.tasks.caption import Found, Search, Sentence, Step, _answer, drawn, searched


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("caption") / "models"
    captioner(folder, default_for=("caption",), fit=Fit(height=SIDE, width=SIDE, channels=3, mode="stretch"))
    server = Server(ATELIER_MODELS=str(folder))
    assert server.until_loaded().status_code == 200
    yield server
    server.stop()


def picture() -> bytes:
    """Bright above, dark below; wider than high."""
    levels = np.zeros((20, 60, 3), np.uint8)
    levels[:10] = 200
    levels[:10, 30:] = 100
    return encoded(Image.fromarray(levels))


def ask(server: Server, **fields: Any) -> dict[str, Any]:
    answer = server.client.post("/v1/caption", files={"image": picture()}, data=fields)
    assert answer.status_code == 200, answer.text
    return dict(answer.json()) | {"seed": answer.headers.get("X-Seed")}


def test_a_beam_finds_what_word_by_word_does_not(server: Server) -> None:
    greedy = ask(server, decoding="greedy")
    assert (greedy["caption"], greedy["alternatives"], greedy["model"]) == ("a cat", [], "talks")
    assert greedy["log_probability"] == pytest.approx(log(0.6 * 0.35), abs=1e-5)
    assert greedy["mean_log_probability"] == pytest.approx(log(0.6 * 0.35) / 3, abs=1e-5)
    assert [word["word"] for word in greedy["words"]] == ["a", "cat"]
    assert greedy["words"][1]["log_probability"] == pytest.approx(log(0.35), abs=1e-5)
    assert "attention" not in greedy["words"][0]
    beam = ask(server)
    assert beam["caption"] == "the sun"
    assert all(sentence["ended"] for sentence in (greedy, beam, *beam["alternatives"]))
    assert [other["caption"] for other in beam["alternatives"]] == ["a cat", "a dog"]
    assert beam["alternatives"][1]["log_probability"] == pytest.approx(log(0.6 * 0.33), abs=1e-5)
    assert ask(server, beams=1)["caption"] == "a cat"
    widest = [other["caption"] for other in ask(server, beams=10)["alternatives"]]
    assert (widest[:4], len(widest)) == (["a cat", "a dog", "a sun", "the dog"], 9)


def test_sampling_repeats_with_a_seed_and_varies_without(server: Server) -> None:
    same = [ask(server, decoding="sample", seed=7) for _ in range(2)]
    assert same[0] == same[1]
    told = ask(server, decoding="sample")
    assert ask(server, decoding="sample", seed=told["seed"]) == told
    found = [ask(server, decoding="sample", seed=seed)["caption"] for seed in range(60)]
    assert set(found) == {"a cat", "a dog", "a sun", "the sun", "the dog"}
    assert 0.4 < np.mean([sentence.startswith("a ") for sentence in found]) < 0.8
    assert {ask(server, decoding="sample", temperature=0.01, seed=seed)["caption"] for seed in range(5)} == {"a cat"}


def test_attention_covers_the_picture(server: Server) -> None:
    """Quarters of levels 200, 100, 0 and 0."""
    words = ask(server, attention=True)["words"]
    for word in words:
        assert np.allclose(word["attention"], [[2 / 3, 1 / 3], [0, 0]], atol=0.02)
        assert sum(map(sum, word["attention"])) == pytest.approx(1, abs=1e-3)


def test_a_sentence_breaks_off_after_its_most_words(server: Server) -> None:
    for decoding in ("greedy", "beam", "sample"):
        answer = ask(server, decoding=decoding, max_words=1)
        assert len(answer["words"]) == 1
        assert not answer["ended"]
        assert not any(other["ended"] for other in answer["alternatives"])
        assert answer["mean_log_probability"] == pytest.approx(answer["words"][0]["log_probability"])


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"beams": 4, "decoding": "greedy"}, "beams belongs to decoding=beam"),
        ({"seed": 1}, "seed belongs to decoding=sample"),
        ({"temperature": 0.5, "decoding": "beam"}, "temperature belongs to decoding=sample"),
        ({"beams": 11}, "less than or equal to 10"),
        ({"max_words": 0}, "greater than or equal to 1"),
        ({"decoding": "best"}, "'beam', 'greedy' or 'sample'"),
        ({"temperature": 0, "decoding": "sample"}, "greater than 0"),
    ],
)
def test_what_does_not_go_together_is_refused(server: Server, fields: dict[str, Any], told: str) -> None:
    answer = server.client.post("/v1/caption", files={"image": picture()}, data=fields)
    assert answer.status_code == 422
    assert told in answer.text


def test_defaults_may_be_sent(server: Server) -> None:
    """As clients do that were generated from the OpenAPI document."""
    for decoding in ("beam", "greedy"):
        assert ask(server, decoding=decoding, beams=3, temperature=1.0) == ask(server, decoding=decoding)
    assert ask(server, decoding="sample", beams=3, seed=1) == ask(server, decoding="sample", seed=1)


def test_many_at_once_get_what_one_gets(server: Server) -> None:
    asked = [{"beams": 2}, {"decoding": "greedy"}, {"decoding": "sample", "seed": 3}, {"beams": 5, "max_words": 2}]
    alone = [ask(server, **fields) for fields in asked]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda number: ask(server, **asked[number % 4]), range(160)))
    assert all(answer == alone[number % 4] for number, answer in enumerate(together))


A, B, C = 3, 4, 5
"""Words of sentences that are made by hand."""
Chances = dict[tuple[int, ...], dict[int, float]]


def said(steps: Search[Found], chances: Chances) -> Found:
    """What a search finds where each next word is so likely after the words so far, which are read from the state; what is looked at is the
    last word.

    The state spells the words before the last one as a number's digits, so that of another sentence gives other chances. Where none are
    given, all words are unlikely, and an end more so.
    """

    def step(words: np.ndarray, state: np.ndarray) -> dict[str, np.ndarray]:
        found, attention = np.full((len(words), 6), 1e-9), np.zeros((len(words), 1, 6))
        found[:, END] = 1e-12
        for row, (word, spelt) in enumerate(zip(words, state[:, 0], strict=True)):
            before = tuple(map(int, str(int(spelt)))) if spelt else ()
            for following, chance in chances.get((*before, int(word))[1:], {}).items():
                found[row, following] = chance
            attention[row, 0, word] = 1
        return {"log_probabilities": np.log(found), "next_state": 10 * state + words[:, None], "attention": attention}

    given = next(steps)
    while True:
        try:
            given = steps.send(step(**given))
        except StopIteration as end:
            return cast(Found, end.value)


def search(chances: Chances, most: int, beams: int) -> list[Sentence]:
    return said(searched(Step({}), np.zeros((1, 1)), most, beams), chances)


def draw(chances: Chances, most: int, seed: int = 0) -> Sentence:
    return said(drawn(Step({}), np.zeros((1, 1)), most, 1.0, seed), chances)


def test_a_sentence_is_never_empty_and_has_no_special_words() -> None:
    chances: Chances = {(): {END: 0.6, 1: 0.1, 2: 0.2, A: 0.1}, (A,): {2: 0.5, 1: 0.3, END: 0.2}}
    assert [sentence.words for sentence in search(chances, 5, 1)] == [(A, END)]
    assert search(chances, 5, 1)[0].total == pytest.approx(log(0.1 * 0.2)), "what may not be said keeps its probability"
    assert search(chances, 5, 3)[0].words == (A, END)
    assert {draw(chances, 2, seed).words for seed in range(50)} == {(A, END)}


@pytest.mark.parametrize(("short", "long", "best"), [(-1.0, -1.3, 4), (-1.0, -1.8, 2)])
def test_sentences_of_any_length_compete(short: float, long: float, best: int) -> None:
    """Of two and of four words, by their log-probabilities over 2 ** 0.7 = 1.62 and 4 ** 0.7 = 2.64."""
    chances: Chances = {
        (): {A: 0.5, B: 0.5},
        (A,): {END: 2 * np.exp(short), C: 1 - 2 * np.exp(short)},
        (B,): {C: 1},
        (B, C): {C: 1},
        (B, C, C): {END: 2 * np.exp(long), A: 1 - 2 * np.exp(long)},
    }
    found = search(chances, 5, 2)
    assert len(found[0].words) == best
    assert found[0].total == pytest.approx({2: short, 4: long}[best])


def test_each_beam_goes_on_from_its_own_state_and_attention() -> None:
    """The better beginning becomes the worse one, so that rows change their places."""
    chances: Chances = {
        (): {A: 0.6, B: 0.4},
        (A,): {C: 0.5, A: 0.3, B: 0.2},
        (B,): {C: 1},
        (A, C): {A: 1},
        (B, C): {B: 1},
        (A, C, A): {END: 1},
        (B, C, B): {END: 1},
    }
    found = search(chances, 6, 2)
    assert [sentence.words for sentence in found] == [(B, C, B, END), (A, C, A, END)]
    assert [sentence.total for sentence in found] == pytest.approx([log(0.4), log(0.3)])
    for sentence in (*found, draw(chances, 6)):
        assert [int(map_.argmax()) for map_ in sentence.attention] == [1, *sentence.words[:-1]], "each looks at its own last word"
        assert sentence.ended


def test_the_likeliest_word_each_time_goes_past_a_less_likely_end() -> None:
    found = search({(): {A: 1}, (A,): {C: 0.6, END: 0.4}, (A, C): {END: 1}}, 5, 1)
    assert [sentence.words for sentence in found] == [(A, C, END)]


def test_words_that_are_drawn_hang_on_those_before() -> None:
    chances: Chances = {(): {A: 1}, (A,): {B: 1}, (A, B): {A: 1}, (A, B, A): {C: 1}, (A, B, A, C): {END: 1}}
    assert draw(chances, 9).words == (A, B, A, C, END)
    assert draw(chances, 3).words == (A, B, A)


def test_a_whole_sentence_goes_before_a_torn_one() -> None:
    chances: Chances = {(): {A: 0.7, B: 0.3}, (A,): {C: 1}, (B,): {END: 1}}
    assert [(sentence.words, sentence.ended) for sentence in search(chances, 2, 2)] == [((B, END), True), ((A, C), False)]
    assert not draw({(): {A: 1}}, 1).ended


def test_commas_stand_after_their_words() -> None:
    model: Any = SimpleNamespace(name="m", manifest=SimpleNamespace(vocabulary=(*SPECIAL, "cat", ",", "dog")))
    whole, torn = (Sentence(words, (-1.0,) * len(words), (np.ones((1, 1)),) * len(words), -4.0) for words in ((A, B, C, END), (A, B, A)))
    answer = _answer([whole, torn], model, attention=False)
    assert (answer.caption, [word.word for word in answer.words]) == ("cat, dog", ["cat", ",", "dog"])
    assert [(other.caption, other.ended) for other in answer.alternatives] == [("cat, cat", False)]
    assert (answer.ended, answer.mean_log_probability) == (True, -1)
