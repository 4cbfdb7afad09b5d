"""Logs as text lines or as one JSON object an event."""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from functools import lru_cache
from typing import Literal


class JsonFormatter(logging.Formatter):
    """time (RFC 3339, UTC), level, logger, message, then the event's own fields."""

    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        event = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            event["trace"] = self.formatException(record.exc_info)
        return json.dumps(event, ensure_ascii=False, default=str)


class TextFormatter(logging.Formatter):
    """time, level, message, and the request's id where a line is of one and does not say it."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        return f"{_second(int(record.created))},{int(record.msecs):03d}"

    def formatMessage(self, record: logging.LogRecord) -> str:
        line = super().formatMessage(record)
        identity = getattr(record, "fields", {}).get("request_id")
        return line if identity is None or identity in line else f"{line} {identity}"


@lru_cache(maxsize=1)
def _second(seconds: int) -> str:
    """Local time; a busy server writes a thousand lines with the same one."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def configure(form: Literal["text", "json"], level: int = logging.INFO) -> None:
    """Sends everything to standard error in the chosen form."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(True)
    warnings.filterwarnings("ignore", module="PIL")  # of damaged pictures: each text of them would be kept for ever
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False  # no line has them, and each costs time
    logging._srcfile = None  # nor the place in the source, which costs the most
    for quiet in ("httpx", "httpcore", "asyncio", "PIL"):
        logging.getLogger(quiet).setLevel(logging.WARNING)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it warns of each form that is malformed; the answer says it
