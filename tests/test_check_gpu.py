"""docker/check_gpu.py, as far as it goes without a GPU, and on one that tests/faked.py plays."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support import MODELS, ROOT


def run(*arguments: str, faked: bool = False) -> subprocess.CompletedProcess[str]:
    program = "import faked, runpy; faked.install(); runpy.run_path('docker/check_gpu.py', run_name='__main__')"
    command = [sys.executable, *(["-c", program] if faked else ["docker/check_gpu.py"]), "--seconds", "0.05", *arguments]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_each_graph_is_compared_and_measured(tmp_path: Path) -> None:
    for name in ("captions-scenes", "padim-brick", "vae"):
        (tmp_path / name).symlink_to(MODELS / name)
    result = run("--provider", "cpu", "--models", str(tmp_path))
    assert result.returncode == 0, result.stderr
    rows = [line for line in result.stdout.splitlines() if line.startswith("| ")]
    assert len(rows) - 1 == len(list(tmp_path.glob("*/*.onnx")))
    assert all(row.endswith("| yes |") for row in rows[1:])


def test_what_a_gpu_answers_is_compared(tmp_path: Path) -> None:
    (tmp_path / "cdcgan").symlink_to(MODELS / "cdcgan")
    result = run("--cuda-graphs", "--models", str(tmp_path), faked=True)
    assert result.returncode == 0, result.stderr
    assert "on cuda (ms)" in result.stdout
    assert result.stdout.splitlines()[-1].startswith("| cdcgan/decoder | ")


class Answering:
    """A session that gives an output as it is told."""

    precision = "float32"

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def run(self, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"made": self.values}


@pytest.mark.parametrize(
    ("ours", "theirs", "agrees"),
    [
        (np.zeros(10_000, np.uint8), np.eye(1, 10_000, dtype=np.uint8)[0] * 3, True),
        (np.zeros(10_000, np.uint8), np.eye(1, 10_000, dtype=np.uint8)[0] * 4, False),
        (np.zeros(100, np.uint8), np.eye(1, 100, dtype=np.uint8)[0] * 2, False),
        (np.ones(10, np.float32), np.full(10, 1.0009, np.float32), True),
        (np.ones(10, np.float32), np.full(10, 1.002, np.float32), False),
        (np.ones(10, np.float32), np.full(10, np.nan, np.float32), False),
    ],
)
def test_what_does_not_agree_is_told(ours: np.ndarray, theirs: np.ndarray, agrees: bool, tmp_path: Path) -> None:
    compare = runpy.run_path(str(ROOT / "docker" / "check_gpu.py"))["compare"]
    np.savez(tmp_path / "golden.npz", **{"input.images": np.zeros((2, 3))})
    verdict = compare(Answering(ours), Answering(theirs), tmp_path / "golden.npz", {"images": np.zeros((1, 3))}, 1)
    assert verdict == "yes" if agrees else verdict.startswith("no: made differs by up to")


def test_without_the_provider_it_says_so() -> None:
    result = run("--provider", "cuda")
    assert result.returncode == 1
    assert "cuda was demanded" in result.stderr
    assert "Traceback" not in result.stderr
