"""Strategies for protobuf messages mutated by structure: right and wrong types, repeated, nested, cut short, flipped.

tests/fuzz/test_fuzz.py and `python -m tests.fuzz` draw from them and send the bytes as they are, so that a message need
not be one that protobuf would write. The descriptors of ganforge.proto say which fields there are.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cache

import numpy as np
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import strategies as st

from runtime import pixels

VARINT, FIXED64, BYTES, GROUP, END_GROUP, FIXED32 = range(6)
# All other types of ganforge.proto are varints.
WIRE_TYPES = {
    FieldDescriptor.TYPE_STRING: BYTES,
    FieldDescriptor.TYPE_BYTES: BYTES,
    FieldDescriptor.TYPE_MESSAGE: BYTES,
    FieldDescriptor.TYPE_FLOAT: FIXED32,
    FieldDescriptor.TYPE_DOUBLE: FIXED64,
}
DEEPEST = 4
FORMATS = ("png", "jpeg", "webp", "tiff")
Case = st.SearchStrategy[bytes]


@dataclass(frozen=True)
class Method:
    """A method of the service. streams: whether the caller sends several messages."""

    path: str
    request: Descriptor
    streams: bool


def varint(value: int) -> bytes:
    """A non-negative integer as protobuf writes it."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def tag(number: int, wire_type: int) -> bytes:
    """What stands before a field's value."""
    return varint(number << 3 | wire_type)


def delimited(number: int, content: bytes) -> bytes:
    """A field with its length."""
    return tag(number, BYTES) + varint(len(content)) + content


@cache
def pictures() -> tuple[bytes, ...]:
    """Files of 6×5 pixels in every format that can be written."""
    picture = np.random.default_rng(0).integers(0, 256, (5, 6, 3), np.uint8)
    return tuple(pixels.encode(picture, name) for name in FORMATS)


def flipped(valid: Case) -> Case:
    """The same with some bytes changed, removed or repeated."""

    @st.composite
    def mutate(draw: st.DrawFn) -> bytes:
        data = bytearray(draw(valid))
        for _ in range(draw(st.integers(1, 4))):
            if not data:
                break
            at = draw(st.integers(0, len(data) - 1))
            match draw(st.sampled_from(("change", "remove", "repeat", "cut"))):
                case "change":
                    data[at] = draw(st.integers(0, 255))
                case "remove":
                    del data[at : at + draw(st.integers(1, 8))]
                case "repeat":
                    data[at:at] = data[at : at + draw(st.integers(1, 64))]
                case _:
                    del data[at:]
        return bytes(data)

    return mutate()


def raw_value(wire_type: int) -> Case:
    """Any value of a wire type, tag not included; some lie about their length."""
    lengths = st.sampled_from((0, 1, 127, 2**31 - 1, 2**31, 2**63, 2**64 - 1))
    values: dict[int, Case] = {
        VARINT: st.one_of(
            st.integers(0, 300).map(varint),
            st.sampled_from((2**31, 2**32 - 1, 2**63, 2**64 - 1)).map(varint),
            st.just(b"\xff" * 11),
        ),
        FIXED64: st.binary(min_size=8, max_size=8),
        BYTES: st.one_of(
            st.binary(max_size=40).map(lambda content: varint(len(content)) + content),
            lengths.map(varint),
        ),
        GROUP: st.binary(max_size=8),
        END_GROUP: st.just(b""),
        FIXED32: st.one_of(
            st.binary(min_size=4, max_size=4),
            st.floats(width=32).map(lambda value: struct.pack("<f", value)),
        ),
    }
    return values.get(wire_type, st.just(b""))


def fitting_value(field: FieldDescriptor, depth: int) -> Case:
    """A value of the field's own type that the service may well accept, tag not included."""
    if field.message_type is not None and depth < DEEPEST:
        contents = message(field.message_type, depth + 1)
    elif field.type == FieldDescriptor.TYPE_BYTES:
        contents = st.one_of(
            st.sampled_from(pictures()), flipped(st.sampled_from(pictures())), st.binary(max_size=64)
        )
    elif field.type == FieldDescriptor.TYPE_STRING:
        names = st.sampled_from(("", "upscaler", "generator", "translator", "\u202e", "a\0b", "x" * 5000))
        contents = st.one_of(names, st.text(max_size=20)).map(
            lambda text: text.encode("utf-8", "surrogatepass")
        )
    elif field.type == FieldDescriptor.TYPE_FLOAT:
        near = st.sampled_from((0.5, 1.0, 2.0, 0.0, -1.0, 1e-30, 1e30, float("nan"), float("inf")))
        return near.map(lambda value: struct.pack("<f", value))
    elif field.type == FieldDescriptor.TYPE_DOUBLE:
        return st.floats().map(lambda value: struct.pack("<d", value))
    else:
        return st.integers(0, 9).map(varint)
    return contents.map(lambda content: varint(len(content)) + content)


def known_field(field: FieldDescriptor, depth: int) -> Case:
    """A field of the message: mostly as declared, sometimes of another wire type or very often."""
    declared = WIRE_TYPES.get(field.type, VARINT)
    right = fitting_value(field, depth).map(lambda value: tag(field.number, declared) + value)
    wrong = st.integers(0, 7).flatmap(
        lambda wire_type: raw_value(wire_type).map(lambda value: tag(field.number, wire_type) + value)
    )
    often = st.tuples(right, st.sampled_from((2, 50, 3000))).map(lambda pair: (pair[0] * pair[1])[: 2**18])
    return st.one_of(right, right, right, right, wrong, often)


def unknown_field() -> Case:
    """A field that no version declares."""
    numbers = st.sampled_from((0, 19, 1000, 19000, 2**29 - 1))
    return st.tuples(numbers, st.integers(0, 7)).flatmap(
        lambda drawn: raw_value(drawn[1]).map(lambda value: tag(*drawn) + value)
    )


def message(descriptor: Descriptor, depth: int = 0) -> Case:
    """A message of that type, mutated by structure."""
    fields = [known_field(field, depth) for field in descriptor.fields]
    some = st.lists(st.one_of(*fields, *fields, unknown_field()) if fields else unknown_field(), max_size=6)
    return some.map(b"".join)


def request(method: Method) -> st.SearchStrategy[list[bytes]]:
    """The messages of one call."""
    one = message(method.request)
    either = st.one_of(one, one, flipped(one))
    return st.lists(either, max_size=4) if method.streams else either.map(lambda only: [only])
