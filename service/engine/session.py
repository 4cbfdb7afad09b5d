"""One ONNX Runtime session on one execution provider."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from service.contract.manifest import Graph

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}

Arrays = Mapping[str, np.ndarray]


SPIN_MICROSECONDS = "10"
"""How long a session's threads look for more work, within a run, before they sleep: about as long as they wait for each other at the end
of a layer. Longer takes the cores from the rest of the server; between runs they do not spin at all. Chosen with
`make bench ARGS=--threads` (docs/operations.md)."""


NICENESS = 10


class SessionError(RuntimeError):
    """A graph that cannot be opened; the message begins with its file and says why."""


class SessionBroken(RuntimeError):
    """A run failed for no fault of its inputs (memory, the provider): later runs of the same session may fail too."""


class RunStopped(RuntimeError):
    """A run took too long and was told to end. The session is as good as before."""


class BadOutput(RuntimeError):
    """A run gave what its graph does not promise: arrays of another shape, or numbers that are none."""


class ProviderMissing(SessionError):
    """The graph opened, but not on the execution provider that was demanded."""


@dataclass(frozen=True)
class Placement:
    """Where and how sessions run.

    Attributes:
        provider: `auto`, `cpu`, `cuda` or `tensorrt`; `auto` takes CUDA where it really loads.
        threads: threads within one run on the CPU.
        gpu_mem_limit: the most GPU memory of one session, in bytes.
        longest: seconds after which a first run on the CPU, of one row, is ended.
    """

    provider: str
    threads: int
    gpu_mem_limit: int | None = None
    longest: float | None = None


class Session:
    """An open graph. `run` is not meant for several threads at once: the batcher calls it from one."""

    def __init__(self, path: Path, graph: Graph, placement: Placement) -> None:
        """Opens the file and checks that its ports are those of the manifest.

        Raises:
            SessionError: not a graph that ONNX Runtime loads, other ports than declared, or the
                provider that was demanded did not load.
        """
        self.graph = graph
        self._session = _open(path, placement)
        self.provider: str = self._session.get_providers()[0].removesuffix("ExecutionProvider").lower()
        wanted = placement.provider
        if wanted != "auto" and self.provider != wanted:
            raise ProviderMissing(f"{path.name}: it runs on {self.provider}, but ATELIER_PROVIDER={wanted} was demanded")
        self._outputs = {port.name: port.item for port in graph.outputs}
        self._options = onnxruntime.RunOptions()
        self._check_ports(path)

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """One run: arrays with a common first dimension in, arrays with the same first dimension out.

        Raises:
            SessionBroken: it failed for no fault of the inputs.
            RunStopped: `stop` was called.
            BadOutput: an array has another shape than the graph declares.
            Exception: ONNX Runtime refused the inputs.
        """
        self._options = options = onnxruntime.RunOptions()
        try:
            made = dict(zip(self._outputs, self._session.run(list(self._outputs), dict(inputs), options), strict=True))
        except Exception as error:
            if options.terminate:
                raise RunStopped("it took too long") from error
            if isinstance(error, MemoryError) or type(error).__name__ in _BREAKING:
                raise SessionBroken(str(error).splitlines()[0]) from error
            raise
        rows = len(next(iter(inputs.values())))
        for name, item in self._outputs.items():
            if made[name].shape != (rows, *item):
                raise BadOutput(f"{name} came back as {made[name].shape}, not as {(rows, *item)}")
        return made

    def stop(self) -> None:
        """Ends the present run before its next node; from any thread."""
        self._options.terminate = True

    def _check_ports(self, path: Path) -> None:
        for kind, declared, found in (
            ("input", self.graph.inputs, self._session.get_inputs()),
            ("output", self.graph.outputs, self._session.get_outputs()),
        ):
            ours = {port.name: (_ONNX_TYPES[port.dtype], port.item) for port in declared}
            theirs = {port.name: (port.type, tuple(port.shape[1:])) for port in found}
            if ours != theirs:
                raise SessionError(f"{path.name}: the {kind}s are {theirs}, but the manifest declares {ours}")


_BREAKING = {"Fail", "RuntimeException", "EPFail", "EngineError"}
"""ONNX Runtime's exceptions that are no complaint about the inputs."""

_ONNX_TYPES = {"uint8": "tensor(uint8)", "int32": "tensor(int32)", "int64": "tensor(int64)", "float32": "tensor(float)"}


def _open(path: Path, placement: Placement) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = placement.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    providers = _providers(placement)
    if any(isinstance(provider, tuple) for provider in providers):
        options.enable_mem_pattern = False  # batches vary in size
        onnxruntime.preload_dlls(directory="")  # CUDA and cuDNN from the wheels beside ONNX Runtime's own
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.add_session_config_entry("session.intra_op.spin_duration_us", SPIN_MICROSECONDS)
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # the binding raises plain RuntimeErrors of its own types
        raise SessionError(f"{path.name}: ONNX Runtime cannot open it ({str(error).splitlines()[0]})") from error


def _providers(placement: Placement) -> list[Any]:
    available = onnxruntime.get_available_providers()
    cuda: dict[str, Any] = {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}
    if placement.gpu_mem_limit is not None:
        cuda["gpu_mem_limit"] = placement.gpu_mem_limit
    wanted = {"auto": ["cuda", "cpu"], "cpu": ["cpu"], "cuda": ["cuda", "cpu"], "tensorrt": ["tensorrt", "cuda", "cpu"]}
    names = [name for name in wanted[placement.provider] if _PROVIDERS[name] in available]
    return [(_PROVIDERS[name], cuda) if name == "cuda" else _PROVIDERS[name] for name in names]


def step_back() -> None:
    """Lowers the priority of this thread, and of those that it starts, such as a session's, under that of the event loop: what
    that does for a request is short, and everybody waits for it. Linux only, where priorities are threads'; elsewhere nothing."""
    if sys.platform == "linux":
        thread = threading.get_native_id()
        with contextlib.suppress(OSError):  # forbidden here: nothing but speed is lost
            os.setpriority(os.PRIO_PROCESS, thread, max(NICENESS, os.getpriority(os.PRIO_PROCESS, thread)))


def usable_cores() -> int:
    """The cores that this process may really use: its affinity, cut to the cgroup's CPU quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, _quota(cores)))


def _quota(cores: int) -> int:
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else math.ceil(int(quota) / int(period))
