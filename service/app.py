"""The application: every router, handler and setting wired on one page."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException

from service import __version__, document, operations, problems
from service.access import Access, AccessControl
from service.call import Call
from service.context import RequestContext
from service.engine.budget import Budget, usual
from service.engine.cpu import usable_cores
from service.engine.store import Store
from service.engine.workers import Workers
from service.metrics import Metrics
from service.page import DOCS_ASSETS, Page, docs
from service.problems import ProblemError
from service.protocol import v2
from service.protocol.tensors import HEADER_LENGTH
from service.settings import Settings
from service.tasks import ROLES, TASKS

logger = logging.getLogger("atelier")

MOST_WORKERS = 4
"""Threads that decode and encode pictures, at most: where there are more cores, more threads would wait for Python's interpreter, which
one of them has at a time, and have those of the sessions wait for it."""
DESCRIPTION = """
Trained models of generative vision behind HTTP endpoints. Pictures go in as `multipart/form-data`; an
operation whose result is one picture answers `image/png`, every other answers JSON.

Written by hand, calls may do more: a JSON body with base64 pictures under the same field names is accepted
too; `Accept: image/jpeg` or `image/webp` picks the format; `Accept: application/json` on a picture operation
gives the picture as base64 together with what else is known of it; `Accept: image/*` on `generate` and
`digits` gives one picture instead of JSON.

Every answer carries `X-Request-Id` (echoed when sent), `X-Model`, `X-Seed` where randomness was used, and
`Server-Timing`. Errors are problem details (RFC 9457) with a `code` for programs.
"""


def create_app(settings: Settings, loads: bool = True) -> FastAPI:
    """The ASGI application. Models are opened in the background once it starts: see `/health/ready`.

    Args:
        loads: whether it has models of its own.
    """
    app = FastAPIOffline(
        title="Atelier",
        version=__version__,
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        static_url=DOCS_ASSETS,
        lifespan=_loading if loads else _lifespan,
        generate_unique_id_function=lambda route: route.name,
    )
    metrics, working, page = Metrics(), dict[str, Call](), Page()
    app.state.settings = settings
    app.state.metrics = metrics
    app.state.working = working
    app.state.store = Store(settings, ROLES, metrics.observer)
    metrics.watch(app.state.store)
    app.state.budget = Budget(usual() if settings.max_work_mb is None else int(settings.max_work_mb * 1e6))
    app.state.workers = Workers(min(usable_cores(), MOST_WORKERS), settings.queue_limit)
    for task in TASKS:
        app.router.routes.extend(task.router.routes)  # themselves: a router that is included is looked through at each request
    app.include_router(operations.router)
    app.include_router(v2.router)
    app.add_route("/", page.home, include_in_schema=False)
    app.add_route("/docs", docs, include_in_schema=False)
    app.mount("/playground", page)
    app.add_exception_handler(ProblemError, problems.handle_problem)
    app.add_exception_handler(HTTPException, problems.handle_http)
    app.add_exception_handler(RequestValidationError, problems.handle_validation)
    app.add_middleware(AccessControl, access=Access(settings), metrics=metrics)
    if settings.cors_origins:
        exposed = ["X-Request-Id", "X-Model", "X-Seed", "Server-Timing", "Retry-After", HEADER_LENGTH]
        app.add_middleware(
            CORSMiddleware, allow_origins=settings.cors_origins, allow_methods=["*"], allow_headers=["*"], expose_headers=exposed
        )
    app.add_middleware(RequestContext, metrics=metrics, working=working, store=app.state.store)  # the last added is the outermost
    document.describe(app)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    app.state.store.close()
    app.state.workers.close()
    if (traces := getattr(app.state, "traces", None)) is not None:
        await asyncio.to_thread(traces.shutdown)


@asynccontextmanager
async def _loading(app: FastAPI) -> AsyncIterator[None]:
    async with _lifespan(app):
        app.state.loading = asyncio.create_task(app.state.store.load())
        app.state.loading.add_done_callback(_report)
        yield
        app.state.store.draining = True  # no further model is opened, for instance where the port was taken
        await asyncio.wait([app.state.loading])


def _report(loading: asyncio.Task[Any]) -> None:
    gc.collect()
    gc.freeze()  # what is there now stays: without it, each full collection looks at all of it again, for some 80 ms
    if not loading.cancelled() and (error := loading.exception()):
        logger.critical("loading the models failed", exc_info=error)
