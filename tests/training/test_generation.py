"""Figures of generators, of stand-ins for a model whose quality is known: they draw real pictures, or some of them."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from training import data, generation
from training.data import Dataset
from training.problems import TrainingError

Draw = Callable[[dict[str, Any]], np.ndarray]
DIMENSION = 4


@pytest.fixture
def digits(monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """Drawn digits under the name of those that there is a classifier for, and few pictures to be asked."""
    for name, value in (("COMPARED", 50), ("ASKED", 200), ("STRIPS", 3), ("TIMED", 2)):
        monkeypatch.setattr(generation, name, value)
    drawn = data.load("drawn")
    halves = (data.Split(drawn.train.images[part], drawn.train.labels[part]) for part in (slice(0, 90), slice(90, 180)))
    return dataclasses.replace(drawn, name="mnist", **dict(zip(("train", "test"), halves, strict=True)))


class Stand:
    """What the measures ask of a served model, answered by a function from a request to pictures."""

    model = "stand"
    manifest = SimpleNamespace(latent_dimension=DIMENSION)

    def __init__(self, draw: Draw) -> None:
        self.draw = draw

    async def drawn(self, task: str, requests: list[dict[str, Any]]) -> np.ndarray:
        return np.concatenate([self.draw(request) for request in requests])

    async def inference_milliseconds(self, task: str, request: dict[str, Any]) -> float:
        return 6.4


def asked(request: dict[str, Any]) -> int:
    return int(request.get("steps") or request.get("n") or len(request["labels"]))


def measure(function: Any, draw: Draw, digits: Dataset, folder: Path) -> tuple[dict[str, float], dict[str, float | None], dict[str, Any]]:
    figures, details = asyncio.run(function(Stand(draw), digits, folder))
    values = {name: value for name, (value, _, _) in figures.items()}
    return values, {name: beside for name, (_, beside, _) in figures.items()}, details


def test_a_model_that_draws_real_pictures_is_at_the_floor(digits: Dataset, tmp_path: Path) -> None:
    random = np.random.default_rng(7)
    values, beside, details = measure(
        generation.measure_generate,
        lambda request: digits.train.images[random.choice(len(digits.train), asked(request), replace=False)],
        digits,
        tmp_path,
    )
    assert 0.5 < values["frechet_distance_over_floor"] < 2
    assert values["frechet_distance"] / values["frechet_distance_over_floor"] == pytest.approx(beside["frechet_distance"])
    assert values["lowest_class_share"] > 0.3
    copies = [values[f"nearest_training_distance_{space}"] for space in ("pixels", "features")]
    assert copies == pytest.approx([0, 0], abs=0.01)
    assert values["milliseconds_per_picture"] == pytest.approx(0.1)
    assert sum(details["class_shares"].values()) == pytest.approx(1)
    assert len(details["frechet_distance_of_each_floor"]) == generation.FLOORS
    assert {path.name for path in tmp_path.iterdir()} == {"classes.png", "interpolation.png", "nearest.png"}


@pytest.mark.parametrize("function", [generation.measure_generate, generation.measure_digits])
def test_too_few_pictures_to_compare_with_are_said_before_any_is_drawn(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: Any
) -> None:
    monkeypatch.setattr(generation, "COMPARED", 100)  # there are 90
    with pytest.raises(TrainingError, match="100 training and test pictures are compared"):
        measure(function, lambda request: pytest.fail("it was asked to draw"), digits, tmp_path)


def test_a_model_that_draws_one_class_is_found_out(digits: Dataset, tmp_path: Path) -> None:
    only = digits.train.images[digits.train.labels == 3]
    values, _, details = measure(generation.measure_generate, lambda request: only[np.arange(asked(request)) % len(only)], digits, tmp_path)
    assert values["lowest_class_share"] == 0
    assert values["frechet_distance_over_floor"] > 10
    assert values["recall"] < 0.5
    assert max(details["class_shares"], key=details["class_shares"].__getitem__) == "3"


def test_a_model_that_draws_one_picture_has_figures_too(digits: Dataset, tmp_path: Path) -> None:
    values, _, details = measure(
        generation.measure_generate, lambda request: np.repeat(digits.train.images[:1], asked(request), axis=0), digits, tmp_path
    )
    assert "interpolation_largest_step" not in values
    assert details["interpolation"]["largest_over_mean"] == []
    assert all(np.isfinite(value) for value in values.values())
    assert values["frechet_distance_over_floor"] > 10


def test_pictures_that_stay_and_then_jump_are_one_large_step(digits: Dataset, tmp_path: Path) -> None:
    first, last = (digits.train.images[digits.train.labels == label][0] for label in (0, 1))
    jump = np.stack([first] * 4 + [last] * 4)
    values, _, _ = measure(
        generation.measure_generate,
        lambda request: jump if "between" in request else digits.train.images[: asked(request)],
        digits,
        tmp_path,
    )
    assert values["interpolation_largest_step"] == pytest.approx(7)


@pytest.mark.parametrize("right", [True, False])
def test_what_is_asked_for_is_what_is_counted_as_right(digits: Dataset, tmp_path: Path, right: bool) -> None:
    random = np.random.default_rng(5)
    pools = [digits.train.images[digits.train.labels == label] for label in range(10)]

    def draw(request: dict[str, Any]) -> np.ndarray:
        labels = [label if right else (label + 1) % 10 for label in request["labels"]]
        return np.stack([pools[label][random.integers(len(pools[label]))] for label in labels])

    values, _, details = measure(generation.measure_digits, draw, digits, tmp_path)
    diagonal = sum(row[index] for index, row in enumerate(details["read_as"].values()))
    assert values["read_right"] == pytest.approx(diagonal / 200)
    assert (values["read_right"] > 0.7) == right
    assert values["read_right_worst_class"] <= values["read_right"]
