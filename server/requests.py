"""What a caller asks of the core and what comes back: plain frozen dataclasses, with no protocol in them.

A front (server/grpc_front.py is the one for gRPC) makes a request of its own messages, hands it to
server/service.py, and makes messages of the answer. Nothing here is checked yet: server/params.py does that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runtime.tensors import TaskName


@dataclass(frozen=True)
class ImageRequest:
    """One picture to upscale or translate; its file comes beside it. None: the caller left it to the server.

    model: a name, or empty for the task's default. outscale: output pixels per input pixel along a side.
    format: "png", "jpeg", "webp" or "tiff". quality: 1 to 100, of JPEG and WebP. lossless: of WebP.
    compression: 0 to 9, of PNG and TIFF.
    """

    model: str = ""
    outscale: float | None = None
    format: str | None = None
    quality: int | None = None
    lossless: bool = False
    compression: int | None = None


@dataclass(frozen=True)
class SamplesRequest:
    """Samples to draw. None: the caller left it to the server.

    model: a name, or empty for the task's default. count: from 1. seed: 0 to 2⁶⁴ - 1. labels: classes from 0: none,
    one for all, or `count`. latents: `count` of them instead of a seed. format: as ImageRequest's. truncation: in
    standard deviations, above 0.
    """

    model: str = ""
    count: int = 1
    seed: int | None = None
    labels: Sequence[int] = ()
    latents: Sequence[Sequence[float]] = ()
    format: str | None = None
    truncation: float | None = None


@dataclass(frozen=True)
class Timing:
    """Where a request's time went: milliseconds of wall time, as runtime/stopwatch.py defines them.

    tiles: items computed (tiles, whole pictures or samples). precision, backend: of the engine that ran.
    """

    queue_ms: float
    inference_ms: float
    codec_ms: float
    total_ms: float
    tiles: int
    precision: str
    backend: str


@dataclass(frozen=True)
class ImageAnswer:
    """image: a whole file in `format`; empty where the file follows in pieces. width, height: its pixels."""

    image: bytes
    format: str
    width: int
    height: int
    model: str
    timing: Timing


@dataclass(frozen=True)
class SamplesAnswer:
    """images: a whole file each. labels: their classes, empty where there are none. seed: draws the same again."""

    images: tuple[bytes, ...]
    format: str
    width: int
    height: int
    model: str
    labels: tuple[int, ...]
    seed: int
    timing: Timing


@dataclass(frozen=True)
class Progress:
    """Tiles computed, of all tiles of the picture."""

    tiles_done: int
    tiles_total: int


@dataclass(frozen=True)
class ModelInfo:
    """A model that is served.

    latent_size: 0 where there is none. class_names: empty where there are no classes. width, height: pixels of a
    sample; 0 for a model that takes pictures. is_default: it runs where a request of its task names no model.
    max_whole_px: pixels of the largest picture of a model that is not tiled; 0 where it is.
    """

    name: str
    task: TaskName
    scale: int
    latent_size: int
    class_names: tuple[str, ...]
    precision: str
    backend: str
    width: int
    height: int
    is_default: bool
    max_whole_px: int


# What a caller sends in pieces: a request first, then the file. None: a piece that is neither.
PieceIn = ImageRequest | bytes | None
# What comes back in pieces: progress, then the answer without its image, then the file.
PieceOut = Progress | ImageAnswer | bytes
