"""Checks the bytes of a protobuf message before it is parsed, since parsed it may take twenty times as much memory, and puts
large fields into messages without protobuf, which copies them several times while it holds Python's lock.

server/grpc_front/exchange.py calls `split` for messages with a picture, or a piece of one, which it takes out without parsing it;
and `check_size` for all others. server/grpc_front/front.py calls `join` for answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

from runtime.errors import InvalidInput
from server.limits import MESSAGE_MARGIN_BYTES

# Of a message, at its top level, each occurrence counted.
MOST_FIELDS = 64
LONGEST_VARINT = 10


class Wire(IntEnum):
    """Wire types, in the three low bits of a tag. Groups are not among them: no message here has one."""

    VARINT = 0
    FIXED64 = 1
    LENGTH = 2
    FIXED32 = 5


def check_size(data: bytes, most_bytes: int, what: str) -> None:
    """Raises InvalidInput if a message is larger than any request of its kind that could be answered."""
    if len(data) > most_bytes:
        raise InvalidInput(
            "request", f"got a message of {len(data)} bytes, expected at most {most_bytes} {what}"
        )


def split(data: bytes, number: int) -> tuple[bytes, bytes | None]:
    """Take the field `number`, of bytes, out of a message: returns the other fields' bytes, and its value.

    The value is None if the field does not occur, and the last one if it occurs more than once, as protobuf reads it. Raises
    InvalidInput if the message is malformed, or if there is more beside the value than any request needs.
    """
    view = memoryview(data)
    value: memoryview | None = None
    others: list[memoryview] = []
    at = fields = others_bytes = 0
    while at < len(data):
        start = at
        tag, at = _varint(data, at)
        fields += 1
        length = 0
        match tag & 7:
            case Wire.VARINT:
                at = _varint(data, at)[1]
            case Wire.FIXED64:
                at += 8
            case Wire.LENGTH:
                length, at = _varint(data, at)
                at += length
            case Wire.FIXED32:
                at += 4
            case _:
                raise _malformed(data)
        if at > len(data):
            raise _malformed(data)
        if tag == number << 3 | Wire.LENGTH:
            value = view[at - length : at]
        else:
            others.append(view[start:at])
            others_bytes += at - start
        if fields > MOST_FIELDS or others_bytes > MESSAGE_MARGIN_BYTES:
            raise InvalidInput(
                "request",
                f"has more than {fields - 1} fields, or {others_bytes} bytes besides the picture; expected at most "
                f"{MOST_FIELDS} fields and {MESSAGE_MARGIN_BYTES} bytes",
            )
    return b"".join(others), None if value is None else bytes(value)


def join(message: bytes, number: int, values: Sequence[bytes]) -> bytes:
    """Add values of the field `number`, of bytes, to a message that has none. More than 1 MiB is copied without Python's lock."""
    parts = [message]
    for value in values:
        parts += [_encoded(number << 3 | Wire.LENGTH) + _encoded(len(value)), value]
    return b"".join(parts)


def _encoded(number: int) -> bytes:
    """A number as a varint."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number, and where it ends."""
    number = 0
    for place, byte in enumerate(data[at : at + LONGEST_VARINT]):
        number |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return number, at + place + 1
    raise _malformed(data)


def _malformed(data: bytes) -> InvalidInput:
    return InvalidInput("request", f"got {len(data)} bytes that are no message of this method")
