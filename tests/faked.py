"""NVIDIA's side of ONNX Runtime, faked at its edge: sessions that say that they run on a GPU, memory that says that it lies there, and
the libraries that tell versions. What is computed is computed on the CPU, by the real ONNX Runtime.

    FAKED_MISSING=libcudnn.so.9 PYTHONPATH=tests python -m faked      serves, or whatever `python -m service` is told to do

With FAKED_ROW_SECONDS a row takes so long and needs no core for it, as on a GPU; what comes out then is what the session's first runs gave.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import threading
import time
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import onnxruntime

from service.engine import hardware

TensorRT, CUDA, CPU = "TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"
ROW_SECONDS = float(os.environ.get("FAKED_ROW_SECONDS", "0"))
FIRST_RUNS = 3
VERSIONS = {"cuDriverGetVersion": 13000, "cudaRuntimeGetVersion": 13020}

_gpu = threading.Lock()  # which works for one at a time
_Session, _OrtValue, _library = onnxruntime.InferenceSession, onnxruntime.OrtValue, ctypes.CDLL


class Session:
    """An InferenceSession on the CPU whose `get_providers` are those that were asked for.

    Attributes:
        opened: all of them, as they were opened.
        refuses: is asked, with the providers' settings, for an error with which the session does not open.
        fails: the errors with which the next runs fail.
        graphs: by session, the numbers of the graphs that its runs were captured as or replayed.
    """

    opened: ClassVar[list[Session]] = []
    refuses: ClassVar[Callable[[dict[str, dict[str, str]]], Exception | None]] = staticmethod(lambda settings: None)
    fails: ClassVar[list[Exception]] = []

    def __init__(self, path: str, options: Any, providers: list[tuple[str, dict[str, str]]], enable_fallback: bool) -> None:
        assert not enable_fallback
        self.path, self.settings, self.graphs = path, dict(providers), list[str]()
        if error := Session.refuses(self.settings):
            raise error
        self._sess = self._real = _Session(path, options, providers=[CPU])
        Session.opened.append(self)

    def get_providers(self) -> list[str]:
        return list(self.settings)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def run(self, *given: Any) -> Any:
        assert list(self.settings) == [CPU], "on a GPU, inputs and outputs are bound"
        return self._real.run(*given)

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        if Session.fails:
            raise Session.fails.pop(0)
        try:
            self.graphs.append(options.get_run_config_entry("gpu_graph_id"))
        except RuntimeError:
            self.graphs.append("")
        outputs = binding.get_outputs()
        if ROW_SECONDS and len(self.graphs) > FIRST_RUNS:
            with _gpu:
                time.sleep(ROW_SECONDS * outputs[0].shape()[0])
            for output, made in zip(outputs, self._made, strict=True):
                memory = (ctypes.c_uint8 * made.nbytes).from_address(output.data_ptr())
                np.copyto(np.frombuffer(memory, made.dtype).reshape(made.shape), made)  # meanwhile other threads run, as in a real run
            return
        self._real.run_with_iobinding(binding, options)
        self._made = [output.numpy().copy() for output in outputs]  # whose memory is the caller's


class OrtValue:
    """Memory on a GPU, counted.

    Attributes:
        shapes: of all that was taken.
    """

    shapes: ClassVar[list[tuple[int, ...]]] = []

    def __init__(self, real: Any) -> None:
        self._real = real

    @classmethod
    def ortvalue_from_shape_and_type(cls, shape: tuple[int, ...], dtype: Any, device: str, number: int) -> OrtValue:
        assert (device, number) == ("cuda", 0)
        OrtValue.shapes.append(tuple(shape))
        return cls(_OrtValue.ortvalue_from_shape_and_type(shape, dtype, "cpu", 0))

    def numpy(self) -> np.ndarray:
        return np.array(self._real.numpy())  # what comes from a GPU is a copy

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class Library:
    def __getattr__(self, name: str) -> Any:
        def get(number: Any = None) -> int:
            if number is not None:
                number._obj.value = VERSIONS[name]
                return 0
            return 91002

        return get


def _load(name: str, *given: Any, **more: Any) -> Any:
    if name == os.environ.get("FAKED_MISSING"):
        raise OSError(f"{name}: cannot open shared object file: No such file or directory")
    return Library() if name.startswith(("libcuda.", "libcudart.", "libcudnn.")) else _library(name, *given, **more)


def _missing(provider: str) -> str | None:
    lacks = os.environ.get("FAKED_MISSING", "")
    concerns = provider == "tensorrt" or not lacks.startswith("libnvinfer")
    return f"{lacks}: not found" if lacks and concerns else None


def install(patch: Callable[[Any, str, Any], None] = setattr) -> None:
    """Puts all of it in its place.

    Args:
        patch: such as a MonkeyPatch's `setattr`, which takes it back.
    """
    patch(Session, "opened", [])
    patch(Session, "fails", [])
    patch(OrtValue, "shapes", [])
    patch(onnxruntime, "InferenceSession", Session)
    patch(onnxruntime, "OrtValue", OrtValue)
    patch(onnxruntime, "cuda_version", "13.0")
    patch(onnxruntime, "preload_dlls", lambda directory: None)
    patch(ctypes, "CDLL", _load)
    patch(hardware, "missing", _missing)


if __name__ == "__main__":
    install()
    runpy.run_module("service", run_name="__main__", alter_sys=True)
