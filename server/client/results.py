"""What the calls of the Python client return. Both classes are public: `from server.client import ImageResult`."""

from __future__ import annotations

from dataclasses import dataclass

from protos import ganforge_pb2 as pb


@dataclass(frozen=True)
class ImageResult:
    """The image that a model made of another one.

    image: a whole file in `format` ("png", "jpeg", "webp" or "tiff"); empty where the call wrote it to a file.
    width, height: px of the image. model: the model that ran. timing: where the time went, in ms.
    """

    image: bytes
    format: str
    width: int
    height: int
    model: str
    timing: pb.Timing


@dataclass(frozen=True)
class SamplesResult:
    """Samples that a model drew.

    images: whole files in `format`. width, height: px of each. labels: the class of each, empty where the model has
    no classes. seed: what draws the same samples again; 0 where the caller gave the latents.
    """

    images: tuple[bytes, ...]
    format: str
    width: int
    height: int
    model: str
    labels: tuple[int, ...]
    seed: int
    timing: pb.Timing
