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


def evaluate(folder: Path, data: Dataset, command: str, url: str | None = None) -> Manifest:
    """Measures every task of a model, and writes the figures into its manifest and card.

    Raises:
        TrainingError: the model cannot be served or reached.
    """
    manifest = read(folder)
    figures = asyncio.run(_measure(folder, manifest, data, url))
    found = {
        name: Metric(value=round(value, 6), reference=beside, reference_is=what, command=command)
        for name, (value, beside, what) in figures.items()
    }
    updated = manifest.model_copy(update={"metrics": {**manifest.metrics, **found}})
    card.write(updated, folder)
    write(updated, folder)
    return updated


async def _measure(folder: Path, manifest: Manifest, data: Dataset, url: str | None) -> Figures:
    figures: Figures = {}
    async with _client(folder, url) as client:
        for task, measure in _MEASURES.items():
            if task in manifest.tasks:
                figures |= await measure(Served(client, manifest.name), data)
    return figures


@asynccontextmanager
async def _client(folder: Path, url: str | None) -> AsyncIterator[httpx.AsyncClient]:
    if url is not None:
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            yield client
        return
    async with local.client(settings.read(models=folder.parent, load=(folder.name,))) as client:
        yield client


class Served:
    """The operations of one model, many requests at a time."""

    def __init__(self, client: httpx.AsyncClient, model: str) -> None:
        self.client, self.model = client, model
        self.places = asyncio.Semaphore(CONCURRENCY)

    async def _post(self, task: str, **request: Any) -> dict[str, Any]:
        async with self.places:
            try:
                answer = await self.client.post(f"/v1/{task}", headers={"Accept": media.JSON}, **request)
            except httpx.HTTPError as error:
                raise TrainingError(f"the server cannot be reached: {error}") from error
        if answer.status_code != 200:
            raise TrainingError(f"{task} with {self.model}: {answer.json()['detail']}")
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


async def _digits(served: Served, data: Dataset) -> Figures:
    classes = len(data.classes)
    each = 64 // classes
    asked = np.tile(np.arange(classes), each * -(-ASKED // (each * classes)))[: ASKED // classes * classes]
    step = each * classes
    requests = [{"labels": asked[start : start + step].tolist(), "seed": start // step} for start in range(0, len(asked), step)]
    pictures = await served.drawn("digits", requests)
    classifier = Classifier.load(data)
    features, read_as = classifier(pictures)
    real, _ = classifier(data.test.images)
    spread = [
        metrics.mean_pairwise_distance(features[asked == label][:800])
        / metrics.mean_pairwise_distance(real[data.test.labels == label][:800])
        for label in range(classes)
    ]
    figures: Figures = {
        "read_right": (
            float((read_as == asked).mean()),
            float((classifier(data.test.images)[1] == data.test.labels).mean()),
            "test digits",
        ),
        "read_right_worst_class": (min(float((read_as == asked)[asked == label].mean()) for label in range(classes)), None, None),
        "class_spread": (float(np.mean(spread)), 1.0, "test digits"),
        "class_spread_worst_class": (float(min(spread)), 1.0, "test digits"),
    }
    return figures | _against_real(pictures[_balanced(asked, classes, COMPARED)], data, classifier)


async def _generate(served: Served, data: Dataset) -> Figures:
    pictures = await served.drawn("generate", [{"n": 50, "seed": seed} for seed in range(COMPARED // 50)])
    classifier = Classifier.load(data)
    shares = np.bincount(classifier(pictures)[1], minlength=len(data.classes)) / len(pictures)
    rarest: Figures = {"rarest_class_share": (float(shares.min()), 1 / len(data.classes), "balanced")}
    return rarest | _against_real(pictures, data, classifier)


def _against_real(pictures: np.ndarray, data: Dataset, classifier: Classifier) -> Figures:
    """Generated pictures, and as the floor as many balanced training pictures, each against the test pictures."""
    floor_pictures = data.train.images[_balanced(data.train.labels, len(data.classes), len(pictures))]
    generated, floor, real = (classifier(some)[0] for some in (pictures, floor_pictures, data.test.images))
    one, other = (metrics.precision_recall(real[: len(some)], some) for some in (generated, floor))
    train, test = (_flat(split.images) for split in (data.train, data.test))
    copies = metrics.nearest_distances(_flat(pictures), train).mean() / metrics.nearest_distances(test, train).mean()
    known = classifier(data.train.images)[0]
    feature_copies = metrics.nearest_distances(generated, known).mean() / metrics.nearest_distances(real, known).mean()
    is_floor = "training digits"
    distance, floor_distance = metrics.frechet_distance(generated, real), metrics.frechet_distance(floor, real)
    return {
        "frechet_distance": (distance, floor_distance, is_floor),
        "frechet_distance_over_floor": (distance / floor_distance, 1.0, is_floor),
        "kernel_distance": (metrics.kernel_distance(generated, real), metrics.kernel_distance(floor, real), is_floor),
        "precision": (one[0], other[0], is_floor),
        "recall": (one[1], other[1], is_floor),
        "nearest_training_distance_pixels": (float(copies), 1.0, "test digits"),
        "nearest_training_distance_features": (float(feature_copies), 1.0, "test digits"),
    }


async def _embed(served: Served, data: Dataset) -> Figures:
    train, test = await served.shown("embed", data.train.images), await served.shown("embed", data.test.images)
    points, queries = (np.array([answer["embedding"] for answer in answers], np.float32) for answers in (train, test))
    mean, directions = metrics.principal_components(_flat(data.train.images), points.shape[1])
    projected, projected_queries = ((_flat(split.images) - mean) @ directions for split in (data.train, data.test))
    labels = data.train.labels, data.test.labels
    ours = metrics.neighbour_accuracy(points, labels[0], queries, labels[1])
    theirs = metrics.neighbour_accuracy(projected, labels[0], projected_queries, labels[1])
    return {"neighbour_accuracy": (ours, theirs, f"PCA of {points.shape[1]} dimensions")}


async def _reconstruct(served: Served, data: Dataset) -> Figures:
    answers = await served.shown("reconstruct", data.test.images)
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
