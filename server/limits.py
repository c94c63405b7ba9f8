"""The limits of a server. Each field of Limits is a flag of `python -m server` (server/options.py); Service keeps to them."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.errors import InvalidInput

MIB = 2**20
# Limit on latent values. Standard normal values are far smaller, and much larger ones overflow half precision.
MAX_LATENT = 100.0
# Uploads larger than this are written to a temporary file.
SPOOL_FROM_BYTES = MIB
# Size of a piece of an image sent in pieces.
CHUNK_BYTES = MIB
# Room in a message for everything but its image.
MESSAGE_MARGIN_BYTES = 64 * 1024
# Pictures of at most this many pixels, input and answer each, from files of at most so many bytes, get the "quick" codec
# threads. A file's bytes count too: a picture of 32×32 pixels may be followed by data that take minutes to decompress.
QUICK_PIXELS = 2**20
QUICK_FILE_BYTES = 2**20


@dataclass(frozen=True)
class Limits:
    """The limits of a server. Raises InvalidInput if they contradict each other.

    max_pixels: of an input image. max_output_pixels: of an answer; of all samples of a Generate request together.
    max_count: samples of a Generate request.
    max_message_bytes: of one message, in or out. max_upload_bytes: of one image uploaded in pieces.
    max_uploads_bytes: of all images being uploaded in pieces, together.
    max_active_bytes: memory of all running requests together, their answers included; one request may have three quarters.
    max_disk_bytes: temporary files together: uploads, which may have max_uploads_bytes of it, and answers that are too
        large for memory.
    max_queue_pixels: of all waiting requests together; further requests are refused at once.
    max_queue_s: estimated seconds of all waiting requests together; one request alone may need more.
    max_calls: calls open at once; max_calls_per_client: of them, from one address.
    max_watches: health watches open at once; one client may have half of them.
    max_transit_bytes: memory of messages that arrive, or that calls hold, and of answers that leave.
    idle_s: seconds without progress, in either direction, after which a call is ended.
    min_rate_bytes_s: bytes a second that a client must send or take.
    """

    max_pixels: int = 2**26
    max_output_pixels: int = 2**30
    max_count: int = 256
    max_message_bytes: int = 64 * MIB
    max_upload_bytes: int = 256 * MIB
    max_uploads_bytes: int = 1024 * MIB
    max_active_bytes: int = 1024 * MIB
    max_disk_bytes: int = 8 * 1024 * MIB
    max_queue_pixels: int = 2**27
    max_queue_s: float = 60.0
    max_calls: int = 256
    max_calls_per_client: int = 192
    max_watches: int = 1024
    max_transit_bytes: int = 512 * MIB
    idle_s: float = 60.0
    min_rate_bytes_s: int = 4 * 1024

    def __post_init__(self) -> None:
        if self.max_disk_bytes <= self.max_uploads_bytes:
            raise InvalidInput(
                "--max-disk-bytes",
                f"got {self.max_disk_bytes}, expected more than the {self.max_uploads_bytes} of --max-uploads-bytes, which "
                "are a part of it",
            )
