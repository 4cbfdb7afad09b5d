"""Sessions and batches, on the shipped graphs."""

from __future__ import annotations

import asyncio
import os
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from support import MODELS

from service.contract.manifest import Manifest, read
from service.engine import latents
from service.engine.batching import Batcher, Closed, DeadlinePassed, Job, Outcome, QueueFull
from service.engine.cpu import NICENESS, SLOW_NICENESS, usable_cores
from service.engine.session import Placement, Session, SessionBroken, SessionError
from service.engine.workers import Workers

PLACEMENT = Placement("cpu", usable_cores())


@pytest.fixture
def manifest() -> Manifest:
    return read(MODELS / "cdcgan")


@pytest.fixture
def session(manifest: Manifest) -> Session:
    graph = manifest.graphs["decoder"]
    return Session(MODELS / "cdcgan" / graph.file, graph, PLACEMENT)


def inputs(number: int, seed: int = 0) -> dict[str, np.ndarray]:
    return {"latents": latents.draw(seed, number, 128), "labels": np.arange(number, dtype=np.int32) % 10}


def test_a_row_does_not_depend_on_its_batch_mates(session: Session) -> None:
    whole = session.run(inputs(64))["images"]
    for first, last in ((0, 1), (5, 7), (10, 41), (63, 64)):
        part = session.run({name: array[first:last] for name, array in inputs(64).items()})["images"]
        assert np.array_equal(part, whole[first:last])


@pytest.mark.parametrize("model", ["vae", "vae-map", "autoencoder"])
def test_an_embedding_does_not_depend_on_its_batch_mates(model: str) -> None:
    manifest = read(MODELS / model)
    session = Session(MODELS / model / "encoder.onnx", manifest.graphs["encoder"], PLACEMENT)
    pictures = np.random.default_rng(0).integers(0, 256, (64, 28, 28, 1), np.uint8)
    whole = session.run({"images": pictures})["embedding"]
    for number in (1, 2, 3, 7, 31):
        assert np.array_equal(session.run({"images": pictures[:number]})["embedding"], whole[:number])


def test_runs_side_by_side_are_the_same_to_the_bit(manifest: Manifest) -> None:
    graph = manifest.graphs["decoder"]
    session = Session(MODELS / "cdcgan" / graph.file, graph, Placement("cpu", 3))
    whole = session.run(inputs(10))["images"]
    assert (session.lanes, session.sizes) == (1, [1, 64])
    session.spread()
    assert (session.lanes, session.sizes) == (3, [1])
    for beside in (False, True):
        assert np.array_equal(session.run(inputs(10), beside)["images"], whole)
    wrong = {name: array[:1] for name, array in inputs(10).items()} | {"labels": np.array([99], np.int32)}
    with pytest.raises(Exception, match="out of"):
        session.run(wrong)

    async def main() -> None:
        batcher = Batcher(session, most=64, limit=100, seconds=0.016)
        began = time.perf_counter()
        outcomes = await asyncio.gather(*(batcher.run(inputs(10)) for _ in range(6)))
        took = time.perf_counter() - began
        for outcome in outcomes:
            assert np.array_equal(outcome.outputs["images"], whole)
            assert len(outcome.parts) == 1
            assert 0 < outcome.queued + outcome.ran <= took  # what runs at the same time is counted once
        threads = [thread.native_id for thread in threading.enumerate() if thread.name.startswith("session-decoder")]
        assert len(threads) == 3
        assert {os.getpriority(os.PRIO_PROCESS, thread or 0) for thread in threads} == {SLOW_NICENESS}
        batcher.close()

    asyncio.run(main())


def test_a_single_thread_has_no_runs_side_by_side(manifest: Manifest) -> None:
    graph = manifest.graphs["decoder"]
    session = Session(MODELS / "cdcgan" / graph.file, graph, Placement("cpu", 1))
    session.spread()
    assert (session.lanes, session.sizes) == (1, [1])


def test_many_requests_at_once_each_get_their_own(session: Session) -> None:
    async def main() -> None:
        batcher = Batcher(session, most=16, limit=100)
        requests = [inputs(number, seed) for seed, number in enumerate([1, 3, 40, 2, 1, 16, 17, 5])]
        outcomes = await asyncio.gather(*(batcher.run(request) for request in requests))
        for request, outcome in zip(requests, outcomes, strict=True):
            assert np.array_equal(outcome.outputs["images"], session.run(request)["images"])
        assert batcher.depth == 0
        batcher.close()

    asyncio.run(main())


def test_waiting_requests_share_a_run(session: Session) -> None:
    async def main() -> None:
        sizes: list[int] = []
        free = _held(session)
        batcher = Batcher(_counted(session, sizes), most=64, limit=100)
        first = asyncio.create_task(batcher.run(inputs(1)))
        await asyncio.sleep(0.1)  # it runs, alone
        others = [asyncio.create_task(batcher.run(inputs(1, seed))) for seed in range(32)]
        await asyncio.sleep(0)
        free.set()
        await asyncio.gather(first, *others)
        assert sizes == [1, 32]
        batcher.close()

    asyncio.run(main())


