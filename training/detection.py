"""What detectors of anomalies share: which pictures are normal, and thresholds from what they make of normal ones."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from service.contract.manifest import Manifest, Normal
from training.data import GOOD, Dataset, Split
from training.data.pixels import to_floats
from training.layers import infer
from training.loop import evenly, group_sheet
from training.problems import TrainingError

RunGraph = Callable[[Path, dict[str, np.ndarray]], dict[str, np.ndarray]]

MISUSE = (
    "Not the only safeguard where a missed defect harms somebody; and thresholds hold for pictures of the same kind only: set them "
    "again (calibrate) when the line changes."
)
PERCENT = np.arange(101)
AT_ONCE, FEWEST = 50, 8
FAR = 5.0
"""Median absolute deviations from the median from which a picture that is said to be normal is named."""


def label_of(data: Dataset, number: int) -> int:
    """The label of normal pictures: that of the class `good`, or of the class of that number; 0, that of all, where there are no classes.

    Args:
        number: -1 where none was given.

    Raises:
        TrainingError: there are classes, but which is normal is not said; or it is none of them.
    """
    if number >= len(data.classes):
        raise TrainingError(f"--normal {number}: {data.source} has {len(data.classes)} classes, from 0 on.")
    if number >= 0:
        return number
    if GOOD in data.classes:
        return data.classes.index(GOOD)
    if data.classes:
        raise TrainingError(f"--data {data.source} has the classes {', '.join(data.classes)}: say by its number which one is --normal.")
    return 0


def normals(data: Dataset, split: Split, number: int) -> np.ndarray:
    """The normal pictures of a split, uint8 (n, h, w, c)."""
    return split.of(label_of(data, number))


SEEN = "seen.json"
"""In a model's folder: digests of the pictures of a folder that a detector was `fitted` on, and of those that `thresholds` were set by."""


def seen(folder: Path) -> dict[str, set[str]]:
    """What a model's folder says of the pictures that the detector has seen; nothing of those that are no folder's."""
    path = folder / SEEN
    found = json.loads(path.read_text()) if path.exists() else {}
    return {kind: set(found.get(kind, ())) for kind in ("fitted", "thresholds")}


def remember(folder: Path, data: Dataset, **pictures: np.ndarray) -> None:
    """Adds normal pictures to what `seen` says, where they are a folder's: other data is split the same way each time."""
    if data.name == "parts":
        known = seen(folder)
        found = {kind: sorted(known[kind] | set(digests(pictures.get(kind, ())))) for kind in known}
        (folder / SEEN).write_text(json.dumps(found) + "\n")


def digests(pictures: Iterable[np.ndarray]) -> list[str]:
    """One of each picture's pixels, whatever its file is called and wherever it lies."""
    return [hashlib.sha256(picture.tobytes()).hexdigest()[:16] for picture in pictures]


def without(pictures: np.ndarray, known: set[str]) -> np.ndarray:
    """The pictures that have none of the digests."""
    return pictures[[digest not in known for digest in digests(pictures)]]


def unseen(data: Dataset, manifest: Manifest, held_out: Split, known: set[str]) -> np.ndarray:
    """Normal pictures for thresholds or figures: of a folder that the detector was not fitted on all, else what was held out.

    How many are left out since the detector has seen them is told on standard error.

    Args:
        known: digests of pictures that it has seen, from `seen`.

    Raises:
        TrainingError: there are none.
    """
    elsewhere = data.name == "parts" and data.source != manifest.training.data.source
    splits = (data.train, data.validation, data.test) if elsewhere else (held_out,)
    found = np.concatenate([normals(data, split, manifest.training.config["normal"]) for split in splits])
    new = without(found, known)
    if len(new) < len(found):
        left = f"{len(found) - len(new)} of {len(found)} normal pictures are left out"
        print(f"--data {data.source}: {left}: {manifest.name} was fitted to them, or its thresholds were.", file=sys.stderr)
    if not len(new):
        raise TrainingError(f"--data {data.source} has no normal pictures that are new to {manifest.name}.")
    return new


def normal(scores: np.ndarray, peaks: np.ndarray, false_positives: float) -> Normal:
    """Thresholds that a further picture of the kind exceeds with a probability of `false_positives` at most.

    That is so for as many as the ceil((n + 1)(1 - p))-th smallest of n values from pictures that nothing was fitted on (split conformal
    prediction: Vovk et al. 2005, section 2.2). Where there are too few for that, it is the largest, and the probability 1 / (n + 1).

    Args:
        scores: (n,), of normal pictures.
        peaks: (n,), the largest error in each.
    """
    number = len(scores)
    rank = min(number, math.ceil((number + 1) * (1 - false_positives)))
    return Normal(
        threshold=float(np.sort(scores)[rank - 1]),
        pixel_threshold=float(max(np.sort(peaks)[rank - 1], 1e-6)),
        false_positives=false_positives,
        promised=max(false_positives, 1 / (number + 1)),
        pictures=number,
        quantiles=tuple(np.percentile(scores, PERCENT).tolist()),
    )


