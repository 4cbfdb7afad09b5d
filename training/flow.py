"""A flow from Gaussian noise to the latents of an encoder, so that what is drawn from noise lies where real pictures do.

Flow matching on straight lines (Lipman et al. 2023; Liu et al. 2023, rectified flow): a small network learns the
velocity at which points move from noise, at time 0, to latents, at time 1. Sampling follows it in a fixed number of
midpoint steps, so that a latent is a continuous function of its noise, and the whole of it is one graph of dense layers.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from training.step import Step, annealed

STEPS = 12
BATCH = 1024
FREQUENCIES = (1.0, 2.0, 4.0)


def velocity(dimension: int, width: int = 256) -> keras.Model:
    """(points (batch, d), places in time (batch, 7)) -> velocities (batch, d)."""
    points = keras.Input((dimension,), name="points")
    places = keras.Input((1 + 2 * len(FREQUENCIES),), name="places")
    x = layers.Dense(width, activation="silu")(layers.Concatenate()([points, places]))
    for _ in range(3):
        x = layers.Add()([x, layers.Dense(width, activation="silu")(layers.Dense(width, activation="silu")(x))])
    return keras.Model([points, places], layers.Dense(dimension)(x), name="velocity")


def places_in_time(times: np.ndarray) -> np.ndarray:
    """Times (n, 1) in 0..1 as the network sees them, float32 (n, 7): themselves, and waves of three frequencies.

    In NumPy, so that a graph has them as constants: sines computed in it, a vector's length of rows at a time, would let
    an answer depend on how many rows share its run.
    """
    waves = [wave(times * (math.pi * frequency)) for frequency in FREQUENCIES for wave in (np.sin, np.cos)]
    return np.concatenate([times, *waves], axis=1).astype(np.float32)


def matching_loss(model: keras.Model, noise: Any, latents: Any, places: Any) -> Any:
    """Mean squared difference between the network's velocity on the line from noise to latent, and that of the line.

    Args:
        noise, latents: (batch, d), paired by position.
        places: (batch, 7), the `places_in_time` of a point on each line; the first column is its time.
    """
    points = noise + places[:, :1] * (latents - noise)
    return ops.mean(ops.square(model([points, places], training=True) - (latents - noise)))


def transport(model: keras.Model, noise: Any, steps: int = STEPS) -> Any:
    """Noise (batch, d) to latents (batch, d), in midpoint steps."""
    points, each = noise, ops.ones_like(noise[:, :1])
    for step in range(steps):
        start, half = (each * places_in_time(np.array([[time / steps]])) for time in (step, step + 0.5))
        middle = points + model([points, start]) * (0.5 / steps)
        points = points + model([middle, half]) / steps
    return points


class Prior:
    """The second stage of an autoencoder's training (Dai & Wipf 2019, two-stage VAE; here a flow).

    Args:
        dimension: of the latents.
        steps: how many it will take.

    Attributes:
        posterior: (mean, deviation), each (pictures, d): where the encoder puts each training picture and how unsure
            it is of that; to be set before the first step.
    """

    def __init__(self, dimension: int, learning_rate: float, steps: int) -> None:
        self.flow = velocity(dimension)
        self._step = Step(self._loss, self.flow.trainable_variables, annealed(learning_rate, steps))
        self.variables = [*self.flow.variables, *self._step.variables]
        self.posterior: tuple[np.ndarray, np.ndarray] | None = None

    def step(self, random: np.random.Generator) -> dict[str, Any]:
        """One step, from noise to the latents of random training pictures."""
        assert self.posterior is not None
        chosen = random.integers(0, len(self.posterior[0]), BATCH)
        mean, deviation = (values[chosen] for values in self.posterior)
        noise = random.standard_normal((2, *mean.shape), np.float32)
        return self._step(noise[0], mean + deviation * noise[1], places_in_time(random.random((BATCH, 1), np.float32)))

    def __call__(self, noise: np.ndarray) -> np.ndarray:
        """Noise (n, d) to latents (n, d), by the averaged weights."""
        with self._step.averaged():
            return ops.convert_to_numpy(transport(self.flow, ops.convert_to_tensor(noise)))

    def finish(self) -> keras.Model:
        """The flow, with its averaged weights for good."""
        self._step.finish()
        return self.flow

    def _loss(self, noise: Any, latents: Any, places: Any) -> tuple[Any, dict[str, Any]]:
        value = matching_loss(self.flow, noise, latents, places)
        return value, {"prior": value}
