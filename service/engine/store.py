"""models/ -> checked, opened, warmed models; a bad folder is reported and the others serve."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from service.contract import manifest as manifests
from service.contract.manifest import Graph, Manifest, ManifestError
from service.engine.batching import Batcher, Observer
from service.engine.cpu import step_back, usable_cores
from service.engine.session import Placement, ProviderMissing, Session, SessionError
from service.settings import Settings

logger = logging.getLogger("atelier")


CPU_RUN_SECONDS = 0.016
"""Of a run on a CPU: shorter ones cost more in changing hands than they gain. Chosen with `make bench ARGS=--threads`
(docs/operations.md)."""


@dataclass(frozen=True)
class Role:
    """What a task wants of the graph in one of its roles: the names of its inputs and outputs.

    Attributes:
        optional: outputs that a graph may have besides.
        takes: by input, the output of an earlier role that goes in, where its name is another.
    """

    inputs: frozenset[str]
    outputs: frozenset[str]
    required: bool = True
    optional: frozenset[str] = frozenset()
    takes: Mapping[str, str] = field(default_factory=dict)


Roles = Mapping[str, Role]


class LoadError(Exception):
    """A model folder that cannot be served; the message names the file and says why.

    Attributes:
        blocks: the server is not ready without it.
    """

    def __init__(self, message: str, blocks: bool) -> None:
        super().__init__(message)
        self.blocks = blocks


class UnknownModel(LookupError):
    """No model of that name serves the task."""


class ModelUnavailable(LookupError):
    """The model is asked for and configured, but not served now; the message says why."""


class Model:
    """A model that serves: its manifest and one batcher a graph.

    Attributes:
        warmed: by graph, the batch sizes that it has run with.
        most: the largest of them.
    """

    def __init__(self, manifest: Manifest, batchers: dict[str, Batcher], warmed: dict[str, list[int]], most: int) -> None:
        self.manifest, self.batchers, self.warmed, self.most = manifest, batchers, warmed, most
        self.digest = manifest.digest
        self._users = 0
        self._retired = False

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def provider(self) -> str:
        return next(iter(self.batchers.values())).provider

    @property
    def precision(self) -> str:
        """`float32` or `float16`, or both where not all graphs have a variant."""
        return ", ".join(sorted({batcher.precision for batcher in self.batchers.values()}))

    @property
    def healthy(self) -> bool:
        return all(batcher.healthy for batcher in self.batchers.values())

    def identity(self, task: str) -> str:
        """`task/name@` and the first 12 of the digest: what `X-Model` says."""
        return f"{task}/{self.name}@{self.digest[:12]}"

    def take(self) -> None:
        """A request begins to use it; until `release`, it does not close."""
        self._users += 1

    def release(self) -> None:
        self._users -= 1
        self._close_if_done()

    def retire(self) -> None:
        """Another has its place: it closes when the last request that began with it has ended."""
        self._retired = True
        self._close_if_done()

    def _close_if_done(self) -> None:
        if self._retired and self._users == 0:
            self.close()

    def close(self) -> None:
        for batcher in self.batchers.values():
            batcher.close()


@dataclass(frozen=True)
class Shelf:
    """What was found in the models folder at one time; replaced as a whole.

    Attributes:
        failures: by folder, why its present content is not served; an earlier one may still be.
        defaults: by task, the model that claims it, served or not.
        claims_unknown: a manifest that may have claimed a task could not be read.
        blocked: something is missing that the settings demand.
    """

    models: Mapping[str, Model] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, str] = field(default_factory=dict)
    claims_unknown: bool = False
    blocked: bool = False


@dataclass(frozen=True)
class Changes:
    """What reading the folder again did, by names of models."""

    added: list[str]
    replaced: list[str]
    removed: list[str]
    unchanged: list[str]
    failed: dict[str, str]


Observers = Callable[[str, str], Observer]
"""From a model's and a graph's name to who is told what its batcher does."""


class Store:
    """The models of one folder. Only reading them happens in a thread; whatever changes here changes on the event loop.

    Args:
        tasks: the tasks that this server knows, with the roles that each wants filled.

    Attributes:
        lost: is told which model's session broke for good, and why.
        draining: the server was told to stop.
    """

    def __init__(
        self,
        settings: Settings,
        tasks: Mapping[str, Roles],
        observers: Observers | None = None,
    ) -> None:
        self.settings, self.tasks = settings, tasks
        self.shelf = Shelf()
        self.loaded = False
        self.draining = False
        self.lost: Callable[[str, str], None] | None = None
        self._observers = observers
        self._turn = asyncio.Lock()

    @property
    def models(self) -> Mapping[str, Model]:
        return self.shelf.models

    @property
    def failures(self) -> Mapping[str, str]:
        return self.shelf.failures

    async def load(self) -> Changes:
        """Reads the folder, for the first time or again, and swaps at once what changed.

        A folder that cannot be served is kept in `failures` and logged; what was served of it before goes on serving.
        Requests in flight end on the model that they began with.
        """
        async with self._turn:
            reading = _Reading(self)
            try:
                await asyncio.to_thread(reading.read)
                changes = self._swap(reading)
            finally:
                self.loaded = True
        return changes

    def _swap(self, reading: _Reading) -> Changes:
        before, after = self.shelf.models, reading.models
        for model, manifest in reading.described.items():
            model.manifest = manifest
        self.shelf = Shelf(after, reading.failures, reading.defaults, reading.claims_unknown, reading.blocked)
        for name, model in before.items():
            if after.get(name) is not model:
                model.retire()
        return Changes(
            added=sorted(after.keys() - before.keys()),
            replaced=sorted(name for name in after.keys() & before.keys() if after[name] is not before[name]),
            removed=sorted(before.keys() - after.keys()),
            unchanged=sorted(name for name in after.keys() & before.keys() if after[name] is before[name]),
            failed=dict(reading.failures),
        )

    @property
    def ready(self) -> bool:
        """Something is served, all of it is healthy, and nothing is missing that `ATELIER_LOAD` or `ATELIER_PROVIDER` demands."""
        served = bool(self.models) and all(model.healthy for model in self.models.values())
        return self.loaded and served and not self.shelf.blocked and not self.draining

    def serving(self, task: str) -> list[Model]:
        """The models of a task, its default first, then by name."""
        models = [model for model in self.models.values() if task in model.manifest.tasks]
        return sorted(models, key=lambda model: (model.name != self.shelf.defaults.get(task), model.name))

    def default(self, task: str) -> str | None:
        """The name of the model that serves a task when none is named: the one that claims it, served or
        not, so that a request is never answered by another; where none does, the first by name. Nothing while a
        manifest that might have claimed it has not been read, or cannot be."""
        if task in self.shelf.defaults or self.shelf.claims_unknown or not self.loaded:
            return self.shelf.defaults.get(task)
        return next((model.name for model in self.serving(task)), None)

    def find(self, task: str, name: str | None) -> Model:
        """The named model of a task, or its default.

        Raises:
            UnknownModel: there is none of that name for the task.
            ModelUnavailable: it is there but not served, or the models are still being loaded.
        """
        wanted = self.default(task) if name is None else name
        model = self.models.get(wanted or "")
        if model is not None and task in model.manifest.tasks:
            if not model.healthy:
                raise ModelUnavailable(f"{wanted} is stuck in a run, or broke and is being opened again")
            return model
        if wanted is not None and wanted in self.failures:
            raise ModelUnavailable(f"{wanted} is not served: {self.failures[wanted]}")
        if not self.loaded:
            raise ModelUnavailable("the models are still being loaded")
        known = ", ".join(model.name for model in self.serving(task)) or "none"
        if wanted is None:
            failed = "".join(f"; {failure}" for failure in self.failures.values())
            raise ModelUnavailable(f"{task} has no default model (by name there is: {known}){failed}")
        raise UnknownModel(f"{wanted[:80]!r} does not serve {task}; there is: {known}")

    def close(self) -> None:
        for model in self.models.values():
            model.close()

    def observer(self, model: str, graph: str) -> Observer | None:
        return None if self._observers is None else self._observers(model, graph)

    def lose(self, model: str, why: str) -> None:
        logger.critical("model %s is lost: %s", model, why)
        if self.lost is not None:
            self.lost(model, why)


class _Reading:
    """One pass over the models folder, in a thread, while the store serves what it has.

    Attributes:
        described: models that go on under a manifest in which nothing changed that changes an answer.
    """

    def __init__(self, store: Store) -> None:
        self.store, self.settings, self.tasks, self.before = store, store.settings, store.tasks, store.shelf.models
        self.models: dict[str, Model] = {}
        self.described: dict[Model, Manifest] = {}
        self.failures: dict[str, str] = {}
        self.defaults: dict[str, str] = {}
        self.claims_unknown = self.blocked = False

    def read(self) -> None:
        """Opens and warms every folder asked for, unless the server is told to stop."""
        step_back()
        for folder in self._folders():
            if self.store.draining:
                self._keep("is not read to its end by a server that was told to stop")
                return
            self._load(folder)
        served = {*self.models, *(task for model in self.models.values() for task in model.manifest.tasks)}
        for wanted in self.settings.load:
            if wanted not in served and wanted not in self.failures:
                self._fail(wanted, f"ATELIER_LOAD names {wanted}, but no folder of {self.settings.models} has it", blocks=True)

    def _folders(self) -> list[Path]:
        """The folders of models. Where there are none, although some are served, nothing changes: that is what a folder looks like whose
        disk is not mounted any more."""
        root = self.settings.models
        try:
            found = sorted(folder for folder in root.iterdir() if folder.is_dir() and not folder.name.startswith("."))
            why = "has no folders any more" if self.before and not found else None
        except OSError as error:
            found, why = [], f"cannot be read: {error.strerror}"
        if why is not None:
            self._keep(why)
        return found

    def _keep(self, why: str) -> None:
        """All that is served goes on as it was."""
        root, shelf = self.settings.models, self.store.shelf
        self._fail(str(root), f"ATELIER_MODELS={root} {why}", blocks=not self.before)
        self.models, self.defaults, self.claims_unknown = dict(shelf.models), dict(shelf.defaults), shelf.claims_unknown

    def _load(self, folder: Path) -> None:
        try:
            model = self._open(folder)
        except LoadError as error:
            self._fail(folder.name, str(error), error.blocks)
        except Exception as error:  # one folder's surprise is not the others' end
            logger.exception("model %s", folder.name)
            self._fail(folder.name, f"{folder.name}: {error}", blocks=bool(self.settings.load))
        else:
            if model is not None:
                self.models[model.name] = model
                if model is not self.before.get(model.name):
                    self._warn_of_idle_gpu(model)
                    logger.info("model %s serves %s on %s", model.name, ", ".join(model.manifest.tasks), model.provider)

    def _warn_of_idle_gpu(self, model: Model) -> None:
        if self.settings.provider == "auto" and model.provider == "cpu" and Path("/dev/nvidiactl").exists():
            logger.warning("model %s runs on the CPU beside an NVIDIA device: python -m service doctor says why", model.name)

    def _fail(self, name: str, why: str, blocks: bool) -> None:
        self.failures[name] = why
        if (earlier := self.before.get(name)) is not None:
            self.models[name] = earlier
            for task in earlier.manifest.default_for:
                self.defaults.setdefault(task, name)
            logger.error("model %s goes on as it was: %s", name, why)
            return
        self.blocked = self.blocked or blocks
        logger.error("model %s is not served: %s", name, why)

    def _open(self, folder: Path) -> Model | None:
        """Opens one folder; nothing when `ATELIER_LOAD` does not ask for it.

        Raises:
            LoadError: the folder cannot be served.
        """
        wanted = self.settings.load
        where = f"{folder.name}/{manifests.FILE}"
        named = folder.name in wanted
        try:
            manifest = manifests.read(folder)
        except ManifestError as error:
            self.claims_unknown = self.claims_unknown or folder.name not in self.before
            raise LoadError(str(error), named) from error
        if wanted and not named and not set(wanted) & set(manifest.tasks):
            return None
        if manifest.name != folder.name:
            raise LoadError(f"{where} is the manifest of {manifest.name}, not of {folder.name}", bool(wanted))
        for task in manifest.default_for:
            self.defaults.setdefault(task, folder.name)
        self._check_tasks(where, manifest)
        placement = placed(self.settings)
        most = min(manifest.largest_batch, self.settings.max_batch)
        try:
            for graph in manifest.graphs.values():
                _check_files(folder, graph)
            earlier = self.before.get(folder.name)
            if earlier is not None and earlier.healthy and (earlier.digest, earlier.most) == (manifest.digest, most):
                self.described[earlier] = manifest
                return earlier
            half = self.settings.precision == "float16"
            sessions = {name: _open(folder, graph, placement, manifest, most, half) for name, graph in manifest.graphs.items()}
        except SessionError as error:
            raise LoadError(f"{folder.name}/{error}", bool(wanted) or isinstance(error, ProviderMissing)) from error
        batchers = {
            name: Batcher(
                session,
                most,
                self.settings.queue_limit,
                CPU_RUN_SECONDS if session.provider == "cpu" else None,
                self.store.observer(folder.name, name),
                partial(_reopen, folder, session.graph, replace(placement, provider=session.provider), manifest, most, half),
                partial(self.store.lose, folder.name),
                self.settings.run_seconds,
            )
            for name, session in sessions.items()
        }
        return Model(manifest, batchers, {name: session.sizes for name, session in sessions.items()}, most)

    def _check_tasks(self, where: str, manifest: Manifest) -> None:
        blocks = bool(self.settings.load)
        for task, roles in manifest.tasks.items():
            if task not in self.tasks:
                raise LoadError(f"{where}: this server has no task {task}", blocks)
            wanted = self.tasks[task]
            if unknown := roles.keys() - wanted.keys():
                raise LoadError(f"{where}: the task {task} has no role {', '.join(sorted(unknown))}", blocks)
            for name, role in wanted.items():
                if name not in roles:
                    if role.required:
                        raise LoadError(f"{where}: the task {task} lacks the role {name}", blocks)
                    continue
                graph = manifest.graphs[roles[name]]
                found = frozenset(port.name for port in graph.inputs), frozenset(port.name for port in graph.outputs)
                if (found[0], found[1] - role.optional) != (role.inputs, role.outputs):
                    raise LoadError(
                        f"{where}: the {name} of {task} takes {sorted(role.inputs)} and gives {sorted(role.outputs)}, "
                        f"but {roles[name]} takes {sorted(found[0])} and gives {sorted(found[1])}",
                        blocks,
                    )


def placed(settings: Settings) -> Placement:
    """Where the settings would have sessions run."""
    threads = settings.threads or usable_cores()
    gpu = settings.gpu_mem_limit, settings.gpu_runs, settings.cuda_graphs
    return Placement(settings.provider, threads, *gpu, settings.cache, settings.run_seconds)


def _open(folder: Path, graph: Graph, placement: Placement, manifest: Manifest, most: int, half: bool) -> Session:
    """A warm session of a graph whose files were checked."""
    session = opened(folder, graph, placement, most, half)
    first = partial(_first, session, len(manifest.classes), placement.longest)
    try:
        if session.provider == "cpu":
            _warm_on_cpu(session, first, placement.threads)
        else:
            for rows in session.sizes:
                first(rows)
        if session.lanes > 1:
            _at_once(session, partial(first, session.sizes[-1], beside=True))
    except SessionError as error:
        if placement.provider != "auto" or session.provider == "cpu":
            raise
        logger.warning("%s/%s runs on the CPU, for on a GPU %s", folder.name, graph.file, str(error).removeprefix(f"{graph.file}: "))
        return _open(folder, graph, replace(placement, provider="cpu"), manifest, most, half)
    return session


def _warm_on_cpu(session: Session, first: Callable[[int], float], threads: int) -> None:
    """Runs of one row, then of the most that will share one: of a graph whose rows are longer than a run with one for each thread may be,
    one, for runs are spread over the threads; of others as many as the session takes."""
    first(1)
    if first(1) * threads > CPU_RUN_SECONDS:
        session.spread()
    for rows in session.sizes[1:]:
        first(rows)
        first(1)  # gives back more of what the largest took


def _at_once(session: Session, largest: Callable[[], float]) -> None:
    """As many of the largest runs at once as there may be, so that the memory for them is there; if it is not, there is one at a time."""
    together = threading.Barrier(session.lanes)

    def run(_: int) -> None:
        together.wait()
        largest()

    with ThreadPoolExecutor(session.lanes) as pool:
        runs = [pool.submit(run, lane) for lane in range(session.lanes)]
    failed = [error for each in runs if (error := each.exception()) is not None]
    if failed:
        session.narrow()
        largest()
        logger.warning("%s: one run at a time, for of %d at once %s", session.graph.file, len(runs), str(failed[0]).partition(": ")[2])


def opened(folder: Path, graph: Graph, placement: Placement, most: int, half: bool) -> Session:
    """A session of a graph.

    Args:
        half: of its variant in half precision, where it has one and a GPU takes it.
    """
    if half and graph.float16 is not None and placement.provider != "cpu":
        session = Session(folder / graph.float16.file, graph, placement, most)
        if session.provider != "cpu":
            return session
    return Session(folder / graph.file, graph, placement, most)


def _reopen(folder: Path, graph: Graph, placement: Placement, manifest: Manifest, most: int, half: bool) -> Session:
    """Another session of the same graph, if its files are still the same."""
    _check_files(folder, graph)
    return _open(folder, graph, placement, manifest, most, half)


def _check_files(folder: Path, graph: Graph) -> None:
    _check_file(folder / graph.file, graph.sha256)
    if graph.float16 is not None:
        _check_file(folder / graph.float16.file, graph.float16.sha256)


def _check_file(path: Path, sha256: str) -> None:
    try:
        found = manifests.sha256(path)
    except OSError as error:
        raise SessionError(f"{path.name}: {error.strerror}") from error
    if found != sha256:
        raise SessionError(f"{path.name}: its sha256 is {found[:12]}…, the manifest says {sha256[:12]}…: damaged or half-written")


def _first(session: Session, classes: int, longest: float | None, rows: int, beside: bool = False) -> float:
    """The seconds of one run, which shows that the graph runs, and on a GPU chooses algorithms, builds TensorRT's engines and
    captures CUDA graphs; of zeros, and of the last class, which a graph with fewer than the manifest declares does not have.

    Args:
        longest: of a row, in seconds, on a CPU. On a GPU, which may have kernels to build, a first run may take any time.
    """
    fill = {"labels": classes - 1}
    late = threading.Timer(rows * longest, session.stop) if longest and session.provider == "cpu" else None
    began = time.perf_counter()
    try:
        if late is not None:
            late.start()
        inputs = {port.name: np.full((rows, *port.item), fill.get(port.name, 0), port.dtype) for port in session.graph.inputs}
        session.warm(inputs, beside)
    except Exception as error:
        raise SessionError(f"{session.graph.file}: the first run failed ({str(error).splitlines()[0]})") from error
    finally:
        if late is not None:
            late.cancel()
    return time.perf_counter() - began
