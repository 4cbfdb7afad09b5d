"""Noise from seeds, and the way from one latent to another."""

from __future__ import annotations

import secrets
import threading

import numpy as np

_STREAM = np.random.RandomState()
"""Seeded anew at each use: making one costs sixty times as much."""
_LOCK = threading.Lock()


def draw_seed() -> int:
    return secrets.randbits(32)


def draw(seed: int, number: int, dimension: int, truncation: float = 1.0) -> np.ndarray:
    """Standard normal latents (number, dimension) float32, scaled by the truncation.

    From NumPy's frozen `RandomState`, whose stream never changes between releases. Row i does not
    depend on how many follow it.
    """
    with _LOCK:
        _STREAM.seed(seed)
        noise = _STREAM.standard_normal((number, dimension))
    return (noise * truncation).astype(np.float32)


def between(first: np.ndarray, last: np.ndarray, steps: int) -> np.ndarray:
    """Spherical interpolation (steps, dimension) from one latent to another, both ends included.

    White 2016, "Sampling Generative Networks": the direction turns evenly and the length changes evenly,
    so that the steps stay where a Gaussian has its mass. Opposite or zero vectors are joined by a line.
    """
    lengths = np.linalg.norm(first), np.linalg.norm(last)
    share = np.linspace(0.0, 1.0, steps)[:, None]
    straight = first * (1 - share) + last * share
    if min(lengths) < 1e-6:
        return straight.astype(np.float32)
    directions = first / lengths[0], last / lengths[1]
    angle = np.arccos(np.clip(directions[0] @ directions[1], -1.0, 1.0))
    if np.sin(angle) < 1e-4:
        return straight.astype(np.float32)
    turned = (np.sin((1 - share) * angle) * directions[0] + np.sin(share * angle) * directions[1]) / np.sin(angle)
    way = np.asarray(turned * (lengths[0] * (1 - share) + lengths[1] * share), np.float32)
    way[0], way[-1] = first, last
    return way


def evenly(way: np.ndarray, pictures: np.ndarray, steps: int) -> np.ndarray:
    """Points (steps, dimension) of a finely sampled way, closer where its pictures change faster; both ends included.

    A generator of several kinds of things stays long with each and passes quickly from one to the next, so that even
    steps in its latents jump. Change is the squared distance between neighbouring pictures, added up along the way:
    squared, for what tells one kind from the next changes where the picture changes fastest.

    Args:
        way: (fine, dimension), fine > 1.
        pictures: (fine, height, width, channels), what is drawn there.
    """
    flat = pictures.reshape(len(pictures), -1).astype(np.float32)
    changes = np.square(np.diff(flat, axis=0)).sum(axis=1) + 1e-3  # where nothing changes, time still passes
    passed = np.concatenate([[0.0], np.cumsum(changes)])
    places = np.interp(np.linspace(0.0, passed[-1], steps), passed, np.arange(len(way)))
    before = np.minimum(places.astype(int), len(way) - 2)
    share = (places - before)[:, None]
    points = np.asarray(way[before] * (1 - share) + way[before + 1] * share, np.float32)
    points[0], points[-1] = way[0], way[-1]
    return points
