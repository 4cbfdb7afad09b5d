"""One request on its way through an operation: admit, decode, fit, run, encode."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any, TypeVar

import numpy as np
from fastapi import Depends
from PIL import Image
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from service import media, provenance
from service.contract import images
from service.contract.manifest import Fit
from service.engine import latents
from service.engine.batching import Batcher, Closed, DeadlinePassed, GoOn, Job, Outcome, QueueFull
from service.engine.budget import Budget, BudgetSpent
from service.engine.session import Arrays
from service.engine.store import Model, ModelUnavailable, Store, UnknownModel
from service.engine.tiling import Grid, Mosaic
from service.engine.windows import Holes
from service.engine.workers import Workers, timed
from service.problems import Code, Limit, ProblemError, invalid
from service.settings import Settings

logger = logging.getLogger("atelier")

TIMEOUT_HEADER = "X-Request-Timeout"

Result = TypeVar("Result")

_SMALL = 4096
"""Values of pictures that are encoded in less time (some 50 microseconds) than handing them to another thread and back takes."""

_FEW_TILES, _SMALL_CUT = 8, 100_000
"""Tiles, and pixels of them, that are cut in about as much time."""

_HEADER = 65_536
"""Bytes of an upload whose header is looked for at once; in more there may be very much before it."""

_AT_ONCE = 16
"""Squares round holes that are cut together: between one such lot and the next, other requests come."""
_FREE, _OVERLAP, _COVERED = 64, 4, 16
"""Tiles or squares that any picture may take; how many times the largest answer tiles may cover beyond that, and how many times the
picture squares round holes."""

_HOLES_BYTES = 5
"""A pixel's, of a mask and of the numbers of its holes."""

_STAGES = ("decode", "queue", "infer", "encode")


