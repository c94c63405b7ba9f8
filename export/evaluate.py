"""`python -m export.evaluate SUBJECT …`: measures the quality of a checkpoint, a bundle, a server's model or bicubic.

A network that takes pictures is compared with originals (--hr), a generator of samples with real pictures (--data,
--classifier). The figures are printed as tables and, with --json, written to a file.
This is the only file of export/ that imports the server's client, since it can also measure a running server.
`ganforge evaluate` runs the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import click
import numpy as np
import torch

from export.checkpoints import checkpoint
from export.evaluation import devices, report
from export.evaluation.measures import MEASURES, Parameters
from export.evaluation.subjects import (
    BicubicSubject,
    Subject,
    open_bundle,
    open_checkpoint,
)
from export.families.settings import parse_settings
from export.networks import features as feature_nets
from runtime import pixels, tasks
from runtime.errors import GanforgeError, InvalidInput
from runtime.pictures.reading import open_picture
from runtime.tensors import Array, TaskName
from server.client import Client
from server.client.messages import task_name
from server.client.security import of_environment

BICUBIC = "bicubic"
MAX_PIXELS = 1 << 28


class ServerSubject(Subject):
    """A model of a running server, measured through the client.

    model: its name; "" if the server has only one. Its number of classes is that of the class names the server lists.
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
@click.option("--model", metavar="NAME", help="For a .pth file: its family. For a server: which model.")
@click.option(
    "--set",
    "settings",
    metavar="KEY=VALUE",
    multiple=True,
    help="A setting that a checkpoint leaves open, e.g. scale=3; repeatable.",
)
@click.option("--scale", type=click.IntRange(min=1), help="For bicubic: output pixels per input pixel.")
@click.option(
    "--hr", type=click.Path(path_type=Path), help="Folder of the originals to compare answers with."
)
@click.option(
    "--lr",
    type=click.Path(path_type=Path),
    help="Folder of the network's inputs.  [default for upscalers: --hr reduced as MATLAB does]",
)
@click.option(
    "--jpeg",
    metavar="QUALITY",
    type=click.IntRange(1, 100),
    help="Save the network's inputs as JPEG of this quality (4:2:0) first.",
)
@click.option("--vgg19", type=click.Path(path_type=Path), help="VGG19's weights; adds a perceptual distance.")
@click.option(
    "--features",
    metavar="NAME",
    help=f"Features for the perceptual distance.  [default: {feature_nets.DEFAULT}]",
)
@click.option(
    "--data", type=click.Path(path_type=Path), help="Real pictures with labels: .npz, IDX, CIFAR or folder."
)
@click.option("--floor-data", type=click.Path(path_type=Path), help="The test set, if it is another file.")
@click.option(
    "--classifier",
    type=click.Path(path_type=Path),
    help="Network in whose features to compare: a .safetensors of python -m export.evaluation.classifier, "
    "or the public ResNet-56 for CIFAR-10.",
)
@click.option(
    "--count", type=click.IntRange(min=2), default=10_000, show_default=True, help="Samples to draw."
)
@click.option(
    "--seed", type=click.IntRange(0, 2**40), default=0, show_default=True, help="Seed of the samples."
)
@click.option("--untrained", is_flag=True, help="Also measure the generator with untrained weights.")
@click.option("--inception", is_flag=True, help="Also compute FID and Inception Score as in papers.")
@click.option(
    "--device", default="cpu", show_default=True, help="Where torch's networks run: cpu, cuda or cuda:N."
)
@click.option("--threads", type=click.IntRange(min=1), help="Threads of torch.  [default: one a core]")
@click.option(
    "--json", "target", type=click.Path(path_type=Path), help="Also write all figures to this file."
)
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
    """Open what `text` names, to be measured. Raises InvalidInput if it names nothing.

    overrides: for settings that a checkpoint leaves open. scale: of bicubic. device: of a checkpoint's network.
    """
    path = checkpoint.locate(text) if text.startswith(checkpoint.COMES_WITH) else Path(text)
    if overrides and not path.is_file():
        raise InvalidInput("set", f"is only for a checkpoint's file, which {text} is not; leave out --set")
    if text == BICUBIC:
        if scale is None:
            raise InvalidInput("scale", "is missing; bicubic needs --scale N")
        return BicubicSubject(scale)
    if path.is_dir():
        return open_bundle(path)
    if path.is_file():
        return open_checkpoint(path, model, overrides, device)
    if re.fullmatch(r"[^/\s]+:\d+", text):
        client = Client(text, **of_environment())
        try:
            return ServerSubject(client, model or "")
        except GanforgeError:
            client.close()
            raise
    expected = f"a checkpoint's file, {checkpoint.COMES_WITH}NAME, a bundle's folder, HOST:PORT or {BICUBIC}"
    raise InvalidInput("subject", f"got {text!r}, expected {expected}")


if __name__ == "__main__":
    main()
