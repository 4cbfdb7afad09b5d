"""More than it can do: an open loop at ten times its capacity, 512 connections, a quick operation beside a slow one; and what an operation
costs beside its model.

    make overload

Callers and server share the machine. Each scenario is a fresh server with the shipped models that it needs.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import re
import statistics
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

import httpx
import numpy as np
from bench.bench import load
from bench.pressure import PORT, URL, Process, client, metric, metrics, percentile
from PIL import Image
from soak import report

SLOW = "pix2pix-relief-to-satellite"
QUEUE = 16
"""Pictures that may wait, each of one tile."""
TIMES = 10
AT_CAPACITY = 4
"""Callers who keep it busy."""
AT_PEAK, MANY = 32, 512
EACH_SECOND = 20
FLOOD = 8


def picture(side: int, kind: str = "PNG") -> bytes:
    """A slope with some noise, which compresses as photographs do."""
    levels = np.add.outer(np.arange(side), np.arange(side)) * 200 // (2 * side)
    noisy = levels[..., None] + np.random.default_rng(0).normal(20, 6, (side, side, 3))
    buffer = io.BytesIO()
    Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def written(path: str, **content: Any) -> bytes:
    """A request as it goes over a connection: many of them have to cost the caller little."""
    request = httpx.Request("POST", f"{URL}{path}", **content)
    head = b"".join(name + b": " + value + b"\r\n" for name, value in request.headers.raw)
    return f"POST {path} HTTP/1.1\r\n".encode() + head + b"\r\n" + request.read()


class Connection(asyncio.Protocol):
    """One request after the other over a connection that is kept; nothing of an answer is looked at but its status and its length."""

    transport: asyncio.Transport
    answered: asyncio.Future[int]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def ask(self, request: bytes) -> asyncio.Future[int]:
        """Its answer's status, once all of the answer has come."""
        self.head, self.left = b"", -1
        self.answered = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self.answered

    def data_received(self, data: bytes) -> None:
        if self.left < 0:
            self.head += data
            head, end, data = self.head.partition(b"\r\n\r\n")
            if not end:
                return
            (length,) = re.findall(rb"(?i)\r\ncontent-length: (\d+)", head)
            self.left = int(length)
        self.left -= len(data)
        if self.left == 0:
            self.answered.set_result(int(self.head.split(b" ", 2)[1]))

    def connection_lost(self, error: Exception | None) -> None:
        if not self.answered.done():
            self.answered.set_exception(error or EOFError("closed without an answer"))


class Callers:
    """Ask over as many connections as there are requests at a time."""

    def __init__(self) -> None:
        self._free: list[Connection] = []

    async def timed(self, request: bytes) -> tuple[int, float]:
        """The status, and the seconds that the answer took."""
        began = time.perf_counter()
        self._free = [one for one in self._free if not one.transport.is_closing()]  # the server closes what is long unused
        if self._free:
            one = self._free.pop()
        else:
            _, one = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", PORT)
        status = await one.ask(request)
        took = time.perf_counter() - began
        self._free.append(one)
        return status, took

    async def closed_loop(self, request: bytes, callers: int, seconds: float) -> list[tuple[int, float]]:
        """What so many get who each wait for their answer before they ask again."""
        found, end = list[tuple[int, float]](), time.perf_counter() + seconds

        async def call() -> None:
            while time.perf_counter() < end:
                found.append(await self.timed(request))

        await asyncio.gather(*(call() for _ in range(callers)))
        return found

    async def open_loop(self, request: bytes, rate: float, seconds: float) -> list[tuple[int, float]]:
        """What those get who ask at a rate, whether the others were answered or not."""
        began, tasks = time.perf_counter(), list[asyncio.Task[tuple[int, float]]]()
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
            tasks.append(asyncio.create_task(self.timed(request)))
        return list(await asyncio.gather(*tasks))


def told(times: list[float]) -> str:
    return f"median {percentile(times, 50):.1f} ms, p99 {percentile(times, 99):.1f} ms"


