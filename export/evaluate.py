"""`python -m export.evaluate SUBJECT …`: how good is a checkpoint, a bundle, a server's model, or bicubic?

A network that takes pictures is measured against originals (--hr), a generator of samples against real pictures (--data,
--classifier). The figures are printed as tables and, with --json, written to a file.
This is the only file of export/ that imports the server's client: a running server can be measured too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import click
import numpy as np
import torch

from export.checkpoints import checkpoint
from export.data import Split, read_labelled
from export.evaluation import classifiers, devices, inception, report, restoration
from export.evaluation.inception import InceptionFigures
from export.evaluation.sampling import Comparison, Figures, ImageSet
from export.evaluation.subjects import (
    BicubicSubject,
    CheckpointSubject,
    Subject,
    open_bundle,
    open_checkpoint,
)
from export.families.settings import parse_settings
from export.networks import features as feature_nets
from runtime import pixels, tasks
from runtime.errors import GanforgeError, InvalidInput
from runtime.pictures.reading import open_picture
from runtime.tasks.task import Source
from runtime.tensors import Array, TaskName
from server.client import Client
from server.client.connection import task_name

BICUBIC = "bicubic"
MAX_PIXELS = 1 << 28


@dataclass(frozen=True)
class Parameters:
    """The command's options that say how to measure; each is explained at its option below."""

    hr: Path | None
    lr: Path | None
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


class ServerSubject(Subject):
    """A model of a running server, measured through the client: what callers get.

    model: its name; "" for the only one. A server says how many classes a model has by their names alone.
    """

    def __init__(self, client: Client, model: str) -> None:
        self.client = client
        served = client.models()
        matching = [info for info in served if model in ("", info.name)]
        if len(matching) != 1:
            names = ", ".join(info.name for info in served)
            raise InvalidInput("model", f"got {model or 'none'!r}, expected one of those served: {names}")
        (info,) = matching
        super().__init__(
            "server",
            info.name,
            tasks.get(cast(TaskName, task_name(info.task))),
            scale=info.scale or 1,
            classes=len(info.class_names),
            class_names=tuple(info.class_names),
        )

    def convert(self, image: Array) -> Array:
        if self.task.source != "picture":
            return super().convert(image)
        # The client has one method a task, of the task's name.
        call = getattr(self.client, self.task.name)
        answer = call(pixels.encode(image, "png"), model=self.name, format="png")
        return pixels.decode(answer.image, max_pixels=MAX_PIXELS)

    def samples(self, count: int, labels: Array | None, seed: int) -> Array:
        if self.task.source != "latents":
            return super().samples(count, labels, seed)
        classes = [] if labels is None else [int(label) for label in labels]
        files = self.client.generate(count, model=self.name, seed=seed, labels=classes, format="png").images
        channels = open_picture(files[0], max_pixels=MAX_PIXELS).header.pixel_format.colours
        images = np.stack([pixels.decode(file, max_pixels=MAX_PIXELS) for file in files])
        return images.transpose(0, 3, 1, 2)[:, : 1 if channels == 1 else 3]

    def close(self) -> None:
        self.client.close()


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.argument("subject", metavar="SUBJECT")
@click.option("--model", metavar="NAME", help="Of a .pth file: its family. Of a server: which of its models.")
@click.option(
    "--set",
    "settings",
    metavar="KEY=VALUE",
    multiple=True,
    help="What a checkpoint leaves open, e.g. scale=3.",
)
@click.option("--scale", type=click.IntRange(min=1), help="Of bicubic: output pixels per input pixel.")
@click.option("--hr", type=click.Path(path_type=Path), help="Folder of the originals to come near to.")
@click.option(
    "--lr",
    type=click.Path(path_type=Path),
    help="Folder of the network's inputs.  [default for upscalers: --hr reduced as MATLAB does]",
)
@click.option(
    "--vgg19", type=click.Path(path_type=Path), help="VGG19's weights, for a perceptual distance as well."
)
@click.option(
    "--features",
    metavar="NAME",
    help=f"Features for the perceptual distance.  [default: {feature_nets.DEFAULT}]",
)
@click.option("--data", type=click.Path(path_type=Path), help="Real pictures, labelled: an .npz, a folder.")
@click.option("--floor-data", type=click.Path(path_type=Path), help="The test set, where it is another file.")
@click.option(
    "--classifier",
    type=click.Path(path_type=Path),
    help="Network in whose features to compare: a .safetensors of python -m export.evaluation.classifier, "
    "or the public ResNet-56 for CIFAR-10.",
)
@click.option(
    "--count", type=click.IntRange(min=2), default=10_000, show_default=True, help="Samples to draw."
)
@click.option("--seed", type=click.IntRange(0, 2**40), default=0, show_default=True, help="Of the samples.")
@click.option("--untrained", is_flag=True, help="Measure the checkpoint's generator before training as well.")
@click.option("--inception", is_flag=True, help="FID and Inception Score as papers state them.")
@click.option(
    "--device", default="cpu", show_default=True, help="Where torch's networks run: cpu, cuda or cuda:N."
)
@click.option("--threads", type=click.IntRange(min=1), help="Of torch.  [default: one a core]")
@click.option("--json", "target", type=click.Path(path_type=Path), help="File to write all figures to.")
def main(
    subject: str,
    model: str | None,
    settings: tuple[str, ...],
    scale: int | None,
    device: str,
    threads: int | None,
    target: Path | None,
    **options: Any,
) -> None:
    """Measure SUBJECT: a checkpoint's file or shipped:NAME, a bundle's folder, a server's HOST:PORT, or the word bicubic."""
    if threads:
        torch.set_num_threads(threads)
    try:
        parameters = Parameters(device=devices.device(device), **options)
        opened = open_subject(
            subject, model=model, overrides=parse_settings(settings), scale=scale, device=parameters.device
        )
        with closing(opened):
            for note in opened.notes:
                click.echo(f"{subject}: {note}")
            figures = {"subject": subject, "kind": opened.kind, "model": opened.name}
            figures |= MEASURES[opened.task.source](opened, parameters)
        if target:
            report.write(target, figures)
    except GanforgeError as error:
        raise click.ClickException(str(error)) from error


