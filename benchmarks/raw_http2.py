"""A bare HTTP/2 client that does what no gRPC library would: stops in the middle of a message, or never reads an answer.

benchmarks/attacks.py uses it. It keeps to flow control (RFC 9113, 5.2), so that the server has no reason to hang up.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Self

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 0x1, 0x4, 0x1
INITIAL_WINDOW_SIZE = 4
WINDOW_BYTES, FRAME_BYTES = 65_535, 16_384


class Connection:
    """One connection. Its windows for answers stay as they begin, at 64 KiB, so that the server must keep the rest."""

    def __init__(self, address: str, timeout_s: float = 20.0) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout_s)
        self._socket.settimeout(None)
        self._changed = threading.Condition()
        self._initial, self._windows = WINDOW_BYTES, {0: WINDOW_BYTES}
        self._next_stream, self._closed = 1, False
        self._ended: set[int] = set()
        self._send_lock = threading.Lock()
        self._write(PREFACE + frame(SETTINGS, 0, 0, b""))
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def closed(self) -> bool:
        """Whether either side has hung up."""
        return self._closed

    def call(self, path: str, headers: Mapping[str, str] | None = None) -> int:
        """Begin a call, with further headers, and return its stream."""
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        with self._changed:
            self._windows[stream] = self._initial
        self._write(frame(HEADERS, END_HEADERS, stream, call_headers(path, headers or {})))
        return stream

    def send(self, stream: int, data: bytes, *, end: bool, timeout_s: float = 30.0) -> int:
        """Send bytes as the server's windows allow. Returns how many went out before the time was up."""
        sent, view = 0, memoryview(data)
        while sent < len(data):
            with self._changed:
                if not self._changed.wait_for(lambda: self._room(stream) > 0 or self._closed, timeout_s):
                    return sent
                if self._closed:
                    return sent
                size = min(self._room(stream), FRAME_BYTES, len(data) - sent)
                self._windows[0] -= size
                self._windows[stream] -= size
            last = end and sent + size == len(data)
            self._write(frame(DATA, END_STREAM if last else 0, stream, bytes(view[sent : sent + size])))
            sent += size
        return sent

    def wait_for_end(self, stream: int, timeout_s: float) -> bool:
        """Wait until the server has ended a stream or hung up. Returns whether it did in time."""
        with self._changed:
            return self._changed.wait_for(lambda: stream in self._ended or self._closed, timeout_s)

    def close(self) -> None:
        """Hang up."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # or the thread that reads keeps it open
        self._socket.close()

    def _room(self, stream: int) -> int:
        return min(self._windows[0], self._windows[stream])

    def _write(self, data: bytes) -> None:
        with self._send_lock:
            try:
                self._socket.sendall(data)
            except OSError:
                self._closed = True

    def _read(self) -> None:
        try:
            file = self._socket.makefile("rb")
            while head := file.read(9):
                length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
                stream = struct.unpack(">I", head[5:])[0] & 0x7FFFFFFF
                self._received(kind, flags, stream, file.read(length))
        except (OSError, ValueError, struct.error):
            pass  # closed while reading
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _received(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == SETTINGS and not flags & ACK:
            for at in range(0, len(payload), 6):
                name, value = struct.unpack_from(">HI", payload, at)
                if name == INITIAL_WINDOW_SIZE:
                    with self._changed:
                        for other in self._windows.keys() - {0}:
                            self._windows[other] += value - self._initial
                        self._initial = value
                        self._changed.notify_all()
            self._write(frame(SETTINGS, ACK, 0, b""))
        elif kind == PING and not flags & ACK:
            self._write(frame(PING, ACK, 0, payload))
        elif kind == WINDOW_UPDATE:
            with self._changed:
                self._windows[stream] = (
                    self._windows.get(stream, self._initial) + struct.unpack(">I", payload)[0]
                )
                self._changed.notify_all()
        elif kind == GOAWAY:
            self._closed = True
        elif kind == RST_STREAM or (kind in (DATA, HEADERS) and flags & END_STREAM):
            with self._changed:
                self._ended.add(stream)
                self._changed.notify_all()


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """One frame (RFC 9113, 4.1)."""
    return len(payload).to_bytes(3, "big") + struct.pack(">BBI", kind, flags, stream) + payload


def call_headers(path: str, further: Mapping[str, str]) -> bytes:
    """The headers with which a gRPC call begins, as HPACK literals without indexing (RFC 7541, 6.2.2)."""
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
        **further,
    }
    pairs = ((name.encode(), value.encode()) for name, value in headers.items())
    return b"".join(b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value for name, value in pairs)


def message(body: bytes, stated_bytes: int | None = None) -> bytes:
    """A gRPC message. stated_bytes: the length that its prefix states; None for the truth."""
    return struct.pack(">BI", 0, len(body) if stated_bytes is None else stated_bytes) + body
