"""How much of the time the server keeps a GPU busy with uploads of 256 x 256, upscaled and answered as JPEG, told without one.

    make device-bench ARGS="--rates 30 60"

A stand-in for the GPU (tests/faked.py) takes as long for each picture as one of that rate would, and no core meanwhile: what is missing to
1 is what the server adds between runs, the cores that it lacks, or rows of padding, which take as long (with one connection a third).
Then digits, one as PNG, from a stand-in that takes next to no time: what the server itself takes for a small request.
Prints Markdown for docker/README.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from bench import GRAPH, HERE, Result, machine
from gpu import UPSCALER, answered, load, pieces, works
from pressure import MODELS, ROOT, URL, Process

from service.contract import manifest
from service.engine.tiling import Grid

SHORT_SECONDS = 1e-5
"""A row's on a card that draws 100,000 digits a second (docker/README.md)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rates", type=float, nargs="+", default=[30.0, 60.0], help="of the stand-in, pictures a second")
    parser.add_argument("--connections", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--seconds", type=int, default=20, help="of each run")
    options = parser.parse_args()
    print("| a GPU's pictures a second | connections | a second | share | p50, p99, ms | processor time a picture, ms |")
    print("|---|---|---|---|---|---|")
    for rate in options.rates:
        with standing_in("upscale", UPSCALER, 1 / rate / tiles()) as (server, requests):
            for connections in options.connections:
                told, result = row(server, requests, connections, options.seconds)
                print(f"| {rate:g} | {connections} | {result.rate:.1f} | {result.rate / rate:.2f} | {told} |", flush=True)
    print("\n| digits, connections | a second | p50, p99, ms | processor time a request, ms |")
    print("|---|---|---|---|")
    with standing_in("digits", GRAPH.parent.name, SHORT_SECONDS) as (server, requests):
        for connections in (1, 32, 128):
            told, result = row(server, requests, connections, options.seconds)
            print(f"| {connections} | {result.rate:,.0f} | {told} |", flush=True)
    print(f"\nMachine: {machine()}; Python {platform.python_version()}.")


@contextmanager
def standing_in(name: str, model: str, row_seconds: float) -> Iterator[tuple[Process, list[httpx.Request]]]:
    """A server of one model on a stand-in, and what is asked of it."""
    (work,) = (one for one in works("cuda") if one.name == name)
    requests = work.requests(URL)
    with tempfile.TemporaryDirectory() as models:
        shutil.copytree(MODELS / model, Path(models) / model)
        server = Process(
            "faked",
            ATELIER_MODELS=models,
            ATELIER_PROVIDER="cuda",
            FAKED_ROW_SECONDS=str(row_seconds),
            PYTHONPATH=f"{ROOT}{os.pathsep}{HERE.parent}",
        )
        try:
            answered(requests)
            yield server, requests
        finally:
            server.stop()


def row(server: Process, requests: list[httpx.Request], connections: int, seconds: int) -> tuple[str, Result]:
    """The last columns of a table."""
    began, before = time.perf_counter(), processor_seconds(server)
    result = load(requests, connections, seconds)
    busy = (processor_seconds(server) - before) / (time.perf_counter() - began)
    return f"{result.median:,.1f}, {result.p99:,.1f} | {1000 * busy / result.rate:.1f}", result


def tiles() -> int:
    """Of one picture."""
    described = manifest.read(MODELS / UPSCALER)
    assert described.fit is not None
    width, height = pieces()[0].size
    return Grid(height, width, (described.fit.height, described.fit.width), described.margin).number


def processor_seconds(server: Process) -> float:
    """What the server's threads took so far, all together."""
    user, system = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
