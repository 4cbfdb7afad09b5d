"""The operator's side: keys, rates, deadlines, callers that leave, reloading, metrics, stopping."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import uvicorn
import uvloop
from PIL import Image
from support import MODELS, Server, encoded

from service.__main__ import _Server
from service.app import create_app
from service.connection import Connection
from service.engine.session import SessionError
from service.engine.store import Store
from service.settings import Settings
from service.tasks import TASKS

Start = Callable[..., Server]


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_with_keys_set_only_their_holders_may_call(start: Start, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("from-file\n\n")
    server = start(ATELIER_API_KEYS="one, two", ATELIER_API_KEYS_FILE=str(tmp_path / "keys"), ATELIER_LOAD="cdcgan")
    server.until_loaded()
    for path in ("/health/live", "/health/ready", "/metrics", "/docs", "/openapi.json", "/v2/health/live", "/v2/health/ready"):
        assert server.client.get(path).status_code == 200, path
    for path in ("/v1/models", "/v1/models/cdcgan", "/v1/requests/x", "/v2", "/v2/models/digits.cdcgan", "/v1/nothing"):
        answer = server.client.get(path)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized"), path
        assert answer.headers["www-authenticate"] == "Bearer"
    for key in ("one", "two", "from-file"):
        assert server.client.post("/v1/digits", json={"digits": "1"}, headers=bearer(key)).status_code == 200
    for headers in (bearer("three"), bearer("on"), {"Authorization": "one"}, {"Authorization": "Basic one"}, {"Authorization": "Bearer"}):
        assert server.client.post("/v1/digits", json={"digits": "1"}, headers=headers).status_code == 401
    assert server.metric("atelier_rejected_total", reason="unauthorized") == 11
    assert not any("three" in line for line in server.log)


def test_reloading_is_for_admins(start: Start, server: Server) -> None:
    answer = server.client.post("/v1/models/reload")
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    guarded = start(ATELIER_API_KEYS="user", ATELIER_ADMIN_KEYS="admin", ATELIER_LOAD="cdcgan")
    guarded.until_loaded()
    statuses = [guarded.client.post("/v1/models/reload", headers=headers).status_code for headers in ({}, bearer("no"), bearer("user"))]
    assert statuses == [401, 401, 403]
    assert guarded.client.post("/v1/models/reload", headers=bearer("admin")).json()["unchanged"] == ["cdcgan"]
    assert guarded.client.post("/v1/digits", json={"digits": "1"}, headers=bearer("admin")).status_code == 200


def test_each_key_has_a_rate_of_its_own(start: Start) -> None:
    server = start(ATELIER_API_KEYS="one,two", ATELIER_RATE_LIMIT="3/hour", ATELIER_LOAD="cdcgan")
    server.until_loaded()
    statuses = [server.client.get("/v1/models", headers=bearer("one")).status_code for _ in range(5)]
    assert statuses == [200, 200, 200, 429, 429]
    refused = server.client.get("/v1/models", headers=bearer("one"))
    assert refused.json()["code"] == "rate_limited"
    assert 3000 < int(refused.headers["retry-after"]) <= 3600
    assert server.client.get("/v1/models", headers=bearer("two")).status_code == 200
    assert server.client.get("/health/live").status_code == 200


def test_a_deadline_that_has_passed(server: Server, digit: bytes) -> None:
    for answer in (
        server.client.post("/v1/digits", json={"digits": "1"}, headers={"X-Request-Timeout": "0.0000001"}),
        server.client.post("/v1/embed", files={"image": digit}, headers={"X-Request-Timeout": "0.0000001"}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")
    assert server.client.post("/v1/digits", json={"digits": "1"}, headers={"X-Request-Timeout": "20"}).status_code == 200
    for given in ("soon", "-1", "0", "nan", "inf", ""):
        answer = server.client.post("/v1/digits", json={"digits": "1"}, headers={"X-Request-Timeout": given})
        assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (422, ["header", "X-Request-Timeout"]), given


def busy(server: Server, requests: int = 40) -> ThreadPoolExecutor:
    """Keeps one slow session busy: so many requests of 64 digits in runs of one. Half of them are there when it returns."""
    pool = ThreadPoolExecutor(requests)
    for _ in range(requests):
        pool.submit(server.client.post, "/v1/digits", json={"digits": "8" * 64, "model": "cdcgan"})
    deadline = time.monotonic() + 20
    while server.metric("atelier_queue_depth", model="cdcgan") < requests / 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    return pool


def slow(start: Start, **more: str) -> Server:
    settings = {"ATELIER_MAX_BATCH": "1", "ATELIER_THREADS": "1", "ATELIER_LOAD": "cdcgan", "ATELIER_QUEUE_LIMIT": "100000"}
    server = start(**settings, **more)
    server.until_loaded()
    return server


def test_a_deadline_passes_in_the_queue(start: Start) -> None:
    server = slow(start)
    with busy(server):
        answer = server.client.post("/v1/digits", json={"digits": "1"}, headers={"X-Request-Timeout": "0.2"})
        assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")
    assert server.metric("atelier_rejected_total", reason="deadline_exceeded") == 1


def test_a_deadline_is_answered_when_it_comes(start: Start) -> None:
    """Not when the request's turn has come: the runs before it take far longer."""
    server = slow(start)
    with busy(server):
        answer = server.client.post("/v1/digits", json={"digits": "1"}, headers={"X-Request-Timeout": "0.05"})
        depth = server.metric("atelier_queue_depth", model="cdcgan")
    assert (answer.status_code, depth > 5) == (504, True)


