"""The OpenAPI document against the running server, by schemathesis: a short run; `make schema` is a long one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from built import small
from support import ROOT, Server


def test_the_server_keeps_to_its_document(start: Callable[..., Server], tmp_path: Path) -> None:
    models = tmp_path / "models"
    small(models)
    server = start(ATELIER_API_KEYS="user", ATELIER_ADMIN_KEYS="admin", ATELIER_MODELS=str(models))
    server.until_loaded()
    command = [str(Path(sys.executable).parent / "schemathesis"), "--config-file", str(ROOT / "tests" / "schemathesis.toml")]
    command += ["run", f"{server.url}/openapi.json", "--checks", "all", "--max-examples", "4", "--seed", "1", "--no-color"]
    command += ["--header", "Authorization: Bearer admin"]
    hooks = {"SCHEMATHESIS_HOOKS": str(ROOT / "tests" / "schemathesis_hooks.py")}
    result = subprocess.run(command, cwd=tmp_path, env=os.environ | hooks, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stdout[-6000:]
    assert not any("Traceback" in line for line in server.log)
