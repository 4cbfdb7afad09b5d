"""Continuous batching: whatever is queued when the session is free becomes the next run.

No timer: a request that arrives alone runs at once, and while it runs the others gather. A graph's items are all of one
size, so its cost is counted in rows. Which requests share a run never changes an answer: every row of a graph's output
depends on its own row of the input alone.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from service.engine.session import Arrays, Session, SessionBroken

logger = logging.getLogger("atelier")


class QueueFull(Exception):
    """More rows wait than the limit allows; `retry_after` is when, in seconds, there may be room."""

    def __init__(self, waiting: int, retry_after: float) -> None:
        super().__init__(f"{waiting} items are waiting already")
        self.retry_after = retry_after


class DeadlinePassed(Exception):
    """The request's deadline came before its first row could run."""


class Closed(Exception):
    """The batcher was closed before the request ran."""


class Observer(Protocol):
    """Is told what a batcher does."""

    def ran(self, rows: int, seconds: float) -> None: ...

    def waited(self, seconds: float) -> None: ...

    def cancelled(self) -> None: ...


@dataclass
class Outcome:
    """What one request got: arrays (n, ...) by output name, and its seconds in the queue and in runs."""

    outputs: dict[str, np.ndarray]
    queued: float
    ran: float


@dataclass(eq=False)
class Job:
    """One request in a batcher's hands.

    Attributes:
        size, taken: its rows, and how many of them have run.
        deadline: on the clock of `time.perf_counter`; what has not begun by then never does.
        ahead: rows that stood before it when it came.
    """

    inputs: Arrays
    size: int
    future: asyncio.Future[Outcome]
    arrived: float
    deadline: float | None
    ahead: int
    taken: int = 0
    started: float | None = None
    ran: float = 0.0
    parts: list[dict[str, np.ndarray]] = field(default_factory=list)


