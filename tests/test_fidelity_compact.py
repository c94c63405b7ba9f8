"""The compact upscaler, tiled, through a real server and client: its answers equal float32 torch on the whole picture.

Pictures of 16 bits, so that rounding hides nothing; the shipped weights; the halo as the build measures it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import pyvips
import torch

from export.build import photographs
from export.build.compare import difference
from export.build.options import BuildOptions
from export.build.pipeline import build
from export.checkpoints import checkpoint
from runtime.bundle import Bundle
from runtime.pictures.reading import open_picture
from runtime.tensors import Array
from server.client import Client
from server.launch import launched
from tests.test_fidelity import beside_seams

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

MODEL = "srvgg"
TILE = 64
LEAST_DB = 60.0
SIZES = [(5, 3), (64, 65), (230, 150)]  # width, height


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Client, Bundle]]:
    folder = tmp_path_factory.mktemp("bundles")
    bundle = build(BuildOptions(MODEL, None, {}, folder, None, "float32", targets=("onnx",), tile=TILE))
    with launched(folder, log=folder / "server.log") as server, Client(server.address) as client:
        yield client, bundle


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_served_equals_float32_torch_without_seams(
    served: tuple[Client, Bundle], size: tuple[int, int]
) -> None:
    client, bundle = served
    levels = np.rint(photographs.crop(size[1], size[0]) * 65535).astype(np.uint16)  # [3, H, W]
    answer = client.upscale(png(levels), format="png")
    assert answer.timing.precision == "float32"
    picture = open_picture(answer.image, max_pixels=1 << 24)
    assert picture.header.pixel_format.bits == 16
    answered = picture.rows().read(0, picture.header.height)
    with torch.inference_mode():
        image = torch.from_numpy(levels.astype(np.float32) / 65535)[None]
        expected = checkpoint.load(MODEL).module(image)[0].clamp(0, 1).numpy()
    assert difference(answered, expected, peak=1).psnr_db >= LEAST_DB
    beside = beside_seams(size, bundle.manifest)
    assert beside.any() == (max(size) > TILE)
    if beside.any():
        seam = difference(answered[:, beside], expected[:, beside], peak=1)
        assert seam.psnr_db >= LEAST_DB
        assert seam.max_abs <= 1 / 255


def png(levels: Array) -> bytes:
    """[3, H, W] uint16 → a PNG file of 16 bits."""
    image = pyvips.Image.new_from_array(np.ascontiguousarray(levels.transpose(1, 2, 0)))
    return image.copy(interpretation="rgb16").write_to_buffer(".png")
