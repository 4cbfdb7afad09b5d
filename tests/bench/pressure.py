"""The server under pressure: what it starts in, and what happens with large uploads, callers that leave, stops, reloads and a full queue.

    make pressure

Each line of the table that it prints is a fresh `python -m service` with the shipped models, loaded from the same machine.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

ROOT = Path(__file__).parent.parent.parent
MODELS = ROOT / "models"
PORT = 8390
URL = f"http://127.0.0.1:{PORT}"
MANY = {"digits": "8" * 64}
SMALL = {"digits": "7"}


class Process:
    """A server that is ready; `seconds` is how long that took, `module` what is started."""

    def __init__(self, module: str = "service", **environment: str) -> None:
        began = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "-m", module],
            cwd=ROOT,
            env=os.environ | {"ATELIER_PORT": str(PORT), **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while not self._ready():
            time.sleep(0.2)  # to ask costs what the models could have
        self.seconds = time.perf_counter() - began

    def _ready(self) -> bool:
        if self.process.poll() is not None:
            raise SystemExit(f"the server ended with {self.process.returncode}")
        try:
            return httpx.get(f"{URL}/health/ready").status_code == 200
        except httpx.HTTPError:
            return False

    def resident(self, which: str = "VmRSS") -> float:
        """Megabytes of memory; `VmHWM` is the most so far."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(which)) / 1024

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(60)


def metric(text: str, name: str, labels: str = "") -> float:
    lines = (line for line in text.splitlines() if line.startswith(f"{name}{{") and labels in line)
    return sum(float(line.rpartition(" ")[2]) for line in lines)


async def metrics(client: httpx.AsyncClient) -> str:
    return (await client.get("/metrics")).text


async def until(client: httpx.AsyncClient, name: str, holds: Callable[[float], bool]) -> None:
    while True:
        if holds(metric(await metrics(client), name)):
            return
        await asyncio.sleep(0.01)


def start() -> str:
    found = []
    for _ in range(5):
        server = Process()
        time.sleep(3)
        found.append((server.seconds, server.resident()))
        server.stop()
    seconds, memory = (statistics.median(column) for column in zip(*found, strict=True))
    return (
        f"{len(list(MODELS.glob('*/manifest.json')))} models: ready after {seconds:.2f} s, {memory:.0f} MB resident at rest (medians of 5)"
    )


async def uploads(number: int = 32) -> str:
    """Health while pictures of 20 megapixels are decoded."""
    random = np.random.default_rng(0)
    plane = np.add.outer(np.arange(4000), np.arange(5000)) * 255 // 9000
    picture = np.clip(plane[..., None] + random.normal(0, 8, (4000, 5000, 3)), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=85)
    times = []
    async with client() as uploading, client() as asking:
        upload = {"files": {"image": ("a.jpg", buffer.getvalue())}, "data": {"model": "vae"}}
        work = asyncio.gather(*(uploading.post("/v1/embed", **upload) for _ in range(number)))
        began = time.perf_counter()
        while not work.done():
            asked = time.perf_counter()
            assert (await asking.get("/health/live")).status_code == 200
            times.append(time.perf_counter() - asked)
            await asyncio.sleep(0.005)
        statuses = Counter(answer.status_code for answer in await work)
    seconds = time.perf_counter() - began
    size = len(buffer.getvalue()) / 1e6
    return (
        f"{number} uploads of 20 megapixels ({size:.1f} MB each) at once, answered {dict(statuses)} in {seconds:.1f} s; "
        f"/health/live meanwhile, {len(times)} times: p50 {percentile(times, 50):.1f} ms, p99 {percentile(times, 99):.1f} ms"
    )


async def leaving(number: int = 500) -> str:
    """Callers that hang up while their requests wait."""
    async with client() as asking:
        callers = [(await asyncio.open_connection("127.0.0.1", PORT))[1] for _ in range(number)]
        for caller in callers:
            caller.write(_request(MANY))
        await until(asking, "atelier_queue_depth", lambda depth: depth >= 0.8 * number)
        for caller in callers:
            caller.close()
        left = time.perf_counter()
        await until(asking, "atelier_queue_depth", lambda depth: depth == 0)
        seconds = time.perf_counter() - left
        told = await metrics(asking)
    gone = metric(told, "atelier_request_duration_seconds_count", 'status="499"')
    return (
        f"{number} callers of 64 digits each hang up: atelier_cancelled_total {metric(told, 'atelier_cancelled_total'):.0f}, "
        f"{metric(told, 'atelier_batch_size_sum'):.0f} of {64 * number} pictures were run, queue empty after {seconds * 1000:.0f} ms, "
        f"{gone:.0f} requests logged as 499"
    )


