"""Command-line options that several of the client's commands have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from server import formats
from server.client.connection import DEFAULT_ADDRESS

FORMAT = click.option("--format", type=click.Choice(list(formats.NUMBERS)), help="Encoding of the answer.")
MODEL = click.option("--model", default="", help="Name of the model.  [default: the server's]")
OVERWRITE = click.option("--overwrite", is_flag=True, help="Replace existing files; never a source.")


def connected(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that every command has."""
    address = click.option(
        "--address",
        default=DEFAULT_ADDRESS,
        show_default=True,
        metavar="HOST:PORT",
        help="Where the server is.",
    )
    timeout = click.option(
        "--timeout-s",
        type=click.FloatRange(min=0, min_open=True),
        help="Seconds of each call.  [default: for ever]",
    )
    return address(timeout(command))


def format_of_name(name: str) -> str | None:
    """The format that a file's name asks for by its suffix, or None."""
    return formats.SUFFIXES.get(name[name.rfind(".") :].lower()) if "." in name else None
