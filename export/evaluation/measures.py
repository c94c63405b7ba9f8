"""Measures a model in the way that fits its task: MEASURES has one function for each source (pictures, latents).

`python -m export.evaluate` calls it with its options as Parameters. It prints tables and returns the figures for the JSON
report.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import torch

from export.data import Split, read_labelled
from export.evaluation import classifiers, inception, report, restoration
from export.evaluation.classifiers import Classifier
from export.evaluation.inception import InceptionFigures
from export.evaluation.sampling import Comparison, Figures, ImageSet
from export.evaluation.subjects import CheckpointSubject, Subject
from export.networks import features as feature_nets
from runtime.errors import InvalidInput
from runtime.tasks.task import Source


@dataclass(frozen=True)
class Parameters:
    """The options of `python -m export.evaluate` that say how to measure; its --help explains each."""

    hr: Path | None
    lr: Path | None
    jpeg: int | None
    vgg19: Path | None
    features: str | None
    data: Path | None
    floor_data: Path | None
    classifier: Path | None
    count: int
    seed: int
    untrained: bool
    inception: bool
    device: torch.device


def measure_restoration(subject: Subject, parameters: Parameters) -> dict[str, Any]:
    """Run the network over pictures, compare the answers with the originals, and print a table. Returns the figures."""
    if parameters.hr is None:
        raise InvalidInput("hr", f"is missing; {subject.name} is compared with originals: give --hr FOLDER")
    pictures = restoration.pairs(parameters.hr, parameters.lr, subject, parameters.jpeg)
    features, distance = None, None
    if parameters.features or parameters.vgg19:
        features = parameters.features or feature_nets.DEFAULT
        network = feature_nets.load(features, parameters.vgg19)
        distance = restoration.perceptual_distance(network, parameters.device)
    qualities = restoration.measure(subject, pictures, distance)
    scale = f" ×{subject.scale}" if subject.scale > 1 else ""
    saved = f", inputs saved as JPEG of quality {parameters.jpeg}" if parameters.jpeg else ""
    report.show(report.qualities_table(qualities, f"{subject.name}{scale} on {parameters.hr}{saved}"))
    return {
        "scale": subject.scale,
        "hr": str(parameters.hr),
        "lr": str(parameters.lr) if parameters.lr else None,
        "jpeg": parameters.jpeg,
        "border_px": subject.scale,
        "features": features,
        "mean": asdict(restoration.mean(qualities)),
        "pictures": {name: asdict(quality) for name, quality in qualities.items()},
    }


def measure_sampling(subject: Subject, parameters: Parameters) -> dict[str, Any]:
    """Draw samples, compare them with real pictures, and print tables. Returns the figures."""
    data, classifier_file = sampling_inputs(subject, parameters)
    classifier = classifiers.load(classifier_file).to(parameters.device)
    count, seed = parameters.count, parameters.seed
    train = read_real(data, "train", classifier)
    test = read_real(parameters.floor_data or data, "test", classifier)
    if torch.equal(train.images, test.images):
        raise InvalidInput(
            "floor-data", f"{data} has no test pictures; give a file with some by --floor-data"
        )
    comparison = Comparison(classifier, train, test, count=count, seed=seed)
    rows: dict[str, Figures] = {}
    rows[subject.name], samples = comparison.measure(subject)
    if isinstance(subject, CheckpointSubject) and parameters.untrained:
        rows["untrained"], _ = comparison.measure(subject.untrained())
    rows["real test"] = comparison.floor()
    standard: dict[str, InceptionFigures] = {}
    if parameters.inception:
        real, device = train.subset(count, seed).images, parameters.device
        standard[subject.name] = inception.measure(samples, real, device)
        standard["real test"] = inception.measure(test.subset(count, seed).images, real, device)
    reference = min(count, len(train.images))
    title = f"{subject.name} against {reference} real pictures of {data}"
    report.show(
        report.figures_table(rows, standard, title), *report.class_tables(rows, classifier.class_names)
    )
    if rows["real test"].count < count:
        click.echo(
            f"There are {len(test.images)} test pictures for {count} samples: distances of smaller sets come out larger, "
            f"so compare with the floor at --count {len(test.images)}."
        )
    return {
        "data": str(data),
        "floor_data": str(parameters.floor_data or data),
        "classifier": {"file": classifier_file.name, "network": classifier.name},
        "class_names": list(classifier.class_names),
        "count": count,
        "reference_count": reference,
        "seed": seed,
        "sets": {name: asdict(figures) for name, figures in rows.items()},
        "inception": {name: asdict(figures) for name, figures in standard.items()},
    }


# What a task's outputs are made from → how to measure a model of that task.
MEASURES: Mapping[Source, Callable[[Subject, Parameters], dict[str, Any]]] = {
    "picture": measure_restoration,
    "latents": measure_sampling,
}


def sampling_inputs(subject: Subject, parameters: Parameters) -> tuple[Path, Path]:
    """The paths of the real pictures and of the classifier. Raises InvalidInput if an option is missing or cannot work."""
    if parameters.data is None:
        raise InvalidInput(
            "data",
            f"is missing; {subject.name} draws samples: give --data, real pictures to compare them with",
        )
    if parameters.classifier is None:
        raise InvalidInput(
            "classifier",
            f"is missing; {subject.name} draws samples, which are compared in a classifier's features: "
            f"{classifiers.ACCEPTED}",
        )
    if parameters.untrained and not isinstance(subject, CheckpointSubject):
        raise InvalidInput(
            "untrained", f"needs a checkpoint, whose configuration is built untrained; got a {subject.kind}"
        )
    if parameters.inception:
        inception.library()
        inception.check_device(parameters.device)
    return parameters.data, parameters.classifier


def read_real(path: Path, split: Split, classifier: Classifier) -> ImageSet:
    """The pictures at `path`, with the classifier's size and channels."""
    pictures = read_labelled(path, classifier.size, classifier.channels, split=split)
    return ImageSet(pictures.images, pictures.labels)
