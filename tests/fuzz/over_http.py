"""Broken pictures against the real server: whatever is uploaded, it answers with success or with what is wrong with the picture.

    make fuzz-http

A number names a picture and the request that it goes into: --first NUMBER --number 1 sends one again.
"""

from __future__ import annotations

import argparse
import base64
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
from built import small
from fuzz.mutations import mutated, seeds
from support import Server

EXPECTED = {200, 413, 415, 422}
CALLERS = 4
FIRST = 2000
"""Requests after which memory is as it stays."""

WATCHED = """
import os, pathlib, signal, sys
import fastapi_offline, service
from service.settings import read
allowed = [read().models, pathlib.Path(service.__file__).parent / "playground", pathlib.Path(fastapi_offline.__file__).parent / "static"]
allowed = [str(path.resolve()) + os.sep for path in [*allowed, *(folder for folder in allowed[0].iterdir())]]
def opened(event, arguments):
    if event != "open" or isinstance(arguments[0], int):
        return
    path = os.path.realpath(os.fsdecode(arguments[0]))
    if not path.endswith((".py", ".pyc")) and not path.startswith(tuple(allowed)):
        sys.stderr.write(f"OPENED {path}\\n")
signal.signal(signal.SIGUSR1, lambda *_: sys.addaudithook(opened))
from service.__main__ import main
sys.exit(main([]))
"""
"""A server that, once it is told to, says of each file outside the models' and the page's folders that it opens it."""


def watched(models: Path, **settings: str) -> Server:
    """One with a quick model for every operation."""
    small(models)
    server = Server("-c", WATCHED, ATELIER_MODELS=str(models), **settings)
    server.until_loaded()
    server.client.get("/playground/main.js")  # Python reads the system's types of files
    server.process.send_signal(signal.SIGUSR1)
    return server


def ask(client: httpx.Client, number: int) -> httpx.Response:
    """The request of a number."""
    kind, content = mutated(number)
    task = ("embed", "reconstruct", "translate", "upscale", "inpaint", "anomaly", "caption", "swap")[number // 6 % 8]
    fields = {"swap": {"identity": "ann"}}.get(task, {})
    pictures = {"image": content}
    if task == "inpaint":
        pictures = {"image": seeds()[kind][0], "mask": content} if number % 4 else {"image": content, "mask": content}
    if number % 5 == 0:
        return client.post(f"/v1/{task}", json={**fields, **{name: base64.b64encode(it).decode() for name, it in pictures.items()}})
    return client.post(f"/v1/{task}", files=pictures, data=fields)


def attack(server: Server, numbers: Iterable[int]) -> Counter[tuple[str, int]]:
    """What is answered, by format and status; each has to be expected, and written in the form of a problem if it is one."""
    found: Counter[tuple[str, int]] = Counter()

    def one(number: int) -> None:
        answer = ask(server.client, number)
        assert answer.status_code in EXPECTED, f"picture {number}: {answer.status_code} {answer.text[:500]}"
        assert answer.status_code == 200 or answer.json()["code"], f"picture {number}"
        found[mutated(number)[0], answer.status_code] += 1

    with ThreadPoolExecutor(CALLERS) as pool:
        list(pool.map(one, numbers))
    return found


def unharmed(server: Server) -> None:
    """The server goes on, opened no file that is not its own, and nothing went wrong in it that an answer did not tell."""
    assert server.client.get("/health/ready").status_code == 200
    assert server.metric("atelier_queue_depth") == 0
    strange = [line for line in server.log if "Traceback" in line or "OPENED" in line or " 500 " in line]
    assert not strange, strange


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--number", type=int, default=24_000, help="of pictures")
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        server = watched(Path(place) / "models", ATELIER_QUEUE_LIMIT="100000")  # pictures of a great many tiles come beside others
        began, last = time.monotonic(), options.first + options.number
        try:
            found = attack(server, range(options.first, min(options.first + FIRST, last)))
            before = server.resident, server.files, server.threads
            found += attack(server, range(options.first + FIRST, last))
            after = server.resident, server.files, server.threads
            unharmed(server)
        finally:
            stopped = server.stop()
        seconds = time.monotonic() - began
        assert stopped == 0
    for kind in sorted({kind for kind, _ in found}):
        print(kind, {status: number for (of, status), number in sorted(found.items()) if of == kind})
    names = ("MB resident", "open files", "threads")
    grown = ", ".join(f"{name} {old:.0f} -> {new:.0f}" for name, old, new in zip(names, before, after, strict=True))
    print(f"{found.total()} pictures in {seconds:.0f} s; after the first {FIRST}, and at the end: {grown}")


if __name__ == "__main__":
    main()
