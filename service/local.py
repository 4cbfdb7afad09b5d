"""The server without a socket: the same application, called in the same process.

What `python -m service run` prints, what a folder's answers hold and what `training evaluate` measures takes the very path that a
request over HTTP takes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI

from service.app import create_app
from service.settings import Settings


@asynccontextmanager
async def started(settings: Settings) -> AsyncIterator[FastAPI]:
    """The application with its models loaded. It wants no key, whatever the environment says of those."""
    app = create_app(settings.model_copy(update={"api_keys": (), "rate_limit": None}))
    async with app.router.lifespan_context(app):
        await app.state.loading
        yield app


@asynccontextmanager
async def client(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client on such an application."""
    async with started(settings) as app, client_of(app) as inner:
        yield inner


def client_of(app: FastAPI) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://atelier", timeout=None)
