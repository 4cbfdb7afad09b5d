"""Fixtures that every part shares."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import pytest
from support import MODELS, Server


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """One server with the shipped models for all tests that do not change it."""
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
