"""Command-line options shared by the client's commands (image_commands.py, sample_command.py, server_commands.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from server import formats
from server.client.connection import DEFAULT_ADDRESS

FORMAT = click.option("--format", type=click.Choice(list(formats.NUMBERS)), help="Encoding of the answer.")
MODEL = click.option("--model", default="", help="Name of the model.  [default: the server's]")
OVERWRITE = click.option("--overwrite", is_flag=True, help="Replace existing files (but never a source).")


def connected(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator that adds the options of every command: --address and --timeout-s."""
    address = click.option(
        "--address",
        default=DEFAULT_ADDRESS,
        show_default=True,
        metavar="HOST:PORT",
        help="Address of the server.",
    )
    timeout = click.option(
        "--timeout-s",
        type=click.FloatRange(min=0, min_open=True),
        help="Timeout of each call, in seconds.  [default: none]",
    )
    return address(timeout(command))


def format_of_name(name: str) -> str | None:
    """The image format for a file name's suffix ("photo.jpg" → "jpeg"); None if there is none."""
    return formats.SUFFIXES.get(name[name.rfind(".") :].lower()) if "." in name else None
