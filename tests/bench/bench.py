"""Requests a second of `/v1/digits`, one digit as PNG: this server, plain FastAPI, LitServe; and the session alone.

    make bench

wrk loads each server in turn from the same machine, in runs that take turns; the figures are the medians. The table and the plot
go into docs/bench.md and docs/bench.png.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import onnxruntime

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
GRAPH = ROOT / "models" / "cdcgan" / "decoder.onnx"
CONCURRENCY = (1, 8, 32, 128)


@dataclass(frozen=True)
class Contender:
    name: str
    command: list[str]
    environment: dict[str, str]


@dataclass(frozen=True)
class Result:
    """Requests a second, and the median and 99th percentile of their latency in milliseconds."""

    rate: float
    median: float
    p99: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--litserve", type=Path, default=Path(".venv-litserve/bin/python"), help="the Python that has LitServe")
    parser.add_argument("--seconds", type=int, default=2, help="of each run")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--connections", type=int, nargs="+", default=CONCURRENCY)
    parser.add_argument("--threads", action="store_true", help="compare thread counts and spinning of our own server instead")
    options = parser.parse_args()
    servers = threads() if options.threads else contenders(options.litserve)
    results: dict[tuple[str, int], list[Result]] = {}
    alone = []
    with running(servers) as urls:
        for _ in range(options.runs):
            alone.append(session_alone(options.seconds))
            for concurrency in options.connections:
                for server in servers:
                    found = load(urls[server.name], concurrency, options.seconds)
                    print(f"{server.name:28} c={concurrency:<4} {found.rate:8.0f}/s  p50 {found.median:7.2f} ms  p99 {found.p99:7.2f} ms")
                    results.setdefault((server.name, concurrency), []).append(found)
    medians = {key: middle(found) for key, found in results.items()}
    if options.threads or options.connections != CONCURRENCY:
        print(table(servers, medians, options.connections))
        return
    write(servers, medians, statistics.median(alone), side_by_side(results, alone))


def contenders(litserve: Path) -> list[Contender]:
    graph = {"GRAPH": str(GRAPH)}
    uvicorn = [sys.executable, "-m", "uvicorn", "plain:app", "--app-dir", str(HERE), "--log-level", "warning", "--port", "{port}"]
    return [
        Contender("Atelier", [sys.executable, "-m", "service"], {"ATELIER_PORT": "{port}"}),
        Contender("plain FastAPI", uvicorn, graph),
        Contender("LitServe", [str(litserve), str(HERE / "lit.py"), "{port}"], graph),
    ]


def threads() -> list[Contender]:
    """Threads of a session, how long they spin, how long a run is: one of them changed at a time."""
    cores = len(os.sched_getaffinity(0))
    settled = {"threads": str(cores), "spinning": "0", "run": "0.016"}
    changes: list[dict[str, str]] = [
        {},
        {"threads": "1"},
        {"spinning": "10"},
        {"spinning": "100"},
        {"spinning": "600"},
        {"run": "0.001"},
        {"run": "0.003"},
        {"run": "0"},
    ]
    found = []
    for change in changes:
        choice = settled | change
        length = f"{float(choice['run']) * 1000:.0f} ms" if float(choice["run"]) else "any length"
        found.append(
            Contender(
                f"{choice['threads']} threads, spinning {choice['spinning']} µs, runs of {length}",
                [sys.executable, "-m", "tests.bench.variant", choice["spinning"], choice["run"]],
                {"ATELIER_PORT": "{port}", "ATELIER_THREADS": choice["threads"], "ATELIER_LOAD": "cdcgan"},
            )
        )
    return found


@contextmanager
def running(servers: list[Contender]) -> Iterator[dict[str, str]]:
    """All servers at once, each on a port of its own; idle ones cost nothing."""
    processes, urls = [], {}
    try:
        for number, server in enumerate(servers):
            port = str(8310 + number)
            words = [word.format(port=port) for word in server.command]
            environment = {name: value.format(port=port) for name, value in server.environment.items()}
            processes.append(
                subprocess.Popen(
                    words,
                    cwd=ROOT,
                    env=os.environ | environment,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
            )
            urls[server.name] = f"http://127.0.0.1:{port}/v1/digits"
        for name, url in urls.items():
            wait_for(name, url)
        yield urls
    finally:
        for process in processes:
            os.killpg(process.pid, signal.SIGTERM)  # LitServe's workers too
        for process in processes:
            process.wait(30)


def wait_for(name: str, url: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            answer = httpx.post(url, json={"digits": "7"}, headers={"Accept": "image/png"}, timeout=5)
            if answer.status_code == 200 and answer.content.startswith(b"\x89PNG"):
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    raise SystemExit(f"{name} does not answer at {url}")


def load(url: str, concurrency: int, seconds: int) -> Result:
    words = ["wrk", "-t1", f"-c{concurrency}", f"-d{seconds}s", "--timeout", "20s", "-s", str(HERE / "post.lua"), url]
    output = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    line = next(line for line in output.splitlines() if line.startswith("RESULT"))
    requests, microseconds, errors, median, p99 = map(float, line.split()[1:])
    if errors:
        raise SystemExit(f"{url} with {concurrency} connections: {errors:.0f} of {requests:.0f} failed")
    return Result(requests / microseconds * 1e6, median, p99)


def middle(found: list[Result]) -> Result:
    return Result(*(statistics.median(getattr(one, name) for one in found) for name in ("rate", "median", "p99")))


def side_by_side(results: dict[tuple[str, int], list[Result]], alone: list[float]) -> str:
    """What the servers of one round are to each other, in the median over the rounds: the machine's own pace has no part in that."""

    def ratio(what: str, concurrency: int, other: str) -> float:
        pairs = zip(results["Atelier", concurrency], results[other, concurrency], strict=True)
        return statistics.median(getattr(ours, what) / getattr(theirs, what) for ours, theirs in pairs)

    share = statistics.median(ours.rate / most for ours, most in zip(results["Atelier", 32], alone, strict=True))
    return (
        f"Side by side, medians of the rounds' ratios: at 32 connections {ratio('rate', 32, 'plain FastAPI'):.2f} times the requests of "
        f"plain FastAPI and {ratio('rate', 32, 'LitServe'):.2f} times those of LitServe, {ratio('p99', 32, 'LitServe'):.2f} of "
        f"LitServe's 99th percentile, and {share:.2f} of the pictures of the session alone; at 1 connection "
        f"{ratio('median', 1, 'plain FastAPI'):.2f} of plain FastAPI's latency."
    )


