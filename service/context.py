"""Around every request: its id, the headers that every answer carries, its line in the log, its place in the metrics.

A caller that goes away takes its request along: what has not run yet never does.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import problems
from service.call import Call
from service.engine.store import Store
from service.metrics import Metrics
from service.problems import Code, ProblemError

logger = logging.getLogger("atelier.access")

PATIENCE = 0.05
"""Seconds: to listen for a caller's leaving costs time, which an answer that is given sooner does not need."""
GONE = 499
"""The status, in the log and the metrics, of a request whose caller did not wait for the answer."""

_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
_QUIET = ("/health/", "/metrics", "/playground/", "/v2/health/")


class RequestContext:
    """ASGI middleware. Whatever a handler let through becomes a `model_failed` problem, with its trace in the log."""

    def __init__(self, app: ASGIApp, metrics: Metrics, working: dict[str, Call], store: Store) -> None:
        self.app, self.metrics, self.working, self.store = app, metrics, working, store

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        passage = _Passage(scope, given if _ID.fullmatch(given) else uuid.uuid4().hex, send, self.working, self.store)
        caller = _Caller(receive)
        try:
            await self.app(scope, caller.receive, passage.send)
        except ClientDisconnect:
            passage.status = GONE
        except asyncio.CancelledError:
            if not caller.gone and not self.store.draining:
                raise
            if caller.gone:
                passage.status = GONE
            elif not passage.status:  # the time that the server gives those in flight is over
                stopped = ProblemError(Code.MODEL_UNAVAILABLE, "The server stopped before this was done.", retry_after=5)
                await problems.response(stopped, passage.id, scope["path"])(scope, receive, passage.send)
        except Exception:
            logger.exception("%s %s failed", scope["method"], passage.path, extra={"fields": {"request_id": passage.id}})
            if passage.status:
                raise
            failure = ProblemError(Code.MODEL_FAILED, "The server failed; its log has the details under this request's id.")
            await problems.response(failure, passage.id, scope["path"])(scope, receive, passage.send)
        finally:
            caller.leave()
            passage.end(self.metrics)


class _Passage:
    """One request from its arrival to the end of its answer."""

    def __init__(self, scope: Scope, identity: str, send: Send, working: dict[str, Call], store: Store) -> None:
        self.scope, self.id, self._send, self._working, self._store = scope, identity, send, working, store
        self.path = scope.get("raw_path", b"").decode("latin-1") or scope["path"]  # as sent: nothing in it breaks a log line
        self.started, self.status, self.timing = time.perf_counter(), 0, ""
        self._state = scope.setdefault("state", {})
        self._state |= {"id": identity, "started": self.started, "working": working}

    @property
    def call(self) -> Call | None:
        found: Call | None = self._state.get("call")
        return found

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = {"X-Request-Id": self.id, "X-Content-Type-Options": "nosniff"}
            if (call := self.call) is not None:
                headers |= call.headers
                if call.seconds:
                    self.timing = headers["Server-Timing"] = call.server_timing
            if self._store.draining:
                headers["Connection"] = "close"
            message["headers"] += [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
        await self._send(message)

    def end(self, metrics: Metrics) -> None:
        seconds = time.perf_counter() - self.started
        call: Call | None = self._state.pop("call", None)  # no circle is left for the collector
        fields: dict[str, object] = {"request_id": self.id, "method": self.scope["method"], "path": self.path, "status": self.status}
        fields["milliseconds"] = round(seconds * 1000, 1)
        if call is not None:
            call.release()
            if self._working.get(self.id) is call:
                del self._working[self.id]
            fields |= {"model": call.headers.get("X-Model"), "timing": self.timing or call.server_timing}
        metrics.requests.labels(call.task if call else "", call.model_name if call else "", self.status).observe(seconds)
        level = logging.DEBUG if self.path.startswith(_QUIET) else logging.INFO
        logger.log(level, "%(method)s %(path)s %(status)s %(milliseconds)sms %(request_id)s", fields, extra={"fields": fields})


class _Caller:
    """The other end of a request: once its body has been read, someone listens for its leaving and cancels the work.

    Attributes:
        gone: it left, and the work was cancelled.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._work = asyncio.current_task()
        self._timer: asyncio.TimerHandle | None = None
        self._watch: asyncio.Task[Message] | None = None
        self.gone = False

    async def receive(self) -> Message:
        if self._timer is not None:
            self._listen()
        if self._watch is not None:
            return await asyncio.shield(self._watch)
        message = await self._receive()
        if message["type"] == "http.request" and not message.get("more_body", False):
            self._timer = asyncio.get_running_loop().call_later(PATIENCE, self._listen)
        return message

    def _listen(self) -> None:
        assert self._timer is not None
        self._timer.cancel()
        if self._watch is None:
            self._watch = asyncio.create_task(self._until_gone())

    async def _until_gone(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" and self._work is not None:
            self.gone = True
            self._work.cancel()
        return message

    def leave(self) -> None:
        """The answer was given: whether the caller goes now is all the same."""
        if self._timer is not None:
            self._timer.cancel()
        if self._watch is not None:
            self._watch.cancel()
