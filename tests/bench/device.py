"""How much of the time the server keeps a GPU busy with uploads of 256 x 256, upscaled and answered as JPEG, told without one.

    make device-bench ARGS="--rates 30 60"

A stand-in for the GPU (tests/faked.py) takes as long for each picture as one of that rate would, and no core meanwhile: what is missing to
1 is what the server adds between runs, the cores that it lacks, or rows of padding, which take as long (with one connection a third).
Prints Markdown for docker/README.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import tempfile
import time
from pathlib import Path

from bench import HERE, machine
from gpu import UPSCALER, answered, load, pieces, works
from pressure import MODELS, ROOT, URL, Process

from service.contract import manifest
from service.engine.tiling import Grid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rates", type=float, nargs="+", default=[30.0, 60.0], help="of the stand-in, pictures a second")
    parser.add_argument("--connections", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--seconds", type=int, default=20, help="of each run")
    options = parser.parse_args()
    print("| a GPU's pictures a second | connections | a second | share | p50, p99, ms | processor time a picture, ms |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as models:
        shutil.copytree(MODELS / UPSCALER, Path(models) / UPSCALER)
        for rate in options.rates:
            for row in rows(rate, options.connections, options.seconds, models):
                print(row, flush=True)
    print(f"\nMachine: {machine()}; Python {platform.python_version()}.")


def rows(rate: float, connections: list[int], seconds: int, models: str) -> list[str]:
    """The table's, of one stand-in."""
    (work,) = (one for one in works("cuda") if one.name == "upscale")
    requests, found = work.requests(URL), []
    server = Process(
        "faked",
        ATELIER_MODELS=models,
        ATELIER_PROVIDER="cuda",
        FAKED_ROW_SECONDS=str(1 / rate / tiles()),
        PYTHONPATH=f"{ROOT}{os.pathsep}{HERE.parent}",
    )
    try:
        answered(requests)
        for number in connections:
            began, before = time.perf_counter(), processor_seconds(server)
            result = load(requests, number, seconds)
            busy = (processor_seconds(server) - before) / (time.perf_counter() - began)
            figures = (
                f"{result.rate:.1f} | {result.rate / rate:.2f} | {result.median:.0f}, {result.p99:.0f} | {1000 * busy / result.rate:.0f}"
            )
            found.append(f"| {rate:g} | {number} | {figures} |")
    finally:
        server.stop()
    return found


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
