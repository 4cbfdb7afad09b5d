"""The path of a GPU, on ONNX Runtime's interface to it as tests/faked.py has it. No GPU takes part."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faked
import numpy as np
import onnxruntime
import pytest
from support import MODELS, ROOT, Server

from service import settings
from service.contract.manifest import Float16, Graph, read
from service.engine import gpu, hardware
from service.engine.session import Placement, ProviderMissing, Session, SessionBroken, SessionError
from service.engine.store import _open as warmed
from service.engine.store import opened
from service.settings import SettingsError

Start = Callable[..., Server]

FOLDER = MODELS / "cdcgan"
GRAPH = read(FOLDER).graphs["decoder"]
PATH = FOLDER / GRAPH.file
SMI = "#!/bin/sh\necho 'Faked T9, 595.10, 40960, 39936'\n"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[faked.Session]:
    faked.install(monkeypatch.setattr)
    return faked.Session


def smi(folder: Path, script: str) -> str:
    """A PATH on which there is such an nvidia-smi before any other."""
    program = folder / "bin" / "nvidia-smi"
    program.parent.mkdir(exist_ok=True)
    program.write_text(script)
    program.chmod(0o755)
    return f"{program.parent}:{os.environ['PATH']}"


@pytest.fixture
def bin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A PATH on which there is an nvidia-smi."""
    monkeypatch.setenv("PATH", smi(tmp_path, SMI))
    hardware.gpus.cache_clear()
    yield os.environ["PATH"]
    hardware.gpus.cache_clear()


