"""The commands `upscale` and `translate`, which send pictures or folders of pictures to a server and save the answers.

`ganforge` and `python -m server.client` offer them. Both call `run`; an ImageTask holds the differences.
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
from server.client.moving.clip_encoding import CODECS
from server.client.moving.kinds import ANIMATED, MOVING_SUFFIXES, Kind, kind_of
from server.client.moving_pictures import MovingOptions, MovingSender
from server.client.options import FORMAT, MODEL, OVERWRITE, PRIORITY, Connection, connected, format_of_name
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
    """The differences between the commands.

    number: the task in the proto. call: the method of Client. suffix: returns the suffix of results' names in a folder;
    called with the model, all models of this task on the server, and the command's options.
    """

    number: pb.Task
    call: Callable[..., ImageResult]
    suffix: Callable[[pb.ModelInfo, Sequence[pb.ModelInfo], Mapping[str, Any]], ResultSuffix]


def _scale_suffix(
    model: pb.ModelInfo, models: Sequence[pb.ModelInfo], options: Mapping[str, Any]
) -> ResultSuffix:
    """-x4, or -x1.5 with --outscale 1.5."""
    return ResultSuffix(f"-x{options['outscale'] or model.scale:g}", re.compile(r"-x\d+(\.\d+)?$"))


def _model_suffix(
    model: pb.ModelInfo, models: Sequence[pb.ModelInfo], options: Mapping[str, Any]
) -> ResultSuffix:
    """The model's name, such as -summer2winter."""
    names = "|".join(re.escape(served.name) for served in models)
    return ResultSuffix(f"-{model.name}", re.compile(f"-({names})$"))


UPSCALE = ImageTask(pb.TASK_UPSCALE, Client.upscale, _scale_suffix)
TRANSLATE = ImageTask(pb.TASK_TRANSLATE, Client.translate, _model_suffix)


def image_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator that adds the arguments and options of both commands."""
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
                "--quality",
                type=click.IntRange(1, 100),
                help="Quality of JPEG and WebP.  [default: 92 for JPEG, 90 for WebP]",
            ),
            click.option(
                "--lossless", is_flag=True, help="Write WebP without loss. PNG and TIFF always are."
            ),
            click.option(
                "--compression",
                type=click.IntRange(0, 9),
                help="Compression effort of PNG and TIFF.  [default: 1]",
            ),
            click.option(
                "--recursive", is_flag=True, help="Include subfolders. OUT gets the same subfolders."
            ),
            click.option("--skip-existing", is_flag=True, help="Skip pictures whose result already exists."),
            OVERWRITE,
            PRIORITY,
            click.option(
                "--jobs",
                type=click.IntRange(1, 64),
                default=4,
                show_default=True,
                help="Pictures, or frames of a clip, to send at once.",
            ),
            click.option(
                "--codec",
                type=click.Choice(list(CODECS)),
                help="Codec of clips.  [default: h264, or h265 for more than 8 bits; .webm: vp9 or av1]",
            ),
            click.option(
                "--crf",
                type=click.IntRange(0, 63),
                help="Quality of clips, lower is better; each codec has its own scale.  "
                f"[default: {', '.join(f'{codec.crf} for {name}' for name, codec in CODECS.items())}]",
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
    """Upscale pictures, clips and animations.

    IN is a picture, a clip, a folder of them, or - for standard input. OUT is a file, a folder, or - for standard output.
    In a folder, photo.jpg becomes photo-x4.jpg. Clips (.mp4, .mkv, .webm and others) need the extra 'video'; their sound
    is copied. Sources are never overwritten, and existing files only with --overwrite.
    Results are written completely or not at all, so that --skip-existing can continue an interrupted run.
    """
    run(UPSCALE, **options)


@click.command()
@image_options
def translate(**options: Any) -> None:
    """Send pictures, clips and animations through an image-to-image model.

    IN is a picture, a clip, a folder of them, or - for standard input. OUT is a file, a folder, or - for standard output.
    In a folder, photo.jpg becomes photo-MODEL.jpg. Clips (.mp4, .mkv, .webm and others) need the extra 'video'; their
    sound is copied. Sources are never overwritten, and existing files only with
    --overwrite. Results are written completely or not at all, so that --skip-existing can continue an interrupted run.
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
    codec: str | None,
    crf: int | None,
    connection: Connection,
    **options: Any,
) -> None:
    """Send the pictures and save the answers. options: further keyword arguments of the client's method.

    Exits with 1 if a picture failed, with 130 after Ctrl-C.
    """
    if skip_existing and overwrite:
        raise click.UsageError("got both --skip-existing and --overwrite; give only one of them")
    options["format"] = _chosen_format(sources, out, options["format"])
    with connection.client() as client:

        def suffix() -> ResultSuffix:
            models = [model for model in client.models() if model.task == task.number]
            return task.suffix(client.model(task.number, options["model"]), models, options)

        listing = list_transfers(sources, out, recursive=recursive, format=options["format"], suffix=suffix)
        for note in listing.notes:
            click.echo(note, err=True)
        existing = Existing.SKIP if skip_existing else Existing.OVERWRITE if overwrite else Existing.REFUSE
        transfers = remaining(listing, existing)
        _check_writable(transfers)
        moves = any(transfer.kind is not Kind.PICTURE for transfer in transfers)
        options["priority"] = options["priority"] or ("batch" if moves or len(transfers) > 1 else None)
        send_moving = None
        if moves:
            made_of = _made_of(client.model(task.number, options["model"]), options)
            send_moving = MovingSender(
                partial(task.call, client, **{**options, "compression": options["compression"] or 0}),
                MovingOptions(codec, crf, options["quality"], options["lossless"], jobs, made_of),
                abort=client.close,
                overwrite=overwrite,
                originals=listing.originals,
            ).send
        outcome = send_all(
            transfers,
            partial(task.call, client, **options),
            abort=client.close,
            overwrite=overwrite,
            originals=listing.originals,
            total=len(listing.transfers),
            jobs=jobs,
            send_moving=send_moving,
        )
    _report(outcome, total=len(listing.transfers), skipped=len(listing.transfers) - len(transfers))


