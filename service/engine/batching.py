"""Continuous batching: whatever is queued when the session is free becomes the next run.

No timer: a request that arrives alone runs at once, and while it runs the others gather. A graph's items are all of one
size, so its cost is counted in rows. On a CPU a row takes the same time in a run of any size, so that runs are kept short there:
what comes next waits less, and the answers of one run are written while the next one is under way. Which requests share a run
never changes an answer: every row of a graph's output depends on its own row of the input alone.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from service.engine.session import Arrays, Session, SessionBroken, step_back

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


Part = tuple[Job, int, int]
"""Some rows of a job: the first of them, and the one after the last."""

Answer = tuple[Job, Outcome | Exception]


class Batcher:
    """The queue of one session, and the one thread that runs it.

    Requests enter and leave on the event loop. The thread takes the next rows by itself the moment a run ends, without waiting
    for the loop's turn, and hands all answers of a run back at once.

    Args:
        most: the most rows of one run. A larger request is spread over several runs.
        seconds: about how long a run takes at most, by the measured time of a row; without it only `most` counts.
        limit: the most rows that wait or run; a single larger request is taken when nothing else is there.
        reopen: opens the session anew after a run broke it.
        lost: is called, on the event loop, when that did not help.

    Attributes:
        healthy: false while a broken session is being replaced, and for good where that failed.
    """

    def __init__(
        self,
        session: Session,
        most: int,
        limit: int,
        seconds: float | None = None,
        observer: Observer | None = None,
        reopen: Callable[[], Session] | None = None,
        lost: Callable[[str], None] | None = None,
    ) -> None:
        self.session, self.most, self.limit, self.seconds = session, most, limit, seconds
        self.healthy = True
        self._observer, self._reopen, self._lost = observer, reopen, lost
        self._thread = ThreadPoolExecutor(1, f"session-{session.graph.file}", initializer=step_back)
        self._lock = threading.Lock()  # of all below, which the event loop and the thread change
        self._queue: deque[Job] = deque()
        self._rows = 0
        self._awake = False
        self._closed = False
        self._seconds_per_row = 0.0
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
        loop = asyncio.get_running_loop()
        job = Job(inputs, size, loop.create_future(), time.perf_counter(), deadline, self._rows)
        with self._lock:
            self._queue.append(job)
            self._rows += size
            asleep, self._awake = not self._awake, True
        if asleep:
            self._thread.submit(self._work, loop)
        if watch is not None:
            watch(job)
        try:
            return await job.future
        except asyncio.CancelledError:
            if self._leave(job) and job.started is None and self._observer:
                self._observer.cancelled()
            raise

    def close(self) -> None:
        """Fails what still waits and lets the thread end after its present run."""
        with self._lock:
            self._closed = True
            left = list(self._queue)
            self._queue.clear()
            self._rows = 0
        _answer([(job, Closed("the model was closed")) for job in left])
        self._thread.shutdown(wait=False)

    def _leave(self, job: Job) -> bool:
        """Takes a job out of the queue; false if it was out already."""
        with self._lock:
            if job not in self._queue:
                return False
            self._queue.remove(job)
            self._rows -= job.size
            return True

    # in the session's thread

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        """Runs what is queued until nothing is."""
        while True:
            batch, late = self._take()
            if late:
                loop.call_soon_threadsafe(_answer, late)
            if batch is None:
                return
            if not batch:
                continue
            started = time.perf_counter()
            try:
                outputs = self._run(batch)
            except Exception as error:
                answers: list[Answer] = [(job, error) for job, _, _ in batch if self._leave(job)]
                loop.call_soon_threadsafe(_answer, answers)
                if isinstance(error, SessionBroken):
                    self._replace(str(error), loop)
            else:
                took = time.perf_counter() - started
                self._suspect = False
                self._observe(batch, took)
                loop.call_soon_threadsafe(_answer, self._share(batch, outputs, took))

    def _take(self) -> tuple[list[Part] | None, list[Answer]]:
        """The next rows, first come first served, and the requests whose deadline has passed; no list of rows when nothing is queued."""
        batch: list[Part] = []
        late: list[Answer] = []
        with self._lock:
            if not self._queue or self._closed:
                self._awake = False
                return None, late
            room, now = self._rows_of_a_run(), time.perf_counter()
            for job in list(self._queue):
                if job.started is None and job.deadline is not None and job.deadline <= now:
                    self._queue.remove(job)
                    self._rows -= job.size
                    late.append((job, DeadlinePassed("the deadline passed in the queue")))
                    continue
                rows = min(room, job.size - job.taken)
                batch.append((job, job.taken, job.taken + rows))
                if job.started is None:
                    job.started = now
                room -= rows
                if room == 0:
                    break
        return batch, late

    def _rows_of_a_run(self) -> int:
        if self.seconds is None or self._seconds_per_row == 0:
            return self.most
        return max(1, min(self.most, round(self.seconds / self._seconds_per_row)))

    def _run(self, batch: Sequence[Part]) -> dict[str, np.ndarray]:
        if len(batch) == 1:
            (job, first, last) = batch[0]
            return self.session.run({name: array[first:last] for name, array in job.inputs.items()})
        names = batch[0][0].inputs.keys()
        return self.session.run({name: np.concatenate([job.inputs[name][first:last] for job, first, last in batch]) for name in names})

    def _share(self, batch: Sequence[Part], outputs: dict[str, np.ndarray], took: float) -> list[Answer]:
        """Gives each job its rows; the answers of those that are complete."""
        row, answers = 0, list[Answer]()
        for job, first, last in batch:
            job.parts.append({name: array[row : row + last - first] for name, array in outputs.items()})
            row += last - first
            job.taken, job.ran = last, job.ran + took
            if job.taken == job.size and self._leave(job):
                assert job.started is not None
                answers.append((job, Outcome(_join(job.parts), job.started - job.arrived, job.ran)))
        self._seconds_per_row += 0.2 * (took / row - self._seconds_per_row)
        return answers

    def _observe(self, batch: Sequence[Part], took: float) -> None:
        if self._observer is None:
            return
        self._observer.ran(sum(last - first for _, first, last in batch), took)
        for job, first, _ in batch:
            if first == 0 and job.started is not None:
                self._observer.waited(job.started - job.arrived)

    def _replace(self, why: str, loop: asyncio.AbstractEventLoop) -> None:
        """Puts a new session in the place of one that a run broke; the second time without a good run between, it is lost."""
        self.healthy = False
        logger.error("%s: the session broke (%s)", self.session.graph.file, why)
        if self._reopen is None or self._suspect:
            self._give_up(why, loop)
            return
        try:
            self.session = self._reopen()
        except Exception as error:
            self._give_up(f"{why}; opened again, {error}", loop)
            return
        self._suspect, self.healthy = True, True
        logger.warning("%s: opened again", self.session.graph.file)

    def _give_up(self, why: str, loop: asyncio.AbstractEventLoop) -> None:
        def lose() -> None:
            if self._lost is not None:
                self._lost(why)
            self.close()

        self._closed = True
        loop.call_soon_threadsafe(lose)


def _answer(answers: Sequence[Answer]) -> None:
    """Gives callers that still wait their outcome or error; on the event loop."""
    for job, result in answers:
        if job.future.done():
            continue
        if isinstance(result, Outcome):
            job.future.set_result(result)
        else:
            job.future.set_exception(result)


def _join(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return parts[0] if len(parts) == 1 else {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
