"""Uploads: assembles images that arrive in pieces, within the limits; large ones in temporary files.

For each streamed call, server/core/images.py opens an Upload with `Uploads.begin` and fills it with `Uploads.receive`, which
returns the request. `Upload.source` is then the image.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import BinaryIO

from runtime.errors import InvalidInput, Overloaded
from server.core import disk
from server.core.calls import Call, time_limit
from server.core.disk import Disk
from server.core.requests import ImageRequest, PieceIn
from server.core.slow_clients import Holding, SlowClients
from server.core.transit import Transit
from server.limits import SPOOL_FROM_BYTES, Limits

RETRY_AFTER_S = 1.0


class Upload(AbstractContextManager["Upload"]):
    """An image file being uploaded. A context manager: leaving the block deletes the file and frees its share of the limit."""

    def __init__(self, uploads: Uploads) -> None:
        self._uploads = uploads
        self._pieces: list[bytes] = []
        self._file: BinaryIO | None = None
        self.size_bytes = 0

    async def add(self, piece: bytes) -> None:
        """Append a piece.

        Raises InvalidInput or Overloaded if a limit is exceeded, as `Uploads.reserve` does, or OutOfSpace.
        """
        self._uploads.reserve(self.size_bytes, len(piece))
        self.size_bytes += len(piece)
        self._pieces.append(piece)
        if self._file is not None or self.size_bytes > SPOOL_FROM_BYTES:
            await asyncio.to_thread(self._spool)

    @property
    def source(self) -> bytes | Path:
        """The file's bytes, or its path if it is in a temporary file."""
        return b"".join(self._pieces) if self._file is None else disk.path(self._file)

    def _spool(self) -> None:
        if self._file is None:
            self._file = self._uploads.disk.file()
        with self._uploads.disk.writing():
            self._file.writelines(self._pieces)
            self._file.flush()
        self._pieces.clear()

    def free(self) -> None:
        """Give back its share of the limit. Nothing can be added any more."""
        self._uploads.release(self.size_bytes)
        self.size_bytes = 0

    def __exit__(self, *_: object) -> None:
        self.free()
        self._pieces.clear()
        if self._file is not None:
            with suppress(OSError):  # what could not be written when the disk was full
                self._file.close()


class Uploads:
    """All uploads of a server. Together they hold at most `limits.max_uploads_bytes`."""

    def __init__(self, limits: Limits, disk: Disk, transit: Transit) -> None:
        self._limits, self.disk = limits, disk
        self._arriving = SlowClients(transit, limits.idle_s, "send faster")
        self._held_bytes = 0

    @property
    def held_bytes(self) -> int:
        """Bytes of all uploads now."""
        return self._held_bytes

    def begin(self) -> Upload:
        """An empty upload, to be used as a context manager."""
        return Upload(self)

    async def receive(self, upload: Upload, pieces: AsyncIterator[PieceIn], call: Call) -> ImageRequest:
        """Receive all pieces into `upload`. Returns the request.

        Raises InvalidInput (wrong order, or image too large), Overloaded (all uploads together too large) or
        DeadlineExceeded (nothing arrived for `limits.idle_s`).
        """
        with self._arriving.holding(Holding(call, lambda: upload.size_bytes, upload.free)):
            return await self._receive(upload, pieces)

    async def _receive(self, upload: Upload, pieces: AsyncIterator[PieceIn]) -> ImageRequest:
        request: ImageRequest | None = None
        async for piece in self._at_pace(pieces):
            kind = "data" if isinstance(piece, bytes) else "header" if piece else "neither header nor data"
            if isinstance(piece, ImageRequest) and request is None:
                request = piece
            elif isinstance(piece, bytes) and request is not None:
                await upload.add(piece)
            elif request is None:
                raise InvalidInput("part", f"got {kind} first, expected a header")
            else:
                raise InvalidInput("part", f"got {kind}, expected data after the header")
        if request is None:
            raise InvalidInput("part", "the stream ended without a message, expected a header and then data")
        return request

    async def _at_pace(self, pieces: AsyncIterator[PieceIn]) -> AsyncIterator[PieceIn]:
        """The pieces. Raises DeadlineExceeded where, for `limits.idle_s`, fewer bytes arrive than `limits.min_rate_bytes_s`.

        Empty and tiny pieces do not keep a call alive. A piece of any size counts from its end, so large ones must come whole
        within `idle_s`.
        """
        idle_s, enough_bytes = self._limits.idle_s, self._limits.idle_s * self._limits.min_rate_bytes_s
        left_s, new_bytes = idle_s, 0
        while True:
            began_s = time.monotonic()
            async with time_limit(
                left_s, f"nothing was uploaded for {idle_s:g} s, or too little; the call was ended"
            ):
                try:
                    piece = await anext(pieces)
                except StopAsyncIteration:
                    return
            left_s -= time.monotonic() - began_s
            yield piece
            new_bytes += len(piece) if isinstance(piece, bytes) else 0
            if new_bytes >= enough_bytes:
                left_s, new_bytes = idle_s, 0

    def reserve(self, size_bytes: int, more_bytes: int) -> None:
        """Reserve `more_bytes` for an upload that has `size_bytes`. Ends slow uploads if that needs their room.

        Raises InvalidInput if the upload would be too large, Overloaded if all uploads together would be.
        """
        limits = self._limits
        if size_bytes + more_bytes > limits.max_upload_bytes:
            raise InvalidInput(
                "data", f"the image is larger than {limits.max_upload_bytes} bytes (--max-upload-bytes)"
            )
        while self._held_bytes + more_bytes > limits.max_uploads_bytes:
            if self._arriving.end_one():
                continue
            raise Overloaded(
                f"the running uploads hold {self._held_bytes} of {limits.max_uploads_bytes} bytes "
                "(--max-uploads-bytes); try again later",
                retry_after_s=RETRY_AFTER_S,
                reason="uploads",
            )
        self._held_bytes += more_bytes

    def release(self, size_bytes: int) -> None:
        """Give back the bytes reserved for an upload."""
        self._held_bytes -= size_bytes
