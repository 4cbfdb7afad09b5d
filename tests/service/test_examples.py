"""docs/examples.md: each example runs as it stands there, save for the server's address, and each operation has one in each language."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from built import complete
from PIL import Image
from support import ROOT, Server

ADDRESS = "localhost:8000"
LANGUAGES = ("sh", "python", "js")
TEXT = (ROOT / "docs" / "examples.md").read_text()
SECTIONS = {section.partition("\n")[0]: section for section in TEXT.split("\n## ")[1:]}
EXAMPLES = [
    (name, language, code) for name, section in SECTIONS.items() for language, code in re.findall(r"```(\w*)\n(.*?)```", section, re.DOTALL)
]
BEGINNING = {language: code for name, language, code in EXAMPLES if name == "To begin with"}
EXAMPLES = EXAMPLES[len(BEGINNING) :]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("examples") / "models"
    complete(folder)
    running = Server(ATELIER_MODELS=str(folder), ATELIER_ADMIN_KEYS="ADMINKEY")
    running.until_loaded()
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="module")
def folder(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the examples run, with the pictures that they begin with."""
    folder = tmp_path_factory.mktemp("pictures")
    assert shell(BEGINNING["sh"], server, folder).returncode == 0
    return folder


def shell(code: str, server: Server, folder: Path) -> subprocess.CompletedProcess[str]:
    return run(["bash", "-euo", "pipefail", "-c", at(server, code)], folder)


def python(code: str, server: Server, folder: Path) -> subprocess.CompletedProcess[str]:
    return run([sys.executable, "-c", at(server, BEGINNING["python"] + code)], folder)


def node(code: str, server: Server, folder: Path) -> subprocess.CompletedProcess[str]:
    return run([str(Path(sys.executable).parent / "node"), "--input-type=module", "--eval", at(server, BEGINNING["js"] + code)], folder)


def at(server: Server, code: str) -> str:
    return code.replace(ADDRESS, server.url.removeprefix("http://"))


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(("name", "language", "code"), EXAMPLES, ids=[f"{name}-{language}" for name, language, _ in EXAMPLES])
def test_an_example_runs(server: Server, folder: Path, name: str, language: str, code: str) -> None:
    result = {"sh": shell, "python": python, "js": node}[language](code, server, folder)
    refused = (name, language) == ("Errors", "sh")
    assert result.returncode == (22 if refused else 0), result.stdout[-2000:] + result.stderr
    assert '"code":"invalid_request"' in result.stdout or not refused
    for picture in re.findall(r"[\w-]+\.(?:png|webp)\b", " ".join(re.findall(r"-o \S+|Path\(\S+\.write_bytes", code))):
        with Image.open(folder / picture) as image:
            assert image.format == picture.rpartition(".")[2].upper()


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_operation_has_an_example(language: str) -> None:
    code = "\n".join(code for _, written_in, code in EXAMPLES if written_in == language)
    paths = json.loads((ROOT / "docs" / "openapi.json").read_text())["paths"]
    calls = {path: re.sub(r"\\{\w+\\}", r"[^\\s\"'`/]+", re.escape(path)) + r"(?![\w/])" for path in paths}
    assert [path for path, call in calls.items() if not re.search(call, code)] == []


def test_each_section_has_each_language() -> None:
    assert [(name, language) for name, language, _ in EXAMPLES] == [
        (name, language) for name in SECTIONS if name != "To begin with" for language in LANGUAGES
    ]
