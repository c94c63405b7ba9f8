"""Tests of SRGAN's generator against an independent network with leftthomas/SRGAN's names: outputs, files, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from export.build import command as build_command
from export.checkpoints import checkpoint, identification
from export.checkpoints.naming import Inferred
from export.checkpoints.unsupported import UnsupportedCheckpoint
from export.convert import main as convert_main
from export.evaluate import main as evaluate_main
from export.inspect.__main__ import main as inspect_main
from export.models.srgan.bilinear import start_as_bilinear
from export.models.srgan.generator import Config, SRResNet
from runtime.errors import InvalidInput
from tests.export.evaluation.data import public

EXAMPLES = settings(max_examples=15)
State = dict[str, Tensor]


class Block(nn.Module):
    def __init__(self, features: int, slope: nn.Module) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, 1, 1)
        self.bn1 = nn.BatchNorm2d(features)
        self.prelu = slope
        self.conv2 = nn.Conv2d(features, features, 3, 1, 1)
        self.bn2 = nn.BatchNorm2d(features)

    def forward(self, x: Tensor) -> Tensor:
        residual = self.prelu(self.bn1(self.conv1(x)))
        return x + self.bn2(self.conv2(residual))


class Up(nn.Module):
    def __init__(self, features: int, slope: nn.Module, factor: int = 2) -> None:
        super().__init__()
        self.conv = nn.Conv2d(features, features * factor**2, 3, 1, 1)
        self.prelu, self.factor = slope, factor

    def forward(self, x: Tensor) -> Tensor:
        return self.prelu(F.pixel_shuffle(self.conv(x), self.factor))


class Original(nn.Module):
    """leftthomas' Generator, which has 5 blocks of 64 features; options for the paper's end and for LeakyReLU."""

    def __init__(
        self,
        *,
        features: int = 4,
        blocks: int = 2,
        scale: int = 4,
        norm: bool = True,
        colours: int = 3,
        leaky: bool = False,
        tanh: bool = True,
        kernel: int = 9,
        slopes: int = 1,
        factor: int = 2,
    ) -> None:
        super().__init__()
        self.blocks, self.tanh = blocks, tanh

        def slope() -> nn.Module:
            return nn.LeakyReLU(0.2) if leaky else nn.PReLU(slopes)

        self.block1 = nn.Sequential(nn.Conv2d(colours, features, kernel, padding=kernel // 2), slope())
        for number in range(2, blocks + 2):
            self.add_module(f"block{number}", Block(features, slope()))
        closing = nn.BatchNorm2d(features) if norm else slope()
        self.add_module(
            f"block{blocks + 2}", nn.Sequential(nn.Conv2d(features, features, 3, padding=1), closing)
        )
        ups = [Up(features, slope(), factor) for _ in range(scale.bit_length() - 1)]
        last = nn.Conv2d(features, colours, 9, padding=4)
        self.add_module(f"block{blocks + 3}", nn.Sequential(*ups, last))

    def forward(self, x: Tensor) -> Tensor:
        first = trunk = self.block1(x)
        for number in range(2, self.blocks + 3):
            trunk = self.get_submodule(f"block{number}")(trunk)
        x = self.get_submodule(f"block{self.blocks + 3}")(first + trunk)
        return (torch.tanh(x) + 1) / 2 if self.tanh else x


def original(seed: int = 0, **options: Any) -> Original:
    """With batch-norm statistics and slopes of its own."""
    torch.manual_seed(seed)
    network = Original(**options).eval()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.weight.data, layer.running_var):
                assert tensor is not None
                tensor.uniform_(0.5, 2.0)
            assert layer.running_mean is not None
            layer.running_mean.normal_(0, 0.2)
            layer.bias.data.normal_(0, 0.2)
        elif isinstance(layer, nn.PReLU):
            layer.weight.data.uniform_(0.05, 0.5)
    return network


def picture(colours: int = 3) -> Tensor:
    return torch.rand(1, colours, 7, 12, generator=torch.Generator().manual_seed(1))


def options() -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {
            "features": st.integers(1, 6),
            "blocks": st.integers(1, 4),
            "scale": st.sampled_from((2, 4, 8)),
            "norm": st.booleans(),
            "colours": st.sampled_from((1, 3, 4)),
        }
    )


def config_of(drawn: dict[str, Any], **rest: Any) -> Config:
    colours = {"in_channels": drawn["colours"], "out_channels": drawn["colours"]}
    kept = {key: drawn[key] for key in ("features", "blocks", "scale")}
    return Config(**kept, trunk_norm=drawn["norm"], **colours, **rest)


def check_same(path: Path, network: Original, config: Config) -> None:
    """`path` gives the configuration `config`, and the output of `network` to the bit."""
    loaded = checkpoint.load("srgan", str(path))
    assert loaded.config == config
    with torch.inference_mode():
        expected = network(picture(config.in_channels))
        assert torch.equal(loaded.module(picture(config.in_channels)), expected)
    assert expected.shape == (1, config.out_channels, 7 * config.scale, 12 * config.scale)


# --- What is read ----------------------------------------------------------------------------------------------


@EXAMPLES
@given(drawn=options(), seed=st.integers(0, 99))
def test_a_file_of_leftthomas_gives_what_his_network_gives(
    drawn: dict[str, Any], seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("srgan") / "netG_epoch_2_100.pth"
    network = original(seed, **drawn)
    torch.save(network.state_dict(), path)
    check_same(path, network, config_of(drawn, output="tanh"))
    assert checkpoint.load("srgan", str(path)).naming == "leftthomas/SRGAN"


@EXAMPLES
@given(drawn=options(), leaky=st.booleans(), tanh=st.booleans(), seed=st.integers(0, 99))
def test_the_papers_network_and_the_leaky_one_give_what_an_independent_one_gives(
    drawn: dict[str, Any], leaky: bool, tanh: bool, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("srgan") / "ours.safetensors"
    network = original(seed, leaky=leaky, tanh=tanh, **drawn)
    config = config_of(drawn, activation="leaky" if leaky else "prelu", output="tanh" if tanh else "linear")
    # Both have their layers in the order of use.
    names = [name for name in SRResNet(config).state_dict() if not name.endswith("num_batches_tracked")]
    values = [
        value for name, value in network.state_dict().items() if not name.endswith("num_batches_tracked")
    ]
    save_file(dict(zip(names, values, strict=True)), path, checkpoint.metadata("srgan", config, ()))
    check_same(path, network, config)


@pytest.mark.parametrize("prefix", ["", "module.", "netG."])
def test_files_from_several_gpus_and_in_half_precision_are_read(prefix: str, tmp_path: Path) -> None:
    network = original()
    state = {prefix + name: value.half() for name, value in network.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "last.ckpt")
    network = network.half().float()
    check_same(tmp_path / "last.ckpt", network, Config(features=4, blocks=2, output="tanh"))


@pytest.mark.parametrize(("key", "value"), [("scale", "3"), ("activation", "relu"), ("output", "sigmoid")])
def test_an_option_that_there_is_not_is_named(key: str, value: str) -> None:
    with pytest.raises(InvalidInput, match=f"set: {key}: got {value}, expected one of"):
        checkpoint.load("srgan", "random:0", {key: value})


def test_of_two_families_with_the_same_names_the_one_that_fits_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(original().state_dict(), tmp_path / "netG.pth")
    ((model, naming),) = [pair for pair in identification.all_namings() if pair[0] == "srgan"]

    def refuse(tensors: Mapping[str, Tensor]) -> Inferred:
        raise InvalidInput("weights", "other kernels")

    stranger = ("stranger", replace(naming, infer=refuse))
    monkeypatch.setattr(identification, "all_namings", lambda: iter((stranger, (model, naming))))
    assert identification.identify(tmp_path / "netG.pth").model == "srgan"
    monkeypatch.setattr(identification, "all_namings", lambda: iter((stranger,)))
    with pytest.raises(InvalidInput, match="other kernels"):
        identification.identify(tmp_path / "netG.pth")


# --- What is written -------------------------------------------------------------------------------------------


def converted(*words: object) -> str:
    result = CliRunner().invoke(convert_main, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.output


@settings(max_examples=5)
@given(drawn=options(), dtype=st.sampled_from((torch.float32, torch.float16, torch.bfloat16)))
def test_converting_there_and_back_gives_the_very_file(
    drawn: dict[str, Any], dtype: torch.dtype, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("convert")
    state = original(**drawn).to(dtype).state_dict()
    torch.save(state, folder / "theirs.pth")
    said = converted(folder / "theirs.pth", folder / "ours.safetensors", "--to", "safetensors")
    assert "srgan, from leftthomas/SRGAN to ganforge" in said
    converted(folder / "ours.safetensors", folder / "back.pth", "--to", "srgan")
    back = torch.load(folder / "back.pth")
    kept = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    assert back.keys() == kept.keys()
    assert all(back[name].dtype == dtype and torch.equal(back[name], kept[name]) for name in kept)
    assert Original(**drawn).load_state_dict(back, strict=False).unexpected_keys == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"activation": "leaky"}, "LeakyReLU in place of PReLU"), ({}, "an output without tanh")],
)
def test_what_leftthomas_cannot_express_is_named(settings: dict[str, Any], said: str, tmp_path: Path) -> None:
    config = Config(features=4, blocks=1, **settings)
    checkpoint.save(tmp_path / "ours.safetensors", "srgan", config, SRResNet(config))
    words = [str(tmp_path / "ours.safetensors"), str(tmp_path / "theirs.pth"), "--to", "srgan"]
    result = CliRunner().invoke(convert_main, words)
    assert (result.exit_code, (tmp_path / "theirs.pth").exists()) == (1, False)
    assert f"leftthomas/SRGAN cannot express {said}" in result.output


# --- What is refused -------------------------------------------------------------------------------------------


def without(*names: str) -> Callable[[State], State]:
    return lambda state: {name: value for name, value in state.items() if name not in names}


def added(**extra: Tensor) -> Callable[[State], State]:
    return lambda state: state | {name.replace("__", "."): value for name, value in extra.items()}


KEPT = without()
LOOK_ALIKES: dict[str, tuple[dict[str, Any], Callable[[State], State], str]] = {
    "a first kernel of 5×5": ({"kernel": 5}, KEPT, r"block1\.0\.weight is \[4, 3, 5, 5\], expected \[4, 3, 9, 9\]"),
    "a slope for each channel": ({"slopes": 4}, KEPT, r"block1\.1\.weight is \[4\], expected \[1\]"),
    "one upsampling of ×3": (
        {"scale": 2, "factor": 3}, KEPT, r"block5\.0\.conv\.weight is \[36, 4, 3, 3\], expected \[16, 4, 3, 3\]",
    ),
    "×16": ({"scale": 16}, KEPT, "it has 4 upsamplings, expected 1, 2 or 3"),
    "LeakyReLU": ({"leaky": True}, KEPT, r"missing block1\.1\.weight; missing block2\.prelu\.weight"),
    "a third convolution": ({}, added(block2__conv3__weight=torch.zeros(4, 4, 3, 3)), r"unexpected block2\.conv3\.weight"),
    "no bias": ({}, without("block2.conv1.bias"), r"missing block2\.conv1\.bias"),
    "no batch norm in a block": ({}, without("block3.bn2.running_mean"), r"missing block3\.bn2\.running_mean"),
    "a missing block": (
        {"blocks": 3}, without(*(name for name in original(blocks=3).state_dict() if name.startswith("block3."))),
        r"missing block3\.conv1\.weight",
    ),
    "other features in a block": ({}, added(block3__conv1__weight=torch.zeros(6, 4, 3, 3)), r"block3\.conv1\.weight is \[6, 4"),
    "a flat first layer": ({}, added(block1__0__weight=torch.zeros(4)), r"block1\.0\.weight is \[4\], expected a conv"),
    "no features": ({}, added(block1__0__weight=torch.zeros(0, 3, 9, 9)), r"block1\.0\.weight is \[0, 3, 9, 9\]"),
}  # fmt: skip


@pytest.mark.parametrize("name", LOOK_ALIKES)
def test_another_network_with_the_same_names_is_refused(name: str, tmp_path: Path) -> None:
    options, change, said = LOOK_ALIKES[name]
    path = tmp_path / "netG.pth"
    torch.save(change(original(**options).state_dict()), path)
    with pytest.raises(InvalidInput, match=said) as refused:
        checkpoint.load("srgan", str(path))
    assert "leftthomas/SRGAN" in str(refused.value)
    for main, words in (
        (inspect_main, ()),
        (build_command.main, ("--model", "srgan", "--dry-run", "--weights")),
    ):
        result = CliRunner().invoke(main, [*words, str(path)])
        assert result.exit_code != 0
        assert "leftthomas/SRGAN" in result.output
        assert "Traceback" not in result.output


def test_a_network_without_upsamplings_or_blocks_is_refused(tmp_path: Path) -> None:
    torch.save(original(scale=1).state_dict(), tmp_path / "x1.pth")
    with pytest.raises(InvalidInput, match=r"no generator known here: block1\.0\.weight"):
        checkpoint.load("srgan", str(tmp_path / "x1.pth"))
    state = original().state_dict()
    torch.save(without(*(name for name in state if "conv1" in name))(state), tmp_path / "half.pth")
    with pytest.raises(UnsupportedCheckpoint, match="SRGAN ×4, recognised by"):
        checkpoint.load("srgan", str(tmp_path / "half.pth"))


# --- The public file, and the beginning ------------------------------------------------------------------------


@pytest.mark.slow
def test_the_public_file_reaches_its_figure_on_set5(tmp_path: Path) -> None:
    """35.47 dB: Y of BT.601, LR by MATLAB's bicubic, 2 px of the border left out; the command's own protocol."""
    path, originals = public("checkpoint-samples") / "srgan-x2.pth", public("set5") / "HR"
    words = [str(path), "--hr", str(originals), "--json", str(tmp_path / "figures.json")]
    result = CliRunner().invoke(evaluate_main, words)
    assert result.exit_code == 0, result.output
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["mean"]["psnr_y_db"] == pytest.approx(35.47, abs=0.02)
    loaded = checkpoint.load("srgan", str(path))
    network = Original(features=64, blocks=5, scale=2, norm=False).eval()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    with torch.inference_mode():
        assert torch.equal(loaded.module(picture()), network(picture()))


@pytest.mark.parametrize("norm", [True, False])
def test_the_compact_beginning_is_bilinear_interpolation(norm: bool) -> None:
    torch.manual_seed(0)
    generator = SRResNet(Config(features=8, blocks=2, trunk_norm=norm)).train()
    start_as_bilinear(generator)
    image = torch.rand(2, 3, 16, 20)
    expected = image
    for _ in range(2):
        expected = F.interpolate(expected, scale_factor=2, mode="bilinear", align_corners=False)
    with torch.no_grad():
        output = (generator(image) + 1) / 2
    # Zeros lie around the picture in the one, its own border in the other.
    torch.testing.assert_close(output[..., 8:-8, 8:-8], expected[..., 8:-8, 8:-8], rtol=0, atol=1e-5)
