"""The commands `models` and `health`, which ask a server what it serves and whether it is ready.

`ganforge` and `python -m server.client` offer them.
"""

from __future__ import annotations

import sys

import click
from rich.console import Console
from rich.table import Table

from runtime.errors import GanforgeError
from server.client.connection import task_name
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
@connected
def health(connection: Connection) -> None:
    """Tell whether the server is ready: exit with 0 if all models are warm, else with 1."""
    with connection.client(timeout_s=HEALTH_TIMEOUT_S) as client:
        try:
            client.check_serving()
        except GanforgeError as error:
            raise click.ClickException(f"{connection.address} is not serving: {error}") from error
    click.echo(f"{connection.address} is serving")
