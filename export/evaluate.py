"""How good is it: `python -m export.evaluate SUBJECT …` measures a checkpoint, a bundle, a server, or bicubic.

An upscaler is measured against originals (--hr), a generator of samples against real pictures (--data, --classifier).
This is the only file of export/ that knows the server: as one of its clients.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from export.checkpoints import checkpoint
from export.data import Split, read_labelled
from export.evaluation import classifiers, inception, report, upscaling
from export.evaluation.inception import InceptionFigures
from export.evaluation.sampling import Comparison, Figures, Pictures
from export.evaluation.subjects import (
    BicubicSubject,
    CheckpointSubject,
    Subject,
    open_bundle,
    open_checkpoint,
)
from export.networks import features as feature_nets
from runtime import pixels
from runtime.errors import GanforgeError, InvalidInput
from runtime.tensors import Array
from server.client import Client

BICUBIC = "bicubic"
MAX_PIXELS = 1 << 28


class ServerSubject(Subject):
    """A model of a running server, measured through its client: what callers really get.

    model: its name; "" for the only one. A server tells how many classes there are by their names alone.
    """

    def __init__(self, client: Client, model: str) -> None:
        self.client = client
        infos = [info for info in client.models() if model in ("", info.name)]
        if len(infos) != 1:
            served = ", ".join(info.name for info in client.models())
            raise InvalidInput("model", f"got {model or 'none'!r}, expected one of those served: {served}")
        (info,) = infos
        super().__init__(
            "server",
            info.name,
            "generate" if info.width else "upscale",  # only samples have a size of their own
            scale=info.scale,
            classes=len(info.class_names),
            class_names=tuple(info.class_names),
        )

    def upscale(self, image: Array) -> Array:
        if self.task != "upscale":
            return super().upscale(image)
        answer = self.client.upscale(pixels.encode(image, "png"), model=self.name, format="png")
        return pixels.decode(answer.image, max_pixels=MAX_PIXELS)

    def samples(self, count: int, labels: Array | None, seed: int) -> Array:
        if self.task != "generate":
            return super().samples(count, labels, seed)
        asked = () if labels is None else [int(label) for label in labels]
        files = self.client.generate(count, model=self.name, seed=seed, labels=asked, format="png").images
        bands = pixels.probe(files[0], max_pixels=MAX_PIXELS).form.colours
        decoded = np.stack([pixels.decode(file, max_pixels=MAX_PIXELS) for file in files])
        return decoded.transpose(0, 3, 1, 2)[:, : 1 if bands == 1 else 3]

    def close(self) -> None:
        self.client.close()


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.argument("subject", metavar="SUBJECT")
@click.option(
    "--model", metavar="NAME", help="Of a .pth file: its generator. Of a server: which of its models."
)
@click.option("--scale", type=click.IntRange(min=1), help="Of bicubic: output pixels per input pixel.")
@click.option("--hr", type=click.Path(path_type=Path), help="Folder of originals to upscale to.")
@click.option(
    "--lr",
    type=click.Path(path_type=Path),
    help="Folder of their reductions.  [default: made, as MATLAB does]",
)
@click.option("--vgg19", type=click.Path(path_type=Path), help="Weights for a perceptual distance as well.")
@click.option(
    "--features", metavar="NAME", help=f"In which features it is taken.  [default: {feature_nets.DEFAULT}]"
)
@click.option("--data", type=click.Path(path_type=Path), help="Real pictures, labelled: an .npz, a folder.")
@click.option("--floor-data", type=click.Path(path_type=Path), help="The test set, where it is another file.")
@click.option("--classifier", type=click.Path(path_type=Path), help="Network in whose features to compare.")
@click.option(
    "--count", type=click.IntRange(min=2), default=10_000, show_default=True, help="Samples to draw."
)
@click.option("--seed", type=click.IntRange(0, 2**40), default=0, show_default=True, help="Of the samples.")
@click.option("--untrained", is_flag=True, help="Measure the checkpoint's generator before training as well.")
@click.option("--inception", "standard", is_flag=True, help="FID and Inception Score as papers state them.")
@click.option("--threads", type=click.IntRange(min=1), help="Of torch.  [default: one a core]")
@click.option("--json", "target", type=click.Path(path_type=Path), help="File to write all figures to.")
def main(subject: str, threads: int | None, target: Path | None, **given: Any) -> None:
    """Measure SUBJECT: a checkpoint's file or shipped:NAME, a bundle's folder, a server's HOST:PORT, or the word bicubic."""
    if threads:
        torch.set_num_threads(threads)
    try:
        with closing(open_subject(subject, given["model"], given["scale"])) as opened:
            head = {"subject": subject, "kind": opened.kind, "model": opened.name}
            measure = measure_upscaler if opened.task == "upscale" else measure_sampler
            figures = head | measure(opened, given)
        if target:
            report.write(target, figures)
    except GanforgeError as error:
        raise click.ClickException(str(error)) from error


