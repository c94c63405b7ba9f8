"""Command-line options shared by the client's commands (image_commands.py, sample_command.py, server_commands.py)."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import click

from server import formats, priorities
from server.client.connection import DEFAULT_ADDRESS, Client
from server.client.security import FILE_VARIABLES, NAME_VARIABLE, TLS_VARIABLE, TOKEN_VARIABLE

FORMAT = click.option("--format", type=click.Choice(list(formats.NUMBERS)), help="Encoding of the answer.")
MODEL = click.option("--model", default="", help="Name of the model.  [default: the server's]")
PRIORITY = click.option(
    "--priority",
    type=click.Choice(list(priorities.NUMBERS)),
    help="While others wait, a busy server gives interactive calls eight times as much as batch calls.  "
    "[default: batch for several pictures, else interactive]",
)
OVERWRITE = click.option("--overwrite", is_flag=True, help="Replace existing files (but never a source).")


@dataclass(frozen=True)
class Connection:
    """The options of every command that calls a server. security: those of Client with the same names."""

    address: str
    timeout_s: float | None
    security: Mapping[str, Any]

    def client(self, *, timeout_s: float | None = None) -> Client:
        """A Client of the server. timeout_s: unless --timeout-s is given. Raises InvalidInput if options do not fit."""
        return Client(self.address, timeout_s=self.timeout_s or timeout_s, **self.security)


_FILE = click.Path(path_type=Path)
# No option takes a token itself: everybody on the machine sees the arguments of running commands.
_OPTIONS = (
    click.option(
        "--address",
        default=DEFAULT_ADDRESS,
        show_default=True,
        show_envvar=True,
        envvar="GANFORGE_ADDRESS",
        metavar="HOST:PORT",
        help="Address of the server.",
    ),
    click.option(
        "--timeout-s",
        type=click.FloatRange(min=0, min_open=True),
        help="Timeout of each call, in seconds.  [default: none]",
    ),
    click.option(
        "--tls",
        is_flag=True,
        envvar=TLS_VARIABLE,
        show_envvar=True,
        help="Encrypt the connection; the server's certificate must be of a public CA, or of --ca.",
    ),
    click.option(
        "--ca",
        type=_FILE,
        envvar=FILE_VARIABLES["ca"],
        show_envvar=True,
        help="CA of the server's certificate, PEM; implies --tls.",
    ),
    click.option(
        "--cert",
        type=_FILE,
        envvar=FILE_VARIABLES["cert"],
        show_envvar=True,
        help="Certificate of the client, PEM.",
    ),
    click.option(
        "--key", type=_FILE, envvar=FILE_VARIABLES["key"], show_envvar=True, help="Its private key, PEM."
    ),
    click.option(
        "--server-name",
        envvar=NAME_VARIABLE,
        show_envvar=True,
        help="Name in the server's certificate.  [default: that of --address]",
    ),
    click.option(
        "--token-file",
        type=_FILE,
        help="File with the token to send.  [default: the environment variable GANFORGE_TOKEN, if set]",
    ),
)


def connected(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator that adds the options of every command and passes them as one parameter, `connection`."""

    @wraps(command)
    def run(address: str, timeout_s: float | None, tls: bool, token_file: Path | None, **others: Any) -> Any:
        files = {name: others.pop(name) for name in ("ca", "cert", "key", "server_name")}
        security = {"tls": tls or None, "token": _token(token_file), **files}
        return command(connection=Connection(address, timeout_s, security), **others)

    decorated: Callable[..., Any] = run
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated


def _token(file: Path | None) -> str | None:
    """The token of --token-file, else that of the environment."""
    if file is None:
        return os.environ.get(TOKEN_VARIABLE) or None
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise click.UsageError(f"--token-file: {file} cannot be read: {reason}") from error


def format_of_name(name: str) -> str | None:
    """The image format for a file name's suffix ("photo.jpg" → "jpeg"); None if there is none."""
    return formats.SUFFIXES.get(name[name.rfind(".") :].lower()) if "." in name else None
