"""One ONNX Runtime session on one execution provider."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from service.contract import manifest as manifests
from service.contract.manifest import Graph
from service.engine import cpu, gpu, hardware

logger = logging.getLogger("atelier")

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}

Arrays = Mapping[str, np.ndarray]


SPIN_MICROSECONDS = 0
"""How long a session's threads look for more work, within a run, before they sleep; 0: not at all. It would take the cores from the rest of
the server, and gains nothing. Chosen with `make bench ARGS=--threads` and `make large` (docs/operations.md)."""


class SessionError(RuntimeError):
    """A graph that cannot be opened; the message begins with its file and says why."""


class SessionBroken(RuntimeError):
    """A run failed for no fault of its inputs (memory, the provider): later runs of the same session may fail too."""


class RunStopped(RuntimeError):
    """A run took too long and was told to end. The session is as good as before."""


class BadOutput(RuntimeError):
    """A run gave what its graph does not promise: arrays of another shape, or numbers that are none."""


class ProviderMissing(SessionError):
    """The graph opened, but not on the execution provider that was demanded; and the reasons."""

    def __init__(self, message: str, reasons: str) -> None:
        super().__init__(f"{message} ({reasons})")
        self.reasons = reasons


@dataclass(frozen=True)
class Placement:
    """Where and how sessions run.

    Attributes:
        provider: `auto`, `cpu`, `cuda` or `tensorrt`; `auto` takes CUDA where it really loads.
        threads: threads within one run on the CPU.
        gpu_mem_limit: the most GPU memory of one session, in bytes.
        gpu_runs: how many runs of a graph may be under way at a time on CUDA, where they are not captured.
        cuda_graphs: runs on a GPU are captured, one CUDA graph a batch size, where the whole of a graph runs there.
        cache: the folder in which TensorRT's engines are kept.
        longest: seconds after which a first run on the CPU, of one row, is ended.
    """

    provider: str
    threads: int
    gpu_mem_limit: int | None = None
    gpu_runs: int = 1
    cuda_graphs: bool = False
    cache: Path = Path("~/.cache/atelier")
    longest: float | None = None


class Session:
    """An open graph. `run` is meant for as many threads at once as it has `lanes`: the batcher calls it from them.

    Attributes:
        provider: `cpu`, `cuda` or `tensorrt`.
        precision: `float32`, or `float16` if the file is the graph's variant in half precision.
    """

    def __init__(self, path: Path, graph: Graph, placement: Placement, most: int = 64) -> None:
        """Opens the file and checks that its ports are those of the manifest.

        Args:
            most: the most rows of one run.

        Raises:
            SessionError: not a graph that ONNX Runtime loads, other ports than declared, or the
                provider that was demanded did not load.
        """
        self.graph = graph
        self.precision = "float16" if _is_float16(path, graph) else "float32"
        self._session, self._device = _placed(path, graph, placement, most)
        self.provider: str = _provider(self._session)
        self._outputs = {port.name: port.item for port in graph.outputs}
        self._present: dict[int, onnxruntime.RunOptions] = {}  # by thread
        self._check_ports(path)

    @property
    def sizes(self) -> list[int]:
        """The batch sizes that it is warmed with: on a GPU all that run there."""
        return self._device.sizes

    @property
    def lanes(self) -> int:
        """How many runs may be under way at a time."""
        return self._device.lanes

    def narrow(self) -> None:
        """From now on one run is under way at a time."""
        self._device.narrow()

    def spread(self) -> None:
        """From now on as many runs may be under way as there are threads, each of a row: for graphs that take long for one. On a CPU only.

        Raises:
            SessionError: the graph cannot be opened once more.
        """
        if isinstance(self._device, cpu.Threads):
            self._device.spread()

    def run(self, inputs: Arrays, beside: bool = False) -> dict[str, np.ndarray]:
        """One run: arrays with a common first dimension in, arrays with the same first dimension out.

        Args:
            beside: most of a CPU's threads have runs of their own, so that this one has a thread, not all.

        Raises:
            SessionBroken: it failed for no fault of the inputs.
            RunStopped: `stop` was called.
            BadOutput: an array has another shape than the graph declares.
            Exception: ONNX Runtime refused the inputs.
        """
        return self._run(inputs, onnxruntime.RunOptions(), beside)

    def warm(self, inputs: Arrays, beside: bool = False) -> dict[str, np.ndarray]:
        """A run after which memory that only so many rows need is given back on a CPU, where runs are short."""
        return self._run(inputs, _shrinking() if self.provider == "cpu" else onnxruntime.RunOptions(), beside)

    def stop(self, threads: Collection[int] | None = None) -> None:
        """Ends the present runs, or those of some threads, before their next nodes; from any thread."""
        for thread, options in [*self._present.items()]:
            if threads is None or thread in threads:
                options.terminate = True

    def _run(self, inputs: Arrays, options: onnxruntime.RunOptions, beside: bool) -> dict[str, np.ndarray]:
        thread = threading.get_ident()
        self._present[thread] = options
        try:
            made = self._device.run(inputs, options, beside)
        except Exception as error:
            if options.terminate:
                raise RunStopped("it took too long") from error
            if isinstance(error, MemoryError) or type(error).__name__ in _BREAKING:
                raise SessionBroken(str(error).splitlines()[0]) from error
            raise
        finally:
            del self._present[thread]
        rows = len(next(iter(inputs.values())))
        for name, item in self._outputs.items():
            if made[name].shape != (rows, *item):
                raise BadOutput(f"{name} came back as {made[name].shape}, not as {(rows, *item)}")
        return made

    def _check_ports(self, path: Path) -> None:
        for kind, declared, found in (
            ("input", self.graph.inputs, self._session.get_inputs()),
            ("output", self.graph.outputs, self._session.get_outputs()),
        ):
            ours = {port.name: (_ONNX_TYPES[port.dtype], port.item) for port in declared}
            theirs = {port.name: (port.type, tuple(port.shape[1:])) for port in found}
            if ours != theirs:
                raise SessionError(f"{path.name}: the {kind}s are {theirs}, but the manifest declares {ours}")


_BREAKING = {"Fail", "RuntimeException", "EPFail", "EngineError", "RuntimeError"}
"""ONNX Runtime's exceptions that are no complaint about the inputs; the last is what its bindings raise on a device."""