def test_a_deadline_holds_for_the_body_too(server: Server) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=20)
    connection.putrequest("POST", "/v1/digits")
    for name, value in (("Content-Type", "application/json"), ("Content-Length", "50"), ("X-Request-Timeout", "0.2")):
        connection.putheader(name, value)
    connection.endheaders(b"{")
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())["code"]) == (504, "deadline_exceeded")


def test_how_far_a_request_is(start: Start) -> None:
    server = slow(start)
    with busy(server, 5):
        waiting = threading.Thread(
            target=server.client.post, args=("/v1/digits",), kwargs={"json": {"digits": "1" * 64}, "headers": {"X-Request-Id": "mine"}}
        )
        waiting.start()
        seen: list[tuple[str, int]] = []
        while waiting.is_alive():
            answer = server.client.get("/v1/requests/mine")
            if answer.status_code == 200:
                work = answer.json()
                assert work["total"] in (0, 64)
                seen.append((work["state"], work["done"]))
    states = list(dict.fromkeys(state for state, _ in seen))
    assert [state for state in states if state in ("queued", "running")] == ["queued", "running"]
    done = [done for state, done in seen if state == "running"]
    assert done == sorted(done)
    gone = server.client.get("/v1/requests/mine")
    assert (gone.status_code, gone.json()["code"]) == (404, "not_found")


def test_callers_that_leave_are_never_run(start: Start) -> None:
    server = slow(start)
    host, port = server.url.removeprefix("http://").split(":")
    body = json.dumps({"digits": "1" * 64}).encode()
    head = f"POST /v1/digits HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with busy(server, 3):
        callers = [socket.create_connection((host, int(port))) for _ in range(100)]
        for caller in callers:
            caller.sendall(head + body)
        deadline = time.monotonic() + 20
        while server.metric("atelier_queue_depth") < 100 and time.monotonic() < deadline:
            time.sleep(0.01)
        for caller in callers:
            caller.close()
    deadline = time.monotonic() + 20
    while server.metric("atelier_queue_depth") > 0 and time.monotonic() < deadline:
        time.sleep(0.05)
    cancelled = server.metric("atelier_cancelled_total")
    assert cancelled > 90
    assert server.metric("atelier_request_duration_seconds_count", status="499") == 100
    assert server.metric("atelier_batch_size_sum") <= 2 + (103 - cancelled) * 64  # warm-up is not counted


