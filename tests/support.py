"""What tests share: pictures in bytes, and the real server in a process of its own."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

ROOT = Path(__file__).parent.parent
MODELS = ROOT / "models"


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


class Server:
    """`python -m service`, or Python with other arguments, on a free port, with what it logged."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("ATELIER_")}
        variables = {"ATELIER_MODELS": str(MODELS), "ATELIER_PORT": "0", **environment}
        self.process = subprocess.Popen(
            [sys.executable, *(arguments or ("-m", "service"))],
            cwd=ROOT,
            env=clean | variables,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        self.log: list[str] = []
        self._address = threading.Event()
        self.url = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not self._address.wait(30) or not self.url:
            self.process.kill()
            raise RuntimeError("the server did not start:\n" + "".join(self.log))
        self.client = httpx.Client(base_url=self.url, timeout=30)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
            if found := re.search(r"running on (http://\S+)", line):
                self.url = found[1].rstrip('"')
                self._address.set()
        self._address.set()

    def until_loaded(self) -> httpx.Response:
        """Waits until the models are loaded, well or badly, and gives the last answer of /health/ready."""
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            answer = self.client.get("/health/ready")
            if answer.json()["loaded"]:
                return answer
            time.sleep(0.05)
        self.process.kill()
        raise RuntimeError("the models did not load:\n" + "".join(self.log))

    def said(self, *words: str) -> bool:
        """Whether a line of the log has all of these, or soon will: it comes through a pipe."""
        deadline = time.monotonic() + 10
        while not (found := any(all(word in line for word in words) for line in self.log)) and time.monotonic() < deadline:
            time.sleep(0.02)
        return found

    @property
    def files(self) -> int:
        """How many files and connections the process has open."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    @property
    def threads(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/task"))

    @property
    def resident(self) -> float:
        """Megabytes of memory."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a series over the labels that are not given."""
        found = 0.0
        for line in self.client.get("/metrics").text.splitlines():
            if line.startswith(f"{name}{{") and all(f'{key}="{value}"' in line for key, value in labels.items()):
                found += float(line.rpartition(" ")[2])
        return found

    def stop(self) -> int:
        self.client.close()
        self.process.terminate()
        code = self.process.wait(30)
        self._reader.join(5)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code
