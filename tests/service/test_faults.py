"""What goes wrong beneath the server, and what it does then: docs/operations.md has a line for each."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from built import DETECTED, NORMAL, SIDE, brightness, build, negative
from onnx import TensorProto, helper
from PIL import Image
from support import MODELS, ROOT, Server, encoded

from service import access
from service.access import Window
from service.contract import manifest as manifests
from service.contract.manifest import Fit
from service.engine import batching
from service.engine.batching import Batcher, Closed, Outcome
from service.engine.session import BadOutput, Placement, Session

Start = Callable[..., Server]
Nodes = list[onnx.NodeProto]

FOR_EVER = 10**12
BLACK, WHITE = (encoded(Image.new("RGB", (SIDE, SIDE), colour)) for colour in ("black", "white"))
"""What the graphs below do with a black picture is what they are for; on a white one they fail."""


def constant(name: str, value: np.ndarray) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=onnx.numpy_helper.from_array(value))


def levels() -> Nodes:
    """The highest level of each picture, as floats (batch,)."""
    return [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        constant("axes", np.array([1, 2, 3])),
        helper.make_node("ReduceMax", ["floats", "axes"], ["levels"], keepdims=0),
        constant("half", np.array(127, np.float32)),
        helper.make_node("Greater", ["levels", "half"], ["bright"]),
    ]


def throwing() -> Nodes:
    """Looks the level up in a table that is too short."""
    return [
        *levels(),
        constant("table", np.zeros(128, np.uint8)),
        helper.make_node("Cast", ["levels"], ["places"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "places"], ["nothing"]),
        constant("each", np.array([-1, 1, 1, 1])),
        helper.make_node("Reshape", ["nothing", "each"], ["zeros"]),
        helper.make_node("Add", ["images", "zeros"], ["out"]),
    ]


def hanging(when: str = "bright") -> Nodes:
    """Counts to a number that it never reaches."""
    counting = helper.make_graph(
        [helper.make_node("Identity", ["goes_on"], ["still"]), helper.make_node("Add", ["count", "one"], ["next"])],
        "counting",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, ()),
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, ()),
            helper.make_tensor_value_info("count", TensorProto.FLOAT, ()),
        ],
        [helper.make_tensor_value_info("still", TensorProto.BOOL, ()), helper.make_tensor_value_info("next", TensorProto.FLOAT, ())],
    )
    return [
        *levels(),
        helper.make_node("Not", ["bright"], ["dark"]),
        helper.make_node("Cast", [when], ["truth"], to=TensorProto.INT64),
        constant("all", np.array([0])),
        helper.make_node("ReduceMax", ["truth", "all"], ["any"], keepdims=0),
        constant("many", np.array(FOR_EVER)),
        helper.make_node("Mul", ["any", "many"], ["turns"]),
        constant("yes", np.array(True)),
        constant("one", np.array(1, np.float32)),
        constant("none", np.array(0, np.float32)),
        helper.make_node("Loop", ["turns", "yes", "none"], ["counted"], body=counting),
        helper.make_node("Mul", ["counted", "none"], ["nothing"]),
        helper.make_node("Cast", ["nothing"], ["zero"], to=TensorProto.UINT8),
        helper.make_node("Add", ["images", "zero"], ["out"]),
    ]


def losing() -> Nodes:
    """Leaves bright pictures out: the batch comes back with fewer rows than it had."""
    return [*levels(), helper.make_node("Not", ["bright"], ["dark"]), helper.make_node("Compress", ["images", "dark"], ["out"], axis=0)]


def undefined() -> Nodes:
    """As `brightness`, but the score of a bright picture is the logarithm of a negative number."""
    return [
        *brightness()[:-2],
        helper.make_node("ReduceMax", ["errors", "inner"], ["highest"], keepdims=0),
        constant("half", np.array(127, np.float32)),
        helper.make_node("Sub", ["half", "highest"], ["left"]),
        helper.make_node("Log", ["left"], ["scores"]),
        helper.make_node("Mul", ["images", "black"], ["reconstruction"]),
    ]


def translator(models: Path, name: str, nodes: Nodes) -> None:
    build(models, name, nodes, "translate", "translator", "translated")


def translated(server: Server, model: str, picture: bytes, **headers: str) -> httpx.Response:
    return server.client.post("/v1/translate", files={"image": picture}, data={"model": model}, headers=headers)


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


# models that fail


def test_a_graph_that_throws_fails_that_request_only(start: Start, tmp_path: Path) -> None:
    translator(tmp_path, "throws", throwing())
    server = start(ATELIER_MODELS=str(tmp_path))
    assert server.until_loaded().status_code == 200
    assert translated(server, "throws", BLACK).status_code == 200
    failed = translated(server, "throws", WHITE, **{"X-Request-Id": "mine"})
    assert code(failed) == (500, "model_failed")
    assert "Traceback" not in failed.text
    assert server.said("a run failed mine")
    assert translated(server, "throws", BLACK).status_code == 200
    assert server.client.get("/health/ready").status_code == 200


def test_a_run_that_hangs_is_ended(start: Start, tmp_path: Path) -> None:
    translator(tmp_path, "hangs", hanging())
    translator(tmp_path, "other", negative())
    server = start(ATELIER_MODELS=str(tmp_path), ATELIER_RUN_SECONDS="1.5", ATELIER_MAX_BATCH="1")
    server.until_loaded()
    with ThreadPoolExecutor() as pool:
        stuck = pool.submit(translated, server, "hangs", WHITE)
        while server.metric("atelier_queue_depth", model="hangs") < 1:
            time.sleep(0.01)
        behind = pool.submit(translated, server, "hangs", BLACK)
        assert code(translated(server, "hangs", BLACK, **{"X-Request-Timeout": "0.2"})) == (504, "deadline_exceeded")
        assert translated(server, "other", BLACK).status_code == 200
        assert server.client.get("/health/live").status_code == 200
        assert not stuck.done()
        assert code(stuck.result()) == (500, "model_failed")
        assert behind.result().status_code == 200
    assert server.said("a run is ended after")
    assert not any("the session broke" in line for line in server.log)
    assert server.client.get("/health/ready").status_code == 200


def test_a_stop_does_not_wait_for_a_run_that_hangs(start: Start, tmp_path: Path) -> None:
    translator(tmp_path, "hangs", hanging())
    server = start(ATELIER_MODELS=str(tmp_path), ATELIER_GRACE_SECONDS="0.5")
    server.until_loaded()
    with ThreadPoolExecutor() as pool:
        stuck = pool.submit(translated, server, "hangs", WHITE)
        while server.metric("atelier_queue_depth", model="hangs") < 1:
            time.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        assert code(stuck.result()) == (503, "model_unavailable")
    assert server.process.wait(30) == 0


def test_a_graph_that_hangs_when_it_is_opened_is_not_served(start: Start, tmp_path: Path) -> None:
    translator(tmp_path, "hangs", hanging("dark"))
    translator(tmp_path, "other", negative())
    server = start(ATELIER_MODELS=str(tmp_path), ATELIER_RUN_SECONDS="0.2")
    health = {model["name"]: model for model in server.until_loaded().json()["models"]}
    assert "the first run failed (it took too long)" in health["hangs"]["failure"]
    assert translated(server, "other", BLACK).status_code == 200


DEAF = """
import sys, time
from service.engine.session import Session
run = Session.run
def deaf(self, inputs, beside):
    if len(inputs["images"]) == 1 and inputs["images"].max() == 255:
        time.sleep(3600)
    return run(self, inputs, beside)
