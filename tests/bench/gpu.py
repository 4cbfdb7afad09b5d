"""The server on a GPU, beside the raw session over the same pictures and beside plain FastAPI, with the same provider; then its memory.

    make gpu-bench EXTRA=gpu VENV=.venv-gpu

wrk loads each server in turn from the same machine; the figures are the medians of the rounds, and so are the shares, each of one round.
Prints Markdown for docker/README.md. `--provider cpu` tries it without a GPU, with few connections.
"""

from __future__ import annotations

import argparse
import io
import platform
import random
import statistics
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime
from bench import GRAPH, HERE, Result, contenders, machine, middle, running
from PIL import Image
from pressure import MODELS, URL, Process

from service.contract import images, manifest
from service.engine import gpu, hardware
from service.engine.tiling import Grid

UPSCALER, CAPTIONER, DETECTOR = "srresnet-light", "captions-scenes", "padim-brick"
OURS, PLAIN = "Atelier", "plain FastAPI"
MOST_WORDS = 30

Sent = dict[str, Any]  # keywords of httpx.Request and httpx.Client.post


@dataclass(frozen=True)
class Work:
    """What is asked of one path, in turn, by so many connections."""

    name: str
    path: str
    sent: list[Sent]
    connections: tuple[int, ...]
    servers: tuple[str, ...] = (OURS,)

    def requests(self, base: str) -> list[httpx.Request]:
        return [httpx.Request("POST", base + self.path, **one) for one in self.sent]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--provider", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--seconds", type=int, default=5, help="of each run")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--number", type=int, default=2000, help="pictures of odd sizes, over which memory is looked at")
    options = parser.parse_args()
    if options.provider == "cuda" and (why := hardware.missing("cuda")):
        raise SystemExit(f"CUDA does not load ({why})")
    print(speed(options.provider, options.seconds, options.rounds), flush=True)
    print(f"\n{memory(options.provider, options.number)}")
    parts = [machine(), *(card.name for card in hardware.gpus()[:1] if options.provider == "cuda")]
    print(f"\nMachine: {', '.join(parts)}; Python {platform.python_version()}, ONNX Runtime {onnxruntime.__version__}.")


def works(provider: str) -> list[Work]:
    upscale = [form(encoded(piece, "PNG"), model=UPSCALER) | {"headers": {"Accept": "image/jpeg"}} for piece in pieces()]
    digits = [{"json": {"digits": "7"}, "headers": {"Accept": "image/png"}}]
    scenes = [path.read_bytes() for path in sorted((MODELS / CAPTIONER / "golden" / "uploads").glob("plain.*"))]
    greedy, beam = ([form(scene, model=CAPTIONER, decoding=way) for scene in scenes] for way in ("greedy", "beam"))
    made = [
        Work("upscale", "/v1/upscale", upscale, (8, 32, 64), (OURS, PLAIN)),
        Work("digits", "/v1/digits", digits, (1, 32, 128), (OURS, PLAIN)),
        Work("caption, greedy", "/v1/caption", greedy, (8, 32), (OURS, PLAIN)),
        Work("caption, beam", "/v1/caption", beam, (8, 32)),
    ]
    return made if provider == "cuda" else [replace(work, connections=work.connections[:1]) for work in made]


def pieces() -> list[Image.Image]:
    """Twelve of 256 x 256, of a photograph that the model was exported with."""
    with Image.open(MODELS / UPSCALER / "golden" / "uploads" / "large.png") as photograph:
        return [photograph.crop((x, y, x + 256, y + 256)) for y in (0, 352, 704) for x in (0, 234, 468, 702)]