class Call:
    """What an endpoint works with; a new one for each request.

    Attributes:
        headers: of the answer: `X-Model`, `X-Seed`.
        seconds: spent so far in each stage of `Server-Timing`.
        source: where the pixels of the answer's pictures come from, which their marks say.
        always_marked: pictures say that a model made them, although the operator switched that off.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.settings: Settings = request.app.state.settings
        self.store: Store = request.app.state.store
        self.workers: Workers = request.app.state.workers
        self._budget: Budget = request.app.state.budget
        self._kept = 0
        self.headers: dict[str, str] = {}
        self.seconds: dict[str, float] = {}
        self.task = self.model_name = ""
        self.source = provenance.Source.MODEL
        self.always_marked = False
        self.deadline = _deadline(request)
        self._models: list[Model] = []
        self._job: Job | None = None
        self._batcher: Batcher | None = None
        self._done = self._total = 0  # where one graph runs several times: items of the runs that are over, and of all
        request.state.call = self
        request.state.working[request.state.id] = self

    def release(self) -> None:
        """The request has ended: the models that it used may be replaced."""
        for model in self._models:
            model.release()
        self._budget.release(self._kept)
        self._kept = 0

    def keep(self, number: int) -> None:
        """Counts bytes that stay in memory until the request has ended.

        Raises:
            ProblemError: 503, all requests in work would keep more than they may.
        """
        try:
            self._budget.keep(number, self._kept)
        except BudgetSpent as error:
            raise ProblemError(Code.OVERLOADED, f"There is no room: {error}.", retry_after=1, headers={"Connection": "close"}) from error
        self._kept += number

    # admit

    def in_time(self) -> None:
        """Refuses to go on with what nobody waits for any more.

        Raises:
            ProblemError: 504, the deadline that `X-Request-Timeout` set has passed.
        """
        if self.deadline is not None and time.perf_counter() >= self.deadline:
            raise ProblemError(Code.DEADLINE_EXCEEDED, f"The time of {TIMEOUT_HEADER} was over before the work began.")

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
        """The model that serves; the answer's `X-Model` names it. Its queues have room for more.

        Raises:
            ProblemError: 404 unknown, 503 known but not served or its queue is full, 504 too late.
        """
        self.task = task
        self.in_time()
        model = self.find(self.store, task, name)
        self.use(model)
        self.headers["X-Model"] = model.identity(task)
        with self._refusals(model):
            for graph in model.manifest.tasks[task].values():
                model.batchers[graph].check_room(1)
        return model

    @staticmethod
    def find(store: Store, task: str, name: str | None) -> Model:
        """The model of that name, or the task's default.

        Raises:
            ProblemError: 404 unknown, 503 known but not served.
        """
        try:
            return store.find(task, name)
        except UnknownModel as error:
            raise ProblemError(Code.UNKNOWN_MODEL, f"{error}.") from error
        except ModelUnavailable as error:
            raise ProblemError(Code.MODEL_UNAVAILABLE, f"{error}.", retry_after=5) from error

    def use(self, model: Model) -> None:
        """Keeps a model open until the request has ended."""
        self.model_name = model.name
        model.take()
        self._models.append(model)

    def noise(self, seed: int | None, number: int, dimension: int, truncation: float) -> tuple[np.ndarray, int]:
        """Latents (number, dimension) from the seed, which is drawn when absent, and told in `X-Seed`."""
        seed = latents.draw_seed() if seed is None else seed
        self.headers["X-Seed"] = str(seed)
        return latents.draw(seed, number, dimension, truncation), seed

    # decode and fit

    async def declared_size(self, content: bytes, field: str = "image") -> tuple[int, int]:
        """Width and height of an uploaded picture, by its header.

        Raises:
            ProblemError: 415 unreadable.
        """
        try:
            return await self.work("decode", partial(images.declared_size, content), small=len(content) <= _HEADER)
        except images.UnreadableImage as error:
            raise ProblemError(Code.UNREADABLE_IMAGE, f"{field}: {error}.") from error

    async def pixels(self, content: bytes, model: Model, *, fitted: bool = True) -> np.ndarray:
        """An uploaded picture as the (height, width, channels) array that the model takes, or at its own size with the model's channels.

        Raises:
            ProblemError: 415 unreadable, 413 too many pixels, 503 too many are waiting to be decoded, 504 too late.
        """
        fit = fit_of(model)
        prepare = partial(images.fit, to=fit) if fitted else partial(images.whole, channels=fit.channels)
        pixels = await self._decoded(content, model, "image", prepare)
        self.keep(pixels.nbytes)
        return pixels

    async def fitted(self, content: bytes, model: Model) -> tuple[np.ndarray, int, int]:
        """An uploaded picture as the array that the model takes, and the height and width that it had.

        Raises:
            ProblemError: as `pixels`.
        """
        fit = fit_of(model)
        return await self._decoded(content, model, "image", lambda image: (images.fit(image, fit), image.height, image.width))

    async def mask(self, content: bytes, model: Model) -> np.ndarray:
        """An uploaded mask at its own size, bool (height, width), true where it is brighter than half; what is transparent is not.

        Raises:
            ProblemError: as `pixels`.
        """
        levels = await self._decoded(content, model, "mask", partial(images.whole, channels=1, behind="black"))
        return np.asarray(levels[..., 0] > 127)

    async def _decoded(self, content: bytes, model: Model, field: str, prepare: Callable[[Image.Image], Result]) -> Result:
        self.in_time()
        with self._refusals(model):
            self.workers.check_room()
            return await self.work("decode", lambda: prepare(self._decode(content, model, field)), deadline=self.deadline)

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
            ProblemError: 503 the queue is full or the model went away, 504 too late, 500 the run failed.
        """
        return await self.run_graph(model, model.manifest.tasks[task][role], inputs)

    async def run_graph(self, model: Model, graph: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The same, by the name of the graph."""
        return (await self._run(model, graph, inputs)).outputs

    async def run_steps(self, model: Model, task: str, role: str, steps: Generator[Arrays, dict[str, np.ndarray], Result]) -> Result:
        """Runs a graph again and again, as `run`, each time batched with other requests.

        Args:
            steps: yields inputs, is sent what came of them, and returns the result; after the first inputs in the session's thread, which
                waits for it, so that whatever goes on shares the next run.
        """
        results = list[Result]()

        def go_on(outputs: dict[str, np.ndarray]) -> Arrays | None:
            try:
                return steps.send(outputs)
            except StopIteration as end:
                results.append(end.value)
                return None

        await self._run(model, model.manifest.tasks[task][role], next(steps), go_on=go_on)
        return results[0]

    async def _run(self, model: Model, graph: str, inputs: Arrays, joined: bool = True, go_on: GoOn | None = None) -> Outcome:
        self.in_time()
        with self._refusals(model):
            batcher = model.batchers[graph]
            outcome = await batcher.run(inputs, self.deadline, partial(self._follow, batcher), joined, go_on)
        self.deadline = None  # it has begun
        self._add("queue", outcome.queued)
        self._add("infer", outcome.ran)
        return outcome

    async def run_whole(
        self, model: Model, task: str, role: str, pixels: np.ndarray, finish: Callable[[np.ndarray], Result], **more: np.ndarray
    ) -> Result:
        """Runs a graph from images to pictures, its one output, on a picture of any size: resized or in tiles, as the manifest says.

        Args:
            pixels: uint8 (height, width, channels).
            finish: is given what became of it, uint8 (height, width, channels), as many times larger as the graph's pictures are, in a
                thread for such work.
            more: further inputs of the graph, for one item.

        Returns:
            What `finish` does.

        Raises:
            ProblemError: as `run`; 413 the tiles would cover more pixels than are made.
        """
        fit, (height, width, _), scale = fit_of(model), pixels.shape, model.manifest.scale(task, role)
        if model.manifest.large == "resize":
            self.keep(height * width * scale**2 * fit.channels)
            fitted = await self.work("decode", lambda: images.fit(images.picture(pixels), fit))
            (made,) = (await self.run(model, task, role, images=fitted[None], **_each(more, 1))).values()
            return await self.work("encode", lambda: finish(images.unfit(made[0], width * scale, height * scale, fit)))
        grid = Grid(height, width, (fit.height, fit.width), model.manifest.margin, model.manifest.feather, scale)
        area = fit.height * fit.width * scale**2
        most = int(_OVERLAP * self.settings.max_output_megapixels * 1e6) + _FREE * area
        if grid.number * area > most:
            detail = f"The {grid.number:,} tiles of this picture would be {grid.number * area:,} pixels; at most {most:,} are made."
            raise ProblemError(Code.IMAGE_TOO_LARGE, detail, limit=Limit(name="tile_pixels", value=most))
        self.keep(height * width * scale**2 * fit.channels)
        self._total, mosaic, graph = grid.number, Mosaic(grid, fit.channels), model.manifest.tasks[task][role]
        on_cpu = model.batchers[graph].provider == "cpu"
        at_once = 1 if on_cpu else max(1, model.most // grid.columns.number)  # a GPU's runs are short, whatever they hold
        lots = [range(first, min(first + at_once, grid.rows.number)) for first in range(0, grid.rows.number, at_once)]
        for rows in lots:  # one after the other, so that small requests come between
            number = len(rows) * grid.columns.number
            small = number <= _FEW_TILES and number * fit.height * fit.width <= _SMALL_CUT
            tiles = await self.work("decode", partial(grid.cut, pixels, rows), small)
            outcome = await self._run(model, graph, {"images": tiles, **_each(more, len(tiles))}, joined=False)
            if rows is not lots[-1]:
                await self.work("encode", partial(_add_all, mosaic, outcome, rows))
        return await self.work("encode", lambda: finish(_add_all(mosaic, outcome, lots[-1])))

    async def fill_holes(self, model: Model, task: str, role: str, pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Runs a graph from images and masks to pictures, its one output, on the surroundings of each hole of a picture of any size.

        Args:
            pixels: uint8 (height, width, channels).
            mask: bool (height, width), true in holes.

        Returns:
            a copy of the picture with its holes filled.

        Raises:
            ProblemError: as `run` and `keep`; 413 what would be looked at covers the picture many times over.
        """
        side = fit_of(model).height
        self.keep(pixels.nbytes + _HOLES_BYTES * mask.size)
        holes = await self.work("decode", lambda: Holes(mask, side))
        most = _FREE * side**2 + _COVERED * mask.size
        if holes.area > most:
            detail = f"What is round the holes covers {holes.area:,} pixels; of this picture at most {most:,} are looked at."
            raise ProblemError(Code.IMAGE_TOO_LARGE, detail, limit=Limit(name="hole_pixels", value=most))
        filled, self._total = pixels.copy(), len(holes.windows)
        for windows in holes.lots(_AT_ONCE * side**2):
            squares, masks = await self.work("decode", partial(holes.cut_all, pixels, windows))
            (made,) = (await self.run(model, task, role, images=squares, masks=masks)).values()
            await self.work("encode", partial(holes.fill_all, filled, windows, made))
        return filled

    def _follow(self, batcher: Batcher, job: Job) -> None:
        if self._job is not None and self._total:
            self._done += self._job.size
        self._batcher, self._job = batcher, job

    @contextmanager
    def _refusals(self, model: Model) -> Iterator[None]:
        """What a batcher refuses or fails with, as problems."""
        try:
            yield
        except QueueFull as error:
            raise ProblemError(Code.OVERLOADED, f"{model.name}: {error}.", retry_after=error.retry_after) from error
        except DeadlinePassed as error:
            raise ProblemError(Code.DEADLINE_EXCEEDED, f"{model.name}: {error}.") from error
        except ProblemError:
            raise
        except Closed as error:
            raise ProblemError(Code.MODEL_UNAVAILABLE, f"{model.name}: {error}.", retry_after=5) from error
        except Exception as error:
            logger.exception("%s: a run failed", model.name, extra={"fields": {"request_id": self.request.state.id}})
            raise ProblemError(Code.MODEL_FAILED, f"{model.name} failed to run.") from error

    def progress(self) -> tuple[str, int, int, int]:
        """Where it is: `reading`, `queued`, `running` or `finishing`; items ahead in the queue; items done; items in all."""
        job = self._job
        if job is None or self._batcher is None:
            return "reading", 0, 0, 0
        total = self._total or job.size
        done = self._done + job.done
        if job.started is None and not done:
            return "queued", self._batcher.ahead(job), 0, total
        return "finishing" if job.future.done() and done >= total else "running", 0, done, total

    # encode

    async def picture(self, pixels: np.ndarray, media_type: str) -> Response:
        """One picture as the whole answer."""
        return await self.work("encode", partial(self.encoder(media_type), pixels), small=pixels.size <= _SMALL)

    def encoder(self, media_type: str) -> Callable[[np.ndarray], Response]:
        """What makes the whole answer of a picture (height, width, channels)."""
        mark = self._mark()
        return lambda pixels: Response(media.encode(pixels, media_type, mark), media_type=media_type)

    async def base64(self, pictures: Sequence[np.ndarray] | np.ndarray) -> list[str]:
        """Pictures (height, width, channels) each as base64 PNGs."""
        mark, small = self._mark(), sum(picture.size for picture in pictures) <= _SMALL
        return await self.work("encode", lambda: [media.encode_base64(picture, mark) for picture in pictures], small)

    def _mark(self) -> bytes | None:
        if not self.settings.provenance and not self.always_marked:
            return None
        return provenance.packet(self.source, self.headers["X-Model"])

    async def described(self, image: np.ndarray) -> dict[str, Any]:
        """What every JSON answer of one picture has: the picture as base64 PNG, its width and height, the model."""
        height, width, _ = image.shape
        return {"image": (await self.base64(image[None]))[0], "width": width, "height": height, "model": self.model_name}

    def json(self, answer: BaseModel) -> Response:
        """The answer as JSON; fields that are None are left out."""
        return Response(answer.model_dump_json(exclude_none=True), media_type=media.JSON)

    # timings

    async def work(self, stage: str, function: Callable[[], Result], small: bool = False, deadline: float | None = None) -> Result:
        """Runs blocking work off the event loop, and counts its time; what is `small` at once.

        Raises:
            DeadlinePassed: it had not begun by its deadline.
        """
        result, seconds = timed(function) if small else await self.workers.run(function, deadline)
        self._add(stage, seconds)
        return result

    def _add(self, stage: str, seconds: float) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    @property
    def server_timing(self) -> str:
        """`Server-Timing`: the stages passed, in milliseconds."""
        return ", ".join(f"{stage};dur={self.seconds[stage] * 1000:.2f}" for stage in _STAGES if stage in self.seconds)


async def _current(request: Request) -> Call:
    return Call(request)


CurrentCall = Annotated[Call, Depends(_current)]


def _deadline(request: Request) -> float | None:
    """When the request's time is over, on the clock of `time.perf_counter`.

    Raises:
        ProblemError: 422, the header is no number of seconds above 0.
    """
    given = request.headers.get(TIMEOUT_HEADER)
    if given is None:
        return None
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise invalid(["header", TIMEOUT_HEADER], f"{given[:40]} is not a number of seconds above 0")
    return float(request.state.started) + seconds


def _each(inputs: dict[str, np.ndarray], number: int) -> dict[str, np.ndarray]:
    """Inputs of one item, for so many that share them."""
    return {name: np.repeat(value[None], number, axis=0) for name, value in inputs.items()}


def _add_all(mosaic: Mosaic, outcome: Outcome, rows: range) -> np.ndarray:
    """Rows of tiles, one after the other; the picture as far as it is there."""
    (name,) = outcome.parts[0]
    tiles = [tile for part in outcome.rows(name) for tile in part]
    number = len(tiles) // len(rows)
    for index, row in enumerate(rows):
        mosaic.add(tiles[index * number : (index + 1) * number], row)
    return mosaic.pixels


def fit_of(model: Model) -> Fit:
    """How pictures enter a model; the manifest vouches that a model with an `images` input says so."""
    assert model.manifest.fit is not None
    return model.manifest.fit


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
