"""What one would write first: FastAPI with `def` endpoints and a session each; no batching, no limits, no marks, no metrics.

`GRAPH` draws digits; `UPSCALER`, if it is set, makes pictures larger, and the graphs in the folder `CAPTIONER` caption them, on `PROVIDER`
(`cpu` or `cuda`).
"""

from __future__ import annotations

import io
import os
from typing import Any

import numpy as np
import onnxruntime
from fastapi import FastAPI, UploadFile
from PIL import Image
from pydantic import BaseModel, Field
from starlette.responses import Response

from service.contract.manifest import END, START
from service.engine import gpu, hardware
from service.engine.tiling import Grid, Mosaic

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = int(os.environ.get("THREADS", "0"))
providers: list[Any] = ["CPUExecutionProvider"]
if os.environ.get("PROVIDER") == "cuda":
    hardware.preload()
    providers.insert(0, ("CUDAExecutionProvider", gpu.cuda_options(None, False)))
session = onnxruntime.InferenceSession(os.environ["GRAPH"], options, providers=providers)
upscaler: Any = None
if larger := os.environ.get("UPSCALER"):
    upscaler = onnxruntime.InferenceSession(larger, options, providers=providers)
encoder: Any = None
step: Any = None
if folder := os.environ.get("CAPTIONER"):
    encoder, step = (onnxruntime.InferenceSession(f"{folder}/{name}.onnx", options, providers=providers) for name in ("encoder", "step"))
app = FastAPI()
MOST_WORDS = 30


class Digits(BaseModel):
    digits: str = Field(pattern="^[0-9]{1,64}$")
    seed: int | None = None


@app.post("/v1/digits")
def digits(request: Digits) -> Response:
    number = len(request.digits)
    seed = int.from_bytes(os.urandom(4)) if request.seed is None else request.seed
    latents = np.random.RandomState(seed).standard_normal((number, 128)).astype(np.float32)
    feeds: dict[str, Any] = {"latents": latents, "labels": np.array([int(digit) for digit in request.digits], np.int32)}
    images = session.run(["images"], feeds)[0]
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(list(images[..., 0]), axis=1)).save(buffer, "PNG")
    return Response(buffer.getvalue(), media_type="image/png")


@app.post("/v1/upscale")
def upscale(image: UploadFile) -> Response:
    pixels = np.asarray(Image.open(image.file).convert("RGB"))
    height, width, _ = pixels.shape
    grid = Grid(height, width, (144, 144), margin=8, feather=4, scale=4)
    tiles = np.concatenate([grid.cut(pixels, [row]) for row in range(grid.rows.number)])
    made = upscaler.run(["upscaled"], {"images": tiles})[0]
    mosaic = Mosaic(grid, 3)
    for row, across in enumerate(np.split(made, grid.rows.number)):
        mosaic.add(across, row)
    buffer = io.BytesIO()
    Image.fromarray(mosaic.pixels).save(buffer, "JPEG", quality=95)
    return Response(buffer.getvalue(), media_type="image/jpeg")


@app.post("/v1/caption")
def caption(image: UploadFile) -> list[int]:
    """The numbers of the likeliest words, one after the other."""
    height, width = encoder.get_inputs()[0].shape[1:3]
    pixels = np.asarray(Image.open(image.file).convert("RGB").resize((width, height)))
    features, keys, state = encoder.run(["features", "keys", "state"], {"images": pixels[None]})
    words = [START]
    while len(words) <= MOST_WORDS and END not in words:
        given = {"features": features, "keys": keys, "state": state, "words": np.array(words[-1:], np.int32)}
        log_probabilities, state = step.run(["log_probabilities", "next_state"], given)
        words.append(int(log_probabilities[0].argmax()))
    return words[1:]
