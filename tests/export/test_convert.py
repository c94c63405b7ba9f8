"""Tests of `python -m export.convert`: it changes names and file formats, and no bit of a tensor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch import Tensor, nn

from export.checkpoints import checkpoint
from export.checkpoints.identification import identify
from export.convert import convert, main
from runtime.errors import InvalidInput
from tests.export.originals import BasicSR, New, Old, dcgan_generator

SMALL = {"features": 4, "blocks": 2, "growth": 2, "inputs": 3, "outputs": 3}
SUFFIX = {"old": ".pth", "basicsr": ".pth", "safetensors": ".safetensors"}
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def original(kind: type[nn.Module], seed: int = 0, **sizes: Any) -> nn.Module:
    torch.manual_seed(seed)
    return kind(**(SMALL | sizes)).eval()


def equal(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """Names, dtypes, shapes and bits."""
    return a.keys() == b.keys() and all(
        a[key].dtype == b[key].dtype and torch.equal(a[key], b[key]) for key in a
    )


def there(path: Path) -> Mapping[str, Tensor]:
    return identify(path).tensors


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


# What a network must be for the target to express it: (its original, its sizes).
EXPRESSED: dict[str, list[tuple[type[nn.Module], dict[str, Any]]]] = {
    "old": [(Old, {"scale": scale, "plus": plus}) for scale in (1, 2, 3, 4, 8) for plus in (False, True)]
    + [(New, {"scale": 2}), (New, {"scale": 4}), (BasicSR, {"scale": 4})],
    "basicsr": [(Old, {"scale": 4}), (New, {"scale": 4}), *((BasicSR, {"scale": s}) for s in (1, 2, 4))],
    "safetensors": [(Old, {"scale": scale, "plus": True}) for scale in (1, 2, 3, 4, 8)]
    + [(Old, {"scale": 3}), (New, {"scale": 2}), *((BasicSR, {"scale": s}) for s in (1, 2, 4))],
}
DIRECTIONS = [(kind, sizes, to) for to, all_of in EXPRESSED.items() for kind, sizes in all_of]


@pytest.mark.parametrize(("kind", "sizes", "to"), DIRECTIONS)
@settings(max_examples=2)
@given(seed=st.integers(0, 99), dtype=st.sampled_from(DTYPES), growth=st.integers(1, 4))
def test_converting_there_and_back_gives_equal_tensors(
    kind: type[nn.Module],
    sizes: dict[str, Any],
    to: str,
    seed: int,
    dtype: torch.dtype,
    growth: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("convert")
    state = original(kind, seed, growth=growth, **sizes).to(dtype).state_dict()
    first = folder / "first.pth"
    torch.save(state, first)
    scale = {"scale": str(sizes["scale"])}
    away = folder / f"away{SUFFIX[to]}"
    convert(first, away, to, scale)
    assert equal(there(away), there(first))
    for back in EXPRESSED:  # the other targets are of other families
        if (kind, sizes) not in EXPRESSED[back]:
            continue
        home = folder / f"home{SUFFIX[back]}"
        convert(away, home, back, scale)
        assert equal(there(home), there(first))
        own = {"old": Old, "basicsr": BasicSR}.get(back)
        if own is kind:  # the very file again, names and all
            written = torch.load(home)
            assert equal(written.get("params", written), state)
    assert not list(folder.glob("*.part"))


@pytest.mark.parametrize("to", ["old", "basicsr"])
def test_what_is_written_loads_in_the_code_that_it_is_for(to: str, tmp_path: Path) -> None:
    source = tmp_path / "ours.safetensors"
    torch.save({"params_ema": original(BasicSR, scale=4).state_dict()}, tmp_path / "net_g.pth")
    convert(tmp_path / "net_g.pth", source, "safetensors")
    convert(tmp_path / "net_g.pth", tmp_path / "out.pth", to)
    written = torch.load(tmp_path / "out.pth")
    if to == "basicsr":
        assert written.keys() == {"params_ema"}  # they are still the averaged ones
    network = original(BasicSR if to == "basicsr" else Old, seed=9, scale=4)
    network.load_state_dict(written.get("params_ema", written), strict=True)
    image = torch.rand(1, 3, 5, 7)
    with torch.inference_mode():
        assert torch.equal(network(image), checkpoint.load("esrgan", str(source)).module(image))


def test_safetensors_hold_the_configuration(tmp_path: Path) -> None:
    torch.save(original(Old, scale=3).state_dict(), tmp_path / "3x.pth")
    usual = run(tmp_path / "3x.pth", tmp_path / "ours.safetensors", "--to", "safetensors")
    assert usual.exit_code == 0, usual.output
    assert "taken as scale=2; if that is wrong, add --set scale=3" in usual.output
    assert checkpoint.load("esrgan", str(tmp_path / "ours.safetensors")).config.scale == 2
    result = run(
        tmp_path / "3x.pth", tmp_path / "ours.safetensors", "--to", "safetensors", "--set", "scale=3"
    )
    assert result.exit_code == 0, result.output
    assert "esrgan, from old ESRGAN to ganforge" in result.output
    assert "taken as" not in result.output
    with safe_open(tmp_path / "ours.safetensors", "pt") as file:
        assert file.metadata()["model"] == "esrgan"
        assert file.get_tensor("conv_up1.weight").dtype == torch.float32
    assert checkpoint.load("esrgan", str(tmp_path / "ours.safetensors")).config.scale == 3


@pytest.mark.parametrize("shipped", sorted(path.stem for path in checkpoint.SHIPPED.glob("*.safetensors")))
def test_all_shipped_weights_go_to_safetensors(shipped: str, tmp_path: Path) -> None:
    source, target = f"shipped:{shipped}", tmp_path / "copy.safetensors"
    result = run(source, target, "--to", "safetensors")
    assert result.exit_code == 0, result.output
    assert equal(there(target), there(checkpoint.locate(source)))
    model = identify(target).model
    before, after = checkpoint.load(model, source), checkpoint.load(model, str(target))
    assert (after.config, after.class_names) == (before.config, before.class_names)


def test_a_dcgan_keeps_its_tensors(tmp_path: Path) -> None:
    state = dcgan_generator(4).state_dict()
    torch.save(state, tmp_path / "netG.pth")
    convert(tmp_path / "netG.pth", tmp_path / "out.safetensors", "safetensors")
    kept = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    assert equal(there(tmp_path / "out.safetensors"), kept)
    with pytest.raises(InvalidInput, match="got basicsr, but dcgan is written as safetensors"):
        convert(tmp_path / "netG.pth", tmp_path / "out.pth", "basicsr")


@pytest.mark.parametrize(
    ("kind", "sizes", "to", "said"),
    [
        (Old, {"scale": 4, "plus": True}, "basicsr", "cannot express ESRGAN+'s conv1x1 shortcuts"),
        (Old, {"scale": 8}, "basicsr", "cannot express 3 up-convolutions after a pixel-unshuffle of 1"),
        (Old, {"scale": 1}, "basicsr", "cannot express 0 up-convolutions"),
        (Old, {"scale": 4, "inputs": 12}, "old", "cannot express a pixel-unshuffle of 2 in front"),
        (BasicSR, {"scale": 2}, "old", "old ESRGAN cannot express a pixel-unshuffle of 2 in front"),
        (BasicSR, {"scale": 1}, "old", "cannot express a pixel-unshuffle of 4 in front"),
    ],
)
def test_what_a_code_base_cannot_express_is_named(
    kind: type[nn.Module], sizes: dict[str, Any], to: str, said: str, tmp_path: Path
) -> None:
    torch.save(original(kind, **sizes).state_dict(), tmp_path / "in.pth")
    (tmp_path / "out.pth").write_text("what was there")
    result = run(tmp_path / "in.pth", tmp_path / "out.pth", "--to", to)
    assert result.exit_code == 1
    assert said in result.output
    assert (tmp_path / "out.pth").read_text() == "what was there"
    assert {path.name for path in tmp_path.iterdir()} == {"in.pth", "out.pth"}


def test_wrong_arguments_are_named_in_the_error(tmp_path: Path) -> None:
    torch.save(original(Old, scale=4).state_dict(), tmp_path / "in.pth")
    torch.save({"x": torch.zeros(1)}, tmp_path / "x.pth")
    for words, said in (
        (
            (tmp_path / "in.pth", tmp_path / "out.pth", "--to", "safetensors"),
            "expected a name in .safetensors",
        ),
        ((tmp_path / "in.pth", tmp_path / "out.bin", "--to", "old"), "expected a name in .pth, .pt, .ckpt"),
        ((tmp_path / "in.pth", tmp_path / "out.pth", "--to", "onnx"), "'onnx' is not one of"),
        ((tmp_path / "in.pth", tmp_path / "o.pth", "--to", "old", "--set", "blocks=9"), "in.pth has 2"),
        ((tmp_path / "x.pth", tmp_path / "out.pth", "--to", "old"), "no generator known here"),
        ((tmp_path / "none.pth", tmp_path / "out.pth", "--to", "old"), "no file at"),
    ):
        result = run(*words)
        assert result.exit_code != 0
        assert said in result.output
    assert {path.name for path in tmp_path.iterdir()} == {"in.pth", "x.pth"}


def test_a_disk_that_fills_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(original(New, scale=4).state_dict(), tmp_path / "x.pth")
    before = (tmp_path / "x.pth").read_bytes()

    def fail(_state: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", fail)
    result = run(tmp_path / "x.pth", tmp_path / "x.pth", "--to", "old")
    assert result.exit_code == 1
    assert "no space left" in result.output
    assert (tmp_path / "x.pth").read_bytes() == before
    assert not list(tmp_path.glob("*.part"))


def test_a_file_is_converted_onto_itself(tmp_path: Path) -> None:
    torch.save(original(New, scale=4).state_dict(), tmp_path / "x.pth")
    before = there(tmp_path / "x.pth")
    assert run(tmp_path / "x.pth", tmp_path / "x.pth", "--to", "basicsr").exit_code == 0
    assert equal(there(tmp_path / "x.pth"), before)
    assert identify(tmp_path / "x.pth").naming == "BasicSR, Real-ESRGAN"
