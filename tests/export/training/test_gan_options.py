"""Tests that each option of the GANs' recipes changes the training; both precisions, both stages of ESRGAN."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export import families
from export.checkpoints import checkpoint
from export.models.esrgan.recipes import GanTrainer
from export.networks import features
from export.training import recipes
from export.training.adversarial import AdversarialTrainer
from export.training.loop import train_step
from export.training.machine import Machine
from export.training.objectives import OBJECTIVES
from export.training.recipe import Source, TrainingOptions, learning_rate
from runtime.errors import InvalidInput
from tests.export.training.conftest import Train

TINY = {
    "dcgan": "size=32 latent_size=8 width=4 discriminator_width=2 batch=4",
    "acgan": "size=32 latent_size=8 classes=3 width=8 discriminator_width=1 batch=4",
    "esrgan": "features=8 blocks=1 growth=4 batch=2 patch_px=8",
}


def words(settings: str) -> list[str]:
    return [word for setting in settings.split() for word in ("--set", setting)]


def logged(folder: Path) -> dict[str, float]:
    """The last line of losses."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return next(line for line in reversed(lines) if "lr" in line)


def trainer(
    model: str, source: Source, recipe: str = "compact", machine: Machine | None = None, **options: Any
) -> AdversarialTrainer:
    """A recipe's trainer with a tiny generator, from seed 0."""
    spec, (_, declared) = families.get(model), recipes.get(model, recipe)
    torch.manual_seed(0)
    small = {"batch": 4, "discriminator_width": 2} | options
    made = declared.trainer(
        checkpoint.build(spec, spec.tiny), spec.tiny, replace(declared.options, **small), source, machine or Machine("cpu")
    )  # fmt: skip
    assert isinstance(made, AdversarialTrainer)
    return made


def trained(model: str, archive: Path, **options: Any) -> dict[str, Tensor]:
    """The parameters of both players, and the last losses, after two steps."""
    players = trainer(model, Source(archive), **options)
    for step in range(2):
        losses = train_step(players, step, players.batch)
    networks = nn.ModuleDict({"generator": players.generator, "discriminator": players.discriminator})
    return {name: value.detach() for name, value in networks.named_parameters()} | losses


@pytest.fixture(scope="module")
def plain(shared_data: tuple[Path, Path]) -> dict[str, dict[str, Tensor]]:
    """What the compact recipes train without any option."""
    torch.set_num_threads(1)
    return {model: trained(model, shared_data[1]) for model in ("dcgan", "acgan")}


SHARED = [
    *({"objective": name} for name in OBJECTIVES if name not in ("non-saturating", "wgan-gp")),
    {"objective": "wgan-gp", "discriminator_norm": "none"},
    {"discriminator_steps": 3},
    {"discriminator_norm": "instance"},
    {"discriminator_norm": "spectral"},
    {"label_smoothing": 0.1},
    {"feature_matching": 1.0},
    {"minibatch_kernels": 4},
    {"mirrored": 0.5},
    {"adversarial": 0.5},
]
OPTIONS = [
    *(("dcgan", options) for options in [*SHARED, {"balance": 0.5}]),
    *(("acgan", options) for options in [*SHARED, {"dropout": 0.0}, {"activation_noise": 0.1}, {"auxiliary": 0.5}]),
    ("acgan", {"discriminator_kernel": 3}),
]  # fmt: skip


@pytest.mark.parametrize(("model", "options"), OPTIONS, ids=str)
def test_every_option_changes_what_is_trained(
    plain: dict[str, dict[str, Tensor]],
    shared_data: tuple[Path, Path],
    model: str,
    options: dict[str, Any],
) -> None:
    changed, before = trained(model, shared_data[1], **options), plain[model]
    assert all(torch.isfinite(value).all() for value in changed.values())
    same = changed.keys() == before.keys() and all(
        value.shape == before[name].shape and torch.equal(value, before[name])
        for name, value in changed.items()
    )
    assert not same
    assert ("gradient_penalty" in changed) == (options.get("objective") == "wgan-gp")
    assert ("feature_matching" in changed) == ("feature_matching" in options)
    assert ("generator_class" in changed) == (model == "acgan" or "balance" in options)


