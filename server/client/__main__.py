"""The command `python -m server.client`: the subcommands of `ganforge` that call a server."""

from __future__ import annotations

import click

from server.client.image_commands import translate, upscale
from server.client.sample_command import generate
from server.client.server_commands import health, models, reload
from server.command_group import CommandGroup


@click.group(
    cls=CommandGroup, context_settings={"max_content_width": 110, "help_option_names": ["-h", "--help"]}
)
def main() -> None:
    """Call a ganforge server."""


for command in (upscale, translate, generate, models, health, reload):
    main.add_command(command)


if __name__ == "__main__":
    main(prog_name="python -m server.client")
