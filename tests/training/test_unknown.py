import numpy as np
import pytest

from training import unknown


@pytest.fixture(scope="module")
def known() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (3, 40, 56, 3), np.uint8)


def test_as_many_as_asked_of_the_known_ones_size_and_the_same_again(known: np.ndarray) -> None:
    made = unknown.unknown(known, 10, np.random.default_rng(0))
    assert made.shape == (10, 40, 56, 3)
    assert made.dtype == np.uint8
    assert (made == unknown.unknown(known, 10, np.random.default_rng(0))).all()
    assert (made != unknown.unknown(known, 10, np.random.default_rng(1))).any()


@pytest.mark.parametrize("seed", range(5))
def test_kinds_are_what_they_say(known: np.ndarray, seed: int) -> None:
    random = np.random.default_rng(seed)
    assert len(np.unique(unknown.plain(known[0], random).reshape(-1, 3), axis=0)) == 1
    assert unknown.noise(known[0], random).std() > 10
    apart = unknown.apart(known[0], random)
    assert (apart != known[0]).any()
    assert (np.sort(apart, axis=None) == np.sort(known[0], axis=None)).all(), "the same pixels elsewhere"
    assert len(np.unique(unknown.scribble(known[0], random).reshape(-1, 3), axis=0)) == 2


def test_tiny_pictures_are_fine() -> None:
    assert unknown.unknown(np.zeros((1, 3, 2, 3), np.uint8), 8, np.random.default_rng(0)).shape == (8, 3, 2, 3)
