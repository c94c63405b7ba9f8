"""Tests of the family `style` behind a server: answers equal float32 torch, in whole pictures or in tiles without a seam."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from export.build import photographs
from export.build.compare import difference
from export.build.options import BuildOptions
from export.build.pipeline import build
from export.checkpoints import checkpoint
from export.families.spec import Spec
from export.models.style.generator import SPEC, Config
from runtime import pixels
from runtime.bundle import Bundle
from server.client import Client
from server.launch import launched
from tests.export.lively import lively

pytestmark = pytest.mark.slow

# The receptive field of one residual block reaches 22 px: this halo changes nothing.
TILE, HALO = 96, 24
SIZES = [(203, 130), (64, 64), (9, 5), (1, 1)]  # width, height
NORMS = ("instance", "batch")


@pytest.fixture(scope="module")
def networks() -> dict[str, nn.Module]:
    return {norm: with_norm(norm) for norm in NORMS}


def with_norm(norm: str) -> nn.Module:
    config = Config(features=8, blocks=1, norm=norm)  # type: ignore[arg-type]
    module = lively(Spec(**(vars(SPEC) | {"tiny": config})))
    last = module.get_submodule("deconv3.conv2d")
    assert isinstance(last, nn.Conv2d)
    assert last.bias is not None
    last.weight.data *= 100  # `lively` makes an output in [0, 1]
    last.bias.data += 128
    return module.half().float()  # as the checkpoint holds it


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory, networks: dict[str, nn.Module]) -> dict[str, Bundle]:
    folder = tmp_path_factory.mktemp("style")
    made = {}
    for norm, module in networks.items():
        weights = folder / f"{norm}.safetensors"
        checkpoint.save(weights, "style", Config(features=8, blocks=1, norm=norm), module)  # type: ignore[arg-type]
        sizes: dict[str, Any] = (
            {"tile": TILE, "halo": HALO} if norm == "batch" else {"max_whole_px": 256 * 256}
        )
        options = BuildOptions(
            "style", str(weights), {}, folder / "bundles", norm, "float32", targets=("onnx",), **sizes
        )
        made[norm] = build(options)
    return made


@pytest.fixture(scope="module")
def client(bundles: dict[str, Bundle]) -> Iterator[Client]:
    folder = bundles["batch"].path.parent
    with launched(folder, log=folder.parent / "server.log") as server, Client(server.address) as client:
        yield client


@pytest.mark.parametrize("norm", NORMS)
def test_a_served_picture_is_what_torch_computes(
    norm: str, client: Client, networks: dict[str, nn.Module]
) -> None:
    for width, height in SIZES:
        picture = (photographs.crop(height, width).transpose(1, 2, 0) * 255).round().astype(np.uint8)
        answer = client.translate(pixels.encode(picture, "png"), model=norm, format="png")
        painted = pixels.decode(answer.image, max_pixels=1 << 20)
        expected = in_torch(networks[norm], picture)
        assert expected.std() > 5 or width == 1
        assert painted.shape == picture.shape
        assert difference(painted, expected, peak=255).psnr_db >= 60
        assert np.abs(painted.astype(int) - expected).max() <= 1
        tiles = answer.timing.tiles
        assert tiles > 4 if (norm, width) == ("batch", 203) else tiles == 1


def in_torch(network: nn.Module, picture: np.ndarray) -> np.ndarray:
    """[H, W, 3] uint8 → the same, by the module on the whole picture, mirrored to a size that it takes."""
    height, width = picture.shape[:2]
    down, right = (max(-(-side // 4) * 4, 8) - side for side in (height, width))
    padded = np.pad(picture, ((0, down), (0, right), (0, 0)), mode="reflect")
    with torch.inference_mode():
        painted = network(torch.from_numpy(padded).permute(2, 0, 1)[None].float())[0]
    return painted[:, :height, :width].permute(1, 2, 0).round().clamp(0, 255).numpy().astype(np.uint8)


def test_batch_norm_leaves_tiles_and_instance_norm_whole_pictures(bundles: dict[str, Bundle]) -> None:
    batch, instance = (bundles[norm].manifest for norm in ("batch", "instance"))
    assert (batch.tiled, batch.tile_sizes, batch.halo) == (True, (TILE,), HALO)
    assert (instance.tiled, instance.tile_sizes) == (False, ())
