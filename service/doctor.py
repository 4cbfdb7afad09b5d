"""python -m service doctor: what this machine has, what each model would run on, and what to install where something is missing."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import platform
from collections.abc import Iterator
from pathlib import Path

import onnxruntime

from service import __version__
from service.engine import hardware
from service.engine.cpu import usable_cores
from service.engine.store import Store
from service.settings import Settings
from service.tasks import ROLES

PACKAGES = ("onnxruntime", "onnxruntime-gpu")
DRIVER = "install NVIDIA's driver; in a container, the NVIDIA Container Toolkit on its host, and start it with --gpus all"
INSTALL = "install requirements/gpu.txt in place of requirements/cpu.txt, in an environment of its own"
LIBRARIES = {
    "libcuda.so": DRIVER,
    "libnvinfer": "for TensorRT, pip install 'tensorrt-cu13-libs==10.*'",
    "libonnxruntime": INSTALL,
    "lib": "pip install -r requirements/gpu.txt brings CUDA and cuDNN",
}
"""What brings a library, by how its name begins; the last is for all others, but for a provider's own that is damaged."""


def examine(settings: Settings) -> int:
    """Prints the report. Returns 0, or 1 where the server would not do what the settings ask for."""
    onnxruntime.set_default_logger_severity(4)  # what it would say of a missing library is said below
    hardware.preload()
    for name, about in _machine():
        print(f"{name:10} {about}")
    advice = list(_advice(settings))
    failed = False
    print(f"\nModels in {settings.models}, with ATELIER_PROVIDER={settings.provider} and ATELIER_PRECISION={settings.precision}:")
    for name, place, works in _models(settings):
        print(f"  {name:32} {place}")
        failed = failed or not works
    if advice:
        print("\nTo do:")
        for line in dict.fromkeys(advice):
            print(f"  - {line}")
    return int(failed)


def _machine() -> Iterator[tuple[str, str]]:
    yield "atelier", f"{__version__}, Python {platform.python_version()}, {platform.platform(terse=True)}"
    yield "processor", f"{usable_cores()} of {os.cpu_count()} cores may be used; {_free_memory()}"
    found = hardware.gpus()
    for gpu in found:
        yield "GPU", f"{gpu.name}; {gpu.free:,} of {gpu.memory:,} MB are free"
    yield "driver", f"{found[0].driver}, for CUDA up to {hardware.driver_cuda() or 'none'}" if found else "none of NVIDIA's"
    yield "CUDA", hardware.cuda() or "not found"
    yield "cuDNN", hardware.cudnn() or "not found"
    built = f", built for CUDA {hardware.wanted_cuda()}" if hardware.wanted_cuda() else ", for CPUs"
    yield "runtime", f"ONNX Runtime {onnxruntime.__version__}{built} ({', '.join(_packages())})"
    yield "providers", "; ".join(f"{provider} {why or 'loads'}" for provider, why in _providers().items())


def _free_memory() -> str:
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        total, free = (int(lines[name].split()[0]) * 1024 // 10**6 for name in ("MemTotal", "MemAvailable"))
    except (OSError, KeyError, ValueError):
        return "memory unknown"
    return f"{free:,} of {total:,} MB of memory are free"


def _packages() -> list[str]:
    names = {distribution.metadata["Name"] for distribution in importlib.metadata.distributions()}
    return [name for name in PACKAGES if name in names]


def _providers() -> dict[str, str | None]:
    """By provider, why it does not load."""
    reasons = {provider: hardware.missing(provider) for provider in ("cuda", "tensorrt")}
    return {"cpu": None, **{provider: None if why is None else f"does not load ({why})" for provider, why in reasons.items()}}


def _advice(settings: Settings) -> Iterator[str]:
    if len(_packages()) > 1:
        yield f"pip uninstall {' '.join(_packages())}, then install one of them: they overwrite each other's files"
    has_gpu = bool(hardware.gpus())
    wanted = {"auto": ["cuda"] if has_gpu else [], "cpu": [], "cuda": ["cuda"], "tensorrt": ["cuda", "tensorrt"]}[settings.provider]
    for provider in wanted:
        if (why := hardware.missing(provider)) is not None:
            yield next((advice for start, advice in LIBRARIES.items() if why.startswith(start)), f"{INSTALL} ({why})")
    if wanted and not has_gpu:
        yield DRIVER
    driver, needed = hardware.driver_cuda(), hardware.wanted_cuda()
    if wanted and driver and needed and int(driver.partition(".")[0]) < int(needed.partition(".")[0]):
        yield f"install a newer driver: this one runs CUDA up to {driver}, ONNX Runtime was built for {needed}"


def _models(settings: Settings) -> Iterator[tuple[str, str, bool]]:
    """Each model that the settings ask for, opened and run once as the server does it: the provider and precision of its graphs, or why it
    is not served; and whether it is."""
    store = Store(settings, ROLES)
    try:
        asyncio.run(store.load())
        for name in sorted({*store.models, *store.failures}):
            if name in store.failures:
                yield name, f"not served: {store.failures[name]}", False
            else:
                batchers = store.models[name].batchers.values()
                yield name, ", ".join(sorted({f"{batcher.provider} {batcher.precision}" for batcher in batchers})), True
        if not store.models and not store.failures:
            yield str(settings.models), "has no models", False
    finally:
        store.close()
