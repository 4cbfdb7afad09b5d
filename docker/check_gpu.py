"""Opens every model on a GPU, compares its answers with the CPU's, and measures both.

    python docker/check_gpu.py [--models models] [--provider cuda] [--precision float16] [--cuda-graphs]

To be run, with requirements/gpu.txt installed, wherever a GPU is at hand. Pictures have to agree within one level in 99.9 % of
the pixels and within three in all; other outputs within a thousandth of the largest, in float16 within a hundredth. Ends with 0
when all do, else with 1.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from service.contract import manifest as manifests
from service.contract.manifest import Graph, Port
from service.engine.cpu import usable_cores
from service.engine.session import Placement, Session, SessionError
from service.engine.store import opened

BATCH = 8
REPEATS = 20
RELATIVE = {"float32": 1e-3, "float16": 1e-2}
"""Of the largest value, how much another may differ."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--provider", default="cuda", choices=["cuda", "tensorrt", "cpu"])
    parser.add_argument("--precision", default="float32", choices=list(RELATIVE), help="float16: the variants that manifests list")
    parser.add_argument("--cuda-graphs", action="store_true", help="runs on the GPU are captured")
    parser.add_argument(
        "--seconds", type=float, default=1.0, metavar="N", help=f"a batch is measured {REPEATS} times, or so long (default: 1)"
    )
    options = parser.parse_args(arguments)
    if options.cuda_graphs and options.provider == "tensorrt":
        parser.error("--cuda-graphs goes with CUDA: TensorRT captures one batch size for all")
    folders = sorted(path.parent for path in options.models.glob(f"*/{manifests.FILE}"))
    if not folders:
        print(f"{options.models} has no models", file=sys.stderr)
        return 1
    columns = ("one", f"up to {BATCH}", "the model's largest batch")
    print("| graph | " + " | ".join(f"{batch}: on the CPU, on {options.provider} (ms)" for batch in columns) + " | agrees |")
    print("|---|" + "---|" * (len(columns) + 1))
    failed = False
    for folder in folders:
        manifest = manifests.read(folder)
        most = manifest.largest_batch
        for name, graph in manifest.graphs.items():
            placement = Placement(options.provider, usable_cores(), cuda_graphs=options.cuda_graphs)
            try:
                there = opened(folder, graph, placement, most, options.precision == "float16")
            except SessionError as error:
                print(f"{folder.name}/{error}", file=sys.stderr)
                return 1
            here = Session(folder / graph.file, graph, Placement("cpu", usable_cores()))
            verdict = compare(here, there, folder / "golden" / f"{name}.npz", made(graph, most), most)
            failed = failed or verdict != "yes"
            times = [
                f"{measure(here, given, options.seconds):.2f}, {measure(there, given, options.seconds):.2f}"
                for given in (made(graph, batch) for batch in (1, min(BATCH, most), most))
            ]
            print(f"| {folder.name}/{name}{' in float16' * (there.precision == 'float16')} | {' | '.join(times)} | {verdict} |", flush=True)
    return int(failed)


def compare(here: Session, there: Session, golden: Path, more: dict[str, np.ndarray], most: int) -> str:
    """`yes`, or by how much the answers to the golden inputs and to random ones differ."""
    with np.load(golden) as stored:
        inputs = {name: stored[f"input.{name}"][:most] for name in more}
    for given in (inputs, more):
        ours, theirs = here.run(given), there.run(given)
        for name, expected in ours.items():
            difference = np.abs(expected.astype(np.float64) - theirs[name])
            if expected.dtype == np.uint8:
                if difference.max() > 3 or (difference > 1).mean() > 0.001:
                    return f"no: {name} differs by up to {difference.max():.0f} levels, by more than one in {(difference > 1).mean():.2%}"
            elif not difference.max() <= RELATIVE[there.precision] * np.abs(expected).max():
                return f"no: {name} differs by up to {difference.max():.3g} of {np.abs(expected).max():.3g}"
    return "yes"


def measure(session: Session, given: dict[str, np.ndarray], seconds: float) -> float:
    """The median of some runs in milliseconds, copies included."""
    times: list[float] = []
    session.run(given)
    while len(times) < REPEATS and sum(times) < seconds:
        began = time.perf_counter()
        session.run(given)
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1000


def made(graph: Graph, batch: int) -> dict[str, np.ndarray]:
    return {port.name: _values(port, batch, np.random.default_rng(0)) for port in graph.inputs}


def _values(port: Port, batch: int, random: np.random.Generator) -> np.ndarray:
    if port.dtype == "float32":
        return random.standard_normal((batch, *port.item), np.float32)
    return random.integers(0, 256 if port.dtype == "uint8" else 2, (batch, *port.item)).astype(port.dtype)


if __name__ == "__main__":
    sys.exit(main())
