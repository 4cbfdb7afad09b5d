"""The server with ONNX Runtime's threads spinning while they wait, for `bench.py --threads`."""

from __future__ import annotations

import sys

import onnxruntime

from service.__main__ import main

_add = onnxruntime.SessionOptions.add_session_config_entry


def _spinning(options: onnxruntime.SessionOptions, key: str, value: str) -> None:
    _add(options, key, "1" if key.endswith("allow_spinning") else value)


onnxruntime.SessionOptions.add_session_config_entry = _spinning

if __name__ == "__main__":
    sys.exit(main([]))
