"""The commands `models`, `health` and `reload`: what a server serves, whether it is ready, and that it look for new models.

`ganforge` and `python -m server.client` offer them.
"""

from __future__ import annotations

import sys

import click
from rich.console import Console
from rich.table import Table

from runtime.errors import GanforgeError
from server.client.messages import task_name
from server.client.options import Connection, connected

HEALTH_TIMEOUT_S = 5.0
# fmt: off
COLUMNS = (
    "model", "task", "scale", "sample", "latent", "largest", "classes", "precision", "backend", "version", "state",
)
# fmt: on


@click.command()
@connected
def models(connection: Connection) -> None:
    """List the models of the server. * marks the model for requests of a task that name none."""
    with connection.client() as client:
        infos = client.models()
    table = Table(*COLUMNS)
    for info in infos:
        table.add_row(
            info.name + " *" * info.is_default,
            task_name(info.task),
            "" if info.width else f"×{info.scale}",
            f"{info.width}×{info.height}" if info.width else "",
            str(info.latent_size or ""),
            f"{info.max_whole_px:,} px" if info.max_whole_px else "",
            ", ".join(info.class_names),
            info.precision,
            info.backend,
            info.version,
            info.state,
        )
    Console(width=None if sys.stdout.isatty() else 200).print(table)


@click.command()
@click.argument("names", nargs=-1)
@connected
def reload(connection: Connection, names: tuple[str, ...]) -> None:
    """Make the server's models follow its folder of bundles: all of them, or only NAMES.

    Waits until the new models serve. Exits with 1 if a bundle was refused. The server lets callers on its own machine
    do this, or those with a token that has admin = true.
    """
    with connection.client() as client:
        done = client.reload_models(names)
    for kind in ("added", "replaced", "removed", "unchanged"):
        for change in getattr(done, kind):
            click.echo(f"{kind} {change.name} ({change.version})")
    for change in done.refused:
        click.echo(f"refused {change.name}: {change.reason}", err=True)
    if done.refused:
        sys.exit(1)


@click.command()
@connected
def health(connection: Connection) -> None:
    """Tell whether the server is ready: exit with 0 if all models are warm, else with 1."""
    with connection.client(timeout_s=HEALTH_TIMEOUT_S) as client:
        try:
            client.check_serving()
        except GanforgeError as error:
            raise click.ClickException(f"{connection.address} is not serving: {error}") from error
    click.echo(f"{connection.address} is serving")
