"""The TypeScript client, as its package installs: calls.ts is checked by tsc and run by Node.js."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT, Server

BIN = Path(sys.executable).parent
CALLS = Path(__file__).parent / "calls.ts"
CHECK = [
    "--noEmit",
    "--strict",
    "--noUncheckedIndexedAccess",
    "--target",
    "es2022",
    "--lib",
    "es2022,dom,dom.iterable",
    "--module",
    "nodenext",
]


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a program that the package is installed for."""
    folder = tmp_path_factory.mktemp("typescript")
    (folder / "package.json").write_text(json.dumps({"type": "module"}))
    (package,) = (ROOT / "build" / "sdk" / "typescript").glob("*.tgz")
    run([str(BIN / "npm"), "install", "--offline", "--no-audit", "--no-fund", str(package)], folder)
    return folder


def run(command: list[str], folder: Path) -> str:
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def checked(program: Path, name: str, code: str) -> Path:
    """A file of the program whose types are right."""
    file = program / name
    file.write_text(code)
    run([str(BIN / "node"), str(ROOT / "clients" / "typescript" / "node_modules" / "typescript" / "bin" / "tsc"), *CHECK, name], program)
    return file


def test_calls(program: Path, server: Server) -> None:
    run([str(BIN / "node"), str(checked(program, "calls.ts", CALLS.read_text())), server.url], program)


def test_the_readme(program: Path, readme: dict[str, str]) -> None:
    assert run([str(BIN / "node"), str(checked(program, "readme.ts", readme["ts"]))], program).startswith("blob:")


def test_every_operation_is_called(operations: list[str]) -> None:
    called = set(re.findall(r"\batelier\.(\w+)\(", CALLS.read_text()))
    assert called == {re.sub(r"_(\w)", lambda match: match[1].upper(), name) for name in operations}


def test_types_are_checked(program: Path) -> None:
    wrong = 'import { Atelier } from "atelier-client";\nawait new Atelier().caption({ body: { image: new Blob(), decoding: "best" } });\n'
    with pytest.raises(AssertionError, match="is not assignable to type"):
        checked(program, "wrong.ts", wrong)
