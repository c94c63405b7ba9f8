"""Tests of comparing samples with real pictures, with a simple classifier that sees only the brightness."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from export.evaluation.classifiers import Classifier, Net
from export.evaluation.sampling import Comparison, ImageSet, centred, draw_samples
from export.evaluation.subjects import Subject
from runtime.errors import InvalidInput
from runtime.tasks.generate import GENERATE
from runtime.tensors import Array

SIDE = 8


class Brightness(Net):
    """Features: mean of the left half, of the right half. Classes: dark, grey, bright, by the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(2, 3)
        # The logit of a class is largest where the mean of both halves is nearest to 0, 1/2 or 1.
        levels = torch.tensor([0.0, 0.5, 1.0])
        self.linear.weight.data = levels[:, None].expand(3, 2).clone()
        self.linear.bias.data = -(levels**2)

    def embed(self, images: Tensor) -> Tensor:
        return torch.stack([half.mean(dim=(1, 2, 3)) for half in images.split(SIDE // 2, dim=3)], dim=1)


JUDGE = Classifier(
    Brightness(), name="brightness", size=SIDE, channels=1, class_names=("dark", "grey", "bright")
)


def shades(count: int, seed: int, noise: int = 30) -> ImageSet:
    """Dark, grey and bright pictures in turn, each half with a little of its own."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    halves = 20 + 90 * labels[:, None] + random.integers(0, noise + 1, (count, 2))
    images = halves.repeat(SIDE // 2, axis=1)[:, None, None, :].repeat(SIDE, axis=2)
    return ImageSet(torch.from_numpy(images.astype(np.uint8)), torch.from_numpy(labels))


class Shades(Subject):
    """Draws such pictures, and keeps what it was asked. repeat: gives one picture a class, again and again."""

    def __init__(self, classes: int = 3, repeat: bool = False) -> None:
        super().__init__("test", "shades", GENERATE, classes=classes)
        self.repeat = repeat
        self.asked: list[tuple[int, int]] = []

    def samples(self, count: int, labels: Array | None, seed: int) -> Array:
        self.asked.append((count, seed))
        some = shades(3 * count, seed, noise=0 if self.repeat else 30)
        assert some.labels is not None
        order = np.arange(count) if labels is None else labels + 3 * np.arange(count)
        return some.images[torch.from_numpy(order)].numpy()


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return Comparison(JUDGE, shades(600, 1), shades(400, 2), count=300, seed=0)


def test_real_pictures_are_near_each_other(comparison: Comparison) -> None:
    floor = comparison.floor()
    assert floor.count == 300
    assert floor.frechet < 1e-3  # features lie in [0, 1]; the shades alone are 0.35 apart
    assert abs(floor.kernel) < 1e-2
    assert floor.agreement == 1
    assert floor.agreement_by_class == pytest.approx((1, 1, 1))
    assert floor.least_share == pytest.approx(1 / 3, abs=0.06)
    assert sum(floor.shares) == pytest.approx(1)
    assert floor.diversity == pytest.approx(1, abs=0.1)
    assert floor.nearest_closest <= floor.nearest


def test_samples_like_the_real_ones_are_as_near(comparison: Comparison) -> None:
    figures, images = comparison.measure(Shades())
    assert images.shape == (300, 1, SIDE, SIDE)
    assert figures.frechet < 1e-3
    assert figures.agreement == 1
    assert figures.shares == pytest.approx((1 / 3,) * 3)
    assert figures.diversity == pytest.approx(1, abs=0.1)


def test_one_picture_a_class_shows_in_the_diversity_alone(comparison: Comparison) -> None:
    figures, _ = comparison.measure(Shades(repeat=True))
    assert figures.agreement == 1
    assert figures.diversity == 0
    assert figures.frechet > comparison.measure(Shades())[0].frechet


def test_copies_of_training_pictures_have_small_nearest_distances(comparison: Comparison) -> None:
    copies = comparison.figures(shades(600, 1).subset(300, 5), "looking")
    assert copies.nearest == copies.nearest_closest == pytest.approx(0, abs=1e-6)


def test_labels_that_are_not_shown_lower_the_agreement(comparison: Comparison) -> None:
    pictures = shades(300, 2)
    assert pictures.labels is not None
    wrong = torch.where(pictures.labels == 2, 1, pictures.labels)
    figures = comparison.figures(ImageSet(pictures.images, wrong), "looking")
    assert figures.agreement == pytest.approx(2 / 3)
    assert figures.agreement_by_class == pytest.approx((1, 0.5, 0))


def test_figures_by_label_are_none_without_labels(comparison: Comparison) -> None:
    figures, _ = comparison.measure(Shades(classes=0))
    assert figures.agreement is None
    assert figures.agreement_by_class is None
    assert figures.diversity is None
    train = dataclasses.replace(shades(60, 1), labels=None)
    unlabelled = Comparison(JUDGE, train, shades(30, 2), count=30, seed=0)
    figures, _ = unlabelled.measure(Shades())
    assert figures.agreement == 1
    assert figures.diversity is None


def test_samples_are_drawn_in_blocks_of_seeds_of_their_own() -> None:
    first, second = Shades(), Shades()
    pictures = draw_samples(first, 230, seed=1)
    draw_samples(second, 230, seed=2)
    assert [count for count, _ in first.asked] == [100, 100, 30]
    seeds = [seed for _, seed in (*first.asked, *second.asked)]
    assert len(set(seeds)) == 6
    assert pictures.labels is not None
    assert torch.bincount(pictures.labels).tolist() == [77, 77, 76]


def test_smaller_samples_are_set_in_black_and_others_refused() -> None:
    small = torch.full((2, 1, 4, 6), 9, dtype=torch.uint8)
    framed = centred(small, JUDGE)
    assert framed.shape == (2, 1, SIDE, SIDE)
    assert torch.equal(framed[:, :, 2:6, 1:7], small)
    assert framed.sum() == small.sum()
    with pytest.raises(
        InvalidInput, match="takes 1 channels and at most 8 px, the samples have 3 and 8×8 px"
    ):
        centred(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), JUDGE)
    with pytest.raises(InvalidInput, match="the samples have 1 and 8×16 px"):
        centred(torch.zeros(2, 1, 16, 8, dtype=torch.uint8), JUDGE)


def test_the_classes_must_be_the_classifiers(comparison: Comparison) -> None:
    with pytest.raises(InvalidInput, match="knows 3 classes, shades has 10"):
        comparison.measure(Shades(classes=10))


def test_more_samples_than_real_pictures_may_be_drawn() -> None:
    """FID-50k draws 50,000 samples, where CIFAR-10 has 50,000 training and 10,000 test pictures."""
    train, test = shades(300, 1), shades(120, 2)
    comparison = Comparison(JUDGE, train, test, count=900, seed=0)
    figures, samples = comparison.measure(Shades())
    assert (figures.count, len(samples)) == (900, 900)
    assert figures.frechet < 1e-3
    assert comparison.floor().count == 120
    reference, labels = comparison.reference
    assert labels is not None
    assert (len(reference), len(labels)) == (300, 300)
    assert torch.equal(reference.sort(dim=0).values, comparison.train_features.sort(dim=0).values)