Session.run = deaf
from service.__main__ import main
sys.exit(main([]))
"""
"""A server in which a run on a white picture goes on whatever it is told."""


def test_a_run_that_cannot_be_ended_ends_the_process(start: Start, tmp_path: Path) -> None:
    translator(tmp_path, "deaf", negative())
    server = start("-c", DEAF, ATELIER_MODELS=str(tmp_path), ATELIER_RUN_SECONDS="0.4", ATELIER_GRACE_SECONDS="1")
    server.until_loaded()
    with ThreadPoolExecutor() as pool:
        stuck = pool.submit(translated, server, "deaf", WHITE)
        assert code(stuck.result()) == (503, "model_unavailable")
    assert server.process.wait(30) == 4
    assert server.said("model deaf is lost: a run did not end")


def test_numbers_that_are_none_are_no_answer(start: Start, tmp_path: Path) -> None:
    whole = Fit(height=SIDE, width=SIDE, channels=3, mode="stretch")
    build(tmp_path, "undefined", undefined(), "anomaly", "detector", DETECTED, normal=NORMAL, fit=whole, default_for=("anomaly",))
    server = start(ATELIER_MODELS=str(tmp_path))
    server.until_loaded()
    assert server.client.post("/v1/anomaly", files={"image": BLACK}).status_code == 200
    assert code(server.client.post("/v1/anomaly", files={"image": WHITE})) == (500, "model_failed")
    tensor = {"name": "images", "shape": [1, SIDE, SIDE, 3], "datatype": "UINT8", "data": [255] * (SIDE * SIDE * 3)}
    assert code(server.client.post("/v2/models/anomaly.undefined/infer", json={"inputs": [tensor]})) == (500, "model_failed")
    assert server.said("not all numbers of scores are finite")


def opened(folder: Path) -> Session:
    graph = manifests.read(folder).graphs["graph"]
    return Session(folder / graph.file, graph, Placement("cpu", 1))


def rows(*bright: bool) -> dict[str, np.ndarray]:
    return {"images": np.stack([np.full((SIDE, SIDE, 3), 255 if one else 9, np.uint8) for one in bright])}


async def together(batcher: Batcher, *requests: dict[str, np.ndarray]) -> list[Outcome | BaseException]:
    """What becomes of requests that share a run: a first one keeps the session busy until all are there."""
    first = asyncio.create_task(batcher.run(rows(*[False] * 32)))
    await asyncio.sleep(0)
    results = await asyncio.gather(*(batcher.run(request) for request in requests), return_exceptions=True)
    await first
    return results


def test_rows_that_are_lost_are_never_made_up_with_those_of_others(tmp_path: Path) -> None:
    translator(tmp_path, "loses", losing())

    async def main() -> None:
        batcher = Batcher(opened(tmp_path / "loses"), most=32, limit=100)
        results = await together(batcher, rows(False), rows(True, False), rows(False))
        assert {type(result) for result in results} <= {Outcome, BadOutput}
        assert isinstance(results[1], BadOutput)
        assert str(results[1]).startswith("translated came back as")
        assert (await batcher.run(rows(False, False))).outputs["translated"].shape == (2, SIDE, SIDE, 3)
        batcher.close()

    asyncio.run(main())


def test_of_a_shared_run_only_the_request_fails_whose_numbers_are_none(tmp_path: Path) -> None:
    whole = Fit(height=SIDE, width=SIDE, channels=3, mode="stretch")
    build(tmp_path, "undefined", undefined(), "anomaly", "detector", DETECTED, normal=NORMAL, fit=whole)

    async def main() -> None:
        batcher = Batcher(opened(tmp_path / "undefined"), most=32, limit=100)
        results = await together(batcher, rows(False), rows(True), rows(False))
        assert [type(result) for result in results] == [Outcome, BadOutput, Outcome]
        batcher.close()

    asyncio.run(main())


class Deaf:
    """A session that goes on whatever it is told."""

    def __init__(self, session: Session) -> None:
        self.graph, self.provider, self.precision = session.graph, session.provider, session.precision
        self.lanes = session.lanes
        self.begun, self.free, self.told = threading.Event(), threading.Event(), asyncio.Event()

    def run(self, given: object, beside: bool) -> dict[str, np.ndarray]:
        self.begun.set()
        self.free.wait(30)
        return {}

    def stop(self, threads: object = None) -> None:
        self.told.set()


def test_while_a_run_is_overdue_its_model_is_not_ready(tmp_path: Path) -> None:
    translator(tmp_path, "other", negative())

    async def main() -> None:
        lost: list[str] = []
        session = Deaf(opened(tmp_path / "other"))
        batcher: Any = Batcher(session, most=1, limit=100, lost=lost.append, longest=0.2)  # type: ignore[arg-type]
        waiting = [asyncio.create_task(batcher.run(rows(False))) for _ in range(3)]
        await session.told.wait()
        assert (batcher.healthy, lost) == (False, [])
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(result) for result in results} == {Closed}
        assert len(lost) == 1
        session.free.set()
        await asyncio.to_thread(batcher._threads[0].shutdown)
        assert not batcher.healthy

    asyncio.run(main())


def test_a_run_that_ends_as_it_becomes_overdue_leaves_its_model_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else would make it ready again: where a model is not, no request has another run begin."""
    translator(tmp_path, "other", negative())

    async def main() -> None:
        session = Deaf(opened(tmp_path / "other"))
        batcher: Any = Batcher(session, most=1, limit=100)  # type: ignore[arg-type]
        task = asyncio.create_task(batcher.run(rows(False)))
        await asyncio.to_thread(session.begun.wait, 10)
        now = time.perf_counter

        def later() -> float:
            if threading.current_thread() is threading.main_thread():
                session.free.set()  # the run ends while it is looked at
                time.sleep(0.1)
            return now() + 1.5

        with monkeypatch.context() as patch:
            patch.setattr(batching.time, "perf_counter", later)
            batcher._watch(asyncio.get_running_loop(), 1.0)
        await asyncio.gather(task, return_exceptions=True)
        assert session.told.is_set()
        assert batcher.healthy
        batcher.close()

    asyncio.run(main())