def encoded(picture: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return buffer.getvalue()


def form(upload: bytes, **fields: str) -> Sent:
    return {"files": {"image": upload}, "data": fields}


class Alone:
    """A graph in a session of ONNX Runtime, with no server around it; `rows`: of a run, how many are one picture."""

    def __init__(self, file: Path, provider: str, feeds: list[dict[str, np.ndarray]], rows: int) -> None:
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.force_spinning_stop", "1")  # after a run it would take a core from the servers
        cuda = [("CUDAExecutionProvider", gpu.cuda_options(None, False))] if provider == "cuda" else []
        self.session = onnxruntime.InferenceSession(str(file), options, providers=[*cuda, "CPUExecutionProvider"])
        assert provider == self.session.get_providers()[0].removesuffix("ExecutionProvider").lower()
        self._feeds, self._rows = feeds, rows

    def rate(self, seconds: float) -> float:
        """Pictures a second."""
        self.session.run(None, self._feeds[0])
        began, rows = time.perf_counter(), 0
        for feed in cycle(self._feeds):
            self.session.run(None, feed)
            rows += len(next(iter(feed.values())))
            if (took := time.perf_counter() - began) > seconds:
                break
        return rows / self._rows / took


class AloneTogether:
    """The captioner's two graphs in sessions with no server around them: so many pictures at a time, the likeliest words of all until the
    last sentence has ended."""

    def __init__(self, provider: str, scenes: list[bytes]) -> None:
        described = manifest.read(MODELS / CAPTIONER)
        fit, self._number = described.fit, described.largest_batch
        assert fit is not None
        pictures = [images.fit(images.decode(scene), fit) for scene in scenes]
        self._pictures = np.stack([*islice(cycle(pictures), self._number)])
        self._encoder = Alone(MODELS / CAPTIONER / described.graphs["encoder"].file, provider, [{"images": self._pictures}], 1)
        self._step = Alone(MODELS / CAPTIONER / described.graphs["step"].file, provider, [], 1)

    def rate(self, seconds: float) -> float:
        """Pictures a second."""
        self._captioned()
        began, rounds = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            self._captioned()
            rounds += 1
        return rounds * self._number / (time.perf_counter() - began)

    def _captioned(self) -> None:
        features, keys, state = self._encoder.session.run(["features", "keys", "state"], {"images": self._pictures})
        words, ended = np.full(self._number, manifest.START, np.int32), np.zeros(self._number, bool)
        for _ in range(MOST_WORDS):
            given = {"features": features, "keys": keys, "state": state, "words": words}
            log_probabilities, state = self._step.session.run(["log_probabilities", "next_state"], given)
            words = log_probabilities.argmax(axis=1).astype(np.int32)
            ended |= words == manifest.END
            if ended.all():
                break


def upscaling(provider: str) -> Alone:
    """Over the tiles that the server cuts, as many at a time as it takes."""
    folder = MODELS / UPSCALER
    described = manifest.read(folder)
    fit, most = described.fit, described.largest_batch
    assert fit is not None
    grid = Grid(256, 256, (fit.height, fit.width), described.margin)
    tiles = np.concatenate([grid.cut(images.whole(piece, 3), [row]) for piece in pieces() for row in range(grid.rows.number)])
    feeds = [{"images": tiles[first : first + most]} for first in range(0, len(tiles), most)]
    return Alone(folder / described.graphs["upscaler"].file, provider, feeds, grid.number)


def drawing(provider: str) -> Alone:
    latents = np.random.RandomState(0).standard_normal((32, 128)).astype(np.float32)
    return Alone(GRAPH, provider, [{"latents": latents, "labels": np.arange(32, dtype=np.int32) % 10}], 1)


def speed(provider: str, seconds: int, rounds: int) -> str:
    asked = works(provider)
    scenes = [one["files"]["image"] for work in asked if work.name == "caption, greedy" for one in work.sent]
    alone = {"upscale": upscaling(provider), "digits": drawing(provider), "caption, greedy": AloneTogether(provider, scenes)}
    found: dict[tuple[str, str, int], list[Result]] = {}
    rates: dict[str, list[float]] = {}
    naive = contenders(Path())[1]
    environment = naive.environment | {"PROVIDER": provider, "UPSCALER": str(MODELS / UPSCALER / "upscaler.onnx")}
    environment["CAPTIONER"] = str(MODELS / CAPTIONER)
    server = Process(ATELIER_PROVIDER=provider)
    try:
        with running([replace(naive, environment=environment)]) as urls:
            bases = {OURS: URL, PLAIN: urls[naive.name].removesuffix("/v1/digits")}
            for work in asked:
                for name in work.servers:
                    answered(work.requests(bases[name]))
            for _ in range(rounds):
                for name, session in alone.items():
                    rates.setdefault(name, []).append(session.rate(seconds))
                for work in asked:
                    for connections in work.connections:
                        for name in work.servers:
                            result = load(work.requests(bases[name]), connections, seconds)
                            found.setdefault((work.name, name, connections), []).append(result)
    finally:
        server.stop()
    return table(asked, found, rates)


def answered(requests: list[httpx.Request]) -> None:
    with httpx.Client(timeout=300) as client:
        for request in requests:
            client.send(request).raise_for_status()


LUA = """
dofile("{post}")
local requests, turn = {{}}, 0
for number = 1, {number} do requests[number] = io.open("{folder}/" .. number, "rb"):read("*a") end
request = function() turn = turn % {number} + 1; return requests[turn] end
"""


def load(requests: list[httpx.Request], connections: int, seconds: int) -> Result:
    """wrk sends the requests in turn. What it no longer waits for in the end is waited for here."""
    with tempfile.TemporaryDirectory() as folder:
        for number, request in enumerate(requests, 1):
            head = [b"POST %s HTTP/1.1" % request.url.raw_path, *(b"%s: %s" % field for field in request.headers.raw)]
            (Path(folder) / str(number)).write_bytes(b"\r\n".join([*head, b"", request.read()]))
        script = Path(folder) / "script.lua"
        script.write_text(LUA.format(post=HERE / "post.lua", number=len(requests), folder=folder))
        words = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "20s", "-s", str(script), str(requests[0].url)]
        output = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    answered(requests[:1])
    answers, microseconds, errors, median, p99 = map(float, output.rpartition("RESULT ")[2].split())
    if errors:
        raise SystemExit(f"{requests[0].url} with {connections} connections: {errors:.0f} of {answers:.0f} failed")
    return Result(answers / microseconds * 1e6, median, p99)


