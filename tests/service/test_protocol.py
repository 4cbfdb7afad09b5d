"""Open Inference Protocol v2: JSON and binary tensors, against what the operations of /v1 answer."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import numpy as np
import pytest
from support import pixels

NUMPY = {"UINT8": np.uint8, "INT32": np.int32, "FP32": np.float32}


def tensor(name: str, array: np.ndarray, kind: str) -> dict[str, Any]:
    return {"name": name, "shape": list(array.shape), "datatype": kind, "data": array.ravel().tolist()}


def binary(inputs: list[tuple[str, np.ndarray, str]], **more: Any) -> tuple[bytes, dict[str, str]]:
    described = [
        {"name": name, "shape": list(array.shape), "datatype": kind, "parameters": {"binary_data_size": array.nbytes}}
        for name, array, kind in inputs
    ]
    head = json.dumps({"inputs": described, **more}).encode()
    body = head + b"".join(array.tobytes() for _, array, _ in inputs)
    return body, {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}


def test_the_server_and_its_models_describe_themselves(client: httpx.Client) -> None:
    about = client.get("/v2").json()
    assert about["name"] == "atelier"
    assert "binary_tensor_data" in about["extensions"]
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/digits.cdcgan/ready", "/v2/models/digits.cdcgan/versions/1/ready"):
        assert (client.get(path).status_code, client.get(path).content) == (200, b"")
    model = client.get("/v2/models/digits.cdcgan").json()
    assert {one["name"]: (one["datatype"], one["shape"]) for one in model["inputs"]} == {
        "latents": ("FP32", [-1, 128]),
        "labels": ("INT32", [-1]),
    }
    assert model["outputs"] == [{"name": "images", "datatype": "UINT8", "shape": [-1, 28, 28, 1]}]
    config = client.get("/v2/models/digits.cdcgan/config").json()
    assert config["max_batch_size"] == 64
    assert {"name": "labels", "data_type": "TYPE_INT32", "dims": []} in config["input"]


@pytest.mark.parametrize("as_binary", [False, True])
def test_infer_answers_as_the_operation_does(client: httpx.Client, as_binary: bool) -> None:
    expected = client.post("/v1/digits", json={"digits": "407", "seed": 5, "model": "cdcgan"}).json()
    latents, labels = np.array(expected["latents"], np.float32), np.array([4, 0, 7], np.int32)
    if as_binary:
        body, headers = binary([("latents", latents, "FP32"), ("labels", labels, "INT32")], parameters={"binary_data_output": True}, id="7")
        answer = client.post("/v2/models/digits.cdcgan/infer", content=body, headers=headers)
        head = int(answer.headers["inference-header-content-length"])
        told = json.loads(answer.content[:head])
        images = np.frombuffer(answer.content[head:], np.uint8).reshape(told["outputs"][0]["shape"])
        assert told["outputs"][0]["parameters"]["binary_data_size"] == images.nbytes
    else:
        request = {"id": "7", "inputs": [tensor("latents", latents, "FP32"), tensor("labels", labels, "INT32")]}
        told = client.post("/v2/models/digits.cdcgan/infer", json=request).json()
        images = np.array(told["outputs"][0]["data"], np.uint8).reshape(told["outputs"][0]["shape"])
    assert (told["id"], told["model_name"], told["outputs"][0]["datatype"]) == ("7", "digits.cdcgan", "UINT8")
    for picture, image in zip(images, expected["images"], strict=True):
        assert np.array_equal(picture[..., 0], pixels(base64.b64decode(image)))


def test_graphs_of_a_task_are_joined(client: httpx.Client, digit: bytes) -> None:
    picture = pixels(digit)[None, :, :, None]
    expected = pixels(client.post("/v1/reconstruct", files={"image": digit}, data={"model": "vae"}).content)
    answer = client.post("/v2/models/reconstruct.vae/infer", json={"inputs": [tensor("images", picture, "UINT8")]}).json()
    assert np.array_equal(np.array(answer["outputs"][0]["data"]).reshape(28, 28), expected)
    names = [one["name"] for one in client.get("/v2/models/generate.vae").json()["inputs"]]
    assert names == ["noise"]
    noise = np.random.RandomState(3).standard_normal((2, 16)).astype(np.float32)
    drawn = client.post("/v2/models/generate.vae/infer", json={"inputs": [tensor("noise", noise, "FP32")]}).json()
    images = [
        pixels(base64.b64decode(image)) for image in client.post("/v1/generate", json={"model": "vae", "n": 2, "seed": 3}).json()["images"]
    ]
    assert np.array_equal(np.array(drawn["outputs"][0]["data"]).reshape(2, 28, 28), images)


GOOD = {"name": "noise", "shape": [1, 16], "datatype": "FP32", "data": [0.0] * 16}


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        ({"name": "colour"}, 422, "the inputs are noise"),
        ({"datatype": "FP64"}, 422, "noise is FP32"),
        ({"shape": [1, 15]}, 422, "[n, 16]"),
        ({"shape": [0, 16], "data": []}, 422, "from 1 on"),
        ({"shape": []}, 422, "[n, 16]"),
        ({"data": [0.0] * 15}, 422, "has 15 numbers, not 16"),
        ({"data": [["x" * 100_000], *[[""]] * 1500]}, 422, "numbers alone"),
        ({"data": [10**400] * 16}, 422, "too large"),
        ({"data": [[0.0] * 8, [0.0] * 7]}, 422, "nested unevenly"),
        ({"data": ["a"] * 16}, 422, "numbers alone"),
        ({"data": [1e300] * 16}, 422, "no FP32"),
        ({"data": None}, 422, "neither data nor"),
        ({"parameters": {"binary_data_size": 64}}, 422, "64 bytes are due and 0 are there"),
        ({"shape": [65, 16], "data": [0.0] * 65 * 16}, 413, "larger than 64"),
    ],
)
def test_tensors_that_do_not_fit(client: httpx.Client, change: dict[str, Any], status: int, said: str) -> None:
    answer = client.post("/v2/models/generate.vae/infer", json={"inputs": [GOOD | change]})
    body = answer.json()
    assert (answer.status_code, body["error"]) == (status, body["detail"])
    assert said in body["detail"]


def test_requests_that_do_not_fit(client: httpx.Client) -> None:
    url = "/v2/models/generate.vae/infer"
    assert client.post(url, json={"inputs": []}).status_code == 422
    assert client.post(url, content=b"{").status_code == 422
    assert client.post(url, json={"inputs": [GOOD, GOOD]}).status_code == 422
    assert client.post(url, json={"inputs": [GOOD], "outputs": [{"name": "sound"}]}).status_code == 422
    assert client.post(url, content=b"{}", headers={"Inference-Header-Content-Length": "99"}).status_code == 422
    for length in (b"\xb2", b"9" * 5000):
        assert client.post(url, content=b"{}", headers=[(b"Inference-Header-Content-Length", length)]).status_code == 422
    body, headers = binary([("noise", np.zeros((1, 16), np.float32), "FP32")])
    assert "follow the last tensor" in client.post(url, content=body + b"more", headers=headers).json()["detail"]
    nan = np.full((1, 16), np.nan, np.float32)
    body, headers = binary([("noise", nan, "FP32")])
    assert "not finite" in client.post(url, content=body, headers=headers).json()["detail"]
    labels = [tensor("latents", np.zeros((1, 128), np.float32), "FP32"), tensor("labels", np.array([10]), "INT32")]
    assert "labels are 0 to 9" in client.post("/v2/models/digits.cdcgan/infer", json={"inputs": labels}).json()["detail"]
    labels = [tensor("latents", np.zeros((1, 128), np.float32), "FP32"), tensor("labels", np.array([1, 2]), "INT32")]
    assert "first dimension" in client.post("/v2/models/digits.cdcgan/infer", json={"inputs": labels}).json()["detail"]


@pytest.mark.parametrize("name", ["vae", "fly.vae", "generate.", "generate.nobody", "digits.vae", "generate.vae/versions/2"])
def test_models_that_are_not_there(client: httpx.Client, name: str) -> None:
    for path in ("", "/ready", "/config"):
        answer = client.get(f"/v2/models/{name}{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "unknown_model")
    assert client.post(f"/v2/models/{name}/infer", json={"inputs": [GOOD]}).status_code == 404
