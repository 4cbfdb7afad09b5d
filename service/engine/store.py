"""models/ -> checked, opened, warmed models; a bad folder is reported and the others serve."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from service.contract import manifest as manifests
from service.contract.manifest import Graph, Manifest, ManifestError
from service.engine.batching import Batcher
from service.engine.session import Placement, ProviderMissing, Session, SessionError, usable_cores
from service.settings import Settings

logger = logging.getLogger("atelier")


@dataclass(frozen=True)
class Role:
    """What a task wants of the graph in one of its roles: the names of its inputs and outputs."""

    inputs: frozenset[str]
    outputs: frozenset[str]
    required: bool = True


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


@dataclass
class Model:
    """A model that serves: its manifest and one batcher a graph."""

    manifest: Manifest
    batchers: dict[str, Batcher]

    def __post_init__(self) -> None:
        self.digest = self.manifest.digest

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def provider(self) -> str:
        return next(iter(self.batchers.values())).session.provider

    def batcher(self, task: str, role: str) -> Batcher:
        """The batcher of the graph that plays a role in a task, such as the `decoder` of `generate`."""
        return self.batchers[self.manifest.tasks[task][role]]

    def identity(self, task: str) -> str:
        """`task/name@` and the first 12 of the digest: what `X-Model` says."""
        return f"{task}/{self.name}@{self.digest[:12]}"

    def close(self) -> None:
        for batcher in self.batchers.values():
            batcher.close()


class Store:
    """The models of one folder.

    Args:
        tasks: the tasks that this server knows, with the roles that each wants filled.
    """

    def __init__(self, settings: Settings, tasks: Mapping[str, Roles]) -> None:
        self.settings, self.tasks = settings, tasks
        self.models: dict[str, Model] = {}
        self.failures: dict[str, str] = {}
        self.loaded = False
        self._blocked = False
        self._defaults: dict[str, str] = {}
        self._claims_unknown = False

    def load(self) -> None:
        """Opens and warms every folder asked for. What fails is kept in `failures` and logged."""
        try:
            for folder in self._folders():
                self._load(folder)
            served = {*self.models, *(task for model in self.models.values() for task in model.manifest.tasks)}
            for wanted in self.settings.load:
                if wanted not in served and wanted not in self.failures:
                    self._fail(wanted, f"ATELIER_LOAD names {wanted}, but no folder of {self.settings.models} has it", blocks=True)
        finally:
            self.loaded = True

    @property
    def ready(self) -> bool:
        """Something is served, and nothing is missing that `ATELIER_LOAD` or `ATELIER_PROVIDER` demands."""
        return self.loaded and bool(self.models) and not self._blocked

    def serving(self, task: str) -> list[Model]:
        """The models of a task, its default first, then by name."""
        models = [model for model in self.models.values() if task in model.manifest.tasks]
        return sorted(models, key=lambda model: (model.name != self._defaults.get(task), model.name))

    def default(self, task: str) -> str | None:
        """The name of the model that serves a task when none is named: the one that claims it, served or
        not, so that a request is never answered by another; where none does, the first by name. Nothing while a
        manifest that might have claimed it has not been read, or cannot be."""
        if task in self._defaults or self._claims_unknown or not self.loaded:
            return self._defaults.get(task)
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
            return model
        if wanted in self.failures:
            raise ModelUnavailable(f"{wanted} is not served: {self.failures[wanted]}")
        if not self.loaded:
            raise ModelUnavailable("the models are still being loaded")
        known = ", ".join(model.name for model in self.serving(task)) or "none"
        if wanted is None:
            failed = "".join(f"; {failure}" for failure in self.failures.values())
            raise ModelUnavailable(f"{task} has no default model (by name there is: {known}){failed}")
        raise UnknownModel(f"{wanted!r} does not serve {task}; there is: {known}")

    def close(self) -> None:
        for model in self.models.values():
            model.close()

    def _folders(self) -> list[Path]:
        root = self.settings.models
        try:
            return sorted(folder for folder in root.iterdir() if folder.is_dir() and not folder.name.startswith("."))
        except OSError as error:
            self._fail(str(root), f"ATELIER_MODELS={root} cannot be read: {error.strerror}", blocks=True)
            return []

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
                self.models = {**self.models, model.name: model}  # a new dict: others may be iterating over the old one
                self._warn_of_idle_gpu(model)
                logger.info("model %s serves %s on %s", model.name, ", ".join(model.manifest.tasks), model.provider)

    def _warn_of_idle_gpu(self, model: Model) -> None:
        if self.settings.provider == "auto" and model.provider == "cpu" and Path("/dev/nvidiactl").exists():
            logger.warning(
                "model %s runs on the CPU beside an NVIDIA device: install requirements/gpu.txt in place of requirements/cpu.txt",
                model.name,
            )

    def _fail(self, name: str, why: str, blocks: bool) -> None:
        self.failures = {**self.failures, name: why}
        self._blocked = self._blocked or blocks
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
            self._claims_unknown = True
            raise LoadError(str(error), named) from error
        if wanted and not named and not set(wanted) & set(manifest.tasks):
            return None
        for task in manifest.default_for:
            self._defaults.setdefault(task, folder.name)
        if manifest.name != folder.name:
            raise LoadError(f"{where} is the manifest of {manifest.name}, not of {folder.name}", bool(wanted))
        self._check_tasks(where, manifest)
        placement = Placement(self.settings.provider, self.settings.threads or usable_cores(), self.settings.gpu_mem_limit)
        most = min(manifest.largest_batch, self.settings.max_batch)
        batchers: dict[str, Batcher] = {}
        for name, graph in manifest.graphs.items():
            try:
                _check_file(folder / graph.file, graph)
                session = Session(folder / graph.file, graph, placement)
                _warm(session, most, len(manifest.classes))
            except SessionError as error:
                raise LoadError(f"{folder.name}/{error}", bool(wanted) or isinstance(error, ProviderMissing)) from error
            batchers[name] = Batcher(session, most, self.settings.queue_limit)
        return Model(manifest, batchers)

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
                if found != (role.inputs, role.outputs):
                    raise LoadError(
                        f"{where}: the {name} of {task} takes {sorted(role.inputs)} and gives {sorted(role.outputs)}, "
                        f"but {roles[name]} takes {sorted(found[0])} and gives {sorted(found[1])}",
                        blocks,
                    )


def _check_file(path: Path, graph: Graph) -> None:
    try:
        found = manifests.sha256(path)
    except OSError as error:
        raise SessionError(f"{path.name}: {error.strerror}") from error
    if found != graph.sha256:
        raise SessionError(f"{path.name}: its sha256 is {found[:12]}…, the manifest says {graph.sha256[:12]}…: damaged or half-written")


def _warm(session: Session, most: int, classes: int) -> None:
    """One run at batch 1 and one at the largest, so that the first request finds everything allocated; of zeros, and
    of the last class, which a graph with fewer than the manifest declares does not have."""
    fill = {"labels": classes - 1}
    for batch in sorted({1, most}):
        try:
            outputs = session.run(
                {port.name: np.full((batch, *port.item), fill.get(port.name, 0), port.dtype) for port in session.graph.inputs}
            )
        except Exception as error:
            raise SessionError(f"{session.graph.file}: the first run failed ({str(error).splitlines()[0]})") from error
        for name, array in outputs.items():
            if array.shape[0] != batch:
                raise SessionError(f"{session.graph.file}: {name} came back with {array.shape[0]} rows for a batch of {batch}")
