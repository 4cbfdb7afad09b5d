"""Fashion-MNIST: 60,000 training and 10,000 test pictures of clothes, 28x28 grey, bright on black (Xiao, Rasul & Vollgraf 2017)."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np

from service.contract.manifest import Fit
from training.data import Dataset, Split
from training.data.fetch import cache, fetch
from training.problems import TrainingError

URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
FILES = {
    "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
"""Names and SHA-256, unpacked."""
CLASSES = ("T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
VALIDATION = 5000
INSTEAD = "install Debian's dataset-fashion-mnist, or download its four files elsewhere and give --data fashion:FOLDER"


def load(path: Path | None = None) -> Dataset:
    """Reads the four files, from a folder, Debian's package, a cache, or the public download (31 MB, checked, then cached).

    The last 5,000 training pictures are the validation split.

    Raises:
        TrainingError: it is nowhere to be had, or a file is not Fashion-MNIST.
    """
    folder = path if path is not None else _found()
    images, labels, test_images, test_labels = (_read(folder / name) for name in FILES)
    if len(images) != len(labels) or len(test_images) != len(test_labels):
        raise TrainingError(f"{folder} holds other numbers of pictures than of labels: {INSTEAD}.")
    kept = len(images) - min(VALIDATION, len(images) // 10)
    return Dataset(
        name="fashion",
        source="fashion",
        train=Split(images[:kept], labels[:kept]),
        validation=Split(images[kept:], labels[kept:]),
        test=Split(test_images, test_labels),
        fit=Fit(height=28, width=28, channels=1),
        title=f"Fashion-MNIST ({len(images):,} training pictures, the last {len(images) - kept:,} held out for choices)",
        license="MIT",
        origin="H. Xiao, K. Rasul, R. Vollgraf (Zalando Research): Fashion-MNIST",
        classes=CLASSES,
    )


def _found() -> Path:
    cached = cache() / "fashion-mnist"
    for folder in (DEBIAN, cached, Path.home() / ".keras" / "datasets" / "fashion-mnist"):
        if all((folder / name).exists() for name in FILES):
            return folder
    for name, sha256 in FILES.items():
        if not (cached / name).exists():
            fetch(URL + name, cached / name, sha256, INSTEAD)
    return cached


def _read(path: Path) -> np.ndarray:
    """Pictures uint8 (n, 28, 28, 1) or labels int32 (n,) of a gzipped IDX file: type and dimensions, their sizes, the bytes."""
    try:
        values = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise TrainingError(f"{path} cannot be read ({getattr(error, 'strerror', None) or error}): {INSTEAD}.") from error
    dimensions = 3 if "images" in path.name else 1
    sizes = np.frombuffer(values[4 : 4 + 4 * dimensions], ">i4")
    content = np.frombuffer(values, np.uint8, offset=min(len(values), 4 + 4 * dimensions))
    if values[:4] != bytes([0, 0, 8, dimensions]) or len(content) != sizes.prod() or tuple(sizes[1:]) not in ((), (28, 28)):
        raise TrainingError(f"{path} is no IDX file of {'28x28 pictures' if dimensions == 3 else 'labels'}: {INSTEAD}.")
    return content.reshape(-1, 28, 28, 1) if dimensions == 3 else content.astype(np.int32)
