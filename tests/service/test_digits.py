"""POST /v1/digits over HTTP, against the shipped model."""

from __future__ import annotations

import base64

import httpx
import numpy as np
import pytest
from support import Server, pixels


def ask(client: httpx.Client, **body: object) -> dict[str, object]:
    answer = client.post("/v1/digits", json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_each_asked_digit_is_a_picture(client: httpx.Client) -> None:
    answer = client.post("/v1/digits", json={"digits": "2026", "seed": 5})
    body = answer.json()
    assert (body["labels"], body["seed"], body["model"]) == ([2, 0, 2, 6], 5, "cdcgan")
    assert [pixels(base64.b64decode(image)).shape for image in body["images"]] == [(28, 28)] * 4
    assert np.array(body["latents"]).shape == (4, 128)
    assert answer.headers["x-seed"] == "5"


def test_as_one_picture_they_stand_side_by_side_in_order(client: httpx.Client) -> None:
    body = ask(client, digits="407", seed=1)
    singles = [pixels(base64.b64decode(image)) for image in body["images"]]
    strip = client.post("/v1/digits", json={"digits": "407", "seed": 1}, headers={"Accept": "image/png"})
    assert strip.headers["content-type"] == "image/png"
    assert np.array_equal(pixels(strip.content), np.concatenate(singles, axis=1))


def test_digits_and_labels_are_the_same_request(client: httpx.Client) -> None:
    assert ask(client, digits="31", seed=9) == ask(client, labels=[3, 1], seed=9)


def test_a_seed_is_drawn_and_reported(client: httpx.Client) -> None:
    first, second = ask(client, digits="8"), ask(client, digits="8")
    assert first["seed"] != second["seed"]
    assert ask(client, digits="8", seed=first["seed"]) == first


def test_a_picture_does_not_depend_on_how_many_follow(client: httpx.Client) -> None:
    few, many = ask(client, digits="12", seed=3), ask(client, digits="12" * 32, seed=3)
    assert many["images"][:2] == few["images"]


def test_truncation_scales_the_noise(client: httpx.Client) -> None:
    full, half, none = (ask(client, digits="5", seed=2, truncation=share) for share in (1, 0.5, 0))
    np.testing.assert_allclose(np.array(half["latents"]) * 2, full["latents"], rtol=1e-6)
    assert not np.any(none["latents"])
    assert none["images"] == ask(client, digits="5", seed=77, truncation=0)["images"]


def test_one_latent_for_all_labels_is_repeated(client: httpx.Client) -> None:
    latent = ask(client, digits="0", seed=11)["latents"]
    body = ask(client, digits="0123456789", latents=latent)
    assert np.array_equal(np.array(body["latents"]), np.repeat(latent, 10, axis=0))
    assert "seed" not in body
    assert len(set(body["images"])) == 10


def test_no_randomness_no_seed_header(client: httpx.Client) -> None:
    latent = ask(client, digits="0", seed=11)["latents"]
    answer = client.post("/v1/digits", json={"digits": "3", "latents": latent})
    assert "x-seed" not in answer.headers


def test_what_came_out_as_latents_goes_in_again(client: httpx.Client) -> None:
    body = ask(client, digits="64", seed=8)
    assert ask(client, digits="64", latents=body["latents"])["images"] == body["images"]


@pytest.mark.parametrize(
    ("body", "loc"),
    [
        ({"digits": "1" * 65}, ["body", "digits"]),
        ({"digits": ""}, ["body", "digits"]),
        ({"digits": "12a"}, ["body", "digits"]),
        ({"digits": 12}, ["body", "digits"]),
        ({"labels": [11]}, ["body", "labels", 0]),
        ({"labels": [3, -1]}, ["body", "labels", 1]),
        ({"labels": []}, ["body", "labels"]),
        ({"labels": [1] * 65}, ["body", "labels"]),
        ({}, ["body"]),
        ({"digits": "1", "labels": [1]}, ["body"]),
        ({"digits": "1", "seed": -1}, ["body", "seed"]),
        ({"digits": "1", "seed": 2**32}, ["body", "seed"]),
        ({"digits": "1", "truncation": 1.6}, ["body", "truncation"]),
        ({"digits": "1", "latents": [[0.0] * 127]}, ["body", "latents", 0]),
        ({"digits": "123", "latents": [[0.0] * 128] * 2}, ["body", "latents"]),
        ({"digits": "1", "latents": [[1e300] * 128]}, ["body", "latents", 0, 0]),
        ({"digits": "1", "colour": "red"}, ["body", "colour"]),
    ],
)
def test_invalid_requests_name_the_field(client: httpx.Client, body: dict[str, object], loc: list[object]) -> None:
    answer = client.post("/v1/digits", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert answer.json()["errors"][0]["loc"] == loc
    assert answer.json()["errors"][0]["msg"] in answer.json()["detail"]


def test_the_same_bytes_from_another_server(server: Server, start: type[Server]) -> None:
    request = {"digits": "20261123", "seed": 42}
    other = start(ATELIER_LOAD="cdcgan")
    other.until_loaded()
    assert other.client.post("/v1/digits", json=request).content == server.client.post("/v1/digits", json=request).content
