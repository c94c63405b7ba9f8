"""Tests of the families' discriminators: biases, initial weights, gradients of the strided layers, shared layers."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from export import families
from export.checkpoints import checkpoint
from export.models.acgan.discriminator import Discriminator as AcganDiscriminator
from export.models.acgan.generator import ACGAN, Config
from export.models.acgan.recipes import RECIPES as ACGAN_RECIPES
from export.models.dcgan.discriminator import Discriminator as DcganDiscriminator
from export.models.dcgan.recipes import RECIPES as DCGAN_RECIPES
from export.models.esrgan.discriminator import Discriminator as EsrganDiscriminator
from export.models.esrgan.recipes import RECIPES as ESRGAN_RECIPES
from export.models.srgan.discriminator import Discriminator as SrganDiscriminator
from export.networks.discriminators import NORMS, MinibatchDiscrimination
from runtime.errors import InvalidInput


def acgan(**options: Any) -> AcganDiscriminator:
    plain: dict[str, Any] = {
        "kernel": 4,
        "dropout": 0.0,
        "noise": 0.0,
        "minibatch_kernels": 0,
        "norm": "none",
        "width": 4,
    }
    return AcganDiscriminator(**{"size": 32, "channels": 3, "classes": 3} | plain | options)


def dcgan(**options: Any) -> DcganDiscriminator:
    plain: dict[str, Any] = {"width": 4, "norm": "none", "minibatch_kernels": 0}
    return DcganDiscriminator(**{"size": 32, "channels": 3, "classes": 0} | plain | options)


def esrgan(**options: Any) -> EsrganDiscriminator:
    plain: dict[str, Any] = {"side_px": 32, "width": 4, "norm": "none", "minibatch_kernels": 0}
    return EsrganDiscriminator(**(plain | options))


def srgan(**options: Any) -> SrganDiscriminator:
    plain: dict[str, Any] = {"side_px": 32, "width": 4, "norm": "none", "minibatch_kernels": 0}
    return SrganDiscriminator(**(plain | options))


FAMILIES = {"acgan": acgan, "dcgan": dcgan, "esrgan": esrgan, "srgan": srgan}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("norm", NORMS)
def test_a_layer_has_a_bias_unless_batch_norm_follows(family: str, norm: str) -> None:
    leaves = [
        layer
        for layer in FAMILIES[family](norm=norm).modules()
        if isinstance(layer, nn.Conv2d | nn.Linear | nn.BatchNorm2d | nn.InstanceNorm2d)
    ]
    for layer, following in itertools.pairwise([*leaves, None]):
        assert layer is not None
        if isinstance(layer, nn.InstanceNorm2d):
            assert layer.affine
        else:
            assert (layer.bias is None) == isinstance(following, nn.BatchNorm2d)
    kinds = {type(layer) for layer in leaves}
    assert (nn.BatchNorm2d in kinds) == (norm == "batch")
    assert (nn.InstanceNorm2d in kinds) == (norm == "instance")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("norm", ["none", "spectral"])
def test_a_critic_without_batch_norm_can_see_brightness(family: str, norm: str) -> None:
    """Without any bias D(0) is 0 and D(2x) is 2·D(x), whatever the weights."""
    torch.manual_seed(0)
    critic = FAMILIES[family](norm=norm).eval()
    with torch.no_grad():
        for name, parameter in critic.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.1)
        picture = torch.rand(1, 3, 32, 32)
        once, twice, grey = (critic(scale * picture).logits.item() for scale in (1, 2, 0))
    assert abs(grey) > 1e-3
    assert abs(twice - 2 * once) > 1e-3


@pytest.mark.parametrize("family", ["acgan", "dcgan"])
def test_weights_start_at_0_02_and_biases_at_0(family: str) -> None:
    torch.manual_seed(0)
    for name, parameter in FAMILIES[family](width=16).named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif parameter.numel() > 2000:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.1), name


@pytest.mark.parametrize("family", FAMILIES)
def test_minibatch_discrimination_is_alive_at_the_start(family: str) -> None:
    """Re-initialised to N(0, 0.02), all pictures would be equally close to each other: closeness near N − 1."""
    torch.manual_seed(0)
    discriminator = FAMILIES[family](minibatch_kernels=4)
    layers = [layer for layer in discriminator.modules() if isinstance(layer, MinibatchDiscrimination)]
    assert len(layers) == 1
    weight = layers[0].rows.weight
    assert weight.std().item() == pytest.approx(
        (3 * weight.shape[1]) ** -0.5, rel=0.1
    )  # uniform ± 1/√features


def variance_by_parity(values: Tensor) -> Tensor:
    """[N, C, H, W] → the mean square at each of the four pixel parities, over their mean: all 1 where there is no grid."""
    inner = values[:, :, 8:-8, 8:-8]  # the border has a pattern of its own
    squares = torch.stack(
        [inner[:, :, row::2, column::2].square().mean() for row in (0, 1) for column in (0, 1)]
    )
    return squares / squares.mean()


@pytest.mark.parametrize(("kernel", "even"), [(3, False), (4, True)])
def test_acgans_strided_layers_see_every_pixel_only_at_4x4(kernel: int, even: bool) -> None:
    torch.manual_seed(0)
    pictures = torch.randn(16, 3, 32, 32, requires_grad=True)
    (gradient,) = torch.autograd.grad(acgan(kernel=kernel, width=16)(pictures).logits.sum(), pictures)
    parity = variance_by_parity(gradient)
    assert ((parity - 1).abs().max().item() < 0.25) == even, parity


@pytest.mark.parametrize(("kernel", "even"), [(5, False), (4, True)])
def test_acgans_generator_leaves_no_grid_with_4x4_kernels(kernel: int, even: bool) -> None:
    torch.manual_seed(0)
    generator = ACGAN(Config(width=96, kernel=kernel, linear_norm=False))
    pictures = generator(torch.randn(64, 110), torch.arange(64) % 10)
    parity = variance_by_parity(pictures.detach())
    assert pictures.shape == (64, 3, 32, 32)
    assert ((parity - 1).abs().max().item() < 0.25) == even, parity


def test_another_kernel_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"discriminator_kernel: got 5, expected one of \(3, 4\)"):
        acgan(kernel=5)
    with pytest.raises(InvalidInput, match="kernel: got 3, expected 4 or 5"):
        checkpoint.build(families.get("acgan"), Config(kernel=3))


def test_activation_noise_is_there_in_training_only() -> None:
    torch.manual_seed(0)
    discriminator, picture = acgan(noise=0.5), torch.randn(4, 3, 32, 32)
    assert not torch.equal(discriminator(picture).logits, discriminator(picture).logits)
    discriminator.eval()
    assert torch.equal(discriminator(picture).logits, discriminator(picture).logits)
    silent = acgan()
    assert torch.equal(silent(picture).logits, silent(picture).logits)


def test_weights_saved_before_an_option_existed_load_as_before() -> None:
    """The file that ships does not mention batch norm after the linear layer, and has it."""
    shipped = checkpoint.load("acgan")
    assert shipped.config.linear_norm
    assert shipped.config.kernel == 5
    assert "main.0.running_mean" in shipped.module.state_dict()


@pytest.mark.parametrize("recipe", ACGAN_RECIPES)
def test_acgans_recipes_have_no_batch_norm_after_the_linear_layer(recipe: str) -> None:
    generator = ACGAN(Config(**dict(ACGAN_RECIPES[recipe].config)))
    assert not isinstance(generator.main[0], nn.BatchNorm2d)
    assert isinstance(generator.main[2], nn.BatchNorm2d), "the transposed convolutions keep theirs"


def test_the_papers_recipes_have_the_papers_values() -> None:
    acgan_paper, dcgan_paper = ACGAN_RECIPES["paper"], DCGAN_RECIPES["paper"]
    assert acgan_paper.config["kernel"] == 5
    assert acgan_paper.options.discriminator_kernel == 3  # type: ignore[attr-defined]
    assert dcgan_paper.options.discriminator_width == dcgan_paper.config["width"] == 128  # type: ignore[attr-defined]
    for name in ("psnr", "gan"):
        options = ESRGAN_RECIPES[name].options
        assert (options.beta1, options.beta2) == (0.9, 0.999)
        assert options.batch == 16
        assert 4 * options.patch_px == 128  # type: ignore[attr-defined]
