"""Tests of the losses of style transfer against their formulas, written out with loops over small tensors."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from export.training import losses


def uniform(*shape: int, seed: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_the_style_loss_adds_the_squared_differences_of_each_layers_gram_matrices() -> None:
    shallow, deep = uniform(2, 3, 3, seed=0), uniform(2, 4, 4, seed=1)
    targets = [uniform(1, 3, 3, seed=2), uniform(1, 4, 4, seed=3)]
    expected = 0.0
    for grams, target in zip((shallow, deep), targets, strict=True):
        for picture in range(2):
            for row in range(grams.shape[1]):
                for column in range(grams.shape[2]):
                    difference = float(grams[picture, row, column] - target[0, row, column])
                    expected += difference**2 / 2  # two pictures
    assert float(losses.style([shallow, deep], targets)) == pytest.approx(expected, rel=1e-5)
    assert float(losses.style([targets[0].expand(2, 3, 3)], targets[:1])) == 0


def test_the_total_variation_is_the_mean_squared_difference_of_neighbours() -> None:
    pictures = uniform(2, 3, 4, 5, seed=4)
    down = [
        float(pictures[n, c, y + 1, x] - pictures[n, c, y, x]) ** 2
        for n in range(2) for c in range(3) for y in range(3) for x in range(5)
    ]  # fmt: skip
    across = [
        float(pictures[n, c, y, x + 1] - pictures[n, c, y, x]) ** 2
        for n in range(2) for c in range(3) for y in range(4) for x in range(4)
    ]  # fmt: skip
    expected = sum(down) / len(down) + sum(across) / len(across)
    assert float(losses.total_variation(pictures)) == pytest.approx(expected, rel=1e-5)
    assert float(losses.total_variation(torch.full((1, 3, 4, 4), 0.3))) == 0
