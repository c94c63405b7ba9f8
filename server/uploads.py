"""Images that arrive in pieces: put together, in order, within their limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from protos import ganforge_pb2 as pb
from runtime.errors import DeadlineExceeded, InvalidInput, Overloaded
from server.limits import Limits

RETRY_AFTER_S = 1.0


class Uploads:
    """Every upload of one server, which share a budget of bytes."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._held_bytes = 0

    async def receive(
        self, requests: AsyncIterator[pb.UpscaleStreamRequest]
    ) -> tuple[pb.UpscaleRequest, bytes]:
        """The header and the whole file.

        Raises InvalidInput (wrong order, or over a limit), Overloaded (too many uploads at once) or DeadlineExceeded
        (nothing came for `idle_s`).
        """
        header: pb.UpscaleRequest | None = None
        pieces: list[bytes] = []
        size = 0
        try:
            while (part := await self._next(requests)) is not None:
                kind = part.WhichOneof("part")
                if header is None:
                    header = _first(part, kind)
                    continue
                if kind != "data":
                    raise InvalidInput(
                        "part", f"got {kind or 'neither header nor data'}, expected data after the header"
                    )
                piece = part.data
                self._admit(size, len(piece))
                size += len(piece)
                pieces.append(piece)
            if header is None:
                raise InvalidInput(
                    "part", "the stream ended without a message, expected a header and then data"
                )
            return header, b"".join(pieces)
        finally:
            self._held_bytes -= size

    async def _next(self, requests: AsyncIterator[pb.UpscaleStreamRequest]) -> pb.UpscaleStreamRequest | None:
        try:
            async with asyncio.timeout(self._limits.idle_s):
                return await anext(requests, None)
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"nothing was uploaded for {self._limits.idle_s:g} s; the call was ended"
            ) from error

    def _admit(self, size: int, more: int) -> None:
        if size + more > self._limits.max_upload_bytes:
            raise InvalidInput(
                "data", f"the image is larger than {self._limits.max_upload_bytes} bytes (--max-upload-bytes)"
            )
        if self._held_bytes + more > self._limits.max_uploads_bytes:
            raise Overloaded(
                f"uploads under way hold {self._held_bytes} of {self._limits.max_uploads_bytes} bytes; try again later",
                retry_after_s=RETRY_AFTER_S,
            )
        self._held_bytes += more


def _first(part: pb.UpscaleStreamRequest, kind: str | None) -> pb.UpscaleRequest:
    if kind != "header":
        raise InvalidInput("part", f"got {kind or 'neither header nor data'} first, expected a header")
    if part.header.image:
        raise InvalidInput(
            "header.image", f"got {len(part.header.image)} bytes, expected none: the file goes into data"
        )
    return part.header
