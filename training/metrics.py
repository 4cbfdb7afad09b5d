"""Figures, in NumPy; SciPy finds the parts of a mask. Feature arrays are (n, d); whatever computes them says where it measured."""

from __future__ import annotations

import numpy as np
from scipy import ndimage


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) of two sets of features.

    The formula of FID (Heusel et al. 2017); on other features than Inception's it must not be called FID.
    """
    means = first.mean(axis=0), second.mean(axis=0)
    one, two = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    values, vectors = np.linalg.eigh(one)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ two @ root), 0.0)).sum()
    return float(np.sum((means[0] - means[1]) ** 2) + np.trace(one) + np.trace(two) - 2 * cross)


def kernel_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Squared maximum mean discrepancy under the kernel (x.y/d + 1)^3, unbiased (KID: Binkowski et al. 2018)."""
    dimension = first.shape[1]

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.asarray((a @ b.T / dimension + 1.0) ** 3)

    m, n = len(first), len(second)
    within = kernel(first, first), kernel(second, second)
    return float(
        (within[0].sum() - np.trace(within[0])) / (m * (m - 1))
        + (within[1].sum() - np.trace(within[1])) / (n * (n - 1))
        - 2 * kernel(first, second).mean()
    )


def manifold_figures(real: np.ndarray, generated: np.ndarray, near: int = 3, wide: int = 5) -> tuple[float, float, float, float]:
    """Precision, recall, density and coverage of generated points, on balls that reach to a point's k-th neighbour.

    Precision and recall (Kynkaanniemi et al. 2019, k = `near`): the share of generated points within some real point's
    ball, and of real points within some generated one's. Density and coverage (Naeem et al. 2020, section 3, k = `wide`),
    which an outlier among the real points does not move: how many real balls a generated point lies in, over k (above 1 where
    generated points crowd where real ones are dense), and the share of real points with a generated one in their ball.
    """
    distances = pairwise_distances(real, generated)
    within, own = _radii(real, (near, wide)), _radii(generated, (near,))
    precision = (distances <= within[0][:, None]).any(axis=0).mean()
    recall = (distances <= own[0][None, :]).any(axis=1).mean()
    inside = distances <= within[1][:, None]
    return float(precision), float(recall), float(inside.sum(axis=0).mean() / wide), float(inside.any(axis=1).mean())


def _radii(points: np.ndarray, neighbours: tuple[int, ...]) -> list[np.ndarray]:
    """The distance of each point to its k-th neighbour among the others, for each k (the 0-th is the point itself)."""
    ordered = np.partition(pairwise_distances(points, points), neighbours, axis=1)
    return [ordered[:, k] for k in neighbours]


