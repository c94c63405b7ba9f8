"""Generators of samples, measured against real pictures in the features of a classifier.

`python -m export.evaluate` makes a Comparison of the real pictures and measures each Subject by it. Samples are compared
with as many real training pictures, or all of them where there are fewer. The floor, real test pictures against the same
reference, is the figure of a perfect generator: without it a distance says little.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from export.data.sets import framed
from export.evaluation.classifiers import Classified, Classifier
from export.evaluation.distributions import (
    frechet_distance,
    kernel_distance,
    mean_pairwise_distance,
    nearest_distances,
)
from export.evaluation.progress import with_progress
from export.evaluation.subjects import BLOCK, SEEDS_PER_RUN, Subject
from runtime.errors import InvalidInput

# The quantile of the distances to the nearest training picture at which copies of training pictures would show.
CLOSEST = 0.01


@dataclass(frozen=True)
class ImageSet:
    """images: [N, C, H, W] uint8. labels: [N] int64, the class that each shows or was asked for; None: unknown."""

    images: Tensor
    labels: Tensor | None

    def subset(self, count: int, seed: int) -> ImageSet:
        """`count` of them chosen by `seed`, or all where there are fewer."""
        chosen = random_indices(len(self.images), count, seed)
        return ImageSet(self.images[chosen], None if self.labels is None else self.labels[chosen])


@dataclass(frozen=True)
class Figures:
    """One set of pictures against the reference. All distances are in the classifier's features.

    frechet: Fréchet distance; kernel, kernel_std: KID and its deviation over subsets.
    nearest: median distance to the nearest picture of the whole training set; nearest_closest: of the closest 1 %.
    shares: of each class, as the classifier sees them; they sum to 1. least_share: the smallest.
    agreement: share of the pictures in which the classifier sees their label; agreement_by_class: of each class.
    diversity_by_class: mean distance of two pictures of a class over that of real ones; diversity: their mean.
    The last four are None where the pictures have no labels, diversity also where the real ones have none.
    """

    count: int
    frechet: float
    kernel: float
    kernel_std: float
    nearest: float
    nearest_closest: float
    least_share: float
    shares: tuple[float, ...]
    agreement: float | None = None
    agreement_by_class: tuple[float, ...] | None = None
    diversity: float | None = None
    diversity_by_class: tuple[float, ...] | None = None


class Comparison:
    """Real pictures to measure sets of samples against. The classifier runs over them once, when first needed.

    train: the pictures that the generator may have learned from; test: others, for the floor. count: samples to draw of
    each subject, and at most so many of the real pictures. seed: of every random choice.
    """

    def __init__(
        self, classifier: Classifier, train: ImageSet, test: ImageSet, *, count: int, seed: int
    ) -> None:
        self.classifier, self.train, self.test = classifier, train, test
        self.count, self.seed = count, seed

    @cached_property
    def train_features(self) -> Tensor:
        """[N, D] of all training pictures."""
        return self.classifier.classify(self.train.images, "classifying the training pictures").features

    @cached_property
    def reference(self) -> tuple[Tensor, Tensor | None]:
        """Features [N, D] and labels [N] of the training pictures that distributions are compared with."""
        chosen = random_indices(len(self.train.images), self.count, self.seed)
        labels = self.train.labels
        return self.train_features[chosen], None if labels is None else labels[chosen]

    def floor(self) -> Figures:
        """The figures of `count` test pictures, or of all where there are fewer."""
        return self.figures(self.test.subset(self.count, self.seed), "classifying the test pictures")

    def measure(self, subject: Subject) -> tuple[Figures, Tensor]:
        """The figures of `count` samples of `subject`, and the samples: [N, C, size, size] uint8, as the classifier's.

        Raises InvalidInput where the classifier knows another number of classes, or takes other pictures.
        """
        if subject.classes not in (0, len(self.classifier.class_names)):
            raise InvalidInput(
                "classifier",
                f"knows {len(self.classifier.class_names)} classes, {subject.name} has {subject.classes}",
            )
        samples = draw_samples(subject, self.count, self.seed)
        samples = ImageSet(centred(samples.images, self.classifier), samples.labels)
        return self.figures(samples, f"classifying the samples of {subject.name}"), samples.images

    def figures(self, pictures: ImageSet, description: str) -> Figures:
        """pictures: as large as the classifier takes them. description: of the progress bar."""
        classified, (reference, _) = (
            self.classifier.classify(pictures.images, description),
            self.reference,
        )
        kernel, deviation = kernel_distance(classified.features, reference, self.seed)
        distances = nearest_distances(classified.features, self.train_features)
        classes = len(self.classifier.class_names)
        shares = torch.bincount(classified.classes, minlength=classes) / len(classified.classes)
        overall = Figures(
            count=len(pictures.images),
            frechet=frechet_distance(classified.features, reference),
            kernel=kernel,
            kernel_std=deviation,
            nearest=float(distances.median()),
            nearest_closest=float(distances.quantile(CLOSEST)),
            least_share=float(shares.min()),
            shares=tuple(shares.tolist()),
        )
        return overall if pictures.labels is None else self.by_class(overall, classified, pictures.labels)

    def by_class(self, overall: Figures, classified: Classified, labels: Tensor) -> Figures:
        """`overall` with the figures that need the label of each picture."""
        classes = range(len(self.classifier.class_names))
        right = classified.classes == labels
        agreement = tuple(share(right[labels == label]) for label in classes)
        values = asdict(overall) | {"agreement": share(right), "agreement_by_class": agreement}
        reference, reference_labels = self.reference
        if reference_labels is not None:
            among_real = [mean_pairwise_distance(reference[reference_labels == label]) for label in classes]
            ratios = [
                mean_pairwise_distance(classified.features[labels == label]) / max(among_real[label], 1e-12)
                for label in classes
            ]
            values |= {"diversity": float(np.mean(ratios)), "diversity_by_class": tuple(ratios)}
        return Figures(**values)


def draw_samples(subject: Subject, count: int, seed: int) -> ImageSet:
    """`count` samples in blocks; labels go through the classes in turn, so that each class is drawn equally often."""
    labels = np.arange(count) % subject.classes if subject.classes else None
    blocks = []
    for block in with_progress(range(-(-count // BLOCK)), f"drawing {count} samples of {subject.name}"):
        first, last = block * BLOCK, min((block + 1) * BLOCK, count)
        block_labels = None if labels is None else labels[first:last]
        blocks.append(subject.samples(last - first, block_labels, seed * SEEDS_PER_RUN + block))
    images = torch.from_numpy(np.concatenate(blocks))
    return ImageSet(images, None if labels is None else torch.from_numpy(labels))


def centred(images: Tensor, classifier: Classifier) -> Tensor:
    """[N, C, H, W] uint8 in the middle of black squares of the classifier's size, as real pictures are read.

    Raises InvalidInput where they are larger, or have other channels.
    """
    channels, *sides = images.shape[1:]
    if channels != classifier.channels or max(sides) > classifier.size:
        raise InvalidInput(
            "classifier",
            f"takes {classifier.channels} channels and at most {classifier.size} px, "
            f"the samples have {channels} and {sides[1]}×{sides[0]} px",
        )
    squares = framed(images.permute(0, 2, 3, 1).numpy(), classifier.size)
    return torch.from_numpy(squares).permute(0, 3, 1, 2).contiguous()


def random_indices(total: int, count: int, seed: int) -> Tensor:
    """`count` different numbers below `total` in an order drawn from `seed`; all of them where there are fewer."""
    return torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:count]


def share(right: Tensor) -> float:
    """[N] bool → the share that is true; 0 of none."""
    return float(right.double().mean()) if len(right) else 0.0
