"""One picture of a given size through a model: how long it takes, beside the raw session over the same tiles; and how much memory.

    make large ARGS="translate pix2pix-relief-to-satellite 256x256"

The server and the session take turns; medians.
"""

from __future__ import annotations

import argparse
import io
import re
import statistics
import time
from pathlib import Path

import httpx
import numpy as np
import onnxruntime
from PIL import Image
from pressure import MODELS, URL, Process

from service.contract import images, manifest
from service.engine.tiling import Grid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task")
    parser.add_argument("model")
    parser.add_argument("size", help="WIDTHxHEIGHT")
    parser.add_argument("--runs", type=int, default=9)
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    picture = Image.effect_noise((width, height), 80).convert("RGB")
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    described = manifest.read(MODELS / options.model)
    raw = Raw(MODELS / options.model, described, options.task, images.whole(picture, 3))
    server, client = Process(ATELIER_LOAD=options.model), httpx.Client(base_url=URL, timeout=600)
    try:
        rest = server.resident()
        rows = []
        for _ in range(options.runs):
            began = time.perf_counter()
            answer = client.post(f"/v1/{options.task}", files={"image": buffer.getvalue()}, data={"model": options.model})
            whole = time.perf_counter() - began
            answer.raise_for_status()
            stages = {name: float(took) for name, took in re.findall(r"(\w+);dur=([0-9.]+)", answer.headers["Server-Timing"])}
            rows.append((whole * 1000, stages["infer"], stages["encode"], raw.milliseconds()))
        peak = server.resident("VmHWM")
    finally:
        server.stop()
    whole, infer, encode, alone = (statistics.median(column) for column in zip(*rows, strict=True))
    shares = [row[1] / row[3] for row in rows]
    print(f"{options.task} with {options.model}, {width} x {height}: {raw.number} tiles of {raw.side}")
    print(f"whole {whole:.0f} ms; infer {infer:.0f} ms, encode {encode:.0f} ms; the raw session over the same tiles {alone:.0f} ms")
    print(f"infer over raw {statistics.median(shares):.2f}; whole over raw and encode {whole / (alone + encode):.2f}")
    print(f"memory {rest:.0f} MB at rest, {peak - rest:.0f} MB above that at its peak")


class Raw:
    """The model's graph in a plain session, over the tiles that the server cuts, in the same batches."""

    def __init__(self, folder: Path, described: manifest.Manifest, task: str, pixels: np.ndarray) -> None:
        (graph,) = described.tasks[task].values()
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.force_spinning_stop", "1")  # after a run it would take a core from the server
        file = str(folder / described.graphs[graph].file)
        self._session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        fit = described.fit
        assert fit is not None
        self.side = fit.height
        if described.large == "tile":
            grid = Grid(*pixels.shape[:2], (fit.height, fit.width), described.margin)
            tiles = [grid.cut(pixels, [row]) for row in range(grid.rows.number)]
        else:
            tiles = [images.fit(images.picture(pixels), fit)[None]]
        most = described.largest_batch
        self._batches = [row[first : first + most] for row in tiles for first in range(0, len(row), most)]
        self.number = sum(map(len, tiles))
        self.milliseconds()

    def milliseconds(self) -> float:
        began = time.perf_counter()
        for batch in self._batches:
            self._session.run(None, {"images": batch})
        return (time.perf_counter() - began) * 1000


if __name__ == "__main__":
    main()
