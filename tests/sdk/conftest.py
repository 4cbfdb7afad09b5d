"""The server that the clients call, and what all of them have to call."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from built import complete
from support import ROOT, Server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A model for every operation, one admin's key, and answers of a megapixel at most."""
    folder = tmp_path_factory.mktemp("sdk") / "models"
    complete(folder)
    running = Server(ATELIER_MODELS=str(folder), ATELIER_ADMIN_KEYS="admin", ATELIER_MAX_OUTPUT_MEGAPIXELS="1")
    running.until_loaded()
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="session")
def operations() -> list[str]:
    """The ids of all operations of the OpenAPI document."""
    paths = json.loads((ROOT / "build" / "openapi.json").read_text())["paths"]
    return [operation["operationId"] for path in paths.values() for operation in path.values()]


@pytest.fixture
def readme(server: Server) -> dict[str, str]:
    """The README's lines on clients by their language, with this server's address. The packages' own say the same."""
    section = (ROOT / "README.md").read_text().partition("\n## Clients\n")[2].partition("\n## ")[0]
    lines = dict(re.findall(r"```(\w+)\n(.*?)```", section, re.DOTALL))
    assert lines["python"] in (ROOT / "clients" / "python" / "README.md").read_text()
    assert lines["ts"] in (ROOT / "clients" / "typescript" / "README.md").read_text()
    return {language: code.replace("http://localhost:8000", server.url) for language, code in lines.items()}
