"""Tests of SRGAN's generator behind a server: in tiles, answers equal float32 torch on the whole picture, without a seam."""

from __future__ import annotations

from collections.abc import Iterator

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
from export.models.srgan.generator import SPEC, Config
from runtime import pixels
from server.client import Client
from server.launch import launched
from tests.export.lively import lively

pytestmark = pytest.mark.slow

CONFIGS = {
    "paper": Config(features=8, blocks=1),
    "leftthomas": Config(features=8, blocks=2, scale=2, trunk_norm=False, output="tanh"),
}
# Both networks see 12 px around a pixel at most: this halo changes nothing.
TILE, HALO = 48, 12
SIZES = [(103, 70), (48, 48), (9, 5), (1, 1)]  # width, height


@pytest.fixture(scope="module")
def networks() -> dict[str, nn.Module]:
    # As checkpoints hold them.
    return {
        name: lively(Spec(**(vars(SPEC) | {"tiny": config}))).half().float()
        for name, config in CONFIGS.items()
    }


@pytest.fixture(scope="module")
def client(networks: dict[str, nn.Module], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("srgan")
    for name, config in CONFIGS.items():
        weights = folder / f"{name}.safetensors"
        checkpoint.save(weights, "srgan", config, networks[name])
        options = BuildOptions(
            "srgan", str(weights), {}, folder / "bundles", name, "float32", targets=("onnx",), tile=TILE, halo=HALO
        )  # fmt: skip
        build(options)
    with launched(folder / "bundles", log=folder / "server.log") as server, Client(server.address) as opened:
        yield opened


@pytest.mark.parametrize("name", CONFIGS)
def test_a_served_picture_is_what_torch_computes(
    name: str, client: Client, networks: dict[str, nn.Module]
) -> None:
    config = CONFIGS[name]
    for width, height in SIZES:
        picture = (photographs.crop(height, width).transpose(1, 2, 0) * 255).round().astype(np.uint8)
        answer = client.upscale(pixels.encode(picture, "png"), model=name, format="png")
        upscaled = pixels.decode(answer.image, max_pixels=1 << 20)
        expected = in_torch(networks[name], config, picture)
        assert upscaled.shape == (height * config.scale, width * config.scale, 3)
        assert expected.std() > 5 or width == 1
        assert difference(upscaled, expected, peak=255).psnr_db >= 60
        assert np.abs(upscaled.astype(int) - expected).max() <= 1
        assert answer.timing.tiles > 4 if width > TILE else answer.timing.tiles == 1


def in_torch(network: nn.Module, config: Config, picture: np.ndarray) -> np.ndarray:
    """[H, W, 3] uint8 → [S·H, S·W, 3] uint8, by the module on the whole picture at once."""
    image = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        output = network(image)[0].permute(1, 2, 0)
    levels = output if config.output == "tanh" else (output + 1) / 2
    return (levels * 255).round().clamp(0, 255).numpy().astype(np.uint8)
