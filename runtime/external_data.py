"""Finds the files that an ONNX graph refers to: large graphs keep tensors in files beside them ("external data").

runtime/bundle.py calls `external_files` and refuses a graph that refers to files whose hash the manifest does not list.
The engine libraries would load them without a word. It reads the protobuf wire format
(https://protobuf.dev/programming-guides/encoding/) instead of using `onnx`, which servers do not have, and skips what
holds no tensors: 70 MB of weights take milliseconds.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path

from runtime.errors import BundleError

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
# Message of onnx.proto → its fields that hold tensors, or messages that do: field number → message.
TENSORS_IN: Mapping[str, Mapping[int, str]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Graph": {1: "Node", 5: "Tensor", 15: "Sparse"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "Sparse", 23: "Sparse"},
    "Sparse": {1: "Tensor", 2: "Tensor"},
    "Tensor": {13: "Entry"},
    "Entry": {},
}
DATA_LOCATION = 14  # of a Tensor; 1 means external
KEY, VALUE = 1, 2  # of an Entry: the file's name is the value of "location"
NO_NAME = ""


def external_files(onnx: Path) -> set[str]:
    """The files that hold tensors of the graph, as the graph names them; "" for a tensor that names none.

    Tensors of all graphs are searched: of branches and loops, functions, attributes and training.
    Raises BundleError if the file is not in ONNX's format.
    """
    if onnx.stat().st_size == 0:
        return set()
    with onnx.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return set(_locations(data))


def _locations(data: mmap.mmap) -> Iterator[str]:
    waiting = [("Model", 0, len(data))]
    while waiting:
        message, start, end = waiting.pop()
        fields = TENSORS_IN[message]
        is_external, names = False, 0
        for number, kind, first, last in _fields(data, start, end):
            if kind == LENGTH and number in fields:
                if fields[number] != "Entry":
                    waiting.append((fields[number], first, last))
                elif (location := _location(data, first, last)) is not None:
                    names += 1
                    yield location
            elif message == "Tensor" and number == DATA_LOCATION and kind == VARINT:
                is_external = first != 0
        if is_external and not names:
            yield NO_NAME


def _location(data: mmap.mmap, start: int, end: int) -> str | None:
    """The value of an Entry whose key is "location"; None for other keys."""
    texts = {
        number: data[first:last] for number, kind, first, last in _fields(data, start, end) if kind == LENGTH
    }
    if texts.get(KEY) != b"location":
        return None
    return texts.get(VALUE, b"").decode("utf-8", errors="backslashreplace")


def _fields(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """The fields of the message in data[start:end]: number, wire type, and start and end of the content.

    For VARINT, the third is the value.
    """
    at = start
    while at < end:
        tag, at = _varint(data, at, end)
        number, kind = tag >> 3, tag & 7
        value = at
        if kind == VARINT:
            value, at = _varint(data, at, end)
        elif kind == LENGTH:
            length, value = _varint(data, at, end)
            at = value + length
        elif kind in (FIXED32, FIXED64):
            at += 4 if kind == FIXED32 else 8
        else:
            raise _malformed(value)
        if at > end or number == 0:
            raise _malformed(value)
        yield number, kind, value, at


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    """The number in base 128 that starts at `at`, and where it ends."""
    value = shift = 0
    while at < end and shift < 64:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise _malformed(at)


def _malformed(at: int) -> BundleError:
    return BundleError(f"the graph is not in ONNX's format (byte {at} is not a protobuf field)")
