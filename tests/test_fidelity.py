"""The whole path: served pictures equal float32 torch on the whole image, without seams.

Real weights, a real photograph, a real server process, lossless PNG through gRPC.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import cast

import numpy as np
import pytest
import torch

from export.build import photographs
from export.build.compare import difference
from export.build.options import BuildOptions
from export.build.pipeline import build
from export.checkpoints import checkpoint
from runtime import bundle, pixels
from runtime.backends.precisions import is_allowed
from runtime.manifest import Manifest
from runtime.pixels import to_uint8
from runtime.tensors import Precision
from runtime.tiling import geometry
from server.client import Client
from server.launch import launched

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

MODEL = "esrgan"
SIZES = [(1, 1), (7, 5), (63, 65), (200, 200), (481, 321), (1000, 700)]  # width, height
# Of 8-bit pictures. A float16 bundle never runs in bfloat16, which reaches 48 to 51 dB; a bfloat16 bundle does where the
# CPU has it, and elsewhere only its weights are rounded.
LEAST_DB = {"float32": 50.0, "float16": 53.0, "bfloat16": 48.0}
TILE = 128
HALO = 16  # where the search for one has run already, in float32
SEAM_PX = 8  # pixels of the output beside the border of two cores
SEAM_DB = 55.0


@pytest.fixture(scope="module", params=LEAST_DB)
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Client, bundle.Bundle]]:
    """A client of a server process that serves the shipped weights in one precision."""
    folder = tmp_path_factory.mktemp("bundles")
    options = BuildOptions(
        MODEL,
        None,
        {},
        folder,
        None,
        request.param,
        targets=("onnx", "openvino"),
        tile=TILE,
        halo=None if request.param == "float32" else HALO,
    )
    made = build(options)
    with launched(folder, log=folder / "server.log") as server, Client(server.address) as client:
        yield client, made


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_served_equals_float32_torch(served: tuple[Client, bundle.Bundle], size: tuple[int, int]) -> None:
    client, made = served
    precision = made.manifest.precision
    answer = client.upscale(pixels.encode(picture(size), "png"), format="png")
    answered = pixels.decode(answer.image, max_pixels=1 << 26)
    expected = whole_image_in_torch(size)
    assert is_allowed(cast(Precision, answer.timing.precision), precision)
    assert difference(answered, expected, peak=255).psnr_db >= LEAST_DB[precision]
    if answer.timing.precision == "float32" and precision == "float32":
        beside = beside_seams(size, made.manifest)
        if beside.any():
            seam = difference(answered[beside], expected[beside], peak=255)
            assert seam.psnr_db >= SEAM_DB
            assert seam.max_abs <= 1


@cache
def picture(size: tuple[int, int]) -> np.ndarray:
    """[H, W, 3] uint8 of a photograph, mirrored where it is too small."""
    width, height = size
    return to_uint8(photographs.crop(height, width, name="rocket.jpg").transpose(1, 2, 0))


@cache
def whole_image_in_torch(size: tuple[int, int]) -> np.ndarray:
    """[SH, SW, 3] uint8: the original module on the whole image at once."""
    with torch.inference_mode():
        image = torch.from_numpy(pixels.to_float(picture(size)))[None]
        return to_uint8(shipped()(image)[0].numpy().transpose(1, 2, 0))


@cache
def shipped() -> torch.nn.Module:
    return checkpoint.load(MODEL).module


def beside_seams(size: tuple[int, int], manifest: Manifest) -> np.ndarray:
    """[SH, SW] bool: pixels within SEAM_PX of a border between two tiles' cores."""
    width, height = size
    scale, (tile,) = manifest.scale, manifest.tile_sizes
    near = []
    for side in (height, width):
        cuts = [span.low * scale for span in list(geometry.split(side, tile=tile, halo=manifest.halo))[1:]]
        place = np.arange(side * scale)
        near.append(np.any([abs(place + 0.5 - cut) < SEAM_PX for cut in cuts], axis=0) if cuts else place < 0)
    return near[0][:, None] | near[1][None, :]