def test_metrics_tell_what_was_served(start: Start, digit: bytes) -> None:
    server = start(ATELIER_LOAD="cdcgan,vae")
    server.until_loaded()
    server.client.post("/v1/digits", json={"digits": "123"})
    server.client.post("/v1/embed", files={"image": digit})
    server.client.post("/v1/embed", files={"image": b"text"})
    answer = server.client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert server.metric("atelier_request_duration_seconds_count", task="digits", model="cdcgan", status="200") == 1
    assert server.metric("atelier_request_duration_seconds_count", task="embed", model="vae", status="415") == 1
    assert server.metric("atelier_batch_size_sum", model="cdcgan") == 3
    assert server.metric("atelier_inference_duration_seconds_count", model="vae", graph="encoder") == 1
    assert server.metric("atelier_queue_seconds_count", model="cdcgan") == 1
    assert server.metric("atelier_model_info", task="digits", model="cdcgan", provider="cpu") == 1
    assert "_created" not in answer.text


def reload(server: Server) -> dict[str, object]:
    answer = server.client.post("/v1/models/reload", headers=bearer("admin"))
    assert answer.status_code == 200
    return dict(answer.json())


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for name in ("cdcgan", "vae"):
        shutil.copytree(MODELS / name, tmp_path / "models" / name)
    return tmp_path / "models"


def test_a_changed_folder_is_swapped_on_reload(start: Start, folders: Path) -> None:
    server = start(ATELIER_MODELS=str(folders), ATELIER_ADMIN_KEYS="admin")
    server.until_loaded()
    first = server.client.post("/v1/digits", json={"digits": "1"}).headers["x-model"]
    shutil.copytree(MODELS / "cgan", folders / "cgan")
    assert reload(server)["added"] == ["cgan"]
    assert server.client.post("/v1/digits", json={"digits": "1"}).headers["x-model"] == first
    manifest = json.loads((MODELS / "cgan" / "manifest.json").read_text()) | {"name": "cdcgan", "default_for": ["digits"]}
    shutil.copy(MODELS / "cgan" / "decoder.onnx", folders / "cdcgan" / "decoder.onnx")
    (folders / "cdcgan" / "manifest.json").write_text(json.dumps(manifest))
    assert (done := reload(server))["replaced"] == ["cdcgan"], done
    assert server.client.post("/v1/digits", json={"digits": "1"}).headers["x-model"] != first
    shutil.rmtree(folders / "vae")
    assert reload(server)["removed"] == ["vae"]
    assert server.client.post("/v1/generate", json={}).status_code == 503
    assert reload(server)["unchanged"] == ["cdcgan", "cgan"]


def test_new_words_in_a_manifest_need_no_new_session(start: Start, folders: Path) -> None:
    server = start(ATELIER_MODELS=str(folders), ATELIER_ADMIN_KEYS="admin")
    server.until_loaded()
    path = folders / "vae" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"title": "Another title"}))
    assert "vae" in reload(server)["unchanged"]
    assert server.client.get("/v1/models/vae").json()["title"] == "Another title"


@pytest.mark.parametrize("name", ["decoder.onnx", "manifest.json"])
@pytest.mark.parametrize("how", ["truncated", "emptied", "replaced", "deleted"])
def test_what_is_damaged_while_it_serves_goes_on_serving(start: Start, folders: Path, name: str, how: str) -> None:
    server = start(ATELIER_MODELS=str(folders), ATELIER_ADMIN_KEYS="admin")
    server.until_loaded()
    path = folders / "cdcgan" / name
    if how == "deleted":
        path.unlink()
    elif how == "replaced":
        shutil.copy(MODELS / "vae" / name, path)
    else:
        path.write_bytes(path.read_bytes()[: 500 if how == "truncated" else 0])
    assert server.client.post("/v1/digits", json={"digits": "1"}).status_code == 200
    done = reload(server)
    assert name in done["failed"]["cdcgan"]
    assert server.said("goes on as it was", name)
    assert sum("goes on as it was" in line and name in line for line in server.log) == 1
    for path, body in (("digits", {"digits": "1"}), ("generate", {})):
        assert server.client.post(f"/v1/{path}", json=body).status_code == 200
    health = server.client.get("/health/ready")
    told = next(model for model in health.json()["models"] if model["name"] == "cdcgan")
    assert (health.status_code, told["ready"]) == (200, True)
    assert name in told["failure"]


