"""Figures of generated pictures, and the pictures that show them.

Sets of pictures are compared on the features of the evaluation classifier; where there is none for the data,
only copying can be measured, on the pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from service.engine import latents
from service.tasks.generate import FINE
from training import metrics
from training.classifier import Classifier
from training.data import Dataset
from training.loop import contact_sheet
from training.problems import TrainingError
from training.served import Served

ASKED = 10_000
COMPARED = 5_000
BATCH = 50
STRIPS, STEPS = 100, 8
"""Ways from one latent to another, in as many pictures as `generate` makes of them by default."""
TIMED = 20
MEASURED = ("classes.png", "interpolation.png", "nearest.png")
"""The pictures that are made while measuring."""
FLOORS = 5
"""Random draws of real pictures whose mean is the floor."""

Figures = dict[str, tuple[float, float | None, str | None]]
"""name -> value, what stands beside it, what that is."""


async def measure_generate(model: Served, data: Dataset, folder: Path) -> tuple[Figures, dict[str, Any]]:
    """What `generate` draws of noise: 5,000 pictures, and 100 ways from one seed to another.

    Raises:
        TrainingError: there are too few pictures to compare with.
    """
    classifier = _classifier(data)
    pictures = await model.drawn("generate", [{"n": BATCH, "seed": seed} for seed in range(COMPARED // BATCH)])
    strips = await model.drawn("generate", [{"between": [2 * strip, 2 * strip + 1], "steps": STEPS} for strip in range(STRIPS)])
    figures = await _timings(model, "generate", {"n": 64}, {"n": 1})
    if classifier is None:
        return figures | _copies(pictures, data), {}
    features, read_as = classifier(pictures)
    shares, real_shares = _shares(read_as, data), _shares(data.test.labels, data)
    random = np.random.default_rng(0)
    floors = [random.choice(len(data.train), COMPARED, replace=False) for _ in range(FLOORS)]
    lowest_real = float(np.mean([(_shares(data.train.labels[floor], data) / real_shares).min() for floor in floors]))
    figures |= {"lowest_class_share": (float((shares / real_shares).min()), lowest_real, "training pictures")}
    _histogram(shares, real_shares, data.classes, folder / "classes.png")
    common, details = _judged(pictures, features, strips, floors, data, classifier, folder)
    return figures | common, details | {"class_shares": dict(zip(data.classes, shares.tolist(), strict=True))}


async def measure_digits(model: Served, data: Dataset, folder: Path) -> tuple[Figures, dict[str, Any]]:
    """What `digits` draws of each class: 10,000 pictures, and ten ways a class from one latent to another.

    Raises:
        TrainingError: the data has no classes, or there are too few pictures to compare with.
    """
    classifier, classes = _classifier(data), len(data.classes)
    if classes == 0:
        raise TrainingError(f"--data {data.name} has no classes to ask {model.model} for.")
    asked = np.tile(np.arange(classes), ASKED // classes)
    requests = [{"labels": asked[start : start + BATCH].tolist(), "seed": start // BATCH} for start in range(0, len(asked), BATCH)]
    pictures = await model.drawn("digits", requests)
    strips = await _walks(model, classes)
    figures = await _timings(model, "digits", {"labels": asked[:64].tolist()}, {"labels": [0]})
    if classifier is None:
        return figures | _copies(pictures[:COMPARED], data), {}
    features, read_as = classifier(pictures)
    figures |= _read(features, read_as, asked, data, classifier)
    confusion = np.stack([np.bincount(read_as[asked == label], minlength=classes) for label in range(classes)])
    floors = [_balanced(data.train.labels, classes, COMPARED, np.random.default_rng(draw)) for draw in range(FLOORS)]
    common, details = _judged(pictures[:COMPARED], features[:COMPARED], strips, floors, data, classifier, folder)
    return figures | common, details | {"read_as": dict(zip(data.classes, confusion.tolist(), strict=True))}


def _classifier(data: Dataset) -> Classifier | None:
    """The evaluation classifier of the data, where it has one.

    Raises:
        TrainingError: there are fewer pictures than the figures on its features are made of.
    """
    classifier = Classifier.find(data)
    if classifier is not None:
        each = min(np.bincount(data.train.labels, minlength=len(data.classes)))
        if min(len(data.train), len(data.test)) < COMPARED or each < COMPARED // len(data.classes):
            raise TrainingError(f"--data {data.source}: {COMPARED:,} training and test pictures are compared, there are fewer.")
    return classifier


def _judged(
    pictures: np.ndarray,
    features: np.ndarray,
    strips: np.ndarray,
    floors: list[np.ndarray],
    data: Dataset,
    classifier: Classifier,
    folder: Path,
) -> tuple[Figures, dict[str, Any]]:
    """What is measured of every generator: its pictures against real ones, and the steps of its strips.

    Args:
        floors: indices of as many training pictures, classes in the same shares, several times at random.
    """
    known = classifier(data.train.images)[0]
    interpolation, details = _interpolation(strips, classifier)
    _save_strips(strips, folder)
    _save_nearest(pictures, features, data, known, folder)
    figures, more = _against_real(features, data, classifier, known, floors)
    return interpolation | figures | _copies(pictures, data), details | more


async def _walks(model: Served, classes: int) -> np.ndarray:
    """Pictures of one class each on the way from one latent to another, in the steps that `generate` takes."""
    assert model.manifest.latent_dimension is not None
    ends = latents.draw(1, 2 * STRIPS, model.manifest.latent_dimension).reshape(STRIPS, 2, -1)
    fine = np.stack([latents.between(first, last, FINE) for first, last in ends])
    labels = [strip % classes for strip in range(STRIPS)]
    requests = [{"labels": [label] * FINE, "latents": way.tolist()} for label, way in zip(labels, fine, strict=True)]
    seen = np.split(await model.drawn("digits", requests), STRIPS)
    ways = [latents.evenly(way, pictures, STEPS).tolist() for way, pictures in zip(fine, seen, strict=True)]
    return await model.drawn("digits", [{"labels": [label] * STEPS, "latents": way} for label, way in zip(labels, ways, strict=True)])


async def _timings(model: Served, task: str, many: dict[str, Any], one: dict[str, Any]) -> Figures:
    """Milliseconds of inference for each picture, 64 and one at a time: the median of 20 requests, one after the other."""
    found = []
    for request, number in ((many, 64), (one, 1)):
        times = [await model.inference_milliseconds(task, {**request, "seed": seed}) for seed in range(TIMED)]
        found.append(float(np.median(times)) / number)
    return {"milliseconds_per_picture": (found[0], None, None), "milliseconds_alone": (found[1], None, None)}


def _read(features: np.ndarray, read_as: np.ndarray, asked: np.ndarray, data: Dataset, classifier: Classifier) -> Figures:
    """How many are read as asked, and how varied the pictures of one class are."""
    labels = range(len(data.classes))
    real, real_read_as = classifier(data.test.images)
    right = [float((read_as == asked)[asked == label].mean()) for label in labels]
    spread = [
        metrics.mean_pairwise_distance(features[asked == label]) / metrics.mean_pairwise_distance(real[data.test.labels == label])
        for label in labels
    ]
    return {
        "read_right": (float(np.mean(right)), float((real_read_as == data.test.labels).mean()), "test pictures"),
        "read_right_worst_class": (min(right), None, None),
        "class_spread": (float(np.mean(spread)), 1.0, "test pictures"),
        "class_spread_worst_class": (float(min(spread)), 1.0, "test pictures"),
    }


def _interpolation(strips: np.ndarray, classifier: Classifier) -> tuple[Figures, dict[str, Any]]:
    """The largest step in features of each strip, over the strip's mean one; strips in which nothing changes have none."""
    features = classifier(strips)[0].reshape(STRIPS, STEPS, -1)
    steps = np.linalg.norm(np.diff(features, axis=1), axis=2)
    moving = steps[steps.max(axis=1) > 0]
    ratios = moving.max(axis=1) / moving.mean(axis=1)
    details = {"interpolation": {"steps": STEPS, "largest_over_mean": ratios.round(3).tolist()}}
    if len(ratios) == 0:
        return {}, details
    return {
        "interpolation_largest_step": (float(ratios.max()), None, None),
        "interpolation_largest_step_median": (float(np.median(ratios)), None, None),
    }, details