def pairwise_distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Euclidean distances (n, m)."""
    squares = (first**2).sum(axis=1)[:, None] + (second**2).sum(axis=1)[None, :] - 2 * first @ second.T
    return np.sqrt(np.maximum(squares, 0.0))


def mean_pairwise_distance(points: np.ndarray) -> float:
    """Between different points of one set: how much they vary."""
    number = len(points)
    return float(pairwise_distances(points, points).sum() / (number * (number - 1)))


def nearest(queries: np.ndarray, references: np.ndarray, chunk: int = 500) -> tuple[np.ndarray, np.ndarray]:
    """The distance of each query to its nearest reference (n,), and which that is (n,)."""
    distances, indices = np.empty(len(queries), np.float32), np.empty(len(queries), np.int64)
    for start in range(0, len(queries), chunk):
        found = pairwise_distances(queries[start : start + chunk], references)
        indices[start : start + chunk], distances[start : start + chunk] = found.argmin(axis=1), found.min(axis=1)
    return distances, indices


def neighbour_accuracy(points: np.ndarray, labels: np.ndarray, queries: np.ndarray, answers: np.ndarray, neighbours: int = 5) -> float:
    """The share of queries whose k nearest points vote for the right class; a tie goes to the nearer one."""
    right = 0
    for start in range(0, len(queries), 500):
        distances = pairwise_distances(queries[start : start + 500], points)
        nearest = np.argpartition(distances, neighbours, axis=1)[:, :neighbours]
        order = np.take_along_axis(distances, nearest, axis=1).argsort(axis=1)
        votes = labels[np.take_along_axis(nearest, order, axis=1)]
        counts = (votes[:, :, None] == votes[:, None, :]).sum(axis=2)
        chosen = np.take_along_axis(votes, counts.argmax(axis=1)[:, None], axis=1)[:, 0]
        right += int((chosen == answers[start : start + 500]).sum())
    return right / len(queries)


def peak_signal_to_noise(first: np.ndarray, second: np.ndarray) -> float:
    """PSNR in dB of uint8 pictures (n, ...): the mean over the pictures of 10 log10(255^2 / MSE), MSE >= 1e-4."""
    differences = (first.astype(np.float64) - second).reshape(len(first), -1)
    return float(np.mean(10 * np.log10(255.0**2 / np.maximum((differences**2).mean(axis=1), 1e-4))))


def luma(pictures: np.ndarray) -> np.ndarray:
    """Brightness of uint8 pictures (..., 3), 16 to 235 (ITU-R BT.601), in which upscaled pictures are compared by custom."""
    return np.asarray(16.0 + pictures.astype(np.float64) @ np.array([65.481, 128.553, 24.966]) / 255.0)


def principal_components(points: np.ndarray, dimension: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean (d,) and the leading directions (d, dimension) of a set of points."""
    mean = points.mean(axis=0)
    centred = points - mean
    if points.shape[1] <= len(points):
        _, vectors = np.linalg.eigh(centred.T @ centred)
        return mean, vectors[:, ::-1][:, :dimension]
    _, weights = np.linalg.eigh(centred @ centred.T)  # fewer points than dimensions: the same directions from the smaller matrix
    directions = centred.T @ weights[:, ::-1][:, :dimension]
    return mean, directions / np.linalg.norm(directions, axis=0)


def auroc(negatives: np.ndarray, positives: np.ndarray) -> float:
    """The probability that a positive has a higher value than a negative, ties counting half: the area under the ROC curve."""
    values = np.concatenate([np.ravel(negatives), np.ravel(positives)])
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    number = np.size(positives)
    above = ranks[places[np.size(negatives) :]].sum() - number * (number + 1) / 2
    return float(above / (number * np.size(negatives)))


def f1(negatives: np.ndarray, positives: np.ndarray, threshold: float) -> float:
    """The harmonic mean of precision and recall where what is above a threshold is taken for positive."""
    found, false = int((positives > threshold).sum()), int((negatives > threshold).sum())
    return 2 * found / (found + false + len(positives))


def region_overlap(levels: np.ndarray, masks: np.ndarray, most: float = 0.3) -> float:
    """PRO: the mean share of a defect that is found, averaged up to a share of false pixels (Bergmann et al. 2020, section 6.1).

    Args:
        levels: uint8 (n, h, w), higher where an error is larger.
        masks: bool (n, h, w), true in defects; each connected part is one.
        most: the share of false pixels up to which the curve is averaged.
    """
    good = np.bincount(levels[~masks], minlength=256)
    false = np.concatenate([[0.0], np.cumsum(good[::-1])]) / good.sum()
    parts = list[np.ndarray]()
    for picture, mask in zip(levels, masks, strict=True):
        labels, number = ndimage.label(mask, structure=np.ones((3, 3), int))
        counts = (np.bincount(picture[labels == part], minlength=256) for part in range(1, number + 1))
        parts += [np.cumsum(count[::-1]) / count.sum() for count in counts]
    overlap = np.concatenate([[0.0], np.mean(parts, axis=0)])
    places = np.linspace(0, most, 1001)
    return float(np.interp(places, false, overlap).mean())
