"""Converts messages of protos/ganforge.proto to the core's requests, and the core's answers to messages.

server/grpc_front/front.py calls it. The messages of Upscale and Translate have the same fields, so the same functions convert
both; an `ImageMessages` says which.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from protos import ganforge_pb2 as pb
from runtime.errors import InvalidInput
from runtime.shares import Priority
from runtime.tensors import TaskName
from server import formats, priorities
from server.core.requests import (
    ImageAnswer,
    ImageRequest,
    ModelInfo,
    PieceIn,
    PieceOut,
    Progress,
    SamplesAnswer,
    SamplesRequest,
    Timing,
)
from server.limits import MESSAGE_MARGIN_BYTES

# Numbers of the fields that hold bytes of pictures: of requests, and of the pieces of streamed ones.
IMAGE, DATA = 2, 2
# And those of answers: of an UpscaleResponse and a TranslateResponse, and of a GenerateResponse.
ANSWER_IMAGE, ANSWER_IMAGES = 1, 1
# Bytes of a value in a message at most: a float or a label with its tag, and a latent's own tag and length.
VALUE_BYTES, LATENT_BYTES = 6, 12

TASKS: Mapping[TaskName, pb.Task] = {
    "upscale": pb.TASK_UPSCALE,
    "translate": pb.TASK_TRANSLATE,
    "generate": pb.TASK_GENERATE,
}


@dataclass(frozen=True)
class ImageMessages:
    """A task on pictures and its message types. piece_in, piece: of a streamed request's and answer's piece."""

    task: TaskName
    request: type[Any]
    response: type[Any]
    piece_in: type[Any]
    piece: type[Any]


UPSCALE = ImageMessages(
    "upscale", pb.UpscaleRequest, pb.UpscaleResponse, pb.UpscaleStreamRequest, pb.UpscaleStreamResponse
)
TRANSLATE = ImageMessages(
    "translate",
    pb.TranslateRequest,
    pb.TranslateResponse,
    pb.TranslateStreamRequest,
    pb.TranslateStreamResponse,
)


def image_request(message: Any) -> ImageRequest:
    """The request in an UpscaleRequest or a TranslateRequest, without its image."""
    return ImageRequest(
        model=message.model,
        outscale=_given(message, "outscale"),
        format=_format(message.format),
        quality=_given(message, "quality"),
        lossless=message.lossless,
        compression=_given(message, "compression"),
        priority=_priority(message.priority),
    )


async def pieces_in(parts: AsyncIterator[tuple[Any, bytes | None]]) -> AsyncIterator[PieceIn]:
    """The pieces in a stream of UpscaleStreamRequest or TranslateStreamRequest, each without its data, and its data.

    Raises InvalidInput if the header contains an image.
    """
    async for message, data in parts:
        if data is not None:
            yield data
        elif message.WhichOneof("part") == "header":
            if message.header.image:
                size = len(message.header.image)
                raise InvalidInput("header.image", f"got {size} bytes, expected none; send the file as data")
            yield image_request(message.header)
        else:
            yield None


def largest_samples_request(max_count: int, latent_size: int) -> int:
    """Bytes of a GenerateRequest with as many labels and latents as it may have. latent_size: of the largest model."""
    sample_bytes = VALUE_BYTES + LATENT_BYTES + latent_size * VALUE_BYTES
    return MESSAGE_MARGIN_BYTES + max_count * sample_bytes


def image_response(kind: ImageMessages, answer: ImageAnswer) -> Any:
    """An UpscaleResponse or a TranslateResponse."""
    return kind.response(
        image=answer.image,
        format=formats.NUMBERS[answer.format],
        width=answer.width,
        height=answer.height,
        model=answer.model,
        timing=_timing(answer.timing),
    )


def piece_out(kind: ImageMessages, piece: PieceOut) -> Any:
    """An UpscaleStreamResponse or a TranslateStreamResponse."""
    if isinstance(piece, bytes):
        return kind.piece(data=piece)
    if isinstance(piece, Progress):
        return kind.piece(progress=pb.Progress(tiles_done=piece.tiles_done, tiles_total=piece.tiles_total))
    return kind.piece(header=image_response(kind, piece))


def samples_request(message: pb.GenerateRequest) -> SamplesRequest:
    """The request in a GenerateRequest."""
    return SamplesRequest(
        model=message.model,
        count=message.count,
        seed=_given(message, "seed"),
        labels=tuple(message.labels),
        latents=tuple(tuple(latent.values) for latent in message.latents),
        format=_format(message.format),
        truncation=_given(message, "truncation"),
        priority=_priority(message.priority),
    )


def generate_response(answer: SamplesAnswer) -> pb.GenerateResponse:
    """The message of samples."""
    return pb.GenerateResponse(
        images=answer.images,
        format=formats.NUMBERS[answer.format],
        width=answer.width,
        height=answer.height,
        model=answer.model,
        labels=answer.labels,
        timing=_timing(answer.timing),
        seed=answer.seed,
    )


def model_info(info: ModelInfo) -> pb.ModelInfo:
    """The message of a model's description."""
    return pb.ModelInfo(
        name=info.name,
        task=TASKS[info.task],
        scale=info.scale,
        latent_size=info.latent_size,
        class_names=info.class_names,
        precision=info.precision,
        backend=info.backend,
        width=info.width,
        height=info.height,
        is_default=info.is_default,
        max_whole_px=info.max_whole_px,
        version=info.version,
        state=info.state,
    )


def _timing(timing: Timing) -> pb.Timing:
    return pb.Timing(
        queue_ms=timing.queue_ms,
        inference_ms=timing.inference_ms,
        codec_ms=timing.codec_ms,
        total_ms=timing.total_ms,
        tiles=timing.tiles,
        precision=timing.precision,
        backend=timing.backend,
        model_version=timing.model_version,
        recovered=timing.recovered,
        device=timing.device,
        estimate_ms=timing.estimate_ms,
    )


def _given(message: Any, name: str) -> Any:
    """The value of an optional field; None if it is not set or the message has no such field."""
    known = name in message.DESCRIPTOR.fields_by_name
    return getattr(message, name) if known and message.HasField(name) else None


def _priority(number: pb.Priority) -> Priority | None:
    """The priority of that number; None if the caller chose none. Raises InvalidInput for an unknown one."""
    if number == pb.PRIORITY_UNSPECIFIED:
        return None
    if number not in priorities.NAMES:
        known = ", ".join(f"{number} ({name})" for number, name in priorities.NAMES.items())
        raise InvalidInput("priority", f"got {number}, expected one of {known}")
    return priorities.NAMES[number]


def _format(number: pb.ImageFormat) -> str | None:
    """The name of a format; None if the caller chose none; for an unknown format its number, which the core refuses."""
    return None if number == pb.IMAGE_FORMAT_UNSPECIFIED else formats.NAMES.get(number, str(number))
