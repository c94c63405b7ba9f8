"""The commands `upscale` and `translate`: pictures and folders in, files out.

All that differs between them is data in an ImageTask; what they share is `run`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click

from protos import ganforge_pb2 as pb
from server import formats
from server.client.answer_file import AnswerFile
from server.client.connection import Client
from server.client.options import FORMAT, MODEL, OVERWRITE, connected, format_of_name
from server.client.results import ImageResult
from server.client.sending import Outcome, send_all
from server.client.transfers import (
    STREAM,
    Existing,
    ResultSuffix,
    Transfer,
    is_folder,
    list_transfers,
    remaining,
)
from server.command_group import INTERRUPTED


@dataclass(frozen=True)
class ImageTask:
    """What the command of one task adds to `run`.

    number: the task in the proto. call: the client's method. suffix: what marks the answers in a folder, for the model
    that runs, all the server's models of this task, and the command's options.
    """

    number: pb.Task
    call: Callable[..., ImageResult]
    suffix: Callable[[pb.ModelInfo, Sequence[pb.ModelInfo], Mapping[str, Any]], ResultSuffix]


def _scale_suffix(
    model: pb.ModelInfo, models: Sequence[pb.ModelInfo], options: Mapping[str, Any]
) -> ResultSuffix:
    """-x4, or -x1.5 where the answer is 1.5 times as large."""
    return ResultSuffix(f"-x{options['outscale'] or model.scale:g}", re.compile(r"-x\d+(\.\d+)?$"))


def _model_suffix(
    model: pb.ModelInfo, models: Sequence[pb.ModelInfo], options: Mapping[str, Any]
) -> ResultSuffix:
    """-summer2winter: the name of the model."""
    names = "|".join(re.escape(each.name) for each in models)
    return ResultSuffix(f"-{model.name}", re.compile(f"-({names})$"))


UPSCALE = ImageTask(pb.TASK_UPSCALE, Client.upscale, _scale_suffix)
TRANSLATE = ImageTask(pb.TASK_TRANSLATE, Client.translate, _model_suffix)


def image_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The arguments and options that both commands have."""
    for option in reversed(
        (
            click.argument(
                "sources",
                metavar="IN…",
                nargs=-1,
                required=True,
                type=click.Path(exists=True, allow_dash=True, path_type=Path),
            ),
            click.argument("out", metavar="OUT"),
            MODEL,
            FORMAT,
            click.option(
                "--quality", type=click.IntRange(1, 100), help="Of JPEG and WebP.  [default: 92 and 90]"
            ),
            click.option("--lossless", is_flag=True, help="WebP without loss; PNG and TIFF always are."),
            click.option(
                "--compression", type=click.IntRange(0, 9), help="Effort of PNG and TIFF.  [default: 1]"
            ),
            click.option(
                "--recursive", is_flag=True, help="Also the folders inside a folder; OUT mirrors them."
            ),
            click.option(
                "--skip-existing", is_flag=True, help="Leave out pictures whose answer's file exists."
            ),
            OVERWRITE,
            click.option(
                "--jobs",
                type=click.IntRange(1, 64),
                default=4,
                show_default=True,
                help="Pictures to send at once.",
            ),
            connected,
        )
    ):
        command = option(command)
    return command


@click.command()
@click.option(
    "--outscale", type=float, help="Output pixels per input pixel along a side.  [default: the model's]"
)
@image_options
def upscale(**options: Any) -> None:
    """Upscale pictures.

    IN is a picture, a folder of pictures, or - for standard input. OUT is a file, a folder, or - for standard output.
    In a folder, photo.jpg becomes photo-x4.jpg. A source is never written over, an existing file only with
    --overwrite, and each answer appears whole or not at all, so that --skip-existing goes on after an interruption.
    """
    run(UPSCALE, **options)


@click.command()
@image_options
def translate(**options: Any) -> None:
    """Send pictures through an image-to-image model.

    IN is a picture, a folder of pictures, or - for standard input. OUT is a file, a folder, or - for standard output.
    In a folder, photo.jpg becomes photo-MODEL.jpg. A source is never written over, an existing file only with
    --overwrite, and each answer appears whole or not at all, so that --skip-existing goes on after an interruption.
    """
    run(TRANSLATE, **options)


def run(
    task: ImageTask,
    *,
    sources: tuple[Path, ...],
    out: str,
    recursive: bool,
    skip_existing: bool,
    overwrite: bool,
    jobs: int,
    address: str,
    timeout_s: float | None,
    **options: Any,
) -> None:
    """Send the pictures and write the answers. options: what the client's method takes beside the picture."""
    if skip_existing and overwrite:
        raise click.UsageError("give one of --skip-existing and --overwrite")
    options["format"] = _chosen_format(sources, out, options["format"])
    with Client(address, timeout_s=timeout_s) as client:

        def suffix() -> ResultSuffix:
            models = [model for model in client.models() if model.task == task.number]
            return task.suffix(client.model(task.number, options["model"]), models, options)

        listing = list_transfers(sources, out, recursive=recursive, format=options["format"], suffix=suffix)
        for note in listing.notes:
            click.echo(note, err=True)
        existing = Existing.SKIP if skip_existing else Existing.OVERWRITE if overwrite else Existing.REFUSE
        transfers = remaining(listing, existing)
        _check_writable(transfers)
        outcome = send_all(
            transfers,
            partial(task.call, client, **options),
            abort=client.close,
            overwrite=overwrite,
            originals=listing.originals,
            total=len(listing.transfers),
            jobs=jobs,
        )
    _report(outcome, asked=len(listing.transfers), skipped=len(listing.transfers) - len(transfers))


def _chosen_format(sources: Sequence[Path], out: str, format: str | None) -> str | None:
    """The format of the answers: --format, or what OUT ends with; None leaves it to each picture."""
    if out == str(STREAM):
        if format is None:
            raise click.UsageError("OUT is -, which has no suffix; give --format")
        if sys.stdout.isatty():
            raise click.UsageError("OUT is -, and standard output is a terminal; send it to a file or a pipe")
        return format
    if is_folder(sources, out):
        return format
    named = format_of_name(out)
    suffix = Path(out).suffix
    if format and named and named != format:
        raise click.UsageError(f"OUT ends with {suffix}, which is not --format {format}; give one of the two")
    if not format and not named:
        ending = f"ends with {suffix}" if suffix else "has no suffix"
        raise click.UsageError(
            f"OUT {ending}; expected one of {', '.join(formats.SUFFIXES)}, a folder (ending with /), "
            "or --format"
        )
    return format or named


def _check_writable(transfers: Sequence[Transfer]) -> None:
    """Raises OSError where the first answer could not be written: one sentence, before anything is sent."""
    targets = [transfer.target for transfer in transfers if transfer.target != STREAM]
    with suppress(BlockingIOError):  # another run is at this picture; the others may be free
        for target in targets[:1]:
            with AnswerFile(target):
                pass


def _report(outcome: Outcome, *, asked: int, skipped: int) -> None:
    """Says on stderr what came of many pictures, or of an interrupted one, and ends with the fitting exit code."""
    if outcome.stopped is not None:
        click.echo(
            f"{outcome.stopped}: {skipped + outcome.written} of {asked} are done; "
            "the same command with --skip-existing goes on with the rest",
            err=True,
        )
        sys.exit(INTERRUPTED if outcome.interrupted else 1)
    if asked > 1 or skipped:
        counts = {"done": outcome.written, "there already": skipped, "failed": outcome.failed}
        click.echo(", ".join(f"{count} {name}" for name, count in counts.items() if count), err=True)
    if outcome.failed:
        sys.exit(1)
