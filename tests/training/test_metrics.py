"""Figures against values known by other means."""

from __future__ import annotations

import numpy as np
import pytest

from training import metrics


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


def test_frechet_distance_of_gaussians_is_the_closed_form(random: np.random.Generator) -> None:
    scales, shift = np.array([1.0, 2.0, 0.5]), np.array([3.0, 0.0, -1.0])
    first = random.standard_normal((200_000, 3))
    second = random.standard_normal((200_000, 3)) * scales + shift
    expected = np.sum(shift**2) + np.sum((1 - scales) ** 2)
    assert metrics.frechet_distance(first, second) == pytest.approx(expected, rel=0.02)
    assert metrics.frechet_distance(first, first) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_with_correlated_features(random: np.random.Generator) -> None:
    one, two = random.standard_normal((500, 6)) @ random.standard_normal((6, 6)), random.standard_normal((400, 6))
    a, b = np.cov(one, rowvar=False), np.cov(two, rowvar=False)
    root = np.sqrt(np.linalg.eigvals(a @ b).astype(complex)).real.sum()
    expected = np.sum((one.mean(0) - two.mean(0)) ** 2) + np.trace(a) + np.trace(b) - 2 * root
    assert metrics.frechet_distance(one, two) == pytest.approx(expected)


def test_kernel_distance_is_unbiased(random: np.random.Generator) -> None:
    same = [metrics.kernel_distance(random.standard_normal((300, 8)), random.standard_normal((300, 8))) for _ in range(20)]
    assert abs(np.mean(same)) < 0.01
    assert metrics.kernel_distance(random.standard_normal((300, 8)), random.standard_normal((300, 8)) + 1) > 1


def test_precision_and_recall_tell_what_is_missing(random: np.random.Generator) -> None:
    real = np.concatenate([random.standard_normal((300, 2)), random.standard_normal((300, 2)) + 20])
    half = random.standard_normal((600, 2))
    precision, recall, density, coverage = metrics.manifold_figures(real, half)
    assert precision > 0.9
    assert 0.4 < recall < 0.6
    assert 0.4 < coverage < 0.6
    assert density > 0.7
    precision, recall, density, coverage = metrics.manifold_figures(real, np.concatenate([half, half + 20, half - 50]))
    assert precision < 0.75
    assert recall > 0.9
    assert coverage > 0.9
    assert 0.5 < density < 0.8


def test_manifold_figures_by_their_definitions(random: np.random.Generator) -> None:
    real, generated = random.standard_normal((30, 3)), random.standard_normal((40, 3)) * 1.5

    def radius(points: np.ndarray, index: int, k: int) -> float:
        return float(np.sort(np.linalg.norm(points - points[index], axis=1))[k])  # the 0-th is the point itself

    def inside(points: np.ndarray, others: np.ndarray, k: int) -> np.ndarray:
        return np.array([[np.linalg.norm(other - point) <= radius(points, i, k) for other in others] for i, point in enumerate(points)])

    near, own, wide = inside(real, generated, 2), inside(generated, real, 2), inside(real, generated, 4)
    expected = near.any(axis=0).mean(), own.any(axis=0).mean(), wide.sum() / (4 * len(generated)), wide.any(axis=1).mean()
    assert metrics.manifold_figures(real, generated, near=2, wide=4) == pytest.approx(expected)


def test_an_outlier_inflates_precision_but_not_density(random: np.random.Generator) -> None:
    real = np.concatenate([random.standard_normal((500, 2)), [[40.0, 0.0]]])
    generated = np.concatenate([random.standard_normal((250, 2)), random.standard_normal((250, 2)) + np.array([20.0, 0.0])])
    precision, _, density, _ = metrics.manifold_figures(real, generated)
    assert precision > 0.95
    assert density < 0.75


def test_distances(random: np.random.Generator) -> None:
    points, others = random.standard_normal((40, 5)), random.standard_normal((70, 5))
    expected = np.linalg.norm(points[:, None] - others[None], axis=-1)
    np.testing.assert_allclose(metrics.pairwise_distances(points, others), expected, atol=1e-6)
    distances, indices = metrics.nearest(points, others, chunk=7)
    np.testing.assert_allclose(distances, expected.min(axis=1), atol=1e-6)
    assert indices.tolist() == expected.argmin(axis=1).tolist()
    assert metrics.mean_pairwise_distance(np.array([[0.0], [3.0]])) == pytest.approx(3.0)


def test_neighbours_vote_and_ties_go_to_the_nearer() -> None:
    points, labels = np.array([[0.0], [1.0], [2.0], [10.0], [11.0]]), np.array([0, 1, 1, 0, 0])
    assert metrics.neighbour_accuracy(points, labels, np.array([[1.1]]), np.array([1]), neighbours=3) == 1.0
    assert metrics.neighbour_accuracy(points, labels, np.array([[0.1]]), np.array([0]), neighbours=2) == 1.0
    assert metrics.neighbour_accuracy(points, labels, np.array([[0.9]]), np.array([0]), neighbours=2) == 0.0


def test_peak_signal_to_noise() -> None:
    black, grey = np.zeros((2, 4, 4), np.uint8), np.full((2, 4, 4), 51, np.uint8)
    assert metrics.peak_signal_to_noise(black, grey) == pytest.approx(10 * np.log10(25))


def test_principal_components(random: np.random.Generator) -> None:
    points = random.standard_normal((5000, 3)) * [5.0, 0.1, 1.0] + [1.0, 2.0, 3.0]
    mean, directions = metrics.principal_components(points, 2)
    np.testing.assert_allclose(mean, [1, 2, 3], atol=0.3)
    np.testing.assert_allclose(np.abs(directions), [[1, 0], [0, 0], [0, 1]], atol=0.1)