def table(asked: list[Work], found: dict[tuple[str, str, int], list[Result]], rates: dict[str, list[float]]) -> str:
    rows = [f"| | connections | {OURS} | {PLAIN} | the session alone | {OURS}'s share of it |", "|---|---|---|---|---|---|"]
    for work in asked:
        alone = rates.get(work.name, [])
        for connections in work.connections:
            ours, naive = (found.get((work.name, server, connections), []) for server in (OURS, PLAIN))
            shares = [one.rate / most for one, most in zip(ours, alone, strict=False)]
            cells = [told(ours), told(naive)]
            cells += [f"{statistics.median(alone):,.1f}/s", f"{statistics.median(shares):.2f}"] if alone else ["", ""]
            rows.append(f"| {work.name} | {connections} | {' | '.join(cells)} |")
    return "\n".join(rows)


def told(results: list[Result]) -> str:
    if not results:
        return ""
    whole = middle(results)
    return f"{whole.rate:,.1f}/s, {whole.median:,.1f} ms, {whole.p99:,.1f} ms"


def memory(provider: str, number: int) -> str:
    """Of the server and of the card while eight callers send pictures of odd sizes to three models in turn."""
    rows = ["| pictures of odd sizes | resident, MB | at most, MB | in use of the card, MB |", "|---|---|---|---|"]
    rows += [f"| without the server | | | {card(provider)} |"]
    server, client = Process(ATELIER_PROVIDER=provider), httpx.Client(base_url=URL, timeout=120)

    def ask(index: int) -> None:
        path, sent = odd(index)
        client.post(path, **sent).raise_for_status()

    try:
        with ThreadPoolExecutor(8) as pool:
            done = 0
            for upto in (0, number // 10, number // 4, number // 2, 3 * number // 4, number):
                list(pool.map(ask, range(done, upto)))
                done = upto
                rows.append(f"| {done:,} | {server.resident():,.0f} | {server.resident('VmHWM'):,.0f} | {card(provider)} |")
    finally:
        server.stop()
    return "\n".join(rows)


def odd(index: int) -> tuple[str, Sent]:
    """A path, and a picture of smooth noise, an odd number of pixels wide and high."""
    path, most, fields = (
        ("/v1/upscale", 330, {"model": UPSCALER}),
        ("/v1/caption", 900, {"model": CAPTIONER, "decoding": "greedy"}),
        ("/v1/anomaly", 900, {"model": DETECTOR}),
    )[index % 3]
    dice = random.Random(index)
    size = (dice.randint(1, most) | 1, dice.randint(1, most) | 1)
    picture = Image.fromarray(np.random.default_rng(index).integers(0, 256, (9, 9, 3), np.uint8)).resize(size)
    return path, form(encoded(picture, ("PNG", "JPEG")[index % 2]), **fields)


def card(provider: str) -> str:
    """What all processes together use of the first card's memory."""
    cards = hardware.gpus.__wrapped__() if provider == "cuda" else []  # asked anew
    return f"{cards[0].memory - cards[0].free:,}" if cards else ""


if __name__ == "__main__":
    main()
