"""A click group whose commands end in a sentence instead of a traceback. `ganforge` and `python -m server.client` use it."""

from __future__ import annotations

import io
import sys
from typing import Any

import click

from runtime.errors import GanforgeError

# What a shell reports for a command that Ctrl-C ended.
INTERRUPTED = 130


class CommandGroup(click.Group):
    """Errors of ours and of the file system are one sentence and exit code 1; Ctrl-C is exit code 130."""

    def invoke(self, context: click.Context) -> Any:
        if isinstance(sys.stdout, io.TextIOWrapper):
            # As stderr does: a file's name need not be text, and a terminal may lack the arrows.
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            return super().invoke(context)
        except (GanforgeError, OSError) as error:
            raise click.ClickException(str(error)) from error
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            context.exit(INTERRUPTED)
