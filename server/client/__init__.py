"""The Python client.

    from server.client import Client

    with Client("127.0.0.1:50051") as client:
        photo = client.upscale(Path("photo.jpg").read_bytes(), outscale=2, format="png")
        Path("photo-2x.png").write_bytes(photo.image)
        samples = client.generate(16, seed=7, labels=["horse"]).images

Calls raise the errors of runtime/errors.py, whichever machine they happened on.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from protos import ganforge_pb2 as pb
from protos import ganforge_pb2_grpc as pb_grpc
from runtime.errors import EngineError, InvalidInput
from server import formats
from server.limits import CHUNK_BYTES, Limits
from server.statuses import from_rpc_error

DEFAULT_ADDRESS = "127.0.0.1:50051"
# Larger images travel in pieces: what comes back is tens of times as large, and must not meet the cap of a message.
STREAM_FROM_BYTES = 64 * 1024
# gRPC's own retries: while no answer has begun, and after as long as an overloaded server asks for.
RETRY_POLICY = {
    "methodConfig": [
        {
            "name": [{"service": "ganforge.v1.ImageGenerator"}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.2s",
                "maxBackoff": "5s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
            },
        }
    ]
}


@dataclass(frozen=True)
class Upscaled:
    """image: a whole file in `format`; width, height: its pixels; model: what ran; timing: where the time went."""

    image: bytes
    format: str
    width: int
    height: int
    model: str
    timing: pb.Timing


@dataclass(frozen=True)
class Generated:
    """images: whole files in `format`; labels: the class of each; seed: draws the same samples again."""

    images: tuple[bytes, ...]
    format: str
    width: int
    height: int
    model: str
    labels: tuple[int, ...]
    seed: int
    timing: pb.Timing


class Client:
    """One connection to a server; any number of threads may use it.

    address: "host:port". timeout_s: of each call, unless the call says another; None waits for ever.
    max_message_bytes: as the server's --max-message-bytes. retry: try again where the server is busy or not yet up.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        timeout_s: float | None = None,
        max_message_bytes: int = Limits.max_message_bytes,
        retry: bool = True,
    ) -> None:
        self._timeout_s = timeout_s
        options: list[tuple[str, str | int]] = [
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.max_send_message_length", max_message_bytes),
            ("grpc.enable_retries", int(retry)),
            ("grpc.service_config", json.dumps(RETRY_POLICY if retry else {})),
            # What was sent is kept for a retry; without this, only requests under 256 KiB would be tried again.
            ("grpc.per_rpc_retry_buffer_size", Limits.max_upload_bytes + CHUNK_BYTES),
        ]
        self._channel = grpc.insecure_channel(address, options)
        self._stub = pb_grpc.ImageGeneratorStub(self._channel)
        self._health = health_pb2_grpc.HealthStub(self._channel)

    def upscale(
        self,
        image: bytes | Path,
        *,
        model: str = "",
        outscale: float | None = None,
        format: str | None = None,
        quality: int | None = None,
        lossless: bool = False,
        compression: int | None = None,
        into: BinaryIO | None = None,
        on_progress: Callable[[int, int], None] | None = None,
        timeout_s: float | None = None,
    ) -> Upscaled:
        """Upscale one image file: its bytes, or where it lies.

        model: empty for the only one. outscale: output pixels per input pixel along a side; None: the model's own.
        format: "png", "jpeg", "webp" or "tiff"; None: the input's. quality: 1 to 100, of JPEG and WebP.
        lossless: of WebP. compression: 0 to 9, of PNG and TIFF. into: an open file that the answer is written to as it
        comes; its `image` is then empty. on_progress: hears (tiles done, tiles in all).
        """
        request = pb.UpscaleRequest(
            model=model,
            outscale=outscale,
            format=_number(format),
            quality=quality,
            lossless=lossless,
            compression=compression,
        )
        size = len(image) if isinstance(image, bytes) else image.stat().st_size
        timeout_s = timeout_s or self._timeout_s
        try:
            if on_progress is None and into is None and size < STREAM_FROM_BYTES:
                request.image = image if isinstance(image, bytes) else image.read_bytes()
                response = self._stub.Upscale(request, timeout=timeout_s)
                answer = response.image
            else:
                stream = self._stub.UpscaleStream(_pieces(request, image), timeout=timeout_s)
                file = into or io.BytesIO()
                response = _receive(stream, file, on_progress or (lambda done, total: None))
                answer = b"" if into else file.getvalue()  # type: ignore[attr-defined]
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        name = formats.NAMES[response.format]
        return Upscaled(answer, name, response.width, response.height, response.model, response.timing)

    def generate(
        self,
        count: int = 1,
        *,
        model: str = "",
        seed: int | None = None,
        labels: Sequence[int | str] = (),
        latents: Sequence[Sequence[float]] = (),
        format: str | None = None,
        truncation: float | None = None,
        timeout_s: float | None = None,
    ) -> Generated:
        """Draw `count` samples.

        labels: numbers or names of classes: none (drawn), one (for all) or `count`. latents: `count` latents instead
        of a seed. truncation: bounds the latents' values, in standard deviations. format: None for PNG.
        """
        request = pb.GenerateRequest(
            model=model,
            count=count,
            seed=seed,
            labels=self._label_numbers(labels, model),
            latents=[pb.Latent(values=values) for values in latents],
            format=_number(format),
            truncation=truncation,
        )
        try:
            response = self._stub.Generate(request, timeout=timeout_s or self._timeout_s)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        return Generated(
            images=tuple(response.images),
            format=formats.NAMES[response.format],
            width=response.width,
            height=response.height,
            model=response.model,
            labels=tuple(response.labels),
            seed=response.seed,
            timing=response.timing,
        )

    def models(self) -> list[pb.ModelInfo]:
        """What the server serves, by name."""
        try:
            return list(self._stub.ListModels(pb.ListModelsRequest(), timeout=self._timeout_s).models)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error

    def serving(self) -> bool:
        """Whether the server is there and every model is warm."""
        try:
            answer = self._health.Check(health_pb2.HealthCheckRequest(), timeout=self._timeout_s)
        except grpc.RpcError:
            return False
        return answer.status == health_pb2.HealthCheckResponse.SERVING

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _label_numbers(self, labels: Sequence[int | str], model: str) -> list[int]:
        if all(isinstance(label, int) for label in labels):
            return [int(label) for label in labels]
        infos = [info for info in self.models() if info.task == pb.TASK_GENERATE and model in ("", info.name)]
        names = [name for info in infos for name in info.class_names] if len(infos) == 1 else []
        for label in labels:
            if isinstance(label, str) and label not in names:
                known = (
                    f"one of {', '.join(names)}"
                    if names
                    else "a number: that model's classes have no names here"
                )
                raise InvalidInput("labels", f"got {label!r}, expected {known}")
        return [label if isinstance(label, int) else names.index(label) for label in labels]


def _number(format: str | None) -> pb.ImageFormat:
    if format is None:
        return pb.IMAGE_FORMAT_UNSPECIFIED
    if format not in formats.NUMBERS:
        raise InvalidInput("format", f"got {format!r}, expected one of {', '.join(formats.NUMBERS)}")
    return formats.NUMBERS[format]


def _pieces(header: pb.UpscaleRequest, image: bytes | Path) -> Iterator[pb.UpscaleStreamRequest]:
    yield pb.UpscaleStreamRequest(header=header)
    with io.BytesIO(image) if isinstance(image, bytes) else image.open("rb") as file:
        while piece := file.read(CHUNK_BYTES):
            yield pb.UpscaleStreamRequest(data=piece)


def _receive(
    stream: Iterator[pb.UpscaleStreamResponse], file: BinaryIO, on_progress: Callable[[int, int], None]
) -> pb.UpscaleResponse:
    """The header, once the whole answer is in `file`."""
    header: pb.UpscaleResponse | None = None
    for part in stream:
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
