"""Parses `--set KEY=VALUE` of the build, convert and evaluate commands. checkpoint.configure applies the result."""

from __future__ import annotations

import re

from runtime.errors import InvalidInput


def parse_settings(settings: tuple[str, ...]) -> dict[str, str]:
    """`--set key=value` pairs as overrides: key → value, as text. Raises InvalidInput for anything else."""
    overrides: dict[str, str] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key:
            raise InvalidInput("set", f"got {setting!r}, expected KEY=VALUE, for instance blocks=23")
        if overrides.setdefault(key, value) != value:
            raise InvalidInput("set", f"{key} is given twice: {overrides[key]} and {value}")
        if re.fullmatch(r"-\d+|0+", value):  # every setting is a size, a count or a switch
            raise InvalidInput("set", f"{key}: got {value}, expected 1 or more")
    return overrides
