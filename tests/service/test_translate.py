"""Pictures of any size through models of one size: resized, in tiles, swapped; with small graphs whose answers are known."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from built import SIDE, blur, build, either, negative
from PIL import Image
from support import ROOT, Server, encoded, pixels

from service.contract.images import unfit
from service.contract.manifest import Fit
from service.engine.tiling import Grid, Mosaic

Start = Callable[..., Server]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built") / "models"
    build(folder, "blur", blur(), "translate", "translator", "translated", large="tile", margin=4)
    build(folder, "negative", negative(), "translate", "translator", "translated", default_for=("translate",))
    build(folder, "either", either(), "swap", "swapper", "swapped", default_for=("swap",), classes=("ann", "bob"))
    return folder


@pytest.fixture
def built(models: Path, start: Start) -> Server:
    server = start(ATELIER_MODELS=str(models), ATELIER_PROVENANCE="false")
    assert server.until_loaded().status_code == 200
    return server


def translated(server: Server, picture: np.ndarray, **fields: str) -> np.ndarray:
    answer = server.client.post("/v1/translate", files={"image": encoded(Image.fromarray(picture))}, data=fields)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/png"
    return pixels(answer.content)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 90), (32, 32), (33, 31), (56, 80), (200, 57)])
def test_tiles_give_what_the_whole_picture_would(built: Server, height: int, width: int) -> None:
    picture = noise(height, width)
    made = translated(built, picture, model="blur")
    padded = np.pad(picture.astype(float), ((1, 1), (1, 1), (0, 0)))
    sums = sum(padded[y : y + height, x : x + width] for y in range(3) for x in range(3))
    inner = (slice(1, max(1, height - 1)), slice(1, max(1, width - 1)))
    assert made.shape == picture.shape
    assert np.abs(made[inner] - (sums / 9)[inner]).max(initial=0) <= 1


@pytest.mark.parametrize("runs", [1, 2])
def test_on_a_gpu_rows_of_tiles_share_runs(built: Server, models: Path, start: Start, runs: int) -> None:
    settings = {"ATELIER_PROVIDER": "cuda", "ATELIER_GPU_RUNS": str(runs), "ATELIER_MAX_BATCH": "12"}
    there = start("-m", "faked", PYTHONPATH=str(ROOT / "tests"), ATELIER_MODELS=str(models), **settings)
    assert there.until_loaded().status_code == 200
    translated(there, noise(56, 80), model="blur")
    told = [line for line in there.client.get("/metrics").text.splitlines() if 'model="blur"' in line]
    runs_and_rows = [float(line.split()[-1]) for line in told if line.startswith(("atelier_batch_size_count", "atelier_batch_size_sum"))]
    assert sorted(runs_and_rows) == [1, 6]  # two rows of three
    sizes = [(1, 1), (56, 80), (200, 57), (90, 300), (300, 90), (400, 20), (20, 400), (150, 150)]  # 1 to 52 tiles, 1 to 17 in a row
    with ThreadPoolExecutor(8) as pool:
        made = [*pool.map(lambda size: translated(there, noise(*size), model="blur"), sizes)]
    for size, found in zip(sizes, made, strict=True):
        assert np.array_equal(found, translated(built, noise(*size), model="blur"))


def test_a_picture_of_another_size_is_resized_there_and_back(built: Server) -> None:
    assert np.array_equal(translated(built, noise(SIDE, SIDE)), 255 - noise(SIDE, SIDE))
    smooth = np.repeat(np.linspace(0, 255, 160).astype(np.uint8)[None, :, None], 60, axis=0).repeat(3, axis=2)
    made = translated(built, smooth)
    assert made.shape == smooth.shape
    assert np.abs(made.astype(int) - (255 - smooth)).mean() < 4
    assert translated(built, noise(1, 1)).shape == (1, 1, 3)
    assert translated(built, noise(3, 400)).shape == (3, 400, 3)


def test_alpha_lies_on_white(built: Server) -> None:
    clear = Image.new("RGBA", (SIDE, SIDE), (10, 20, 30, 0))
    answer = built.client.post("/v1/translate", files={"image": encoded(clear)})
    assert (pixels(answer.content) == 0).all()


def test_what_a_translation_says_of_itself(built: Server) -> None:
    body = {"image": base64.b64encode(encoded(Image.fromarray(noise(40, 50)))).decode(), "model": "blur"}
    answer = built.client.post("/v1/translate", json=body, headers={"Accept": "application/json"}).json()
    assert {key: answer[key] for key in ("width", "height", "model")} == {"width": 50, "height": 40, "model": "blur"}
    assert np.array_equal(pixels(base64.b64decode(answer["image"])), translated(built, noise(40, 50), model="blur"))
    jpeg = built.client.post("/v1/translate", files={"image": encoded(Image.fromarray(noise(40, 50)))}, headers={"Accept": "image/jpeg"})
    assert Image.open(io.BytesIO(jpeg.content)).size == (50, 40)


def test_pictures_too_long_to_be_tiled_are_refused(models: Path, start: Start) -> None:
    server = start(ATELIER_MODELS=str(models), ATELIER_MAX_OUTPUT_MEGAPIXELS="0.1")
    server.until_loaded()
    answer = server.client.post("/v1/translate", files={"image": encoded(Image.new("RGB", (20_000, 1)))}, data={"model": "blur"})
    assert (answer.status_code, answer.json()["limit"]["name"]) == (413, "tile_pixels")


def test_how_far_a_picture_in_tiles_is(models: Path, start: Start) -> None:
    server = start(ATELIER_MODELS=str(models), ATELIER_MAX_BATCH="1")
    server.until_loaded()
    picture = encoded(Image.fromarray(noise(900, 900)))
    sending = {"files": {"image": picture}, "data": {"model": "blur"}, "headers": {"X-Request-Id": "a/long.one"}}
    caller = threading.Thread(target=server.client.post, args=("/v1/translate",), kwargs=sending)
    caller.start()
    seen = []
    while caller.is_alive():
        answer = server.client.get("/v1/requests/a/long.one")
        if answer.status_code == 200 and answer.json()["state"] == "running":
            seen.append((answer.json()["done"], answer.json()["total"]))
    number = Grid(900, 900, (SIDE, SIDE), 4).number
    assert {total for _, total in seen} == {number}
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert len({done for done, _ in seen}) > 3


def test_a_swap_takes_the_asked_identity_and_is_always_marked(built: Server) -> None:
    picture = encoded(Image.fromarray(noise(SIDE, SIDE)))
    for identity, expected in (("ann", noise(SIDE, SIDE)), ("bob", 255 - noise(SIDE, SIDE))):
        answer = built.client.post("/v1/swap", files={"image": picture}, data={"identity": identity})
        assert np.array_equal(pixels(answer.content), expected)
        assert b"trainedAlgorithmicMedia" in answer.content  # although the operator switched marks off
    unmarked = built.client.post("/v1/translate", files={"image": picture})
    assert b"trainedAlgorithmicMedia" not in unmarked.content
    told = built.client.post("/v1/swap", files={"image": picture}, data={"identity": "bob"}, headers={"Accept": "application/json"})
    assert told.json()["identity"] == "bob"
    assert b"trainedAlgorithmicMedia" in base64.b64decode(told.json()["image"])
    for fields in ({"identity": "carl"}, {}):
        refused = built.client.post("/v1/swap", files={"image": picture}, data=fields)
        assert (refused.status_code, refused.json()["errors"][0]["loc"]) == (422, ["body", "identity"])


@pytest.mark.parametrize(("feather", "scale"), [(0, 1), (3, 1), (4, 4)])
def test_a_mosaic_puts_together_what_a_grid_cut(feather: int, scale: int) -> None:
    for height, width in ((1, 1), (32, 33), (100, 24), (57, 301)):
        picture, grid = noise(height, width), Grid(height, width, (SIDE, SIDE), 4, feather, scale)
        mosaic = Mosaic(grid, 3)
        for row in range(grid.rows.number):
            mosaic.add(enlarged(grid.cut(picture, [row]), scale), row)
        assert np.array_equal(mosaic.pixels, enlarged(picture[None], scale)[0])


def test_tiles_fade_into_one_another() -> None:
    grid = Grid(SIDE, 50, (SIDE, SIDE), 6, 4)
    mosaic = Mosaic(grid, 1)
    mosaic.add(np.stack([np.full((SIDE, SIDE, 1), level, np.uint8) for level in (0, 160)]), 0)
    assert mosaic.pixels[5, :, 0].tolist() == [0] * 22 + [10, 30, 50, 70, 90, 110, 130, 150] + [160] * 20


def enlarged(pictures: np.ndarray, scale: int) -> np.ndarray:
    return pictures.repeat(scale, axis=1).repeat(scale, axis=2)


def test_a_fitted_picture_is_brought_back() -> None:
    fit = Fit(height=SIDE, width=SIDE, channels=3, fill=255)
    square = np.full((SIDE, SIDE, 3), 255, np.uint8)
    square[8:24] = 40  # where a picture twice as wide as high comes to lie
    assert (unfit(square, 128, 64, fit) == 40).all()
    assert unfit(square, SIDE, SIDE, fit) is square
