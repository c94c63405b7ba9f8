"""Sends one image to Upscale or Translate and receives the answer. Client.upscale and Client.translate call `send_image`.

A small image is sent in one message. A larger one goes through the streaming call, in pieces, and so does any image if
the caller wants progress or the answer written to a file.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from runtime.errors import EngineError
from server import formats
from server.client.results import ImageResult
from server.limits import CHUNK_BYTES

# Images from this size on are streamed: the answer can be tens of times as large and must not exceed one message.
STREAM_FROM_BYTES = 64 * 1024

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class ImageCall:
    """The two calls of a task on images. unary, stream: the stub's methods. piece: message type of a streamed request."""

    unary: Callable[..., Any]
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
    metadata: Sequence[tuple[str, str]],
) -> ImageResult:
    """Send `request` (a message without an image) with `image` (a file's bytes, or its path), and return the answer.

    into: an open binary file to write the answer to as it arrives; the result's `image` is then empty.
    on_progress: called with (tiles done, tiles in total). metadata: of the call. Raises grpc.RpcError, or EngineError if
    there is no answer.
    """
    size = len(image) if isinstance(image, bytes) else image.stat().st_size
    if on_progress is None and into is None and size < STREAM_FROM_BYTES:
        request.image = image if isinstance(image, bytes) else image.read_bytes()
        response = call.unary(request, timeout=timeout_s, metadata=metadata)
        answer = response.image
    else:
        buffer = io.BytesIO()
        responses = call.stream(_pieces(call.piece, request, image), timeout=timeout_s, metadata=metadata)
        response = _receive(responses, into or buffer, on_progress or (lambda done, total: None))
        answer = buffer.getvalue()
    name = formats.NAMES[response.format]
    return ImageResult(answer, name, response.width, response.height, response.model, response.timing)


def _pieces(piece: type[Any], header: Any, image: bytes | Path) -> Iterator[Any]:
    yield piece(header=header)
    with io.BytesIO(image) if isinstance(image, bytes) else image.open("rb") as file:
        while data := file.read(CHUNK_BYTES):
            yield piece(data=data)


def _receive(responses: Iterator[Any], file: BinaryIO, on_progress: OnProgress) -> Any:
    """Write the streamed image to `file` and return the answer's header. Raises EngineError if there is none."""
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
