"""The evaluation classifier: reads digits (or clothes), for figures only.

No recipe imports it: it is in no loss and chooses no checkpoint. Its 128 penultimate features are the
space in which the generators' distances are measured; never call such a distance FID, which is defined on
Inception features. The weights lie in `training/classifiers/`, so that figures compare between machines:

    python -m training classifier --data mnist --overwrite
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from training.data import Dataset
from training.data.pixels import to_floats
from training.layers import infer
from training.loop import Run
from training.step import Step

FOLDER = Path(__file__).parent / "classifiers"
FEATURES = 128


@dataclass(frozen=True)
class Config:
    """Some 15 minutes on two CPU cores; 99.6 % of MNIST's test digits."""

    epochs: int = 12
    batch_size: int = 128
    learning_rate: float = 2e-3
    shift: int = 2


def network(height: int, width: int, channels: int, classes: int) -> keras.Model:
    """(pictures (batch, h, w, c) in -1..1) -> (features (batch, 128), logits (batch, classes))."""
    pictures = keras.Input((height, width, channels), name="pictures")
    x = pictures
    for filters in (24, 48, 64):
        for stride in (1, 2):
            x = layers.Conv2D(filters, 3, strides=stride, padding="same", use_bias=False)(x)
            x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    x = layers.Dense(FEATURES, use_bias=False)(layers.Flatten()(x))
    features = layers.ReLU(name="features")(layers.BatchNormalization(momentum=0.9)(x))
    return keras.Model(pictures, [features, layers.Dense(classes, name="logits")(features)], name="classifier")


def train(config: Config, data: Dataset, run: Run) -> keras.Model:
    """Cross-entropy with label smoothing 0.1, random shifts and Adam under a cosine decay."""
    model = network(*data.shape, len(data.classes))
    smoothing = 0.1 / len(data.classes)

    def loss(pictures: Any, labels: Any) -> tuple[Any, dict[str, Any]]:
        _, logits = model(pictures, training=True)
        targets = ops.one_hot(labels, len(data.classes)) * 0.9 + smoothing
        value = ops.mean(ops.categorical_crossentropy(targets, logits, from_logits=True))
        return value, {"loss": value}

    plan = run.plan(len(data.train), config.batch_size, config.epochs)
    rate = keras.optimizers.schedules.CosineDecay(config.learning_rate, plan.steps)
    step = Step(loss, model.trainable_variables, keras.optimizers.Adam(rate), model.non_trainable_variables)

    def one(indices: np.ndarray, random: np.random.Generator) -> dict[str, Any]:
        pictures = shifted(data.train.images[indices], config.shift, random)
        return step(to_floats(pictures), data.train.labels[indices])

    variables = [*model.variables, *step.variables]
    run.fit(one, plan, variables=variables)
    return model


def shifted(images: np.ndarray, most: int, random: np.random.Generator) -> np.ndarray:
    """Moves each picture by up to `most` pixels both ways, filling with its corner's value."""
    _, height, width, _ = images.shape
    padded = np.pad(images, ((0, 0), (most, most), (most, most), (0, 0)), mode="edge")
    offsets = random.integers(0, 2 * most + 1, (len(images), 2))
    return np.stack([picture[y : y + height, x : x + width] for picture, (y, x) in zip(padded, offsets, strict=True)])


class Classifier:
    """The trained network: features and classes of uint8 pictures."""

    def __init__(self, model: keras.Model) -> None:
        self.model = model

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """uint8 (n, h, w, c) -> features (n, 128) and predicted classes (n,)."""
        features, logits = infer(self.model, images, to_floats)
        return features, logits.argmax(axis=1)

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        values: dict[str, Any] = {f"{index:02d}": ops.convert_to_numpy(variable) for index, variable in enumerate(self.model.variables)}
        np.savez_compressed(path, **values)

    @classmethod
    def find(cls, data: Dataset) -> Classifier | None:
        """The shipped weights for a data set; nothing where none were trained."""
        path = FOLDER / f"{data.name}.npz"
        if not path.exists():
            return None
        model = network(*data.shape, len(data.classes))
        with np.load(path, allow_pickle=False) as values:
            for index, variable in enumerate(model.variables):
                variable.assign(values[f"{index:02d}"])
        return cls(model)
