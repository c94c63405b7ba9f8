"""Client: a connection to a server, with one method per call. Users import it from `server.client`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc

from protos import ganforge_pb2 as pb
from protos import ganforge_pb2_grpc as pb_grpc
from runtime.errors import GanforgeError, ModelNotFound, NotReady
from runtime.shares import Priority
from server import formats
from server.client.image_calls import ImageCall, OnProgress, send_image
from server.client.messages import format_number, label_numbers, message, priority_number, task_name
from server.client.results import ImageResult, SamplesResult
from server.client.security import Security
from server.limits import CHUNK_BYTES, Limits

DEFAULT_ADDRESS = "127.0.0.1:50051"
# Configuration of gRPC's retries. gRPC retries until an answer begins, and waits as long as an overloaded server asks.
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


class Client:
    """A connection to a server. Thread-safe. A context manager that closes the connection.

    address: "host:port". timeout_s: default timeout of each call, in seconds; None for no timeout.
    max_message_bytes: at least the server's --max-message-bytes. retry: retry calls if the server is busy or not yet up.
    tls: encrypt the connection; None: if one of the next four is given. ca: file with the CA of the server's certificate;
    None: gRPC's list of public ones. cert, key: files of the client's own certificate. server_name: the name in the
    server's certificate, if it is not that of the address. token: proves who calls; sent only over TLS or to this machine.
    Every call raises the errors of runtime/errors.py. Raises InvalidInput for files that are missing or wrong.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        timeout_s: float | None = None,
        max_message_bytes: int = Limits.max_message_bytes,
        retry: bool = True,
        tls: bool | None = None,
        ca: Path | None = None,
        cert: Path | None = None,
        key: Path | None = None,
        server_name: str | None = None,
        token: str | None = None,
    ) -> None:
        self._timeout_s = timeout_s
        self._security = Security(address, tls, ca, cert, key, server_name, token)
        options: list[tuple[str, str | int]] = [
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.max_send_message_length", max_message_bytes),
            ("grpc.enable_retries", int(retry)),
            ("grpc.service_config", json.dumps(RETRY_POLICY if retry else {})),
            # gRPC buffers what it sent for a retry. With its default, only requests under 256 KiB would be retried.
            ("grpc.per_rpc_retry_buffer_size", Limits.max_upload_bytes + CHUNK_BYTES),
        ]
        self._channel = self._security.channel(options)
        self._stub = pb_grpc.ImageGeneratorStub(self._channel)
        self._admin = pb_grpc.AdminStub(self._channel)
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
        priority: Priority | None = None,
        into: BinaryIO | None = None,
        on_progress: Callable[[int, int], None] | None = None,
        timeout_s: float | None = None,
    ) -> ImageResult:
        """Upscale one image file: its bytes, or its path.

        model: empty for the server's default. outscale: output pixels per input pixel along a side; None for the model's.
        format: "png", "jpeg", "webp" or "tiff"; None for the input's, or PNG if that cannot be written.
        quality: 1 to 100, of JPEG and WebP. lossless: of WebP. compression: 0 to 9, of PNG and TIFF.
        priority: "interactive" (the default) or "batch", which takes less of a busy server.
        into: an open binary file to write the answer to as it arrives; the result's `image` is then empty.
        on_progress: called with (tiles done, tiles in total). timeout_s: None for the client's.
        """
        request = message(
            pb.UpscaleRequest,
            model=model,
            outscale=outscale,
            format=format_number(format),
            quality=quality,
            lossless=lossless,
            compression=compression,
            priority=priority_number(priority),
        )
        call = ImageCall(self._stub.Upscale, self._stub.UpscaleStream, pb.UpscaleStreamRequest)
        return self._send(call, request, image, into, on_progress, timeout_s)

    def translate(
        self,
        image: bytes | Path,
        *,
        model: str = "",
        format: str | None = None,
        quality: int | None = None,
        lossless: bool = False,
        compression: int | None = None,
        priority: Priority | None = None,
        into: BinaryIO | None = None,
        on_progress: Callable[[int, int], None] | None = None,
        timeout_s: float | None = None,
    ) -> ImageResult:
        """Send one image file through an image-to-image model. The model determines the size of the answer.

        Parameters as for `upscale`. A model that cannot be tiled takes images of at most `max_whole_px` pixels.
        """
        request = message(
            pb.TranslateRequest,
            model=model,
            format=format_number(format),
            quality=quality,
            lossless=lossless,
            compression=compression,
            priority=priority_number(priority),
        )
        call = ImageCall(self._stub.Translate, self._stub.TranslateStream, pb.TranslateStreamRequest)
        return self._send(call, request, image, into, on_progress, timeout_s)

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
        priority: Priority | None = None,
        timeout_s: float | None = None,
    ) -> SamplesResult:
        """Draw `count` samples.

        model: empty for the server's default. seed: reproduces samples; None for a random one.
        labels: numbers or names of classes: none (drawn from the seed), one (for all samples) or `count`.
        latents: `count` latents, instead of a seed. truncation: limit on latent values, in standard deviations.
        priority: as for `upscale`.
        format: as for `upscale`, None for PNG. timeout_s: None for the client's.
        """
        request = message(
            pb.GenerateRequest,
            model=model,
            count=count,
            seed=seed,
            labels=self._label_numbers(labels, model),
            latents=[pb.Latent(values=values) for values in latents],
            format=format_number(format),
            truncation=truncation,
            priority=priority_number(priority),
        )
        with self._security.errors():
            response = self._stub.Generate(
                request, timeout=timeout_s or self._timeout_s, metadata=self._security.metadata
            )
        return SamplesResult(
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
        """Describe the served models, sorted by name."""
        with self._security.errors():
            answer = self._stub.ListModels(
                pb.ListModelsRequest(), timeout=self._timeout_s, metadata=self._security.metadata
            )
        return list(answer.models)

    def reload_models(self, names: Sequence[str] = ()) -> pb.ReloadModelsResponse:
        """Make the server's models follow its folder of bundles. names: only these; none: all. For administrators.

        Returns when the new models serve, and goes on if this times out. Raises PermissionDenied for other callers.
        """
        with self._security.errors():
            return self._admin.ReloadModels(
                pb.ReloadModelsRequest(names=names),
                timeout=self._timeout_s,
                metadata=self._security.metadata,
            )

    def model(self, task: pb.Task, name: str = "") -> pb.ModelInfo:
        """Describe the model of that task called `name`; for an empty name, the server's default.

        Raises ModelNotFound if the server has no such model, or no default for the task.
        """
        models = self.models()
        served = [info for info in models if info.task == task]
        chosen = [info for info in served if (info.name == name if name else info.is_default)]
        if len(chosen) == 1:
            return chosen[0]
        if not served:
            raise ModelNotFound(f"the server has no model to {task_name(task)}")
        names = ", ".join(info.name for info in served)
        problem = f"{name!r} is not served here" if name else "there is no default, so a model must be named"
        if others := [task_name(info.task) for info in models if name and info.name == name]:
            problem = f"{name!r} can {others[0]}, not {task_name(task)}"
        raise ModelNotFound(f"{problem}; the server has {names} to {task_name(task)}")

    def serving(self) -> bool:
        """Whether the server can be reached and every model is warm."""
        try:
            self.check_serving()
        except GanforgeError:
            return False
        return True

    def check_serving(self) -> None:
        """Raises NotReady or DeadlineExceeded, saying why, if the server cannot be reached or a model is not warm."""
        with self._security.errors():
            answer = self._health.Check(health_pb2.HealthCheckRequest(), timeout=self._timeout_s)
        if answer.status != health_pb2.HealthCheckResponse.SERVING:
            raise NotReady("the server is warming up or draining")

    def close(self) -> None:
        """Close the connection and cancel its running calls."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(
        self,
        call: ImageCall,
        request: Message,
        image: bytes | Path,
        into: BinaryIO | None,
        on_progress: OnProgress | None,
        timeout_s: float | None,
    ) -> ImageResult:
        with self._security.errors():
            return send_image(
                call,
                request,
                image,
                into=into,
                on_progress=on_progress,
                timeout_s=timeout_s or self._timeout_s,
                metadata=self._security.metadata,
            )

    def _label_numbers(self, labels: Sequence[int | str], model: str) -> list[int]:
        by_number = all(isinstance(label, int) for label in labels)
        class_names = [] if by_number else [*self.model(pb.TASK_GENERATE, model).class_names]
        return label_numbers(labels, class_names)
