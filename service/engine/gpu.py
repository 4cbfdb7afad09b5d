"""How a graph runs on an NVIDIA GPU: batches of a few sizes only, in device memory that stays bound to the session.

A size is met by padding, so that memory does not grow with what is asked. A captured CUDA graph wants the same addresses each time, and
an engine of TensorRT serves all sizes: with these they are 1, 2, 4, ... and the most that a run takes. ONNX Runtime's own convolutions
are planned anew whenever a session's run has another size than the one before, which takes longer than many a run (microsoft/onnxruntime
#23006): without these each size has a session of its own, and they are fewer.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from service.contract.manifest import Graph, Port


def batch_sizes(most: int) -> list[int]:
    """The powers of two below `most`, and `most`."""
    return [*(2**power for power in range(math.ceil(math.log2(most)))), most]


def few_sizes(most: int) -> list[int]:
    """The powers of eight up to half of `most`, and `most`."""
    return [size for size in (8**power for power in range(most.bit_length())) if 2 * size <= most] + [most]


class Device:
    """A graph's runs on a GPU.

    Args:
        sessions: by the sizes of batches, the session in which each runs.
        captured: they capture CUDA graphs, one a size.
        lanes: how many runs may be under way at a time; each has its own buffers.
    """

    def __init__(self, sessions: Mapping[int, Any], graph: Graph, captured: bool, lanes: int) -> None:
        self.sizes, self.lanes = sorted(sessions), lanes
        self._sessions, self._graph, self._captured = sessions, graph, captured
        self._idle: dict[int, list[_Bound]] = {size: [] for size in sessions}

    def narrow(self) -> None:
        """From now on one run at a time."""
        self.lanes = 1

    def run(self, inputs: Mapping[str, np.ndarray], options: onnxruntime.RunOptions, beside: bool) -> dict[str, np.ndarray]:
        """Rows of arrays in host memory, no more than the largest size; through the buffers of the smallest size that holds them.

        Args:
            options: of this run alone.
            beside: makes no difference here.
        """
        rows = len(next(iter(inputs.values())))
        size = self.sizes[bisect_left(self.sizes, rows)]
        if self._captured:
            options.add_run_config_entry("gpu_graph_id", str(size))
        idle = self._idle[size]
        try:
            bound = idle.pop()
        except IndexError:
            bound = _Bound(self._sessions[size], self._graph, size, self._captured)
        try:
            return bound.run(inputs, rows, options)
        finally:
            idle.append(bound)


class _Bound:
    """The inputs of one batch size in device memory, and in host memory from where they are copied.

    Outputs go to new host memory within the run, in which other threads may run; those of a captured graph, whose addresses have to stay,
    to device memory first.
    """

    def __init__(self, session: Any, graph: Graph, size: int, captured: bool) -> None:
        self._session, self._binding = session, session.io_binding()
        self._size, self._rows = size, 0
        self._staged = {port.name: np.zeros((size, *port.item), port.dtype) for port in graph.inputs}
        self._inputs = {port.name: _buffer(port, size) for port in graph.inputs}
        self._outputs = {port.name: _buffer(port, size) for port in graph.outputs} if captured else {}
        self._made = {port.name: ((size, *port.item), np.dtype(port.dtype).type) for port in graph.outputs}
        for name, buffer in self._inputs.items():
            self._binding.bind_ortvalue_input(name, buffer)
        for name, buffer in self._outputs.items():
            self._binding.bind_ortvalue_output(name, buffer)

    def run(self, inputs: Mapping[str, np.ndarray], rows: int, options: onnxruntime.RunOptions) -> dict[str, np.ndarray]:
        for name, buffer in self._inputs.items():
            staged = inputs[name]
            if rows < self._size:
                staged = self._staged[name]
                staged[:rows], staged[rows : self._rows] = inputs[name], 0
            buffer.update_inplace(np.ascontiguousarray(staged))
        if rows < self._size:
            self._rows = rows
        if self._outputs:
            self._session.run_with_iobinding(self._binding, options)
            return {name: buffer.numpy()[:rows] for name, buffer in self._outputs.items()}
        made = {name: np.empty(shape, dtype) for name, (shape, dtype) in self._made.items()}
        for name, array in made.items():
            self._binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        self._session.run_with_iobinding(self._binding, options)
        return {name: array[:rows] for name, array in made.items()}


def _buffer(port: Port, size: int) -> Any:
    return onnxruntime.OrtValue.ortvalue_from_shape_and_type((size, *port.item), np.dtype(port.dtype).type, "cuda", 0)


def cuda_options(memory: int | None, capture: bool) -> dict[str, str]:
    """The settings of the CUDA provider. An exhaustive search for convolutions takes most of a second for each new shape.

    Args:
        memory: the most of it, in bytes.
    """
    options = {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0", "enable_cuda_graph": "1" if capture else "0"}
    if memory is not None:  # of which growing by powers of two would leave up to a half unused
        options |= {"gpu_mem_limit": str(memory), "arena_extend_strategy": "kSameAsRequested"}
    return options


def tensorrt_options(memory: int | None, folder: Path, graph: Graph, most: int) -> dict[str, str]:
    """The settings of the TensorRT provider: one engine for all batch sizes, kept with its timings in a folder.

    Args:
        memory: the most that an engine works with, in bytes.
    """
    options = {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(folder),
        "trt_profile_min_shapes": _shapes(graph, 1),
        "trt_profile_opt_shapes": _shapes(graph, most),
        "trt_profile_max_shapes": _shapes(graph, most),
    }
    return options if memory is None else {**options, "trt_max_workspace_size": str(memory)}


def _shapes(graph: Graph, size: int) -> str:
    return ",".join(f"{port.name}:{'x'.join(map(str, (size, *port.item)))}" for port in graph.inputs)
