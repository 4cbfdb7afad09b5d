"""Solar cells under electroluminescence, monocrystalline: good ones, and such as are surely defective; 300 x 300 grey, read at 256 x 256.

From the package elpv-dataset (Buerhop-Lutz et al. 2018; Deitsch et al. 2019), under a licence for non-commercial use: for figures, while
neither the pictures nor weights trained on them may be shipped.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from service.contract import images
from service.contract.manifest import Fit
from training.data import GOOD, Dataset, Split
from training.problems import TrainingError

FIT = Fit(height=256, width=256, channels=1, mode="stretch")
RESERVED = 3
"""Cells whose number modulo 4 is this are left alone."""
TEST = 2
"""Good cells whose number modulo 4 is this serve figures."""
VALIDATION = 1
"""Good cells whose number modulo 8 is this serve thresholds."""
INSTEAD = "install elpv-dataset (pip install --no-deps elpv-dataset==1.0.0.post1), or give --data solar:FOLDER with labels.csv and images/"


def load(path: Path | None = None) -> Dataset:
    """Reads the cells whose label is 0 (class `good`) or 1 (class `defective`).

    Defective cells serve figures only.

    Raises:
        TrainingError: they are not there.
    """
    folder = path if path is not None else _installed()
    good: dict[str, list[np.ndarray]] = {"train": [], "validation": [], "test": []}
    bad = list[np.ndarray]()
    for file, number, defective in _listed(folder):
        pixels = _read(folder / file)
        if defective:
            bad.append(pixels)
        else:
            good["test" if number % 4 == TEST else "validation" if number % 8 == VALIDATION else "train"].append(pixels)
    if not bad or not all(good.values()):
        raise TrainingError(f"{folder} has too few cells: {INSTEAD}.")
    test = Split(np.stack(good["test"] + bad), np.repeat(np.arange(2, dtype=np.int32), [len(good["test"]), len(bad)]))
    train, validation = (Split(np.stack(good[name]), np.zeros(len(good[name]), np.int32)) for name in ("train", "validation"))
    return Dataset(
        name="solar",
        source="solar",
        train=train,
        validation=validation,
        test=test,
        fit=FIT,
        title=f"Solar cells ({len(train)} good ones, monocrystalline)",
        license="CC BY-NC-SA 4.0",
        origin="electroluminescence pictures of solar cells (ELPV) by ZAE Bayern and FAU, from the package elpv-dataset 1.0.0.post1",
        classes=(GOOD, "defective"),
    )


def _listed(folder: Path) -> list[tuple[str, int, bool]]:
    """Files of cells with their numbers, and whether they are defective."""
    try:
        lines = (folder / "labels.csv").read_text().split("\n")
        rows = [line.replace(",", " ").split() for line in lines if line.strip()]
        cells = [(file, int("".join(filter(str.isdigit, Path(file).stem))), float(label), kind) for file, label, kind in rows]
    except (OSError, ValueError) as error:
        raise TrainingError(f"The solar cells are not here ({folder}): {INSTEAD}.") from error
    return [
        (file, number, label == 1) for file, number, label, kind in cells if kind == "mono" and label in (0, 1) and number % 4 != RESERVED
    ]


def _read(path: Path) -> np.ndarray:
    try:
        return images.fit(images.decode(path.read_bytes()), FIT)
    except (OSError, images.UnreadableImage) as error:
        raise TrainingError(f"{path} cannot be read ({getattr(error, 'strerror', None) or error}): {INSTEAD}.") from error


def _installed() -> Path:
    spec = find_spec("elpv_dataset")
    if spec is None or spec.origin is None:
        raise TrainingError(f"The solar cells are not here: {INSTEAD}.")
    return Path(spec.origin).parent / "data"