def open_subject(text: str, model: str | None, scale: int | None) -> Subject:
    """What `text` names. Raises InvalidInput where it names nothing."""
    path = checkpoint.locate(text) if text.startswith(checkpoint.COMES_WITH) else Path(text)
    if text == BICUBIC:
        if scale is None:
            raise InvalidInput("scale", "is missing; bicubic needs --scale N")
        return BicubicSubject(scale)
    if path.is_dir():
        return open_bundle(path)
    if path.is_file():
        return open_checkpoint(path, model)
    if re.fullmatch(r"[^/\s]+:\d+", text):
        client = Client(text)
        try:
            return ServerSubject(client, model or "")
        except GanforgeError:
            client.close()
            raise
    expected = f"a checkpoint's file, {checkpoint.COMES_WITH}NAME, a bundle's folder, HOST:PORT or {BICUBIC}"
    raise InvalidInput("subject", f"got {text!r}, expected {expected}")


def measure_upscaler(subject: Subject, given: Mapping[str, Any]) -> dict[str, Any]:
    """Upscale, show the table; the report."""
    if given["hr"] is None:
        raise InvalidInput("hr", f"is missing; {subject.name} upscales, and needs --hr FOLDER of originals")
    pairs = upscaling.originals(given["hr"], given["lr"], subject.scale)
    name, distance = None, None
    if given["features"] or given["vgg19"]:
        name = given["features"] or feature_nets.DEFAULT
        distance = upscaling.perceptual_distance(feature_nets.load(name, given["vgg19"]))
    qualities = upscaling.measure(subject, pairs, distance)
    report.show(report.qualities_table(qualities, f"{subject.name} ×{subject.scale} on {given['hr']}"))
    return {
        "scale": subject.scale,
        "hr": str(given["hr"]),
        "lr": str(given["lr"]) if given["lr"] else None,
        "border_px": subject.scale,
        "features": name,
        "mean": asdict(upscaling.mean(qualities)),
        "pictures": {name: asdict(one) for name, one in qualities.items()},
    }


def measure_sampler(subject: Subject, given: Mapping[str, Any]) -> dict[str, Any]:
    """Draw samples, compare them, show the tables; the report."""
    for option in ("data", "classifier"):
        if given[option] is None:
            raise InvalidInput(
                option, f"is missing; {subject.name} draws samples, which are compared through it"
            )
    if given["untrained"] and not isinstance(subject, CheckpointSubject):
        raise InvalidInput("untrained", f"a {subject.kind} holds no configuration; give a checkpoint")
    if given["standard"]:
        inception.library()  # so that its absence is told before the long part
    classifier = classifiers.load(given["classifier"])
    count, seed = given["count"], given["seed"]
    train = read_real(given["data"], "train", classifier)
    test = read_real(given["floor_data"] or given["data"], "test", classifier)
    if torch.equal(train.images, test.images):
        raise InvalidInput(
            "floor-data", f"{given['data']} has no test pictures of its own; give a file of them"
        )
    comparison = Comparison(classifier, train, test, count=count, seed=seed)
    rows: dict[str, Figures] = {}
    rows[subject.name], samples = comparison.drawn(subject)
    if isinstance(subject, CheckpointSubject) and given["untrained"]:
        rows["untrained"], _ = comparison.drawn(subject.untrained())
    rows["real test"] = comparison.real()
    standard: dict[str, InceptionFigures] = {}
    if given["standard"]:
        real = train.some(count, seed).images
        standard[subject.name] = inception.measure(samples, real)
        standard["real test"] = inception.measure(test.some(count, seed).images, real)
    title = f"{subject.name}: {count} pictures each, against as many of {given['data']}"
    report.show(
        report.figures_table(rows, standard, title), *report.class_tables(rows, classifier.class_names)
    )
    return {
        "data": str(given["data"]),
        "floor_data": str(given["floor_data"] or given["data"]),
        "classifier": {"file": given["classifier"].name, "network": classifier.name},
        "class_names": list(classifier.class_names),
        "count": count,
        "seed": seed,
        "sets": {name: asdict(one) for name, one in rows.items()},
        "inception": {name: asdict(one) for name, one in standard.items()},
    }


def read_real(path: Path, split: Split, classifier: classifiers.Classifier) -> Pictures:
    """Real pictures as the classifier takes them."""
    found = read_labelled(path, classifier.size, classifier.channels, split=split)
    return Pictures(found.images, found.labels)


if __name__ == "__main__":
    main()
