"""PaDiM: what normal patches look like to a network that was trained on ImageNet, as a Gaussian; how far others are from it.

Defard et al. 2021, with one Gaussian for all positions: each picture has a thousand patches to learn it from, so that a few pictures
are enough for all features of the stages, and nothing has to be aligned. One pass over the pictures; no weight is trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
from keras import layers, ops

from training import backbone, detection
from training.data import Dataset
from training.layers import from_pixels, serve
from training.loop import Run
from training.problems import TrainingError
from training.recipes import About, setting
from training.step import compiled

TASKS = {"anomaly": {"detector": "detector"}}
SMOKE = "drawn-parts"
IMAGE_SIZE = 256

ABOUT = About(
    title="PaDiM",
    description="Says how far a picture is from the normal ones that it was fitted on, and where. A fit takes minutes.",
    limits="Finds what looks unusual to a network trained on photographs, patch by patch: not that something is missing or in the wrong "
    "place where each patch looks normal, and nothing much smaller than a 32nd of the picture. Another light, lens or distance is unusual "
    "to it too.",
    misuse="Not the only safeguard where a missed defect harms somebody. Thresholds hold for pictures of one kind only: set them again "
    "(calibrate) when the line changes.",
)

STAGES = {"fine": (2, 3), "all": (2, 3, 5)}
"""Maps of a quarter and an eighth of the side, and of a sixteenth. Chosen on parts of the textures that serve choices, where (3, 5, 6),
(2, 3, 5, 6) and (2, 3, 4, 5, 6) were tried too."""
CELLS = 8
"""Pixels of the network's input that a position of the grid is wide."""
RIDGE = 0.01
"""Added to the eigenvalues of the correlation matrix, whose mean is 1."""
BLUR = 1.0
"""Standard deviation of the Gaussian by which errors are blurred, in positions."""


@dataclass(frozen=True)
class Config:
    """A minute for 400 pictures on two CPU cores."""

    variant: Literal["improved"] = "improved"
    normal: int = setting(-1, "number of the class that is normal (-1: the class good; without classes, all pictures)", least=-1)
    false_positives: float = setting(0.01, "share of normal pictures that may be taken for anomalous", below=1)
    detail: Literal["fine", "all"] = setting("all", "what is looked at: texture only, or also shapes of some ten to thirty positions")
    size: int = setting(256, "side at which the network looks at pictures, a multiple of 8", least=64)


CHAPTER = Config()


class Gaussian:
    """Mean and correlation of patches, gathered picture by picture."""

    def __init__(self, features: int) -> None:
        self.count, self.mean, self.square = (
            keras.Variable(np.zeros(shape, np.float32), trainable=False) for shape in ((), (features,), (features, features))
        )

    @property
    def variables(self) -> list[keras.Variable]:
        return [self.count, self.mean, self.square]

    def add(self, patches: np.ndarray) -> None:
        """Adds the patches (n, features) of one picture."""
        count = float(ops.convert_to_numpy(self.count)) + 1
        for variable, value in ((self.mean, patches.mean(axis=0)), (self.square, patches.T @ patches / len(patches))):
            before = ops.convert_to_numpy(variable)
            variable.assign(before + (value - before) / count)
        self.count.assign(count)

    def whitening(self) -> tuple[np.ndarray, np.ndarray]:
        """A matrix and a vector: patches @ matrix - vector has, of normal patches, mean 0 and (but for the ridge) unit covariance."""
        mean, square = (ops.convert_to_numpy(variable).astype(np.float64) for variable in (self.mean, self.square))
        covariance = square - np.outer(mean, mean)
        deviation = np.sqrt(np.maximum(np.diag(covariance), 1e-12))
        values, vectors = np.linalg.eigh(covariance / np.outer(deviation, deviation))
        matrix = vectors / np.sqrt(np.maximum(values, 0) + RIDGE) / deviation[:, None]
        return matrix.astype(np.float32), (mean @ matrix).astype(np.float32)


def train(config: Config, data: Dataset, run: Run) -> Gaussian:
    """Looks at each normal picture once."""
    pictures = detection.normals(data, data.train, config.normal)
    seen = patches(data.shape, config)
    gaussian, look = Gaussian(seen.output.shape[-1]), compiled(seen)

    def step(indices: np.ndarray, random: np.random.Generator) -> dict[str, Any]:
        gaussian.add(ops.convert_to_numpy(look(pictures[indices]))[0].reshape(-1, seen.output.shape[-1]))
        return {}

    run.fit(step, run.plan(len(pictures), 1, 1), variables=gaussian.variables)
    return gaussian


def patches(shape: tuple[int, int, int], config: Config) -> keras.Model:
    """Pictures uint8 (batch, h, w, c) -> features of patches (batch, size / 8, size / 8, n): of each stage the mean of 3 x 3 positions,
    brought to one grid."""
    (side, _, channels), size = shape, config.size
    pixels, x = from_pixels(side, channels)
    if channels == 1:
        x = ops.repeat(x, 3, axis=-1)
    if side != size:
        x = ops.image.resize(x, (size, size), interpolation="bilinear")
    network, cells = backbone.network("lite0", size=size), size // CELLS
    stages = keras.Model(network.input, [network.output[f"stage{stage}"] for stage in STAGES[config.detail]])
    return keras.Model(pixels, layers.Concatenate()([_on_grid(stage, cells) for stage in stages(x)]))


def _on_grid(x: Any, cells: int) -> Any:
    padded = ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    x = ops.average_pool(padded, 3, strides=1)
    if x.shape[1] > cells:
        return ops.average_pool(x, x.shape[1] // cells, strides=x.shape[1] // cells)
    return x if x.shape[1] == cells else ops.image.resize(x, (cells, cells), interpolation="bilinear")


def serving(config: Config, data: Dataset, trained: Gaussian) -> dict[str, keras.Model]:
    """`detector`: images -> scores and errors, the mean square of what is left of a patch when it is whitened: 1 for normal ones."""
    seen, (matrix, offset) = patches(data.shape, config), trained.whitening()
    whitened = layers.Dense(matrix.shape[1], name="whiten")
    found = whitened(seen.output)
    whitened.set_weights([matrix, -offset])
    errors = ops.mean(ops.square(found), axis=-1)
    height, width, _ = data.shape
    whole = ops.image.resize(detection.smoothed(errors, BLUR)[..., None], (height, width), interpolation="bilinear")[..., 0]
    return {"detector": serve([seen.inputs[0]], {"scores": detection.largest(errors), "errors": whole})}


def describe(config: Config, data: Dataset) -> dict[str, Any]:
    """What it was fitted on.

    Raises:
        TrainingError: the stages' maps have no grid in common.
    """
    if config.size % CELLS:
        raise TrainingError(f"--size {config.size}: it has to be a multiple of {CELLS}.")
    return detection.described(ABOUT.title, data, config.normal) | {"largest_batch": 8}


def samples(config: Config, data: Dataset, graphs: dict[str, keras.Model]) -> np.ndarray:
    """Normal pictures held out for choices, and their errors."""
    return detection.sheet(graphs["detector"], data, config.normal)
