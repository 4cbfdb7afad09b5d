"""POST /v1/upscale over HTTP, with a small graph whose answers are known."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from built import SIDE, build, larger
from PIL import Image
from support import Server, encoded, pixels

from service.contract import manifest as manifests


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("upscale") / "models"
    build(folder, "plain", larger(), "upscale", "upscaler", "upscaled", default_for=("upscale",), large="tile", margin=4, feather=2)
    build(folder, "squeezed", larger(), "upscale", "upscaler", "upscaled")
    server = Server(ATELIER_MODELS=str(folder))
    assert server.until_loaded().status_code == 200
    yield server
    server.stop()


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("size", [(1, 1), (3, 1000), (37, 53), (8, 8), (SIDE, SIDE), (200, 90)])
def test_a_picture_of_any_size_is_four_times_as_large(server: Server, size: tuple[int, int]) -> None:
    answer = server.client.post("/v1/upscale", files={"image": encoded(Image.fromarray(noise(*size)))})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert answer.headers["x-model"].startswith("upscale/plain@")
    assert np.array_equal(pixels(answer.content), noise(*size).repeat(4, axis=0).repeat(4, axis=1))
    squeezed = server.client.post("/v1/upscale", files={"image": encoded(Image.fromarray(noise(*size)))}, data={"model": "squeezed"})
    assert pixels(squeezed.content).shape == (4 * size[0], 4 * size[1], 3)


def test_a_squeezed_picture_is_brought_back_in_proportion(server: Server) -> None:
    halves = np.repeat(np.array([0, 255], np.uint8), 64)[None, :, None].repeat(64, axis=0).repeat(3, axis=2)
    answer = server.client.post("/v1/upscale", files={"image": encoded(Image.fromarray(halves))}, data={"model": "squeezed"})
    made = pixels(answer.content)
    assert (made[:, :200] < 20).all()
    assert (made[:, -200:] > 235).all()


def test_what_an_upscaled_picture_says_of_itself(server: Server) -> None:
    body = {"image": base64.b64encode(encoded(Image.fromarray(noise(20, 30)))).decode()}
    answer = server.client.post("/v1/upscale", json=body, headers={"Accept": "application/json"}).json()
    assert {key: answer[key] for key in ("width", "height", "model")} == {"width": 120, "height": 80, "model": "plain"}
    assert pixels(base64.b64decode(answer["image"])).shape == (80, 120, 3)
    webp = server.client.post("/v1/upscale", json=body, headers={"Accept": "image/webp"})
    assert Image.open(io.BytesIO(webp.content)).size == (120, 80)
    assert b"trainedAlgorithmicMedia" in webp.content


def test_an_answer_too_large_is_refused_before_the_picture_is_read(server: Server) -> None:
    whole = encoded(Image.new("RGB", (5000, 5000)))
    for content in (whole, whole[: len(whole) // 2]):
        answer = server.client.post("/v1/upscale", files={"image": content})
        assert (answer.status_code, answer.json()["code"]) == (413, "image_too_large")
        assert answer.json()["limit"] == {"name": "output_pixels", "value": 64_000_000}
        assert "20000 x 20000" in answer.json()["detail"]


def test_no_picture_is_refused(server: Server) -> None:
    answer = server.client.post("/v1/upscale", files={"image": b"no picture"})
    assert (answer.status_code, answer.json()["code"]) == (415, "unreadable_image")


def test_a_manifest_has_to_give_what_its_task_promises(tmp_path: Path) -> None:
    build(tmp_path, "plain", larger(), "upscale", "upscaler", "upscaled")
    path = tmp_path / "plain" / "manifest.json"
    path.write_text(path.read_text().replace('"upscaled"', '"translated"'))
    with pytest.raises(manifests.ManifestError, match=r"translated of .*, which is not 1 times"):
        manifests.read(path.parent)