# disks


def large() -> bytes:
    """A picture of more than a megabyte."""
    return encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (900, 900, 3), np.uint8)))


def test_no_request_needs_room_on_a_disk(start: Start, tmp_path: Path) -> None:
    """The process may write to no file at all, as on a disk that is full."""
    shutil.copytree(MODELS / "vae", tmp_path / "vae")
    server = start(ATELIER_MODELS=str(tmp_path), ATELIER_ADMIN_KEYS="admin")
    server.until_loaded()
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (0, 0))
    assert len(large()) > 2_000_000
    assert server.client.post("/v1/embed", files={"image": large()}).status_code == 200
    assert server.client.post("/v1/generate", json={"n": 64}, headers={"Accept": "image/png"}).status_code == 200
    assert reload(server)["unchanged"] == ["vae"]


def reload(server: Server) -> dict[str, Any]:
    return dict(server.client.post("/v1/models/reload", headers={"Authorization": "Bearer admin"}).raise_for_status().json())


def test_a_disk_that_is_full_while_a_model_is_copied(start: Start, tmp_path: Path) -> None:
    """The new graph ends where the room did."""
    shutil.copytree(MODELS / "cdcgan", tmp_path / "cdcgan")
    server = start(ATELIER_MODELS=str(tmp_path), ATELIER_ADMIN_KEYS="admin")
    server.until_loaded()
    before = server.client.post("/v1/digits", json={"digits": "42", "seed": 7})
    manifest = json.loads((MODELS / "cgan" / "manifest.json").read_text()) | {"name": "cdcgan", "default_for": ["digits"]}
    (tmp_path / "cdcgan" / "manifest.json").write_text(json.dumps(manifest))
    copying = f"ulimit -f 100; cat {MODELS / 'cgan' / 'decoder.onnx'} > {tmp_path / 'cdcgan' / 'decoder.onnx'}"
    assert subprocess.run(["bash", "-c", copying], capture_output=True, check=False).returncode != 0
    assert "sha256" in reload(server)["failed"]["cdcgan"]
    after = server.client.post("/v1/digits", json={"digits": "42", "seed": 7})
    assert (after.content, after.headers["x-model"]) == (before.content, before.headers["x-model"])
    assert server.client.get("/health/ready").status_code == 200
    shutil.copy(MODELS / "cgan" / "decoder.onnx", tmp_path / "cdcgan" / "decoder.onnx")  # there is room again
    assert reload(server)["replaced"] == ["cdcgan"]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def until_answered(url: str, process: subprocess.Popen[Any]) -> None:
    """Waits until the server behind an address is ready."""
    while process.poll() is None:
        try:
            if httpx.get(f"{url}/health/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise RuntimeError(f"ended with {process.returncode}")


def test_a_log_that_cannot_be_written_stops_nothing() -> None:
    port = free_port()
    settings = {"ATELIER_MODELS": str(MODELS), "ATELIER_LOAD": "cdcgan", "ATELIER_PORT": str(port)}
    with Path("/dev/full").open("wb") as full:
        process = subprocess.Popen([sys.executable, "-m", "service"], cwd=ROOT, env=os.environ | settings, stdout=full, stderr=full)
    try:
        until_answered(f"http://127.0.0.1:{port}", process)
        assert httpx.post(f"http://127.0.0.1:{port}/v1/digits", json={"digits": "1"}).status_code == 200
    finally:
        process.terminate()
    assert process.wait(30) == 0


@pytest.mark.parametrize("how", ["emptied", "gone"])
def test_a_models_folder_that_is_not_mounted_any_more_changes_nothing(start: Start, tmp_path: Path, how: str) -> None:
    models = tmp_path / "models"
    shutil.copytree(MODELS / "cdcgan", models / "cdcgan")
    server = start(ATELIER_MODELS=str(models), ATELIER_ADMIN_KEYS="admin")
    server.until_loaded()
    models.rename(tmp_path / "elsewhere")
    if how == "emptied":
        models.mkdir()
    done = reload(server)
    assert (done["removed"], done["unchanged"]) == ([], ["cdcgan"])
    assert str(models) in done["failed"]
    assert server.client.post("/v1/digits", json={"digits": "1"}).status_code == 200
    health = server.client.get("/health/ready")
    assert health.status_code == 200
    assert any(str(models) in model.get("failure", "") for model in health.json()["models"])
    shutil.rmtree(models, ignore_errors=True)
    (tmp_path / "elsewhere").rename(models)
    assert reload(server)["failed"] == {}


# clocks


JUMPING = """
import signal, sys, time
now, ahead = time.time, [0.0]
time.time = lambda: now() + ahead[0]
time.time_ns = lambda: int(time.time() * 1e9)
def jump(number, frame): ahead[0] = {signal.SIGUSR1: 86400.0, signal.SIGUSR2: -86400.0}[number]
for number in (signal.SIGUSR1, signal.SIGUSR2): signal.signal(number, jump)
from service.__main__ import main
sys.exit(main([]))
"""
"""A server whose clock jumps a day ahead, or behind, when it is told to."""


@pytest.mark.parametrize("way", [signal.SIGUSR1, signal.SIGUSR2])
def test_clocks_may_jump(start: Start, way: signal.Signals) -> None:
    server = start("-c", JUMPING, ATELIER_LOAD="cdcgan", ATELIER_RATE_LIMIT="4/hour", ATELIER_API_KEYS="one,two", ATELIER_MAX_BATCH="1")
    server.until_loaded()

    def ask(key: str, digits: str = "8", **headers: str) -> httpx.Response:
        return server.client.post("/v1/digits", json={"digits": digits}, headers={"Authorization": f"Bearer {key}", **headers})

    with ThreadPoolExecutor() as pool:
        waiting = [pool.submit(ask, "one", "8" * 64, **{"X-Request-Timeout": "60"}) for _ in range(4)]
        while server.metric("atelier_queue_depth") < 1 and not waiting[0].done():
            time.sleep(0.005)
        server.process.send_signal(way)
        assert {answer.result().status_code for answer in waiting} == {200}
    refused = ask("one")
    assert code(refused) == (429, "rate_limited")  # nor does a jump give a key its rate anew
    assert 3000 < int(refused.headers["retry-after"]) <= 3600
    assert [ask("two").status_code for _ in range(5)] == [200] * 4 + [429]
    assert server.stop() == 0


def test_a_rate_holds_in_any_stretch_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(access.time, "monotonic", lambda: now[0])
    window = Window(2, 10.0)
    assert [window.wait("a"), window.wait("a"), window.wait("a")] == [0, 0, 10]
    now[0] += 4
    assert (window.wait("a"), window.wait("b")) == (6, 0)
    now[0] += 6
    assert [window.wait("a"), window.wait("a"), window.wait("a")] == [0, 0, 10]
    for caller in range(10_000):  # who never comes again is forgotten
        now[0] += 1
        window.wait(str(caller))
    assert len(window._let_in) <= 1000


# the process


SUPERVISOR = f"""
import subprocess, sys
while True:
    process = subprocess.Popen([{sys.executable!r}, "-m", "service"])
    print(process.pid, flush=True)
    process.wait()
"""


@pytest.fixture
def supervised() -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address of a server that a supervisor starts again whenever it ends, and the supervisor, which tells each one's number."""
    port = free_port()
    settings = {"ATELIER_MODELS": str(MODELS), "ATELIER_LOAD": "cdcgan", "ATELIER_PORT": str(port)}
    supervisor = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR],
        cwd=ROOT,
        env=os.environ | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    yield f"http://127.0.0.1:{port}", supervisor
    os.killpg(supervisor.pid, signal.SIGKILL)
    supervisor.communicate()


