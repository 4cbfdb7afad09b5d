"""The same answer from LitServe, with its own batching, as its documentation shows it."""

import io
import os
import sys
from typing import Any

import litserve
import numpy as np
import onnxruntime
from fastapi import Response
from PIL import Image


class Digits(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.session = onnxruntime.InferenceSession(os.environ["GRAPH"], providers=["CPUExecutionProvider"])

    def decode_request(self, request: dict[str, Any]) -> tuple[np.ndarray, int]:
        seed = request.get("seed") or int.from_bytes(os.urandom(4), "big")
        return np.random.RandomState(seed).standard_normal(128).astype(np.float32), int(request["digits"])

    def batch(self, inputs: list[tuple[np.ndarray, int]]) -> dict[str, np.ndarray]:
        return {"latents": np.stack([latent for latent, _ in inputs]), "labels": np.array([label for _, label in inputs], np.int32)}

    def predict(self, batch: dict[str, np.ndarray]) -> np.ndarray:
        return self.session.run(["images"], batch)[0]

    def unbatch(self, output: np.ndarray) -> list[np.ndarray]:
        return list(output)

    def encode_response(self, output: np.ndarray) -> Response:
        buffer = io.BytesIO()
        Image.fromarray(output[..., 0]).save(buffer, "PNG")
        return Response(buffer.getvalue(), media_type="image/png")


if __name__ == "__main__":
    api = Digits(max_batch_size=64, batch_timeout=float(os.environ.get("BATCH_TIMEOUT", "0.001")), api_path="/v1/digits")
    litserve.LitServer(api, accelerator="cpu", workers_per_device=1).run(
        host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning"
    )