def _against_real(
    features: np.ndarray, data: Dataset, classifier: Classifier, known: np.ndarray, floors: list[np.ndarray]
) -> tuple[Figures, dict[str, Any]]:
    """Generated pictures, and for the floor training pictures, each against the test pictures."""
    real = classifier(data.test.images)[0]
    some = real[np.random.default_rng(0).choice(len(real), len(features), replace=False)]
    names = "frechet_distance", "kernel_distance", "precision", "recall", "density", "coverage"

    def compared(points: np.ndarray) -> list[float]:
        distances = [metrics.frechet_distance(points, real), metrics.kernel_distance(points, real)]
        return [*distances, *metrics.manifold_figures(some, points)]

    ours, theirs = compared(features), np.array([compared(known[floor]) for floor in floors])
    figures: Figures = {
        name: (value, beside, "training pictures") for name, value, beside in zip(names, ours, theirs.mean(axis=0).tolist(), strict=True)
    }
    figures["frechet_distance_over_floor"] = (ours[0] / float(theirs[:, 0].mean()), 1.0, "training pictures")
    copies = metrics.nearest(features, known)[0].mean() / metrics.nearest(real, known)[0].mean()
    figures["nearest_training_distance_features"] = (float(copies), 1.0, "test pictures")
    return figures, {"frechet_distance_of_each_floor": theirs[:, 0].round(4).tolist()}


