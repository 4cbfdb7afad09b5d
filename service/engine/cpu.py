"""A CPU's threads: how many, at what priority, and how a graph's runs are spread over them."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from service.contract.manifest import Graph

NICENESS, SLOW_NICENESS = 10, 19
"""Of threads that work on pictures and in sessions, and of those that run slow graphs, so that a quick one need not wait for them."""


class Threads:
    """A graph's runs on a CPU.

    With all threads at each layer a run is over soonest, but they wait for each other at its end, and longer where one of them is held up.
    Spread, each thread has a run of its own, of one row: the first answer comes later, and up to a third more rows are done in the same
    time (docs/operations.md, Threads). A row's numbers are the same to the bit either way.

    Args:
        together: a session whose runs use all threads.
        number: of threads.
        most: the most rows of one run.
        alone: opens one whose runs use the thread that calls, and may be under way at the same time.

    Attributes:
        sizes: the batch sizes that it is warmed with: one row, and the most that will share a run.
        lanes: how many runs may be under way at a time.
    """

    def __init__(self, together: Any, graph: Graph, number: int, most: int, alone: Callable[[], Any]) -> None:
        self._together, self._alone, self._number, self._open = together, together, number, alone
        self._names = [port.name for port in graph.outputs]
        self.sizes, self.lanes = sorted({1, most}), 1

    def spread(self) -> None:
        """From now on each thread may have a run of its own. For graphs so slow that a run has a single row."""
        if self._number > 1:
            self._alone, self.lanes = self._open(), self._number
        self.sizes = [1]

    def narrow(self) -> None:
        """From now on one run at a time, by all threads."""
        self._alone, self.lanes = self._together, 1

    def run(self, inputs: Mapping[str, np.ndarray], options: onnxruntime.RunOptions, beside: bool) -> dict[str, np.ndarray]:
        """Rows of arrays, with options of this run alone.

        Args:
            beside: most threads have runs of their own: it has one thread.
        """
        session = self._alone if beside else self._together
        return dict(zip(self._names, session.run(self._names, dict(inputs), options), strict=True))


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
