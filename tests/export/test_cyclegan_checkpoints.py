"""Files of pytorch-CycleGAN-and-pix2pix give, bit for bit, what its own networks give; others of its files are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from export.checkpoints import checkpoint
from export.checkpoints.identification import identify
from export.checkpoints.unsupported import UnsupportedCheckpoint
from export.convert import main as convert
from export.models.cyclegan.generator import SPEC, Config
from runtime.errors import InvalidInput
from tests.export import cyclegan_originals as theirs

EXAMPLES = settings(max_examples=12)
NORMS = st.sampled_from(list(theirs.NORMS))
CHANNELS = st.integers(1, 4)


def lively(network: nn.Module) -> nn.Module:
    """Batch norms as after a training, in eval mode."""
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            layer.running_mean.normal_(0, 0.2)
            layer.running_var.uniform_(0.5, 2)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
    return network.eval()


def check(network: nn.Module, config: Config, path: Path, side: int) -> None:
    """The file of `network` is recognised, has this configuration, and its outputs are the network's own."""
    loaded = checkpoint.load("cyclegan", str(path), {})
    assert loaded.config == config
    assert loaded.naming == "pytorch-CycleGAN-and-pix2pix"
    picture = torch.rand(1, config.in_channels, side, 2 * side) * 2 - 1
    with torch.inference_mode():
        assert torch.equal(loaded.module.eval()(picture), network(picture))


