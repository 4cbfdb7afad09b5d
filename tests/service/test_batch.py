"""Folders of pictures through an operation, as a user would start it: in a process, on Ray."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray
from built import DETECTED, NORMAL, SIDE, brightness, build, captioner, negative
from PIL import Image
from support import ROOT, encoded, pixels

from service.batch import LOT, BatchError, Job, _start, lots_of, run
from service.contract.manifest import Fit
from service.settings import read

WHOLE = Fit(height=SIDE, width=SIDE, channels=3, mode="stretch")
NUMBER = 150


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    build(folder, "bright", brightness(), "anomaly", "detector", DETECTED, normal=NORMAL, fit=WHOLE, default_for=("anomaly",))
    build(folder, "negative", negative(), "translate", "translator", "translated", default_for=("translate",))
    captioner(folder, default_for=("caption",))
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of one level each, in two folders, two files that are none, and one whose name is no UTF-8."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "more").mkdir()
    for index in range(NUMBER):
        where = folder / ("more" if index % 2 else "") / f"_{index:03}.png"
        where.write_bytes(encoded(Image.new("RGB", (SIDE, SIDE), (index,) * 3)))
    (folder / "notes.txt").write_text("no picture")
    (folder / "more" / "empty.jpg").touch()
    (folder / os.fsdecode(b"caf\xe9.png")).write_bytes(encoded(Image.new("RGB", (SIDE, SIDE))))
    return folder


def begun(models: Path, *arguments: str) -> subprocess.Popen[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("ATELIER_", "RAY_"))}
    environment = clean | {"ATELIER_MODELS": str(models)}
    command = [sys.executable, "-m", "service", "batch", *arguments]
    return subprocess.Popen(command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def batch(models: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    process = begun(models, *arguments)
    out, error = process.communicate(timeout=240)
    return subprocess.CompletedProcess(process.args, process.returncode, out, error)


def table(output: Path, outcome: str = "done") -> dict[str, dict[str, Any]]:
    """The rows by path, each of which is there once."""
    files = (output / "answers" / f"outcome={outcome}").glob("*.parquet")
    rows = [row for file in files for row in pq.ParquetFile(file).read().to_pylist()]
    assert max(Counter(row["path"] for row in rows).values()) == 1
    return {row["path"]: row for row in rows}


def test_each_picture_has_an_answer_and_bad_ones_are_listed(models: Path, pictures: Path, tmp_path: Path) -> None:
    job = ("anomaly", "--input", str(pictures), "--output", str(tmp_path / "out"), "--threshold", "20", "--pictures")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "job.json").write_text('{"task": "caption"}')  # of one that ended before it had an answer
    result = batch(models, *job)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"{NUMBER + 3} pictures: {NUMBER} done, 3 failed (2 unreadable_image, 1 unreadable_file;")
    rows = table(tmp_path / "out")
    assert len(rows) == NUMBER
    row = rows["more/_101.png"]
    assert (row["score"], row["threshold"], row["is_anomalous"], row["model"]) == (101.0, 20.0, True, "bright")
    assert row["served_by"].startswith("anomaly/bright@")
    assert row["regions"] == [{"x": 0, "y": 0, "width": SIDE, "height": SIDE, "score": 101.0}]
    assert rows["_002.png"]["regions"] == []
    assert (pixels((tmp_path / "out" / row["heatmap"]).read_bytes()) == round(128 * 101 / 64)).all()
    failed = table(tmp_path / "out", "failed")
    codes = {"notes.txt": "unreadable_image", "more/empty.jpg": "unreadable_image", r"caf\xe9.png": "unreadable_file"}
    assert {path: failed[path]["code"] for path in failed} == codes
    assert "not a picture in one of PNG" in failed["notes.txt"]["detail"]

    (pictures / "late.png").write_bytes(encoded(Image.new("RGB", (8, 8), (9, 9, 9))))
    try:
        again = batch(models, *job)
    finally:
        (pictures / "late.png").unlink()
    assert f"{NUMBER + 1} done, 3 failed" in again.stdout
    assert "1 of them now" in again.stdout
    assert len(table(tmp_path / "out")) == NUMBER + 1
    assert batch(models, *job).stdout.startswith(f"{NUMBER + 3} pictures: {NUMBER} done, 3 failed")  # late.png is not there any more

    with open(tmp_path / "out" / "job.json", "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        beside = batch(models, *job)
    assert (beside.returncode, beside.stdout) == (1, "")
    assert beside.stderr == f"anomaly: {tmp_path / 'out'}: another process is at work on it.\n"

    other = batch(models, *job[:5], "--threshold", "30")
    assert (other.returncode, other.stdout) == (1, "")
    assert (
        other.stderr == f"anomaly: {tmp_path / 'out'} has the answers of another job (fields and pictures differ): give another output.\n"
    )


@pytest.mark.parametrize(
    ("number", "workers", "sizes"),
    [(1, 1, [1]), (3, 2, [2, 1]), (60, 4, [15] * 4), (2 * LOT, 1, [LOT] * 2), (2 * LOT + 1, 2, [LOT, LOT, 1])],
)
def test_each_worker_has_something_to_do_of_few_pictures(number: int, workers: int, sizes: list[int]) -> None:
    paths = [str(index) for index in range(number)]
    lots = list(lots_of(paths, workers))
    assert [len(lot) for lot in lots] == sizes
    assert [path for lot in lots for path in lot] == paths


def test_a_job_that_was_killed_goes_on_and_does_nothing_twice(models: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for index in range(600):
        content = encoded(Image.fromarray(np.full((300, 300, 3), index % 256, np.uint8)), "JPEG")
        (tmp_path / "in" / f"{index}.jpg").write_bytes(content)
    job = ("caption", "--input", str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--decoding", "greedy", "--workers", "1")
    killed = begun(models, *job)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("out/answers/*/*.parquet")) and killed.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    (tmp_path / "out" / "answers" / "outcome=done" / "torn.parquet").write_bytes(b"PAR1 and no more")
    result = batch(models, *job)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("600 pictures: 600 done; ")
    assert "; 600 of them now" not in result.stdout
    rows = table(tmp_path / "out")
    assert len(rows) == 600
    assert {row["caption"] for row in rows.values()} == {"a cat"}
    assert [word["word"] for word in rows["0.jpg"]["words"]] == ["a", "cat"]
    assert "nothing was left to do" in batch(models, *job).stdout


def test_pictures_are_files_named_after_what_they_were_made_of(models: Path, pictures: Path, tmp_path: Path) -> None:
    result = batch(models, "translate", "--input", str(pictures / "more"), "--output", str(tmp_path / "out"), "--format", "webp")
    assert result.returncode == 0, result.stderr
    rows = table(tmp_path / "out")
    assert len(rows) == NUMBER // 2
    assert rows["_011.png"]["picture"] == "pictures/_011.png.webp"
    assert (pixels((tmp_path / "out" / "pictures" / "_011.png.webp").read_bytes()) == 255 - 11).all()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ("caption", "--input", "{in}", "--output", "{out}", "--decoding", "best"),
            "decoding: input should be 'beam', 'greedy' or 'sample'.",
        ),
        (("caption", "--input", "{in}", "--output", "{out}", "--model", "none"), "there is no model none in"),
        (("caption", "--input", "{empty}", "--output", "{out}"), "there are no files in it."),
        (("caption", "--input", "{in}", "--output", "{in}/there"), "lies in"),
        (("upscale", "--input", "{in}", "--output", "{out}"), "there is: none."),
        (("caption", "--input", "nowhere://at/all", "--output", "{out}"), "nowhere://at/all"),
        (("caption", "--input", "{in}/notes.txt", "--output", "{out}"), "notes.txt"),
        (("caption", "--input", "{in}", "--output", "/dev/null/out"), "/dev/null/out"),
        (("caption", "--input", "{in}", "--output", "{out}", "--cpus", "5000"), "a worker is to have 5000 cores and 0 GPUs, and"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_line(models: Path, pictures: Path, tmp_path: Path, arguments: tuple[str, ...], told: str) -> None:
    (tmp_path / "empty").mkdir()
    places = {"in": str(pictures), "out": str(tmp_path / "out"), "empty": str(tmp_path / "empty")}
    result = batch(models, *(argument.format(**places) for argument in arguments))
    assert result.returncode == 1
    assert result.stdout == ""
    assert told in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"workers": 0}, "--workers 0: has to be a number from 1 on."),
        ({"cpus": 0}, "--cpus 0: has to be a number from 1 on."),
        ({"gpus": -0.5}, "--gpus -0.5: has to be a number from 0 on."),
        ({"gpus": float("nan")}, "--gpus nan: has to be a number from 0 on."),
    ],
)
def test_workers_have_to_be_some(models: Path, pictures: Path, tmp_path: Path, options: dict[str, Any], told: str) -> None:
    with pytest.raises(BatchError, match=re.escape(told)):
        run(Job("caption", {}, str(pictures), str(tmp_path / "out"), **options), read(models=models))
    assert not (tmp_path / "out").exists()


def test_another_ray_of_the_machine_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[dict[str, Any]] = []
    monkeypatch.setattr(ray, "init", lambda **options: given.append(options))
    monkeypatch.setattr(ray, "cluster_resources", dict)
    for address in ("", "ray://elsewhere:10001"):
        monkeypatch.setenv("RAY_ADDRESS", address)
        _start(Job("embed", {}, "in", "out"))
    assert [options.get("address") for options in given] == ["local", None]  # and RAY_ADDRESS, which Ray reads
