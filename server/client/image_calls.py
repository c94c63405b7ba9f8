"""Sends one image to a call that answers with one image, and receives the answer.

Client.upscale uses it. A small image travels in one message; a larger one, or one whose progress or whose
answer's file is asked for, goes through the streaming call of the same name, in pieces.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import grpc

from runtime.errors import EngineError
from server import formats
from server.client.results import ImageResult
from server.limits import CHUNK_BYTES
from server.statuses import from_rpc_error

# Larger images travel in pieces: the answer is tens of times as large, and must not reach the limit of one message.
STREAM_FROM_BYTES = 64 * 1024

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class ImageCall:
    """One way from image to image. whole, stream: the stub's two calls. piece: message type of a streamed request."""

    whole: Callable[..., Any]
    stream: Callable[..., Any]
    piece: type[Any]


def send_image(
    call: ImageCall,
    request: Any,
    image: bytes | Path,
    *,
    into: BinaryIO | None,
    on_progress: OnProgress | None,
    timeout_s: float | None,
) -> ImageResult:
    """Send `request` with `image`, and return the answer.

    into: an open file that the answer is written to as it arrives. on_progress: called with (tiles done, tiles in
    all). Raises the errors of runtime/errors.py.
    """
    size = len(image) if isinstance(image, bytes) else image.stat().st_size
    try:
        if on_progress is None and into is None and size < STREAM_FROM_BYTES:
            request.image = image if isinstance(image, bytes) else image.read_bytes()
            response = call.whole(request, timeout=timeout_s)
            answer = response.image
        else:
            buffer = io.BytesIO()
            responses = call.stream(_pieces(call.piece, request, image), timeout=timeout_s)
            response = _receive(responses, into or buffer, on_progress or (lambda done, total: None))
            answer = buffer.getvalue()
    except grpc.RpcError as error:
        raise from_rpc_error(error) from error
    name = formats.NAMES[response.format]
    return ImageResult(answer, name, response.width, response.height, response.model, response.timing)


def _pieces(piece: type[Any], header: Any, image: bytes | Path) -> Iterator[Any]:
    yield piece(header=header)
    with io.BytesIO(image) if isinstance(image, bytes) else image.open("rb") as file:
        while data := file.read(CHUNK_BYTES):
            yield piece(data=data)


def _receive(responses: Iterator[Any], file: BinaryIO, on_progress: OnProgress) -> Any:
    """The answer's header, once the whole image is in `file`."""
    header = None
    for part in responses:
        match part.WhichOneof("part"):
            case "progress":
                on_progress(part.progress.tiles_done, part.progress.tiles_total)
            case "header":
                header = part.header
            case "data":
                file.write(part.data)
    if header is None:
        raise EngineError("the server's stream ended without an answer")
    return header
