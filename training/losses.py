"""Losses that more than one recipe uses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras import ops

from training.step import input_gradient


def relativistic(leading: Any, trailing: Any) -> Any:
    """Relativistic pairing loss: small when each `leading` score exceeds its paired `trailing` one.

    softplus(trailing - leading), averaged. The discriminator leads with the real pictures, the
    generator with its own. Jolicoeur-Martineau 2018; R3GAN (Huang et al. 2024), equation 1.

    Args:
        leading, trailing: scores (batch,), paired by position.
    """
    return ops.mean(ops.softplus(trailing - leading))


def zero_centred_penalty(scores: Callable[[Any], Any], pictures: Any) -> Any:
    """Mean squared norm of the gradient of the scores by the pictures (R1 on real, R2 on generated ones).

    Mescheder et al. 2018, section 4.1. `scores` maps (batch, height, width, channels) to (batch,).
    """
    _, gradient = input_gradient(scores, pictures)
    return ops.mean(ops.sum(ops.square(gradient), axis=(1, 2, 3)))


def binary_cross_entropy(logits: Any, target: Any) -> Any:
    """Cross-entropy of sigmoid(logits) against targets in 0..1 (one for all, or of the same shape), averaged.

    From logits, so that nothing saturates.
    """
    return ops.mean(ops.softplus(logits) - target * logits)
