"""The page at /, on which people try the operations: the folder `playground`, as it is; and the documents at /docs.

Both are public. The models that the page shows are asked for by the page itself, with a key where one is needed.
"""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import Any

from fastapi.openapi.docs import get_swagger_ui_html
from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

FOLDER = Path(__file__).parent / "playground"
DOCS_ASSETS = "/docs-assets"

_POLICY = "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'self'"
HEADERS = {
    "Cache-Control": "no-cache",  # kept, but asked for again by its ETag, so that a new version is seen at once
    "Content-Security-Policy": _POLICY,
    "Referrer-Policy": "no-referrer",
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


async def docs(request: Request) -> Response:
    """Swagger UI, of which nothing inline runs but the line that starts it. It sets styles of its own."""
    root = request.scope.get("root_path", "")
    answer = get_swagger_ui_html(
        openapi_url=f"{root}{request.app.openapi_url}",
        title=f"{request.app.title}: its operations",
        swagger_js_url=f"{root}{DOCS_ASSETS}/swagger-ui-bundle.js",
        swagger_css_url=f"{root}{DOCS_ASSETS}/swagger-ui.css",
        swagger_favicon_url=f"{root}{DOCS_ASSETS}/favicon.png",
    )
    inline = re.findall(rb"<script>(.*?)</script>", bytes(answer.body), re.DOTALL)
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}'" for script in inline)
    policy = f"{_POLICY}; script-src 'self' {hashes}; style-src 'self' 'unsafe-inline'"
    answer.headers.update(HEADERS | {"Content-Security-Policy": policy})
    return answer
