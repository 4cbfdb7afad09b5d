"""docker/check_gpu.py, as far as it goes without a GPU."""

from __future__ import annotations

import os
import subprocess
import sys

from support import ROOT


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "docker/check_gpu.py", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_each_graph_is_compared_and_measured() -> None:
    result = run("--provider", "cpu")
    assert result.returncode == 0, result.stderr
    rows = [line for line in result.stdout.splitlines() if line.startswith("| ")]
    assert len(rows) - 1 == len(list((ROOT / "models").glob("*/*.onnx")))
    assert all(row.endswith("| yes |") for row in rows[1:])


def test_without_the_provider_it_says_so() -> None:
    result = run("--provider", "cuda")
    assert result.returncode == 1
    assert "cuda was demanded" in result.stderr
    assert "Traceback" not in result.stderr