def run(detector: Path, pictures: np.ndarray, run_graph: RunGraph) -> tuple[np.ndarray, np.ndarray]:
    """Scores (n,) of pictures uint8 (n, h, w, c) as a graph takes them, and the largest error in each (n,)."""
    scores, peaks = list[np.ndarray](), list[np.ndarray]()
    for start in range(0, len(pictures), AT_ONCE):
        found = run_graph(detector, {"images": pictures[start : start + AT_ONCE]})
        scores.append(found["scores"])
        peaks.append(found["errors"].max(axis=(1, 2)))
    return np.concatenate(scores), np.concatenate(peaks)


def told(found: Normal) -> str:
    """What thresholds promise, in a line. (A mean: of one set of normal pictures they may flag more.)"""
    line = (
        f"Thresholds from {found.pictures} normal pictures: of such, at most {found.promised:.2%} are expected to be taken for anomalous."
    )
    if found.promised > found.false_positives:
        needed = math.ceil(1 / found.false_positives) - 1
        line += f" To promise {found.false_positives:.2%}, {needed} are needed: python -m training calibrate NAME --data folder:PATH."
    return line


def outliers(scores: np.ndarray) -> np.ndarray:
    """The indices of pictures whose scores lie far from the others', the farthest first. Of very few pictures nobody can tell.

    Scores far below are named too: several black frames, say, draw a Gaussian to them, and each of them is all like the others.
    """
    if len(scores) < FEWEST:
        return np.array([], int)
    distances = np.abs(scores - np.median(scores))
    far = np.flatnonzero(distances > FAR * max(np.median(distances), 1e-9))
    return far[np.argsort(-distances[far], kind="stable")]


def mean(values: Any) -> Any:
    """The mean (batch,) of values (batch, ...).

    It is a convolution: ONNX Runtime's own mean rounds differently at another place in a batch.
    """
    number = math.prod(values.shape[1:])
    kernel = np.full((number, 1, 1), 1 / number, np.float32)
    return ops.reshape(ops.conv(ops.reshape(values, (-1, number, 1)), kernel, padding="valid"), (-1,))


def mean_of_channels(values: Any) -> Any:
    """The mean (batch, h, w) of the channels of values (batch, h, w, channels): a convolution, for the same reason."""
    channels = values.shape[-1]
    return ops.conv(values, np.full((1, 1, channels, 1), 1 / channels, np.float32), padding="same")[..., 0]


def largest(errors: Any) -> Any:
    """The mean of the largest tenth of the errors (batch, h, w): (batch,). A defect is seldom larger, and one position says little."""
    positions = errors.shape[1] * errors.shape[2]
    ranked, _ = ops.top_k(ops.reshape(errors, (-1, positions)), max(1, positions // 10))
    return mean(ranked)


def relative(errors: list[Any], usual: np.ndarray) -> Any:
    """The mean of several errors (batch, h, w), each over what it is in normal pictures: about 1 in these.

    Args:
        usual: the mean of each, from `usual`.
    """
    return sum(part / float(mean) for part, mean in zip(errors, usual, strict=True)) / len(errors)


def usual(errors: keras.Model, data: Dataset, number: int) -> np.ndarray:
    """The mean of each error of normal pictures that were held out. (Thresholds are set by the same: these few means hardly know them.)

    Args:
        errors: pictures (batch, h, w, c) in -1..1 -> errors (batch, ...).
    """
    found = infer(errors, normals(data, data.validation, number), to_floats, at_once=AT_ONCE)
    return np.array([max(1e-9, part.mean()) for part in found], np.float32)


def sheet(graph: keras.Model, data: Dataset, number: int) -> np.ndarray:
    """Normal pictures held out for choices: the picture, what the model makes of it (if it draws that), errors, of which the largest
    of all is white; four groups in a row."""
    shown = evenly(normals(data, data.validation, number), 12)
    names = [name for name in ("reconstruction", "errors") if name in graph.output]
    found = dict(zip(names, infer(keras.Model(graph.input, [graph.output[name] for name in names]), {"images": shown}), strict=True))
    heat = np.rint(255 * found["errors"] / max(1e-9, found["errors"].max())).astype(np.uint8)[..., None]
    columns = [shown, *([found["reconstruction"]] if "reconstruction" in found else []), heat.repeat(shown.shape[-1], axis=-1)]
    return group_sheet(columns, 4)


def smoothed(errors: Any, width: float) -> Any:
    """Maps (batch, h, w) blurred by a Gaussian of so many pixels' standard deviation; beyond the edge they are mirrored."""
    reach = math.ceil(2.5 * width)
    if reach == 0:
        return errors
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    weights = (weights / weights.sum()).astype(np.float32)
    x = ops.pad(errors[..., None], ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="reflect")
    return ops.conv(ops.conv(x, weights[:, None, None, None]), weights[None, :, None, None])[..., 0]


def described(title: str, data: Dataset, number: int) -> dict[str, Any]:
    """The manifest's fields on what is normal to a detector, a class of the data or all of it, and that pictures are shown to it whole."""
    kind, label = data.title.split(" (")[0], label_of(data, number)
    named = bool(data.classes) and data.classes[label] != GOOD
    fit = data.fit.model_copy(update={"mode": "stretch"}) if data.fit.mode == "cover" else data.fit
    return {"title": f"{title}, {data.classes[label]} of {kind}" if named else f"{title}, {kind.lower()}", "fit": fit}
