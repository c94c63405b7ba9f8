"""Requests and answers of the core, as plain frozen dataclasses that know no protocol.

A front (for gRPC: server/grpc_front/front.py, with server/grpc_front/messages.py) makes a request of its messages, passes it to
server/core/service.py and makes messages of the answer. Requests are not validated here; server/core/params.py does that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runtime.shares import Priority
from runtime.tensors import TaskName


@dataclass(frozen=True)
class ImageRequest:
    """One picture to upscale or translate. Its file is passed separately. None stands for the server's default.

    model: a name; empty for the task's default. outscale: output pixels per input pixel along a side.
    format: "png", "jpeg", "webp" or "tiff". quality: 1 to 100, of JPEG and WebP. lossless: of WebP.
    compression: 0 to 9, of PNG and TIFF. priority: None for interactive.
    """

    model: str = ""
    outscale: float | None = None
    format: str | None = None
    quality: int | None = None
    lossless: bool = False
    compression: int | None = None
    priority: Priority | None = None


@dataclass(frozen=True)
class SamplesRequest:
    """Samples to draw. None stands for the server's default.

    model: a name; empty for the task's default. count: number of samples, from 1. seed: 0 to 2⁶⁴ - 1.
    labels: classes from 0: none (drawn from the seed), one (for all samples), or `count`.
    latents: none (drawn from the seed), or `count`. format: as in ImageRequest.
    truncation: limit on latent values, in standard deviations, above 0. priority: as in ImageRequest.
    """

    model: str = ""
    count: int = 1
    seed: int | None = None
    labels: Sequence[int] = ()
    latents: Sequence[Sequence[float]] = ()
    format: str | None = None
    truncation: float | None = None
    priority: Priority | None = None


@dataclass(frozen=True)
class Timing:
    """Where a request's time went, in milliseconds of wall time; `Times` in runtime/stopwatch.py defines each part.

    tiles: items computed (tiles, whole pictures or samples). precision: the narrowest that was really used. backend,
    device: the engines', separated by commas if there were several.
    model_version: `Bundle.version` of the model that ran. recovered: what saved the request after failures.
    estimate_ms: what total_ms was estimated to be when the request was admitted.
    """

    queue_ms: float
    inference_ms: float
    codec_ms: float
    total_ms: float
    tiles: int
    precision: str
    backend: str
    model_version: str
    device: str = ""
    recovered: tuple[str, ...] = ()
    estimate_ms: float = 0.0


@dataclass(frozen=True)
class ImageAnswer:
    """The answer to an ImageRequest.

    image: the file in `format`; empty if the file follows in pieces. width, height: in px. model: the model that ran.
    """

    image: bytes
    format: str
    width: int
    height: int
    model: str
    timing: Timing


@dataclass(frozen=True)
class SamplesAnswer:
    """The answer to a SamplesRequest.

    images: one file per sample, in `format`. width, height: of a sample, in px. model: the model that ran.
    labels: the class of each sample, empty if the model has none. seed: reproduces the samples; 0 if nothing was drawn.
    """

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
    """Tiles of a picture computed so far, and in total."""

    tiles_done: int
    tiles_total: int


@dataclass(frozen=True)
class ModelInfo:
    """Description of a served model.

    scale: output pixels per input pixel along a side. latent_size: values per latent, 0 if it takes none.
    class_names: empty if it has no classes. precision, backend: those of the latest engine, "" before the first.
    width, height: of a sample, in px; 0 for a model that takes pictures. is_default: whether it is the model for requests
    of its task that name none.
    max_whole_px: largest picture (width × height, in px) of a model that takes whole pictures; 0 for all others.
    version: `Bundle.version`. state: `Entry.state`.
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
    version: str
    state: str


# A piece of a streamed request: the request first, then pieces of the file. None: neither, which is an error.
PieceIn = ImageRequest | bytes | None
# A piece of a streamed answer: progress, then the answer without its image, then pieces of the file.
PieceOut = Progress | ImageAnswer | bytes
