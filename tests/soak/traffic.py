"""Mixed traffic over every operation, with odd sizes and formats: no error, and nothing that grows.

    make soak

A server with a model for every operation (hand-built ones where none is shipped), CALLERS callers that ask without a pause. Memory,
open files and threads are read every second; after the first minute they have to be as they stay.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from built import complete
from PIL import Image
from soak import report
from support import Server, encoded

CALLERS = 6
REQUESTS = 600
"""Different ones; callers go through them again and again, each in an order of its own."""
SIDES = (1, 2, 3, 7, 17, 28, 31, 64, 101, 128, 200, 255, 257, 333, 512)
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP")
MODES = ("RGB", "L", "RGBA", "P", "1", "CMYK", "LA", "I;16")
SUITABLE = {
    "PNG": "RGB L RGBA P 1 LA I;16",
    "JPEG": "RGB L CMYK",
    "WEBP": "RGB RGBA",
    "GIF": "L P 1",
    "TIFF": " ".join(MODES),
    "BMP": "RGB L P 1 RGBA",
}
PICTURES = ("embed", "reconstruct", "translate", "upscale", "inpaint", "anomaly", "caption", "swap")
ACCEPTED = {"translate", "upscale", "inpaint", "swap", "reconstruct"}
WITHIN = 0.10


@dataclass(frozen=True)
class Sample:
    """What the process has at one time."""

    seconds: float
    resident: float
    files: int
    threads: int


def picture(choose: random.Random, width: int, height: int, kind: str | None = None) -> bytes:
    """Noise on a slope, in a format and a mode that it has."""
    kind = kind or choose.choice(FORMATS)
    mode = choose.choice(SUITABLE[kind].split())
    levels = np.random.default_rng(choose.randrange(2**32)).integers(0, 64, (height, width, 3)) + np.arange(width)[None, :, None] % 192
    image = Image.fromarray(levels.astype(np.uint8))
    if mode == "I;16":
        return encoded(Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257), kind)
    return encoded(image.convert(mode), kind)


def requests(number: int) -> list[dict[str, Any]]:
    """Keyword arguments of `httpx.AsyncClient.post`, among them each operation in the same share."""
    made = []
    for index in range(number):
        choose = random.Random(index)
        task = (*PICTURES, "generate", "digits", "v2")[index % 11]
        if task == "generate":
            made.append({"url": "/v1/generate", "json": choose.choice(({"n": 9}, {"between": [1, 2], "steps": 5}, {"model": "dcgan"}))})
        elif task == "digits":
            accept = choose.choice(("application/json", "image/png", "image/webp"))
            made.append({"url": "/v1/digits", "json": {"digits": "2026" * choose.randint(1, 16)}, "headers": {"Accept": accept}})
        elif task == "v2":
            tensor = {"name": "images", "shape": [1, 28, 28, 1], "datatype": "UINT8", "data": [choose.randrange(256) for _ in range(784)]}
            made.append({"url": "/v2/models/embed.vae/infer", "json": {"inputs": [tensor]}})
        else:
            made.append(_with_pictures(task, choose))
    return made


def _with_pictures(task: str, choose: random.Random) -> dict[str, Any]:
    width, height = (choose.choice([side for side in SIDES if side <= (128 if task == "upscale" else 512)]) for _ in range(2))
    if task == "inpaint":  # it wants something to go by
        width, height = max(8, width), max(8, height)
    pictures = {"image": picture(choose, width, height)}
    fields: dict[str, Any] = {}
    if task == "inpaint":
        hole = np.zeros((height, width), np.uint8)
        hole[height // 4 : height // 2, width // 4 : width // 2] = 255
        pictures["mask"] = encoded(Image.fromarray(hole))
    elif task == "swap":
        fields["identity"] = "google"
    accept = choose.choice(("image/png", "image/jpeg", "image/webp", "application/json")) if task in ACCEPTED else "application/json"
    request: dict[str, Any] = {"url": f"/v1/{task}", "headers": {"Accept": accept}}
    if choose.random() < 0.2:
        return {**request, "json": {**fields, **{name: base64.b64encode(content).decode() for name, content in pictures.items()}}}
    return {**request, "files": pictures, "data": fields}


async def soak(server: Server, seconds: float) -> tuple[Counter[tuple[str, int]], list[Sample]]:
    """Answers by address and status, and what the process had meanwhile."""
    found: Counter[tuple[str, int]] = Counter()
    made, samples, began = requests(REQUESTS), list[Sample](), time.monotonic()

    async def call(client: httpx.AsyncClient, which: int) -> None:
        choose = random.Random(which)
        while time.monotonic() < began + seconds:
            request = choose.choice(made)
            answer = await client.post(**request)
            found[request["url"], answer.status_code] += 1
            if answer.status_code != 200:
                print(request["url"], answer.status_code, answer.text[:500], file=sys.stderr)

    async def watch() -> None:
        while time.monotonic() < began + seconds:
            samples.append(Sample(time.monotonic() - began, server.resident, server.files, server.threads))
            await asyncio.sleep(1)

    async with httpx.AsyncClient(base_url=server.url, timeout=120) as client:
        await asyncio.gather(watch(), *(call(client, which) for which in range(CALLERS)))
    return found, samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--settle", type=float, default=60, help="of them, in which memory may grow")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        complete(Path(place) / "models")
        server = Server(ATELIER_MODELS=str(Path(place) / "models"))
        server.until_loaded()
        found, samples = asyncio.run(soak(server, options.seconds))
        traces = sum("Traceback" in line for line in server.log)
        assert server.stop() == 0
    settled = [sample for sample in samples if sample.seconds >= options.settle]
    failed = {key: number for key, number in found.items() if key[1] != 200}
    memory, files, threads = ([getattr(sample, name) for sample in settled] for name in ("resident", "files", "threads"))
    first, last = (sum(part) / len(part) for part in (memory[: len(memory) // 5 or 1], memory[-(len(memory) // 5 or 1) :]))
    report.write(
        "soak",
        [
            f"{found.total():,} requests of {len({url for url, _ in found})} operations in {options.seconds:.0f} s from {CALLERS} callers, "
            f"answered {dict(Counter(status for _, status in found.elements()))}; {traces} traces in the log",
            f"memory after the first {options.settle:.0f} s: {min(memory):.0f} to {max(memory):.0f} MB; the mean of the first fifth "
            f"{first:.0f} MB, of the last {last:.0f} MB ({last / first - 1:+.1%})",
            f"open files {min(files)} to {max(files)}, threads {min(threads)} to {max(threads)}",
        ],
    )
    if failed or traces or last > (1 + WITHIN) * first or max(threads) > threads[0] or max(files) > files[0] + CALLERS:
        raise SystemExit(f"not as it should be: {failed}")


if __name__ == "__main__":
    main()
