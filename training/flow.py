"""A flow from Gaussian noise to the latents of an encoder, so that what is drawn from noise lies where real pictures do.

Flow matching on straight lines (Lipman et al. 2023; Liu et al. 2023, rectified flow): a small network learns the
velocity at which points move from noise, at time 0, to latents, at time 1. Sampling follows it in a fixed number of
midpoint steps, so that a latent is a continuous function of its noise, and the whole of it is one graph of dense layers.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

STEPS = 12
FREQUENCIES = (1.0, 2.0, 4.0)


def velocity(dimension: int, width: int = 256) -> keras.Model:
    """(points (batch, d), times (batch, 1) in 0..1) -> velocities (batch, d)."""
    points = keras.Input((dimension,), name="points")
    times = keras.Input((1,), name="times")
    waves = [wave(times * (3.14159265 * frequency)) for frequency in FREQUENCIES for wave in (ops.sin, ops.cos)]
    x = layers.Dense(width, activation="silu")(layers.Concatenate()([points, times, *waves]))
    for _ in range(3):
        x = layers.Add()([x, layers.Dense(width, activation="silu")(layers.Dense(width, activation="silu")(x))])
    return keras.Model([points, times], layers.Dense(dimension)(x), name="velocity")


def matching_loss(model: keras.Model, noise: Any, latents: Any, times: Any) -> Any:
    """Mean squared difference between the network's velocity on the line from noise to latent, and that of the line.

    Args:
        noise, latents: (batch, d), paired by position.
        times: (batch, 1) in 0..1, the place on each line.
    """
    points = noise + times * (latents - noise)
    return ops.mean(ops.square(model([points, times], training=True) - (latents - noise)))


def transport(model: keras.Model, noise: Any, steps: int = STEPS) -> Any:
    """Noise (batch, d) to latents (batch, d), in midpoint steps."""
    points = noise
    for step in range(steps):
        middle = points + model([points, ops.full_like(points[:, :1], step / steps)]) * (0.5 / steps)
        points = points + model([middle, ops.full_like(points[:, :1], (step + 0.5) / steps)]) / steps
    return points
