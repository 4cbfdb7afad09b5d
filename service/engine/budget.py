"""How much memory the requests in work may keep together."""

from __future__ import annotations

import contextlib
from pathlib import Path

USUAL = 2_048_000_000
"""Bytes, where nothing else limits them."""
LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Where a container has its memory limit, in bytes: version 2 of control groups, and version 1."""


class BudgetSpent(Exception):
    """The requests in work keep as much as they may."""


def usual() -> int:
    """Bytes that requests may keep unless an operator says otherwise. Of a container's memory half is for them; models, and what their runs
    need, take the rest."""
    for limit in LIMITS:
        with contextlib.suppress(OSError, ValueError):  # no container, or one without a limit: `max`
            return min(USUAL, int(limit.read_text()) // 2)
    return USUAL


class Budget:
    """Bytes of uploads, pictures and answers; only the event loop counts them.

    Args:
        most: bytes that all requests together keep. One that is alone may keep more: limits of its own hold for it.
    """

    def __init__(self, most: int) -> None:
        self.most, self.kept = most, 0

    def keep(self, number: int, own: int) -> None:
        """Counts so many more bytes for a request that keeps `own` already.

        Raises:
            BudgetSpent: there is no room for them beside what others keep.
        """
        others = self.kept - own
        if others > 0 and self.kept + number > self.most:
            raise BudgetSpent(f"the requests in work keep {self.kept // 1_000_000:,} MB")
        self.kept += number

    def release(self, number: int) -> None:
        self.kept -= number
