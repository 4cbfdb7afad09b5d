"""Pictures of any size through models of one size: resized, in tiles, swapped; with small graphs whose answers are known."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image
from support import Server, encoded, pixels

from service.contract import manifest as manifests
from service.contract.images import unfit
from service.contract.manifest import Fit, Graph, Manifest, Port, Training, TrainingData
from service.engine.tiling import Grid

Start = Callable[..., Server]
SIDE = 32


def blur() -> list[onnx.NodeProto]:
    """The mean of 3 x 3 pixels of each channel; past the edge there is nothing."""
    kernel = helper.make_tensor("kernel", TensorProto.FLOAT, (3, 1, 3, 3), [1 / 9] * 27)
    return [
        helper.make_node("Constant", [], ["k"], value=kernel),
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["first"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["first", "k"], ["mean"], pads=[1, 1, 1, 1], group=3),
        helper.make_node("Transpose", ["mean"], ["last"], perm=[0, 2, 3, 1]),
        helper.make_node("Cast", ["last"], ["out"], to=TensorProto.UINT8),
    ]


def negative() -> list[onnx.NodeProto]:
    white = helper.make_tensor("white", TensorProto.UINT8, (), [255])
    return [helper.make_node("Constant", [], ["w"], value=white), helper.make_node("Sub", ["w", "images"], ["out"])]


def either() -> list[onnx.NodeProto]:
    """Label 0: as it is; label 1: the negative."""
    shape = helper.make_tensor("shape", TensorProto.INT64, (4,), [-1, 1, 1, 1])
    return [
        helper.make_node("Constant", [], ["s"], value=shape),
        helper.make_node("Cast", ["labels"], ["truth"], to=TensorProto.BOOL),
        helper.make_node("Reshape", ["truth", "s"], ["which"]),
        helper.make_node("Constant", [], ["w"], value=helper.make_tensor("white", TensorProto.UINT8, (), [255])),
        helper.make_node("Sub", ["w", "images"], ["other"]),
        helper.make_node("Where", ["which", "other", "images"], ["out"]),
    ]


def build(models: Path, name: str, nodes: list[onnx.NodeProto], task: str, role: str, output: str, **fields: object) -> None:
    """A model folder with one graph from images (and labels) of 32 x 32."""
    folder, item = models / name, (SIDE, SIDE, 3)
    folder.mkdir(parents=True)
    ports = {"images": ("uint8", item)} | ({"labels": ("int32", ())} if task == "swap" else {})
    types = {"uint8": TensorProto.UINT8, "int32": TensorProto.INT32}
    graph = helper.make_graph(
        [*nodes, helper.make_node("Identity", ["out"], [output])],
        name,
        [helper.make_tensor_value_info(port, types[dtype], ("batch", *shape)) for port, (dtype, shape) in ports.items()],
        [helper.make_tensor_value_info(output, TensorProto.UINT8, ("batch", *item))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, folder / "graph.onnx")
    declared = Graph(
        file="graph.onnx",
        sha256=manifests.sha256(folder / "graph.onnx"),
        inputs=tuple(Port(name=port, dtype=dtype, shape=("batch", *shape)) for port, (dtype, shape) in ports.items()),
        outputs=(Port(name=output, dtype="uint8", shape=("batch", *item)),),
        parameters=0,
    )
    data = TrainingData(source="drawn", title="none", license="CC0-1.0", origin="made by hand")
    training = Training(
        command="none", recipe="none", variant="improved", config={}, seed=0, steps=0, seconds=0.0, cpu_seconds=0.0, device="", backend="",
        data=data,
    )  # fmt: skip
    manifests.write(
        Manifest(
            name=name,
            version="1",
            title=name,
            description="",
            limits="",
            misuse="",
            license="CC0-1.0",
            tasks={task: {role: "graph"}},
            graphs={"graph": declared},
            opset=18,
            training=training,
            **{"fit": Fit(height=SIDE, width=SIDE, channels=3, fill=255), **fields},
        ),
        folder,
    )


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
    answer = server.client.post("/v1/translate", files={"image": encoded(Image.new("RGB", (5000, 1)))}, data={"model": "blur"})
    assert (answer.status_code, answer.json()["limit"]["name"]) == (413, "output_pixels")


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


def test_a_grid_puts_together_what_it_cut() -> None:
    for height, width in ((1, 1), (32, 33), (100, 24), (57, 301)):
        picture, grid = noise(height, width), Grid(height, width, (SIDE, SIDE), 4)
        rows = [grid.strip(grid.cut(picture, row), row) for row in range(grid.rows.number)]
        assert np.array_equal(np.concatenate(rows), picture)


def test_a_fitted_picture_is_brought_back() -> None:
    fit = Fit(height=SIDE, width=SIDE, channels=3, fill=255)
    square = np.full((SIDE, SIDE, 3), 255, np.uint8)
    square[8:24] = 40  # where a picture twice as wide as high comes to lie
    assert (unfit(square, 128, 64, fit) == 40).all()
    assert unfit(square, SIDE, SIDE, fit) is square
