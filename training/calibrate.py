"""A detector's thresholds, set anew by further normal pictures."""

from __future__ import annotations

from pathlib import Path

from service.contract.manifest import read, write
from training import card, detection
from training.data import Dataset
from training.detecting import HEATMAPS, SCORES
from training.graphs import run_graph
from training.problems import TrainingError


def calibrate(folder: Path, data: Dataset, false_positives: float | None = None) -> str:
    """Writes thresholds into a model's manifest and card, and says in a line what they promise.

    Of the data that the model was fitted on, the pictures held out for choices serve; of a folder of others, all normal ones that it was
    not fitted on. Figures and pictures that hang on the old thresholds are dropped.

    Args:
        false_positives: the share of normal pictures that may be taken for anomalous; without it, as before.

    Raises:
        TrainingError: the model detects no anomalies, or has seen all of the pictures.
    """
    manifest = read(folder)
    if manifest.normal is None:
        raise TrainingError(f"{manifest.name} serves {', '.join(manifest.tasks)}: only detectors of anomalies have thresholds.")
    pictures = detection.unseen(data, manifest, data.validation, detection.seen(folder)["fitted"])
    detector = folder / manifest.graphs[manifest.tasks["anomaly"]["detector"]].file
    share = manifest.normal.false_positives if false_positives is None else false_positives
    normal = detection.normal(*detection.run(detector, pictures, run_graph), share)
    updated = manifest.model_copy(update={"normal": normal, "metrics": {}})
    detection.remember(folder, data, thresholds=pictures)
    for stale in (folder / card.REPORT, *(folder / card.PICTURES / name for name in (HEATMAPS, SCORES))):
        stale.unlink(missing_ok=True)
    card.write(updated, folder)
    write(updated, folder)
    return detection.told(normal)
