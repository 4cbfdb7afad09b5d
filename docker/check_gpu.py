"""Opens every model on a GPU, compares its answers with the CPU's, and measures both.

    python docker/check_gpu.py [--models models] [--provider cuda]

To be run, with requirements/gpu.txt installed, wherever a GPU is at hand. Pictures have to agree within one level in 99.9 % of
the pixels and within three in all; other outputs within a thousandth of the largest. Ends with 0 when all do, else with 1.
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
from service.engine.session import Placement, Session, SessionError, usable_cores

BATCH = 8
REPEATS, SECONDS = 20, 1.0
"""A batch is measured so often, or for so long."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--provider", default="cuda", choices=["cuda", "tensorrt", "cpu"])
    options = parser.parse_args(arguments)
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
            path = folder / graph.file
            try:
                there = Session(path, graph, Placement(options.provider, usable_cores()))
            except SessionError as error:
                print(f"{folder.name}/{error}", file=sys.stderr)
                return 1
            here = Session(path, graph, Placement("cpu", usable_cores()))
            verdict = compare(here, there, folder / "golden" / f"{name}.npz", made(graph, most))
            failed = failed or verdict != "yes"
            batches = (1, min(BATCH, most), most)
            times = " | ".join(f"{measure(here, made(graph, batch)):.2f}, {measure(there, made(graph, batch)):.2f}" for batch in batches)
            print(f"| {folder.name}/{name} | {times} | {verdict} |")
    return int(failed)


def compare(here: Session, there: Session, golden: Path, more: dict[str, np.ndarray]) -> str:
    """`yes`, or by how much the answers to the golden inputs and to random ones differ."""
    with np.load(golden) as stored:
        inputs = {name: stored[f"input.{name}"] for name in more}
    for given in (inputs, more):
        ours, theirs = here.run(given), there.run(given)
        for name, expected in ours.items():
            difference = np.abs(expected.astype(np.float64) - theirs[name])
            if expected.dtype == np.uint8:
                if difference.max() > 3 or (difference > 1).mean() > 0.001:
                    return f"no: {name} differs by up to {difference.max():.0f} levels, by more than one in {(difference > 1).mean():.2%}"
            elif difference.max() > 1e-3 * np.abs(expected).max():
                return f"no: {name} differs by up to {difference.max():.3g} of {np.abs(expected).max():.3g}"
    return "yes"


def measure(session: Session, given: dict[str, np.ndarray]) -> float:
    """The median of some runs in milliseconds, copies included."""
    times: list[float] = []
    session.run(given)
    while len(times) < REPEATS and sum(times) < SECONDS:
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
