"""Tests of the tensor names of pytorch/examples' fast_neural_style: such files compute what its own network computes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from export.checkpoints import checkpoint
from export.checkpoints.unsupported import UnsupportedCheckpoint
from export.convert import main as convert
from export.models.style.generator import Config
from runtime.errors import InvalidInput
from tests.export.fast_neural_style import FastNeuralStyle, of_old, trained


def picture() -> Tensor:
    return torch.rand(2, 3, 16, 28, generator=torch.Generator().manual_seed(1)) * 255


def saved(path: Path, state: dict[str, Tensor]) -> str:
    torch.save(state, path)
    return str(path)


@pytest.mark.parametrize(("width", "blocks"), [(32, 5), (4, 2), (3, 1)])
def test_a_file_gives_what_its_own_network_gives(tmp_path: Path, width: int, blocks: int) -> None:
    network = trained(width, blocks)
    loaded = checkpoint.load("style", saved(tmp_path / "candy.pth", network.state_dict()))
    assert loaded.config == Config(features=width, blocks=blocks)
    assert loaded.naming == "pytorch/examples fast_neural_style"
    with torch.inference_mode():
        assert torch.equal(loaded.module(picture()), network(picture()))


def test_running_statistics_of_old_files_are_left_out_and_named(tmp_path: Path) -> None:
    network = trained(4, 2)
    state = of_old(network.state_dict())
    assert {"in1.running_mean", "res2.in2.running_var"} <= state.keys()
    state["in1.num_batches_tracked"] = torch.tensor(3)
    loaded = checkpoint.load("style", saved(tmp_path / "epoch_2.model", state))
    (note,) = [note for note in loaded.notes if "left out" in note]
    assert "18 tensors left out" in note
    assert "in1.running_mean" in note
    with torch.inference_mode():
        assert torch.equal(loaded.module(picture()), network(picture()))


def test_a_network_goes_to_that_code_base_and_back(tmp_path: Path) -> None:
    network = trained(4, 2)
    theirs, ours, back = (tmp_path / name for name in ("in.pth", "ours.safetensors", "back.pth"))
    saved(theirs, network.state_dict())
    for source, target, to in ((theirs, ours, "safetensors"), (ours, back, "fast-neural-style")):
        result = CliRunner().invoke(convert, [str(source), str(target), "--to", to])
        assert result.exit_code == 0, result.output
    assert checkpoint.load("style", str(ours)).config == Config(features=4, blocks=2)
    copy = FastNeuralStyle(4, 2).eval()
    copy.load_state_dict(torch.load(back, weights_only=True), strict=True)
    with torch.inference_mode():
        assert torch.equal(copy(picture()), network(picture()))


def test_batch_norm_cannot_be_written_in_those_names(tmp_path: Path) -> None:
    spec = checkpoint.load("style", "random:1", {"features": "4", "blocks": "1", "norm": "batch"})
    checkpoint.save(tmp_path / "batch.safetensors", "style", spec.config, spec.module)
    result = CliRunner().invoke(
        convert,
        [str(tmp_path / "batch.safetensors"), str(tmp_path / "out.pth"), "--to", "fast-neural-style"],
    )
    assert result.exit_code != 0
    assert "cannot express batch norm" in result.output


def test_a_file_with_norms_of_another_kind_is_refused_by_name(tmp_path: Path) -> None:
    """abhiskk/fast-neural-style: the same layers, norms written by hand, and pictures in BGR."""
    state = {
        key.replace("weight", "scale").replace("bias", "shift") if "conv" not in key else key: value
        for key, value in trained(4, 2).state_dict().items()
    }
    assert {"in1.scale", "res1.in2.shift", "conv1.conv2d.weight"} <= state.keys()
    with pytest.raises(UnsupportedCheckpoint, match=r"abhiskk/fast-neural-style.*in1\.scale.*BGR"):
        checkpoint.load("style", saved(tmp_path / "starry-night.pth", state))


def test_networks_that_only_resemble_it_are_refused(tmp_path: Path) -> None:
    state = trained(4, 2).state_dict()

    def refused(**changes: Tensor | None) -> str:
        changed = {key.replace("__", "."): value for key, value in changes.items()}
        kept = {key: value for key, value in (state | changed).items() if value is not None}
        with pytest.raises(InvalidInput) as error:
            checkpoint.load("style", saved(tmp_path / "other.pth", kept))
        return str(error.value)

    assert "missing res1.in2.weight" in refused(res1__in2__weight=None)
    assert "unexpected attention.weight" in refused(attention__weight=torch.zeros(1))
    assert "conv1.conv2d.weight: got [4, 3, 7, 7]" in refused(conv1__conv2d__weight=torch.zeros(4, 3, 7, 7))
    assert "conv1.conv2d.weight: got [4, 1, 9, 9]" in refused(conv1__conv2d__weight=torch.zeros(4, 1, 9, 9))
    # A transposed convolution's weights are [in, out, 3, 3].
    transposed = refused(deconv1__conv2d__weight=torch.zeros(16, 8, 3, 3))
    assert "deconv1.conv2d.weight: got (16, 8, 3, 3), expected (8, 16, 3, 3)" in transposed
    with pytest.raises(InvalidInput, match="holds a 'style' generator, expected 'esrgan'"):
        checkpoint.load("esrgan", saved(tmp_path / "style.pth", state))


def test_an_unknown_norm_is_named() -> None:
    with pytest.raises(InvalidInput, match="norm: got 'layer', expected one of instance, batch"):
        checkpoint.load("style", "random:1", {"norm": "layer"})
