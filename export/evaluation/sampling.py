"""Measures generators of samples: compares their samples with real pictures in the features of a classifier.

measures.py makes a Comparison of the real pictures and gets the Figures of each Subject from it. Samples are compared with
as many real training pictures, or with all if there are fewer. To judge a distance, compare it with the floor: the distance
of real test pictures to the same training pictures, which is what a perfect generator would reach.
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

# A quantile of the distances to the nearest training picture. If samples are copies of training pictures, it is small.
CLOSEST = 0.01


@dataclass(frozen=True)
class ImageSet:
    """Pictures. images: [N, C, H, W] uint8. labels: [N] int64, the class that each shows or should show; None if unknown."""

    images: Tensor
    labels: Tensor | None

    def subset(self, count: int, seed: int) -> ImageSet:
        """`count` pictures drawn with `seed`, or all if there are fewer."""
        chosen = random_indices(len(self.images), count, seed)
        return ImageSet(self.images[chosen], None if self.labels is None else self.labels[chosen])


@dataclass(frozen=True)
class Figures:
    """The figures of a set of pictures compared with the reference. All distances are in the classifier's features.

    frechet: Fréchet distance; kernel, kernel_std: KID and its deviation over subsets.
    nearest: median distance to the nearest picture of the whole training set; nearest_closest: of the closest 1 %.
    shares: the share of pictures that are classified as each class. least_share: the smallest of them.
    agreement: the share of pictures that are classified as their label; agreement_by_class: the same for each class.
    diversity_by_class: the mean distance of two pictures of a class, divided by that of real ones; diversity: their mean.
    The last four are None if the pictures have no labels; the diversities also if the real ones have none.
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
    """Compares samples with real pictures, which are classified once, when first needed.

    train: the pictures that the generator may have learned from. test: others, for the floor. count: how many samples to
    draw, and how many real pictures to compare with at most. seed: of every random choice.
    """

    def __init__(
        self, classifier: Classifier, train: ImageSet, test: ImageSet, *, count: int, seed: int
    ) -> None:
        self.classifier, self.train, self.test = classifier, train, test
        self.count, self.seed = count, seed

    @cached_property
    def train_features(self) -> Tensor:
        """The features of all training pictures, [N, D]."""
        return self.classifier.classify(self.train.images, "classifying the training pictures").features

    @cached_property
    def reference(self) -> tuple[Tensor, Tensor | None]:
        """Features, [N, D], and labels, [N], of the training pictures that are compared with."""
        chosen = random_indices(len(self.train.images), self.count, self.seed)
        labels = self.train.labels
        return self.train_features[chosen], None if labels is None else labels[chosen]

    def floor(self) -> Figures:
        """The figures of `count` test pictures, or of all if there are fewer."""
        return self.figures(self.test.subset(self.count, self.seed), "classifying the test pictures")

    def measure(self, subject: Subject) -> tuple[Figures, Tensor]:
        """The figures of `count` samples of `subject`, and the samples in the classifier's size, [N, C, size, size] uint8.

        Raises InvalidInput if the classifier has another number of classes, or takes smaller pictures or other channels.
        """
        if subject.classes not in (0, len(self.classifier.class_names)):
            raise InvalidInput(
                "classifier",
                f"knows {len(self.classifier.class_names)} classes, {subject.name} has {subject.classes}; give one "
                "trained on the same classes",
            )
        samples = draw_samples(subject, self.count, self.seed)
        samples = ImageSet(centred(samples.images, self.classifier), samples.labels)
        return self.figures(samples, f"classifying the samples of {subject.name}"), samples.images

    def figures(self, pictures: ImageSet, description: str) -> Figures:
        """The figures of `pictures`, which have the classifier's size. description: of the progress bar."""
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
    """Draw `count` samples in blocks. Their labels go through the classes in turn, so that all are equally frequent."""
    labels = np.arange(count) % subject.classes if subject.classes else None
    blocks = []
    for block in with_progress(range(-(-count // BLOCK)), f"drawing {count} samples of {subject.name}"):
        first, last = block * BLOCK, min((block + 1) * BLOCK, count)
        block_labels = None if labels is None else labels[first:last]
        blocks.append(subject.samples(last - first, block_labels, seed * SEEDS_PER_RUN + block))
    images = torch.from_numpy(np.concatenate(blocks))
    return ImageSet(images, None if labels is None else torch.from_numpy(labels))


def centred(images: Tensor, classifier: Classifier) -> Tensor:
    """`images`, [N, C, H, W] uint8, centred on black squares of the classifier's size, as real pictures are read.

    Raises InvalidInput if they are larger or have other channels.
    """
    channels, *sides = images.shape[1:]
    if channels != classifier.channels or max(sides) > classifier.size:
        raise InvalidInput(
            "classifier",
            f"takes {classifier.channels} channels and at most {classifier.size} px, "
            f"the samples have {channels} and {sides[1]}×{sides[0]} px; give one trained on such pictures",
        )
    squares = framed(images.permute(0, 2, 3, 1).numpy(), classifier.size)
    return torch.from_numpy(squares).permute(0, 3, 1, 2).contiguous()


def random_indices(total: int, count: int, seed: int) -> Tensor:
    """`count` different numbers below `total`, drawn with `seed` in random order; all of them if there are fewer."""
    return torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:count]


def share(right: Tensor) -> float:
    """The share of `right`, [N] bool, that is true; 0 if it is empty."""
    return float(right.double().mean()) if len(right) else 0.0