@pytest.mark.parametrize("model", ["dcgan", "acgan"])
def test_the_same_options_train_the_same(
    plain: dict[str, dict[str, Tensor]], shared_data: tuple[Path, Path], model: str
) -> None:
    again = trained(model, shared_data[1])
    assert all(torch.equal(value, plain[model][name]) for name, value in again.items())


@pytest.mark.parametrize("model", ["dcgan", "acgan"])
def test_a_batch_depends_on_the_seed_and_its_number_alone(shared_data: tuple[Path, Path], model: str) -> None:
    players, other = (trainer(model, Source(shared_data[1], seed=seed), mirrored=0.5) for seed in (0, 1))
    later, first = players.batch(7), players.batch(0)
    torch.randn(10)  # torch's own numbers have no part in it
    again = players.batch(7)
    assert torch.equal(again.real, later.real)
    assert all(torch.equal(*pair) for pair in zip(again.inputs, later.inputs, strict=True))
    for different in (first, other.batch(7)):
        assert not torch.equal(different.inputs[0], later.inputs[0]), "the latents differ"
        assert not torch.equal(different.real, later.real)
    latents = later.inputs[0]
    assert len(latents.unique(dim=0)) == len(latents), "and so do those of one batch"


def test_the_classes_of_a_batch_are_those_of_its_pictures(shared_data: tuple[Path, Path]) -> None:
    players = trainer("acgan", Source(shared_data[1]), batch=12)
    pictures = {image.numpy().tobytes(): index for index, image in enumerate(cast(Any, players).images)}
    batch = players.batch(0)
    for real, label in zip(batch.real, batch.labels.tolist(), strict=True):
        stored = ((real + 1) * 127.5).round().to(torch.uint8).contiguous().numpy().tobytes()
        assert pictures[stored] % 3 == label  # as the archive has them


@pytest.mark.parametrize("model", ["dcgan", "acgan"])
def test_mixed_precision_trains_float32_weights_in_bfloat16_passes(
    shared_data: tuple[Path, Path], model: str
) -> None:
    players = trainer(model, Source(shared_data[1]), machine=Machine("cpu", precision="bfloat16"))
    dtypes = set()
    layer = next(layer for layer in players.discriminator.modules() if isinstance(layer, nn.Conv2d))
    layer.register_forward_hook(lambda _, __, output: dtypes.add(output.dtype))
    losses = train_step(players, 0, players.batch)
    assert dtypes == {torch.bfloat16}
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    for network in (players.generator, players.discriminator):
        assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


def test_the_gradient_penalty_stays_in_float32(shared_data: tuple[Path, Path]) -> None:
    players = trainer("dcgan", Source(shared_data[1]), "wgan-gp", Machine("cpu", precision="bfloat16"))
    dtypes: list[torch.dtype] = []
    layer = next(layer for layer in players.discriminator.modules() if isinstance(layer, nn.Conv2d))
    layer.register_forward_hook(lambda _, __, output: dtypes.append(output.dtype))
    players.discriminator_step(players.batch(0), generator_follows=False)
    assert dtypes == [torch.bfloat16, torch.bfloat16, torch.float32]  # real, generated, and between them


def test_esrgans_first_stage_trains_in_mixed_precision(
    train: Train, photographs: Path, tmp_path: Path
) -> None:
    run = ("--model", "esrgan", "--data", photographs, "--output", tmp_path / "run", "--steps", 1)
    result = train(*run, *words(TINY["esrgan"]), "--precision", "bfloat16")
    assert result.exit_code == 0, result.output
    assert "bfloat16" in result.output
    state = torch.load(tmp_path / "run/checkpoints/step-00000001.pt", weights_only=True)
    weights = state["parts"]["generator"].values()
    assert {value.dtype for value in weights if value.is_floating_point()} == {torch.float32}


