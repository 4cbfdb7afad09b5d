"""Data sources, on small fixtures in the layout of the real ones."""

from __future__ import annotations

import gzip
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from training import data
from training.data import fashion, fetch, pixels
from training.problems import TrainingError


def idx(path: Path, values: np.ndarray) -> None:
    header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">i4").tobytes()
    path.write_bytes(gzip.compress(header + values.astype(np.uint8).tobytes()))


@pytest.fixture
def clothes(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for name, number in (("train", 60), ("t10k", 20)):
        idx(tmp_path / f"{name}-images-idx3-ubyte.gz", random.integers(0, 256, (number, 28, 28)))
        idx(tmp_path / f"{name}-labels-idx1-ubyte.gz", np.arange(number) % 10)
    return tmp_path


def test_fashion_is_read_from_its_four_files(clothes: Path) -> None:
    found = data.load(f"fashion:{clothes}")
    assert [len(split) for split in (found.train, found.validation, found.test)] == [54, 6, 20]
    assert found.train.images.shape == (54, 28, 28, 1)
    assert found.test.labels.tolist() == [number % 10 for number in range(20)]
    assert (found.source, found.license, found.classes[9]) == ("fashion", "MIT", "ankle boot")


def test_damaged_files_of_fashion_are_named(clothes: Path) -> None:
    path = clothes / "train-labels-idx1-ubyte.gz"
    idx(path, np.arange(59))
    with pytest.raises(TrainingError, match="other numbers of pictures"):
        data.load(f"fashion:{clothes}")
    for content in (b"no gzip", gzip.compress(b""), gzip.compress(b"\0\0\x08\x03" + bytes(12)), path.read_bytes()[:30]):
        path.write_bytes(content)
        with pytest.raises(TrainingError, match=r"train-labels-idx1-ubyte\.gz"):
            data.load(f"fashion:{clothes}")


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "public").mkdir()
    (tmp_path / "public" / "file.gz").write_bytes(gzip.compress(b"right"))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *given: object) -> None:
            super().__init__(*given, directory=str(tmp_path / "public"))

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_a_download_is_checked_by_what_it_unpacks_to(tmp_path: Path, address: str) -> None:
    right = fetch.digest(b"right")
    target = tmp_path / "cache" / "file.gz"
    with pytest.raises(TrainingError, match="another file than expected"):
        fetch.fetch(address + "file.gz", target, "0" * 64, "do otherwise")
    with pytest.raises(TrainingError, match=r"cannot be reached.*do otherwise"):
        fetch.fetch(address + "missing.gz", target, right, "do otherwise")
    assert not target.exists()
    assert fetch.fetch(address + "file.gz", target, right, "do otherwise").read_bytes() == gzip.compress(b"right")


def test_what_is_downloaded_is_found_the_next_time(clothes: Path, tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in fashion.FILES:
        (clothes / name).rename(tmp_path / "public" / name)
    digests = {name: fetch.digest((tmp_path / "public" / name).read_bytes()) for name in fashion.FILES}
    monkeypatch.setattr(fashion, "FILES", digests)
    monkeypatch.setattr(fashion, "URL", address)
    monkeypatch.setattr(fashion, "DEBIAN", tmp_path / "nowhere")
    monkeypatch.setenv("ATELIER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(data.load("fashion").train) == 54
    monkeypatch.setattr(fashion, "URL", "http://127.0.0.1:9/")
    assert len(data.load("fashion").train) == 54


def test_pictures_are_mirrored_at_random() -> None:
    corner = np.zeros((40, 3, 4, 1), np.uint8)
    corner[:, 0, 0] = 1
    for axis, places in ((1, {(0, 0), (2, 0)}), (2, {(0, 0), (0, 3)})):
        found = pixels.mirrored(corner, np.random.default_rng(0), axis)
        assert found.shape == corner.shape
        assert {tuple(place) for picture in found for place in np.argwhere(picture[..., 0])} == places
        assert found.sum() == 40
