"""The configuration of `python -m server` from a TOML file and the environment, and how it is printed again.

A flag wins over its environment variable (GANFORGE_SERVE_ and the flag's name), that over the file, that over the default:
click's own order, of which the file is the `default_map`. The file has a table for each group of server/options.py, and in
it the flags' names, with underscores or dashes. Its relative paths start at the file's folder.
"""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from server.option_groups import Group, GroupedCommand

ENVIRONMENT_PREFIX = "GANFORGE_SERVE"
# Kubernetes sets these for every Service of a namespace, so for one called ganforge-serve too.
OF_KUBERNETES = ("_SERVICE_HOST", "_SERVICE_PORT", "_TCP", "_TCP_ADDR", "_TCP_PORT", "_TCP_PROTO")


def key(option: click.Option) -> str:
    """The option's key in its table: the flag's name with underscores."""
    return option.opts[0].removeprefix("--").replace("-", "_")


def variable(option: click.Option) -> str:
    """The option's environment variable."""
    return f"{ENVIRONMENT_PREFIX}_{key(option).upper()}"


def load(context: click.Context, option: click.Parameter, path: Path | None) -> None:
    """The callback of --config, which click calls before it looks at other flags: the file's values become defaults."""
    assert isinstance(context.command, GroupedCommand)
    if path is not None:
        context.default_map = read_file(path, context.command.groups, context)
        context.meta[__name__] = str(path)


def read_file(path: Path, groups: Sequence[Group], context: click.Context) -> dict[str, Any]:
    """The values in a configuration file by parameter name, checked. Raises click.UsageError naming file, key and value."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise click.UsageError(f"--config: {path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # not UTF-8, or not TOML: that message ends with line and column
        raise click.UsageError(f"{path}: this is not TOML: {error}") from error
    known = {f"{group.table}.{key(option)}": option for group in groups for option in group.options}
    values: dict[str, Any] = {}
    for name, value in _settings(tables):
        option = known.get(name.replace("-", "_"))
        if option is None:
            raise click.UsageError(f"{path}: there is no setting {name!r}; {_nearest(name, known)}")
        if option.name in values:
            raise click.UsageError(f"{path}: {name} is there twice, with underscores and with dashes")
        values[str(option.name)] = _checked(path, name, value, option, context)
    return values


def _settings(tables: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Each "table.key" of a file with its value; a key outside a table is yielded as it is."""
    for table, content in tables.items():
        if isinstance(content, dict):
            yield from ((f"{table}.{name}", value) for name, value in content.items())
        else:
            yield table, content


def _nearest(name: str, known: Iterable[str]) -> str:
    by_key = {full.partition(".")[2]: full for full in known}
    bare = name.rpartition(".")[2].replace("-", "_")
    if bare in by_key:
        return f"expected it as {by_key[bare]}"
    close = difflib.get_close_matches(bare, by_key, n=1)
    if close:
        return f"did you mean {by_key[close[0]]}?"
    return "expected one of " + ", ".join(by_key.values())


def _checked(path: Path, name: str, value: Any, option: click.Option, context: click.Context) -> Any:
    """The value as click takes it. Raises click.UsageError if it is not what the flag expects."""
    kinds, expected = _expected(option)
    items = value if option.multiple and isinstance(value, list) else [value]
    if (option.multiple and not isinstance(value, list)) or any(type(item) not in kinds for item in items):
        raise click.UsageError(f"{path}: {name} is {_toml(value)}, expected {expected}")
    if isinstance(option.type, click.Path):
        items = [str(path.parent / item) for item in items]
        value = items if option.multiple else items[0]
    try:
        option.process_value(context, value)
    except click.BadParameter as error:
        raise click.UsageError(f"{path}: {name} is {_toml(value)}: {error.message}") from error
    return value


def _expected(option: click.Option) -> tuple[tuple[type, ...], str]:
    """The types of TOML that an option takes, and what they are called."""
    kind = option.type
    if option.is_flag:
        return (bool,), "true or false"
    if isinstance(kind, click.types.IntParamType):
        return (int,), "a whole number"
    if isinstance(kind, click.types.FloatParamType):
        return (int, float), "a number"
    text = f"one of {', '.join(kind.choices)}" if isinstance(kind, click.Choice) else "text in quotes"
    return (str,), f"a list of {text}" if option.multiple else text


def unknown_variables(groups: Sequence[Group]) -> list[str]:
    """A sentence for each environment variable that has our prefix and is no setting."""
    known = {variable(option): variable(option) for group in groups for option in group.options}
    known |= {f"{ENVIRONMENT_PREFIX}_CONFIG": "", f"{ENVIRONMENT_PREFIX}_PRINT_CONFIG": ""}
    strangers = sorted(
        name
        for name in os.environ
        if name.startswith(ENVIRONMENT_PREFIX + "_")
        and name not in known
        and not name.endswith(OF_KUBERNETES)
    )
    sentences = []
    for name in strangers:
        close = difflib.get_close_matches(name, known, n=1)
        sentences.append(f"{name} is no setting" + (f"; did you mean {close[0]}?" if close else ""))
    return sentences


def written(context: click.Context) -> str:
    """All settings of a parsed command line as a configuration file, with where each value comes from."""
    assert isinstance(context.command, GroupedCommand)
    lines = ["# The settings of this server, for ganforge serve --config FILE."]
    for group in context.command.groups:
        lines += ["", f"[{group.table}]"]
        for option in group.options:
            lines.append(_line(option, context))
    return "\n".join(lines)


def _line(option: click.Option, context: click.Context) -> str:
    name = str(option.name)
    value, source = context.params[name], _source(option, context)
    if value is None:
        return f"# {key(option)} is not set"
    return f"{key(option)} = {_toml(_plain(value))}  # {source}"


def _source(option: click.Option, context: click.Context) -> str:
    """Where an option's value comes from, as the comments and the log say it."""
    source = context.get_parameter_source(str(option.name))
    if source is ParameterSource.COMMANDLINE:
        return option.opts[0]
    if source is ParameterSource.ENVIRONMENT:
        return variable(option)
    return context.meta[__name__] if source is ParameterSource.DEFAULT_MAP else "default"


def changed(context: click.Context) -> dict[str, Any]:
    """The settings that are not defaults, for the log: "table.key" → "value (source)"."""
    assert isinstance(context.command, GroupedCommand)
    return {
        f"{group.table}.{key(option)}": f"{_toml(_plain(context.params[str(option.name)]))} ({source})"
        for group in context.command.groups
        for option in group.options
        if (source := _source(option, context)) != "default"
    }


def _plain(value: Any) -> Any:
    """A parameter's value as TOML has it: paths are absolute, since a file's own paths start at its folder."""
    if isinstance(value, Path):
        return str(value.absolute())
    if isinstance(value, Mapping):  # --default
        return [f"{name}={item}" for name, item in value.items()]
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _toml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value) if isinstance(value, float) else str(value)