@pytest.fixture(scope="module")
def vgg19(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The front of a VGG19 with random weights, in torchvision's form."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("vgg19") / "vgg19.pth"
    state = features.layers(features.NETS["vgg19-conv1_2"]).state_dict()
    torch.save({f"features.{name}": value for name, value in state.items()}, path)
    return path


@pytest.mark.parametrize("name", ["perceptual", "pixel", "adversarial"])
def test_each_loss_of_esrgans_second_stage_has_its_weight(
    shared_data: tuple[Path, Path], vgg19: Path, name: str
) -> None:
    """With the weights of the other two at 0, the generator's gradient is that of the one left, times its weight."""
    weights: dict[str, Any] = {"perceptual": 0.0, "pixel": 0.0, "adversarial": 0.0, name: 0.3}
    source = Source(shared_data[0], vgg19=vgg19)
    net: dict[str, Any] = {"feature_net": "vgg19-conv1_2", "patch_px": 8, "batch": 2}
    players = trainer("esrgan", source, "compact-gan", **net, **weights)
    assert isinstance(players, GanTrainer)
    batch = players.batch(0)
    before = copy.deepcopy(players.generator)
    players.discriminator_step(batch, generator_follows=True)
    critic = copy.deepcopy(players.discriminator)
    players.generator_step(batch)
    output, truth = before(*batch.inputs), batch.real

    def relativistic() -> Tensor:
        fake, real = critic(output).logits, critic(truth).logits.detach()
        return (F.softplus(real - fake.mean()).mean() + F.softplus(real.mean() - fake).mean()) / 2

    loss = {
        "perceptual": lambda: (players.net(output) - players.net(truth)).abs().mean(),
        "pixel": lambda: (output - truth).abs().mean(),
        "adversarial": relativistic,
    }[name]()
    (0.3 * loss).backward()
    for mine, expected in zip(players.generator.parameters(), before.parameters(), strict=True):
        assert mine.grad is not None
        assert expected.grad is not None
        # Batch norm over two crops amplifies rounding: single values differ by 0.2 %.
        assert (mine.grad - expected.grad).norm() <= 1e-3 * expected.grad.norm() + 1e-7


def test_the_second_stage_starts_from_the_first(
    train: Train, photographs: Path, tmp_path: Path, vgg19: Path
) -> None:
    first = ("--model", "esrgan", "--data", photographs, "--output", tmp_path / "psnr", "--steps", 2)
    assert train(*first, *words(TINY["esrgan"])).exit_code == 0
    weights = tmp_path / "psnr/esrgan.safetensors"
    second = (
        "--model",
        "esrgan",
        "--recipe",
        "compact-gan",
        "--data",
        photographs,
        "--output",
        tmp_path / "gan",
    )
    small = words("feature_net=vgg19-conv1_2 batch=2 patch_px=8 discriminator_width=2 lr=0 ema_decay=0")
    result = train(*second, "--start", weights, "--vgg19", vgg19, "--steps", 1, *small)
    assert result.exit_code == 0, result.output
    assert {"perceptual", "pixel", "generator", "discriminator"} <= logged(tmp_path / "gan").keys()
    before = checkpoint.load("esrgan", str(weights)).module.state_dict()
    after = checkpoint.load("esrgan", str(tmp_path / "gan/esrgan.safetensors")).module.state_dict()
    for name, value in before.items():  # a learning rate of 0 leaves it where it began
        torch.testing.assert_close(after[name], value, rtol=0, atol=0)


def test_schedules() -> None:
    cosine = TrainingOptions(lr=2.0, schedule="cosine", warmup=0.1)
    assert [learning_rate(cosine, at) for at in (0.05, 0.1, 0.55)] == pytest.approx([1.0, 2.0, 1.0], rel=3e-3)
    assert learning_rate(cosine, 1 - 1e-9) == pytest.approx(0.0, abs=1e-6)
    halving = TrainingOptions(lr=2.0, schedule="halving", halve_at="0.5,0.75")
    assert [learning_rate(halving, at) for at in (0.0, 0.49, 0.5, 0.8)] == [2.0, 2.0, 1.0, 0.5]
    tenth = TrainingOptions(lr=2.0, schedule="tenth", halve_at="0.5")
    assert [learning_rate(tenth, at) for at in (0.0, 0.49, 0.5)] == pytest.approx([2.0, 2.0, 0.2])
    linear = TrainingOptions(lr=2.0, schedule="linear")
    assert [learning_rate(linear, at) for at in (0.0, 0.5, 0.75, 1.0)] == [2.0, 2.0, 1.0, 0.0]
    with pytest.raises(InvalidInput, match="halve_at: got 'soon'"):
        learning_rate(TrainingOptions(schedule="halving", halve_at="soon"), 0.0)
