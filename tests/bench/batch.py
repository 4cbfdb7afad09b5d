"""A folder through Ray beside the same work in a loop of one process, on the same cores.

    make batch-bench ARGS="embed caption --number 5000"

For each task: the loop (the application of the server, fed with lots of pictures as a worker is; decoding included), then the folder with
half of it done when the job is killed and started again. Prints pictures a second, the share of the loop's, and how much memory all
processes had together at a third and at the end of the job. With `--number 0` only the loop.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from service import batch, settings
from service.engine.cpu import usable_cores

MODELS = Path("models")
SIZE = (480, 320)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="+")
    parser.add_argument("--number", type=int, default=5000)
    parser.add_argument("--loop", type=int, default=1000, help="pictures of the loop")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as where:
        pictures = Path(where) / "pictures"
        pictures.mkdir()
        paths = draw(pictures, max(options.number, options.loop))
        for task in options.tasks:
            alone = loop(task, pictures, paths[: options.loop])
            print(f"{task}: {alone:.1f} pictures a second in a loop", flush=True)
            if options.number > options.loop:
                folder(task, pictures, Path(where) / task, options.number, alone)


def draw(where: Path, number: int) -> list[str]:
    """JPEGs of smooth noise."""
    random = np.random.default_rng(0)
    for index in range(number):
        small = random.integers(0, 256, (8, 12, 3), np.uint8)
        Image.fromarray(small).resize(SIZE, Image.Resampling.BICUBIC).save(where / f"{index:05}.jpg", quality=90)
    return [f"{index:05}.jpg" for index in range(number)]


def loop(task: str, pictures: Path, paths: list[str]) -> float:
    """Pictures a second, once the models are loaded."""
    configuration = settings.read(models=MODELS, threads=usable_cores())
    worker = batch.Worker(batch.Job(task, {}, str(pictures), str(pictures.parent / "nowhere")), configuration)
    worker(pa.table({"path": paths[: batch.LOT]}))
    began = time.monotonic()
    for start in range(0, len(paths), batch.LOT):
        worker(pa.table({"path": paths[start : start + batch.LOT]}))
    return len(paths) / (time.monotonic() - began)


def folder(task: str, pictures: Path, output: Path, number: int, alone: float) -> None:
    command = [sys.executable, "-m", "service", "batch", task, "--input", str(pictures), "--output", str(output)]
    environment = os.environ | {"ATELIER_MODELS": str(MODELS)}
    job = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    marks = watched(job, output, number // 2)
    os.kill(job.pid, signal.SIGKILL)
    job.wait()
    (first, at_first, before), (last, at_last, after) = marks[len(marks) // 3], marks[-1]
    rate = (at_last - at_first) / (last - first)
    print(f"{task}: {rate:.1f} a second in a folder, {100 * rate / alone:.0f} % of the loop's")
    print(f"{task}: {before:,.0f} MB at a third, {after:,.0f} MB at the end")
    began = time.monotonic()
    print(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip())
    print(f"{task}: started again, {time.monotonic() - began:.0f} s with Ray's start")
    rows = Counter(done(output))
    print(f"{task}: {len(rows):,} pictures in the output, each {'once' if set(rows.values()) == {1} else 'NOT once'}")


def watched(job: subprocess.Popen[bytes], output: Path, until: int) -> list[tuple[float, int, float]]:
    """Time, pictures done and megabytes, from the first answers on until so many are done."""
    marks = [(0.0, 0, 0.0)]
    stop = threading.Event()
    while marks[-1][1] < until and job.poll() is None and not stop.wait(1):
        if number := len(done(output)):
            marks.append((time.monotonic(), number, memory(job.pid)))
    return marks[1:]


def done(output: Path) -> list[str]:
    found: list[str] = []
    for file in output.glob("answers/*/*.parquet"):
        try:
            found += pq.ParquetFile(file).read(columns=["path"])["path"].to_pylist()
        except pa.ArrowInvalid:  # being written
            continue
    return found


def memory(root: int) -> float:
    """Megabytes that a process and those that it started have for themselves."""
    parents, sizes = {}, {}
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        except OSError:
            continue
        identity = int(fields["Pid"])
        parents[identity] = int(fields["PPid"])
        sizes[identity] = int(fields.get("RssAnon", "0 kB").split()[0]) / 1024
    family = {root}
    while more := {one for one, parent in parents.items() if parent in family} - family:
        family |= more
    return sum(sizes.get(one, 0.0) for one in family)


if __name__ == "__main__":
    main()