def test_reloads_under_load_disturb_nobody(start: Start, folders: Path) -> None:
    server = start(ATELIER_MODELS=str(folders), ATELIER_ADMIN_KEYS="admin")
    server.until_loaded()
    over, statuses = threading.Event(), []

    def ask() -> None:
        while not over.is_set():
            statuses.append(server.client.post("/v1/generate", json={"n": 3}).status_code)

    callers = [threading.Thread(target=ask) for _ in range(4)]
    for caller in callers:
        caller.start()
    path = folders / "vae" / "manifest.json"
    original, threads = json.loads(path.read_text()), list[int]()
    try:
        for turn in range(12):
            path.write_text(json.dumps(original | {"largest_picture": 10_000_000 + turn}))  # another digest
            assert reload(server)["replaced"] == ["vae"]
            threads.append(server.threads)
    finally:
        over.set()
        for caller in callers:
            caller.join()
    assert len(statuses) > 10
    assert set(statuses) == {200}
    few, deadline = max(threads[:6]) + 3, time.monotonic() + 20
    while server.threads > few and time.monotonic() < deadline:  # the last callers' answers came from what had been replaced
        time.sleep(0.1)
    assert server.threads <= few, threads  # what was replaced is gone, its session's threads with it


def test_a_folder_that_cannot_be_read_any_more_changes_nothing(start: Start, folders: Path) -> None:
    server = start(ATELIER_MODELS=str(folders), ATELIER_ADMIN_KEYS="admin")
    server.until_loaded()
    shutil.copytree(MODELS / "autoencoder", folders / "autoencoder")
    assert reload(server)["added"] == ["autoencoder"]
    folders.rename(folders.with_name("elsewhere"))
    assert "cannot be read" in str(reload(server)["failed"])
    assert server.client.post("/v1/generate", json={}).json()["model"] == "vae"
    default = [entry["name"] for entry in server.client.get("/v1/models").json()["models"] if entry["default"]]
    assert default == ["vae", "cdcgan", "autoencoder", "vae"]


def test_a_session_is_opened_again_from_the_same_file_only(folders: Path) -> None:
    """What lies in the folder by then may be another model, which an admin is about to load."""

    async def main() -> None:
        store = Store(Settings(models=folders), {task.TASK: task.ROLES for task in TASKS})
        await store.load()
        batcher = store.models["cdcgan"].batchers["decoder"]
        assert batcher._reopen is not None
        assert batcher._reopen().graph == store.models["cdcgan"].manifest.graphs["decoder"]
        shutil.copy(MODELS / "cgan" / "decoder.onnx", folders / "cdcgan" / "decoder.onnx")
        with pytest.raises(SessionError, match="damaged or half-written"):
            batcher._reopen()
        store.close()

    asyncio.run(main())


def test_a_stop_answers_what_was_accepted(start: Start) -> None:
    server = slow(start, ATELIER_GRACE_SECONDS="60")
    pool = ThreadPoolExecutor(10)
    answers = [pool.submit(server.client.post, "/v1/digits", json={"digits": "8" * 64}) for _ in range(10)]
    while server.metric("atelier_queue_depth") < 10 and not all(answer.done() for answer in answers):
        time.sleep(0.01)
    server.process.send_signal(signal.SIGTERM)
    assert [answer.result().status_code for answer in answers] == [200] * 10
    assert server.process.wait(30) == 0


