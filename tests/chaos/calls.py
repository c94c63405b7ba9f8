"""The four calls, in forms that are small, long or large, and how they are made so that trouble can come in between."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import grpc
import numpy as np

from protos import ganforge_pb2 as pb
from protos import ganforge_pb2_grpc as pb_grpc
from runtime import pixels
from tests.server.bundles import SCALE as UPSCALERS_SCALE

MIB = 2**20
SIZES = ("small", "long", "large")
# Sides of pictures, and counts of samples: a thumbnail, a call of several batches, an answer larger than HTTP/2's window.
SIDE_PX = {"small": 24, "long": 90, "large": 90}
COUNT = {"small": 2, "long": 24, "large": 256}
COMPRESSION = {"small": 1, "long": 1, "large": 0}
LOCAL_POOL = ("grpc.use_local_subchannel_pool", 1)


@cache
def picture(side_px: int) -> bytes:
    """Noise, which PNG hardly compresses."""
    random = np.random.default_rng(side_px)
    return pixels.encode(random.integers(0, 256, (side_px, side_px, 3), np.uint8), "png")


def upscale(size: str) -> pb.UpscaleRequest:
    return pb.UpscaleRequest(model="upscaler", image=picture(SIDE_PX[size]), compression=COMPRESSION[size])


def translate(size: str) -> pb.TranslateRequest:
    # Its answer is as large as the picture.
    side_px = SIDE_PX[size] * (UPSCALERS_SCALE if size == "large" else 1)
    return pb.TranslateRequest(model="translator", image=picture(side_px), compression=COMPRESSION[size])


def generate(size: str) -> pb.GenerateRequest:
    return pb.GenerateRequest(model="generator", count=COUNT[size], seed=7)


REQUESTS: dict[str, Callable[[str], Any]] = {
    "Upscale": upscale,
    "UpscaleStream": upscale,
    "Translate": translate,
    "Generate": generate,
}
STREAMED = {"UpscaleStream"}


def pieces(size: str, padding_bytes: int = 0) -> Iterator[pb.UpscaleStreamRequest]:
    """The messages of UpscaleStream. padding_bytes: zeros after the file's end, which decoders ignore."""
    image = picture(SIDE_PX[size]) + bytes(padding_bytes)
    yield pb.UpscaleStreamRequest(header=pb.UpscaleRequest(model="upscaler", compression=COMPRESSION[size]))
    for at in range(0, len(image), MIB):
        yield pb.UpscaleStreamRequest(data=image[at : at + MIB])


def channel(address: str) -> grpc.Channel:
    """A connection of its own, without gRPC's retries."""
    options = [LOCAL_POOL, ("grpc.enable_retries", 0), ("grpc.max_receive_message_length", -1)]
    return grpc.insecure_channel(address, options)


@dataclass
class Running:
    """A call that runs. `outcome` waits for its code; `answer` is then what came."""

    call: Any
    streamed: bool
    answer: list[bytes] = field(default_factory=list)
    code: str = ""

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            if self.streamed:
                self.answer = [part.data for part in self.call if part.data]
            else:
                result = self.call.result()
                self.answer = list(result.images) if hasattr(result, "images") else [result.image]
            self.code = "OK"
        except grpc.FutureCancelledError:
            self.code = "CANCELLED"
        except grpc.RpcError as error:
            self.code = error.code().name

    def outcome(self, timeout_s: float = 30.0) -> str:
        """The code with which the call ended; "unanswered" if it has not."""
        self._thread.join(timeout_s)
        return self.code or f"unanswered after {timeout_s:g} s"


def start(
    connection: grpc.Channel,
    name: str,
    size: str,
    *,
    request_id: str,
    timeout_s: float | None = None,
    requests: Iterator[Any] | None = None,
) -> Running:
    """Make a call. requests: the messages of a stream, instead of the usual ones."""
    method = getattr(pb_grpc.ImageGeneratorStub(connection), name)
    metadata = (("x-request-id", request_id),)
    if name in STREAMED:
        return Running(method(requests or pieces(size), timeout=timeout_s, metadata=metadata), True)
    return Running(method.future(REQUESTS[name](size), timeout=timeout_s, metadata=metadata), False)
