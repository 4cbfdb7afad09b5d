"""The service on Ray Serve, on three nodes: nothing is lost when replicas and nodes are, and when their number changes.

That it answers as a single process does is what the other tests show: make test-cluster.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from clustered import Served
from support import MODELS

LOAD = "vae"
"""It embeds, reconstructs and generates: three deployments."""
CALLERS = 4


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    running = Served(load=LOAD)
    running.run(replicas="2")
    assert running.until_loaded().status_code == 200
    yield running
    running.stop()


class Callers:
    """Some that ask all the time, and once more where an answer was a 5xx or did not come.

    Attributes:
        answered: requests with an answer, at the first or the second try.
        lost: what became of the others.
    """

    def __init__(self, url: str, digit: bytes) -> None:
        self.url, self.digit = url, digit
        self.answered, self.again, self.lost = 0, 0, list[str]()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(CALLERS)]

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        self.until(self.answered + 10)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def until(self, answered: int) -> None:
        """Waits until so many were answered."""
        deadline = time.monotonic() + 120
        while self.answered < answered and not self.lost and time.monotonic() < deadline:
            time.sleep(0.05)

    def _ask(self) -> None:
        with httpx.Client(base_url=self.url, timeout=120) as client:
            while not self._stop.is_set():
                first = self._once(client)
                if first:
                    self.again += 1
                    time.sleep(1)
                    if second := self._once(client):
                        self.lost.append(f"{first}, then {second}")
                        continue
                self.answered += 1

    def _once(self, client: httpx.Client) -> str:
        """What went wrong."""
        try:
            answer = client.post("/v1/embed", files={"image": self.digit})
        except httpx.TransportError as error:
            return repr(error)
        return "" if answer.status_code == 200 else f"{answer.status_code} {answer.text}"


def replicas(task: str) -> list[int]:
    """The processes of a task's replicas."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                title = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if title.startswith(b"ray::ServeReplica:") and f":{task}".encode() in title:
                found.append(int(folder.name))
    return found


@pytest.mark.few
def test_a_killed_replica_loses_nothing_that_is_asked_for_again(served: Served, digit: bytes) -> None:
    with Callers(served.url, digit) as callers:
        os.kill(replicas("embed")[0], signal.SIGKILL)
        callers.until(callers.answered + 50)
    assert callers.lost == []
    assert callers.answered > 50


@pytest.mark.few
def test_a_killed_node_loses_nothing_that_is_asked_for_again(served: Served, digit: bytes) -> None:
    with Callers(served.url, digit) as callers:
        served.kill_node()
        callers.until(callers.answered + 50)
    assert callers.lost == []
    served.add_node()
    assert served.until_loaded().status_code == 200


def test_replicas_come_and_go_without_errors(served: Served, digit: bytes) -> None:
    with Callers(served.url, digit) as callers:
        for number in (1, 2, 1):
            served.run(replicas=str(number))
            deadline = time.monotonic() + 60
            while len(replicas("embed")) != number and time.monotonic() < deadline:
                time.sleep(0.1)
            assert len(replicas("embed")) == number
            callers.until(callers.answered + 30)
    assert (callers.lost, callers.again) == ([], 0)


def test_a_models_folder_is_read_again_by_all(served: Served) -> None:
    refused = served.client.post("/v1/models/reload")
    assert refused.json()["code"] == "forbidden"
    served.run(replicas="2", admin_keys="chief")
    served.until_loaded()
    answer = served.client.post("/v1/models/reload", headers={"Authorization": "Bearer chief"})
    assert answer.json() == {"added": [], "replaced": [], "removed": [], "unchanged": ["vae"], "failed": {}}


@pytest.mark.few
def test_series_of_all_replicas_are_told_apart(served: Served, digit: bytes) -> None:
    def asked() -> float:
        names = ("atelier_request_duration_seconds_count{", 'task="embed"', 'status="200"')
        lines = [line for line in served.client.get("/metrics").text.splitlines() if all(name in line for name in names)]
        assert len(set(lines)) == len(lines)
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    before = asked()
    for _ in range(20):
        assert served.client.post("/v1/embed", files={"image": digit}).status_code == 200
    assert asked() == before + 20
    info = [line for line in served.client.get("/metrics").text.splitlines() if line.startswith("atelier_model_info{")]
    assert sum('task="embed"' in line and "replica=" in line for line in info) >= 2


@pytest.mark.few
def test_what_is_not_served_says_so(served: Served) -> None:
    caption = served.client.post("/v1/caption", files={"image": (MODELS / "vae" / "samples.png").read_bytes()})
    assert (caption.status_code, caption.json()["code"]) == (503, "model_unavailable")


@pytest.mark.few
def test_methods_are_those_of_a_single_process(served: Served) -> None:
    assert served.client.head("/health/ready").status_code == 200
    for path in ("/v1/models", "/v2/health/ready", "/v2/models/embed.vae"):
        answer = served.client.head(path)
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET")


@pytest.mark.few
def test_what_is_refused_before_any_task_is_counted(served: Served, digit: bytes) -> None:
    answer = served.client.post("/v1/embed", files={"image": digit}, data={"x": "y" * 20_000_000})
    assert answer.json()["code"] == "image_too_large"
    lines = served.client.get("/metrics").text.splitlines()
    assert sum(line.startswith("atelier_rejected_total{") and 'reason="image_too_large"' in line for line in lines) == 1
