"""What one would write first: FastAPI with a `def` endpoint and one session; no batching, no limits, no marks, no metrics."""

from __future__ import annotations

import io
import os
from typing import Any

import numpy as np
import onnxruntime
from fastapi import FastAPI
from PIL import Image
from pydantic import BaseModel, Field
from starlette.responses import Response

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = int(os.environ.get("THREADS", "0"))
session = onnxruntime.InferenceSession(os.environ["GRAPH"], options, providers=["CPUExecutionProvider"])
app = FastAPI()


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
