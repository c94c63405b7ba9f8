"""Strategies for HTTP/2 conversations mutated by bytes: frames that lie, come out of order or were never valid.

`python -m tests.fuzz` and tests/fuzz/test_fuzz.py write them to a bare socket. RFC 9113, section 6, has the frames.
"""

from __future__ import annotations

import struct

from hypothesis import strategies as st

from tests.fuzz.messages import Case, flipped, pictures

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    range(10)
)
END_STREAM, END_HEADERS, PADDED, PRIORITISED = 0x1, 0x4, 0x8, 0x20
STREAMS = (0, 1, 2, 3, 5, 2**31 - 1)


def frame(kind: int, flags: int, stream: int, payload: bytes, length: int | None = None) -> bytes:
    """One frame. length: what its header says; None for the truth."""
    stated = len(payload) if length is None else length
    return struct.pack(">I", stated)[1:] + struct.pack(">BBI", kind & 0xFF, flags & 0xFF, stream) + payload


def header(name: bytes, value: bytes) -> bytes:
    """A header as HPACK's literal without indexing, new name (RFC 7541, 6.2.2); strings below 127 bytes."""
    return b"\0" + bytes([len(name) & 0x7F]) + name + bytes([len(value) & 0x7F]) + value


def call_headers(path: bytes) -> bytes:
    """The headers with which a gRPC call begins."""
    pairs = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path),
        (b":authority", b"localhost"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        (b"grpc-timeout", b"2S"),
    ]
    return b"".join(header(name, value) for name, value in pairs)


def call(path: str) -> Case:
    """A valid call of that method: settings, headers, and one message with a picture."""
    field = b"\x12" + bytes([len(pictures()[0]) & 0x7F | 0x80, len(pictures()[0]) >> 7]) + pictures()[0]
    body = struct.pack(">BI", 0, len(field)) + field
    valid = (
        frame(SETTINGS, 0, 0, b"")
        + frame(HEADERS, END_HEADERS, 1, call_headers(path.encode()))
        + frame(DATA, END_STREAM, 1, body)
    )
    return st.just(valid)


def any_frame(paths: tuple[str, ...]) -> Case:
    """Any frame, of any type, some with lengths that are not theirs."""
    settings = st.lists(
        st.tuples(st.integers(0, 9), st.sampled_from((0, 1, 2**14, 2**31 - 1, 2**32 - 1))), max_size=5
    )
    prefix = st.tuples(st.sampled_from((0, 1, 2)), st.sampled_from((0, 1, 5, 2**20, 2**32 - 1)))
    payloads: Case = st.one_of(
        st.binary(max_size=64),
        st.sampled_from(paths).map(lambda path: call_headers(path.encode())),
        flipped(st.sampled_from(paths).map(lambda path: call_headers(path.encode()))),
        settings.map(lambda pairs: b"".join(struct.pack(">HI", *pair) for pair in pairs)),
        st.tuples(prefix, st.binary(max_size=40)).map(lambda pair: struct.pack(">BI", *pair[0]) + pair[1]),
        st.sampled_from((0, 1, 2**31 - 1)).map(lambda value: struct.pack(">I", value)),
        st.just(b"\0" * 8),
    )
    kinds = st.one_of(st.integers(DATA, CONTINUATION), st.integers(0, 255))
    flags = st.one_of(
        st.sampled_from((0, END_STREAM, END_HEADERS, END_STREAM | END_HEADERS, PADDED)), st.integers(0, 255)
    )
    lengths = st.one_of(st.none(), st.none(), st.none(), st.integers(0, 2**24 - 1))
    return st.builds(frame, kinds, flags, st.sampled_from(STREAMS), payloads, lengths)


def conversation(paths: tuple[str, ...]) -> Case:
    """What one connection sends."""
    valid = st.sampled_from(paths).flatmap(call)
    parts = st.lists(
        st.one_of(valid, flipped(valid), any_frame(paths), any_frame(paths)), min_size=1, max_size=8
    )
    prefaces = st.sampled_from(
        (PREFACE, PREFACE, PREFACE, PREFACE, PREFACE, b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01")
    )
    return st.tuples(prefaces, parts).map(lambda drawn: drawn[0] + b"".join(drawn[1]))
