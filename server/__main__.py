"""The command `python -m server --bundles DIR` (`ganforge serve`): serves bundles over gRPC until Ctrl-C or SIGTERM."""

from __future__ import annotations

import asyncio
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

import server.quiet_grpc  # noqa: F401 - before grpc is imported
from runtime import bundle
from runtime.errors import GanforgeError
from server import configuration
from server.core.service import Service
from server.grpc_front.front import Server
from server.logs import configure, log
from server.machine.allocator import return_memory
from server.machine.open_files import most_connections, raise_limit
from server.models.engine_events import EngineEvents
from server.models.following import Following, ignore_hang_ups
from server.models.models import Models
from server.monitoring.monitors import Monitors
from server.option_groups import GroupedCommand
from server.options import GROUPS, Settings
from server.security.exposure import forbid_core_dumps


@click.command(
    cls=GroupedCommand,
    groups=GROUPS,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 110,
        "auto_envvar_prefix": configuration.ENVIRONMENT_PREFIX,
    },
)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    is_eager=True,
    expose_value=False,
    callback=configuration.load,
    help="TOML file with these settings; flags and environment variables override it.",
)
@click.option(
    "--print-config",
    is_flag=True,
    help="Print all settings, and where each comes from, as a file for --config, and exit.",
)
def main(print_config: bool, **values: Any) -> None:
    """Serve every bundle in a folder over gRPC.

    Prints the line `serving on HOST:PORT` to stdout when all models are warm. Logs go to stderr. Ctrl-C or SIGTERM drains
    the server: new calls are refused, running ones may finish. A second signal ends the server at once.

    Each flag can also be set by a variable such as GANFORGE_SERVE_MAX_PIXELS, or in a file (--config).
    """
    context = click.get_current_context()
    if print_config:
        click.echo(configuration.written(context))
        return
    configure()
    forbid_core_dumps()
    log.info("open files", limit=raise_limit(), most_connections=most_connections())
    return_memory()
    for sentence in configuration.unknown_variables(GROUPS):
        log.warning("environment variable ignored", reason=sentence)
    log.info("settings", **configuration.changed(context))
    try:
        asyncio.run(serve(Settings.of(values)))
    except GanforgeError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)


async def serve(settings: Settings) -> None:
    """Serve bundles until Ctrl-C or SIGTERM. Raises GanforgeError if the server cannot start."""
    stopping = _signals()
    ignore_hang_ups(asyncio.get_running_loop())
    choice, host, grace_s = settings.models, settings.listening.host, settings.listening.grace_s
    certificates = settings.security.certificates(host)
    trust = settings.security.trusted()
    log.info("security", tls=certificates is not None, **settings.security.summary())
    bundles = await asyncio.to_thread(bundle.discover, choice.bundles, trust, may_be_empty=choice.watch)
    service = Service(settings.limits)
    server = Server(service, access=settings.security.access(), reflection=settings.security.reflection)
    events = EngineEvents()
    monitors = Monitors(service, settings.monitoring, certificates)
    port = await server.start(host, settings.listening.port, certificates)
    log.info("warming up", models=[bundle.manifest.name for bundle in bundles], host=host, port=port)
    try:
        models = await asyncio.to_thread(
            Models.open,
            bundles,
            defaults=choice.defaults,
            backend=choice.backend,
            device=choice.device,
            min_precision=choice.min_precision,
            trust=trust,
            expect_more=choice.watch,
            lazy=choice.lazy,
            max_bytes=choice.max_models_bytes,
            on_warm=_log_warm,
            on_event=events,
            stopping=stopping.is_set,
        )
    except BaseException:
        await server.drain(0)
        service.close()
        raise
    following = Following(models, choice.bundles, service.health, watch=choice.watch)
    events.changed = following.report
    service.administration.reloader = following.reloader
    try:
        await following.until_first_model(stopping)
        if not stopping.is_set():
            service.ready(models)
            await server.ready()
            click.echo(f"serving on {host}:{port}")
            if monitors.url:
                click.echo(f"metrics on {monitors.url}")
            sys.stdout.flush()
        await _until_stopped(stopping, server)
        log.info("draining", grace_s=grace_s)
        await server.drain(grace_s)
    finally:
        following.close()
        await asyncio.to_thread(service.close)
        await asyncio.to_thread(monitors.close)
        for device_name, scheduler in models.schedulers.items():
            stats = scheduler.stats()
            log.info("stopped", device=device_name, mean_batch=round(stats.mean_batch, 2), **asdict(stats))


async def _until_stopped(stopping: asyncio.Event, server: Server) -> None:
    """Wait for the signal to stop. Raises GanforgeError if the server stops by itself, so that it can be started again."""
    stop, crash = asyncio.create_task(stopping.wait()), asyncio.create_task(server.crashed())
    await asyncio.wait((stop, crash), return_when=asyncio.FIRST_COMPLETED)
    if crash.done():
        log.error("crashed", reason=repr(crash.result()))
        raise GanforgeError(f"gRPC accepts no calls any more ({crash.result()!r}); start the server again")
    crash.cancel()


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
