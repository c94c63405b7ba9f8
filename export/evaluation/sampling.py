"""Generators of samples against real pictures, in the features of a classifier.

The reference is as many real training pictures as there are samples. The floor, real test pictures against the same
reference, is what a perfect generator would get: no figure says much without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from export.data.sets import framed
from export.evaluation.classifiers import Classifier, Seen
from export.evaluation.distributions import frechet_distance, kernel_distance, nearest, spread
from export.evaluation.progress import followed
from export.evaluation.subjects import BLOCK, BLOCKS_A_SEED, Subject
from runtime.errors import InvalidInput

# The distance that this share of the pictures stays under: copies of training pictures would show here.
CLOSEST = 0.01


@dataclass(frozen=True)
class Pictures:
    """images: [N, C, H, W] uint8. labels: [N] int64, the class that each shows or was asked for; None: unknown."""

    images: Tensor
    labels: Tensor | None

    def some(self, count: int, seed: int) -> Pictures:
        """`count` of them, drawn by `seed`."""
        chosen = picked(len(self.images), count, seed)
        return Pictures(self.images[chosen], None if self.labels is None else self.labels[chosen])


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
    """Real pictures to measure sets of `count` pictures against. They are looked at once, when first needed.

    train: the pictures that the generator may have learned from; test: others. seed: of every random choice.
    Raises InvalidInput where there are fewer than `count` of either.
    """

    def __init__(
        self, classifier: Classifier, train: Pictures, test: Pictures, *, count: int, seed: int
    ) -> None:
        for pictures, which in ((train, "training"), (test, "test")):
            if len(pictures.images) < count:
                raise InvalidInput(
                    "count",
                    f"got {count}, but there are {len(pictures.images)} {which} pictures; sets must be equally large",
                )
        self.classifier, self.train, self.test = classifier, train, test
        self.count, self.seed = count, seed

    @cached_property
    def train_features(self) -> Tensor:
        """[N, D] of all training pictures."""
        return self.classifier.see(self.train.images, "looking at the training pictures").features

    @cached_property
    def reference(self) -> tuple[Tensor, Tensor | None]:
        """Features [count, D] and labels [count] of the training pictures that distributions are compared with."""
        chosen = picked(len(self.train.images), self.count, self.seed)
        labels = self.train.labels
        return self.train_features[chosen], None if labels is None else labels[chosen]

    def real(self) -> Figures:
        """The floor: as many of the test pictures."""
        return self.figures(self.test.some(self.count, self.seed), "looking at the test pictures")

    def drawn(self, subject: Subject) -> tuple[Figures, Tensor]:
        """`count` samples of `subject`, classes in turn where it has them; the figures and the samples."""
        if subject.classes not in (0, len(self.classifier.class_names)):
            raise InvalidInput(
                "classifier",
                f"knows {len(self.classifier.class_names)} classes, {subject.name} has {subject.classes}",
            )
        samples = draw(subject, self.count, self.seed)
        samples = Pictures(fitted(samples.images, self.classifier), samples.labels)
        return self.figures(samples, f"looking at the samples of {subject.name}"), samples.images

    def figures(self, pictures: Pictures, doing: str) -> Figures:
        """pictures: `count` of them, as large as the classifier takes them."""
        seen, (reference, _) = self.classifier.see(pictures.images, doing), self.reference
        kernel, deviation = kernel_distance(seen.features, reference, self.seed)
        distances = nearest(seen.features, self.train_features)
        classes = len(self.classifier.class_names)
        shares = torch.bincount(seen.classes, minlength=classes) / len(seen.classes)
        whole = Figures(
            count=len(pictures.images),
            frechet=frechet_distance(seen.features, reference),
            kernel=kernel,
            kernel_std=deviation,
            nearest=float(distances.median()),
            nearest_closest=float(distances.quantile(CLOSEST)),
            least_share=float(shares.min()),
            shares=tuple(shares.tolist()),
        )
        return whole if pictures.labels is None else self.by_class(whole, seen, pictures.labels)

    def by_class(self, whole: Figures, seen: Seen, labels: Tensor) -> Figures:
        """`whole` with what can be said where the label of each picture is known."""
        classes = range(len(self.classifier.class_names))
        right = seen.classes == labels
        agreement = tuple(share(right[labels == label]) for label in classes)
        known = vars(whole) | {"agreement": share(right), "agreement_by_class": agreement}
        reference, reference_labels = self.reference
        if reference_labels is not None:
            among_real = [spread(reference[reference_labels == label]) for label in classes]
            ratios = [
                spread(seen.features[labels == label]) / max(among_real[label], 1e-12) for label in classes
            ]
            known |= {"diversity": float(np.mean(ratios)), "diversity_by_class": tuple(ratios)}
        return Figures(**known)


def draw(subject: Subject, count: int, seed: int) -> Pictures:
    """`count` samples in blocks; labels go through the classes in turn, so that each is asked for equally often."""
    labels = np.arange(count) % subject.classes if subject.classes else None
    parts = []
    for block in followed(range(-(-count // BLOCK)), f"drawing {count} samples of {subject.name}"):
        first, last = block * BLOCK, min((block + 1) * BLOCK, count)
        asked = None if labels is None else labels[first:last]
        parts.append(subject.samples(last - first, asked, seed * BLOCKS_A_SEED + block))
    images = torch.from_numpy(np.concatenate(parts))
    return Pictures(images, None if labels is None else torch.from_numpy(labels))


def fitted(images: Tensor, classifier: Classifier) -> Tensor:
    """[N, C, H, W] uint8 in the middle of black, as real pictures are read. Raises InvalidInput where they don't fit."""
    channels, *sides = images.shape[1:]
    if channels != classifier.channels or max(sides) > classifier.size:
        raise InvalidInput(
            "classifier",
            f"takes {classifier.channels} channels and at most {classifier.size} px, "
            f"the samples have {channels} and {sides[1]}×{sides[0]} px",
        )
    framed_images = framed(images.permute(0, 2, 3, 1).numpy(), classifier.size)
    return torch.from_numpy(framed_images).permute(0, 3, 1, 2).contiguous()


def picked(total: int, count: int, seed: int) -> Tensor:
    """`count` of the numbers below `total`, drawn by `seed`: the same for the same three."""
    return torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:count]


def share(right: Tensor) -> float:
    """[N] bool → the share that is true; 0 of none."""
    return float(right.double().mean()) if len(right) else 0.0
