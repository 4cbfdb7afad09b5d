"""Every error that a caller can meet, over HTTP against the real server."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from support import Server, encoded

TITLES = {"type", "title", "status", "detail", "instance", "code"}


def check(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    body = dict(answer.json())
    assert (answer.status_code, body["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert body.keys() >= TITLES
    assert body["status"] == status
    assert body["instance"] == answer.headers["x-request-id"]
    return body


def bomb() -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    chunks = (header, b"IDAT" + zlib.compress(b"\x00" * 10), b"IEND")
    return b"\x89PNG\r\n\x1a\n" + b"".join(struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)


def test_unreadable_pictures(client: httpx.Client, digit: bytes) -> None:
    noise = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)))
    for content in (b"This is a text.", noise[: len(noise) // 2], b"", digit[:40]):
        body = check(client.post("/v1/embed", files={"image": content}), 415, "unreadable_image")
        assert body["detail"].startswith("image: ")
    check(client.post("/v1/reconstruct", files={"image": digit[:-30]}), 415, "unreadable_image")


def test_a_small_png_that_declares_a_huge_picture(client: httpx.Client) -> None:
    assert len(bomb()) < 100
    body = check(client.post("/v1/embed", files={"image": bomb()}), 413, "image_too_large")
    assert body["limit"] == {"name": "picture_pixels", "value": 25_000_000}


def test_an_upload_over_the_limit(start: Callable[..., Server]) -> None:
    server = start(ATELIER_MAX_UPLOAD_MB="0.1", ATELIER_LOAD="vae")
    server.until_loaded()
    body = check(server.client.post("/v1/embed", files={"image": b"x" * 200_000}), 413, "image_too_large")
    assert body["limit"] == {"name": "upload_bytes", "value": 100_000}

    def chunks() -> Any:  # of undeclared length
        for _ in range(40):
            yield b" " * 10_000

    answer = server.client.post("/v1/generate", content=chunks(), headers={"Content-Type": "application/json"})
    check(answer, 413, "image_too_large")
    assert server.client.post("/v1/generate", json={}).status_code == 200


def test_an_answer_over_the_limit(start: Callable[..., Server]) -> None:
    server = start(ATELIER_MAX_OUTPUT_MEGAPIXELS="0.01", ATELIER_LOAD="cdcgan")
    server.until_loaded()
    answer = server.client.post("/v1/digits", json={"digits": "1" * 64}, headers={"Accept": "image/png"})
    assert check(answer, 413, "image_too_large")["limit"] == {"name": "output_pixels", "value": 10_000}
    answer = server.client.post("/v1/digits", json={"digits": "1" * 64})
    assert check(answer, 413, "image_too_large")["limit"] == {"name": "output_pixels", "value": 10_000}


def test_a_body_full_of_errors_is_answered_briefly(client: httpx.Client) -> None:
    answer = client.post("/v1/generate", json={"latents": [[""] * 4096] * 64})
    assert len(check(answer, 422, "invalid_request")["errors"]) == 20
    assert len(answer.content) < 10_000


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""])
def test_json_operations_take_json_only(client: httpx.Client, kind: str) -> None:
    answer = client.post("/v1/digits", content=b'{"digits": "1"}', headers={"Content-Type": kind} if kind else {})
    check(answer, 415, "unsupported_media_type")


@pytest.mark.parametrize("kind", ["image/png", "text/plain", ""])
def test_picture_operations_take_forms_and_json_only(client: httpx.Client, digit: bytes, kind: str) -> None:
    check(client.post("/v1/embed", content=digit, headers={"Content-Type": kind} if kind else {}), 415, "unsupported_media_type")


@pytest.mark.parametrize("path", ["digits", "generate", "embed", "reconstruct"])
def test_an_empty_body(client: httpx.Client, path: str) -> None:
    check(client.post(f"/v1/{path}", content=b"", headers={"Content-Type": "application/json"}), 422, "invalid_request")


def test_broken_forms(client: httpx.Client, digit: bytes) -> None:
    for kind, content in (
        ("multipart/form-data", b"anything"),
        ("multipart/form-data; boundary=x", b"anything"),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\nabc'),
        ("multipart/form-data; boundary=x", b""),
        ("multipart/form-data; boundary=x; charset=undefined", b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nabc\r\n--x--'),
        ("multipart/form-data; boundary=x; charset=none", b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nabc\r\n--x--'),
    ):
        answer = client.post("/v1/embed", content=content, headers={"Content-Type": kind})
        check(answer, 422, "invalid_request")
    assert check(client.post("/v1/embed", data={"model": "vae"}, files={"picture": digit}), 422, "invalid_request")["errors"]
    doubled = [("image", ("a", digit)), ("image", ("b", digit))]
    check(client.post("/v1/embed", files=doubled), 422, "invalid_request")
    many = [(f"field{index}", ("a", b"1")) for index in range(100)]
    check(client.post("/v1/embed", files=many), 422, "invalid_request")


def test_base64_that_is_none(client: httpx.Client) -> None:
    for image in ("*not base64*", "café", 17, None):
        check(client.post("/v1/embed", json={"image": image}), 422, "invalid_request")


@pytest.mark.parametrize("name", ["nobody", "../vae", "vae/../../etc", "x" * 5000, "", "cdcgan"])
def test_unknown_models(client: httpx.Client, digit: bytes, name: str) -> None:
    body = check(client.post("/v1/generate", json={"model": name}), 404, "unknown_model")
    assert "vae" in body["detail"]
    check(client.post("/v1/embed", files={"image": digit}, data={"model": name}), 404, "unknown_model")


def test_unknown_manifest(client: httpx.Client) -> None:
    assert "cdcgan" in check(client.get("/v1/models/nobody"), 404, "unknown_model")["detail"]


def test_unknown_paths_and_methods(client: httpx.Client) -> None:
    check(client.get("/v1/nothing"), 404, "not_found")
    answer = client.get("/v1/digits")
    check(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"


@pytest.mark.process
def test_request_ids(client: httpx.Client) -> None:
    assert client.get("/health/live", headers={"X-Request-Id": "mine-1"}).headers["x-request-id"] == "mine-1"
    made = [client.get("/health/live", headers={"X-Request-Id": given}).headers["x-request-id"] for given in ("", "a b", "x" * 200)]
    assert len(set(made)) == 3
    assert all(len(one) == 32 for one in made)
    problem = client.get("/nothing", headers={"X-Request-Id": "mine-2"})
    assert problem.json()["instance"] == problem.headers["x-request-id"] == "mine-2"


@pytest.mark.process
def test_a_path_cannot_forge_a_line_of_the_log(server: Server) -> None:
    server.client.get("/v1/models/%0aINFO%20forged")
    server.client.get("/health/live")
    assert server.said("/v1/models/%0aINFO%20forged 404")
    assert not any(line.startswith("INFO forged") for line in server.log)


def test_headers_of_an_answer(client: httpx.Client, digit: bytes) -> None:
    answer = client.post("/v1/reconstruct", files={"image": digit})
    digest = client.get("/v1/models").json()["models"]
    expected = next(entry["digest"] for entry in digest if (entry["task"], entry["default"]) == ("reconstruct", True))
    assert answer.headers["x-model"] == f"reconstruct/vae@{expected[:12]}"
    stages = [part.split(";")[0] for part in answer.headers["server-timing"].split(", ")]
    assert stages == ["decode", "queue", "infer", "encode"]


def test_a_full_queue_is_refused_at_once(start: Callable[..., Server]) -> None:
    server = start(ATELIER_QUEUE_LIMIT="64", ATELIER_LOAD="cdcgan", ATELIER_MAX_BATCH="1", ATELIER_THREADS="1")
    server.until_loaded()
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: server.client.post("/v1/digits", json={"digits": "8" * 64}), range(32)))
    statuses = {answer.status_code for answer in answers}
    assert statuses == {200, 503}
    refused = next(answer for answer in answers if answer.status_code == 503)
    check(refused, 503, "overloaded")
    assert int(refused.headers["retry-after"]) >= 1
    assert server.client.post("/v1/digits", json={"digits": "8"}).status_code == 200


def test_the_server_goes_on_after_everything(client: httpx.Client, digit: bytes) -> None:
    assert client.post("/v1/embed", files={"image": digit}).status_code == 200
    assert Image.open(io.BytesIO(client.post("/v1/reconstruct", files={"image": digit}).content)).size == (28, 28)