@EXAMPLES
@given(
    norm=NORMS,
    dropout=st.booleans(),
    blocks=st.integers(1, 3),
    inputs=CHANNELS,
    outputs=CHANNELS,
    features=st.integers(1, 5),
    parallel=st.booleans(),
)
def test_a_resnet_of_any_size_gives_what_theirs_gives(
    norm: str,
    dropout: bool,
    blocks: int,
    inputs: int,
    outputs: int,
    features: int,
    parallel: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.mktemp("files") / "latest_net_G_A.pth"
    network = lively(theirs.ResnetGenerator(inputs, outputs, features, norm, dropout, blocks))
    prefix = "module." if parallel else ""
    torch.save({prefix + key: value for key, value in network.state_dict().items()}, path)
    own_norm = norm.split()[0]
    config = Config("resnet", features, blocks, own_norm, inputs, outputs)
    check(network, config, path, side=12)


@EXAMPLES
@given(
    norm=NORMS,
    dropout=st.booleans(),
    downs=st.integers(5, 7),
    inputs=CHANNELS,
    outputs=CHANNELS,
    features=st.integers(1, 3),
)
def test_a_unet_of_any_size_gives_what_theirs_gives(
    norm: str,
    dropout: bool,
    downs: int,
    inputs: int,
    outputs: int,
    features: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.mktemp("files") / "latest_net_G.pth"
    network = lively(theirs.UnetGenerator(inputs, outputs, downs, features, norm, dropout))
    torch.save(network.state_dict(), path)
    config = Config(
        "unet", features, norm=norm.split()[0], in_channels=inputs, out_channels=outputs, downs=downs
    )
    check(network, config, path, side=2**downs)


@pytest.mark.parametrize("kind", ["resnet", "unet"])
def test_batch_norm_may_use_the_statistics_of_each_picture_as_theirs_does_without_eval(
    kind: str, tmp_path: Path
) -> None:
    network = lively(
        theirs.ResnetGenerator(3, 3, 2, "batch", False, 1)
        if kind == "resnet"
        else theirs.UnetGenerator(3, 3, 5, 2, "batch", False)
    )
    torch.save(network.state_dict(), tmp_path / "latest_net_G.pth")
    assumed = checkpoint.load("cyclegan", str(tmp_path / "latest_net_G.pth"), {})
    assert any("--set norm=picture" in note for note in assumed.notes)
    loaded = checkpoint.load("cyclegan", str(tmp_path / "latest_net_G.pth"), {"norm": "picture"})
    assert not any("norm=picture" in note for note in loaded.notes)
    pictures = torch.rand(2, 3, 32, 64) * 2 - 1
    with torch.inference_mode():
        together = loaded.module(pictures)
        network.train()
        for picture, answer in zip(pictures, together, strict=True):
            torch.testing.assert_close(answer[None], network(picture[None]), rtol=0, atol=1e-5)
        network.eval()
        assert not torch.allclose(together, network(pictures), atol=1e-2)
    with pytest.raises(InvalidInput, match="norm: got instance"):
        checkpoint.load("cyclegan", str(tmp_path / "latest_net_G.pth"), {"norm": "instance"})


def test_running_statistics_that_instance_norm_does_not_use_are_left_out_and_said_so(tmp_path: Path) -> None:
    network = theirs.ResnetGenerator(3, 3, 2, "instance with statistics", True, 1)
    torch.save(network.state_dict(), tmp_path / "old.pth")
    (note,) = (note for note in identify(tmp_path / "old.pth").notes if "left out" in note)
    assert note.startswith(
        "14 tensors left out, which pytorch-CycleGAN-and-pix2pix does not use either: model.2.running_mean"
    )


@pytest.mark.parametrize(
    "network",
    [
        theirs.ResnetGenerator(3, 1, 2, "batch", False, 2),
        theirs.ResnetGenerator(3, 3, 2, "instance", False, 1),
        theirs.UnetGenerator(1, 3, 6, 2, "batch", True),
        theirs.UnetGenerator(3, 3, 5, 1, "instance", False),
    ],
)
def test_files_are_converted_both_ways(network: nn.Module, tmp_path: Path) -> None:
    """A file of ours, written from theirs, is written back, and loads strictly in their network."""
    source, ours, back = (tmp_path / name for name in ("latest_net_G.pth", "ours.safetensors", "back.pth"))
    torch.save(lively(network).state_dict(), source)
    for arguments in ((source, ours, "--to", "safetensors"), (ours, back, "--to", "cyclegan")):
        result = CliRunner().invoke(convert, [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.output
    before, after = network.state_dict(), torch.load(back)
    counts = {name for name in before if name.endswith("num_batches_tracked")}
    network.load_state_dict(after)
    assert after.keys() == before.keys() - counts
    assert all(torch.equal(after[name], before[name]) for name in after)


def test_dropout_leaves_no_trace_in_a_converted_file(tmp_path: Path) -> None:
    network = lively(theirs.ResnetGenerator(3, 3, 2, "batch", True, 1))
    torch.save(network.state_dict(), tmp_path / "dropout.pth")
    result = CliRunner().invoke(
        convert, [str(tmp_path / "dropout.pth"), str(tmp_path / "without.pth"), "--to", "cyclegan"]
    )
    assert result.exit_code == 0, result.output
    without = theirs.ResnetGenerator(3, 3, 2, "batch", False, 1).eval()
    without.load_state_dict(torch.load(tmp_path / "without.pth"))
    picture = torch.rand(1, 3, 8, 8)
    with torch.inference_mode():
        assert torch.equal(without(picture), network(picture))


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (theirs.NLayerDiscriminator(3, 4, "instance"), "CycleGAN's or pix2pix' discriminator, recognised by"),
        (theirs.NLayerDiscriminator(6, 4, "batch", 4), "CycleGAN's or pix2pix' discriminator, recognised by"),
        (
            theirs.NLayerDiscriminator(3, 4, "instance with statistics", 2),
            "CycleGAN's or pix2pix' discriminator",
        ),
        (theirs.PixelDiscriminator(6, 4, "batch"), "CycleGAN's or pix2pix' discriminator of single pixels"),
    ],
)
def test_discriminators_are_refused_by_name(network: nn.Module, said: str, tmp_path: Path) -> None:
    torch.save(network.state_dict(), tmp_path / "latest_net_D_A.pth")
    with pytest.raises(UnsupportedCheckpoint, match=f"latest_net_D_A.pth is {said}") as refused:
        checkpoint.load("cyclegan", str(tmp_path / "latest_net_D_A.pth"), {})
    assert "give the generator" in str(refused.value)


def broken(change: str) -> dict[str, Tensor]:
    unet = change.startswith("unet")
    network = (
        theirs.UnetGenerator(3, 3, 5, 2, "instance", False)
        if unet
        else theirs.ResnetGenerator(3, 3, 2, "batch", False, 2)
    )
    state = network.state_dict()
    name = "model.model.1.model.3.model.5.bias" if unet else "model.11.conv_block.2.weight"
    if change.endswith("missing"):
        del state[name]
    elif change.endswith("more"):
        state["model.99.filt"] = torch.zeros(1)
    else:
        state[name] = torch.zeros(7)
    return state


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("resnet: missing", r"incomplete: missing model.11.conv_block.2.weight"),
        ("resnet: more", r"incomplete: unexpected model.99.filt"),
        ("resnet: shape", r"model.11.conv_block.2.weight"),
        ("unet: missing", r"incomplete: missing model.model.1.model.3.model.5.bias"),
        ("unet: more", r"incomplete: unexpected model.99.filt"),
        ("unet: shape", r"model.model.1.model.3.model.5.bias"),
    ],
)
def test_nothing_that_fits_only_half_is_loaded(change: str, said: str, tmp_path: Path) -> None:
    torch.save(broken(change), tmp_path / "latest_net_G.pth")
    with pytest.raises(InvalidInput, match=said):
        checkpoint.load("cyclegan", str(tmp_path / "latest_net_G.pth"), {})


def test_a_unet_that_their_code_cannot_build_is_not_written_for_it(tmp_path: Path) -> None:
    config = Config("unet", 2, norm="instance", downs=3)
    checkpoint.save(tmp_path / "small.safetensors", "cyclegan", config, SPEC.module(config), ())
    result = CliRunner().invoke(
        convert, [str(tmp_path / "small.safetensors"), str(tmp_path / "out.pth"), "--to", "cyclegan"]
    )
    assert result.exit_code
    assert "cannot express a U-Net of 3 halvings (it has 5 or more)" in result.output
