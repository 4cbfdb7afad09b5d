"""POST /v1/embed and /v1/reconstruct over HTTP, against the shipped models."""

from __future__ import annotations

import base64
import io
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from support import MODELS as SHIPPED
from support import encoded, pixels

MODELS = ["autoencoder", "vae", "vae-map"]


def embed(client: httpx.Client, content: bytes, **fields: str) -> dict[str, Any]:
    answer = client.post("/v1/embed", files={"image": content}, data=fields)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


@pytest.mark.parametrize("model", MODELS)
def test_embedding_has_the_models_width(client: httpx.Client, digit: bytes, model: str) -> None:
    body = embed(client, digit, model=model)
    assert body["dimension"] == len(body["embedding"]) == client.get(f"/v1/models/{model}").json()["latent_dimension"]
    assert body["model"] == model


def test_the_default_also_says_what_a_picture_shows(client: httpx.Client) -> None:
    flower = (SHIPPED / "efficientnet-lite0" / "golden" / "uploads" / "plain.png").read_bytes()
    body = embed(client, flower)
    assert (body["model"], body["dimension"], len(body["embedding"])) == ("efficientnet-lite0", 1280, 1280)
    labels = [(label["label"], label["probability"]) for label in body["labels"]]
    assert len({label for label, _ in labels} & set(client.get("/v1/models/efficientnet-lite0").json()["classes"])) == 5
    assert [share for _, share in labels] == sorted((share for _, share in labels), reverse=True)


def test_a_model_without_classes_names_none(client: httpx.Client, digit: bytes) -> None:
    assert "labels" not in embed(client, digit, model="vae")


def test_the_same_picture_in_another_form_is_the_same_embedding(client: httpx.Client, digit: bytes) -> None:
    image = Image.open(io.BytesIO(digit))
    plain = embed(client, digit)["embedding"]
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(image.transpose(Image.Transpose.ROTATE_90), exif=exif)
    for content in (encoded(image, "BMP"), encoded(image.convert("RGB")), encoded(image.convert("RGBA"), "TIFF"), turned):
        assert embed(client, content)["embedding"] == plain


def test_a_file_needs_no_name(client: httpx.Client, digit: bytes) -> None:
    boundary, large = b"--x\r\n", encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (1200, 1200), np.uint8)))
    assert len(large) > 1_200_000
    for content in (digit, large):
        part = b'Content-Disposition: form-data; name="image"\r\nContent-Type: image/png\r\n\r\n' + content + b"\r\n"
        field = b'Content-Disposition: form-data; name="model"\r\n\r\nvae\r\n'
        body = boundary + part + boundary + field + b"--x--"
        answer = client.post("/v1/embed", content=body, headers={"Content-Type": "multipart/form-data; boundary=x"})
        assert answer.json() == embed(client, content, model="vae")


def test_base64_in_json_is_the_same_request(client: httpx.Client, digit: bytes) -> None:
    answer = client.post("/v1/embed", json={"image": base64.b64encode(digit).decode(), "model": "vae"})
    assert answer.json() == embed(client, digit, model="vae")


@pytest.mark.parametrize("model", MODELS)
def test_reconstruction_is_a_picture_of_the_models_size(client: httpx.Client, digit: bytes, model: str) -> None:
    answer = client.post("/v1/reconstruct", files={"image": digit}, data={"model": model})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert pixels(answer.content).shape == (28, 28)
    assert answer.headers["x-model"].startswith(f"reconstruct/{model}@")


def test_reconstruction_in_json_tells_error_and_embedding(client: httpx.Client, digit: bytes) -> None:
    body = client.post("/v1/reconstruct", files={"image": digit}, headers={"Accept": "application/json"}).json()
    image = pixels(base64.b64decode(body["image"]))
    assert (body["width"], body["height"]) == (28, 28)
    assert body["error"] == pytest.approx(np.mean(((image.astype(float) - pixels(digit)) / 255) ** 2))
    assert body["embedding"] == embed(client, digit, model="vae")["embedding"]
    again = client.post("/v1/generate", json={"latents": [body["embedding"]]}).json()
    assert np.array_equal(pixels(base64.b64decode(again["images"][0])), image)


@pytest.mark.parametrize("size", [(1, 1), (20000, 1), (280, 280), (100, 3)])
def test_pictures_of_any_size_are_taken(client: httpx.Client, size: tuple[int, int]) -> None:
    answer = client.post("/v1/reconstruct", files={"image": encoded(Image.new("RGB", size, "white"))})
    assert (answer.status_code, pixels(answer.content).shape) == (200, (28, 28))


@pytest.mark.parametrize(("accept", "kind"), [("image/jpeg", "JPEG"), ("image/webp", "WEBP"), ("image/*", "PNG"), ("*/*", "PNG")])
def test_accept_picks_the_format(client: httpx.Client, digit: bytes, accept: str, kind: str) -> None:
    answer = client.post("/v1/reconstruct", files={"image": digit}, headers={"Accept": accept})
    assert Image.open(io.BytesIO(answer.content)).format == kind
    assert answer.headers["content-type"] == f"image/{kind.lower()}"


def test_accept_is_weighed(client: httpx.Client) -> None:
    accept = "image/webp;q=0.3, image/jpeg;q=0.8, text/html"
    answer = client.post("/v1/digits", json={"digits": "1"}, headers={"Accept": accept})
    assert answer.headers["content-type"] == "image/jpeg"
    for headers in ([("Accept", "Image/JPEG")], [("Accept", "text/html"), ("Accept", "image/jpeg")]):
        assert client.post("/v1/digits", json={"digits": "1"}, headers=headers).headers["content-type"] == "image/jpeg"
    browser = "text/html,application/xhtml+xml,*/*;q=0.8"
    assert client.post("/v1/digits", json={"digits": "1"}, headers={"Accept": browser}).headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("accept", "kind"), [("", "image/png"), (", image/webp", "image/webp"), (";q=0.5 , application/json", "application/json")]
)
def test_accepting_problems_says_nothing_of_pictures(client: httpx.Client, digit: bytes, accept: str, kind: str) -> None:
    """Some clients that are generated from the OpenAPI document ask for nothing else."""
    answer = client.post("/v1/reconstruct", files={"image": digit}, headers={"Accept": f"application/problem+json{accept}"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, kind)


@pytest.mark.parametrize("path", ["digits", "generate", "reconstruct", "embed"])
def test_what_cannot_be_accepted_is_406(client: httpx.Client, digit: bytes, path: str) -> None:
    body = {"files": {"image": digit}} if path in ("reconstruct", "embed") else {"json": {"digits": "1"} if path == "digits" else {}}
    answer = client.post(f"/v1/{path}", headers={"Accept": "text/html"}, **body)
    assert (answer.status_code, answer.json()["code"]) == (406, "not_acceptable")
