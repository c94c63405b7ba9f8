"""JSON into frozen dataclasses, every field checked against its annotation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from runtime.errors import BundleError


def record(kind: Any, raw: object, where: str) -> Any:
    """A JSON object as the dataclass `kind`. Raises BundleError naming what is missing, unknown or of a wrong type."""
    if not isinstance(raw, dict):
        raise BundleError(f"{where}: got {raw!r:.60}, expected an object")
    hints = get_type_hints(kind)
    needed = {
        item.name for item in fields(kind) if item.default is MISSING and item.default_factory is MISSING
    }
    if wrong := (raw.keys() - hints.keys()) | (needed - raw.keys()):
        raise BundleError(f"{where}: unknown or missing fields {', '.join(sorted(wrong))}")
    return kind(**{name: _value(hints[name], value, f"{where}: {name}") for name, value in raw.items()})


def _value(kind: Any, raw: Any, where: str) -> Any:
    """A JSON value as `kind`, the annotation of a field."""
    origin, of = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return record(kind, raw, where)
    if origin is tuple and isinstance(raw, list) and (of[-1] is ... or len(raw) == len(of)):
        kinds = of[:1] * len(raw) if of[-1] is ... else of
        return tuple(_value(one, value, where) for one, value in zip(kinds, raw, strict=True))
    if origin is Mapping and isinstance(raw, dict):
        return {name: _value(of[1], value, f"{where}: {name}") for name, value in raw.items()}
    if origin is UnionType and raw is None and NoneType in of:
        return None
    if origin is UnionType:
        return _value(next((one for one in of if type(raw) is one), of[0]), raw, where)
    if (origin is Literal and isinstance(raw, str) and raw in of) or type(raw) is kind:
        return raw
    if kind is float and type(raw) is int:
        return float(raw)
    raise BundleError(f"{where}: got {raw!r:.60}, expected {kind if origin else kind.__name__}")
