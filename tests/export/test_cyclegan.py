"""Tests of the family `cyclegan`: its networks are the public ones, and a served answer is what torch computes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from export import families
from export.models.cyclegan.discriminator import Discriminator
from export.models.cyclegan.generator import Config, build
from runtime import pixels
from runtime.bundle import Bundle
from runtime.errors import InvalidInput
from server.client import Client
from server.launch import launched
from tests.export.lively import lively

TinyBundle = Callable[..., Bundle]


def normalised(x: Tensor) -> Tensor:
    variance, mean = torch.var_mean(x, (2, 3), correction=0, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt()


def convolved(state: dict[str, Tensor], name: str, x: Tensor, mirrored: int = 0, **options: int) -> Tensor:
    x = F.pad(x, (mirrored,) * 4, mode="reflect") if mirrored else x
    return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], **options)


def original(state: dict[str, Tensor], x: Tensor, blocks: int) -> Tensor:
    """What pytorch-CycleGAN-and-pix2pix's ResnetGenerator computes from its own state dict, written from its source."""
    x = F.relu(normalised(convolved(state, "model.1", x, 3)))
    for name in ("model.4", "model.7"):
        x = F.relu(normalised(convolved(state, name, x, stride=2, padding=1)))
    for number in range(10, 10 + blocks):
        inner = F.relu(normalised(convolved(state, f"model.{number}.conv_block.1", x, 1)))
        x = x + normalised(convolved(state, f"model.{number}.conv_block.5", inner, 1))
    for number in (10 + blocks, 13 + blocks):
        weight, bias = state[f"model.{number}.weight"], state[f"model.{number}.bias"]
        x = F.relu(normalised(F.conv_transpose2d(x, weight, bias, stride=2, padding=1, output_padding=1)))
    return torch.tanh(convolved(state, f"model.{17 + blocks}", x, 3))


@pytest.mark.parametrize("blocks", [6, 9])
def test_the_resnet_computes_what_the_public_one_does(blocks: int) -> None:
    torch.manual_seed(0)
    module = build(Config(blocks=blocks, features=4)).eval()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, 0.0, 0.2)
    x = torch.rand(2, 3, 16, 24) * 2 - 1
    with torch.inference_mode():
        expected = original(module.state_dict(), x, blocks)
        torch.testing.assert_close(module(x), expected, rtol=0, atol=2e-4)  # float32, other order of sums
    assert expected.std() > 0.1


def test_the_papers_generator_has_the_papers_size() -> None:
    """pytorch-CycleGAN-and-pix2pix prints these for resnet_9blocks, resnet_6blocks and the basic discriminator."""
    counts = [sum(p.numel() for p in build(Config(blocks=blocks)).parameters()) for blocks in (9, 6)]
    assert counts == [11_378_179, 7_837_699]
    patches = Discriminator(channels=3, width=64, layers=3, norm="instance")
    assert sum(p.numel() for p in patches.parameters()) == 2_764_737


def test_initial_weights_are_normal_with_a_spread_of_0_02() -> None:
    weights = build(Config(blocks=1)).state_dict()
    assert weights["model.7.weight"].std().item() == pytest.approx(0.02, rel=0.02)
    assert not weights["model.7.bias"].any()


@pytest.mark.parametrize(("layers", "field_px"), [(1, 16), (2, 34), (3, 70), (4, 142)])
def test_a_logit_of_the_discriminator_sees_a_patch_of_the_papers_size(layers: int, field_px: int) -> None:
    torch.manual_seed(0)
    # Batch norm in eval mode, since instance norm's statistics come from the whole picture.
    network = Discriminator(channels=3, width=2, layers=layers, norm="batch").eval()
    picture = torch.randn(1, 3, 256, 256, requires_grad=True)
    patches = network(picture).logits
    side = round(len(patches) ** 0.5)
    assert len(patches) == side**2
    (gradient,) = torch.autograd.grad(patches[(side // 2) * side + side // 2], picture)
    seen = gradient.abs().sum((0, 1)) > 0
    rows, columns = seen.any(1).nonzero().flatten(), seen.any(0).nonzero().flatten()
    assert (int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1) == (field_px, field_px)


def test_a_wrong_option_of_the_networks_is_named() -> None:
    with pytest.raises(ValueError, match=r"architecture: got 'vit', expected one of resnet"):
        build(Config(architecture="vit"))
    with pytest.raises(ValueError, match="norm: got 'layer', expected one of instance, batch"):
        build(Config(norm="layer"))
    with pytest.raises(
        InvalidInput, match="discriminator_norm: got 'layer', expected one of instance, batch"
    ):
        Discriminator(channels=3, width=4, layers=3, norm="layer")


@pytest.fixture(scope="module")
def served(tiny_bundle: TinyBundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of a server of the tiny float32 bundle."""
    folder = tmp_path_factory.mktemp("served")
    shutil.copytree(tiny_bundle("cyclegan").path, folder / "bundles" / "cyclegan")
    with launched(folder / "bundles", log=folder / "log") as server, Client(server.address) as client:
        yield client


@pytest.mark.parametrize(("height", "width"), [(64, 48), (61, 47), (5, 33), (3, 2)])
def test_a_served_answer_is_what_torch_computes_of_the_mirrored_picture(
    served: Client, height: int, width: int
) -> None:
    """Sides that are no multiples of 4, or below the 8 px that the network needs, grow by reflection and are cut."""
    spec = families.get("cyclegan")
    picture = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    beyond = [max(-(-side // 4) * 4, 8) - side for side in (height, width)]
    mirrored = np.pad(picture, ((0, beyond[0]), (0, beyond[1]), (0, 0)), "reflect")
    values = torch.from_numpy(pixels.to_float(mirrored))[None] * 2 - 1
    answer = pixels.decode(
        served.translate(pixels.encode(picture, "png"), format="png").image, max_pixels=1 << 20
    )
    with torch.inference_mode():
        # The checkpoint holds float16, so the truth does as well.
        output = lively(spec).half().float()(values)[0, :, :height, :width]
    expected = ((output + 1) / 2 * 255).round().clamp(0, 255).permute(1, 2, 0).numpy()
    assert answer.shape == picture.shape
    error = float(np.square(answer.astype(np.float64) - expected).mean())
    assert error < 255**2 / 10**6, "less than 60 dB"  # a level here and there, where rounding decides
    assert answer.std() > 20