async def flood(server: Process, seconds: float) -> list[str]:
    """An open loop at ten times the capacity of an operation that takes its time."""
    request = written("/v1/translate", files={"image": picture(256, "JPEG")}, data={"model": SLOW})
    callers = Callers()
    alone = statistics.median([(await callers.timed(request))[1] for _ in range(10)])

    async def capacity() -> float:
        began = time.perf_counter()
        return len(await callers.closed_loop(request, AT_CAPACITY, seconds / 4)) / (time.perf_counter() - began)

    peak = await capacity()
    before = server.resident("VmHWM")
    began = time.perf_counter()
    found = await callers.open_loop(request, TIMES * peak, seconds)
    took = time.perf_counter() - began
    most = server.resident("VmHWM")
    await asyncio.sleep(2)
    async with client() as one:
        depth = metric(await metrics(one), "atelier_queue_depth")
    after = statistics.median([(await callers.timed(request))[1] for _ in range(10)])
    again = await capacity()
    accepted, refused = ([took for status, took in found if status == wanted] for wanted in (200, 503))
    rate = len(accepted) / took
    return [
        f"`/v1/translate` of 256 x 256 ({alone * 1000:.0f} ms alone, {peak:.1f} a second at capacity before the flood, {again:.1f} after "
        f"it), asked {TIMES} times as often for {seconds:.0f} s, {QUEUE} pictures may wait: answered "
        f"{dict(Counter(status for status, _ in found))}, {rate:.1f} accepted a second ({2 * rate / (peak + again):.0%} of capacity)",
        f"accepted: {told(accepted)}, where a full queue takes {(QUEUE + 1) / rate * 1000:.0f} ms; refused: {told(refused)}",
        f"memory at its most {before:.0f} MB at capacity, {most:.0f} MB in the flood ({most / before - 1:+.1%}); 2 s after it {depth:.0f} "
        f"requests wait, and one takes {after * 1000:.0f} ms",
    ]


def connections(server: Process, seconds: int) -> list[str]:
    """Many connections on the quickest operation, beside those at which it answers the most."""
    peak = load(f"{URL}/v1/digits", AT_PEAK, seconds)
    before = server.resident("VmHWM")
    many = load(f"{URL}/v1/digits", MANY, seconds)
    most = server.resident("VmHWM")
    return [
        f"`/v1/digits` with {AT_PEAK} connections {peak.rate:,.0f} a second, p99 {peak.p99:.0f} ms; with {MANY} {many.rate:,.0f} a second "
        f"({many.rate / peak.rate:.0%}), p99 {many.p99:.0f} ms, all answered 200; memory at its most {before:.0f} and {most:.0f} MB "
        f"({most / before - 1:+.1%})"
    ]


async def starvation(server: Process, seconds: float) -> list[str]:
    """A quick operation at an even rate, alone and while a slow one is asked for without a pause."""
    digit, upload = written("/v1/digits", json={"digits": "7"}), written("/v1/upscale", files={"image": picture(256)})
    callers = Callers()
    alone = [took for _, took in await callers.open_loop(digit, EACH_SECOND, seconds)]
    flooding = asyncio.create_task(callers.closed_loop(upload, FLOOD, seconds))
    beside = await callers.open_loop(digit, EACH_SECOND, seconds)
    upscaled = await flooding
    assert {status for status, _ in beside} == {200}
    times = [took for _, took in beside]
    return [
        f"`/v1/digits` at {EACH_SECOND} requests a second: alone {told(alone)}; while {FLOOD} callers upscale 256 x 256 "
        f"({len(upscaled)} answers) {told(times)} ({percentile(times, 99) / percentile(alone, 99):.1f} times)"
    ]


async def share(server: Process, runs: int) -> list[str]:
    """What an operation on a JPEG takes beside its model."""
    upload = {"files": {"image": picture(512, "JPEG")}, "data": {"model": SLOW}}
    whole, stages = list[float](), list[dict[str, float]]()
    async with client() as one:
        for _ in range(runs):
            began = time.perf_counter()
            answer = await one.post("/v1/translate", headers={"Accept": "image/jpeg"}, **upload)  # type: ignore[arg-type]
            whole.append((time.perf_counter() - began) * 1000)
            stages.append({name: float(took) for name, took in re.findall(r"(\w+);dur=([0-9.]+)", answer.headers["Server-Timing"])})
    middle = {name: statistics.median(stage[name] for stage in stages) for name in stages[0]}
    outside = statistics.median(1 - stage["infer"] / took for stage, took in zip(stages, whole, strict=True))
    return [
        f"`/v1/translate` of a JPEG of 512 x 512 to a JPEG: {statistics.median(whole):.0f} ms as the caller sees it, of which inference "
        f"{middle['infer']:.0f} ms, decoding {middle['decode']:.1f} ms, the queue {middle['queue']:.1f} ms, encoding "
        f"{middle['encode']:.1f} ms; all but inference is {outside:.1%} (median of {runs})"
    ]


def with_server(scenario: Callable[[Process], list[str]], **environment: str) -> list[str]:
    server = Process(**environment)
    try:
        return scenario(server)
    finally:
        server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="of the flood; the other scenarios take a third each")
    seconds = parser.parse_args().seconds
    third = max(2.0, seconds / 3)
    report.write(
        "overload",
        [
            *with_server(lambda server: asyncio.run(flood(server, seconds)), ATELIER_LOAD=SLOW, ATELIER_QUEUE_LIMIT=str(QUEUE)),
            *with_server(lambda server: connections(server, int(third)), ATELIER_LOAD="cdcgan"),
            *with_server(lambda server: asyncio.run(starvation(server, third)), ATELIER_LOAD="cdcgan,srresnet-light"),
            *with_server(lambda server: asyncio.run(share(server, max(5, int(seconds)))), ATELIER_LOAD=SLOW),
        ],
    )


if __name__ == "__main__":
    main()
