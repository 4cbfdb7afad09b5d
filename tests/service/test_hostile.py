"""Callers who mean harm, or whose program is broken: the server answers or hangs up, says so, and goes on."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from fuzz.over_http import attack, unharmed, watched
from support import Server

from service import settings
from service.app import create_app
from service.engine import budget

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


CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
LAST = b'f\r\n{"digits": "7"}\r\n0\r\n'


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket", b"x"])
def test_who_asks_for_another_protocol_is_answered_in_this_one(hasty: Server, plug: Plug, protocol: bytes) -> None:
    """Java's client asks for HTTP/2 with each first request. A body that were left out would be taken for the next request."""
    asks = b"POST /v1/digits HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: upgrade\r\nUpgrade: %s\r\n" % protocol
    body = b'{"digits": "7"}'
    whole, chunked = asks + b"Content-Length: %d\r\n\r\n" % len(body), asks + CHUNKED
    connection = plug(whole + body + chunked + LAST + b"\r\n" + whole)
    time.sleep(SECONDS / 8)
    connection.sendall(body)
    assert until_closed(connection).count(b"HTTP/1.1 200 ") == 3
    smuggled = b"GET /v1/nothing HTTP/1.1\r\nHost: x\r\n\r\n"
    connection = plug(asks + b"Content-Length: %d\r\n\r\n" % len(smuggled))
    time.sleep(SECONDS / 8)
    connection.sendall(smuggled)
    assert until_closed(connection).count(b"HTTP/1.1 ") == 1
    number = 3000
    connection = plug(b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: %s\r\n\r\n" % protocol * number)
    assert until_closed(connection).count(b"HTTP/1.1 200 ") == number
    assert not any("upgrade" in line or "WebSocket" in line for line in hasty.log)


@pytest.mark.parametrize("path", [b"/v1/digits", b"/v1/nothing"])
@pytest.mark.parametrize("trailer", [b"x: " + b"a" * 1000 + b"\r\n", b"a" * 1000], ids=["many", "one that does not end"])
def test_trailers_of_any_size_are_not_kept(plug: Plug, path: bytes, trailer: bytes) -> None:
    connection, sent = plug(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n%s%sx: " % (path, CHUNKED, LAST)), 0
    with suppress(OSError):  # it hangs up before all is sent
        while sent < 100_000_000:
            connection.sendall(trailer * 100)
            sent += len(trailer) * 100
    assert sent < 20_000_000  # what the kernel takes before it knows


def test_after_a_large_piece_of_a_body_its_end_may_come_by_itself(plug: Plug) -> None:
    one = b"POST /v1/digits HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    for end in (b"0\r\n", b"0\r\nx: a", b"0\r\nx: a\r\n"):
        connection = plug(one + CHUNKED + b"%x\r\n" % 200_000 + b" " * 200_000 + b"\r\n" + LAST.removesuffix(b"0\r\n") + end)
        time.sleep(SECONDS / 8)
        connection.sendall(b"\r\n\r\n"[: 2 if end.endswith(b"\n") else 4])
        assert until_closed(connection).startswith(b"HTTP/1.1 200 ")
    body = b" " * 200_000 + b'{"digits": "7"}'
    connection = plug(one + b"Content-Length: %d\r\n\r\n" % len(body) + body + b"GET /health/live")  # and another's head may begin with it
    time.sleep(SECONDS / 8)
    connection.sendall(b" HTTP/1.1\r\nHost: x\r\n\r\n")
    assert until_closed(connection).count(b"HTTP/1.1 200 ") == 2


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


def test_many_large_uploads_at_once_find_no_room(start: Callable[..., Server]) -> None:
    server = start(ATELIER_LOAD="cdcgan", ATELIER_MAX_WORK_MB="1.5")
    server.until_loaded()

    def post(blanks: int, body: bytes = b"{}") -> httpx.Response:
        return server.client.post("/v1/digits", content=b" " * blanks + body, headers={"Content-Type": "application/json"})

    with closing(socket.create_connection(place(server))) as first:
        first.sendall(beginning("/v1/digits", "application/json") + b" " * 900_000)
        first.settimeout(1)
        with pytest.raises(TimeoutError):  # by then it was read, and its rest is waited for
            first.recv(1)
        answer = post(1_000_000)
        assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (503, "overloaded", "1")
        assert post(0, b'{"digits": "1"}').status_code == 200
    while post(1_000_000).status_code == 503:  # until its leaving is noticed
        pass
    assert post(3_000_000).json()["code"] == "invalid_request"  # more than all may keep together, but alone


@pytest.mark.parametrize(("limit", "kept"), [("2147483648\n", 2**30), ("68719476736\n", 2_048_000_000), ("max\n", 2_048_000_000)])
def test_requests_keep_half_of_a_containers_memory_at_most(limit: str, kept: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "memory.max").write_text(limit)
    monkeypatch.setattr(budget, "LIMITS", (tmp_path / "missing", tmp_path / "memory.max"))
    assert budget.usual() == kept
    assert create_app(settings.read(), loads=False).state.budget.most == kept
    assert create_app(settings.read(max_work_mb=12), loads=False).state.budget.most == 12_000_000


# what is sent


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of which is seen what files it opens."""
    running = watched(tmp_path_factory.mktemp("hostile") / "models")
    yield running
    unharmed(running)
    assert running.stop() == 0


def test_broken_pictures(guarded: Server) -> None:
    """Some of those that `make fuzz-http` sends."""
    attack(guarded, range(300))
    before = guarded.files, guarded.threads
    found = attack(guarded, range(300, 600))
    assert {status for _, status in found} >= {200, 413, 415}
    assert (guarded.files, guarded.threads) <= before


TRICKS = (
    "../vae", "../../etc/passwd", "/etc/passwd", "vae/../vae", "./vae", "vae/", "vae/manifest.json", "vae\x00", "..\\vae", "%2e%2e%2fvae",
    "..%252f..%252fetc%252fpasswd", "file:///etc/passwd", "vae\n", "\u202evae", "\uff0e\uff0e/vae", "~root", "$HOME", "*", "",
)  # fmt: skip


@pytest.mark.parametrize("name", TRICKS)
def test_names_of_models_are_no_paths(guarded: Server, digit: bytes, name: str) -> None:
    client = guarded.client
    assert client.post("/v1/generate", json={"model": name}).json()["code"] == "unknown_model"
    assert client.post("/v1/embed", files={"image": digit}, data={"model": name}).json()["code"] == "unknown_model"
    for prefix in ("/v1/models/", "/v2/models/", "/v2/models/embed.", "/v1/requests/", "/playground/", "/docs-assets/", "/"):
        for address in (prefix + quote(name, safe=""), prefix + quote(name)):
            status, content = raw(guarded, address)
            assert status < 500, address
            assert b"root:" not in content
            assert b"schema_version" not in content or prefix == "/v1/models/", address


def raw(server: Server, address: str) -> tuple[int, bytes]:
    """The answer to GET of an address that no client tidies up."""
    with closing(http.client.HTTPConnection(*place(server), timeout=30)) as connection:
        connection.putrequest("GET", address)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read()


DEEP = 100_000
BODIES = {
    "deep lists": b'{"latents": ' + b"[" * DEEP + b"]" * DEEP + b"}",
    "deep objects": b'{"a": ' * DEEP + b"1" + b"}" * DEEP,
    "lists without an end": b"[" * DEEP,
    "a number of many digits": b'{"seed": ' + b"9" * 100_000 + b"}",
    "a large number": b'{"truncation": 1e999999}',
    "no number": b'{"truncation": NaN}',
    "no UTF-8": b'{"digits": "\xff\xfe\x80"}',
    "half of a pair": b'{"digits": "\\ud800"}',
    "UTF-16": '{"digits": "1"}'.encode("utf-16"),
    "a mark of the byte order": b'\xef\xbb\xbf{"digits": "1"}',
    "many keys": b"{" + b",".join(b'"k%d": 1' % number for number in range(50_000)) + b"}",
    "one key many times": b"{" + b",".join([b'"digits": "1"'] * 1000) + b', "digits": ["1"]}',
    "zeros": bytes(100_000),
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_json_that_is_none_or_too_deep(guarded: Server, body: bytes) -> None:
    for path in ("/v1/digits", "/v1/generate", "/v1/embed", "/v2/models/generate.vae/infer"):
        answer = guarded.client.post(path, content=body, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request"), path
        assert len(answer.content) < 10_000


PART = b'--x\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
FORMS = {
    "parts without an end": PART % (b"a", b"b") * 5000,
    "a part without an end": FORM + b"a" * 2_000_000,
    "headers without an end": b"--x\r\n" + b"a: b\r\n" * 100_000,
    "a header without an end": b"--x\r\nContent-Disposition: " + b"a" * 2_000_000,
    "nothing but ends of lines": b"--x\r\n" + b"\r\n" * 500_000,
    "no boundary": b"a" * 2_000_000,
    "ends that are none": FORM + b"\r\n--" * 400_000,
    "no UTF-8": PART % (b"model", b"\xff\xfe") + b"--x--",
    "a name that is no UTF-8": PART % (b"\xff\xfe", b"a") + b"--x--",
    "a name of many letters": PART % (b"a" * 3000, b"a") + b"--x--",
    "zeros": PART % (b"model\x00", b"\x00") + b"--x--",
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_forms_that_are_none(guarded: Server, form: bytes) -> None:
    answer = guarded.client.post("/v1/embed", content=form, headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert len(answer.content) < 10_000


def test_a_form_without_an_end_is_cut_off(guarded: Server) -> None:
    """More than the upload limit is never read."""
    sent = 0

    def parts() -> Iterator[bytes]:
        nonlocal sent
        yield FORM
        while True:
            sent += 1_000_000
            yield bytes(1_000_000)

    try:
        answer = guarded.client.post("/v1/embed", content=parts(), headers={"Content-Type": "multipart/form-data; boundary=x"})
    except httpx.TransportError:  # it was answered and hung up on in the middle of a part
        pass
    else:
        assert (answer.status_code, answer.json()["code"]) == (413, "image_too_large")
    assert sent < 100_000_000


def test_header_values_may_be_anything(guarded: Server, digit: bytes) -> None:
    for name in ("accept", "x-request-id", "x-request-timeout", "authorization", "content-type", "content-encoding", "cookie", "origin"):
        for value in (b"\xff\xfe\x80", b"a" * 10_000, b"../../etc/passwd", b"0" * 400, b"*/*;q=" + b"9" * 400, b",;,;,;=" * 100):
            answer = guarded.client.post("/v1/embed", files={"image": digit}, headers={name: value})
            assert answer.status_code < 500, (name, value)
