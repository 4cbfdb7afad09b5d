"""The page at /, on which people try the operations: the folder `playground`, as it is.

It is public, like the documents. The models that it shows are asked for by the page itself, with a key where one is needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

FOLDER = Path(__file__).parent / "playground"

HEADERS = {
    "Cache-Control": "no-cache",  # kept, but asked for again by its ETag, so that a new version is seen at once
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'self'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Of every file: nothing comes from anywhere else, and nothing inline runs."""


class Page(StaticFiles):
    """The page's files."""

    def __init__(self) -> None:
        super().__init__(directory=FOLDER)

    def file_response(self, *arguments: Any, **options: Any) -> Response:
        response = super().file_response(*arguments, **options)
        response.headers.update(HEADERS)
        return response

    async def home(self, request: Request) -> Response:
        """The page itself."""
        return await self.get_response("index.html", request.scope)
