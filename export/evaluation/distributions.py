"""Distances between two sets of pictures, computed on a classifier's features of them: [N, D] float32 tensors.

sampling.py calls these functions. torchmetrics computes the Fréchet and kernel distances. It is given features instead of
pictures, so that the classifier runs once for all figures.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# For the kernel distance, as in its paper.
SUBSETS, SUBSET_SIZE = 100, 1000
# How many rows of the distance matrix are computed at once, which limits the memory.
ROWS = 256


class PrecomputedFeatures(nn.Module):
    """Given to torchmetrics as the feature extractor: returns its input, which is features already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def frechet_distance(samples: Tensor, real: Tensor) -> float:
    """The Fréchet distance of two normal distributions with the sets' means and covariances (arXiv 1706.08500).

    Computed in float64. Its bias depends on the sizes of the sets, so only compare figures of equal sizes.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(feature=PrecomputedFeatures(samples.shape[1]))
    metric.update(real.double(), real=True)
    metric.update(samples.double(), real=False)
    return float(metric.compute())


def kernel_distance(samples: Tensor, real: Tensor, seed: int) -> tuple[float, float]:
    """Mean and standard deviation of the squared MMD with a cubic kernel over random subsets (KID, arXiv 1801.01401).

    Unlike the Fréchet distance it has no bias; it can be a little below zero. seed: draws the subsets.
    """
    from torchmetrics.image.kid import KernelInceptionDistance

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a warning that the features are kept in memory
        metric = KernelInceptionDistance(
            feature=PrecomputedFeatures(samples.shape[1]),
            subsets=SUBSETS,
            subset_size=min(SUBSET_SIZE, len(samples), len(real)),
        )
    metric.update(real.double(), real=True)
    metric.update(samples.double(), real=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        mean, deviation = metric.compute()
    return float(mean), float(deviation)


def mean_pairwise_distance(features: Tensor) -> float:
    """The mean distance between two different members of the set; 0 where it has fewer than two."""
    return float(F.pdist(features.double()).mean()) if len(features) > 1 else 0.0


def nearest_distances(samples: Tensor, real: Tensor) -> Tensor:
    """[N] float64: for each member of `samples` the distance to the nearest of `real`."""
    # cdist subtracts squares; in float32 that loses the digits of small distances.
    others = real.double()
    return torch.cat([torch.cdist(rows, others).amin(dim=1) for rows in samples.double().split(ROWS)])
