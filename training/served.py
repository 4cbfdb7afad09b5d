"""A model behind its operations: in this process, or at the address of a running server."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from tqdm import tqdm

from service import local, media, settings
from service.contract import images
from service.contract.manifest import Manifest, read
from training.problems import TrainingError

CONCURRENCY = 16


@asynccontextmanager
async def served(folder: Path, url: str | None = None) -> AsyncIterator[Served]:
    """A model behind its operations: in this process, or at the address of a running server."""
    manifest = read(folder)
    if url is not None:
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            yield Served(client, manifest)
        return
    async with local.client(settings.read(models=folder.parent, load=(folder.name,))) as client:
        yield Served(client, manifest)


class Served:
    """The operations of one model, many requests at a time."""

    def __init__(self, client: httpx.AsyncClient, manifest: Manifest) -> None:
        self.client, self.manifest, self.model = client, manifest, manifest.name
        self.places = asyncio.Semaphore(CONCURRENCY)

    async def inference_milliseconds(self, task: str, request: dict[str, Any]) -> float:
        """What `Server-Timing` says that the graphs took for one request."""
        answer = await self._answer(task, json={"model": self.model, **request})
        found = re.search(r"infer;dur=([0-9.]+)", answer.headers["Server-Timing"])
        assert found is not None
        return float(found[1])

    async def _post(self, task: str, **request: Any) -> dict[str, Any]:
        return dict((await self._answer(task, **request)).json())

    async def _answer(self, task: str, **request: Any) -> httpx.Response:
        async with self.places:
            try:
                answer = await self.client.post(f"/v1/{task}", headers={"Accept": media.JSON}, **request)
            except httpx.HTTPError as error:
                raise TrainingError(f"the server cannot be reached: {error}") from error
        if answer.status_code != 200:
            raise TrainingError(f"{task} with {self.model}: {answer.json()['detail']}")
        if answer.headers["X-Model"] != f"{task}/{self.model}@{self.manifest.digest[:12]}":
            raise TrainingError(f"the server has {answer.headers['X-Model']}, not {self.model}@{self.manifest.digest[:12]}.")
        return answer

    async def drawn(self, task: str, requests: list[dict[str, Any]]) -> np.ndarray:
        """Pictures uint8 (n, h, w, c) of JSON requests, in order."""
        answers = await self._all(task, (self._post(task, json={"model": self.model, **request}) for request in requests))
        return np.stack([decoded(picture) for answer in answers for picture in answer["images"]])

    async def shown(
        self, task: str, pictures: np.ndarray, *, encode: Callable[[np.ndarray], bytes] = media.encode, **fields: str
    ) -> list[dict[str, Any]]:
        """The answers to uploads of pictures (n, h, w, c), as PNG or otherwise encoded, with further fields of the form."""

        async def one(picture: np.ndarray) -> dict[str, Any]:
            files = {"image": ("picture", encode(picture))}
            return await self._post(task, files=files, data={"model": self.model, **fields})

        return await self._all(task, (one(picture) for picture in pictures))

    async def filled(self, task: str, pictures: np.ndarray, holes: np.ndarray) -> list[dict[str, Any]]:
        """The answers to uploads of pictures (n, h, w, c) with the masks of their holes, bool (n, h, w)."""

        async def one(picture: np.ndarray, hole: np.ndarray) -> dict[str, Any]:
            files = {"image": ("picture", media.encode(picture)), "mask": ("mask", media.encode(hole[..., None] * np.uint8(255)))}
            return await self._post(task, files=files, data={"model": self.model})

        return await self._all(task, (one(*pair) for pair in zip(pictures, holes, strict=True)))

    async def _all(self, task: str, requests: Iterable[Any]) -> list[dict[str, Any]]:
        tasks = [asyncio.create_task(request) for request in requests]
        with tqdm(total=len(tasks), desc=f"{task} with {self.model}", unit="request") as progress:
            for one in tasks:
                one.add_done_callback(lambda _: progress.update())
            return list(await asyncio.gather(*tasks))


def decoded(encoded: str) -> np.ndarray:
    """A base64 picture as uint8 (height, width, channels)."""
    pixels = np.asarray(images.decode(base64.b64decode(encoded)))
    return pixels[..., None] if pixels.ndim == 2 else pixels
