"""Tests of SRGAN's training: the content loss, each loss's weight, the discriminator's layers, the paper's values, resuming."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export import families
from export.checkpoints import checkpoint
from export.models.srgan.discriminator import Discriminator
from export.models.srgan.generator import Config
from export.models.srgan.recipes import RECIPES, FirstOptions, GanOptions, GanTrainer
from export.networks.features import IMAGENET_MEAN, IMAGENET_STD
from export.training import losses
from export.training.machine import Machine
from export.training.recipe import NEEDED, Source, learning_rate
from runtime.errors import InvalidInput
from tests.export.lively import lively
from tests.export.training.conftest import Train

TINY = "features=8 blocks=1 batch=2 patch_px=8"
TINY_GAN = f"{TINY} feature_net=vgg19-conv1_2 discriminator_width=2"
# Where the convolutions up to conv2_2 lie in torchvision's VGG19, and their channels.
FIRST_LAYERS = {0: (3, 64), 2: (64, 64), 5: (64, 128), 7: (128, 128)}


def words(settings: str) -> list[str]:
    return [word for setting in settings.split() for word in ("--set", setting)]


@pytest.fixture(scope="module")
def vgg19(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """torchvision's file up to conv2_2, with random weights."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("vgg") / "vgg19.pth"
    state: dict[str, Tensor] = {}
    for place, (inputs, outputs) in FIRST_LAYERS.items():
        layer = nn.Conv2d(inputs, outputs, 3)
        state |= {f"features.{place}.{name}": value for name, value in layer.state_dict().items()}
    torch.save(state, path)
    return path


def activated_conv2_2(path: Path, image: Tensor) -> Tensor:
    """VGG19's second pair of convolutions, after the activation, written out."""
    state = torch.load(path)
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    maps = (image - mean) / std
    for place in FIRST_LAYERS:
        if place == 5:
            maps = F.max_pool2d(maps, 2)
        weight, bias = (state[f"features.{place}.{name}"] for name in ("weight", "bias"))
        maps = F.relu(F.conv2d(maps, weight, bias, padding=1))
    return maps


def players(source: Source, **options: Any) -> GanTrainer:
    """The second stage with a tiny generator, from seed 0."""
    torch.manual_seed(0)
    spec, declared = families.get("srgan"), RECIPES["gan"]
    small = {"batch": 2, "patch_px": 8, "discriminator_width": 2, "feature_net": "vgg19-conv2_2"} | options
    return GanTrainer(
        checkpoint.build(spec, spec.tiny), spec.tiny, replace(declared.options, **small), source, Machine("cpu")  # type: ignore[arg-type]
    )  # fmt: skip


def test_the_content_loss_is_the_mean_square_of_scaled_features() -> None:
    net = nn.Sequential(nn.Conv2d(3, 1, 1, bias=False), nn.ReLU())
    assert isinstance(net[0].weight, Tensor)
    net[0].weight.data = torch.tensor([1.0, -1.0, 2.0])[None, :, None, None]
    output = torch.tensor([0.5, 0.1, 0.3])[None, :, None, None].requires_grad_()
    truth = torch.tensor([[0.2, 0.9, 0.1]])[:, :, None, None].requires_grad_()
    loss = losses.content(net, output, truth, 0.5)
    # 0.5 − 0.1 + 0.6 = 1 and, below 0, 0.2 − 0.9 + 0.2 → 0; scaled to 0.5 and 0.
    assert loss.item() == pytest.approx(0.25)
    loss.backward()
    assert truth.grad is None
    assert output.grad is not None


@pytest.mark.parametrize("name", ["content", "pixel", "adversarial"])
def test_each_loss_of_the_second_stage_has_its_weight(
    shared_data: tuple[Path, Path], vgg19: Path, name: str
) -> None:
    """With the weights of the other two at 0, the generator's gradient is that of the one left, times its weight."""
    weights: dict[str, Any] = {"content": 0.0, "pixel": 0.0, "adversarial": 0.0, name: 0.3}
    trained = players(Source(shared_data[0], vgg19=vgg19), **weights)
    batch = trained.batch(0)
    before = copy.deepcopy(trained.generator)
    trained.discriminator_step(batch, generator_follows=True)
    critic = copy.deepcopy(trained.discriminator)
    terms = trained.generator_step(batch)
    assert terms.keys() == {"generator", "content", "pixel"}
    output, truth = before(*batch.inputs), batch.real
    assert truth.min() < -0.5  # in the paper's range, where VGG19 takes pictures from 0

    def content() -> Tensor:
        seen, wanted = (activated_conv2_2(vgg19, (values + 1) / 2) for values in (output, truth))
        return ((seen - wanted) / 12.75).square().mean()

    loss = {
        "content": content,
        "pixel": lambda: (output - truth).square().mean(),
        "adversarial": lambda: F.softplus(-critic(output).logits).mean(),
    }[name]()
    assert terms["generator" if name == "adversarial" else name].item() == pytest.approx(
        0.3 * loss.item(), rel=1e-4
    )
    (0.3 * loss).backward()
    for mine, expected in zip(trained.generator.parameters(), before.parameters(), strict=True):
        assert mine.grad is not None
        assert expected.grad is not None
        # Batch norm over two crops amplifies rounding; the bias before it has no gradient but rounding.
        assert (mine.grad - expected.grad).norm() <= 1e-3 * expected.grad.norm() + 1e-6


