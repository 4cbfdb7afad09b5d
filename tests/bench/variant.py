"""The server with another choice of threads and runs, for `bench.py --threads`: variant.py SPINNING RUN

SPINNING: how many microseconds ONNX Runtime's threads spin while they wait, `0` not at all. RUN: seconds of a run, `0` for no bound.
"""

from __future__ import annotations

import sys

import onnxruntime

from service.__main__ import main
from service.engine import session, store

_add = onnxruntime.SessionOptions.add_session_config_entry


def _without_spinning(options: onnxruntime.SessionOptions, key: str, value: str) -> None:
    _add(options, key, "0" if key.endswith("allow_spinning") else value)


if __name__ == "__main__":
    spinning, run = sys.argv[1:]
    if spinning == "0":
        onnxruntime.SessionOptions.add_session_config_entry = _without_spinning
    else:
        session.SPIN_MICROSECONDS = spinning
    store.CPU_RUN_SECONDS = float(run) or None
    sys.exit(main([]))
