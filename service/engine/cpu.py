"""A CPU's threads: how many, at what priority, and how a graph's rows are spread over them."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from service.contract.manifest import Graph

NICENESS, SLOW_NICENESS = 10, 19
"""Of threads that work on pictures and in sessions, and of those that run slow graphs, so that a quick one need not wait for them."""


class Threads:
    """A graph's runs on a CPU.

    With all threads at each layer a row is done soonest, but they wait for each other at its end, and longer where one of them is held up.
    Spread, each takes its share of the rows through the whole graph by itself: the first answer comes later, and up to a third more rows
    are done in the same time (docs/operations.md, Threads). A row's numbers are the same to the bit either way.

    Args:
        together: a session whose runs use all threads.
        number: of threads.
        most: the most rows of one run.
        alone: opens one whose runs use the thread that calls, and may be under way at the same time.

    Attributes:
        sizes: the batch sizes that it is warmed with: one row, and the most that will share a run.
        abreast: from so many rows on, they run side by side; 1: they never do.
        lanes: how many runs may be under way at a time.
    """

    def __init__(self, together: Any, graph: Graph, number: int, most: int, alone: Callable[[], Any]) -> None:
        self._together, self._number, self._open = together, number, alone
        self._names = [port.name for port in graph.outputs]
        self.sizes, self.abreast, self.lanes = sorted({1, most}), 1, 1

    def spread(self) -> None:
        """From now on rows run side by side, where a run may have one for each thread. For graphs so slow that no run has more rows."""
        if 1 < self._number <= self.sizes[-1]:
            self._alone, self.abreast = self._open(), self._number
            self._pool = ThreadPoolExecutor(self._number, "rows", initializer=partial(step_back, SLOW_NICENESS))
        self.sizes = sorted({1, min(self.sizes[-1], max(2, self._number))})  # two at least, which shows that it takes several

    def run(self, inputs: Mapping[str, np.ndarray], options: onnxruntime.RunOptions) -> dict[str, np.ndarray]:
        """Rows of arrays, with options of this run alone."""
        rows = len(next(iter(inputs.values())))
        made = self._side_by_side(inputs, options) if 1 < self.abreast <= rows else self._together.run(self._names, dict(inputs), options)
        return dict(zip(self._names, made, strict=True))

    def _side_by_side(self, inputs: Mapping[str, np.ndarray], options: onnxruntime.RunOptions) -> list[np.ndarray]:
        shares = zip(*(np.array_split(array, self._number) for array in inputs.values()), strict=True)
        runs = [self._pool.submit(self._alone.run, self._names, dict(zip(inputs, share, strict=True)), options) for share in shares]
        wait(runs)  # all of them, whatever becomes of one: they read the inputs, whose memory serves the next run
        return [np.concatenate(arrays) for arrays in zip(*(run.result() for run in runs), strict=True)]


def step_back(niceness: int = NICENESS) -> None:
    """Lowers the priority of this thread, and of those that it starts, such as a session's, under that of the event loop: what
    that does for a request is short, and everybody waits for it. Linux only, where priorities are threads'; elsewhere nothing."""
    if sys.platform == "linux":
        thread = threading.get_native_id()
        with contextlib.suppress(OSError):  # forbidden here: nothing but speed is lost
            os.setpriority(os.PRIO_PROCESS, thread, max(niceness, os.getpriority(os.PRIO_PROCESS, thread)))


def usable_cores() -> int:
    """The cores that this process may really use: its affinity, cut to the cgroup's CPU quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, _quota(cores)))


def _quota(cores: int) -> int:
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else math.ceil(int(quota) / int(period))
