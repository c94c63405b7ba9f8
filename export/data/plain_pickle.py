"""Reads pickles of plain values and uint8 arrays without running code that they name; cifar.py calls `loads`.

A pickle can call anything that it can import. This unpickler lets it import only a few names, and gives stubs from this
file for them. NumPy's own array type is not safe either: it trusts what the pickle says about its memory.
"""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from export.data.sets import as_damaged
from runtime.errors import InvalidInput


class DtypeStub:
    """Replaces numpy.dtype; keeps only its code, such as "u1"."""

    def __init__(self, code: str | bytes, *_: Any) -> None:
        self.code = code.decode() if isinstance(code, bytes) else code

    def __setstate__(self, state: Any) -> None:
        """Ignore byte order, fields and flags, which matter only for larger types than bytes."""


class ArrayStub:
    """Replaces numpy.ndarray. NumPy pickles an array as an empty one, to which __setstate__ then gives the values."""

    values: np.ndarray

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: tuple[int, tuple[int, ...], DtypeStub, bool, bytes | str]) -> None:
        _, shape, dtype, columns_first, values = state
        if dtype.code != "u1":
            raise pickle.UnpicklingError(f"an array of {dtype.code}, expected u1: unsigned bytes")
        raw = encoded(values) if isinstance(values, str) else bytes(values)
        if len(raw) != math.prod(shape):
            raise pickle.UnpicklingError(
                f"an array of {len(raw)} bytes, expected {math.prod(shape)}: {shape}"
            )
        self.values = np.frombuffer(raw, np.uint8).reshape(shape, order="F" if columns_first else "C")


def encoded(text: str, encoding: str = "latin1") -> bytes:
    """Replaces codecs.encode, by which Python 3 pickles bytes for Python 2."""
    return text.encode("latin1")


# The names in CIFAR's pickles and in those that NumPy writes today.
ALLOWED: Mapping[tuple[str, str], Callable[..., Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): ArrayStub,
    ("numpy._core.multiarray", "_reconstruct"): ArrayStub,
    ("numpy", "ndarray"): ArrayStub,
    ("numpy", "dtype"): DtypeStub,
    ("_codecs", "encode"): encoded,
}
DAMAGE_ERRORS = (
    pickle.UnpicklingError, EOFError, AttributeError, ImportError, IndexError, KeyError, MemoryError, OverflowError,
    TypeError, ValueError,
)  # fmt: skip


class Unpickler(pickle.Unpickler):
    """An unpickler that refuses every name that is not ALLOWED."""

    def __init__(self, name: str, content: bytes) -> None:
        super().__init__(io.BytesIO(content), encoding="bytes")
        self.name = name

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            expected = "only plain values and arrays; this is not CIFAR's file, do not trust it"
            raise InvalidInput(
                "data", f"{self.name} is a pickle that names {module}.{name}, expected {expected}"
            )
        return ALLOWED[module, name]


def loads(name: str, content: bytes) -> Any:
    """The value pickled in `content`. Arrays in a dictionary become NumPy arrays, uint8. name: of the file, for errors.

    Raises InvalidInput if the pickle names anything that is not allowed, or is damaged.
    """
    with as_damaged(name, *DAMAGE_ERRORS):
        value = Unpickler(name, content).load()
        if isinstance(value, dict):
            return {key: item.values if isinstance(item, ArrayStub) else item for key, item in value.items()}
        return value
