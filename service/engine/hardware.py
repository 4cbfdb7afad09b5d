"""What GPUs are there, and which of NVIDIA's libraries load."""

from __future__ import annotations

import contextlib
import ctypes
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import onnxruntime


@dataclass(frozen=True)
class Gpu:
    """A GPU as its driver tells of it; memory in 10^6 bytes."""

    name: str
    driver: str
    memory: int
    free: int


@cache
def gpus() -> list[Gpu]:
    """Those that `nvidia-smi`, which comes with the driver, lists; none where it is missing or fails."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,memory.free", "--format=csv,noheader,nounits"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [[cell.strip() for cell in line.rsplit(",", 3)] for line in listed.splitlines()]
    # what it says of a GPU that it cannot reach, or where there is none, is in no such row, and no failure to it
    return [Gpu(row[0], row[1], _megabytes(row[2]), _megabytes(row[3])) for row in rows if len(row) == 4]


def _megabytes(mebibytes: str) -> int:
    return round(int(mebibytes) * 2**20 / 10**6) if mebibytes.isdigit() else 0


def driver_cuda() -> str | None:
    """The newest CUDA that the driver runs, such as `13.0`; nothing without a driver."""
    number = ctypes.c_int()
    try:
        failed = ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(number))
    except OSError:
        return None
    return None if failed else _version(number.value)


def cuda() -> str | None:
    """The CUDA runtime that ONNX Runtime finds."""
    number = ctypes.c_int()
    try:
        failed = ctypes.CDLL(f"libcudart.so.{wanted_cuda().partition('.')[0]}").cudaRuntimeGetVersion(ctypes.byref(number))
    except OSError:
        return None
    return None if failed else _version(number.value)


def cudnn() -> str | None:
    """The cuDNN that ONNX Runtime finds, such as `9.10.2`."""
    try:
        get = ctypes.CDLL("libcudnn.so.9").cudnnGetVersion
    except OSError:
        return None
    get.restype = ctypes.c_size_t
    number = get()
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}"


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def wanted_cuda() -> str:
    """The CUDA that ONNX Runtime was built with, such as `13.0`; nothing in one for CPUs."""
    return str(onnxruntime.cuda_version or "")


@cache
def missing(provider: str) -> str | None:
    """Why the library of an execution provider, `cuda` or `tensorrt`, does not load; nothing where it does.

    The message begins with the file that is missing: one that the provider needs, or, in an ONNX Runtime for CPUs, its own.
    """
    folder, name = Path(onnxruntime.__file__).parent / "capi", f"libonnxruntime_providers_{provider}.so"
    if sys.platform != "linux":
        return None  # ONNX Runtime itself will tell
    if not (folder / name).exists():
        return f"{name}: not in this ONNX Runtime"
    preload()
    try:
        ctypes.CDLL(str(folder / "libonnxruntime_providers_shared.so"), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(folder / name))
    except OSError as error:
        return str(error).replace(": cannot open shared object file: No such file or directory", ": not found")
    return None


@cache
def preload() -> None:
    """Loads CUDA, cuDNN and, where it is installed, TensorRT from their packages, so that ONNX Runtime finds them."""
    onnxruntime.preload_dlls(directory="")
    with contextlib.suppress(ImportError, OSError):
        import tensorrt_libs  # noqa: F401
