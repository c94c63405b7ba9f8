"""Reads pickles of plain values and byte arrays without running anything that they name; cifar.py calls `loads`.

A pickle may call whatever it can import. Here it can import a few names only, and each stands for a class or function
of this file: not even NumPy's own, whose arrays trust what a pickle says of their memory.
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
    """Stands for numpy.dtype; only its code is kept, such as "u1"."""

    def __init__(self, code: str | bytes, *_: Any) -> None:
        self.code = code.decode() if isinstance(code, bytes) else code

    def __setstate__(self, state: Any) -> None:
        """Byte order, fields and flags: single bytes have none."""


class ArrayStub:
    """Stands for numpy.ndarray: empty when made, filled by its state, as NumPy pickles its arrays."""

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
    """Stands for codecs.encode: Python 3 writes bytes so where the pickle is to be read by Python 2."""
    return text.encode("latin1")


# What CIFAR's pickles name, and those that NumPy writes today.
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
    """Refuses every name that is not ALLOWED."""

    def __init__(self, name: str, content: bytes) -> None:
        super().__init__(io.BytesIO(content), encoding="bytes")
        self.name = name

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            expected = "only plain values and arrays; it is not CIFAR's, do not trust it"
            raise InvalidInput(
                "data", f"{self.name} is a pickle that names {module}.{name}, expected {expected}"
            )
        return ALLOWED[module, name]


def loads(name: str, content: bytes) -> Any:
    """The value pickled in `content`; `name` is the file's, for errors. A dictionary's arrays are NumPy's, uint8.

    Raises InvalidInput where the pickle names anything else, or is damaged.
    """
    with as_damaged(name, *DAMAGE_ERRORS):
        value = Unpickler(name, content).load()
        if isinstance(value, dict):
            return {key: item.values if isinstance(item, ArrayStub) else item for key, item in value.items()}
        return value
