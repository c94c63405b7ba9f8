"""The core without a front: driven by plain dataclasses, in a process that cannot import gRPC or protobuf."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.server.bundles import write_generator, write_translator, write_upscaler

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import asyncio, sys
from pathlib import Path

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"grpc", "grpc_health", "grpc_reflection", "grpc_status", "google", "protos"}:
            raise ImportError(name + " is blocked here")
sys.meta_path.insert(0, Blocked())

import numpy as np
from runtime import bundle, pixels
from runtime.errors import InvalidInput, NotReady, Overloaded
from server.core.calls import Call
from server.limits import Limits
from server.models.models import Models
from server.core.requests import ImageAnswer, ImageRequest, Progress, SamplesRequest
from server.core.service import Service

image = pixels.encode(np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8), "png")

def size(file):
    return pixels.decode(file, max_pixels=10**6).shape

async def pieces():
    yield ImageRequest(format="webp")
    yield image[:500]
    yield image[500:]

async def main():
    service = Service(Limits(max_calls=2))
    try:
        await service.list_models()
        raise AssertionError("served before it was ready")
    except NotReady as error:
        assert "warming up" in str(error)
    service.ready(Models.open(bundle.discover(Path(sys.argv[1]))))

    async def answer(method, *arguments):
        answers = []
        async def send(answer):
            answers.append(answer)
        call = Call.begin("any", request_id="abc-1", time_left_s=60)
        async with service.open(call):
            await method(*arguments, send, call)
        return answers[0]

    call = Call.begin("image", request_id="abc-1", time_left_s=60)
    assert call.request_id == "abc-1"
    upscaled = await answer(service.image, "upscale", ImageRequest(outscale=2.0), image)
    assert size(upscaled.image) == (60, 80, 3)
    assert upscaled.timing.tiles > 0
    translated = await answer(service.image, "translate", ImageRequest(), image)
    assert size(translated.image) == (30, 40, 3)
    assert translated.timing.tiles == 1
    samples = await answer(service.samples, "generate", SamplesRequest(count=3, seed=1))
    assert len(samples.images) == 3

    received = []
    async def send(piece):
        received.append(piece)
    stream = Call.begin("stream")
    async with service.open(stream):
        await service.image_stream("upscale", pieces(), send, stream)
    (header,) = [piece for piece in received if isinstance(piece, ImageAnswer)]
    assert header.image == b"" and header.format == "webp"
    assert any(isinstance(piece, Progress) for piece in received[:received.index(header)])
    file = b"".join(piece for piece in received if isinstance(piece, bytes))
    assert size(file) == (120, 160, 3)

    try:
        await answer(service.image, "upscale", ImageRequest(format="bmp"), image)
        raise AssertionError("took a format that cannot be written")
    except InvalidInput as error:
        assert error.field == "format"
    three = [
        asyncio.create_task(answer(service.samples, "generate", SamplesRequest(count=9)))
        for _ in range(3)
    ]
    ended = await asyncio.gather(*three, return_exceptions=True)
    assert sum(isinstance(one, Overloaded) for one in ended) == 1
    assert [info.is_default for info in await service.list_models()] == [True] * 3
    service.close()

asyncio.run(main())
assert not [name for name in sys.modules if name.split(".")[0] in {"grpc", "google", "protos"}]
print("served")
"""


def test_the_core_serves_with_grpc_and_protobuf_unimportable(tmp_path: Path) -> None:
    for write in (write_upscaler, write_generator, write_translator):
        write(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "served"
