"""Images that arrive in pieces: put together, in order, within their limits; large ones on the disk."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from pathlib import Path

from protos import ganforge_pb2 as pb
from runtime.errors import DeadlineExceeded, InvalidInput, Overloaded
from server.limits import SPOOL_FROM_BYTES, Limits

RETRY_AFTER_S = 1.0


class Upload(AbstractContextManager["Upload"]):
    """One image file on its way in. It is gone, and its bytes are no longer counted, when its block is left."""

    def __init__(self, uploads: Uploads) -> None:
        self._uploads = uploads
        self._pieces: list[bytes] = []
        self._file: tempfile._TemporaryFileWrapper[bytes] | None = None
        self.size = 0

    async def add(self, piece: bytes) -> None:
        """Raises InvalidInput or Overloaded where a limit is reached."""
        self._uploads.admit(self.size, len(piece))
        self.size += len(piece)
        self._pieces.append(piece)
        if self._file is not None or self.size > SPOOL_FROM_BYTES:
            await asyncio.to_thread(self._spool)

    @property
    def source(self) -> bytes | Path:
        """The file's bytes, or where it lies."""
        return b"".join(self._pieces) if self._file is None else Path(self._file.name)

    def _spool(self) -> None:
        if self._file is None:
            self._file = tempfile.NamedTemporaryFile(prefix="ganforge-upload-")  # noqa: SIM115 - closed on leaving
        self._file.writelines(self._pieces)
        self._file.flush()
        self._pieces.clear()

    def __exit__(self, *_: object) -> None:
        self._uploads.release(self.size)
        self._pieces.clear()
        if self._file is not None:
            self._file.close()


class Uploads:
    """Every upload of one server, which share a budget of bytes."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._held_bytes = 0

    def begin(self) -> Upload:
        return Upload(self)

    async def receive(
        self, upload: Upload, requests: AsyncIterator[pb.UpscaleStreamRequest]
    ) -> pb.UpscaleRequest:
        """The header, once the whole file is in `upload`.

        Raises InvalidInput (wrong order, or over a limit), Overloaded (too many uploads at once) or DeadlineExceeded
        (nothing came for `idle_s`).
        """
        header: pb.UpscaleRequest | None = None
        while (part := await self._next(requests)) is not None:
            kind = part.WhichOneof("part")
            if header is None:
                header = _first(part, kind)
                continue
            if kind != "data":
                raise InvalidInput(
                    "part", f"got {kind or 'neither header nor data'}, expected data after the header"
                )
            await upload.add(part.data)
        if header is None:
            raise InvalidInput("part", "the stream ended without a message, expected a header and then data")
        return header

    async def _next(self, requests: AsyncIterator[pb.UpscaleStreamRequest]) -> pb.UpscaleStreamRequest | None:
        try:
            async with asyncio.timeout(self._limits.idle_s):
                return await anext(requests, None)
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"nothing was uploaded for {self._limits.idle_s:g} s; the call was ended"
            ) from error

    def admit(self, size: int, more: int) -> None:
        """Count `more` bytes of an upload that has `size`. Raises InvalidInput or Overloaded."""
        if size + more > self._limits.max_upload_bytes:
            raise InvalidInput(
                "data", f"the image is larger than {self._limits.max_upload_bytes} bytes (--max-upload-bytes)"
            )
        if self._held_bytes + more > self._limits.max_uploads_bytes:
            raise Overloaded(
                f"uploads in work hold {self._held_bytes} of {self._limits.max_uploads_bytes} bytes; try again later",
                retry_after_s=RETRY_AFTER_S,
            )
        self._held_bytes += more

    def release(self, size: int) -> None:
        self._held_bytes -= size


def _first(part: pb.UpscaleStreamRequest, kind: str | None) -> pb.UpscaleRequest:
    if kind != "header":
        raise InvalidInput("part", f"got {kind or 'neither header nor data'} first, expected a header")
    if part.header.image:
        raise InvalidInput(
            "header.image", f"got {len(part.header.image)} bytes, expected none: the file goes into data"
        )
    return part.header
