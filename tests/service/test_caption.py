"""POST /v1/caption over HTTP, with small graphs whose words are known: which one is likely hangs on the one before."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from math import log
from typing import Any

import numpy as np
import pytest
from built import SIDE, captioner
from PIL import Image
from support import Server, encoded

from service.contract.manifest import Fit


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