@pytest.mark.parametrize(("seconds", "begun"), [(None, [8]), (60.0, [1, 7])])
def test_what_comes_in_one_turn_shares_a_run_on_a_gpu(session: Session, seconds: float | None, begun: list[int]) -> None:
    """On a CPU, whose runs are longer, the first is run at once."""

    async def main() -> None:
        sizes, free = list[int](), _held(session)
        batcher = Batcher(_counted(session, sizes), most=16, limit=100, seconds=seconds)

        async def long_turn() -> None:
            threading.Event().wait(0.2)

        coming = [long_turn() if number == 1 else batcher.run(inputs(1, number)) for number in range(9)]
        tasks = [asyncio.create_task(one) for one in coming]
        await asyncio.sleep(0)
        free.set()
        await asyncio.gather(*tasks)
        assert sizes == begun
        batcher.close()

    asyncio.run(main())


def test_what_came_in_a_turn_that_is_over_does_not_wait_for_another(session: Session) -> None:
    """One request comes in each turn, so that one is always being gathered, and none is a full run."""

    async def main() -> None:
        sizes = list[int]()
        batcher = Batcher(_counted(session, sizes), most=64, limit=100)
        tasks = list[asyncio.Task[Outcome]]()
        for number in range(40):
            tasks.append(asyncio.create_task(batcher.run(inputs(1, number))))
            await asyncio.sleep(0)
            threading.Event().wait(0.02)  # the turn is long, and the session's thread has its time
        begun = sum(sizes)
        await asyncio.gather(*tasks)
        assert begun >= 20
        batcher.close()

    asyncio.run(main())


def test_a_run_that_hangs_is_ended_though_the_watch_looked_as_it_was_gathered(session: Session) -> None:
    free, told = threading.Event(), list[object]()

    class Hanging(Twofold):
        def stop(self, threads: set[int] | None = None) -> None:
            told.append(threads)
            free.set()

    async def main() -> None:
        batcher, loop = Batcher(Hanging(session, partial(free.wait, 10)), most=4, limit=100, longest=0.4), asyncio.get_running_loop()
        batcher._watched = True  # since an earlier request
        task = asyncio.create_task(batcher.run(inputs(1)))
        loop.call_soon(batcher._watch, loop, 0.4)
        await task
        assert len(told) == 1
        batcher.close()

    asyncio.run(main())


@pytest.mark.parametrize("ends", [lambda: None, partial(pow, 0, -1)])
def test_a_run_that_outlasts_the_event_loop_ends_in_silence(
    session: Session, ends: Callable[[], object], caplog: pytest.LogCaptureFixture
) -> None:
    """As after a stop, which waits for `ATELIER_GRACE_SECONDS` only."""
    begun, free = threading.Event(), threading.Event()

    def run() -> None:
        begun.set()
        free.wait(10)
        ends()

    async def main() -> None:
        batcher = Batcher(Twofold(session, run), most=4, limit=100)
        coming = asyncio.create_task(batcher.run(inputs(1)))
        await asyncio.to_thread(begun.wait, 10)
        batcher.close()
        with pytest.raises(Closed):
            await coming

    asyncio.run(main())
    free.set()
    for thread in threading.enumerate():
        if thread.name.startswith("session-"):
            thread.join(10)
    assert not caplog.records


def _steps(more: list[int], seen: list[np.ndarray]) -> Callable[[dict[str, np.ndarray]], dict[str, np.ndarray] | None]:
    """Goes on with so many rows each time, to the end of the list, and keeps what it was given."""
    following = iter(more)

    def go_on(outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray] | None:
        seen.append(outputs["images"])
        return next((inputs(number, number) for number in following), None)

    return go_on


@pytest.mark.parametrize("seconds", [None, 60.0])
def test_all_that_goes_on_shares_the_next_run(session: Session, seconds: float | None) -> None:
    whole = {number: session.run(inputs(number, number))["images"] for number in (1, 2, 3)}

    async def main() -> None:
        sizes, watcher, free = list[int](), Watcher(), _held(session)
        batcher = Batcher(_counted(session, sizes), most=64, limit=100, seconds=seconds, observer=watcher)
        first = asyncio.create_task(batcher.run(inputs(1)))
        await asyncio.sleep(0.05)  # it runs, alone
        seen: list[list[np.ndarray]] = [[], [], []]
        ways = ([2, 3], [3], [1, 1, 1])
        tasks = [asyncio.create_task(batcher.run(inputs(1, 1), go_on=_steps(way, each))) for way, each in zip(ways, seen, strict=True)]
        await asyncio.sleep(0)
        free.set()
        outcomes = await asyncio.gather(*tasks)
        await first
        assert sizes == [1, 3, 2 + 3 + 1, 3 + 1, 1]
        for way, each, outcome in zip(ways, seen, outcomes, strict=True):
            assert [len(images) for images in each] == [1, *way]
            assert all(np.array_equal(images, whole[len(images)]) for images in each)
            assert np.array_equal(outcome.outputs["images"], whole[way[-1]])
            assert outcome.ran > 0
        assert len(watcher.waits) == 1 + 3 + 3 + 2 + 1
        assert sum(outcome.queued for outcome in outcomes) == pytest.approx(sum(watcher.waits[1:]))
        assert batcher.rows == batcher.depth == 0
        batcher.close()

    asyncio.run(main())


