"""Figures through the served path: the server's own application, or a running server by its address.

Distances between sets of pictures are measured on the features of the evaluation classifier
(training/classifier.py), each beside the floor that real pictures reach against real ones.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from tqdm import tqdm

from service import local, media, settings
from service.contract import images
from service.contract.manifest import Manifest, Metric, read, write
from training import card, metrics
from training.classifier import Classifier
from training.data import Dataset
from training.problems import TrainingError

ASKED = 10_000
COMPARED = 5_000
CONCURRENCY = 16

Figures = dict[str, tuple[float, float | None, str | None]]
"""name -> value, what stands beside it, what that is."""


def evaluate(folder: Path, data: Dataset, command: str, url: str | None = None, tasks: list[str] | None = None) -> Manifest:
    """Measures the tasks of a model (or some of them), and writes the figures into its manifest and card.

    Raises:
        TrainingError: the model cannot be served or reached.
    """
    manifest = read(folder)
    if unknown := set(tasks or ()) - set(manifest.tasks):
        raise TrainingError(f"--tasks {', '.join(sorted(unknown))}: {manifest.name} serves {', '.join(manifest.tasks)}.")
    figures = asyncio.run(_measure(folder, data, url, set(manifest.tasks) & set(tasks or manifest.tasks)))
    if broken := [name for name, (value, _, _) in figures.items() if not np.isfinite(value)]:
        raise TrainingError(f"{', '.join(broken)} of {manifest.name} cannot be measured on {data.name}: too few pictures?")
    found = {
        name: Metric(value=round(value, 6), reference=beside, reference_is=what, command=command)
        for name, (value, beside, what) in figures.items()
    }
    kept = manifest.metrics if tasks else {}  # figures of another command would stand beside these as if they were alike
    updated = manifest.model_copy(update={"metrics": {**kept, **found}})
    card.write(updated, folder)
    write(updated, folder)
    return updated


async def _measure(folder: Path, data: Dataset, url: str | None, tasks: set[str]) -> Figures:
    figures: Figures = {}
    async with served(folder, url) as model:
        for task, measure in _MEASURES.items():
            if task in tasks:
                figures |= await measure(model, data)
    return figures


@asynccontextmanager
async def served(folder: Path, url: str | None = None) -> AsyncIterator[Served]:
    """A model behind its operations: in this process, or at the address of a running server."""
    digest = read(folder).digest
    if url is not None:
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            yield Served(client, folder.name, digest)
        return
    async with local.client(settings.read(models=folder.parent, load=(folder.name,))) as client:
        yield Served(client, folder.name, digest)


class Served:
    """The operations of one model, many requests at a time."""

    def __init__(self, client: httpx.AsyncClient, model: str, digest: str) -> None:
        self.client, self.model, self.digest = client, model, digest
        self.places = asyncio.Semaphore(CONCURRENCY)

    async def _post(self, task: str, **request: Any) -> dict[str, Any]:
        async with self.places:
            try:
                answer = await self.client.post(f"/v1/{task}", headers={"Accept": media.JSON}, **request)
            except httpx.HTTPError as error:
                raise TrainingError(f"the server cannot be reached: {error}") from error
        if answer.status_code != 200:
            raise TrainingError(f"{task} with {self.model}: {answer.json()['detail']}")
        if answer.headers["X-Model"] != f"{task}/{self.model}@{self.digest[:12]}":
            raise TrainingError(f"the server has {answer.headers['X-Model']}, not {self.model}@{self.digest[:12]}.")
        return dict(answer.json())

    async def drawn(self, task: str, requests: list[dict[str, Any]]) -> np.ndarray:
        """Pictures uint8 (n, h, w, c) of JSON requests, in order."""
        answers = await self._all(task, (self._post(task, json={"model": self.model, **request}) for request in requests))
        return np.stack([_pixels(picture) for answer in answers for picture in answer["images"]])

    async def shown(self, task: str, pictures: np.ndarray) -> list[dict[str, Any]]:
        """The answers to uploads of pictures (n, h, w, c) as PNG."""

        async def one(picture: np.ndarray) -> dict[str, Any]:
            files = {"image": ("picture.png", media.encode(picture))}
            return await self._post(task, files=files, data={"model": self.model})

        return await self._all(task, (one(picture) for picture in pictures))

    async def _all(self, task: str, requests: Iterable[Any]) -> list[dict[str, Any]]:
        tasks = [asyncio.create_task(request) for request in requests]
        with tqdm(total=len(tasks), desc=f"{task} with {self.model}", unit="request") as progress:
            for one in tasks:
                one.add_done_callback(lambda _: progress.update())
            return list(await asyncio.gather(*tasks))


def _pixels(encoded: str) -> np.ndarray:
    pixels = np.asarray(images.decode(base64.b64decode(encoded)))
    return pixels[..., None] if pixels.ndim == 2 else pixels


async def _digits(model: Served, data: Dataset) -> Figures:
    classes = len(data.classes)
    if classes == 0:
        raise TrainingError(f"--data {data.name} has no classes to ask {model.model} for.")
    each = max(1, 64 // classes)
    asked = np.tile(np.arange(classes), ASKED // classes)
    step = each * classes
    requests = [{"labels": asked[start : start + step].tolist(), "seed": start // step} for start in range(0, len(asked), step)]
    pictures = await model.drawn("digits", requests)
    compared = pictures[_balanced(asked, classes, COMPARED)]
    classifier = Classifier.find(data)
    if classifier is None:
        return _copies(compared, data)
    features, read_as = classifier(pictures)
    real, real_read_as = classifier(data.test.images)
    right = [float((read_as == asked)[asked == label].mean()) for label in range(classes)]
    spread = [
        metrics.mean_pairwise_distance(features[asked == label][:800])
        / metrics.mean_pairwise_distance(real[data.test.labels == label][:800])
        for label in range(classes)
    ]
    figures: Figures = {
        "read_right": (float(np.mean(right)), float((real_read_as == data.test.labels).mean()), "test pictures"),
        "read_right_worst_class": (min(right), None, None),
        "class_spread": (float(np.mean(spread)), 1.0, "test pictures"),
        "class_spread_worst_class": (float(min(spread)), 1.0, "test pictures"),
    }
    return figures | _against_real(compared, data, classifier)


async def _generate(model: Served, data: Dataset) -> Figures:
    pictures = await model.drawn("generate", [{"n": 50, "seed": seed} for seed in range(COMPARED // 50)])
    classifier = Classifier.find(data)
    if classifier is None:
        return _copies(pictures, data)
    shares = np.bincount(classifier(pictures)[1], minlength=len(data.classes)) / len(pictures)
    rarest: Figures = {"rarest_class_share": (float(shares.min()), 1 / len(data.classes), "all classes alike")}
    return rarest | _against_real(pictures, data, classifier)


def _against_real(pictures: np.ndarray, data: Dataset, classifier: Classifier) -> Figures:
    """Generated pictures, and as the floor as many balanced training pictures, each against the test pictures."""
    floor_pictures = data.train.images[_balanced(data.train.labels, len(data.classes), len(pictures))]
    generated, floor, real, known = (classifier(some)[0] for some in (pictures, floor_pictures, data.test.images, data.train.images))
    (precision, recall), (floor_precision, floor_recall) = (
        metrics.precision_recall(real[: len(some)], some) for some in (generated, floor)
    )
    distance, floor_distance = metrics.frechet_distance(generated, real), metrics.frechet_distance(floor, real)
    copies = metrics.nearest_distances(generated, known).mean() / metrics.nearest_distances(real, known).mean()
    beside = "training pictures"
    return {
        "frechet_distance": (distance, floor_distance, beside),
        "frechet_distance_over_floor": (distance / floor_distance, 1.0, beside),
        "kernel_distance": (metrics.kernel_distance(generated, real), metrics.kernel_distance(floor, real), beside),
        "precision": (precision, floor_precision, beside),
        "recall": (recall, floor_recall, beside),
        "nearest_training_distance_features": (float(copies), 1.0, "test pictures"),
    } | _copies(pictures, data)


def _copies(pictures: np.ndarray, data: Dataset) -> Figures:
    """How far generated pictures are from the nearest training picture, as a share of how far test pictures are."""
    train, test = (_flat(split.images) for split in (data.train, data.test))
    copies = metrics.nearest_distances(_flat(pictures), train).mean() / metrics.nearest_distances(test, train).mean()
    return {"nearest_training_distance_pixels": (float(copies), 1.0, "test pictures")}


async def _embed(model: Served, data: Dataset) -> Figures:
    if not data.classes:
        return {}
    train, test = await model.shown("embed", data.train.images), await model.shown("embed", data.test.images)
    points, queries = (np.array([answer["embedding"] for answer in answers], np.float32) for answers in (train, test))
    mean, directions = metrics.principal_components(_flat(data.train.images), points.shape[1])
    projected, projected_queries = ((_flat(split.images) - mean) @ directions for split in (data.train, data.test))
    labels = data.train.labels, data.test.labels
    ours = metrics.neighbour_accuracy(points, labels[0], queries, labels[1])
    theirs = metrics.neighbour_accuracy(projected, labels[0], projected_queries, labels[1])
    return {"neighbour_accuracy": (ours, theirs, f"PCA of {points.shape[1]} dimensions")}


async def _reconstruct(model: Served, data: Dataset) -> Figures:
    answers = await model.shown("reconstruct", data.test.images)
    decoded = np.stack([_pixels(answer["image"]) for answer in answers])
    mean, directions = metrics.principal_components(_flat(data.train.images), len(answers[0]["embedding"]))
    flat = _flat(data.test.images)
    projected = np.clip(np.rint(((flat - mean) @ directions @ directions.T + mean) * 255), 0, 255)
    return {
        "reconstruction_psnr": (
            metrics.peak_signal_to_noise(data.test.images, decoded),
            metrics.peak_signal_to_noise(data.test.images.reshape(len(flat), -1), projected),
            f"PCA of {directions.shape[1]} dimensions",
        )
    }


_MEASURES: dict[str, Callable[[Served, Dataset], Any]] = {
    "digits": _digits,
    "generate": _generate,
    "embed": _embed,
    "reconstruct": _reconstruct,
}


def _flat(pictures: np.ndarray) -> np.ndarray:
    return pictures.reshape(len(pictures), -1).astype(np.float32) / 255


def _balanced(labels: np.ndarray, classes: int, number: int) -> np.ndarray:
    """Indices of the first number / classes items of each class."""
    return np.concatenate([np.flatnonzero(labels == label)[: number // classes] for label in range(classes)])
