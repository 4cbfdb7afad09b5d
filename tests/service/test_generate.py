"""POST /v1/generate over HTTP, against the shipped models."""

from __future__ import annotations

import base64

import httpx
import numpy as np
import pytest
from support import MODELS, pixels

from service.contract.manifest import read
from service.engine import latents
from service.engine.cpu import usable_cores
from service.engine.session import Placement, Session


def ask(client: httpx.Client, **body: object) -> dict[str, object]:
    answer = client.post("/v1/generate", json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_one_picture_by_default(client: httpx.Client) -> None:
    body = ask(client)
    assert (len(body["images"]), body["model"]) == (1, "vae")


def test_every_model_that_generates_can_be_asked_for(client: httpx.Client) -> None:
    listed = [entry for entry in client.get("/v1/models").json()["models"] if entry["task"] == "generate"]
    assert {"autoencoder", "dcgan", "dcgan-fashion", "gan", "vae-fashion", "vae-map", "vae"} <= {entry["name"] for entry in listed}
    for entry in listed:
        body = ask(client, model=entry["name"], n=3, seed=1)
        assert np.array(body["latents"]).shape == (3, entry["latent_dimension"])


def test_picture_i_does_not_depend_on_n(client: httpx.Client) -> None:
    assert ask(client, n=64, seed=4)["images"][:5] == ask(client, n=5, seed=4)["images"]


def test_latents_go_in_and_out(client: httpx.Client) -> None:
    body = ask(client, n=4, seed=4)
    again = ask(client, latents=body["latents"])
    assert (again["images"], again["latents"]) == (body["images"], body["latents"])


@pytest.mark.parametrize("kind", ["seeds", "latents"])
def test_between_walks_from_one_end_to_the_other(client: httpx.Client, kind: str) -> None:
    ends = [ask(client, seed=seed) for seed in (1, 2)]
    between = [1, 2] if kind == "seeds" else [end["latents"][0] for end in ends]
    body = ask(client, between=between, steps=7)
    assert len(body["images"]) == 7
    assert [body["images"][0], body["images"][-1]] == [end["images"][0] for end in ends]
    points = np.array(body["latents"])
    np.testing.assert_allclose(points[[0, -1]], [end["latents"][0] for end in ends], atol=1e-5)


def test_between_steps_less_where_pictures_change_fast(client: httpx.Client) -> None:
    """Over ten ways the largest change from one picture to the next is below that of evenly spaced latents."""

    def largest(body: dict[str, object]) -> float:
        shown = np.array([pixels(base64.b64decode(image)) for image in body["images"]], float)
        return float(np.linalg.norm(np.diff(shown, axis=0), axis=(1, 2)).max())

    ends = np.array(ask(client, model="dcgan", n=20, seed=3)["latents"])
    ours = [largest(ask(client, model="dcgan", between=[a.tolist(), b.tolist()])) for a, b in zip(ends[::2], ends[1::2], strict=True)]
    even = [
        largest(ask(client, model="dcgan", latents=latents.between(a, b, 8).tolist())) for a, b in zip(ends[::2], ends[1::2], strict=True)
    ]
    assert np.mean(ours) < np.mean(even)


def test_a_prior_maps_the_seeds_noise_to_the_decoders_latents(client: httpx.Client) -> None:
    manifest = read(MODELS / "vae")
    graph = manifest.graphs["prior"]
    prior = Session(MODELS / "vae" / graph.file, graph, Placement("cpu", usable_cores()))
    expected = prior.run({"noise": latents.draw(5, 9, graph.inputs[0].item[0], truncation=0.8)})["latents"]
    body = ask(client, model="vae", n=9, seed=5, truncation=0.8)
    np.testing.assert_allclose(body["latents"], expected, atol=1e-6)
    assert ask(client, model="vae", latents=body["latents"])["images"] == body["images"]


def test_what_reconstruct_embeds_generate_decodes(client: httpx.Client, digit: bytes) -> None:
    answer = client.post("/v1/reconstruct", files={"image": digit}, headers={"Accept": "application/json"}).json()
    drawn = ask(client, model=answer["model"], latents=[answer["embedding"]])["images"][0]
    assert np.array_equal(pixels(base64.b64decode(drawn)), pixels(base64.b64decode(answer["image"])))


def test_as_one_picture_a_square_sheet_and_a_strip(client: httpx.Client) -> None:
    single = [pixels(base64.b64decode(image)) for image in ask(client, n=5, seed=6)["images"]]
    sheet = pixels(client.post("/v1/generate", json={"n": 5, "seed": 6}, headers={"Accept": "image/*"}).content)
    assert sheet.shape == (56, 84)
    assert np.array_equal(sheet[28:, :28], single[3])
    assert not sheet[28:, 56:].any()
    strip = client.post("/v1/generate", json={"between": [1, 2], "steps": 4}, headers={"Accept": "image/png"})
    assert pixels(strip.content).shape == (28, 112)


@pytest.mark.parametrize(
    ("body", "loc"),
    [
        ({"n": 0}, ["body", "n"]),
        ({"n": 65}, ["body", "n"]),
        ({"n": "3"}, ["body", "n"]),
        ({"latents": [[0.0] * 7]}, ["body", "latents", 0]),
        ({"latents": []}, ["body", "latents"]),
        ({"between": [1, 2, 3]}, ["body", "between"]),
        ({"between": [[0.0, 1.0], [1.0, 0.0]]}, ["body", "between", 0]),
        ({"between": [1, 2], "steps": 1}, ["body", "steps"]),
        ({"steps": 5}, ["body"]),
        ({"n": 2, "between": [1, 2]}, ["body"]),
        ({"latents": [[0.0]], "between": [1, 2]}, ["body"]),
        ({"truncation": -0.1}, ["body", "truncation"]),
    ],
)
def test_invalid_requests_name_the_field(client: httpx.Client, body: dict[str, object], loc: list[object]) -> None:
    answer = client.post("/v1/generate", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert answer.json()["errors"][0]["loc"][: len(loc)] == loc


def test_defaults_may_be_sent(client: httpx.Client) -> None:
    """As clients do that were generated from the OpenAPI document."""
    assert ask(client, n=1, steps=8, truncation=1, seed=3) == ask(client, seed=3)
    assert len(ask(client, n=1, steps=8, between=[1, 2])["images"]) == 8


@pytest.mark.parametrize(
    "text", ['{"latents": [[NaN]]}', '{"latents": [[Infinity]]}', '{"truncation": NaN}', '{"n": 1', "[1]", "3", "null", '"text"']
)
def test_what_is_not_a_json_object_of_numbers_is_invalid(client: httpx.Client, text: str) -> None:
    answer = client.post("/v1/generate", content=text, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