def test_rows_that_several_runs_made_go_on_together(session: Session) -> None:
    async def main() -> None:
        sizes, seen = list[int](), list[np.ndarray]()
        whole = session.run(inputs(9, 9))["images"]
        batcher = Batcher(_counted(session, sizes), most=4, limit=100)
        await batcher.run(inputs(9, 9), go_on=_steps([9], seen), joined=False)
        assert sizes == [4, 4, 1] * 2
        assert len(seen) == 2
        assert all(np.array_equal(images, whole) for images in seen)
        batcher.close()

    asyncio.run(main())


def test_what_cannot_go_on_fails_alone(session: Session) -> None:
    async def main() -> None:
        batcher, seen = Batcher(session, most=64, limit=100), list[np.ndarray]()
        coming = [batcher.run(inputs(1), go_on=lambda _: 1 // 0), batcher.run(inputs(2), go_on=_steps([2], seen))]  # type: ignore[arg-type, return-value]
        failed, outcome = await asyncio.gather(*coming, return_exceptions=True)
        assert isinstance(failed, ZeroDivisionError)
        assert isinstance(outcome, Outcome)
        assert len(seen) == 2
        assert (batcher.rows, batcher.healthy) == (0, True)
        batcher.close()

    asyncio.run(main())


@pytest.mark.parametrize("go_on", [lambda _: next(iter(())), lambda _: inputs(0), lambda _: {}])
def test_what_goes_on_with_nothing_fails(session: Session, go_on: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]) -> None:
    async def main() -> None:
        batcher = Batcher(session, most=64, limit=100)
        coming = asyncio.gather(batcher.run(inputs(1), go_on=go_on), batcher.run(inputs(1)), return_exceptions=True)
        failed, outcome = await asyncio.wait_for(coming, 10)
        assert isinstance(failed, RuntimeError | ValueError)
        assert isinstance(outcome, Outcome)
        assert batcher.rows == 0
        batcher.close()

    asyncio.run(main())


def test_time_in_runs_that_overlap_is_counted_once(manifest: Manifest) -> None:
    """Also where the one that began first ends last."""
    graph, took = manifest.graphs["decoder"], iter([0.5, 0.1])
    session = Session(MODELS / "cdcgan" / graph.file, graph, Placement("cpu", 2))
    session.spread()
    run = session.run

    def long(given: dict[str, np.ndarray], beside: bool) -> dict[str, np.ndarray]:
        time.sleep(next(took))
        return run(given, beside)

    async def main() -> None:
        session.run = long  # type: ignore[method-assign, assignment]
        batcher = Batcher(session, most=64, limit=100, seconds=0.016)
        began = time.perf_counter()
        outcome = await batcher.run(inputs(2))
        assert 0.5 < outcome.ran <= time.perf_counter() - began
        batcher.close()

    asyncio.run(main())


@pytest.mark.parametrize("lanes", [1, 2])
def test_a_session_that_breaks_after_the_end_is_not_opened_again(session: Session, lanes: int) -> None:
    begun, free, opened, lost = threading.Event(), threading.Event(), list[int](), list[str]()

    class Broken(Twofold):
        def run(self, given: dict[str, np.ndarray], beside: bool) -> dict[str, np.ndarray]:
            begun.set()
            free.wait(10)
            raise SessionBroken("too late")

        def stop(self, threads: set[int] | None = None) -> None: ...

    def reopen() -> Session:
        opened.append(1)
        return session

    async def main() -> None:
        broken = Broken(session, lambda: None)
        broken.lanes = lanes
        batcher = Batcher(broken, most=4, limit=100, reopen=reopen, lost=lost.append)  # type: ignore[arg-type]
        task = asyncio.create_task(batcher.run(inputs(1)))
        await asyncio.to_thread(begun.wait, 10)
        batcher.close()
        with pytest.raises(Closed):
            await task
        free.set()
        for thread in batcher._threads:
            await asyncio.to_thread(thread.shutdown)
        assert batcher.session is None

    asyncio.run(main())
    assert not opened
    assert not lost


@pytest.mark.parametrize("ends", ["cancelled", "closed"])
def test_nothing_goes_on_for_a_caller_that_is_gone(session: Session, ends: str) -> None:
    async def main() -> None:
        sizes, begun, free = list[int](), threading.Event(), threading.Event()
        batcher = Batcher(_counted(session, sizes), most=64, limit=100)

        def go_on(outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            begun.set()
            free.wait(10)
            return inputs(1)

        task = asyncio.create_task(batcher.run(inputs(1), go_on=go_on))
        await asyncio.to_thread(begun.wait, 10)
        if ends == "cancelled":
            task.cancel()
        else:
            batcher.close()
        await asyncio.sleep(0)
        free.set()
        result = (await asyncio.gather(task, return_exceptions=True))[0]
        assert isinstance(result, asyncio.CancelledError if ends == "cancelled" else Closed)
        batcher.close()
        await asyncio.to_thread(batcher._threads[0].shutdown)
        assert (sizes, batcher.rows) == ([1], 0)

    asyncio.run(main())


def test_what_has_begun_by_its_deadline_goes_on_after_it(session: Session) -> None:
    async def main() -> None:
        batcher, deadline = Batcher(session, most=64, limit=100), time.perf_counter() + 0.3

        def late(outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray] | None:
            if time.perf_counter() > deadline:
                return None
            time.sleep(0.4)
            return inputs(2)

        assert len((await batcher.run(inputs(1), deadline, go_on=late)).outputs["images"]) == 2
        batcher.close()

    asyncio.run(main())


def test_a_caller_that_goes_away_is_not_run(session: Session) -> None:
    async def main() -> None:
        sizes: list[int] = []
        free = _held(session)
        batcher = Batcher(_counted(session, sizes), most=1, limit=100)
        tasks = [asyncio.create_task(batcher.run(inputs(1, seed))) for seed in range(20)]
        await asyncio.sleep(0.1)
        for task in tasks[1:]:
            task.cancel()
        await asyncio.sleep(0)
        free.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (await batcher.run(inputs(1))).outputs["images"].shape == (1, 28, 28, 1)
        assert sizes == [1, 1]
        batcher.close()

    asyncio.run(main())


def test_beyond_the_limit_the_queue_refuses(session: Session) -> None:
    async def main() -> None:
        free = _held(session)
        batcher = Batcher(session, most=1, limit=12)
        tasks = [asyncio.create_task(batcher.run(inputs(4, seed))) for seed in range(4)]
        await asyncio.sleep(0)
        free.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) is QueueFull for result in results] == [False, False, False, True]
        assert "12 items are waiting" in str(results[3])
        assert (await batcher.run(inputs(40))).outputs["images"].shape == (40, 28, 28, 1)  # more than the limit, but alone
        free.clear()
        large = asyncio.create_task(batcher.run(inputs(12)))
        await asyncio.sleep(0)
        with pytest.raises(QueueFull) as full:
            await batcher.run(inputs(1))
        free.set()
        await large
        assert full.value.retry_after > 0
        batcher.close()

    asyncio.run(main())


