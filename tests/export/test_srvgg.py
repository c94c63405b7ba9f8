"""Tests of the family `srvgg`: public files give what their own code gives, others are refused, strengths of denoising mix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from export.build.command import main as build
from export.checkpoints import checkpoint
from export.convert import main as convert
from export.inspect.__main__ import main as inspect
from export.interpolate import main as interpolate
from export.models.srvgg.generator import Config
from runtime.errors import InvalidInput
from tests.export.originals import SRVGGNetCompact

State = dict[str, Tensor]
# Real-ESRGAN's released files, by the sizes that its inference script gives them.
RELEASED: dict[str, dict[str, Any]] = {
    "realesr-general-x4v3": {"features": 64, "convolutions": 32, "scale": 4},
    "realesr-general-wdn-x4v3": {"features": 64, "convolutions": 32, "scale": 4},
    "realesr-animevideov3": {"features": 64, "convolutions": 16, "scale": 4},
}
SMALL: dict[str, Any] = {"features": 4, "convolutions": 2, "scale": 2}


def original(seed: int = 0, **sizes: Any) -> nn.Module:
    """The public network with random weights; PReLU's slopes are different, as trained ones are."""
    torch.manual_seed(seed)
    network = SRVGGNetCompact(**(SMALL | sizes)).eval()
    for layer in network.modules():
        if isinstance(layer, nn.PReLU):
            nn.init.uniform_(layer.weight, -0.5, 1.0)
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, a=0.5)
    return network


def picture(colours: int = 3) -> Tensor:
    return torch.rand(2, colours, 7, 10, generator=torch.Generator().manual_seed(1))


def run(main: Any, *words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.mark.parametrize("name", RELEASED)
@pytest.mark.parametrize("wrapper", ["params", "params_ema", None])
def test_released_files_are_built_by_name_and_give_what_their_original_gives(
    name: str, wrapper: str | None, tmp_path: Path
) -> None:
    path, network = tmp_path / f"{name}.pth", original(**RELEASED[name])
    state = network.state_dict()
    torch.save({wrapper: state} if wrapper else state, path)
    loaded = checkpoint.load("srvgg", str(path))
    assert loaded.config == Config(**RELEASED[name])
    assert loaded.naming == "BasicSR, Real-ESRGAN"
    with torch.inference_mode():
        assert torch.equal(loaded.module(picture()), network(picture()))
    result = run(build, "--model", "srvgg", "--weights", path, "--dry-run", "--output", tmp_path / "bundles")
    assert result.exit_code == 0, result.output
    assert "srvgg-x4" in result.output


@settings(max_examples=25)
@given(
    features=st.integers(1, 6),
    convolutions=st.integers(0, 4),
    scale=st.sampled_from((1, 2, 3, 4, 8)),
    activation=st.sampled_from(("prelu", "relu", "leakyrelu")),
    colours=st.sampled_from((1, 3, 4)),
)
def test_any_size_is_inferred_from_the_tensors(
    tmp_path_factory: pytest.TempPathFactory, colours: int, activation: str, **sizes: int
) -> None:
    network = original(activation=activation, colours=colours, **sizes)
    path = tmp_path_factory.mktemp("checkpoint") / "net_g.pth"
    torch.save({"params": network.state_dict()}, path)
    asked = {"activation": "leakyrelu"} if activation == "leakyrelu" else {}
    loaded = checkpoint.load("srvgg", str(path), asked)
    expected = Config(**sizes, activation=activation, in_channels=colours, out_channels=colours)  # type: ignore[arg-type]
    assert loaded.config == expected
    with torch.inference_mode():
        assert torch.equal(loaded.module(picture(colours)), network(picture(colours)))


def test_an_activation_without_parameters_is_assumed_and_may_be_given(tmp_path: Path) -> None:
    path = tmp_path / "net_g.pth"
    torch.save(original(activation="leakyrelu").state_dict(), path)
    note = "taken as activation=relu; if that is wrong, add --set activation=leakyrelu"
    loaded, shown = checkpoint.load("srvgg", str(path)), run(inspect, path)
    assert loaded.config.activation == "relu"
    assert any(note in said for said in loaded.notes)
    assert (shown.exit_code, note in shown.output) == (0, True)
    assert checkpoint.load("srvgg", str(path), {"activation": "leakyrelu"}).config.activation == "leakyrelu"
    with pytest.raises(InvalidInput, match=r"activation: got prelu, but net_g\.pth has relu or leakyrelu"):
        checkpoint.load("srvgg", str(path), {"activation": "prelu"})


def changed(name: str, *shape: int) -> State:
    """A file with one tensor of another shape; without it if there is no shape."""
    state = original().state_dict()
    state[name] = torch.zeros(shape)
    return state if shape else {other: tensor for other, tensor in state.items() if other != name}


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (changed("body.2.weight", 4, 4, 5, 5), "body.2.weight: got [4, 4, 5, 5], expected a conv"),
        (changed("body.2.weight", 4, 4), "body.2.weight: got [4, 4], expected a convolution's"),
        (changed("body.2.weight", 8, 4, 3, 3), "body.2.weight: got (8, 4, 3, 3), expected (4, 4"),
        (changed("body.3.weight", 1), "body.3.weight: got [1], expected [4], PReLU's slope"),
        (changed("body.3.weight"), "missing body.3.weight"),
        (changed("body.6.bias"), "missing body.6.bias"),
        (changed("body.3.running_mean", 4), "unexpected body.3.running_mean"),
        (changed("body.6.weight", 10, 4, 3, 3), "body.6.weight: got [10, 4, 3, 3], expected 3·scale²"),
        (changed("body.6.weight", 2, 4, 3, 3), "body.6.weight: got [2, 4, 3, 3], expected 3·scale²"),
        (changed("body.0.weight", 4, 12, 3, 3), "expected [features, 1, 3 or 4 colours, 3, 3]"),
        (changed("body.99999999.weight", 4), "missing body.8.weight"),
        (changed("conv_first.weight", 4, 3, 3, 3), "unexpected conv_first.weight"),
    ],
)  # fmt: skip
def test_another_network_with_these_names_is_refused(state: State, said: str, tmp_path: Path) -> None:
    torch.save({"params": state}, tmp_path / "odd.pth")
    with pytest.raises(InvalidInput) as refused:
        checkpoint.load("srvgg", str(tmp_path / "odd.pth"))
    assert said in str(refused.value)
    shown = run(inspect, tmp_path / "odd.pth")
    assert (shown.exit_code, said in shown.output) == (1, True)