_ONNX_TYPES = {"uint8": "tensor(uint8)", "int32": "tensor(int32)", "int64": "tensor(int64)", "float32": "tensor(float)"}


def _is_float16(path: Path, graph: Graph) -> bool:
    return graph.float16 is not None and path.name == graph.float16.file


def _open(path: Path, graph: Graph, placement: Placement, most: int) -> tuple[onnxruntime.InferenceSession, bool]:
    """A session, and whether it captures CUDA graphs: as is asked for, or the next best of what may take its place."""
    failures = list[str]()
    for attempt in _attempts(placement):
        try:
            session = _session(path, graph, attempt, most)
        except Exception as error:  # the binding raises plain RuntimeErrors of its own types
            failures.append(str(error).splitlines()[0])
            continue
        _check_provider(path, placement.provider, session, failures)
        for failure in failures:
            logger.warning("%s: opened otherwise than was asked for (%s)", path.name, failure)
        return session, attempt.cuda_graphs and _provider(session) == "cuda"
    raise SessionError(f"{path.name}: ONNX Runtime cannot open it ({failures[0]})")


def _placed(path: Path, graph: Graph, placement: Placement, most: int) -> tuple[onnxruntime.InferenceSession, gpu.Device | cpu.Threads]:
    """A session, and how it runs."""
    session, captured = _open(path, graph, placement, most)
    if _provider(session) != "cpu":
        try:
            lanes = 1 if captured or _provider(session) == "tensorrt" else placement.gpu_runs
            return session, gpu.Device(_by_size(session, path, graph, placement, most, captured), graph, captured, lanes)
        except ProviderMissing as error:
            if placement.provider != "auto":
                raise
            logger.warning("%s: runs on the CPU, for a GPU did not take all of its batch sizes (%s)", path.name, error.reasons)
            session, _ = _open(path, graph, replace(placement, provider="cpu"), most)
    one = replace(placement, provider="cpu", threads=1)
    return session, cpu.Threads(session, graph, placement.threads, most, lambda: _open(path, graph, one, most)[0])


