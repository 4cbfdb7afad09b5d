"""Atelier's server: trained vision models behind HTTP endpoints."""

import os

__version__ = "0.1.0"

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before ONNX Runtime is imported, which would tell its maker of its use
