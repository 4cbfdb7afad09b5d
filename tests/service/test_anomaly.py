"""POST /v1/anomaly over HTTP, with a small graph whose answers are known: an error is a pixel's brightness."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from built import DETECTED, NORMAL, SIDE, brightness, build
from PIL import Image
from support import Server, encoded, pixels

from service.contract import manifest as manifests
from service.contract.manifest import Fit

OBLONG = Fit(height=SIDE, width=SIDE, channels=3, mode="contain")
WHOLE = Fit(height=SIDE, width=SIDE, channels=3, mode="stretch")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("anomaly") / "models"
    build(folder, "bright", brightness(), "anomaly", "detector", DETECTED, normal=NORMAL, fit=WHOLE, default_for=("anomaly",))
    build(folder, "boxed", brightness(), "anomaly", "detector", DETECTED, normal=NORMAL, fit=OBLONG)
    server = Server(ATELIER_MODELS=str(folder))
    assert server.until_loaded().status_code == 200
    yield server
    server.stop()


def spots(height: int = SIDE, width: int = SIDE, scale: int = 1) -> Image.Image:
    """Grey 50 with one spot of 200, 3 wide and 2 high, and one pixel of 90 that touches nothing."""
    levels = np.full((height, width, 3), 50, np.uint8)
    levels[4:6, 10:13] = 200
    levels[20, 20] = 90
    return Image.fromarray(levels.repeat(scale, axis=0).repeat(scale, axis=1))


def ask(server: Server, picture: Image.Image, **fields: Any) -> dict[str, Any]:
    answer = server.client.post("/v1/anomaly", files={"image": encoded(picture)}, data=fields)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def drawn(encoded: str) -> np.ndarray:
    return pixels(base64.b64decode(encoded))


def test_what_is_beyond_the_thresholds_is_told(server: Server) -> None:
    answer = ask(server, spots())
    assert {name: answer[name] for name in ("score", "threshold", "is_anomalous", "percentile", "pixel_threshold", "model")} == {
        "score": 200.0,
        "threshold": 100.0,
        "is_anomalous": True,
        "percentile": 100.0,
        "pixel_threshold": 64.0,
        "model": "bright",
    }
    assert answer["regions"] == [
        {"x": 10, "y": 4, "width": 3, "height": 2, "score": 200.0},
        {"x": 20, "y": 20, "width": 1, "height": 1, "score": 90.0},
    ]
    heat, mask = drawn(answer["heatmap"]), drawn(answer["mask"])
    assert (heat[0, 0], heat[4, 10], heat[20, 20]) == (100, 255, 180)  # 128 x error / 64
    assert np.array_equal(mask > 0, np.asarray(spots())[..., 0] > 64)
    assert set(np.unique(mask)) == {0, 255}
    assert not drawn(answer["reconstruction"]).any()


def test_a_normal_picture_is_told_as_such(server: Server) -> None:
    answer = ask(server, Image.new("RGB", (SIDE, SIDE), (42, 42, 42)))
    assert (answer["score"], answer["percentile"], answer["is_anomalous"], answer["regions"]) == (42.0, 42.0, False, [])
    assert (drawn(answer["heatmap"]) == 84).all()
    assert not drawn(answer["mask"]).any()


def test_a_threshold_may_be_given(server: Server) -> None:
    for threshold, anomalous in ((199.5, True), (200, False), (-1, True)):
        answer = ask(server, spots(), threshold=threshold)
        assert (answer["threshold"], answer["is_anomalous"], answer["pixel_threshold"]) == (threshold, anomalous, 64.0)
    for wrong in ("nan", "inf", "high", ""):
        refused = server.client.post("/v1/anomaly", files={"image": encoded(spots())}, data={"threshold": wrong})
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request"), wrong


@pytest.mark.parametrize("size", [(1, 1), (200, 3), (37, 53), (300, 500)])
def test_maps_are_of_the_pictures_own_size(server: Server, size: tuple[int, int]) -> None:
    for model in ("bright", "boxed"):
        answer = ask(server, Image.new("RGB", (size[1], size[0]), "white"), model=model)
        assert drawn(answer["heatmap"]).shape == drawn(answer["mask"]).shape == size
        assert drawn(answer["reconstruction"]).shape == (*size, 3)
        assert answer["regions"] == [{"x": 0, "y": 0, "width": size[1], "height": size[0], "score": 255.0}], model


def test_regions_are_where_they_are_in_the_picture(server: Server) -> None:
    stretched = ask(server, spots(scale=4))["regions"][0]
    assert (abs(stretched["x"] - 40), abs(stretched["y"] - 16)) <= (4, 4)
    wide = Image.new("RGB", (128, 64), "black")
    wide.paste((255, 255, 255), (96, 16, 112, 32))
    boxed = ask(server, wide, model="boxed")["regions"]
    assert len(boxed) == 1
    assert all(abs(boxed[0][name] - wanted) <= 4 for name, wanted in (("x", 96), ("y", 16), ("width", 16), ("height", 16)))


def test_a_hundred_regions_are_told_at_most(server: Server) -> None:
    levels = np.zeros((SIDE, SIDE, 3), np.uint8)
    levels[::2, ::2] = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=-1)
    regions = ask(server, Image.fromarray(levels))["regions"]
    assert [region["score"] for region in regions] == list(range(255, 155, -1))


def test_as_one_picture_it_is_the_heatmap(server: Server) -> None:
    answer = server.client.post("/v1/anomaly", files={"image": encoded(spots())}, headers={"Accept": "image/*"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert np.array_equal(pixels(answer.content), drawn(ask(server, spots())["heatmap"]))


def test_json_with_base64_is_taken_too(server: Server) -> None:
    body = {"image": base64.b64encode(encoded(spots())).decode(), "threshold": 250}
    assert server.client.post("/v1/anomaly", json=body).json()["is_anomalous"] is False


def test_no_picture_is_refused(server: Server) -> None:
    answer = server.client.post("/v1/anomaly", files={"image": b"no picture"})
    assert (answer.status_code, answer.json()["code"]) == (415, "unreadable_image")


def test_thresholds_are_part_of_the_digest(tmp_path: Path) -> None:
    for name, normal in (("one", NORMAL), ("other", NORMAL.model_copy(update={"threshold": 101.0}))):
        build(tmp_path, name, brightness(), "anomaly", "detector", DETECTED, normal=normal, fit=WHOLE)
    assert manifests.read(tmp_path / "one").digest != manifests.read(tmp_path / "other").digest


def test_a_detector_has_to_say_what_is_normal(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not say which are normal"):
        build(tmp_path, "silent", brightness(), "anomaly", "detector", DETECTED, fit=WHOLE)
    with pytest.raises(ValueError, match="shows whole"):
        build(tmp_path, "cut", brightness(), "anomaly", "detector", DETECTED, normal=NORMAL, fit=WHOLE.model_copy(update={"mode": "cover"}))
    with pytest.raises(ValueError, match="do not ascend"):
        NORMAL.model_validate({**NORMAL.model_dump(), "quantiles": NORMAL.quantiles[::-1]})
