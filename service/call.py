"""One request on its way through an operation: admit, decode, fit, run, encode."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Annotated, TypeVar

import anyio
import numpy as np
from fastapi import Depends
from PIL import Image
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from service import media
from service.contract import images
from service.engine import latents
from service.engine.batching import Closed, QueueFull
from service.engine.store import Model, ModelUnavailable, Store, UnknownModel
from service.problems import Code, Limit, ProblemError, invalid
from service.settings import Settings

logger = logging.getLogger("atelier")

Result = TypeVar("Result")

_STAGES = ("decode", "queue", "infer", "encode")


class Call:
    """What an endpoint works with; a new one for each request.

    Attributes:
        headers: of the answer: `X-Model`, `X-Seed`.
        seconds: spent so far in each stage of `Server-Timing`.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.settings: Settings = request.app.state.settings
        self.store: Store = request.app.state.store
        self.pool: anyio.CapacityLimiter = request.app.state.pool
        self.headers: dict[str, str] = {}
        self.seconds: dict[str, float] = {}
        request.state.call = self

    # admit

    def accepts(self, default: str) -> str:
        """The format of the answer, so that an impossible one is refused before any work."""
        return media.negotiate(self._accept, default, (media.JSON, *media.PICTURES))

    def accepts_json(self) -> None:
        """The same for an operation that answers nothing but JSON."""
        media.negotiate(self._accept, media.JSON, (media.JSON,))

    @property
    def _accept(self) -> str:
        return ", ".join(self.request.headers.getlist("accept"))

    def room_for(self, height: int, width: int, media_type: str) -> None:
        """Refuses, before any work, an answer of more pixels than are made, or larger than its format can be.

        Raises:
            ProblemError: 413.
        """
        most = int(self.settings.max_output_megapixels * 1e6)
        if height * width > most:
            detail = f"The answer would have {width} x {height} pixels; at most {most:,} are made."
            raise ProblemError(Code.IMAGE_TOO_LARGE, detail, limit=Limit(name="output_pixels", value=most))
        side = media.LARGEST_SIDE.get(media_type)
        if side is not None and max(height, width) > side:
            detail = f"The answer would be {width} x {height}; {media_type} holds at most {side:,} a side."
            raise ProblemError(Code.IMAGE_TOO_LARGE, detail, limit=Limit(name="output_side", value=side))

    def model(self, task: str, name: str | None) -> Model:
        """The model that serves; the answer's `X-Model` names it.

        Raises:
            ProblemError: 404 unknown, 503 known but not served.
        """
        try:
            model = self.store.find(task, name)
        except UnknownModel as error:
            raise ProblemError(Code.UNKNOWN_MODEL, f"{error}.") from error
        except ModelUnavailable as error:
            raise ProblemError(Code.MODEL_UNAVAILABLE, f"{error}.", retry_after=5) from error
        self.headers["X-Model"] = model.identity(task)
        return model

    def noise(self, seed: int | None, number: int, dimension: int, truncation: float) -> tuple[np.ndarray, int]:
        """Latents (number, dimension) from the seed, which is drawn when absent, and told in `X-Seed`."""
        seed = latents.draw_seed() if seed is None else seed
        self.headers["X-Seed"] = str(seed)
        return latents.draw(seed, number, dimension, truncation), seed

    # decode and fit

    async def pixels(self, content: bytes, model: Model, field: str = "image") -> np.ndarray:
        """An uploaded picture as the (height, width, channels) array that the model takes.

        Raises:
            ProblemError: 415 unreadable, 413 too many pixels.
        """
        return await self.work("decode", partial(self._pixels, content, model, field))

    def _pixels(self, content: bytes, model: Model, field: str) -> np.ndarray:
        assert model.manifest.fit is not None
        return images.fit(self._decode(content, model, field), model.manifest.fit)

    def _decode(self, content: bytes, model: Model, field: str) -> Image.Image:
        most = int(self.settings.max_megapixels * 1e6)
        try:
            return images.decode(content, min(most, model.manifest.largest_picture or most))
        except images.ImageTooLarge as error:
            limit = Limit(name="picture_pixels", value=error.most)
            raise ProblemError(Code.IMAGE_TOO_LARGE, f"{field}: {error}.", limit=limit) from error
        except images.UnreadableImage as error:
            raise ProblemError(Code.UNREADABLE_IMAGE, f"{field}: {error}.") from error

    # run

    async def run(self, model: Model, task: str, role: str, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Runs the graph that plays a role in a task, batched with other requests.

        Raises:
            ProblemError: 503 the queue is full or the model went away, 500 the run failed.
        """
        try:
            outcome = await model.batcher(task, role).run(inputs)
        except QueueFull as error:
            raise ProblemError(Code.OVERLOADED, f"{model.name}: {error}.", retry_after=error.retry_after) from error
        except Closed as error:
            raise ProblemError(Code.MODEL_UNAVAILABLE, f"{model.name}: {error}.", retry_after=5) from error
        except Exception as error:
            logger.exception("%s: a run of %s failed", model.name, role, extra={"fields": {"request_id": self.request.state.id}})
            raise ProblemError(Code.MODEL_FAILED, f"{model.name} failed to run.") from error
        self._add("queue", outcome.queued)
        self._add("infer", outcome.ran)
        return outcome.outputs

    # encode

    async def picture(self, pixels: np.ndarray, media_type: str) -> Response:
        """One picture as the whole answer."""
        content = await self.work("encode", partial(media.encode, pixels, media_type))
        return Response(content, media_type=media_type, headers=self.headers)

    async def base64(self, pictures: np.ndarray) -> list[str]:
        """Pictures (n, height, width, channels) as base64 PNGs."""
        return await self.work("encode", lambda: [media.encode_base64(picture) for picture in pictures])

    def json(self, answer: BaseModel) -> Response:
        """The answer as JSON; fields that are None are left out."""
        return Response(answer.model_dump_json(exclude_none=True), media_type=media.JSON, headers=self.headers)

    # timings

    async def work(self, stage: str, function: Callable[[], Result]) -> Result:
        """Runs blocking work in the bounded pool, off the event loop, and counts its time."""

        def timed() -> tuple[Result, float]:
            started = time.perf_counter()
            return function(), time.perf_counter() - started

        result, seconds = await anyio.to_thread.run_sync(timed, limiter=self.pool)
        self._add(stage, seconds)
        return result

    def _add(self, stage: str, seconds: float) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    @property
    def server_timing(self) -> str:
        """`Server-Timing`: the stages passed, in milliseconds."""
        return ", ".join(f"{stage};dur={self.seconds[stage] * 1000:.2f}" for stage in _STAGES if stage in self.seconds)


CurrentCall = Annotated[Call, Depends()]


def dimension_of(model: Model) -> int:
    """The width of a model's latents; the manifest vouches that a model with a `latents` port has one."""
    assert model.manifest.latent_dimension is not None
    return model.manifest.latent_dimension


def latents_given(rows: list[list[float]], dimension: int, field: str = "latents") -> np.ndarray:
    """Latents of a request as an array (n, dimension) float32.

    Raises:
        ProblemError: 422, a row of another width.
    """
    for index, row in enumerate(rows):
        if len(row) != dimension:
            raise invalid(["body", field, index], f"has {len(row)} numbers; this model's latents have {dimension}")
    return np.array(rows, np.float32)
