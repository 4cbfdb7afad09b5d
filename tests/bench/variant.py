"""The server with another choice of threads and runs, for `bench.py --threads`: variant.py SPINNING RUN

SPINNING: how many microseconds ONNX Runtime's threads spin while they wait, `0` not at all. RUN: seconds of a run, `0` for no bound.
"""

from __future__ import annotations

import sys

from service.__main__ import main
from service.engine import session, store

if __name__ == "__main__":
    spinning, run = sys.argv[1:]
    session.SPIN_MICROSECONDS = int(spinning)
    store.CPU_RUN_SECONDS = float(run) or 3600.0
    sys.exit(main([]))
