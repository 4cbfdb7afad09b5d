"""POST /v1/inpaint over HTTP, with a small graph that paints every hole at one level; and where it looks."""

from __future__ import annotations

import base64
import io
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from built import SIDE, build, negative, painted
from PIL import Image, ImageDraw
from support import Server, encoded, pixels

from service.engine.windows import Holes, _weights

PAINT = 200


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("inpaint") / "models"
    build(folder, "paint", painted(), "inpaint", "inpainter", "inpainted", default_for=("inpaint",))
    build(folder, "negative", negative(), "inpaint", "inpainter", "inpainted")
    server = Server(ATELIER_MODELS=str(folder))
    assert server.until_loaded().status_code == 200
    yield server
    server.stop()


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 180, (height, width, 3), np.uint8)


def dots(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(1).random((height, width)) < 0.01


def block(height: int, width: int) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    mask[height // 4 : -(height // 4), width // 4 : -(width // 4)] = True
    return mask


def band(height: int, width: int) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    mask[height // 3 :] = True
    return mask


def scratch(height: int, width: int) -> np.ndarray:
    picture = Image.new("1", (width, height))
    ImageDraw.Draw(picture).line([(0, 0), (width, height // 2), (0, height)], fill=1, width=2)
    return np.array(picture, bool)


def all_but_one(height: int, width: int) -> np.ndarray:
    mask = np.ones((height, width), bool)
    mask[-1, -1] = False
    return mask


MASKS = (dots, block, band, scratch, all_but_one)


def inpainted(server: Server, picture: np.ndarray, mask: np.ndarray, model: str = "paint") -> np.ndarray:
    files = {"image": encoded(Image.fromarray(picture)), "mask": encoded(Image.fromarray(mask.astype(np.uint8) * 255))}
    answer = server.client.post("/v1/inpaint", files=files, data={"model": model})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png"), answer.text
    return pixels(answer.content)


@pytest.mark.parametrize("draw", MASKS)
@pytest.mark.parametrize("size", [(20, 24), (SIDE, SIDE), (90, 300), (211, 130)])
def test_holes_are_painted_and_nothing_else(server: Server, draw: Callable[[int, int], np.ndarray], size: tuple[int, int]) -> None:
    picture, mask = noise(*size), draw(*size)
    made = inpainted(server, picture, mask)
    assert np.array_equal(made[~mask], picture[~mask])
    assert (made[mask] == PAINT).all()


def holes_of(size: int, height: int, width: int) -> np.ndarray:
    """Squares of such a size, some of them across the borders of all grids, and at the edges."""
    mask = np.zeros((height, width), bool)
    for row, column in ((0, 0), (SIDE - size // 2, SIDE + 3), (70, SIDE // 2 * 5 - 2), (height - size, width - size)):
        mask[row : row + size, column : column + size] = True
    return mask


@pytest.mark.parametrize(
    "mask",
    [
        holes_of(3, 100, 150),
        holes_of(SIDE // 4, 100, 150),
        holes_of(SIDE // 4 + 3, 100, 150),
        holes_of(SIDE // 2, 100, 150),
        scratch(100, 150),
    ],
    ids=["dots", "small", "middling-", "middling", "long"],
)
def test_what_is_painted_is_what_was_looked_at(server: Server, mask: np.ndarray) -> None:
    """The model answers with the negative of all that it is shown."""
    picture = noise(*mask.shape)
    assert np.array_equal(inpainted(server, picture, mask, "negative"), np.where(mask[..., None], 255 - picture, picture))


@pytest.mark.parametrize("draw", [block, band])
def test_what_is_painted_in_large_holes_is_what_was_looked_at(server: Server, draw: Callable[[int, int], np.ndarray]) -> None:
    """Scaled down and up again, so that only waves that are long enough come through; no two directions are alike."""
    mask = draw(100, 150)
    rows, columns = np.indices(mask.shape)
    picture = np.stack([110 + 90 * np.sin(2 * np.pi * (rows / wave + columns / 200)) for wave in (60, 80, 97)], axis=-1).astype(np.uint8)
    made = inpainted(server, picture, mask, "negative").astype(int)
    apart = np.abs(made - np.where(mask[..., None], 255 - picture, picture))
    assert (apart[mask].mean() <= 2, apart.max() <= 12) == (True, True)


def test_what_holes_take_is_counted(start: Callable[..., Server], tmp_path: Path) -> None:
    """A picture twice, its mask, and the holes' numbers."""
    build(tmp_path, "paint", painted(), "inpaint", "inpainter", "inpainted", default_for=("inpaint",))
    server = start(ATELIER_MODELS=str(tmp_path), ATELIER_MAX_WORK_MB="4")
    server.until_loaded()
    picture = np.zeros((500, 500, 3), np.uint8)
    files = {"image": encoded(Image.fromarray(picture)), "mask": encoded(Image.fromarray(np.eye(500, dtype=np.uint8) * 255))}

    def status() -> int:
        return server.client.post("/v1/inpaint", files=files).status_code

    assert status() == 200
    host, port = server.url.removeprefix("http://").split(":")
    with closing(socket.create_connection((host, int(port)))) as other:
        other.sendall(
            f"POST /v1/inpaint HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: 2000000\r\n\r\n".encode()
        )
        other.sendall(b" " * 1_600_000)  # with which there is room for the picture, but not for it and its holes
        deadline = time.monotonic() + 20
        while (found := status()) == 200 and time.monotonic() < deadline:  # until what was sent is read
            pass
    assert found == 503


def test_a_picture_of_two_pixels(server: Server) -> None:
    made = inpainted(server, noise(1, 2), np.array([[True, False]]))
    assert made.tolist() == [[[PAINT] * 3, noise(1, 2)[0, 1].tolist()]]


def test_masks_that_cannot_be_used_are_refused(server: Server) -> None:
    picture = encoded(Image.fromarray(noise(40, 60)))
    for mask, said in (
        (Image.new("L", (40, 60), 255), "is 40 x 60; the picture is 60 x 40"),
        (Image.new("L", (60, 40), 127), "nothing to paint"),
        (Image.new("L", (60, 40), 128), "nothing is left"),
    ):
        answer = server.client.post("/v1/inpaint", files={"image": picture, "mask": encoded(mask)})
        assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (422, ["body", "mask"])
        assert said in answer.json()["errors"][0]["msg"]
    missing = server.client.post("/v1/inpaint", files={"image": picture})
    assert (missing.status_code, missing.json()["errors"][0]["loc"]) == (422, ["body", "mask"])
    unreadable = server.client.post("/v1/inpaint", files={"image": picture, "mask": b"no picture"})
    assert (unreadable.status_code, unreadable.json()["detail"][:5]) == (415, "mask:")


def test_what_is_transparent_in_a_mask_is_kept(server: Server) -> None:
    picture, mask = noise(40, 60), block(40, 60)
    drawn = Image.new("RGBA", (60, 40), (255, 255, 255, 0))
    drawn.paste((255, 255, 255, 255), mask=Image.fromarray(mask.astype(np.uint8) * 255))
    answer = server.client.post("/v1/inpaint", files={"image": encoded(Image.fromarray(picture)), "mask": encoded(drawn)})
    made = pixels(answer.content)
    assert np.array_equal(made[~mask], picture[~mask])
    assert (made[mask] == PAINT).all()


def test_picture_and_mask_are_turned_upright(server: Server) -> None:
    picture, mask = noise(30, 50), block(30, 50)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(Image.fromarray(picture).transpose(Image.Transpose.ROTATE_90), exif=exif)
    answer = server.client.post("/v1/inpaint", files={"image": turned, "mask": encoded(Image.fromarray(mask.astype(np.uint8) * 255))})
    assert np.array_equal(pixels(answer.content)[~mask], picture[~mask])


def test_long_and_narrow_pictures(server: Server) -> None:
    picture, mask = noise(40, 3000), np.ones((40, 3000), bool)
    mask[:, -1] = False
    assert (inpainted(server, picture, mask)[mask] == PAINT).all()
    dashes = Image.fromarray((np.arange(300_000)[None] % 40 < 2) * np.uint8(255))
    files = {"image": encoded(Image.new("RGB", dashes.size)), "mask": encoded(dashes)}
    answer = server.client.post("/v1/inpaint", files=files)
    assert (answer.status_code, answer.json()["limit"]["name"]) == (413, "hole_pixels")


def test_what_an_inpainted_picture_says_of_itself(server: Server) -> None:
    picture, mask = noise(30, 50), block(30, 50)
    fields = {"image": Image.fromarray(picture), "mask": Image.fromarray(mask.astype(np.uint8) * 255)}
    body = {name: base64.b64encode(encoded(image)).decode() for name, image in fields.items()}
    answer = server.client.post("/v1/inpaint", json=body, headers={"Accept": "application/json"}).json()
    assert {key: answer[key] for key in ("width", "height", "model")} == {"width": 50, "height": 30, "model": "paint"}
    png = base64.b64decode(answer["image"])
    assert b"compositeWithTrainedAlgorithmicMedia" in png
    webp = server.client.post("/v1/inpaint", json=body, headers={"Accept": "image/webp"})
    assert np.array_equal(np.array(Image.open(io.BytesIO(webp.content))), pixels(png))


def test_each_hole_is_seen_whole_with_its_surroundings() -> None:
    mask = np.zeros((600, 800), bool)
    holes = [(slice(0, 9), slice(0, 9)), (slice(100, 130), slice(100, 132)), (slice(300, 500), slice(500, 700))]
    for place in holes:
        mask[place] = True
    found = Holes(mask, 64)
    assert len(found.windows) == len(holes)
    for window in found.windows:
        square, seen = found.cut(mask[..., None].astype(np.uint8) * 255, window)
        assert square.shape == seen.shape == (64, 64, 1)
        assert 0 < (seen == 255).mean() <= 0.36
        assert (square[seen == 0] < 128).all()


def test_a_thin_hole_at_the_edge_is_thin() -> None:
    mask = np.zeros((1000, 1000), bool)
    mask[-20:] = True
    assert {window.size for window in Holes(mask, 64).windows} == {64}


def stroke(height: int, width: int, thickness: int) -> np.ndarray:
    picture = Image.new("1", (width, height))
    points = [(0, height // 2), (width // 3, thickness), (width // 2, height - thickness), (width, height // 3)]
    ImageDraw.Draw(picture).line(points, fill=1, width=thickness, joint="curve")
    return np.array(picture, bool)


@pytest.mark.parametrize(("thickness", "size"), [(3, 64), (28, 64), (50, 128), (120, 256)])
def test_squares_along_a_stroke_are_as_large_as_it_is_thick(thickness: int, size: int) -> None:
    assert {window.size for window in Holes(stroke(900, 1300, thickness), 64).windows} == {size}


@pytest.mark.parametrize(("thickness", "width"), [(3, 700), (28, 700), (50, 700), (28, 704), (28, 690)])
def test_squares_along_a_stroke_fade_into_one_another(thickness: int, width: int) -> None:
    """However different what they are filled with is, it changes little from a pixel to the next."""
    mask = stroke(500, width, thickness)
    holes, filled = Holes(mask, 64), np.zeros((*mask.shape, 1), np.uint8)
    levels = np.where(np.arange(len(holes.windows)) % 2, np.uint8(250), np.uint8(50))
    holes.fill_all(filled, holes.windows, np.ones((1, 64, 64, 1), np.uint8) * levels[:, None, None, None])
    made = filled[..., 0].astype(int)
    assert (made[mask].min(), made[mask].max(), made[~mask].max()) == (50, 250, 0)
    steps = [np.abs(np.diff(made, axis=axis))[np.logical_and(*(np.delete(mask, at, axis) for at in (0, -1)))].max() for axis in (0, 1)]
    assert max(steps) <= 200 / 16 + 3  # rounded three times


@pytest.mark.parametrize("length", [33, 40, 48, 56, 64, 72, 80, 96, 97, 128])
def test_weights_of_neighbours_add_up_to_one(length: int) -> None:
    """Wherever the picture ends: two in a row and the last one's end."""
    step, reach = 32, 8
    total = np.zeros(length)
    for cell in range(-(-length // step)):
        used = slice(max(0, cell * step - reach), (cell + 1) * step + reach)
        own, _ = _weights(used, len(total[used]), 2 * reach)
        total[used] += own
    assert np.allclose(total, 1)


def test_nested_holes_are_painted(server: Server) -> None:
    mask = np.zeros((900, 900), bool)
    for start in range(0, 840, 40):  # thin, but for a blob each, and nearly as large as the picture
        mask[start, start:] = mask[start:, start] = True
        mask[start : start + 6, start : start + 6] = True
    picture = noise(900, 900)
    assert np.array_equal(inpainted(server, picture, mask), np.where(mask[..., None], np.uint8(PAINT), picture))


def test_lots_are_as_large_as_asked() -> None:
    holes = Holes(np.random.default_rng(0).random((500, 500)) < 0.01, 32)
    lots = list(holes.lots(16 * 32**2))
    assert [window for lot in lots for window in lot] == holes.windows
    assert {len(lot) for lot in lots[:-1]} == {16}


def test_squares_do_not_grow_out_of_proportion() -> None:
    side, random = 64, np.random.default_rng(0)
    scattered = np.zeros((1024, 1024), bool)
    scattered[::20, ::20] = True
    lines = scattered.copy()
    lines[::20] = True
    for mask in (scattered, lines, random.random((1024, 1024)) < 0.5):
        assert len(Holes(mask, side).windows) <= (1024 * 2 // side) ** 2
    for shape in ((90, 20_000), (20_000, 90), (3000, 3000)):
        mask = np.ones(shape, bool)
        mask[0, 0] = False
        assert sum(window.size**2 for window in Holes(mask, side).windows) <= 6 * mask.size