def test_a_stop_answers_those_too_whose_turn_to_be_accepted_has_not_come(start: Start) -> None:
    """The kernel connects callers, who send their requests, while the server is busy: here it is held until all of them have."""
    server = start(ATELIER_LOAD="cdcgan")
    server.until_loaded()
    host, port = server.url.removeprefix("http://").split(":")
    server.process.send_signal(signal.SIGSTOP)
    with ExitStack() as stack:
        callers = [stack.enter_context(socket.create_connection((host, int(port)), timeout=20)) for _ in range(400)]
        for caller in callers:
            caller.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        server.process.send_signal(signal.SIGTERM)
        server.process.send_signal(signal.SIGCONT)
        answers = [b"".join(iter(partial(caller.recv, 65_536), b"")) for caller in callers]
    assert {answer[:13] for answer in answers} == {b"HTTP/1.1 200 "}
    assert all(b"connection: close" in answer.lower() for answer in answers)
    assert server.process.wait(30) == 0


def test_all_who_wait_to_be_accepted_are_in_one_turn() -> None:
    """The event loop by itself takes one of them at each turn, which may be long."""

    async def main() -> None:
        config = uvicorn.Config(create_app(Settings(load=[])), port=0, http=Connection, ws="none", log_config=None)
        config.load()
        server = _Server(config)
        server.lifespan = config.lifespan_class(config)
        await server.startup()
        address = server.servers[0].sockets[0].getsockname()
        with ExitStack() as callers:
            for _ in range(50):  # meanwhile the event loop stands still
                callers.enter_context(socket.create_connection(address, timeout=20))
            for _ in range(5):
                await asyncio.sleep(0)
            accepted = len(server.server_state.connections)
        await server.shutdown()
        assert accepted == 50

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def test_a_stop_does_not_wait_until_all_models_are_open(start: Start) -> None:
    server = start()
    assert server.said("model ", " serves ")
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(30) == 0
    opened = sum(" serves " in line for line in server.log)
    assert opened < len(list(MODELS.glob("*/manifest.json"))) / 2


def test_a_reload_of_a_server_that_was_told_to_stop_changes_nothing(folders: Path) -> None:
    async def main() -> None:
        store = Store(Settings(models=folders), {task.TASK: task.ROLES for task in TASKS})
        await store.load()
        before = store.shelf
        shutil.rmtree(folders / "vae")
        store.draining = True
        changes = await store.load()
        assert (changes.removed, changes.unchanged) == ([], ["cdcgan", "vae"])
        assert "told to stop" in changes.failed[str(folders)]
        assert (store.models, store.shelf.defaults, store.shelf.blocked) == (before.models, before.defaults, False)
        store.close()

    asyncio.run(main())


def test_while_pictures_are_decoded_the_process_turns(start: Start) -> None:
    """The event loop never waits for a decoder: while large pictures are read, health is answered many times."""
    server = start(ATELIER_LOAD="vae")
    server.until_loaded()
    noise = np.random.default_rng(0).integers(0, 256, (2000, 3000, 3), np.uint8)
    picture = encoded(Image.fromarray(noise), "JPEG", quality=90)
    with ThreadPoolExecutor(6) as pool:
        uploads = [pool.submit(server.client.post, "/v1/embed", files={"image": picture}) for _ in range(6)]
        answered = 0
        while not all(upload.done() for upload in uploads):
            assert server.client.get("/health/live").status_code == 200
            answered += 1
    assert {upload.result().status_code for upload in uploads} == {200}
    assert answered > 6


def test_uploads_beyond_what_waits_to_be_decoded_are_refused(start: Start) -> None:
    server = start(ATELIER_LOAD="vae", ATELIER_QUEUE_LIMIT="3")
    server.until_loaded()
    noise = np.random.default_rng(0).integers(0, 256, (2000, 3000, 3), np.uint8)
    picture = encoded(Image.fromarray(noise), "JPEG", quality=90)
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda _: server.client.post("/v1/embed", files={"image": picture}), range(24)))
    refused = [answer for answer in answers if answer.status_code != 200]
    assert 0 < len(refused) < 24
    for answer in refused:
        assert (answer.status_code, answer.json()["code"]) == (503, "overloaded")
        assert int(answer.headers["retry-after"]) >= 1
    assert server.metric("atelier_rejected_total", reason="overloaded") == len(refused)