def open_subject(
    text: str, *, model: str | None, overrides: Mapping[str, str], scale: int | None, device: torch.device
) -> Subject:
    """What `text` names. overrides: of a checkpoint's configuration. Raises InvalidInput where `text` names nothing."""
    path = checkpoint.locate(text) if text.startswith(checkpoint.COMES_WITH) else Path(text)
    if overrides and not path.is_file():
        raise InvalidInput("set", f"is for a checkpoint's file, and {text} is none")
    if text == BICUBIC:
        if scale is None:
            raise InvalidInput("scale", "is missing; bicubic needs --scale N")
        return BicubicSubject(scale)
    if path.is_dir():
        return open_bundle(path)
    if path.is_file():
        return open_checkpoint(path, model, overrides, device)
    if re.fullmatch(r"[^/\s]+:\d+", text):
        client = Client(text)
        try:
            return ServerSubject(client, model or "")
        except GanforgeError:
            client.close()
            raise
    expected = f"a checkpoint's file, {checkpoint.COMES_WITH}NAME, a bundle's folder, HOST:PORT or {BICUBIC}"
    raise InvalidInput("subject", f"got {text!r}, expected {expected}")


def measure_restoration(subject: Subject, parameters: Parameters) -> dict[str, Any]:
    """Run the network over pictures and show how near it comes to the originals; the figures for the report."""
    if parameters.hr is None:
        raise InvalidInput("hr", f"is missing; {subject.name} is compared with originals: give --hr FOLDER")
    pictures = restoration.pairs(parameters.hr, parameters.lr, subject)
    features, distance = None, None
    if parameters.features or parameters.vgg19:
        features = parameters.features or feature_nets.DEFAULT
        network = feature_nets.load(features, parameters.vgg19)
        distance = restoration.perceptual_distance(network, parameters.device)
    qualities = restoration.measure(subject, pictures, distance)
    scale = f" ×{subject.scale}" if subject.scale > 1 else ""
    report.show(report.qualities_table(qualities, f"{subject.name}{scale} on {parameters.hr}"))
    return {
        "scale": subject.scale,
        "hr": str(parameters.hr),
        "lr": str(parameters.lr) if parameters.lr else None,
        "border_px": subject.scale,
        "features": features,
        "mean": asdict(restoration.mean(qualities)),
        "pictures": {name: asdict(quality) for name, quality in qualities.items()},
    }


def measure_sampling(subject: Subject, parameters: Parameters) -> dict[str, Any]:
    """Draw samples and show how near they are to real pictures; the figures for the report."""
    if parameters.data is None:
        raise InvalidInput(
            "data", f"is missing; {subject.name} draws samples: give --data, the real pictures they resemble"
        )
    if parameters.classifier is None:
        raise InvalidInput(
            "classifier",
            f"is missing; {subject.name} draws samples, which are compared in a classifier's features: "
            f"{classifiers.ACCEPTED}",
        )
    if parameters.untrained and not isinstance(subject, CheckpointSubject):
        raise InvalidInput("untrained", f"a {subject.kind} holds no configuration; give a checkpoint")
    if parameters.inception:  # so that what is missing is said before the long part
        inception.library()
        inception.check_device(parameters.device)
    classifier = classifiers.load(parameters.classifier).to(parameters.device)
    count, seed = parameters.count, parameters.seed
    train = read_real(parameters.data, "train", classifier)
    test = read_real(parameters.floor_data or parameters.data, "test", classifier)
    if torch.equal(train.images, test.images):
        raise InvalidInput(
            "floor-data", f"{parameters.data} has no test pictures of its own; give a file of them"
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
    title = f"{subject.name} against {reference} real pictures of {parameters.data}"
    report.show(
        report.figures_table(rows, standard, title), *report.class_tables(rows, classifier.class_names)
    )
    if rows["real test"].count < count:
        click.echo(
            f"There are {len(test.images)} test pictures for {count} samples: distances of smaller sets come out larger, "
            f"so compare with the floor at --count {len(test.images)}."
        )
    return {
        "data": str(parameters.data),
        "floor_data": str(parameters.floor_data or parameters.data),
        "classifier": {"file": parameters.classifier.name, "network": classifier.name},
        "class_names": list(classifier.class_names),
        "count": count,
        "reference_count": reference,
        "seed": seed,
        "sets": {name: asdict(figures) for name, figures in rows.items()},
        "inception": {name: asdict(figures) for name, figures in standard.items()},
    }


# How a model is measured, by what its task makes pictures of.
MEASURES: Mapping[Source, Callable[[Subject, Parameters], dict[str, Any]]] = {
    "picture": measure_restoration,
    "latents": measure_sampling,
}


def read_real(path: Path, split: Split, classifier: classifiers.Classifier) -> ImageSet:
    """Real pictures of the classifier's size and channels."""
    pictures = read_labelled(path, classifier.size, classifier.channels, split=split)
    return ImageSet(pictures.images, pictures.labels)


if __name__ == "__main__":
    main()
