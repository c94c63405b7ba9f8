"""The command `ganforge`: all command lines of the project as subcommands.

The entry point in pyproject.toml calls `main`. A subcommand's module is imported only when that subcommand runs, so
`ganforge upscale` needs neither torch nor an engine. If a subcommand's extra is not installed, the error names it.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click

import server.quiet_grpc  # noqa: F401 - before a subcommand imports grpc
from server.command_group import CommandGroup


@dataclass(frozen=True)
class Subcommand:
    """command: "module:attribute" of a click command. extra: the extra that installs its packages. help: one line."""

    command: str
    extra: str
    help: str


SUBCOMMANDS: Mapping[str, Subcommand] = {
    "build": Subcommand("export.build.command:main", "export", "Build a bundle from a checkpoint."),
    "inspect": Subcommand("export.inspect.__main__:main", "export", "Show what a checkpoint file contains."),
    "convert": Subcommand("export.convert:main", "export", "Convert a checkpoint to another format."),
    "interpolate": Subcommand("export.interpolate:main", "export", "Mix the weights of two checkpoints."),
    "stylize": Subcommand("export.stylize:main", "export", "Paint a picture in the style of another."),
    "train": Subcommand("export.training.__main__:main", "export", "Train a generator."),
    "evaluate": Subcommand(
        "export.evaluate:main", "export", "Measure a checkpoint, a bundle or a running server."
    ),
    "serve": Subcommand("server.__main__:main", "serve", "Serve a folder of bundles over gRPC."),
    "doctor": Subcommand(
        "server.doctor.command:main", "client", "Check whether a server would work on this machine."
    ),
    "token": Subcommand(
        "server.security.token_command:main", "serve", "Make a token for a server's clients."
    ),
    "keygen": Subcommand(
        "server.security.signing_commands:keygen", "serve", "Make a key to sign bundles with."
    ),
    "sign": Subcommand("server.security.signing_commands:sign", "serve", "Sign a bundle."),
    "upscale": Subcommand("server.client.image_commands:upscale", "client", "Upscale pictures."),
    "translate": Subcommand(
        "server.client.image_commands:translate", "client", "Send pictures through an image-to-image model."
    ),
    "generate": Subcommand("server.client.sample_command:generate", "client", "Draw samples."),
    "models": Subcommand("server.client.server_commands:models", "client", "List what a server serves."),
    "reload": Subcommand(
        "server.client.server_commands:reload", "client", "Make a server follow its folder of bundles."
    ),
    "health": Subcommand("server.client.server_commands:health", "client", "Tell whether a server is ready."),
}


# Packages of every installation. If a module of these is missing, that is a bug and not a missing extra.
BASE = ("server", "protos", "grpc", "click", "rich")


class LazyGroup(CommandGroup):
    """A click group that imports a subcommand of SUBCOMMANDS only when it runs or shows its own help."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(SUBCOMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in SUBCOMMANDS:
            return None
        module, attribute = SUBCOMMANDS[name].command.split(":")
        try:
            command: click.Command = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            if _of_base(error):
                raise
            raise _missing_extra(name, error) from error
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, subcommand.help) for name, subcommand in SUBCOMMANDS.items()])

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except ModuleNotFoundError as error:  # some commands import heavy modules only when they run
            if _of_base(error) or context.invoked_subcommand is None:
                raise
            raise _missing_extra(context.invoked_subcommand, error) from error


def _of_base(error: ModuleNotFoundError) -> bool:
    return (error.name or "").partition(".")[0] in BASE


def _missing_extra(name: str, error: ModuleNotFoundError) -> click.ClickException:
    extra = SUBCOMMANDS[name].extra
    return click.ClickException(
        f"ganforge {name} needs the extra {extra!r}, which is not installed (there is no module {error.name!r}): "
        f"pip install 'ganforge[{extra}]', or pip install '.[{extra}]' in a checkout"
    )


@click.group(
    cls=LazyGroup, context_settings={"max_content_width": 110, "help_option_names": ["-h", "--help"]}
)
@click.version_option(package_name="ganforge")
def main() -> None:
    """Turn trained GAN generators into a service, and call it."""


if __name__ == "__main__":
    main(prog_name="python -m server.cli")