def inputs(number: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(number)
    return {"latents": random.standard_normal((number, 128), np.float32), "labels": np.arange(number, dtype=np.int32) % 10}


@pytest.mark.parametrize(("most", "sizes"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (64, [1, 2, 4, 8, 16, 32, 64])])
def test_batches_on_a_gpu_have_few_sizes(most: int, sizes: list[int]) -> None:
    assert gpu.batch_sizes(most) == sizes


@pytest.mark.parametrize(("most", "sizes"), [(1, [1]), (2, [1, 2]), (6, [1, 6]), (15, [1, 15]), (16, [1, 8, 16]), (64, [1, 8, 64])])
def test_where_each_has_a_session_they_are_fewer(most: int, sizes: list[int]) -> None:
    assert gpu.few_sizes(most) == sizes


def test_no_session_runs_batches_of_two_sizes(fake: type[faked.Session]) -> None:
    session = Session(PATH, GRAPH, Placement("cuda", 1), 24)
    for number in (1, 8, 24, 2, 1, 9, 1):
        session.run(inputs(number))
    assert [len(each.graphs) for each in fake.opened] == [3, 2, 2]
    assert len(fake.opened) == 3


def test_runs_are_padded_and_answer_as_on_the_cpu(fake: type[faked.Session]) -> None:
    there, here = Session(PATH, GRAPH, Placement("cuda", 1), 24), Session(PATH, GRAPH, Placement("cpu", 1))
    assert (there.provider, there.sizes, here.sizes) == ("cuda", [1, 8, 24], [1, 64])
    for number in (1, 24, 3, 8, 9, 17, 2):
        found = there.run(inputs(number))["images"]
        assert found.shape[0] == number
        assert np.array_equal(found, here.run(inputs(number))["images"])


def test_memory_is_taken_once_for_each_size(fake: type[faked.Session]) -> None:
    session = Session(PATH, GRAPH, Placement("auto", 1), 8)
    for _ in range(3):
        for number in range(1, 9):
            session.run(inputs(number))
    assert sorted(shape[0] for shape in faked.OrtValue.shapes) == sorted([1, 8] * 2)  # two inputs; what comes out goes to the host
    with pytest.raises(IndexError):
        session.run(inputs(9))


def test_two_runs_at_a_time_have_buffers_of_their_own(fake: type[faked.Session], monkeypatch: pytest.MonkeyPatch) -> None:
    run, together = fake.run_with_iobinding, threading.Barrier(2, timeout=10)

    def both(session: faked.Session, *given: object) -> None:
        together.wait()
        run(session, *given)

    session = Session(PATH, GRAPH, Placement("cuda", 1, gpu_runs=2), 8)
    assert session.lanes == 2
    monkeypatch.setattr(fake, "run_with_iobinding", both)
    given = [inputs(8), {**inputs(8), "labels": np.full(8, 3, np.int32)}]
    with ThreadPoolExecutor(2) as pool:
        found = [*pool.map(session.run, given)]
    here = Session(PATH, GRAPH, Placement("cpu", 1))
    for asked, made in zip(given, found, strict=True):
        assert np.array_equal(made["images"], here.run(asked)["images"])


def test_where_memory_for_two_runs_is_missing_there_is_one_at_a_time(
    fake: type[faked.Session], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run, alone = fake.run_with_iobinding, threading.Lock()

    def one(session: faked.Session, *given: object) -> None:
        if not alone.acquire(blocking=False):
            raise RuntimeError("out of memory")
        try:
            time.sleep(0.2)
            run(session, *given)
        finally:
            alone.release()

    monkeypatch.setattr(fake, "run_with_iobinding", one)
    session = warmed(FOLDER, GRAPH, Placement("cuda", 1, gpu_runs=2), read(FOLDER), 8, half=False)
    assert (session.provider, session.lanes) == ("cuda", 1)
    assert "one run at a time, for of 2 at once the first run failed (out of memory)" in caplog.text


def test_captured_runs_are_one_at_a_time(fake: type[faked.Session]) -> None:
    assert Session(PATH, GRAPH, Placement("cuda", 1, gpu_runs=2, cuda_graphs=True), 8).lanes == 1


def test_the_settings_of_cuda(fake: type[faked.Session]) -> None:
    Session(PATH, GRAPH, Placement("cuda", 1, gpu_mem_limit=2**30))
    settings = fake.opened[-1].settings
    assert list(settings) == [faked.CUDA, faked.CPU]
    assert settings[faked.CUDA]["cudnn_conv_algo_search"] == "HEURISTIC"
    assert settings[faked.CUDA]["use_tf32"] == "0"
    assert settings[faked.CUDA]["gpu_mem_limit"] == str(2**30)
    assert settings[faked.CUDA]["enable_cuda_graph"] == "0"


def test_each_size_is_a_graph_of_its_own(fake: type[faked.Session]) -> None:
    session = Session(PATH, GRAPH, Placement("cuda", 1, cuda_graphs=True), 4)
    for number in (1, 3, 4, 2, 1):
        session.run(inputs(number))
    assert fake.opened[-1].settings[faked.CUDA]["enable_cuda_graph"] == "1"
    assert fake.opened[-1].graphs == ["1", "4", "4", "2", "1"]


def test_what_cannot_be_captured_runs_without(fake: type[faked.Session], monkeypatch: pytest.MonkeyPatch, caplog: object) -> None:
    def refuse(settings: dict[str, dict[str, str]]) -> Exception | None:
        captured = settings.get(faked.CUDA, {}).get("enable_cuda_graph") == "1"
        return RuntimeError("not all nodes are on the GPU") if captured else None

    monkeypatch.setattr(fake, "refuses", staticmethod(refuse))
    session = Session(PATH, GRAPH, Placement("cuda", 1, cuda_graphs=True), 4)
    session.run(inputs(2))
    assert (session.provider, fake.opened[-1].graphs) == ("cuda", [""])
    assert "not all nodes are on the GPU" in caplog.text  # type: ignore[attr-defined]


def test_tensorrt_has_one_engine_for_all_sizes_and_keeps_it(fake: type[faked.Session], bin: str, tmp_path: Path) -> None:
    session = Session(PATH, GRAPH, Placement("tensorrt", 1, gpu_mem_limit=2**30, cache=tmp_path / "cache"), 24)
    settings = fake.opened[-1].settings
    assert (session.provider, list(settings)) == ("tensorrt", [faked.TensorRT, faked.CUDA, faked.CPU])
    tensorrt = settings[faked.TensorRT]
    assert tensorrt["trt_profile_min_shapes"] == "latents:1x128,labels:1"
    assert tensorrt["trt_profile_opt_shapes"] == tensorrt["trt_profile_max_shapes"] == "latents:24x128,labels:24"
    assert tensorrt["trt_max_workspace_size"] == str(2**30)
    assert settings[faked.CUDA]["enable_cuda_graph"] == "0"
    folder = Path(tensorrt["trt_engine_cache_path"])
    assert folder.parent == tmp_path / "cache" / "tensorrt"
    assert folder.name == f"{GRAPH.sha256[:16]}-{onnxruntime.__version__}-faked-t9-24"
    assert folder.is_dir()
    assert tensorrt["trt_timing_cache_path"] == str(folder)
    assert tensorrt["trt_engine_cache_enable"] == tensorrt["trt_timing_cache_enable"] == "1"


def test_all_sizes_are_of_one_session_of_tensorrt(fake: type[faked.Session], bin: str, tmp_path: Path) -> None:
    session = Session(PATH, GRAPH, Placement("tensorrt", 1, cache=tmp_path), 24)
    for number in (1, 2, 24):
        session.run(inputs(number))
    (opened_once,) = fake.opened
    assert (session.sizes, opened_once.graphs) == ([1, 2, 4, 8, 16, 24], ["", "", ""])


def test_tensorrt_captures_no_graphs() -> None:
    """It keeps one for all sizes, with which those of other sizes would be answered."""
    with pytest.raises(SettingsError, match=r"^ATELIER_CUDA_GRAPHS=True: .*TensorRT captures one batch size for all"):
        settings.read(provider="tensorrt", cuda_graphs=True)
    assert settings.read(provider="cuda", cuda_graphs=True).cuda_graphs


@pytest.mark.parametrize("provider", ["auto", "cuda"])
def test_a_gpu_without_room_for_all_sizes(
    provider: str, fake: type[faked.Session], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(settings: dict[str, dict[str, str]]) -> Exception | None:
        return RuntimeError("out of memory") if faked.CUDA in settings and fake.opened else None

    monkeypatch.setattr(fake, "refuses", staticmethod(refuse))
    if provider == "cuda":
        with pytest.raises(ProviderMissing, match=r"cuda was demanded \(out of memory; see"):
            Session(PATH, GRAPH, Placement(provider, 1), 24)
        return
    session = Session(PATH, GRAPH, Placement(provider, 1), 24)
    assert (session.provider, session.run(inputs(3))["images"].shape[0]) == ("cpu", 3)
    assert "a GPU did not take all of its batch sizes (out of memory" in caplog.text


@pytest.mark.parametrize("provider", ["auto", "cuda"])
def test_a_gpu_without_room_for_the_first_runs(provider: str, fake: type[faked.Session], caplog: pytest.LogCaptureFixture) -> None:
    fake.fails.append(RuntimeError("CUDA failure 2: out of memory"))
    if provider == "cuda":
        with pytest.raises(SessionError, match=r"the first run failed \(CUDA failure 2: out of memory\)"):
            warmed(FOLDER, GRAPH, Placement(provider, 1), read(FOLDER), 8, False)
        return
    session = warmed(FOLDER, GRAPH, Placement(provider, 1), read(FOLDER), 8, False)
    assert (session.provider, session.run(inputs(3))["images"].shape[0]) == ("cpu", 3)
    assert "cdcgan/decoder.onnx runs on the CPU, for on a GPU the first run failed (CUDA failure 2: out of memory)" in caplog.text


def test_a_cache_that_cannot_be_written_is_named(fake: type[faked.Session], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ProviderMissing, match=r"tensorrt was demanded \(.*Not a directory"):
        Session(PATH, GRAPH, Placement("tensorrt", 1, cache=tmp_path / "file"))


def test_without_its_library_a_provider_is_left_out(fake: type[faked.Session], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKED_MISSING", "libnvinfer.so.10")
    assert Session(PATH, GRAPH, Placement("cuda", 1)).provider == "cuda"
    with pytest.raises(ProviderMissing, match=r"it runs on cuda, but .*=tensorrt was demanded \(libnvinfer\.so\.10: not found; see"):
        Session(PATH, GRAPH, Placement("tensorrt", 1))
    monkeypatch.setenv("FAKED_MISSING", "libcublasLt.so.13")
    assert Session(PATH, GRAPH, Placement("auto", 1)).provider == "cpu"


def test_a_gpu_that_does_not_start(fake: type[faked.Session], monkeypatch: pytest.MonkeyPatch, caplog: object) -> None:
    monkeypatch.setattr(fake, "refuses", staticmethod(lambda settings: RuntimeError("no device") if faked.CUDA in settings else None))
    assert Session(PATH, GRAPH, Placement("auto", 1)).provider == "cpu"
    assert "no device" in caplog.text  # type: ignore[attr-defined]
    with pytest.raises(ProviderMissing, match=r"cuda was demanded \(no device; see"):
        Session(PATH, GRAPH, Placement("cuda", 1))


def test_a_file_that_is_no_graph_is_no_fault_of_the_gpu(fake: type[faked.Session], tmp_path: Path) -> None:
    (tmp_path / "decoder.onnx").write_bytes(b"no graph")
    with pytest.raises(SessionError, match=r"decoder\.onnx: ONNX Runtime cannot open it") as found:
        Session(tmp_path / "decoder.onnx", GRAPH, Placement("cuda", 1))
    assert not isinstance(found.value, ProviderMissing)


def test_memory_that_ran_out_breaks_a_session(fake: type[faked.Session]) -> None:
    session = Session(PATH, GRAPH, Placement("cuda", 1))
    fake.fails.append(RuntimeError("CUDA failure 2: out of memory"))
    with pytest.raises(SessionBroken, match="out of memory"):
        session.run(inputs(2))


def half(tmp_path: Path) -> Graph:
    """The graph with a variant, which is the same file under another name."""
    for name in (GRAPH.file, "decoder.float16.onnx"):
        (tmp_path / name).write_bytes(PATH.read_bytes())
    return GRAPH.model_copy(update={"float16": Float16(file="decoder.float16.onnx", sha256=GRAPH.sha256, difference=1)})


def test_half_precision_is_for_gpus_and_for_who_asks(fake: type[faked.Session], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = half(tmp_path)

    def precision(provider: str, wanted: bool, of: Graph = graph) -> tuple[str, str]:
        session = opened(tmp_path, of, Placement(provider, 1), 8, wanted)
        assert Path(fake.opened[-1].path).name == ("decoder.float16.onnx" if session.precision == "float16" else GRAPH.file)
        return session.provider, session.precision

    assert precision("cuda", True) == ("cuda", "float16")
    assert precision("cuda", False) == ("cuda", "float32")
    assert precision("cpu", True) == ("cpu", "float32")
    assert precision("cuda", True, GRAPH) == ("cuda", "float32")
    monkeypatch.setenv("FAKED_MISSING", "libcuda.so.1")
    assert precision("auto", True) == ("cpu", "float32")


def test_the_server_on_a_gpu_answers_as_on_the_cpu(start: Start, server: Server, digit: bytes) -> None:
    settings = {
        "ATELIER_PROVIDER": "cuda",
        "ATELIER_CUDA_GRAPHS": "true",
        "ATELIER_MAX_BATCH": "8",
        "ATELIER_LOAD": "cdcgan,vae,srresnet-light",
    }
    there = start("-m", "faked", PYTHONPATH=str(ROOT / "tests"), **settings)
    ready = there.until_loaded()
    assert ready.status_code == 200, ready.text
    models = {model["name"]: model for model in ready.json()["models"]}
    assert {model["provider"] for model in models.values()} == {"cuda"}
    assert models["cdcgan"]["warmed"] == {"decoder": [1, 2, 4, 8]}
    for body in ({"digits": "7"}, {"digits": "20261126"}, {"digits": "123456789012345"}):
        ours, theirs = (one.client.post("/v1/digits", json={**body, "seed": 3}).json() for one in (server, there))
        assert ours["images"] == theirs["images"]
    for path, model in (("/v1/reconstruct", "vae"), ("/v1/upscale", "srresnet-light")):
        ours, theirs = (one.client.post(path, files={"image": digit}, data={"model": model}).content for one in (server, there))
        assert ours == theirs
    assert there.metric("atelier_model_info", provider="cuda") == len([task for model in models.values() for task in model["tasks"]])


def test_a_server_without_the_gpu_that_it_demands_is_not_ready(start: Start) -> None:
    settings = {"FAKED_MISSING": "libcuda.so.1", "ATELIER_PROVIDER": "cuda", "ATELIER_LOAD": "cdcgan"}
    server = start("-m", "faked", PYTHONPATH=str(ROOT / "tests"), **settings)
    answer = server.until_loaded()
    assert answer.status_code == 503
    assert "libcuda.so.1: not found" in answer.json()["models"][0]["failure"]


def doctor(module: str = "service", **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ATELIER_")}
    variables = clean | {"ATELIER_MODELS": str(MODELS), "ATELIER_LOAD": "vae,cdcgan", "PYTHONPATH": str(ROOT / "tests")} | environment
    command = [sys.executable, "-m", module, "doctor"]
    return subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=120, check=False)


def lines(report: str) -> dict[str, str]:
    return {name: about.strip() for name, _, about in (line.strip().partition(" ") for line in report.splitlines())}


@pytest.mark.parametrize("script", ["#!/bin/sh\nexit 9\n", "#!/bin/sh\necho 'No devices were found'\n"])
def test_the_doctor_on_a_machine_without_a_gpu(script: str, tmp_path: Path) -> None:
    result = doctor(PATH=smi(tmp_path, script))
    assert (result.returncode, result.stderr) == (0, "")
    told = lines(result.stdout)
    assert told["driver"] == "none of NVIDIA's"
    assert "not in this ONNX Runtime" in told["providers"]
    assert (told["vae"], told["cdcgan"]) == ("cpu float32", "cpu float32")
    assert "efficientnet-lite0" not in told
    assert "To do" not in result.stdout


def test_the_doctor_where_a_demand_is_not_met(tmp_path: Path) -> None:
    result = doctor(ATELIER_PROVIDER="cuda", PATH=smi(tmp_path, "#!/bin/sh\nexit 9\n"))
    assert (result.returncode, result.stderr) == (1, "")
    assert "vae                              not served: vae/encoder.onnx: it runs on cpu" in result.stdout
    assert "requirements/gpu.txt in place of requirements/cpu.txt" in result.stdout
    assert "install NVIDIA's driver" in result.stdout


def test_the_doctor_on_a_machine_with_a_gpu(bin: str) -> None:
    result = doctor("faked", PATH=bin)
    assert (result.returncode, result.stderr) == (0, "")
    told = lines(result.stdout)
    assert told["GPU"] == "Faked T9; 41,876 of 42,950 MB are free"
    assert told["driver"] == "595.10, for CUDA up to 13.0"
    assert (told["CUDA"], told["cuDNN"]) == ("13.2", "9.10.2")
    assert told["providers"] == "cpu loads; cuda loads; tensorrt loads"
    assert told["vae"] == "cuda float32"
    assert "To do" not in result.stdout


@pytest.mark.parametrize(
    ("missing", "advice"),
    [
        ("libcuda.so.1", "install NVIDIA's driver"),
        ("libcudnn.so.9", "pip install -r requirements/gpu.txt"),
        ("libcublasLt.so.13", "pip install -r requirements/gpu.txt"),
        ("libnvinfer.so.10", "tensorrt-cu13-libs==10.*"),
        ("/opt/libonnxruntime_providers_tensorrt.so", "(/opt/libonnxruntime_providers_tensorrt.so: not found)"),
    ],
)
def test_the_doctor_says_what_to_install(bin: str, missing: str, advice: str) -> None:
    result = doctor("faked", PATH=bin, FAKED_MISSING=missing, ATELIER_PROVIDER="tensorrt", ATELIER_LOAD="cdcgan")
    assert result.returncode == 1
    assert f"does not load ({missing}: not found)" in result.stdout
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("  - ")]
    assert advice in line


def test_the_doctor_of_no_models_and_of_damaged_ones(tmp_path: Path) -> None:
    result = doctor(ATELIER_MODELS=str(tmp_path), ATELIER_LOAD="")
    assert (result.returncode, "has no models" in result.stdout) == (1, True)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "manifest.json").write_text("{}")
    result = doctor(ATELIER_MODELS=str(tmp_path), ATELIER_LOAD="")
    assert (result.returncode, "not served: broken/manifest.json" in result.stdout) == (1, True)
    shutil.copytree(FOLDER, tmp_path / "cdcgan")
    with (tmp_path / "cdcgan" / GRAPH.file).open("r+b") as file:
        file.seek(-100, os.SEEK_END)
        file.write(b"\xff" * 50)
    result = doctor(ATELIER_MODELS=str(tmp_path), ATELIER_LOAD="cdcgan,nonexistent")
    assert result.returncode == 1
    told = lines(result.stdout)
    assert told["cdcgan"].startswith("not served: cdcgan/decoder.onnx: its sha256 is")
    assert told["nonexistent"].startswith("not served: ATELIER_LOAD names nonexistent")


def test_gpus_are_those_that_the_driver_lists(bin: str) -> None:
    assert hardware.gpus() == [hardware.Gpu("Faked T9", "595.10", 42950, 41876)]


def test_onnx_runtime_tells_nobody(tmp_path: Path) -> None:
    """It would keep, below the home folder, what it sends to its maker."""
    environment = os.environ | {"HOME": str(tmp_path), "ATELIER_MODELS": str(MODELS)}
    environment.pop("XDG_CACHE_HOME", None)
    command = [sys.executable, "-m", "service", "run", "digits", "1"]
    subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, timeout=120, check=True)
    assert not list(tmp_path.rglob("*onnxruntime*"))
