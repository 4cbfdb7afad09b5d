"""Chromium, and a server with a model for every operation."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator

import pytest
from browser.visitor import Visitor
from built import DETECTED, NORMAL, brightness, build, complete
from playwright.sync_api import Browser, sync_playwright
from support import Server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The shipped models; one built by hand for each operation that none of them serves, and a detector that draws what is normal."""
    folder = tmp_path_factory.mktemp("browser") / "models"
    complete(folder)
    build(folder, "brightness", brightness(), "anomaly", "detector", DETECTED, normal=NORMAL)
    running = Server(ATELIER_MODELS=str(folder))
    running.until_loaded()
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Debian's Chromium, or what CHROMIUM names."""
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        raise RuntimeError("There is no Chromium: apt install chromium, or name it in CHROMIUM.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])  # which root cannot have
        yield browser
        browser.close()


@pytest.fixture
def visitor(chromium: Browser, server: Server) -> Iterator[Visitor]:
    """Somebody at the server's page, at which nothing may go wrong."""
    one = Visitor(chromium, server)
    yield one
    one.context.close()
    assert one.wrong == []


@pytest.fixture
def visit(chromium: Browser) -> Iterator[Callable[[Server], Visitor]]:
    """The same for other servers, where something may."""
    visitors: list[Visitor] = []

    def one(server: Server) -> Visitor:
        visitors.append(Visitor(chromium, server))
        return visitors[-1]

    yield one
    for visitor in visitors:
        visitor.context.close()
