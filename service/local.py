"""The server without a socket: the same application, called in the same process.

What `python -m service run` prints and what `training evaluate` measures takes the very path that a
request over HTTP takes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from service.app import create_app
from service.settings import Settings


@asynccontextmanager
async def client(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client on a started application whose models are loaded. It needs no key, whatever the environment says of those."""
    app = create_app(settings.model_copy(update={"api_keys": (), "rate_limit": None}))
    async with app.router.lifespan_context(app):
        await app.state.loading
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://atelier", timeout=None) as inner:
            yield inner
