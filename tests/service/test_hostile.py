"""Callers who mean harm, or whose program is broken: the server answers or hangs up, says so, and goes on."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress

import httpx
import pytest
from support import Server

Plug = Callable[..., socket.socket]

SECONDS = 0.4
BAD_REQUEST = b"HTTP/1.1 400 "


@pytest.fixture(scope="module")
def hasty() -> Iterator[Server]:
    """A server that waits for nobody for long."""
    running = Server(ATELIER_LOAD="cdcgan,vae", ATELIER_BODY_SECONDS=str(SECONDS))
    running.until_loaded()
    yield running
    assert not any("Traceback" in line for line in running.log)
    assert running.stop() == 0


def place(server: Server) -> tuple[str, int]:
    host, port = server.url.removeprefix("http://").split(":")
    return host, int(port)


@pytest.fixture
def plug(hasty: Server) -> Iterator[Plug]:
    """Connects to it; what was connected is closed afterwards."""
    with ExitStack() as stack:

        def connect(first: bytes = b"", buffer: int | None = None) -> socket.socket:
            connection = stack.enter_context(closing(socket.socket()))
            if buffer is not None:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            connection.connect(place(hasty))
            connection.sendall(first)
            return connection

        yield connect


def until_closed(connection: socket.socket, drip: bytes = b"") -> bytes:
    """All that comes until the server hangs up, while a drop after the other is sent."""
    received = b""
    connection.settimeout(SECONDS / 8)
    while True:
        try:
            part = connection.recv(65_536)
        except TimeoutError:
            if drip:
                connection.sendall(drip)
            continue
        except OSError:
            return received
        if not part:
            return received
        received += part


def beginning(path: str, kind: str, length: str = "Content-Length: 1000000") -> bytes:
    """The head of a request."""
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\n{length}\r\n\r\n".encode()


FORM = b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\n'


@pytest.mark.parametrize(
    ("path", "kind", "length", "first", "drip"),
    [
        ("/v1/digits", "application/json", "Content-Length: 1000000", b"{", b" "),
        ("/v1/digits", "application/json", "Transfer-Encoding: chunked", b"1\r\n{\r\n", b"1\r\n \r\n"),
        ("/v1/embed", "multipart/form-data; boundary=x", "Content-Length: 1000000", FORM, b"a"),
        ("/v1/embed", "multipart/form-data; boundary=x", "Transfer-Encoding: chunked", b"", b""),
        ("/v2/models/embed.vae/infer", "application/json", "Content-Length: 1000000", b"{", b" "),
    ],
)
def test_a_body_that_comes_too_slowly(hasty: Server, plug: Plug, path: str, kind: str, length: str, first: bytes, drip: bytes) -> None:
    before = hasty.metric("atelier_rejected_total", reason="request_timeout")
    head, _, body = until_closed(plug(beginning(path, kind, length) + first), drip).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in head.lower()
    assert json.loads(body)["code"] == "request_timeout"
    assert hasty.metric("atelier_rejected_total", reason="request_timeout") == before + 1


def test_a_body_may_take_longer_the_more_of_it_came(hasty: Server) -> None:
    """Twice the time that a small one has, while ten times the slowest pace is kept."""
    connection = http.client.HTTPConnection(*place(hasty), timeout=30)
    connection.putrequest("POST", "/v1/digits")
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    began = time.monotonic()
    while time.monotonic() < began + 2 * SECONDS:
        connection.send(b"1388\r\n" + b" " * 5000 + b"\r\n")
        time.sleep(SECONDS / 8)
    connection.send(b'10\r\n{"digits": "42"}\r\n0\r\n\r\n')
    assert connection.getresponse().status == 200
    connection.close()


@pytest.mark.parametrize("first", [b"", b"GET /health/live HTTP/1.1\r\nHost: x\r\n", b"GET /health/live"])
@pytest.mark.parametrize("drip", [b"", b"a"])
def test_a_head_that_comes_too_slowly(plug: Plug, first: bytes, drip: bytes) -> None:
    assert until_closed(plug(first), drip)[:13] in (b"", BAD_REQUEST)


def test_a_body_that_nobody_reads_keeps_no_connection_open(plug: Plug) -> None:
    connection = plug(beginning("/v1/nothing", "application/json"))
    assert until_closed(connection, b"a").startswith(b"HTTP/1.1 404 ")


def test_requests_that_are_sent_along_are_all_answered(plug: Plug) -> None:
    body = json.dumps({"digits": "8" * 64}).encode()
    one = beginning("/v1/digits", "application/json", f"Content-Length: {len(body)}") + body
    connection = plug(one * 8 + b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
    assert until_closed(connection).count(b"HTTP/1.1 200 ") == 9


@pytest.mark.parametrize(
    "head",
    [
        b"GET /health/live HTTP/1.1\r\n" + b"".join(b"x-%d: %s\r\n" % (number, b"a" * 20) for number in range(10_000)) + b"\r\n",
        b"GET /health/live HTTP/1.1\r\nx: " + b"a" * 1_000_000,
        b"GET /health/live?" + b"a" * 1_000_000,
        b"GET /health/live?" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
    ],
    ids=["10,000 headers", "one that does not end", "an address that does not end", "a long address"],
)
def test_a_head_of_any_size_is_not_kept(plug: Plug, head: bytes) -> None:
    connection = plug()
    with suppress(OSError):  # it hangs up before all is sent
        connection.sendall(head)
    assert until_closed(connection)[:13] in (b"", BAD_REQUEST)


def test_an_answer_that_is_not_read_is_not_kept_for_ever(hasty: Server, plug: Plug) -> None:
    """Answers of some 40 MB in all, of which the caller reads nothing: what the kernel does not take is dropped."""
    before = hasty.files
    plug(b"GET /docs-assets/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n" * 30, buffer=4096)
    while hasty.files == before:
        time.sleep(0.01)
    deadline = time.monotonic() + 20
    while hasty.files > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert hasty.files <= before


def test_they_all_left_nothing_behind(hasty: Server) -> None:
    assert httpx.get(f"{hasty.url}/health/ready").status_code == 200
    assert hasty.metric("atelier_queue_depth") == 0
