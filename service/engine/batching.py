"""Continuous batching: whatever is queued when the session is free becomes the next run.

No timer: a request that arrives alone runs at once, on a GPU once the event loop's turn is over, and while it runs the others gather. A
graph's items are all of one size, so its cost is counted in rows. On a CPU a row takes the same time in a run of any size, so that runs
are kept short there: what comes next waits less, and the answers of one run are written while the next one is under way. Slow graphs
have runs of one row, by all threads or, where there are enough, one for each thread, none of which waits for another. On a GPU a run
of a few rows takes as long as a full one, and less than reading the requests for it: all that are read in one turn of the event loop go
together, for threads that take them one by one hinder it. Two full runs may be under way there at a time: while one computes, the inputs
of the next are brought and what the last one made is handed out. Where a request goes on with what a run gave, as a sentence does word by
word, its next rows are found in the thread of that run, and share one. Which requests share a run never changes an answer: every row of a
graph's output depends on its own row of the input alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np

from service.engine.cpu import SLOW_NICENESS, step_back
from service.engine.session import Arrays, BadOutput, Session, SessionBroken

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
    """What one request got, and its seconds in the queue and in runs, those at the same time counted once.

    Attributes:
        parts: of the runs that held rows of it, in order, arrays (n, ...) by output name; or one part for all of them.
    """

    parts: list[dict[str, np.ndarray]]
    queued: float
    ran: float

    @property
    def outputs(self) -> dict[str, np.ndarray]:
        """Arrays (n, ...) by output name, of all rows: to put large ones together takes time."""
        return self.parts[0] if len(self.parts) == 1 else {name: np.concatenate([*self.rows(name)]) for name in self.parts[0]}

    def rows(self, name: str) -> Iterator[np.ndarray]:
        """One output, in as many arrays (n, ...) as there are parts."""
        return (part[name] for part in self.parts)


GoOn = Callable[[dict[str, np.ndarray]], Arrays | None]
"""From what a request's rows gave to those that it goes on with, one at least; nothing at its end."""


@dataclass(eq=False)
class Job:
    """One request in a batcher's hands.

    Attributes:
        size, taken, done: its rows, how many of them runs have begun with, and how many have run.
        parts: what came of them, by the first row of each part.
        arrived, started: when its present rows came, and when a run began with the first of them.
        queued: seconds that it has waited for that so far.
        ran, since: seconds in which any run held rows of it, so far; the present ones, since when.
        deadline: on the clock of `time.perf_counter`; what has not begun by then never does.
    """

    inputs: Arrays
    size: int
    future: asyncio.Future[Outcome]
    arrived: float
    deadline: float | None
    joined: bool = True
    go_on: GoOn | None = None
    taken: int = 0
    done: int = 0
    started: float | None = None
    queued: float = 0.0
    ran: float = 0.0
    since: float = 0.0
    parts: dict[int, dict[str, np.ndarray]] = field(default_factory=dict)


Part = tuple[Job, int, int]
"""Some rows of a job: the first of them, and the one after the last."""

Answer = tuple[Job, Outcome | Exception]