def test_what_has_not_begun_by_its_deadline_never_does(session: Session) -> None:
    async def main() -> None:
        sizes: list[int] = []
        batcher = Batcher(_counted(session, sizes), most=4, limit=100)
        late = time.perf_counter() - 1
        results = await asyncio.gather(
            batcher.run(inputs(4)), batcher.run(inputs(4), late), batcher.run(inputs(4), time.perf_counter() + 60), return_exceptions=True
        )
        assert [type(result) for result in results] == [Outcome, DeadlinePassed, Outcome]
        assert sizes == [4, 4]
        assert batcher.rows == 0
        batcher.close()

    asyncio.run(main())


def test_a_deadline_in_the_queue_is_kept_and_makes_room(session: Session) -> None:
    async def main() -> None:
        free = _held(session)
        batcher = Batcher(session, most=1, limit=12)
        first = asyncio.create_task(batcher.run(inputs(1)))
        await asyncio.sleep(0.05)
        with pytest.raises(DeadlinePassed):  # while the run before it is still held
            await batcher.run(inputs(11), time.perf_counter() + 0.05)
        assert (batcher.rows, first.done()) == (1, False)
        second = asyncio.create_task(batcher.run(inputs(11), time.perf_counter() + 60))
        await asyncio.sleep(0)
        free.set()
        await asyncio.gather(first, second)
        batcher.close()

    asyncio.run(main())


def test_how_much_stands_before_a_request(session: Session) -> None:
    async def main() -> None:
        free = _held(session)
        batcher, jobs = Batcher(session, most=2, limit=100), list[Job]()
        tasks = [asyncio.create_task(batcher.run(inputs(3, seed), watch=jobs.append)) for seed in range(3)]
        await asyncio.sleep(0)
        assert [batcher.ahead(job) for job in jobs] == [0, 3, 6]
        free.set()
        await tasks[0]
        assert batcher.ahead(jobs[2]) <= 3
        await asyncio.gather(*tasks)
        batcher.close()

    asyncio.run(main())


class Watcher:
    def __init__(self) -> None:
        self.rows: list[int] = []
        self.waits: list[float] = []
        self.gone = 0

    def ran(self, rows: int, seconds: float) -> None:
        assert seconds > 0
        self.rows.append(rows)

    def waited(self, seconds: float) -> None:
        self.waits.append(seconds)

    def cancelled(self) -> None:
        self.gone += 1


def test_an_observer_is_told_of_runs_waits_and_cancellations(session: Session) -> None:
    async def main() -> None:
        watcher = Watcher()
        free = _held(session)
        batcher = Batcher(session, most=2, limit=100, observer=watcher)
        tasks = [asyncio.create_task(batcher.run(inputs(2, seed))) for seed in range(9)]
        await asyncio.sleep(0.1)
        for task in tasks[3:]:
            task.cancel()
        await asyncio.sleep(0)
        free.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (watcher.rows, len(watcher.waits), watcher.gone) == ([2, 2, 2], 3, 6)
        assert (batcher.depth, batcher.rows) == (0, 0)
        batcher.close()

    asyncio.run(main())


