"""The command `python -m server --bundles DIR` (`ganforge serve`): serves bundles over gRPC until Ctrl-C or SIGTERM."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import Any, get_args

import click

from runtime import backends, bundle, tasks
from runtime.errors import GanforgeError
from runtime.tensors import Precision, TaskName
from server.grpc_front import Server
from server.limits import Limits
from server.logs import configure, log
from server.models import Models
from server.service import Service

DEFAULTS = asdict(Limits())


def limit(flag: str, help: str) -> Any:
    """A click option for the field of Limits with the same name and default."""
    name = flag.removeprefix("--").replace("-", "_")
    kind = (
        click.FloatRange(min=0, min_open=True) if isinstance(DEFAULTS[name], float) else click.IntRange(min=1)
    )
    return click.option(flag, type=kind, default=DEFAULTS[name], show_default=True, help=help)


def _parse_defaults(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[TaskName, str]:
    """Parse the values of --default, TASK=MODEL each. Raises click.BadParameter."""
    by_name = {str(task): task for task in tasks.ALL}
    defaults: dict[TaskName, str] = {}
    for value in values:
        name, _, model = value.partition("=")
        if name not in by_name or not model:
            raise click.BadParameter(f"got {value!r}, expected TASK=MODEL, TASK one of {', '.join(by_name)}")
        if by_name[name] in defaults:
            raise click.BadParameter(
                f"got two models for {name}, {defaults[by_name[name]]} and {model}, expected one"
            )
        defaults[by_name[name]] = model
    return defaults


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--bundles",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder of bundles. All of them are served.",
)
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all interfaces."
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=50051,
    show_default=True,
    help="Port to listen on; 0 for a free one.",
)
@click.option(
    "--backend",
    type=click.Choice(["auto", *backends.NAMES]),
    default="auto",
    show_default=True,
    help="Engine library; auto takes, for each bundle, the first that can run it on this machine.",
)
@click.option(
    "--default",
    "defaults",
    metavar="TASK=MODEL",
    multiple=True,
    callback=_parse_defaults,
    help="Model for requests of that task that name no model, e.g. upscale=esrgan-x4. Repeat for other tasks. "
    "[default: the task's only model, else the first that `make demo` builds]",
)
@click.option("--device", default=None, help="Device: CPU, cuda:0, …  [default: the fastest available]")
@click.option(
    "--min-precision",
    type=click.Choice(get_args(Precision)),
    default=None,
    help="Lowest precision to compute in, e.g. bfloat16 to run float16 bundles faster on a CPU that supports it.  "
    "[default: each bundle's own]",
)
@limit("--max-pixels", "Most pixels of an input image.")
@limit("--max-output-pixels", "Most pixels of an answer; of all samples of a Generate request together.")
@limit("--max-count", "Most samples of a Generate request.")
@limit("--max-message-bytes", "Most bytes of a gRPC message, in either direction.")
@limit("--max-upload-bytes", "Most bytes of an image uploaded in pieces.")
@limit("--max-uploads-bytes", "Most bytes of all images being uploaded in pieces, together.")
@limit("--max-active-bytes", "Most memory, in bytes, of all running requests; a larger request runs alone.")
@limit("--max-queue-pixels", "Most pixels of all waiting requests; further requests are refused at once.")
@limit("--max-calls", "Most calls open at once.")
@limit("--idle-s", "Seconds without progress after which a stream is ended.")
@click.option(
    "--grace-s",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    help="Seconds that running calls get to finish after Ctrl-C or SIGTERM.",
)
def main(
    bundles: Path,
    host: str,
    port: int,
    backend: str,
    defaults: dict[TaskName, str],
    device: str | None,
    min_precision: Precision | None,
    grace_s: float,
    **limits: Any,
) -> None:
    """Serve every bundle in a folder over gRPC.

    Prints the line `serving on HOST:PORT` to stdout when all models are warm. Logs go to stderr. Ctrl-C or SIGTERM drains
    the server: new calls are refused, running ones may finish. A second signal ends the server at once.
    """
    assert limits.keys() == {field.name for field in fields(Limits)}
    configure()
    try:
        open_models = partial(
            Models.open, defaults=defaults, backend=backend, device=device, min_precision=min_precision
        )
        asyncio.run(serve(bundles, host, port, open_models, grace_s, Limits(**limits)))
    except GanforgeError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)


async def serve(
    folder: Path, host: str, port: int, open_models: Callable[..., Models], grace_s: float, limits: Limits
) -> None:
    """Serve the bundles of `folder` until Ctrl-C or SIGTERM. Raises GanforgeError if the server cannot start.

    port: 0 for a free one. open_models: `Models.open` with defaults, backend, device and precision filled in.
    grace_s: seconds that running calls get to finish.
    """
    stopping = _signals()
    bundles = await asyncio.to_thread(bundle.discover, folder)
    service = Service(limits)
    server = Server(service)
    port = await server.start(host, port)
    log.info("warming up", models=[bundle.manifest.name for bundle in bundles], host=host, port=port)
    try:
        models = await asyncio.to_thread(open_models, bundles, on_warm=_log_warm, stopping=stopping.is_set)
    except BaseException:
        await server.drain(0)
        service.close()
        raise
    try:
        service.ready(models)
        await server.ready()
        click.echo(f"serving on {host}:{port}")
        sys.stdout.flush()
        await stopping.wait()
        log.info("draining", grace_s=grace_s)
        await server.drain(grace_s)
    finally:
        await asyncio.to_thread(service.close)
        for device_name, scheduler in models.schedulers.items():
            stats = scheduler.stats()
            log.info("stopped", device=device_name, mean_batch=round(stats.mean_batch, 2), **asdict(stats))


def _log_warm(reason: str) -> None:
    log.info("warm", reason=reason)


def _signals() -> asyncio.Event:
    """An event that the first Ctrl-C or SIGTERM sets. A second signal ends the process as usual."""
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()

    def stop() -> None:
        stopping.set()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    return stopping


if __name__ == "__main__":
    main()
