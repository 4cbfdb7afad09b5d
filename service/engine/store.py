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
from service.engine.session import Placement, Session, SessionError, usable_cores
from service.settings import Settings

logger = logging.getLogger("atelier")

Roles = Mapping[str, tuple[frozenset[str], frozenset[str]]]
"""What a task wants of the graph in each role: the names of its inputs and outputs."""


class LoadError(Exception):
    """A model folder that cannot be served; the message names the file and says why."""


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

    def load(self) -> None:
        """Opens and warms every folder asked for. What fails is kept in `failures` and logged."""
        for folder in self._folders():
            try:
                model = self._open(folder)
            except LoadError as error:
                self._fail(folder.name, str(error))
            else:
                if model is not None:
                    self.models = {**self.models, model.name: model}  # a new dict: others may be iterating over the old one
                    self._warn_of_idle_gpu(model)
                    logger.info("model %s serves %s on %s", model.name, ", ".join(model.manifest.tasks), model.provider)
        for wanted in self._missing():
            self._fail(wanted, f"ATELIER_LOAD names {wanted}, but no folder of {self.settings.models} has it")
        self.loaded = True

    @property
    def ready(self) -> bool:
        """Everything that `ATELIER_LOAD` names is served; with it unset, at least something is."""
        if not self.loaded:
            return False
        if self.settings.load or self.settings.provider != "auto":
            return bool(self.models) and not self.failures
        return bool(self.models)

    def serving(self, task: str) -> list[Model]:
        """The models of a task, its default first, then by name."""
        models = [model for model in self.models.values() if task in model.manifest.tasks]
        return sorted(models, key=lambda model: (task not in model.manifest.default_for, model.name))

    def find(self, task: str, name: str | None) -> Model:
        """The named model of a task, or its default: the first that claims it, else the first by name.

        Raises:
            UnknownModel: there is none of that name for the task.
            ModelUnavailable: its folder is there but is not served, or nothing is loaded yet.
        """
        models = self.serving(task)
        if name is None and models:
            return models[0]
        for model in models:
            if model.name == name:
                return model
        if not self.loaded:
            raise ModelUnavailable("the models are still being loaded")
        if name in self.failures:
            raise ModelUnavailable(f"{name} is not served: {self.failures[name]}")
        if name is None:
            raise ModelUnavailable(f"no model serves {task}")
        known = ", ".join(model.name for model in models) or "none"
        raise UnknownModel(f"{name} does not serve {task}; there is: {known}")

    def close(self) -> None:
        for model in self.models.values():
            model.close()

    def _warn_of_idle_gpu(self, model: Model) -> None:
        if self.settings.provider == "auto" and model.provider == "cpu" and Path("/dev/nvidiactl").exists():
            logger.warning(
                "model %s runs on the CPU beside an NVIDIA device: install requirements/gpu.txt in place of requirements/cpu.txt",
                model.name,
            )

    def _fail(self, name: str, why: str) -> None:
        self.failures = {**self.failures, name: why}
        logger.error("model %s is not served: %s", name, why)

    def _folders(self) -> list[Path]:
        root = self.settings.models
        if not root.is_dir():
            self._fail(str(root), f"ATELIER_MODELS={root} is not a folder")
            return []
        return sorted(folder for folder in root.iterdir() if folder.is_dir() and not folder.name.startswith("."))

    def _missing(self) -> list[str]:
        served = {*self.models, *(task for model in self.models.values() for task in model.manifest.tasks)}
        return [wanted for wanted in self.settings.load if wanted not in served and wanted not in self.failures]

    def _open(self, folder: Path) -> Model | None:
        """Opens one folder; nothing when `ATELIER_LOAD` does not ask for it.

        Raises:
            LoadError: the folder cannot be served.
        """
        wanted = self.settings.load
        if not (folder / manifests.FILE).exists():
            raise LoadError(f"{folder / manifests.FILE} is missing: an unfinished export?")
        try:
            manifest = manifests.read(folder)
        except ManifestError as error:
            raise LoadError(str(error)) from error
        if wanted and manifest.name not in wanted and not set(wanted) & set(manifest.tasks):
            return None
        if manifest.name != folder.name:
            raise LoadError(f"{folder / manifests.FILE} is the manifest of {manifest.name}, not of {folder.name}")
        self._check_tasks(folder, manifest)
        placement = Placement(self.settings.provider, self.settings.threads or usable_cores(), self.settings.gpu_mem_limit)
        most = min(manifest.largest_batch, self.settings.max_batch)
        batchers: dict[str, Batcher] = {}
        for name, graph in manifest.graphs.items():
            _check_file(folder / graph.file, graph)
            try:
                session = Session(folder / graph.file, graph, placement)
                _warm(session, most)
            except SessionError as error:
                raise LoadError(f"{folder}: {error}") from error
            batchers[name] = Batcher(session, most, self.settings.queue_limit)
        return Model(manifest, batchers)

    def _check_tasks(self, folder: Path, manifest: Manifest) -> None:
        for task, roles in manifest.tasks.items():
            if task not in self.tasks:
                raise LoadError(f"{folder / manifests.FILE}: this server has no task {task}")
            for role, (inputs, outputs) in self.tasks[task].items():
                if role not in roles:
                    raise LoadError(f"{folder / manifests.FILE}: the task {task} lacks the role {role}")
                graph = manifest.graphs[roles[role]]
                found = {port.name for port in graph.inputs}, {port.name for port in graph.outputs}
                if found[0] != inputs or found[1] != outputs:
                    raise LoadError(
                        f"{folder / manifests.FILE}: the {role} of {task} takes {sorted(inputs)} and gives {sorted(outputs)}, "
                        f"but {roles[role]} takes {sorted(found[0])} and gives {sorted(found[1])}"
                    )


def _check_file(path: Path, graph: Graph) -> None:
    try:
        found = manifests.sha256(path)
    except OSError as error:
        raise LoadError(f"{path}: {error.strerror}") from error
    if found != graph.sha256:
        raise LoadError(f"{path}: its sha256 is {found[:12]}…, the manifest says {graph.sha256[:12]}…: damaged or half-written")


def _warm(session: Session, most: int) -> None:
    """One run at batch 1 and one at the largest, so that the first request finds everything allocated."""
    for batch in sorted({1, most}):
        inputs = {
            port.name: np.zeros([batch, *(1 if isinstance(size, str) else size for size in port.shape[1:])], port.dtype)
            for port in session.graph.inputs
        }
        try:
            outputs = session.run(inputs)
        except Exception as error:
            raise SessionError(f"{session.graph.file}: the first run failed ({str(error).splitlines()[0]})") from error
        for name, array in outputs.items():
            if array.shape[0] != batch:
                raise SessionError(f"{session.graph.file}: {name} came back with {array.shape[0]} rows for a batch of {batch}")