def test_rows_of_a_slow_graph_run_side_by_side(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, watcher, together = manifest.graphs["decoder"], Watcher(), threading.Barrier(2)
    session = Session(MODELS / "cdcgan" / graph.file, graph, Placement("cpu", 2))
    session.spread()
    run = session.run

    def both(given: dict[str, np.ndarray], beside: bool) -> dict[str, np.ndarray]:
        together.wait(10)  # until there is another
        return run(given, beside)

    async def main() -> None:
        batcher = Batcher(session, most=16, limit=100, seconds=0.016, observer=watcher)
        whole = run(inputs(6))["images"]
        monkeypatch.setattr(session, "run", both)
        assert np.array_equal((await batcher.run(inputs(6))).outputs["images"], whole)
        batcher.close()

    asyncio.run(main())
    assert watcher.rows == [1] * 6


@pytest.mark.parametrize("rows", [1, 2, 3, 9])
def test_rows_run_side_by_side_where_most_threads_have_one(manifest: Manifest, rows: int) -> None:
    """Fewer are done sooner by all threads, one after the other; so is one that begins when the others are about to end."""
    graph, present, runs = manifest.graphs["decoder"], list[int](), list[tuple[int, bool]]()
    session = Session(MODELS / "cdcgan" / graph.file, graph, Placement("cpu", 4))
    session.spread()
    run = session.run

    def watched(given: dict[str, np.ndarray], beside: bool) -> dict[str, np.ndarray]:
        present.append(1)
        runs.append((len(present), beside))
        time.sleep(0.1)
        present.pop()
        return run(given, beside)

    async def main() -> None:
        batcher = Batcher(session, most=64, limit=100, seconds=0.016)
        session.run = watched  # type: ignore[method-assign, assignment]
        await batcher.run(inputs(1))  # before, it is not known how long a row takes
        await batcher.run(inputs(rows))
        batcher.close()

    asyncio.run(main())
    expected = {1: [(1, False)], 2: [(1, False)] * 2, 3: [(1, True), (2, True), (3, True)]}
    if rows in expected:
        assert runs[1:] == expected[rows]
    else:
        assert [beside for _, beside in runs[1:]] == [True] * 8 + [False]
        assert max(number for number, _ in runs) == 4


def test_one_run_at_a_time_has_all_threads(manifest: Manifest) -> None:
    """Also of a session that was opened again, and is spread where the one before was not, or that has been narrowed."""
    graph, alone = manifest.graphs["decoder"], list[bool]()
    quick, slow = (Session(MODELS / "cdcgan" / graph.file, graph, Placement("cpu", 2)) for _ in range(2))
    slow.spread()
    run = slow.run

    def watched(given: dict[str, np.ndarray], beside: bool) -> dict[str, np.ndarray]:
        alone.append(beside)
        return run(given, beside)

    async def main() -> None:
        slow.run = watched  # type: ignore[method-assign, assignment]
        batcher = Batcher(Breaking(quick, 1), most=64, limit=100, seconds=0.016, reopen=lambda: slow)  # type: ignore[arg-type]
        with pytest.raises(SessionBroken):
            await batcher.run(inputs(1))
        await batcher.run(inputs(9))
        batcher.close()

    asyncio.run(main())
    assert alone
    assert not any(alone)
    slow.narrow()
    assert slow.lanes == 1
    assert slow._device._alone is slow._device._together  # type: ignore[union-attr]


class Breaking:
    """A session whose first runs fail as one does that has no memory left."""

    def __init__(self, session: Session, times: int) -> None:
        self.session, self.times, self.graph = session, times, session.graph
        self.provider, self.precision = session.provider, session.precision
        self.lanes = session.lanes

    def run(self, given: object, beside: bool) -> dict[str, np.ndarray]:
        self.times -= 1
        if self.times >= 0:
            raise SessionBroken("out of memory")
        return self.session.run(given, beside)


def test_a_broken_session_is_opened_again_and_what_waited_runs(session: Session) -> None:
    async def main() -> None:
        lost: list[str] = []
        batcher = Batcher(Breaking(session, 1), most=1, limit=100, reopen=lambda: session, lost=lost.append)
        results = await asyncio.gather(*(batcher.run(inputs(1, seed)) for seed in range(4)), return_exceptions=True)
        assert [type(result) for result in results] == [SessionBroken, Outcome, Outcome, Outcome]
        assert (batcher.healthy, batcher.session, lost) == (True, session, [])
        batcher.close()

    asyncio.run(main())


def test_the_memory_of_a_broken_session_is_free_before_another_is_opened(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one may need it. The error that tells of the break went through the session."""
    graph = manifest.graphs["decoder"]

    def opened() -> Session:
        return Session(MODELS / "cdcgan" / graph.file, graph, PLACEMENT)

    first, there = opened(), list[object]()
    inner = weakref.ref(first._session)

    def broken(*_: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(type(first._device), "run", broken)

    def reopen() -> Session:
        there.append(inner())
        monkeypatch.undo()
        return opened()

    async def main(batcher: Batcher) -> None:
        with pytest.raises(SessionBroken):
            await batcher.run(inputs(1))
        assert (await batcher.run(inputs(1))).outputs["images"].shape == (1, 28, 28, 1)
        batcher.close()

    batcher = Batcher(first, most=1, limit=100, reopen=reopen)
    del first
    asyncio.run(main(batcher))
    assert there == [None]


def test_a_session_that_breaks_again_at_once_is_lost(session: Session) -> None:
    async def main() -> None:
        lost: list[str] = []
        batcher = Batcher(Breaking(session, 1), most=1, limit=100, reopen=lambda: Breaking(session, 1), lost=lost.append)
        results = await asyncio.gather(*(batcher.run(inputs(1, seed)) for seed in range(4)), return_exceptions=True)
        assert [type(result) for result in results] == [SessionBroken, SessionBroken, Closed, Closed]
        assert (batcher.healthy, lost) == (False, ["out of memory"])

    asyncio.run(main())


class Twofold:
    """A session of which two runs may be under way; `begun` counts them, and none ends before it `may`."""

    def __init__(self, session: Session, may: Callable[[], object]) -> None:
        self.session, self.graph, self.may, self.begun, self.told = session, session.graph, may, list[int](), list[set[int] | None]()
        self.provider, self.precision, self.lanes = session.provider, session.precision, 2

    def run(self, given: dict[str, np.ndarray], beside: bool) -> dict[str, np.ndarray]:
        self.begun.append(len(given["labels"]))
        self.may()
        return self.session.run(given, beside)

    def stop(self, threads: set[int] | None = None) -> None:
        self.told.append(threads)


def test_two_runs_may_be_under_way_and_rows_keep_their_order(session: Session) -> None:
    async def main() -> None:
        twofold = Twofold(session, threading.Barrier(2, timeout=10).wait)  # none ends by itself
        batcher = Batcher(twofold, most=4, limit=100)
        outcome = await batcher.run(inputs(16), joined=False)
        assert twofold.begun == [4, 4, 4, 4]
        assert len(outcome.parts) == 4
        assert np.array_equal(outcome.outputs["images"], session.run(inputs(16))["images"])
        assert (batcher.rows, batcher.depth) == (0, 0)
        batcher.close()

    asyncio.run(main())


def test_a_second_run_is_a_full_one(session: Session) -> None:
    free = threading.Event()

    async def main() -> None:
        twofold = Twofold(session, partial(free.wait, 10))
        batcher = Batcher(twofold, most=4, limit=100)
        tasks = list[asyncio.Task[Outcome]]()
        for number, begun in ((1, [1]), (3, [1]), (2, [1, 4])):  # what comes after the first gathers
            tasks += [asyncio.create_task(batcher.run(inputs(1, seed))) for seed in range(number)]
            await asyncio.sleep(0.1)
            assert twofold.begun == begun
        free.set()
        await asyncio.gather(*tasks)
        assert sorted(twofold.begun) == [1, 1, 4]
        batcher.close()

    asyncio.run(main())


def test_closing_tells_the_present_run_to_end(session: Session) -> None:
    free = threading.Event()

    async def main() -> None:
        twofold = Twofold(session, partial(free.wait, 10))
        batcher = Batcher(twofold, most=4, limit=100)
        task = asyncio.create_task(batcher.run(inputs(1)))
        await asyncio.sleep(0.1)
        batcher.close()
        assert twofold.told == [None]
        free.set()
        assert [type(result) for result in await asyncio.gather(task, return_exceptions=True)] == [Closed]

    asyncio.run(main())


def test_of_two_runs_the_overdue_one_is_ended(session: Session) -> None:
    free, threads = threading.Event(), list[int]()

    def may() -> None:
        threads.append(threading.get_ident())
        if len(threads) == 1:
            free.wait(10)

    async def main() -> None:
        twofold = Twofold(session, may)
        batcher = Batcher(twofold, most=4, limit=100, longest=0.4)
        first = asyncio.create_task(batcher.run(inputs(1)))
        await asyncio.sleep(0.1)
        while not twofold.told:
            await batcher.run(inputs(4))  # in the other thread
        assert not batcher.healthy
        await batcher.run(inputs(4))
        assert not batcher.healthy  # whatever else ends
        free.set()
        await first
        assert (batcher.healthy, twofold.told) == (True, [{threads[0]}])
        assert set(threads[1:]) != {threads[0]}
        batcher.close()

    asyncio.run(main())


def test_a_session_opened_again_for_one_run_at_a_time_has_no_two(session: Session) -> None:
    present, most = list[int](), list[int]()

    def run(given: dict[str, np.ndarray], beside: bool) -> dict[str, np.ndarray]:
        present.append(1)
        most.append(len(present))
        time.sleep(0.05)
        present.pop()
        return session.run(given, beside)

    async def main() -> None:
        narrow = Twofold(session, lambda: None)
        narrow.lanes, narrow.run = 1, run  # type: ignore[method-assign]
        broken = Breaking(session, 1)
        broken.lanes = 2
        batcher = Batcher(broken, most=4, limit=100, reopen=lambda: narrow)
        results = await asyncio.gather(*(batcher.run(inputs(4, seed)) for seed in range(6)), return_exceptions=True)
        assert sum(isinstance(result, SessionBroken) for result in results) == 1
        assert max(most[1:]) == 1  # the other thread may have begun the first with it
        batcher.close()

    asyncio.run(main())


def test_a_session_that_breaks_under_two_runs_is_replaced_once(session: Session) -> None:
    opened = list[Session]()

    def reopen() -> Session:
        opened.append(session)
        return session

    def breaks() -> None:
        together.wait()
        raise SessionBroken("out of memory")

    together = threading.Barrier(2, timeout=10)

    async def main() -> None:
        lost: list[str] = []
        batcher = Batcher(Twofold(session, breaks), most=4, limit=100, reopen=reopen, lost=lost.append)
        results = await asyncio.gather(*(batcher.run(inputs(4, seed)) for seed in range(4)), return_exceptions=True)
        assert sorted(type(result).__name__ for result in results) == ["Outcome", "Outcome", "SessionBroken", "SessionBroken"]
        assert (batcher.healthy, opened, lost) == (True, [session], [])
        batcher.close()

    asyncio.run(main())


def test_a_session_that_does_not_open_again_is_lost(session: Session) -> None:
    def reopen() -> Session:
        raise SessionError("decoder.onnx: gone")

    async def main() -> None:
        lost: list[str] = []
        batcher = Batcher(Breaking(session, 1), most=1, limit=100, reopen=reopen, lost=lost.append)
        with pytest.raises(SessionBroken):
            await batcher.run(inputs(1))
        await asyncio.sleep(0.1)
        assert lost == ["out of memory; opened again, decoder.onnx: gone"]
        with pytest.raises(Closed):
            await batcher.run(inputs(1))

    asyncio.run(main())


def test_a_fault_of_the_thread_itself_leaves_nobody_waiting(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        lost: list[str] = []
        batcher = Batcher(session, most=1, limit=100, lost=lost.append)
        monkeypatch.setattr(batcher, "_run_once", lambda *given: 1 / 0)
        results = await asyncio.gather(*(batcher.run(inputs(1, seed)) for seed in range(3)), return_exceptions=True)
        assert all(isinstance(result, Closed) for result in results)
        assert (batcher.healthy, len(lost)) == (False, 1)

    asyncio.run(main())


def test_a_run_whose_rows_cannot_be_handed_out_fails_its_requests(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise MemoryError

    async def main() -> None:
        batcher = Batcher(session, most=4, limit=100)
        with monkeypatch.context() as patch:
            patch.setattr("service.engine.batching._not_finite", full)
            results = await asyncio.gather(*(batcher.run(inputs(2, seed)) for seed in range(3)), return_exceptions=True)
        assert all(isinstance(result, MemoryError) for result in results)
        assert (await batcher.run(inputs(2))).outputs["images"].shape == (2, 28, 28, 1)
        assert batcher.rows == 0
        batcher.close()

    asyncio.run(main())


def test_inputs_that_a_graph_refuses_do_not_break_its_session(session: Session) -> None:
    with pytest.raises(Exception, match="indices element out of data bounds") as refused:
        session.run({**inputs(2), "labels": np.array([3, 99], np.int32)})
    assert not isinstance(refused.value, SessionBroken)


def test_a_failing_run_fails_its_requests_only(session: Session) -> None:
    async def main() -> None:
        batcher = Batcher(session, most=2, limit=10)
        bad = {**inputs(2), "labels": np.array([3, 99], np.int32)}  # there is no class 99
        results = await asyncio.gather(batcher.run(inputs(2)), batcher.run(bad), batcher.run(inputs(2)), return_exceptions=True)
        assert [isinstance(result, Exception) for result in results] == [False, True, False]
        batcher.close()

    asyncio.run(main())


def test_closing_fails_what_waits(session: Session) -> None:
    async def main() -> None:
        free = _held(session)
        batcher = Batcher(session, most=1, limit=100)
        tasks = [asyncio.create_task(batcher.run(inputs(8, seed))) for seed in range(3)]
        await asyncio.sleep(0)
        batcher.close()
        free.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, Closed) for result in results)

    asyncio.run(main())


def test_a_session_checks_its_ports_and_provider(manifest: Manifest, tmp_path: Path) -> None:
    graph = manifest.graphs["decoder"]
    path = MODELS / "cdcgan" / graph.file
    wrong = graph.model_copy(update={"inputs": graph.inputs[:1]})
    with pytest.raises(SessionError, match="manifest declares"):
        Session(path, wrong, PLACEMENT)
    with pytest.raises(SessionError, match="cuda was demanded"):
        Session(path, graph, Placement("cuda", 1))
    (tmp_path / "decoder.onnx").write_bytes(b"no graph")
    with pytest.raises(SessionError, match=r"decoder\.onnx: ONNX Runtime cannot open it"):
        Session(tmp_path / "decoder.onnx", graph, PLACEMENT)


def test_noise_is_numpys_frozen_stream() -> None:
    expected = np.random.RandomState(7).standard_normal((3, 5)).astype(np.float32)
    assert np.array_equal(latents.draw(7, 3, 5), expected)
    assert np.array_equal(latents.draw(7, 1, 5), expected[:1])


def test_interpolation_keeps_lengths_and_ends() -> None:
    first, last = latents.draw(1, 2, 64)
    way = latents.between(first, last, 9)
    np.testing.assert_allclose(way[[0, -1]], [first, last], rtol=1e-5)
    lengths = np.linalg.norm(way, axis=1)
    np.testing.assert_allclose(lengths, np.linspace(lengths[0], lengths[-1], 9), rtol=1e-4)
    assert np.isfinite(latents.between(first, -first, 5)).all()
    assert np.isfinite(latents.between(np.zeros(64, np.float32), last, 5)).all()


def test_even_steps_are_even_in_what_is_seen() -> None:
    way = np.linspace(0, 1, 65, dtype=np.float32)[:, None] * np.ones((1, 3), np.float32)
    brightness = 255 / (1 + np.exp(-60 * (way[:, 0] - 0.7)))  # nothing, then a quick change, then nothing
    pictures = np.broadcast_to(brightness[:, None, None, None], (65, 4, 4, 1)).astype(np.uint8)
    points = latents.evenly(way, pictures, 6)
    assert points.shape == (6, 3)
    assert points[[0, -1]].tolist() == way[[0, -1]].tolist()
    reached, by_latent = (255 / (1 + np.exp(-60 * (places - 0.7))) for places in (points[:, 0], np.linspace(0, 1, 6)))
    assert np.diff(by_latent).max() > 4 * 51
    assert np.diff(reached).max() < 1.5 * 51
    assert np.diff(reached).min() > 0.7 * 51
    still = latents.evenly(way, np.zeros((65, 4, 4, 1), np.uint8), 5)
    np.testing.assert_allclose(still[:, 0], [0, 0.25, 0.5, 0.75, 1], atol=1e-4)


def _held(session: Session) -> threading.Event:
    """Lets no run of the session end before the event is set."""
    run, free = session.run, threading.Event()

    def holding(given: object, beside: bool) -> dict[str, np.ndarray]:
        free.wait(10)
        return run(given, beside)

    session.run = holding
    return free


def _counted(session: Session, sizes: list[int]) -> Session:
    run = session.run

    def counting(given: object, beside: bool) -> dict[str, np.ndarray]:
        sizes.append(len(next(iter(given.values()))))
        return run(given, beside)

    session.run = counting
    return session


def test_workers_refuse_what_is_beyond_their_queue() -> None:
    async def main() -> None:
        workers = Workers(threads=1, limit=3)
        workers.check_room()
        await workers.run(lambda: time.sleep(0.02))
        begun = threading.Event()
        release, done = threading.Event(), []

        def first() -> None:
            begun.set()
            release.wait(10)

        tasks = [asyncio.create_task(workers.run(first)), *(asyncio.create_task(workers.run(partial(done.append, n))) for n in range(2))]
        await asyncio.to_thread(begun.wait, 10)
        assert workers.waiting == 3
        with pytest.raises(QueueFull, match="3 items") as full:
            workers.check_room()
        assert full.value.retry_after > 0
        tasks[1].cancel()
        await asyncio.sleep(0)
        workers.check_room()
        release.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert done == [1]  # what its caller left was never done
        assert workers.waiting == 0
        workers.close()

    asyncio.run(main())


def test_workers_do_not_begin_what_is_too_late() -> None:
    async def main() -> None:
        workers, done = Workers(1, 10), list[int]()
        held = asyncio.create_task(workers.run(partial(time.sleep, 0.2)))
        await asyncio.sleep(0)
        with pytest.raises(DeadlinePassed):
            await workers.run(partial(done.append, 1), time.perf_counter() + 0.05)
        await held
        await workers.run(partial(done.append, 2), time.perf_counter() + 60)
        assert (done, workers.waiting) == ([2], 0)
        workers.close()

    asyncio.run(main())


def test_threads_step_back_behind_the_event_loop() -> None:
    def priority() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    async def main() -> None:
        workers = Workers(threads=1, limit=3)
        found, _ = await workers.run(priority)
        assert found == max(priority(), NICENESS)
        workers.close()

    asyncio.run(main())


def resident() -> float:
    """Of this process, in 10^6 bytes."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) * 1024 / 1e6


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells a process its memory there")
def test_a_warm_session_keeps_no_memory_of_its_largest_batch() -> None:
    """Runs on a CPU are short, so that hardly any takes as many rows: 64 pictures take 660 MB."""
    graph = read(MODELS / "efficientnet-lite0").graphs["encoder"]
    session = Session(MODELS / "efficientnet-lite0" / graph.file, graph, PLACEMENT)
    before = resident()
    session.warm({port.name: np.zeros((64, *port.item), port.dtype) for port in graph.inputs})
    assert resident() - before < 200
