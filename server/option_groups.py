"""Groups of flags: what a group is, how `--help` shows them, and how they become frozen dataclasses.

server/options.py lists the groups of `python -m server`; a part with many flags of its own defines its group beside its code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any

import click
from click.core import ParameterSource


def option(flag: str, kind: Any, help: str, **attributes: Any) -> click.Option:
    """A click option that shows its default. kind: its click type. attributes: as for click.Option."""
    return click.Option([flag], type=kind, help=help, **{"show_default": True, **attributes})


def limit(record: type, flag: str, help: str) -> click.Option:
    """A flag for the number of the same name in a dataclass, with its default; it must be positive."""
    name = flag.removeprefix("--").replace("-", "_")
    default = next(field.default for field in fields(record) if field.name == name)
    assert default is not MISSING, f"{record.__name__}.{name} has no default"
    kind = click.FloatRange(min=0, min_open=True) if isinstance(default, float) else click.IntRange(min=1)
    return option(flag, kind, help, default=default)


@dataclass(frozen=True)
class Group:
    """Flags that belong together.

    title: their heading in `--help`. table: their table in a configuration file, and their field of the settings.
    record: the frozen dataclass that holds their values; its fields are the parameters of the options.
    """

    title: str
    table: str
    record: type
    options: Sequence[click.Option]

    def __post_init__(self) -> None:
        names = {str(option.name) for option in self.options}
        expected = {field.name for field in fields(self.record)}
        assert names == expected, f"{self.table}: flags and fields differ in {sorted(names ^ expected)}"

    def read(self, values: Mapping[str, Any]) -> Any:
        """The record of this group's values, out of the values of all flags."""
        return self.record(**{str(option.name): values[str(option.name)] for option in self.options})


class GroupedCommand(click.Command):
    """A command whose flags come in groups, each under its own heading in `--help`."""

    def __init__(self, *args: Any, groups: Iterable[Group] = (), **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.groups = tuple(groups)
        self.params = [option for group in self.groups for option in group.options] + self.params

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(context, args)
        except click.BadParameter as error:
            option = error.param
            if (
                option is None
                or context.get_parameter_source(str(option.name)) is not ParameterSource.ENVIRONMENT
            ):
                raise
            variable = option.envvar or f"{context.auto_envvar_prefix}_{str(option.name).upper()}"
            message = f"{error.message} (from the environment variable {variable})"
            raise click.BadParameter(message, context, option) from error

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        grouped = {id(option) for group in self.groups for option in group.options}
        others = [parameter for parameter in self.get_params(context) if id(parameter) not in grouped]
        for title, options in [*((group.title, group.options) for group in self.groups), ("Other", others)]:
            rows = [row for option in options if (row := option.get_help_record(context))]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)
