"""Losses, the flow and the networks of the recipes, against what is known of them by other means."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from training import adversarial, flow, recipes
from training.losses import binary_cross_entropy, relativistic, zero_centred_penalty
from training.step import Step


def test_cross_entropy_from_logits_is_that_of_probabilities() -> None:
    logits, targets = np.array([-3.0, 0.0, 2.0], np.float32), np.array([0.0, 0.3, 0.9], np.float32)
    probabilities = 1 / (1 + np.exp(-logits))
    expected = -(targets * np.log(probabilities) + (1 - targets) * np.log(1 - probabilities)).mean()
    assert float(binary_cross_entropy(logits, targets)) == pytest.approx(expected, rel=1e-5)
    assert float(binary_cross_entropy(np.array([200.0, -200.0], np.float32), np.array([1.0, 0.0]))) == pytest.approx(0.0)


def test_relativistic_loss_compares_paired_scores() -> None:
    leading, trailing = np.array([2.0, -1.0], np.float32), np.array([0.5, 1.0], np.float32)
    expected = (np.log1p(np.exp(-1.5)) + np.log1p(np.exp(2.0))) / 2
    assert float(relativistic(leading, trailing)) == pytest.approx(expected, rel=1e-5)


def test_the_penalty_is_the_squared_norm_of_the_gradient() -> None:
    pictures = np.random.default_rng(0).standard_normal((5, 2, 3, 1)).astype(np.float32)
    weights = np.arange(6, dtype=np.float32).reshape(2, 3, 1)
    linear = zero_centred_penalty(lambda x: ops.sum(x * weights, axis=(1, 2, 3)), ops.convert_to_tensor(pictures))
    assert float(linear) == pytest.approx((weights**2).sum(), rel=1e-5)
    squares = zero_centred_penalty(lambda x: ops.sum(x * x, axis=(1, 2, 3)), ops.convert_to_tensor(pictures))
    assert float(squares) == pytest.approx((4 * pictures**2).sum(axis=(1, 2, 3)).mean(), rel=1e-5)


def test_a_flow_carries_noise_to_where_the_latents_are() -> None:
    """Two narrow clouds in the plane: nearly all noise ends in one of them, half in each, and neighbours stay neighbours."""
    keras.utils.set_random_seed(0)
    model = flow.velocity(2, width=64)

    def loss(noise: object, latents: object, places: object) -> tuple[object, dict[str, object]]:
        value = flow.matching_loss(model, noise, latents, places)
        return value, {"loss": value}

    step = Step(loss, model.trainable_variables, keras.optimizers.Adam(2e-3))
    random = np.random.default_rng(0)
    for _ in range(400):
        noise = random.standard_normal((256, 2), np.float32)
        latents = random.standard_normal((256, 2), np.float32) * 0.1 + random.choice([-2.0, 2.0], (256, 1)).astype(np.float32)
        step(noise, latents, flow.places_in_time(random.random((256, 1), np.float32)))
    noise = random.standard_normal((1000, 2), np.float32)
    reached = ops.convert_to_numpy(flow.transport(model, ops.convert_to_tensor(noise)))
    distances = np.abs(np.abs(reached) - 2.0).max(axis=1)
    assert (distances < 0.6).mean() > 0.9
    assert (np.sign(reached[:, 0]) == np.sign(reached[:, 1])).mean() > 0.95
    assert 0.4 < (reached[:, 0] > 0).mean() < 0.6
    nudged = ops.convert_to_numpy(flow.transport(model, ops.convert_to_tensor(noise + np.float32(1e-4))))
    assert np.median(np.abs(nudged - reached)) < 1e-3


@pytest.mark.parametrize("name", ["gan", "cgan", "dcgan", "cdcgan"])
def test_the_chapters_networks_have_the_chapters_sizes(name: str) -> None:
    """Parameters as the chapter's notebook prints them for its conditional networks; without labels, less what they bring."""
    recipe = recipes.find(name)
    classes = (10,) if name.startswith("c") else ()
    if name == "dcgan":
        draw, features = adversarial.convolutional_pair(28, 1, recipe.CHAPTER)
        pair = draw, adversarial.logits(features)
    else:
        pair = tuple(make(28, 1, *classes, recipe.CHAPTER) for make in (recipe.generator, recipe.discriminator))
    found = [model.count_params() for model in pair]
    expected = {
        "cgan": [281_914, 483_365],
        "cdcgan": [7_228_984, 564_453],
        # no embedding (500), no dense layers of it (2,550; 39,984; 2,499), no channel that they would fill
        "gan": [281_914 - 500 - 2_550 - 50 * 64, 483_365 - 500 - 39_984 - 784 * 256],
        "dcgan": [7_228_984 - 500 - 2_499 - 4 * 4 * 128, 564_453 - 500 - 39_984 - 3 * 3 * 64],
    }
    assert found == expected[name]


@pytest.mark.parametrize(("name", "outputs"), [("autoencoder", 25_090), ("vae", 31_364)])
def test_the_chapters_encoders_and_decoder_have_the_chapters_sizes(name: str, outputs: int) -> None:
    from training.layers import chapter_decoder, chapter_encoder

    width = {"autoencoder": 2, "vae": 4}[name]
    assert chapter_encoder(28, 1, width).count_params() == outputs
    assert chapter_decoder(28, 1, 2).count_params() == 28_161