def test_the_discriminator_has_the_papers_layers() -> None:
    discriminator = Discriminator(side_px=96, width=64, norm="batch", minibatch_kernels=0)
    layers = [layer for layer in discriminator.modules() if isinstance(layer, nn.Conv2d)]
    assert [(layer.out_channels, layer.stride[0], layer.kernel_size) for layer in layers] == [
        (maps, stride, (3, 3)) for maps in (64, 128, 256, 512) for stride in (1, 2)
    ]
    dense = [layer for layer in discriminator.modules() if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in dense] == [(512 * 6 * 6, 1024), (1024, 1)]
    norms = [layer.num_features for layer in discriminator.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert norms == [64, 128, 128, 256, 256, 512, 512]  # none after the first
    assert discriminator(torch.rand(2, 3, 96, 96)).logits.shape == (2,)
    with pytest.raises(
        InvalidInput, match="patch_px: the discriminator sees 100 px a side, expected a multiple of 16"
    ):
        Discriminator(side_px=100, width=4, norm="batch", minibatch_kernels=0)


def test_the_papers_recipes_have_the_papers_values() -> None:
    first, second = RECIPES["mse"].options, RECIPES["gan"].options
    assert isinstance(first, FirstOptions)
    assert isinstance(second, GanOptions)
    for options in (first, second):
        assert (options.batch, 4 * options.patch_px, options.beta1, options.beta2) == (16, 96, 0.9, 0.999)
    assert (first.steps, first.loss, first.beginning) == (1_000_000, "mse", "random")
    assert learning_rate(first, 0.0) == learning_rate(first, 0.99) == 1e-4
    assert second.steps == 200_000
    assert [learning_rate(second, at) for at in (0.0, 0.49, 0.5, 0.99)] == pytest.approx(
        [1e-4, 1e-4, 1e-5, 1e-5]
    )
    assert (second.adversarial, second.feature_net, second.feature_scale) == (
        1e-3,
        "vgg19-conv5_4",
        1 / 12.75,
    )
    assert (second.objective, second.discriminator_width) == ("non-saturating", 64)
    assert RECIPES["gan"].start == NEEDED
    assert RECIPES["mse"].config == RECIPES["gan"].config == {}
    assert (Config().blocks, Config().features, Config().scale) == (16, 64, 4)
    assert (Config().activation, Config().trunk_norm, Config().output) == ("prelu", True, "linear")


def test_the_second_stage_starts_from_the_first_and_resumes_bit_for_bit(
    train: Train, photographs: Path, tmp_path: Path, vgg19: Path
) -> None:
    first, spec, run = tmp_path / "first.safetensors", families.get("srgan"), tmp_path / "run"
    checkpoint.save(first, "srgan", spec.tiny, lively(spec))
    command = ["--model", "srgan", "--recipe", "gan", "--data", photographs, "--output", run]
    small = words(f"{TINY_GAN} checkpoint_every=1 lr=1e-2 ema_decay=0")
    result = train(*command, "--start", first, "--vgg19", vgg19, "--steps", 2, *small)
    assert result.exit_code == 0, result.output
    weights, whole = run / "srgan.safetensors", tmp_path / "whole.safetensors"
    weights.rename(whole)
    (run / "checkpoints/step-00000002.pt").unlink()
    result = train("--model", "srgan", "--output", run, "--resume")
    assert "continued after step 1" in result.output
    before, expected, resumed = (
        checkpoint.load("srgan", str(path)).module.state_dict() for path in (first, whole, weights)
    )
    name = "last.weight"
    assert 0 < (resumed[name] - before[name]).abs().max() < 0.05  # two steps of Adam away
    for name, value in resumed.items():
        assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("beginning=cubic", "beginning: got 'cubic', expected random or bilinear"),
        ("loss=l3", "loss: got 'l3', expected one of l1, mse"),
        ("in_channels=1", "expected 3 for both"),
    ],
)
def test_an_option_that_cannot_work_is_named_before_the_training(
    train: Train, photographs: Path, tmp_path: Path, settings: str, said: str
) -> None:
    command = ("--model", "srgan", "--data", photographs, "--output", tmp_path / "run", "--steps", 1)
    result = train(*command, *words(f"{TINY} {settings}"))
    assert result.exit_code != 0
    assert said in result.output
    assert not (tmp_path / "run").exists()
