"""Continuous batching: whatever is queued when the session is free becomes the next run.

No timer: a request that arrives alone runs at once, and while it runs the others gather. Which requests
share a run never changes an answer: every row of a graph's output depends on its own row of the input.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from service.engine.session import Arrays, Session


class QueueFull(Exception):
    """More requests wait than the limit allows; `retry_after` is when, in seconds, there may be room."""

    def __init__(self, waiting: int, retry_after: float) -> None:
        super().__init__(f"{waiting} requests are waiting already")
        self.retry_after = retry_after


class Closed(Exception):
    """The batcher was closed before the request ran."""


@dataclass
class Outcome:
    """What one request got: arrays (n, ...) by output name, and its seconds in the queue and in runs."""

    outputs: dict[str, np.ndarray]
    queued: float
    ran: float


@dataclass(eq=False)
class _Job:
    inputs: Arrays
    size: int
    future: asyncio.Future[Outcome]
    arrived: float
    taken: int = 0
    started: float | None = None
    ran: float = 0.0
    parts: list[dict[str, np.ndarray]] = field(default_factory=list)


class Batcher:
    """The queue of one session, and the one thread that runs it.

    Args:
        most: the most rows of one run. A larger request is spread over several runs.
        limit: the most requests that wait or run.
    """

    def __init__(self, session: Session, most: int, limit: int) -> None:
        self.session, self.most, self.limit = session, most, limit
        self._queue: deque[_Job] = deque()
        self._thread = ThreadPoolExecutor(1, f"session-{session.graph.file}")
        self._loop_task: asyncio.Task[None] | None = None
        self._seconds_per_row = 0.0
        self._closed = False

    @property
    def depth(self) -> int:
        """Requests waiting or running."""
        return len(self._queue)

    async def run(self, inputs: Arrays) -> Outcome:
        """Runs the rows of one request, together with whatever else is queued.

        Args:
            inputs: arrays by input name with the same first dimension n >= 1.

        Raises:
            QueueFull: the queue is at its limit.
            Closed: the batcher was closed before all rows had run.
            Exception: whatever the session raised on a run that held rows of this request.
        """
        if self._closed:
            raise Closed("the model was closed")
        if len(self._queue) >= self.limit:
            raise QueueFull(len(self._queue), self._seconds_per_row * sum(job.size - job.taken for job in self._queue))
        size = len(next(iter(inputs.values())))
        job = _Job(inputs, size, asyncio.get_running_loop().create_future(), time.perf_counter())
        self._queue.append(job)
        if self._loop_task is None or self._loop_task.done():
            self._loop_task = asyncio.create_task(self._drain())
        return await job.future

    def close(self) -> None:
        """Fails what still waits and lets the thread end after its present run."""
        self._closed = True
        for job in list(self._queue):
            self._leave(job, Closed("the model was closed"))
        self._thread.shutdown(wait=False)

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        while self._queue:
            batch = self._take()
            if not batch:
                continue
            started = time.perf_counter()
            try:
                outputs = await loop.run_in_executor(self._thread, self._run, batch)
            except Exception as error:
                self._fail(batch, error)
            else:
                self._deliver(batch, outputs, started)

    def _take(self) -> list[tuple[_Job, int, int]]:
        """The next rows, first come first served: (job, first row, last row + 1)."""
        batch, room = [], self.most
        for job in list(self._queue):
            if job.future.done():  # the caller went away
                self._leave(job)
                continue
            rows = min(room, job.size - job.taken)
            batch.append((job, job.taken, job.taken + rows))
            room -= rows
            if room == 0:
                break
        return batch

    def _run(self, batch: Sequence[tuple[_Job, int, int]]) -> dict[str, np.ndarray]:
        names = batch[0][0].inputs.keys()
        joined = {name: np.concatenate([job.inputs[name][first:last] for job, first, last in batch]) for name in names}
        return self.session.run(joined)

    def _deliver(self, batch: Sequence[tuple[_Job, int, int]], outputs: dict[str, np.ndarray], started: float) -> None:
        took, row = time.perf_counter() - started, 0
        for job, first, last in batch:
            job.parts.append({name: array[row : row + last - first] for name, array in outputs.items()})
            row += last - first
            job.taken, job.ran = last, job.ran + took
            job.started = started if job.started is None else job.started
            if job.taken == job.size:
                self._leave(job, Outcome(_join(job.parts), job.started - job.arrived, job.ran))
        self._seconds_per_row += 0.2 * (took / row - self._seconds_per_row)

    def _fail(self, batch: Sequence[tuple[_Job, int, int]], error: Exception) -> None:
        for job, _, _ in batch:
            self._leave(job, error)

    def _leave(self, job: _Job, with_what: Outcome | Exception | None = None) -> None:
        """Takes a job out of the queue, where it still is, and answers its caller, if that still waits."""
        if job in self._queue:
            self._queue.remove(job)
        if job.future.done():
            return
        if isinstance(with_what, Outcome):
            job.future.set_result(with_what)
        elif with_what is not None:
            job.future.set_exception(with_what)


def _join(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return parts[0] if len(parts) == 1 else {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