def _copies(pictures: np.ndarray, data: Dataset) -> Figures:
    """How far generated pictures are from the nearest training picture, as a share of how far test pictures are."""
    train, test = flat(data.train.images), flat(data.test.images)
    copies = metrics.nearest(flat(pictures), train)[0].mean() / metrics.nearest(test, train)[0].mean()
    return {"nearest_training_distance_pixels": (float(copies), 1.0, "test pictures")}


def _shares(labels: np.ndarray, data: Dataset) -> np.ndarray:
    return np.bincount(labels, minlength=len(data.classes)) / len(labels)


def _histogram(shares: np.ndarray, real: np.ndarray, classes: tuple[str, ...], path: Path) -> None:
    figure = Figure(figsize=(7, 2.8), layout="constrained")
    axis, places = figure.subplots(), np.arange(len(classes))
    axis.bar(places - 0.2, real, 0.4, label="test pictures", color="#bdbdbd")
    axis.bar(places + 0.2, shares, 0.4, label="drawn", color="#08519c")
    axis.set(ylabel="share of pictures", xticks=places)
    axis.set_xticklabels(classes, rotation=0 if max(map(len, classes)) < 3 else 30)
    figure.legend(loc="outside right upper")
    figure.savefig(path, dpi=80)


def _save_strips(strips: np.ndarray, folder: Path) -> None:
    """The first ten ways, a row each."""
    Image.fromarray(contact_sheet(strips[: 10 * STEPS], STEPS)).save(folder / "interpolation.png")


def _save_nearest(pictures: np.ndarray, features: np.ndarray, data: Dataset, known: np.ndarray, folder: Path) -> None:
    """Twenty of what was drawn, each above the training pictures whose features and pixels are nearest."""
    shown = pictures[:20]
    by_features = data.train.images[metrics.nearest(features[:20], known)[1]]
    by_pixels = data.train.images[metrics.nearest(flat(shown), flat(data.train.images))[1]]
    Image.fromarray(contact_sheet(np.concatenate([shown, by_features, by_pixels]), 20)).save(folder / "nearest.png")


def flat(pictures: np.ndarray) -> np.ndarray:
    """Pictures uint8 (n, h, w, c) as points (n, h w c) in 0..1."""
    return pictures.reshape(len(pictures), -1).astype(np.float32) / 255


def _balanced(labels: np.ndarray, classes: int, number: int, random: np.random.Generator) -> np.ndarray:
    """Indices of number / classes random items of each class."""
    each = (random.choice(np.flatnonzero(labels == label), number // classes, replace=False) for label in range(classes))
    return np.concatenate(list(each))
