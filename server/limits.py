"""What one server accepts. Each field of Limits is a flag of `python -m server`, which makes one and gives it to Service."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 2**20
# Standard normal values never come near; larger ones overflow half precision.
MAX_LATENT = 100.0
# A larger upload is written to a temporary file instead of memory.
SPOOL_FROM_BYTES = MIB
# One piece of an answer that is sent in pieces.
CHUNK_BYTES = MIB
# What a message holds beside its image.
MESSAGE_MARGIN_BYTES = 64 * 1024
# Answers up to this many pixels are encoded by the codec threads that never work on larger ones.
QUICK_PIXELS = 2**20


@dataclass(frozen=True)
class Limits:
    """max_pixels: of one input image. max_output_pixels: of one answer, all samples of a Generate together.
    max_count: samples of one Generate.
    max_message_bytes: one message, in or out. max_upload_bytes: one image sent in pieces.
    max_uploads_bytes: all images that are being sent in pieces, together.
    max_active_bytes: memory of the requests in work together; a larger one runs alone.
    max_queue_pixels: of the requests that wait together; beyond it a request is refused at once.
    max_calls: calls open at once. idle_s: seconds that a stream may stand still, in or out, before its call is ended.
    """

    max_pixels: int = 2**26
    max_output_pixels: int = 2**30
    max_count: int = 256
    max_message_bytes: int = 64 * MIB
    max_upload_bytes: int = 256 * MIB
    max_uploads_bytes: int = 1024 * MIB
    max_active_bytes: int = 512 * MIB
    max_queue_pixels: int = 2**27
    max_calls: int = 256
    idle_s: float = 60.0
