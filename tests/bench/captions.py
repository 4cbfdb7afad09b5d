"""How long a caption takes, and how many a second there are when several clients ask at once.

    make captions ARGS=captions-scenes

The pictures are those that the model was exported with. Numbers of clients take turns; medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
from pressure import MODELS, URL, Process

WAYS = ("greedy", "beam", "sample")
CLIENTS = (1, 4, 16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--captions", type=int, default=160, help="in each round, of each number of clients")
    options = parser.parse_args()
    uploads = [path.read_bytes() for path in sorted((MODELS / options.model / "golden" / "uploads").iterdir())]
    server = Process(ATELIER_LOAD=options.model)
    client = httpx.Client(base_url=URL, timeout=60, limits=httpx.Limits(max_connections=max(CLIENTS)))

    def caption(number: int, decoding: str = "beam") -> float:
        began = time.perf_counter()
        fields = {"model": options.model, "decoding": decoding}
        client.post("/v1/caption", files={"image": uploads[number % len(uploads)]}, data=fields).raise_for_status()
        return (time.perf_counter() - began) * 1000

    try:
        for decoding in WAYS:
            times = [caption(number, decoding) for number in range(60)]
            print(f"{decoding}: {statistics.median(times):.0f} ms in the median of {len(times)}")
        rates: dict[int, list[float]] = {clients: [] for clients in CLIENTS}
        for _ in range(options.rounds):
            for clients in CLIENTS:
                began = time.perf_counter()
                with ThreadPoolExecutor(clients) as pool:
                    list(pool.map(caption, range(options.captions)))
                rates[clients].append(options.captions / (time.perf_counter() - began))
    finally:
        server.stop()
    alone = statistics.median(rates[1])
    for clients in CLIENTS:
        rate = statistics.median(rates[clients])
        print(f"{clients} clients: {rate:.1f} captions a second, {rate / alone:.2f} times those of one")


if __name__ == "__main__":
    main()
