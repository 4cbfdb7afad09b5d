"""Requests a second of one replica through Ray Serve, beside an echo of Ray Serve's own and beside a single process. Needs wrk.

    make cluster-bench

The three take turns, for some seconds each; medians. The request is a digit of a small generator.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from pressure import URL, Process
from ray import serve
from starlette.requests import Request

from service import cluster

MODEL, PORT = "cdcgan", 8031
SCRIPT = Path(__file__).with_name("post.lua")


@serve.deployment(max_ongoing_requests=512, ray_actor_options={"num_cpus": 0.1})
class Echo:
    async def __call__(self, request: Request) -> bytes:
        return await request.body()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--connections", type=int, default=32)
    options = parser.parse_args()
    alone = Process(ATELIER_LOAD=MODEL)
    ray.init(include_dashboard=False, log_to_driver=False, object_store_memory=200 * 2**20)
    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    serve.run(Echo.bind(), name="echo", route_prefix="/echo")
    application: Any = cluster.app({"models": "models", "load": MODEL, "replicas": "1"})
    serve.run(application, name="atelier", route_prefix="/")
    places = {
        "single process": f"{URL}/v1/digits",
        "one replica through Ray": f"http://127.0.0.1:{PORT}/v1/digits",
        "Ray Serve's echo": f"http://127.0.0.1:{PORT}/echo",
    }
    rates: dict[str, list[float]] = {name: [] for name in places}
    try:
        for place in places.values():
            asked(place, 2, options.connections)
        for _ in range(options.rounds):
            for name, place in places.items():
                rates[name].append(asked(place, options.seconds, options.connections))
    finally:
        alone.stop()
        serve.shutdown()
        ray.shutdown()
    for name, found in rates.items():
        print(f"{name}: {statistics.median(found):.0f} requests a second ({min(found):.0f} to {max(found):.0f})")


def asked(place: str, seconds: int, connections: int) -> float:
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(SCRIPT), place]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    requests, microseconds, errors, *_ = map(float, told.rpartition("RESULT ")[2].split())
    if errors:
        raise RuntimeError(f"{place}: {errors:.0f} answers were no successes")
    return requests / microseconds * 1e6


if __name__ == "__main__":
    main()
