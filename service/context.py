"""Around every request: its id, the headers that every answer carries, its line in the log."""

from __future__ import annotations

import logging
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import problems
from service.problems import Code, ProblemError

logger = logging.getLogger("atelier.access")

_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")


class RequestContext:
    """ASGI middleware. Whatever a handler let through becomes a `model_failed` problem, with its trace in the log."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        identity = given if _ID.fullmatch(given) else uuid.uuid4().hex
        state = scope.setdefault("state", {})
        state["id"] = identity
        path = scope.get("raw_path", b"").decode("latin-1") or scope["path"]  # as sent: nothing in it breaks a log line
        started, status = time.perf_counter(), 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = identity
                if call := state.get("call"):
                    headers.update(call.headers)
                    if call.seconds:
                        headers["Server-Timing"] = call.server_timing
            await send(message)

        try:
            await self.app(scope, receive, send_with_headers)
        except Exception:
            logger.exception("%s %s failed", scope["method"], path, extra={"fields": {"request_id": identity}})
            if status:
                raise
            failure = ProblemError(Code.MODEL_FAILED, "The server failed; its log has the details under this request's id.")
            await problems.response(failure, identity)(scope, receive, send_with_headers)
        finally:
            fields = {"request_id": identity, "method": scope["method"], "path": path, "status": status}
            fields["milliseconds"] = round((time.perf_counter() - started) * 1000, 1)
            if call := state.get("call"):
                fields["model"] = call.headers.get("X-Model")
                fields["timing"] = call.server_timing
            logger.info("%(method)s %(path)s %(status)s %(milliseconds)sms", fields, extra={"fields": fields})
