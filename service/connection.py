"""One connection, on which nobody may take as long as they like, or send a head of any size: uvicorn has no bounds of its own there."""

from __future__ import annotations

import asyncio
from typing import Any

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.bodies import SLOWEST

LARGEST_HEAD = 65_536
"""Bytes of a request's first line and headers, or of what may come like them after a body that is sent in chunks."""


class HeadTooLarge(Exception):
    """Answered with 400, after which the connection is closed."""


class _Parser(httptools.HttpRequestParser):
    """Httptools', which keeps what comes after the head of a request that asks for another protocol: it leaves its body out."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it
        self.rest = b""

    @property
    def asks_for_another(self) -> bool:
        """Whether the request would go on in another protocol, such as `Upgrade: h2c`."""
        return self.should_upgrade() and self.get_method() != b"CONNECT"

    def feed_data(self, data: Any) -> None:
        try:
            super().feed_data(data)
        except httptools.HttpParserUpgrade as error:
            self.rest = data[error.args[0] :]
            raise


class Connection(HttpToolsProtocol):
    """Uvicorn's. While no request is in work it is closed if none has come whole, save its body, in `ATELIER_BODY_SECONDS`; and while
    an answer waits to be read, if it is read more slowly than `SLOWEST`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.parser: _Parser = _Parser(self)
        app: Any = self.config.app
        self._seconds: float = app.state.settings.body_seconds
        self._coming: asyncio.TimerHandle | None = None
        self._leaving: asyncio.TimerHandle | None = None
        self._head: int | None = None  # bytes of one, or of trailers, that have not come to their end
        self._begun = False
        self._again: bytes | None = None  # to be read, once more
        self._unread = 0
        self._running: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._coming, self._leaving):
            if timer is not None:
                timer.cancel()
        if (running := self._running) is not None and not running.response_complete:  # uvicorn tells only what was sent last
            running.disconnected = True
            running.message_event.set()
        super().connection_lost(exc)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    # what comes

    def data_received(self, data: bytes) -> None:
        self._again = data
        while (piece := self._again) is not None and not self.transport.is_closing():
            self._again = None
            self._receive(piece)

    def _receive(self, data: bytes) -> None:
        self._begun = False
        super().data_received(data)
        if self._head is not None and not self._begun and not self.transport.is_closing():
            self._head += len(data)
            if self._head > LARGEST_HEAD:
                self.send_400_response("The head of the request is too large.")

    def _begin(self) -> None:
        """Counts from the next piece of data on: in this one a body may have come before."""
        self._head, self._begun = 0, True

    def on_message_begin(self) -> None:
        self._begin()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._head = None
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > LARGEST_HEAD:
            raise HeadTooLarge
        if self.parser.asks_for_another:
            return
        if self._coming is not None:
            self._coming.cancel()
        super().on_headers_complete()

    def on_chunk_header(self) -> None:
        """If it is the last chunk's, trailers may follow."""
        self._begin()

    def on_body(self, body: bytes) -> None:
        self._head = None
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._head = None
        if not self.parser.asks_for_another:
            super().on_message_complete()

    def _unsupported_upgrade_warning(self) -> None:
        """Takes the request as if it did not ask for another protocol, which a server may (RFC 9110, section 7.8), and reads its body."""
        if (asked := self.parser).asks_for_another:
            first = b"%s %s HTTP/%s\r\n" % (asked.get_method(), self.url, asked.get_http_version().encode())
            others = [b"%s: %s\r\n" % header for header in self.headers if header[0] != b"upgrade"]
            self.parser = _Parser(self)
            self._again = b"".join((first, *others, b"\r\n", asked.rest))

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete:  # another may have been sent along
            self._wait()

    def _wait(self) -> None:
        self._coming = self.loop.call_later(self._seconds, self.timeout_keep_alive_handler)

    # what goes

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._leaving is not None:
            self._leaving.cancel()

    def _watch(self) -> None:
        self._unread = self.transport.get_write_buffer_size()
        self._leaving = self.loop.call_later(self._seconds, self._look)

    def _look(self) -> None:
        if self._unread - self.transport.get_write_buffer_size() < SLOWEST * self._seconds:
            self.transport.abort()
        else:
            self._watch()
