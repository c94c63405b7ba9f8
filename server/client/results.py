"""ImageResult and SamplesResult, which the methods of Client return. Users import them from `server.client`."""

from __future__ import annotations

from dataclasses import dataclass

from protos import ganforge_pb2 as pb


@dataclass(frozen=True)
class ImageResult:
    """The answer of `Client.upscale` and `Client.translate`.

    image: the file in `format` ("png", "jpeg", "webp" or "tiff"); empty if the call wrote it to a file.
    width, height: in px. model: the model that ran. timing: where the time went, in ms.
    """

    image: bytes
    format: str
    width: int
    height: int
    model: str
    timing: pb.Timing


@dataclass(frozen=True)
class SamplesResult:
    """The answer of `Client.generate`.

    images: one file per sample, in `format`. width, height: of each, in px. model: the model that ran.
    labels: the class of each sample, empty if the model has no classes. seed: reproduces the samples; 0 if nothing was
    drawn. timing: where the time went, in ms.
    """

    images: tuple[bytes, ...]
    format: str
    width: int
    height: int
    model: str
    labels: tuple[int, ...]
    seed: int
    timing: pb.Timing