async def stop(server: Process, callers: int = 64) -> str:
    """SIGTERM while callers, each with a connection a request, ask without a pause."""
    ends: Counter[str] = Counter()
    request = _request(SMALL, "Connection: close\r\n")

    async def ask() -> None:
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
            except OSError:
                return  # nobody listens any more: it was not accepted
            try:
                writer.write(request)
                answer = await reader.read()
                ends[answer.split(b" ", 2)[1].decode() if answer else "closed without an answer"] += 1
            except OSError as error:
                ends[type(error).__name__] += 1
            finally:
                writer.close()

    asking = [asyncio.create_task(ask()) for _ in range(callers)]
    await asyncio.sleep(3)
    server.process.send_signal(signal.SIGTERM)
    told = time.perf_counter()
    await asyncio.gather(*asking)
    code = await asyncio.to_thread(server.process.wait, 60)
    seconds = time.perf_counter() - told
    return f"SIGTERM under the load of {callers} callers: answers {dict(ends)}, exit code {code} after {seconds:.2f} s"


def _request(body: dict[str, str], headers: str = "") -> bytes:
    content = json.dumps(body).encode()
    head = f"POST /v1/digits HTTP/1.1\r\nHost: x\r\n{headers}Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


async def reloads(folder: Path, number: int = 100) -> str:
    """A model changes at each reload while callers use it."""
    ends: Counter[int] = Counter()
    over = asyncio.Event()
    path = folder / "cdcgan" / "manifest.json"
    original = json.loads(path.read_text())
    times = []

    async def ask(one: httpx.AsyncClient) -> None:
        while not over.is_set():
            ends[(await one.post("/v1/digits", json=SMALL)).status_code] += 1

    async with client() as asking, client() as admin:
        tasks = [asyncio.create_task(ask(asking)) for _ in range(16)]
        for turn in range(number):
            path.write_text(json.dumps(original | {"largest_picture": 10_000_000 + turn}))  # another digest
            began = time.perf_counter()
            answer = await admin.post("/v1/models/reload", headers={"Authorization": "Bearer admin"})
            assert answer.json()["replaced"] == ["cdcgan"], answer.text
            times.append(time.perf_counter() - began)
        over.set()
        await asyncio.gather(*tasks)
    return f"{number} reloads that replace a model in use by 16 callers (median {percentile(times, 50):.0f} ms): answers {dict(ends)}"


async def refusals(number: int = 1000) -> str:
    """Requests beyond the limit of the queue, which 24 callers of 64 digits keep full."""
    times: list[float] = []
    ends: Counter[str] = Counter()
    over = asyncio.Event()

    async def fill(one: httpx.AsyncClient) -> None:
        while not over.is_set():
            if (await one.post("/v1/digits", json=MANY)).status_code == 503:
                await asyncio.sleep(0.02)

    async def ask(one: httpx.AsyncClient) -> None:
        while len(times) < number:
            began = time.perf_counter()
            answer = await one.post("/v1/digits", json=MANY)
            if answer.status_code == 503:
                times.append(time.perf_counter() - began)
            ends[f"{answer.status_code}{' with Retry-After' if 'retry-after' in answer.headers else ''}"] += 1

    async with client() as filling, client() as asking:
        filled = [asyncio.create_task(fill(filling)) for _ in range(24)]
        await until(asking, "atelier_rejected_total", lambda rejected: rejected > 0)
        await asyncio.gather(*(ask(asking) for _ in range(10)))
        over.set()
        await asyncio.gather(*filled)
    return (
        f"requests from 10 callers at a full queue: {dict(ends)}; refused after "
        f"{percentile(times, 50):.1f} ms (median), {percentile(times, 99):.1f} ms (p99)"
    )


def percentile(seconds: list[float], which: float) -> float:
    """In milliseconds."""
    return float(np.percentile(seconds, which) * 1000)


def client() -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=URL, timeout=120, limits=httpx.Limits(max_connections=None))


def one(scenario: Callable[[Process], Awaitable[str]], **environment: str) -> None:
    server = Process(**environment)
    try:
        print(f"- {asyncio.run(scenario(server))}", flush=True)
    finally:
        server.process.terminate()
        server.process.wait(60)


def main() -> None:
    print(f"- {start()}", flush=True)
    one(lambda _: uploads())
    one(lambda _: leaving(), ATELIER_QUEUE_LIMIT="100000")
    one(stop)
    with tempfile.TemporaryDirectory() as place:
        folder = shutil.copytree(MODELS, Path(place) / "models")
        one(lambda _: reloads(folder), ATELIER_MODELS=str(folder), ATELIER_ADMIN_KEYS="admin")
    one(lambda _: refusals())


if __name__ == "__main__":
    main()