class Batcher:
    """The queue of one session, and the one thread that runs it.

    Args:
        most: the most rows of one run. A larger request is spread over several runs.
        limit: the most rows that wait or run; a single larger request is taken when nothing else is there.
        reopen: opens the session anew after a run broke it.
        lost: is called when that did not help.

    Attributes:
        healthy: false while a broken session is being replaced, and for good where that failed.
    """

    def __init__(
        self,
        session: Session,
        most: int,
        limit: int,
        observer: Observer | None = None,
        reopen: Callable[[], Session] | None = None,
        lost: Callable[[str], None] | None = None,
    ) -> None:
        self.session, self.most, self.limit = session, most, limit
        self.healthy = True
        self._observer, self._reopen, self._lost = observer, reopen, lost
        self._queue: deque[Job] = deque()
        self._rows = 0
        self._thread = ThreadPoolExecutor(1, f"session-{session.graph.file}")
        self._loop_task: asyncio.Task[None] | None = None
        self._seconds_per_row = 0.0
        self._closed = False
        self._suspect = False

    @property
    def depth(self) -> int:
        """Requests waiting or running."""
        return len(self._queue)

    @property
    def rows(self) -> int:
        """Rows waiting or running."""
        return self._rows

    def wait(self) -> float:
        """Seconds until what is queued now will have run, from the measured time of a row."""
        return self._seconds_per_row * self._rows

    def check_room(self, rows: int) -> None:
        """Refuses a request before any work is done for it.

        Raises:
            QueueFull: the queue is at its limit.
            Closed: the batcher was closed.
        """
        if self._closed:
            raise Closed("the model was closed")
        if self._rows and self._rows + rows > self.limit:
            raise QueueFull(self._rows, self.wait())

    async def run(self, inputs: Arrays, deadline: float | None = None, watch: Callable[[Job], None] | None = None) -> Outcome:
        """Runs the rows of one request, together with whatever else is queued.

        Args:
            inputs: arrays by input name with the same first dimension n >= 1.
            deadline: on the clock of `time.perf_counter`.
            watch: is given the job, to follow how far it is.

        Raises:
            QueueFull: the queue is at its limit.
            DeadlinePassed: no row had begun to run by the deadline.
            Closed: the batcher was closed before all rows had run.
            Exception: whatever the session raised on a run that held rows of this request.
        """
        size = len(next(iter(inputs.values())))
        self.check_room(size)
        job = Job(inputs, size, asyncio.get_running_loop().create_future(), time.perf_counter(), deadline, self._rows)
        self._queue.append(job)
        self._rows += size
        if watch is not None:
            watch(job)
        if self._loop_task is None or self._loop_task.done():
            self._loop_task = asyncio.create_task(self._drain())
        try:
            return await job.future
        except asyncio.CancelledError:
            if job in self._queue and job.started is None and self._observer:
                self._observer.cancelled()
            self._leave(job)
            raise

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
            except SessionBroken as error:
                self._fail(batch, error)
                await self._replace(str(error))
            except Exception as error:
                self._fail(batch, error)
            else:
                self._suspect = False
                self._deliver(batch, outputs, started)

    def _take(self) -> list[tuple[Job, int, int]]:
        """The next rows, first come first served: (job, first row, last row + 1)."""
        batch, room, now = [], self.most, time.perf_counter()
        for job in list(self._queue):
            if job.future.done():  # the caller went away
                self._leave(job)
                continue
            if job.started is None and job.deadline is not None and job.deadline <= now:
                self._leave(job, DeadlinePassed("the deadline passed in the queue"))
                continue
            rows = min(room, job.size - job.taken)
            batch.append((job, job.taken, job.taken + rows))
            if job.started is None:
                job.started = now
                if self._observer:
                    self._observer.waited(now - job.arrived)
            room -= rows
            if room == 0:
                break
        return batch

    def _run(self, batch: Sequence[tuple[Job, int, int]]) -> dict[str, np.ndarray]:
        if len(batch) == 1:
            (job, first, last) = batch[0]
            return self.session.run({name: array[first:last] for name, array in job.inputs.items()})
        names = batch[0][0].inputs.keys()
        return self.session.run({name: np.concatenate([job.inputs[name][first:last] for job, first, last in batch]) for name in names})

    def _deliver(self, batch: Sequence[tuple[Job, int, int]], outputs: dict[str, np.ndarray], started: float) -> None:
        took, row = time.perf_counter() - started, 0
        for job, first, last in batch:
            job.parts.append({name: array[row : row + last - first] for name, array in outputs.items()})
            row += last - first
            job.taken, job.ran = last, job.ran + took
            if job.taken == job.size:
                assert job.started is not None
                self._leave(job, Outcome(_join(job.parts), job.started - job.arrived, job.ran))
        self._seconds_per_row += 0.2 * (took / row - self._seconds_per_row)
        if self._observer:
            self._observer.ran(row, took)

    def _fail(self, batch: Sequence[tuple[Job, int, int]], error: Exception) -> None:
        for job, _, _ in batch:
            self._leave(job, error)

    async def _replace(self, why: str) -> None:
        """Puts a new session in the place of one that a run broke; the second time without a good run between, it is lost."""
        self.healthy = False
        logger.error("%s: the session broke (%s)", self.session.graph.file, why)
        if self._reopen is None or self._suspect:
            self._give_up(why)
            return
        try:
            self.session = await asyncio.get_running_loop().run_in_executor(self._thread, self._reopen)
        except Exception as error:
            self._give_up(f"{why}; opened again, {error}")
            return
        self._suspect, self.healthy = True, True
        logger.warning("%s: opened again", self.session.graph.file)

    def _give_up(self, why: str) -> None:
        self.close()
        if self._lost is not None:
            self._lost(why)

    def _leave(self, job: Job, with_what: Outcome | Exception | None = None) -> None:
        """Takes a job out of the queue, where it still is, and answers its caller, if that still waits."""
        if job in self._queue:
            self._queue.remove(job)
            self._rows -= job.size
        if job.future.done():
            return
        if isinstance(with_what, Outcome):
            job.future.set_result(with_what)
        elif with_what is not None:
            job.future.set_exception(with_what)


def _join(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return parts[0] if len(parts) == 1 else {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