def _made_of(model: pb.ModelInfo, options: Mapping[str, Any]) -> dict[str, object]:
    """What the frames of a clip depend on beside its file: the model, and the options that change pixels."""
    same = {name: options.get(name) for name in ("outscale", "quality", "lossless")}
    return {"task": model.task, "model": model.name, "version": model.version, **same}


def _chosen_format(sources: Sequence[Path], out: str, format: str | None) -> str | None:
    """The format of the answers, from --format or OUT's suffix; None for each picture's own."""
    if out == str(STREAM):
        if kind_of(sources[0]) is not Kind.PICTURE:
            raise click.UsageError(f"OUT is -, and {sources[0]} has several frames; name a file")
        if format is None:
            raise click.UsageError("OUT is -, which has no suffix; give --format")
        if sys.stdout.isatty():
            raise click.UsageError("OUT is -, and standard output is a terminal; send it to a file or a pipe")
        return format
    if is_folder(sources, out):
        return format
    named = format_of_name(out)
    suffix = Path(out).suffix
    kind = kind_of(sources[0])
    if kind is not Kind.PICTURE:
        if suffix.lower() not in MOVING_SUFFIXES:
            raise click.UsageError(
                f"{sources[0]} has several frames, and OUT is {out}; expected one of {', '.join(MOVING_SUFFIXES)}"
            )
        if format and ANIMATED.get(suffix.lower(), "").lower() != format:
            raise click.UsageError(
                f"OUT ends with {suffix}, which is not --format {format}; give one of the two"
            )
        return format
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
    """Raises OSError if the first answer could not be written, before anything is sent."""
    targets = [transfer.target for transfer in transfers if transfer.target != STREAM]
    with suppress(BlockingIOError):  # another run is writing this answer; the others may be free
        for target in targets[:1]:
            with AnswerFile(target):
                pass


def _report(outcome: Outcome, *, total: int, skipped: int) -> None:
    """Print a summary to stderr, and exit with 1 or 130 if something failed."""
    if outcome.stopped is not None:
        click.echo(
            f"{outcome.stopped}: {skipped + outcome.written} of {total} are done; "
            "the same command with --skip-existing continues with the rest",
            err=True,
        )
        sys.exit(INTERRUPTED if outcome.interrupted else 1)
    if total > 1 or skipped:
        counts = {"done": outcome.written, "already there": skipped, "failed": outcome.failed}
        click.echo(", ".join(f"{count} {name}" for name, count in counts.items() if count), err=True)
    if outcome.failed:
        sys.exit(1)