def _by_size(
    session: onnxruntime.InferenceSession, path: Path, graph: Graph, placement: Placement, most: int, captured: bool
) -> dict[int, onnxruntime.InferenceSession]:
    """By the size of batches on a GPU, the session in which they run (`gpu`)."""
    if captured or _provider(session) == "tensorrt":
        return dict.fromkeys(gpu.batch_sizes(most), session)
    first, *others = gpu.few_sizes(most)
    alike = replace(placement, provider="cuda", cuda_graphs=False)
    return {first: session} | {size: _open(path, graph, alike, most)[0] for size in others}


def _attempts(placement: Placement) -> Iterator[Placement]:
    """A graph that does not run as a whole on a GPU cannot be captured. The CPU is tried last, if only to tell who is to blame."""
    yield placement
    if placement.provider != "cpu" and hardware.missing("cuda") is None:
        if placement.cuda_graphs:
            yield replace(placement, cuda_graphs=False)
        yield replace(placement, provider="cpu")


def _check_provider(path: Path, wanted: str, session: onnxruntime.InferenceSession, failures: list[str]) -> None:
    found = _provider(session)
    if wanted in ("auto", found):
        return
    reasons = [why for why in (hardware.missing(wanted), *failures[:1], "see python -m service doctor") if why]
    raise ProviderMissing(f"{path.name}: it runs on {found}, but ATELIER_PROVIDER={wanted} was demanded", "; ".join(reasons))


def _provider(session: onnxruntime.InferenceSession) -> str:
    """The one that comes first is the one that took the graph: those that do not load are left out."""
    return str(session.get_providers()[0]).removesuffix("ExecutionProvider").lower()


def _session(path: Path, graph: Graph, placement: Placement, most: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = placement.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    providers = _providers(path, graph, placement, most)
    if len(providers) > 1:
        options.enable_mem_pattern = False  # batches vary in size
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(SPIN_MICROSECONDS > 0)))
    options.add_session_config_entry("session.intra_op.spin_duration_us", str(SPIN_MICROSECONDS))
    options.add_session_config_entry("session.force_spinning_stop", "1")
    # its own fallback would be to the CPU, in silence
    return onnxruntime.InferenceSession(str(path), options, providers=providers, enable_fallback=False)


def _providers(path: Path, graph: Graph, placement: Placement, most: int) -> list[Any]:
    """The providers in the order of preference, each with its settings; those that do not load are left out."""
    wanted = {"auto": ["cuda", "cpu"], "cpu": ["cpu"], "cuda": ["cuda", "cpu"], "tensorrt": ["tensorrt", "cuda", "cpu"]}
    names = [name for name in wanted[placement.provider] if name == "cpu" or hardware.missing(name) is None]
    memory, capture = placement.gpu_mem_limit, placement.cuda_graphs
    settings: dict[str, dict[str, str]] = {"cpu": {}}
    if "cuda" in names:
        settings["cuda"] = gpu.cuda_options(memory, capture and "tensorrt" not in names)
    if "tensorrt" in names:
        settings["tensorrt"] = gpu.tensorrt_options(memory, _engines(path, placement, most), graph, most)
    return [(_PROVIDERS[name], settings[name]) for name in names]


def _engines(path: Path, placement: Placement, most: int) -> Path:
    """The folder of a graph's engines, which serve for one content, one ONNX Runtime, one kind of GPU and one largest batch."""
    found = hardware.gpus()
    name = re.sub(r"\W+", "-", found[0].name).lower() if found else "unknown"
    folder = placement.cache.expanduser() / "tensorrt" / f"{manifests.sha256(path)[:16]}-{onnxruntime.__version__}-{name}-{most}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _shrinking() -> onnxruntime.RunOptions:
    options = onnxruntime.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options