def test_a_kill_loses_only_what_was_not_answered(supervised: tuple[str, subprocess.Popen[str]]) -> None:
    url, supervisor = supervised
    assert supervisor.stdout is not None
    first = int(supervisor.stdout.readline())
    until_answered(url, supervisor)
    body = {"digits": "42", "seed": 7}
    expected = httpx.post(f"{url}/v1/digits", json=body).content
    over, answers, refused, lost = threading.Event(), list[bytes](), list[str](), list[str]()

    def ask() -> None:
        while not over.is_set():
            try:
                answer = httpx.post(f"{url}/v1/digits", json=body)
            except httpx.TransportError as error:
                lost.append(type(error).__name__)
                time.sleep(0.05)
            else:
                answers.append(answer.content) if answer.status_code == 200 else refused.append(answer.json()["code"])

    callers = [threading.Thread(target=ask) for _ in range(4)]
    for caller in callers:
        caller.start()
    while len(answers) < 20:
        time.sleep(0.01)
    os.kill(first, signal.SIGKILL)
    assert int(supervisor.stdout.readline()) != first
    until_answered(url, supervisor)
    before = len(answers)
    while len(answers) < before + 20:
        time.sleep(0.01)
    over.set()
    for caller in callers:
        caller.join()
    assert lost
    assert set(answers) == {expected}  # each answer is whole and the same, from whichever process
    assert set(refused) <= {"model_unavailable"}  # while the models are being opened