@pytest.mark.parametrize("kind", ["image/png", "image/jpeg", "image/webp"])
def test_what_is_drawn_says_that_a_model_drew_it(server: Server, kind: str) -> None:
    answer = server.client.post("/v1/digits", json={"digits": "42"}, headers={"Accept": kind})
    for words in (b"digitalsourcetype/trainedAlgorithmicMedia", answer.headers["x-model"].encode(), b"Iptc4xmpExt"):
        assert words in answer.content
    inside = base64.b64decode(server.client.post("/v1/generate", json={}).json()["images"][0])
    assert b"trainedAlgorithmicMedia" in inside


def test_the_mark_can_be_switched_off(start: Start) -> None:
    server = start(ATELIER_PROVENANCE="false", ATELIER_LOAD="cdcgan")
    server.until_loaded()
    answer = server.client.post("/v1/digits", json={"digits": "42"}, headers={"Accept": "image/png"})
    assert b"trainedAlgorithmicMedia" not in answer.content


def test_listening_to_all_without_keys_is_warned_of(start: Start) -> None:
    server = start(ATELIER_HOST="0.0.0.0", ATELIER_LOAD="cdcgan")
    assert any("without keys" in line for line in server.log)
    assert server.said("open http://localhost:")
    quiet = start(ATELIER_HOST="0.0.0.0", ATELIER_API_KEYS="one", ATELIER_LOAD="cdcgan")
    assert not any("without keys" in line for line in quiet.log)


@pytest.mark.process
def test_a_caller_that_leaves_in_the_middle_of_its_upload(server: Server) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port))
    connection.putrequest("POST", "/v1/embed")
    connection.putheader("Content-Type", "multipart/form-data; boundary=x")
    connection.putheader("Content-Length", "1000000")
    connection.putheader("X-Request-Id", "left")
    connection.endheaders(b"--x")
    connection.close()
    deadline = time.monotonic() + 20
    while not (told := [line for line in server.log if "left" in line]) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert " 499 " in told[0]
    assert server.client.get("/health/live").status_code == 200
    assert not any("Traceback" in line for line in server.log)


def test_what_the_grace_time_does_not_suffice_for_is_told(start: Start) -> None:
    server = start(ATELIER_GRACE_SECONDS="0.5", ATELIER_LOAD="cdcgan")
    server.until_loaded()
    host, port = server.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=20)
    connection.putrequest("POST", "/v1/digits")
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", "50")
    connection.endheaders(b"{")
    time.sleep(0.2)
    server.process.send_signal(signal.SIGTERM)
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())["code"]) == (503, "model_unavailable")
    assert server.process.wait(20) == 0
    assert not any("Traceback" in line for line in server.log)


def test_health_answers_head_too(server: Server) -> None:
    for path in ("/health/live", "/health/ready"):
        answer = server.client.head(path)
        assert (answer.status_code, answer.content) == (200, b"")


def test_compressed_bodies_are_told_so(server: Server) -> None:
    answer = server.client.post("/v1/digits", content=b"x", headers={"Content-Type": "application/json", "Content-Encoding": "gzip"})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


def test_an_address_is_believed_of_trusted_proxies_only(start: Start) -> None:
    server = start(ATELIER_RATE_LIMIT="2/hour", ATELIER_LOAD="cdcgan")
    server.until_loaded()
    statuses = [server.client.get("/v1/models", headers={"X-Forwarded-For": f"1.2.3.{turn}"}).status_code for turn in range(4)]
    assert statuses == [200, 200, 429, 429]
    behind = start(ATELIER_RATE_LIMIT="2/hour", ATELIER_LOAD="cdcgan", FORWARDED_ALLOW_IPS="127.0.0.1")
    behind.until_loaded()
    assert {behind.client.get("/v1/models", headers={"X-Forwarded-For": f"1.2.3.{turn}"}).status_code for turn in range(4)} == {200}
