"""Fixtures that every part shares."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from support import MODELS, Server

CLUSTER = "--cluster"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(CLUSTER, action="store_true", help="the tests of the shared server alone, through a Ray cluster of three nodes")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption(CLUSTER):
        shared = [item for item in items if "server" in getattr(item, "fixturenames", ()) and not item.get_closest_marker("process")]
        config.hook.pytest_deselected(items=[item for item in items if item not in shared])
        items[:] = shared


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """One server with the shipped models for all tests that do not change it."""
    if request.config.getoption(CLUSTER):
        from clustered import Served

        running: Any = Served()
        running.run()
    else:
        running = Server()
    running.until_loaded()
    yield running
    assert running.stop() == 0


@pytest.fixture
def client(server: Server) -> httpx.Client:
    return server.client


@pytest.fixture
def start() -> Iterator[Callable[..., Server]]:
    """Starts servers with settings of their own; stops them afterwards."""
    started: list[Server] = []

    def one(*arguments: str, **environment: str) -> Server:
        started.append(Server(*arguments, **environment))
        return started[-1]

    yield one
    for running in started:
        running.stop()


@pytest.fixture(scope="session")
def digit() -> bytes:
    """A held-out digit as 28x28 grey PNG."""
    return (MODELS / "vae" / "golden" / "uploads" / "plain.png").read_bytes()
