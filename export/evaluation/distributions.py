"""How far one set of pictures lies from another, in the features of a classifier: [N, D] float32 tensors.

torchmetrics has the two distances of distributions; it is given features instead of pictures, since one pass of the
classifier serves every figure.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Of the kernel distance, as in its paper.
SUBSETS, SUBSET_SIZE = 100, 1000
# Rows of a matrix of distances that are computed at once.
ROWS = 256


class AsTheyAre(nn.Module):
    """Stands where torchmetrics expects a feature extractor."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def frechet_distance(found: Tensor, real: Tensor) -> float:
    """The Fréchet distance of two normal distributions with the sets' means and covariances (arXiv 1706.08500).

    Computed in float64. It shrinks as sets grow, so that only figures of equal counts compare.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(feature=AsTheyAre(found.shape[1]))
    metric.update(real.double(), real=True)
    metric.update(found.double(), real=False)
    return float(metric.compute())


def kernel_distance(found: Tensor, real: Tensor, seed: int) -> tuple[float, float]:
    """Mean and standard deviation of the squared MMD with a cubic kernel over random subsets (KID, arXiv 1801.01401).

    Unlike the Fréchet distance it has no bias; it can be a little below zero. seed: draws the subsets.
    """
    from torchmetrics.image.kid import KernelInceptionDistance

    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UserWarning
        )  # it tells that it keeps the features, which are here anyway
        metric = KernelInceptionDistance(
            feature=AsTheyAre(found.shape[1]),
            subsets=SUBSETS,
            subset_size=min(SUBSET_SIZE, len(found), len(real)),
        )
    metric.update(real.double(), real=True)
    metric.update(found.double(), real=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        mean, deviation = metric.compute()
    return float(mean), float(deviation)


def spread(features: Tensor) -> float:
    """The mean distance of two different members of the set; 0 where there are no two."""
    return float(F.pdist(features.double()).mean()) if len(features) > 1 else 0.0


def nearest(found: Tensor, real: Tensor) -> Tensor:
    """[N] float64: for each member of `found` the distance to the nearest of `real`."""
    # In float32 the differences of squares that the distances are computed from lose the near ones.
    others = real.double()
    return torch.cat([torch.cdist(rows, others).amin(dim=1) for rows in found.double().split(ROWS)])