def session_alone(seconds: int) -> float:
    """Pictures a second of the graph by itself, 32 at a time, on all cores."""
    session = onnxruntime.InferenceSession(str(GRAPH), providers=["CPUExecutionProvider"])
    feeds = {
        "latents": np.random.RandomState(0).standard_normal((32, 128)).astype(np.float32),
        "labels": np.arange(32, dtype=np.int32) % 10,
    }
    session.run(None, feeds)
    began, pictures = time.perf_counter(), 0
    while (took := time.perf_counter() - began) < seconds:
        session.run(None, feeds)
        pictures += 32
    return pictures / took


def table(servers: list[Contender], medians: dict[tuple[str, int], Result], connections: Sequence[int] = CONCURRENCY) -> str:
    head = "| server | " + " | ".join(f"{c} connections" for c in connections) + " |"
    rows = [head, "|---|" + "---|" * len(connections)]
    for server in servers:
        cells = [medians[server.name, c] for c in connections]
        rows.append(f"| {server.name} | " + " | ".join(f"{x.rate:,.0f}/s, {x.median:.1f} ms, {x.p99:.1f} ms" for x in cells) + " |")
    return "\n".join(rows)


def write(servers: list[Contender], medians: dict[tuple[str, int], Result], alone: float, ratios: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for server in servers:
        left.plot(CONCURRENCY, [medians[server.name, c].rate for c in CONCURRENCY], marker="o", label=server.name)
        right.plot(CONCURRENCY, [medians[server.name, c].p99 for c in CONCURRENCY], marker="o", label=server.name)
    left.axhline(alone, color="grey", linestyle="--", label="the session alone, 32 at a time")
    left.set(xscale="log", xlabel="connections", ylabel="requests a second", xticks=CONCURRENCY, ylim=(0, None))
    right.set(xscale="log", yscale="log", xlabel="connections", ylabel="99th percentile, ms", xticks=CONCURRENCY)
    for axis in (left, right):
        axis.set_xticklabels([str(c) for c in CONCURRENCY])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    left.legend(fontsize="small")
    figure.savefig(ROOT / "docs" / "bench.png", dpi=100)
    (ROOT / "docs" / "bench.md").write_text(
        f"""# How fast it answers

`POST /v1/digits` with one digit, answered as PNG, from the same ONNX file: this server with default settings (marks, metrics,
logs on), plain FastAPI (`def` endpoint, no batching) and LitServe (its own batching). wrk on the same {os.cpu_count()} cores, runs
that take turns, medians of all; requests a second, median latency, 99th percentile. Made by `make bench`.

{table(servers, medians)}

The session alone, 32 pictures at a time in a loop with no server around it: {alone:,.0f} pictures a second.

{ratios}

![plot](bench.png)

Machine: {machine()}; Python {platform.python_version()}, ONNX Runtime {onnxruntime.__version__}.
"""
    )
    print(f"{table(servers, medians)}\nsession alone {alone:,.0f}/s; docs/bench.md and docs/bench.png are written")


def machine() -> str:
    names = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return f"{os.cpu_count()} x {names[0] if names else platform.machine()}"


if __name__ == "__main__":
    main()
