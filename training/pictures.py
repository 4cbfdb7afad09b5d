"""Pictures for people: what a two-dimensional latent space looks like, seen through the server."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from service.contract.manifest import read
from training.data import Dataset
from training.loop import contact_sheet
from training.problems import TrainingError
from training.served import served

SIDE = 20
REACH = 3.0


def latent_maps(folders: list[Path], data: Dataset) -> Path:
    """Draws, a row a model, where the test pictures lie and what is decoded over the same square.

    Both span -3..3 in both latent dimensions. Written to `pictures/latent-maps.png` of the first.

    Raises:
        TrainingError: a model whose latent space is not two-dimensional.
    """
    figure = Figure(figsize=(11, 5.5 * len(folders)), layout="constrained")
    axes = np.atleast_2d(figure.subplots(len(folders), 2))
    for folder, (left, right) in zip(folders, axes, strict=True):
        if read(folder).latent_dimension != 2:
            raise TrainingError(f"{folder.name}: a map needs a latent space of two dimensions.")
        embeddings, grid = asyncio.run(_see(folder, data))
        _scatter(left, embeddings, data)
        right.imshow(grid, cmap="gray", extent=(-REACH, REACH, -REACH, REACH))
        left.set_title(f"{folder.name}: the test pictures")
        right.set_title(f"{folder.name}: what is decoded there")
    path = folders[0] / "pictures" / "latent-maps.png"
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=80)
    return path


async def _see(folder: Path, data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    places = np.linspace(-REACH, REACH, SIDE)
    latents = [[float(x), float(y)] for y in places[::-1] for x in places]
    async with served(folder) as model:
        answers = await model.shown("embed", data.test.images)
        requests: list[dict[str, Any]] = [{"latents": latents[start : start + 50]} for start in range(0, len(latents), 50)]
        pictures = await model.drawn("generate", requests)
    return np.array([answer["embedding"] for answer in answers]), contact_sheet(pictures, SIDE)


def _scatter(axis: Any, embeddings: np.ndarray, data: Dataset) -> None:
    for label, name in enumerate(data.classes or ("all",)):
        points = embeddings[data.test.labels == label]
        axis.scatter(points[:, 0], points[:, 1], s=2, alpha=0.6, label=name)
    axis.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH), aspect="equal")
    axis.legend(markerscale=5, loc="upper right", fontsize="small")