def test_files_of_the_other_upscaler_are_named(tmp_path: Path) -> None:
    torch.save(original().state_dict(), tmp_path / "compact.pth")
    with pytest.raises(InvalidInput, match=r"compact\.pth holds a 'srvgg' generator, expected 'esrgan'"):
        checkpoint.load("esrgan", str(tmp_path / "compact.pth"))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"activation": "gelu"}, "activation: got 'gelu', expected one of"),
        ({"in_channels": "1"}, "out_channels: got 3, expected in_channels, 1"),
    ],
)
def test_a_configuration_that_cannot_work_is_named(overrides: dict[str, str], said: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        checkpoint.load("srvgg", "random:0", overrides)
    assert said in str(refused.value)


def test_a_written_file_loads_in_the_code_that_it_is_for(tmp_path: Path) -> None:
    network = original()
    torch.save({"params_ema": network.state_dict()}, tmp_path / "net_g.pth")
    ours, theirs = tmp_path / "ours.safetensors", tmp_path / "theirs.pth"
    assert run(convert, tmp_path / "net_g.pth", ours, "--to", "safetensors").exit_code == 0
    assert run(convert, ours, theirs, "--to", "basicsr").exit_code == 0
    again = original(seed=9)
    again.load_state_dict(torch.load(theirs)["params"], strict=True)
    with torch.inference_mode():
        assert torch.equal(again(picture()), network(picture()))


@pytest.mark.parametrize("strength", [0.0, 0.25, 1.0])
def test_denoise_strength_mixes_the_two_networks_as_real_esrgan_does(strength: float, tmp_path: Path) -> None:
    """-dn S there: S of realesr-general-x4v3 and 1 - S of its wdn twin. Here: --alpha S from the twin to it."""
    twin, general = original(1).half().float(), original(2).half().float()
    for name, network in (("wdn", twin), ("general", general)):
        torch.save({"params": network.state_dict()}, tmp_path / f"{name}.pth")
    mixed = tmp_path / "mixed.safetensors"
    result = run(interpolate, tmp_path / "wdn.pth", tmp_path / "general.pth", "--alpha", strength, mixed)
    assert result.exit_code == 0, result.output
    expected, weak = general.state_dict(), twin.state_dict()
    got = checkpoint.load("srvgg", str(mixed)).module.state_dict()
    for name, tensor in expected.items():
        mean = strength * tensor + (1 - strength) * weak[name]
        torch.testing.assert_close(got[name], mean, rtol=1e-3, atol=1e-6)  # the file holds float16
