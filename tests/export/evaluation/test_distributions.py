"""Tests of the distances between sets of features against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from export.evaluation import distributions
from export.evaluation.distributions import (
    frechet_distance,
    kernel_distance,
    mean_pairwise_distance,
    nearest_distances,
)


def cloud(count: int, seed: int, spread: float = 1.0, size: int = 6) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    mix = torch.randn(size, size, generator=random)
    return spread * torch.randn(count, size, generator=random) @ mix + torch.randn(size, generator=random)


def root(matrix: np.ndarray) -> np.ndarray:
    """The square root of a symmetric matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def test_frechet_is_its_formula() -> None:
    a, b = (cloud(50, seed).double().numpy() for seed in (1, 2))
    squared_distance = ((a.mean(0) - b.mean(0)) ** 2).sum()
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    # tr √(Σ₁Σ₂) by way of symmetric matrices, which the library does not take
    joint = np.trace(root(root(cov_a) @ cov_b @ root(cov_a)))
    expected = squared_distance + np.trace(cov_a) + np.trace(cov_b) - 2 * joint
    assert frechet_distance(cloud(50, 1), cloud(50, 2)) == pytest.approx(expected, rel=1e-6)


def test_a_set_has_distance_0_from_itself() -> None:
    features = cloud(60, 3)
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-6)
    assert nearest_distances(features, features).max() < 1e-5


def test_kernel_distance_is_the_unbiased_estimate() -> None:
    """Binkowski et al. 2018: with no more members than a subset has, every subset is the whole set."""
    a, b = (cloud(40, seed, 0.5).double() for seed in (1, 2))

    def kernel(left: Tensor, right: Tensor) -> Tensor:
        return (left @ right.T / left.shape[1] + 1) ** 3

    def without_diagonal(matrix: Tensor) -> Tensor:
        return (matrix.sum() - matrix.trace()) / (len(matrix) * (len(matrix) - 1))

    expected = without_diagonal(kernel(a, a)) + without_diagonal(kernel(b, b)) - 2 * kernel(a, b).mean()
    mean, deviation = kernel_distance(cloud(40, 1, 0.5), cloud(40, 2, 0.5), seed=0)
    assert mean == pytest.approx(float(expected), rel=1e-9)
    assert deviation == pytest.approx(0, abs=1e-9 * abs(mean))


def test_kernel_distance_draws_by_its_seed_and_leaves_torchs_own_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(distributions, "SUBSETS", 2)
    a, b = cloud(1200, 1, 0.3), cloud(1200, 2, 0.3)
    state = torch.get_rng_state()
    first = kernel_distance(a, b, seed=1)
    assert kernel_distance(a, b, seed=1) == first
    assert kernel_distance(a, b, seed=2) != first
    assert torch.equal(torch.get_rng_state(), state)


def test_nearest_is_the_least_of_all_distances() -> None:
    a, b = cloud(300, 1), cloud(17, 2)
    expected = ((a[:, None] - b[None]) ** 2).sum(2).sqrt().amin(1).double()
    torch.testing.assert_close(nearest_distances(a, b), expected, rtol=1e-5, atol=1e-6)  # expected is float32


def test_mean_pairwise_distance_is_over_all_pairs() -> None:
    corners = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    assert mean_pairwise_distance(corners) == pytest.approx(4)
    assert mean_pairwise_distance(corners[:1]) == 0
