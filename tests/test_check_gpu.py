"""docker/check_gpu.py, as far as it goes without a GPU, and on one that tests/faked.py plays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from support import MODELS, ROOT


def run(*arguments: str, faked: bool = False) -> subprocess.CompletedProcess[str]:
    program = "import faked, runpy; faked.install(); runpy.run_path('docker/check_gpu.py', run_name='__main__')"
    command = [sys.executable, *(["-c", program] if faked else ["docker/check_gpu.py"]), "--seconds", "0.05", *arguments]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_each_graph_is_compared_and_measured() -> None:
    result = run("--provider", "cpu")
    assert result.returncode == 0, result.stderr
    rows = [line for line in result.stdout.splitlines() if line.startswith("| ")]
    assert len(rows) - 1 == len(list((ROOT / "models").glob("*/*.onnx")))
    assert all(row.endswith("| yes |") for row in rows[1:])


def test_what_a_gpu_answers_is_compared(tmp_path: Path) -> None:
    (tmp_path / "cdcgan").symlink_to(MODELS / "cdcgan")
    result = run("--cuda-graphs", "--models", str(tmp_path), faked=True)
    assert result.returncode == 0, result.stderr
    assert "on cuda (ms)" in result.stdout
    assert result.stdout.splitlines()[-1].startswith("| cdcgan/decoder | ")


def test_without_the_provider_it_says_so() -> None:
    result = run("--provider", "cuda")
    assert result.returncode == 1
    assert "cuda was demanded" in result.stderr
    assert "Traceback" not in result.stderr