class Batcher:
    """The queue of one session, and the threads that run it: one, or as many as its `lanes`.

    Requests enter and leave on the event loop. A thread takes the next rows by itself the moment a run ends, if any of them came in a turn
    that is over, and hands all answers of a run back at once. More than one work while there are enough rows: on a GPU for full runs, on a
    CPU for most of its threads, since few are done sooner one after the other, by all of them.

    Args:
        most: the most rows of one run. A larger request is spread over several runs.
        seconds: about how long a run takes at most, by the measured time of a row; without it, as on a GPU, only `most` counts, and what
            comes in one turn of the event loop waits for its end.
        longest: seconds after which a run is told to end. One that does not in as many again is given up, and the session with it.
        limit: the most rows that wait or run; a single larger request is taken when nothing else is there.
        reopen: opens the session anew after a run broke it.
        lost: is called, on the event loop, when that did not help.

    Attributes:
        session: nothing while a broken one is being replaced, and once the batcher is closed and its last run is over.
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
        longest: float | None = None,
    ) -> None:
        self.session: Session | None = session
        self.most, self.limit, self.seconds, self.longest = most, limit, seconds, longest
        self.file, self.provider, self.precision = session.graph.file, session.provider, session.precision
        self._observer, self._reopen, self._lost = observer, reopen, lost
        self._lanes = session.lanes
        behind = partial(step_back, SLOW_NICENESS) if seconds is not None and self._lanes > 1 else step_back
        self._threads = [ThreadPoolExecutor(1, f"session-{self.file}-{lane}", initializer=behind) for lane in range(self._lanes)]
        self._replacing = threading.Lock()  # held while a broken session is replaced, and to get hold of the one that there is
        self._replaced = 0  # broken sessions so far
        self._lock = threading.Lock()  # of all below, which the event loop and the threads change
        self._queue: deque[Job] = deque()
        self._rows = 0
        self._gathering: asyncio.AbstractEventLoop | None = None  # whose turn, in which requests came, is not over
        self._ready = False  # what waits may be run: on a GPU, some of it came in a turn that is over
        self._resting = set(range(self._lanes))  # threads that do not work
        self._began: dict[int, float] = {}  # when each took its last rows
        self._beside: dict[int, bool] = {}  # whether its run has one of a CPU's threads, not all
        self._watched = False
        self._running: dict[int, float] = {}  # by thread, since when it is in a run
        self._overdue: set[int] = set()  # threads whose runs were told to end
        self._whole = True
        self._closed = False
        self._seconds_per_row = 0.0
        self._suspect = False
        self._rooms = threading.local()  # of each thread, by input, for the most rows so far

    @property
    def healthy(self) -> bool:
        """Not while a run that took too long does not end, nor while a broken session is being replaced; never again where that failed."""
        return self._whole and not self._overdue

    @property
    def depth(self) -> int:
        """Requests waiting or running."""
        return len(self._queue)

    @property
    def rows(self) -> int:
        """Rows waiting or running."""
        return self._rows

    def ahead(self, job: Job) -> int:
        """Rows that stand before a job now."""
        with self._lock:
            before = itertools.takewhile(lambda other: other is not job, self._queue)
            return sum(other.size - other.done for other in before)

    def check_room(self, rows: int) -> None:
        """Refuses a request before any work is done for it.

        Raises:
            QueueFull: the queue is at its limit.
            Closed: the batcher was closed.
        """
        if self._closed:
            raise Closed("the model was closed")
        if self._rows and self._rows + rows > self.limit:
            at_once = 1 if self.seconds is None else self._lanes
            raise QueueFull(self._rows, self._seconds_per_row * self._rows / at_once)

    async def run(
        self,
        inputs: Arrays,
        deadline: float | None = None,
        watch: Callable[[Job], None] | None = None,
        joined: bool = True,
        go_on: GoOn | None = None,
    ) -> Outcome:
        """Runs the rows of one request, together with whatever else is queued.

        Args:
            inputs: arrays by input name with the same first dimension n >= 1.
            deadline: on the clock of `time.perf_counter`.
            watch: is given the job, to follow how far it is.
            joined: what several runs gave comes as one part.
            go_on: is called in the thread of a run, and says what the request goes on with; what its last rows gave is the outcome.

        Raises:
            QueueFull: the queue is at its limit.
            DeadlinePassed: no row had begun to run by the deadline.
            Closed: the batcher was closed before all rows had run.
            BadOutput: the graph gave numbers that are not finite.
            Exception: whatever the session raised on a run that held rows of this request, or `go_on`.
        """
        size = _rows(inputs)
        self.check_room(size)
        loop = asyncio.get_running_loop()
        job = Job(inputs, size, loop.create_future(), time.perf_counter(), deadline, joined, go_on)
        with self._lock:
            self._queue.append(job)
            self._rows += size
            if self.seconds is not None:
                self._ready = True
            elif self._gathering is not loop:
                self._gathering = loop
                loop.call_soon(self._gathered, loop)
        self._rouse(loop)
        if self.longest is not None and not self._watched:
            self._watched = True
            loop.call_later(self.longest / 4, self._watch, loop, self.longest)
        if watch is not None:
            watch(job)
        timer = None if deadline is None else loop.call_later(deadline - job.arrived, self._drop, job)
        try:
            return await job.future
        except asyncio.CancelledError:
            if self._leave(job) and job.started is None and job.ran == 0 and self._observer:
                self._observer.cancelled()
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def close(self) -> None:
        """Fails what still waits, tells the present run to end, and lets the thread end after it."""
        with self._lock:
            self._closed = True
            left = list(self._queue)
            self._queue.clear()
            self._rows = 0
        _answer([(job, Closed("the model was closed")) for job in left])
        self._stop()
        with contextlib.suppress(RuntimeError):  # closed before
            self._threads[0].submit(self._release)
        for thread in self._threads:
            thread.shutdown(wait=False)

    def _drop(self, job: Job) -> None:
        """The deadline has come of what waits: it makes room."""
        if self._leave(job, late=True):
            _answer([(job, DeadlinePassed("the deadline passed in the queue"))])

    def _stop(self, threads: Collection[int] | None = None) -> None:
        """Tells the present runs to end, or those of some threads."""
        session = self.session
        if session is not None and self._running:
            session.stop(threads)

    def _watch(self, loop: asyncio.AbstractEventLoop, longest: float) -> None:
        """Looks, while there is work, whether a run takes too long."""
        with self._lock:  # meanwhile the run does not end, nor does another begin that is not meant
            now = time.perf_counter()
            late = {thread for thread, since in self._running.items() if now - since >= longest} - self._overdue
            took = max((now - since for since in self._running.values()), default=0.0)
            given_up = took >= 2 * longest
            if late and not given_up:
                self._overdue |= late
                self._stop(late)
        if late and not given_up:
            logger.error("%s: a run is ended after %.1f s", self.file, took)
        elif given_up:
            self._give_up(f"a run did not end in {took:.0f} s, although it was told to", loop)
        self._watched = (self._awake > 0 or bool(self._queue)) and not self._closed
        if self._watched:
            loop.call_later(longest / 4, self._watch, loop, longest)

    def _gathered(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            self._gathering, self._ready = None, self._waiting() > 0
        self._rouse(loop)

    def _rouse(self, loop: asyncio.AbstractEventLoop) -> None:
        """Has one thread more work if there is work for it."""
        with self._lock:
            if self._closed or not self._more_wanted(self._awake):
                return
            lane = min(self._resting)  # where there is little work always the same one, which has what it needs at hand
            self._resting.remove(lane)
        with contextlib.suppress(RuntimeError):  # closed since
            self._threads[lane].submit(self._work, loop, lane)

    def _leave(self, job: Job, late: bool = False) -> bool:
        """Takes a job out of the queue; false if it was out already or, where its deadline has come, if it has begun."""
        with self._lock:
            if job not in self._queue or (late and (job.started is not None or job.deadline is None)):
                return False
            self._queue.remove(job)
            self._rows -= job.size
            return True

    # in the session's thread

    def _work(self, loop: asyncio.AbstractEventLoop, lane: int) -> None:
        """Runs what is queued until nothing is."""
        try:
            while batch := self._take(lane):
                self._rouse(loop)
                self._run_once(batch, self._beside[lane], loop)
        except BaseException as error:  # nothing may go wrong here; if it does, nobody waits for ever
            logger.critical("%s: its thread failed", self.file, exc_info=error)
            self._give_up(f"its thread failed ({error!r})", loop)

    def _run_once(self, batch: list[Part], beside: bool, loop: asyncio.AbstractEventLoop) -> None:
        """One run, and what follows from it."""
        with self._replacing:
            session, replaced = self.session, self._replaced
        thread = threading.get_ident()
        with self._lock:
            self._running[thread] = started = time.perf_counter()
        try:
            try:
                outputs = self._run(session, batch, beside)
            finally:
                session = None  # errors of what follows should not hold it
                with self._lock:
                    del self._running[thread]
                    self._overdue.discard(thread)
            took = time.perf_counter() - started
            self._observe(batch, took)
            answers = self._share(batch, outputs, took)
        except Exception as error:
            _clear_frames(error)
            for job, _, _ in batch:
                self._leave(job)
            _tell(loop, _answer, [(job, error) for job, _, _ in batch])
            if isinstance(error, SessionBroken):
                with self._replacing:
                    if self._replaced == replaced:  # not replaced meanwhile by another thread
                        self._replace(str(error), loop)
            return
        if self._replaced == replaced:
            self._suspect = False
        if answers:  # otherwise all of it goes on
            _tell(loop, _answer, answers)

    def _take(self, lane: int) -> list[Part]:
        """The next rows, first come first served; none when nothing is queued, or too little for one thread more."""
        batch: list[Part] = []
        with self._lock:
            enough = self._more_wanted(self._awake - 1) and not self._closed
            waiting, now = self._waiting(), time.perf_counter()
            room = most = self._rows_of_a_run()
            for job in self._queue if enough else ():
                if job.taken == job.size:
                    continue  # all of it runs
                if job.started is None and job.deadline is not None and job.deadline <= now:
                    continue  # `_drop` comes for it
                rows = min(room, job.size - job.taken)
                batch.append((job, job.taken, job.taken + rows))
                if job.started is None:
                    job.started = now
                    job.queued += now - job.arrived
                if job.taken == job.done:
                    job.since = now
                job.taken += rows
                room -= rows
                if room == 0:
                    break
            left = waiting - (most - room)
            self._ready = self._ready and left > 0
            self._began.pop(lane, None)
            if batch:
                young = sum(now - began < self._seconds_per_row / 2 for began in self._began.values())
                self._beside[lane] = self._for_most_lanes(1 + young + left)
                self._began[lane] = now
            else:
                self._resting.add(lane)
        return batch

    def _waiting(self) -> int:
        """Rows with which no run has begun."""
        return sum(job.size - job.taken for job in self._queue)

    @property
    def _awake(self) -> int:
        """Threads that work."""
        return len(self._threads) - len(self._resting)

    def _more_wanted(self, awake: int) -> bool:
        """Whether there is work for one thread besides so many; for the only one, whatever is ready."""
        if awake == 0:
            return self._ready
        waiting = self._waiting()
        if self.seconds is None:
            enough = waiting >= self.most
        else:
            enough = waiting > 0 and self._for_most_lanes(sum(job.size - job.done for job in self._queue))
        return awake < self._lanes and enough

    def _for_most_lanes(self, rows: int) -> bool:
        """Of so many rows on a CPU: rather one for each thread, side by side, than all threads for one after the other."""
        return 1 < self._lanes < 2 * rows

    def _rows_of_a_run(self) -> int:
        if self.seconds is None:
            return self.most
        if self._lanes > 1 or self._seconds_per_row == 0:
            return 1
        return max(1, min(self.most, round(self.seconds / self._seconds_per_row)))

    def _run(self, session: Session | None, batch: Sequence[Part], beside: bool) -> dict[str, np.ndarray]:
        if session is None:
            raise Closed("the model was closed")
        if len(batch) == 1:
            (job, first, last) = batch[0]
            inputs = {name: array[first:last] for name, array in job.inputs.items()}
        else:
            inputs = {name: self._stacked(name, batch) for name in batch[0][0].inputs}
        return session.run(inputs, beside)

    def _stacked(self, name: str, batch: Sequence[Part]) -> np.ndarray:
        """The rows of one input, together: in memory that is kept for it, for the system takes its time to give so much anew each time."""
        parts = [job.inputs[name][first:last] for job, first, last in batch]
        rooms = self._rooms.__dict__
        rows, room = sum(map(len, parts)), rooms.get(name)
        if room is None or len(room) < rows:
            room = rooms[name] = np.empty((rows, *parts[0].shape[1:]), parts[0].dtype)
        return np.asarray(np.concatenate(parts, out=room[:rows]))

    def _share(self, batch: Sequence[Part], outputs: dict[str, np.ndarray], took: float) -> list[Answer]:
        """Gives each job its rows; the answers of those that are complete."""
        row, answers, ended = 0, list[Answer](), time.perf_counter()
        for job, first, last in batch:
            with self._lock:
                job.parts[first] = {name: array[row : row + last - first] for name, array in outputs.items()}
                job.done += last - first
                if job.done == job.taken:  # no other run has rows of it
                    job.ran += ended - job.since
                complete = job.done == job.size
            row += last - first
            if complete and (result := self._result(job)) is not None and self._leave(job):
                answers.append((job, result))
        weight = 0.2 if self._seconds_per_row else 1.0
        self._seconds_per_row += weight * (took / row - self._seconds_per_row)
        return answers

    def _result(self, job: Job) -> Outcome | Exception | None:
        """What became of a job all of whose rows have run; nothing yet if it goes on."""
        with self._lock:
            if job not in self._queue:  # nobody waits for it any more
                return None
        outcome = Outcome([job.parts[first] for first in sorted(job.parts)], job.queued, job.ran)
        if job.joined or job.go_on:
            outcome.parts = [outcome.outputs]
        if wrong := _not_finite(outcome.parts):
            return wrong
        try:
            inputs = job.go_on(outcome.outputs) if job.go_on else None
            if inputs is None:
                return outcome
            size = _rows(inputs)
        except StopIteration as error:  # of which no future may be told
            return RuntimeError(f"it cannot go on: {error!r}")
        except Exception as error:
            return error
        if size == 0:
            return ValueError("it goes on with no rows")
        with self._lock:
            if job in self._queue:  # its caller is still there
                self._rows += size - job.size
                job.inputs, job.size, job.arrived, job.parts = inputs, size, time.perf_counter(), {}
                job.started, job.deadline = None, None
                job.taken = job.done = 0
                self._ready = True
        return None

    def _observe(self, batch: Sequence[Part], took: float) -> None:
        if self._observer is None:
            return
        self._observer.ran(sum(last - first for _, first, last in batch), took)
        for job, first, _ in batch:
            if first == 0 and job.started is not None:
                self._observer.waited(job.started - job.arrived)

    def _replace(self, why: str, loop: asyncio.AbstractEventLoop) -> None:
        """Puts a new session in the place of one that a run broke; the second time without a good run between, it is lost."""
        self._whole, self.session = False, None  # its memory may be what the new one needs: only other runs that are under way have it yet
        self._replaced += 1
        if self._closed:
            return
        logger.error("%s: the session broke (%s)", self.file, why)
        if self._reopen is None or self._suspect:
            self._give_up(why, loop)
            return
        try:
            session = self._reopen()
        except Exception as error:
            if not self._closed:
                self._give_up(f"{why}; opened again, {error}", loop)
            return
        if self._closed:  # meanwhile
            return
        self.session = session
        self._lanes = min(session.lanes, len(self._threads))
        self._suspect, self._whole = True, True
        logger.warning("%s: opened again", self.file)

    def _give_up(self, why: str, loop: asyncio.AbstractEventLoop) -> None:
        def lose() -> None:
            if self._lost is not None:
                self._lost(why)
            self.close()

        self._closed, self._whole = True, False
        _tell(loop, lose)

    def _release(self) -> None:
        """When no more runs begin, and what is being opened in place of a broken session is there."""
        with self._replacing:
            self.session = None


def _rows(inputs: Arrays) -> int:
    return len(next(iter(inputs.values())))


def _tell(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *given: Any) -> None:
    """From another thread. Where the loop was closed, since a stop did not wait for this run, nobody waits any more."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(function, *given)


def _answer(answers: Sequence[Answer]) -> None:
    """Gives callers that still wait their outcome or error; on the event loop."""
    for job, result in answers:
        if job.future.done():
            continue
        if isinstance(result, Outcome):
            job.future.set_result(result)
        else:
            job.future.set_exception(result)


def _clear_frames(error: BaseException | None) -> None:
    """Lets go of what an error's frames hold, and those of what it came of: among it the session, with its memory."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _not_finite(parts: list[dict[str, np.ndarray]]) -> BadOutput | None:
    """What is wrong with outputs that have NaN or infinities, of which nothing sensible can be told."""
    arrays = ((name, part[name]) for name in parts[0] for part in parts)
    found = dict.fromkeys(name for name, array in arrays if array.dtype.kind == "f" and not np.isfinite(array).all())
    return BadOutput(f"not all numbers of {', '.join(found)} are finite") if found else None
