"""One class of a data set normal after another: how well a recipe's detectors tell it from the others (Ruff et al. 2018, section 4.3)."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np

from service.contract.manifest import Manifest, ManifestError, read
from training import card, recipes
from training.data import Dataset
from training.evaluate import evaluate
from training.job import RUNS, Job
from training.loop import CHECKPOINT
from training.problems import TrainingError

FOLDER = RUNS / "one-class"


def one_class(recipe: str, data: Dataset, config: dict[str, object], seed: int, overwrite: bool, precision: str = "float32") -> str:
    """Trains and measures a detector for each class, as it stands at the end of its training, and gives the table of their AUROCs.

    Models are kept in runs/one-class; what is there already, of the same settings, is neither trained nor measured again.

    Args:
        config: the fields of the recipe's Config, but for `normal`.
        overwrite: all are.
        precision: what steps multiply in (`step.computed_in`).

    Raises:
        TrainingError: the recipe detects no anomalies, the data has no classes, or a training or measurement failed.
    """
    if "anomaly" not in recipes.find(recipe).TASKS:
        raise TrainingError(f"{recipe} detects no anomalies.")
    if len(data.classes) < 2:
        raise TrainingError(f"--data {data.source} has no classes, of which one after the other could be normal.")
    rows = list[tuple[str, list[float]]]()
    for label, name in enumerate(data.classes):
        folder, out = FOLDER / f"{recipe}-{label}", FOLDER / "models" / f"{recipe}-{label}"
        job = Job(recipe, data.source, data.shape[0], data.shape[2], {**config, "normal": label}, seed, precision=precision)
        manifest = None if overwrite else _kept(out, job)
        if manifest is None:
            job.fit(folder, out, (), resume=not overwrite and (folder / CHECKPOINT).exists(), overwrite=True)
            manifest = read(out)
        if "anomaly_auroc" not in manifest.metrics:
            command = shlex.join(["python", "-m", "training", "evaluate", out.name, "--models", str(out.parent)])
            manifest = evaluate(out, data, command)
        auroc, flagged = (manifest.metrics[figure] for figure in ("anomaly_auroc", "flagged_normals"))
        rows.append((name, [auroc.value, auroc.reference or 0.0, flagged.value]))
    return _table(rows)


def _kept(folder: Path, job: Job) -> Manifest | None:
    """The model of an earlier run with the same settings."""
    try:
        manifest = read(folder)
    except ManifestError:
        return None
    return manifest if manifest.training.command.startswith(f"{job.command} --out ") else None


def _table(rows: list[tuple[str, list[float]]]) -> str:
    lines = ["| normal | AUROC | of principal components | normal ones flagged |", "|---|---|---|---|"]
    mean = np.mean([values for _, values in rows], axis=0).tolist()
    return "\n".join([*lines, *(f"| {name} | {' | '.join(map(card.figure, values))} |" for name, values in [*rows, ("mean", mean)])])
