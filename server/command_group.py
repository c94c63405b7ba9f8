"""CommandGroup: a click group that prints our errors as one sentence instead of a traceback.

`ganforge` and `python -m server.client` are such groups.
"""

from __future__ import annotations

import io
import sys
from typing import Any

import click

from runtime.errors import GanforgeError

# The exit code of a command ended by Ctrl-C, as shells report it.
INTERRUPTED = 130


class CommandGroup(click.Group):
    """Prints GanforgeError and OSError as one sentence and exits with 1; Ctrl-C exits with 130."""

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
