"""Threads for work on pictures that would hold the event loop: decoding, encoding, large JSON."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from service.engine.batching import DeadlinePassed, QueueFull
from service.engine.cpu import step_back

Result = TypeVar("Result")


class Workers:
    """A pool of threads that knows how long its queue is.

    Args:
        limit: the most pieces of work that run or wait before new requests are refused.

    Attributes:
        waiting: pieces of work that run or wait.
    """

    def __init__(self, threads: int, limit: int) -> None:
        self.threads, self.limit = threads, limit
        self.waiting = 0
        self._pool = ThreadPoolExecutor(threads, "pictures", initializer=step_back)
        self._seconds = 0.0

    def check_room(self) -> None:
        """Refuses a request whose work has not begun.

        Raises:
            QueueFull: the queue is at its limit.
        """
        if self.waiting >= self.limit:
            raise QueueFull(self.waiting, self._seconds * self.waiting / self.threads)

    async def run(self, function: Callable[[], Result], deadline: float | None = None) -> tuple[Result, float]:
        """Runs it in one of the threads; what it gives, and the seconds that it took. What its caller left before it began is
        never done, nor what has not begun by its deadline, on the clock of `time.perf_counter`.

        Raises:
            DeadlinePassed: it had not begun.
        """

        def work() -> tuple[Result, float]:
            if deadline is not None and time.perf_counter() >= deadline:
                raise DeadlinePassed("the deadline passed before a thread was free")
            return timed(function)

        self.waiting += 1
        try:
            result, seconds = await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self.waiting -= 1
        self._seconds += (0.2 if self._seconds else 1.0) * (seconds - self._seconds)
        return result, seconds

    def close(self) -> None:
        self._pool.shutdown(wait=False)


def timed(function: Callable[[], Result]) -> tuple[Result, float]:
    """What it gives, and the seconds that it took."""
    started = time.perf_counter()
    return function(), time.perf_counter() - started
