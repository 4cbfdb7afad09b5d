"""The OpenAPI document against the running server, by schemathesis: a short run; `make schema` is a long one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from built import DETECTED, NORMAL, SIDE, brightness, build, captioner, either, larger, negative, painted
from support import MODELS, ROOT, Server

from service.contract.manifest import Fit


def test_the_server_keeps_to_its_document(start: Callable[..., Server], tmp_path: Path) -> None:
    models = tmp_path / "models"
    build(models, "negative", negative(), "translate", "translator", "translated", default_for=("translate",))
    build(models, "either", either(), "swap", "swapper", "swapped", default_for=("swap",), classes=("ann", "bob"))
    build(models, "larger", larger(), "upscale", "upscaler", "upscaled", default_for=("upscale",), large="tile", margin=4)
    build(models, "painted", painted(), "inpaint", "inpainter", "inpainted", default_for=("inpaint",))
    whole = Fit(height=SIDE, width=SIDE, channels=3, mode="stretch")
    build(models, "bright", brightness(), "anomaly", "detector", DETECTED, normal=NORMAL, fit=whole, default_for=("anomaly",))
    captioner(models, default_for=("caption",))
    for name in ("cdcgan", "vae"):
        (models / name).symlink_to(MODELS / name)
    server = start(ATELIER_API_KEYS="user", ATELIER_ADMIN_KEYS="admin", ATELIER_MODELS=str(models))
    server.until_loaded()
    command = [str(Path(sys.executable).parent / "schemathesis"), "--config-file", str(ROOT / "tests" / "schemathesis.toml")]
    command += ["run", f"{server.url}/openapi.json", "--checks", "all", "--max-examples", "4", "--seed", "1", "--no-color"]
    command += ["--header", "Authorization: Bearer admin"]
    hooks = {"SCHEMATHESIS_HOOKS": str(ROOT / "tests" / "schemathesis_hooks.py")}
    result = subprocess.run(command, cwd=tmp_path, env=os.environ | hooks, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stdout[-6000:]
    assert not any("Traceback" in line for line in server.log)
