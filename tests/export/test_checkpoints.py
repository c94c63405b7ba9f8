"""Tests of reading checkpoints: those of other code bases give the outputs of their own code; other networks are refused."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from export import families
from export.build import command
from export.build.reference import first_manifest
from export.checkpoints import checkpoint
from export.checkpoints.identification import identify
from export.checkpoints.unsupported import FILES, NETWORKS, UnsupportedCheckpoint
from export.convert import main as convert_main
from export.inspect.__main__ import main as inspect_main
from export.models.esrgan.generator import Config, RRDBNet
from runtime.errors import InvalidInput
from tests.export.evaluation.data import public
from tests.export.originals import BasicSR, New, Old, dcgan_discriminator, dcgan_generator

EXAMPLES = settings(max_examples=15)
SMALL: dict[str, Any] = {"features": 4, "blocks": 1, "growth": 2}
State = dict[str, Tensor]


def original(kind: type[nn.Module], seed: int = 0, **sizes: Any) -> nn.Module:
    torch.manual_seed(seed)
    return kind(**({"inputs": 3, "outputs": 3} | SMALL | sizes)).eval()


def picture(config: Any, seed: int = 1) -> Tensor:
    """[1, C, H, W] of a size that any pixel-unshuffle can fold."""
    return torch.rand(1, config.in_channels, 8, 12, generator=torch.Generator().manual_seed(seed))


def same_output(path: Path, network: nn.Module, config: Config, **overrides: str) -> checkpoint.Checkpoint:
    """Load `path`; its configuration is `config`, and its output that of the original and of ours, to the bit."""
    loaded = checkpoint.load("esrgan", str(path), overrides)
    assert loaded.config == config
    ours = RRDBNet(config).eval()
    ours.load_state_dict(identify(path).tensors)
    with torch.inference_mode():
        expected = network(picture(config))
        assert torch.equal(loaded.module(picture(config)), expected)
        assert torch.equal(ours(picture(config)), expected)
    assert expected.shape == (1, config.out_channels, 8 * config.scale, 12 * config.scale)
    return loaded


def as_old(state: State) -> dict[str, Any]:
    return state


def as_basicsr(state: State) -> dict[str, Any]:
    others = {key: torch.zeros_like(value) for key, value in state.items()}
    return {"params": others, "params_ema": state}


def as_mmagic(state: State) -> dict[str, Any]:
    beside = {"discriminator.conv0.weight": torch.zeros(2), "step_counter": torch.tensor(1)}
    return {
        "meta": {"iter": 3},
        "state_dict": {f"generator.{key}": value for key, value in state.items()} | beside,
    }


CODE_BASES: dict[str, tuple[type[nn.Module], tuple[int, ...], Callable[[State], dict[str, Any]]]] = {
    "old ESRGAN": (Old, (1, 2, 3, 4, 8), as_old),
    "ESRGAN+": (Old, (1, 2, 3, 4, 8), as_old),
    "ESRGAN of 2019, BSRGAN, RealSR": (New, (2, 4), as_old),
    "BasicSR, Real-ESRGAN": (BasicSR, (1, 2, 4), as_basicsr),
    "mmagic": (BasicSR, (1, 2, 4), as_mmagic),
}


@pytest.mark.parametrize("code_base", CODE_BASES)
@EXAMPLES
@given(data=st.data())
def test_every_code_base_gives_what_its_original_gives(
    code_base: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    kind, scales, wrap = CODE_BASES[code_base]
    scale, plus = data.draw(st.sampled_from(scales)), code_base == "ESRGAN+"
    colours = data.draw(st.sampled_from((1, 3, 4)))
    sizes: dict[str, Any] = {
        "features": data.draw(st.integers(1, 6)),
        "blocks": data.draw(st.integers(1, 3)),
        "growth": data.draw(st.integers(1, 5)),
        "scale": scale,
    }
    shortcuts = {"plus": True} if plus else {}
    network = original(
        kind, data.draw(st.integers(0, 99)), inputs=colours, outputs=colours, **sizes, **shortcuts
    )
    path = tmp_path_factory.mktemp("checkpoint") / "4x-model.pth"
    torch.save(wrap(network.state_dict()), path)
    unshuffle = 0 if kind is BasicSR else 1
    config = Config(**sizes, in_channels=colours, out_channels=colours, unshuffle=unshuffle, plus=plus)
    asked = {"scale": "3"} if scale == 3 else {}
    loaded = same_output(path, network, config, **asked)
    assert loaded.naming == code_base
    assert f"tensor names: {code_base}" in loaded.notes


def test_a_single_up_convolution_is_taken_as_two_and_three_may_be_asked_for(tmp_path: Path) -> None:
    cases: tuple[tuple[Literal[2, 3], dict[str, str]], ...] = (
        (2, {}),
        (2, {"scale": "2"}),
        (3, {"scale": "3"}),
    )
    for scale, asked in cases:
        network = original(Old, scale=scale)
        path = tmp_path / f"{scale}x.pth"
        torch.save(network.state_dict(), path)
        loaded = same_output(path, network, Config(**SMALL, scale=scale, unshuffle=1), **asked)
        note = "one up-convolution may be ×2 or ×3: taken as scale=2; if that is wrong, add --set scale=3"
        assert (note in loaded.notes) == (not asked)
        assert (note in inspected(path).output, inspected(path).exit_code) == (True, 0)
        with pytest.raises(InvalidInput, match=r"scale: got 4, but .x\.pth has 2 or 3; leave out this --set"):
            checkpoint.load("esrgan", str(path), {"scale": "4"})


def test_a_pixel_unshuffle_rules_out_scale_3(tmp_path: Path) -> None:
    network = original(Old, scale=2, inputs=12)
    torch.save(network.state_dict(), tmp_path / "1x.pth")
    loaded = checkpoint.load("esrgan", str(tmp_path / "1x.pth"))
    assert loaded.config == Config(**SMALL, scale=1, unshuffle=2)
    folded = nn.functional.pixel_unshuffle(picture(loaded.config), 2)
    with torch.inference_mode():
        assert torch.equal(loaded.module(picture(loaded.config)), network(folded))


@pytest.mark.parametrize(
    "inside",
    [
        ("module.",), ("_orig_mod.", "module."), ("netG.",), ("generator.",), ("model.",), ("net.", "module."),
        ("state_dict",), ("model_state_dict", "module."), ("params",), ("params-ema",), ("model",), ("net",),
        ("state_dict", "netG.", "module."), ("generator_ema", "_orig_mod."), ("model", "state_dict", "model."),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", [Old, New, BasicSR])
def test_wrappers_and_prefixes_are_taken_off(
    kind: type[nn.Module], inside: tuple[str, ...], tmp_path: Path
) -> None:
    network = original(kind, scale=4)
    content: dict[str, Any] = network.state_dict()
    for part in reversed(inside):
        if part.endswith("."):
            content = {part + key: value for key, value in content.items()}
        else:
            content = {part: content, "epoch": 3, "optimizer_states": [{"lr": 0.1}]}
    torch.save(content, tmp_path / "last.ckpt")
    same_output(tmp_path / "last.ckpt", network, Config(**SMALL, scale=4))


def test_ema_weights_are_preferred_and_a_note_says_so(tmp_path: Path) -> None:
    network, last = original(BasicSR, 1, scale=4), original(BasicSR, 2, scale=4)
    torch.save({"params": last.state_dict(), "params_ema": network.state_dict()}, tmp_path / "net_g.pth")
    loaded = same_output(tmp_path / "net_g.pth", network, Config(**SMALL))
    assert "params_ema used, params ignored" in loaded.notes
    result = CliRunner().invoke(
        command.main, ["--model", "esrgan", "--weights", str(tmp_path / "net_g.pth"), "--dry-run"]
    )
    assert "params_ema used, params ignored" in result.output
    assert "tensor names: BasicSR" in result.output


def test_an_averaged_generator_of_mmagic_is_preferred(tmp_path: Path) -> None:
    network, last = original(BasicSR, 1, scale=2), original(BasicSR, 2, scale=2)
    state = {f"generator.{key}": value for key, value in last.state_dict().items()}
    state |= {f"generator_ema.module.{key}": value for key, value in network.state_dict().items()}
    state |= {"generator_ema.steps": torch.tensor(7), "discriminator.conv0.weight": torch.zeros(1)}
    torch.save({"meta": {}, "state_dict": state}, tmp_path / "iter_10.pth")
    loaded = same_output(tmp_path / "iter_10.pth", network, Config(**SMALL, scale=2))
    assert loaded.naming == "mmagic"
    assert "generator_ema used, generator ignored, discriminator ignored" in loaded.notes


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_read_as_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    network = original(Old, scale=4).to(dtype)
    torch.save(network.state_dict(), tmp_path / "half.pth")
    loaded = checkpoint.load("esrgan", str(tmp_path / "half.pth"))
    with torch.inference_mode():
        expected = network.float()(picture(loaded.config))
        assert torch.equal(loaded.module(picture(loaded.config)), expected)
    assert any(str(dtype).removeprefix("torch.") in note for note in loaded.notes)


def test_files_saved_on_a_gpu_and_by_old_torch_and_safetensors_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = original(BasicSR, scale=4)
    torch.save(network.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file(network.state_dict(), tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "misnamed.pth").write_bytes((tmp_path / "model.safetensors").read_bytes())
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
    torch.save(network.state_dict(), tmp_path / "cuda.pth")
    with zipfile.ZipFile(tmp_path / "cuda.pth") as archive:
        assert b"cuda:0" in archive.read("cuda/data.pkl")
    for name in ("old.pth", "model.safetensors", "misnamed.pth", "cuda.pth"):
        same_output(tmp_path / name, network, Config(**SMALL))


def test_settings_that_contradict_the_file_name_both(tmp_path: Path) -> None:
    torch.save(original(BasicSR, scale=2).state_dict(), tmp_path / "2x.pth")
    for key, wrong, there in (("scale", "4", "2"), ("blocks", "23", "1"), ("unshuffle", "1", "2")):
        with pytest.raises(InvalidInput, match=rf"set: {key}: got {wrong}, but 2x\.pth has {there}"):
            checkpoint.load("esrgan", str(tmp_path / "2x.pth"), {key: wrong})
    checkpoint.load("esrgan", str(tmp_path / "2x.pth"), {"scale": "2", "unshuffle": "2", "plus": "False"})
    with pytest.raises(InvalidInput, match="plus: got 'maybe', expected true or false"):
        checkpoint.load("esrgan", str(tmp_path / "2x.pth"), {"plus": "maybe"})


def test_a_file_that_is_not_whole_names_the_tensors_in_its_own_words(tmp_path: Path) -> None:
    state = original(Old, scale=4).state_dict()
    del state["model.8.weight"]
    torch.save(state | {"model.99.weight": torch.zeros(1)}, tmp_path / "pruned.pth")
    with pytest.raises(
        InvalidInput, match=r"old ESRGAN.*missing model\.8\.weight; unexpected model\.99\.weight"
    ):
        checkpoint.load("esrgan", str(tmp_path / "pruned.pth"))
    state = original(BasicSR, scale=4).state_dict()
    torch.save(state | {"body.0.rdb2.conv3.weight": torch.zeros(2, 2, 3, 3)}, tmp_path / "odd.pth")
    with pytest.raises(InvalidInput, match=r"body\.0\.rdb2\.conv3\.weight: got \(2, 2, 3, 3\), expected"):
        checkpoint.load("esrgan", str(tmp_path / "odd.pth"))
    torch.save(state | {"conv_first.weight": torch.zeros(3)}, tmp_path / "flat.pth")
    with pytest.raises(InvalidInput, match=r"conv_first\.weight: got \[3\], expected a convolution's"):
        checkpoint.load("esrgan", str(tmp_path / "flat.pth"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda weight: weight * torch.nan, "holds NaN or infinity"),
        (lambda weight: weight.to_sparse(), "sparse"),
        (lambda weight: weight.to("meta"), "is meta"),
        (lambda weight: weight.to(torch.complex64), "is complex64, expected real numbers"),
        (lambda weight: torch.zeros(1).expand(1 << 20, 1 << 20, 3, 3), "holds fewer"),
    ],
)
def test_a_tensor_of_no_use_is_named(change: Callable[[Tensor], Tensor], words: str, tmp_path: Path) -> None:
    state = original(BasicSR, scale=4).state_dict()
    state["conv_hr.weight"] = change(state["conv_hr.weight"])
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(InvalidInput, match=r"conv_hr\.weight") as refused:
        checkpoint.load("esrgan", str(tmp_path / "odd.pth"))
    assert words in str(refused.value)
    shown = CliRunner().invoke(inspect_main, [str(tmp_path / "odd.pth")])
    assert (shown.exit_code, words in shown.output) == (1, True)


@pytest.mark.parametrize("key", ["conv_hr.weight", "body.0.rdb2.conv3.bias"])
def test_inspect_exits_with_1_for_shapes_that_no_build_can_use(key: str, tmp_path: Path) -> None:
    state = original(BasicSR, scale=4).state_dict()
    state[key] = torch.zeros(2, 2)
    torch.save(state, tmp_path / "odd.pth")
    shown = CliRunner().invoke(inspect_main, [str(tmp_path / "odd.pth")])
    assert (shown.exit_code, key in shown.output) == (1, True)


@pytest.mark.parametrize("features", [-5, 10**6, 10**30])
def test_metadata_of_an_impossible_network_gives_a_one_line_error(features: int, tmp_path: Path) -> None:
    metadata = {"model": "esrgan", "config": json.dumps({"features": features}), "class_names": "[]"}
    save_file({"conv_first.weight": torch.zeros(1)}, tmp_path / "odd.safetensors", metadata)
    for main, words in ((inspect_main, ()), (convert_main, (str(tmp_path / "o.pth"), "--to", "basicsr"))):
        result = CliRunner().invoke(main, [str(tmp_path / "odd.safetensors"), *words])
        assert (result.exit_code, type(result.exception)) == (1, SystemExit), result.output


def test_a_scale_that_no_generator_has_is_named(tmp_path: Path) -> None:
    state = original(BasicSR, scale=4).state_dict()
    more = {
        f"conv_up{number}.{kind}": state[f"conv_up1.{kind}"]
        for number in (3, 4)
        for kind in ("weight", "bias")
    }
    torch.save(state | more, tmp_path / "16x.pth")
    with pytest.raises(InvalidInput, match=r"4 up-convolutions .* upscale ×16, expected one of ×1, ×2, ×3"):
        checkpoint.load("esrgan", str(tmp_path / "16x.pth"))


@pytest.mark.parametrize("layers", [4, 5, 6])
@pytest.mark.parametrize("prefix", ["", "module.", "netG."])
def test_a_dcgan_of_any_depth_gives_what_its_original_gives(layers: int, prefix: str, tmp_path: Path) -> None:
    torch.manual_seed(layers)
    network = dcgan_generator(layers, latent=7, width=2, channels=1)
    network.train()(torch.randn(8, 7, 1, 1))  # batch norm with statistics of its own
    torch.save(
        {prefix + key: value for key, value in network.state_dict().items()}, tmp_path / "netG_epoch_9.pth"
    )
    assert f"{prefix}main.1.num_batches_tracked" in torch.load(tmp_path / "netG_epoch_9.pth")
    loaded = checkpoint.load("dcgan", str(tmp_path / "netG_epoch_9.pth"))
    assert (loaded.config.size, loaded.config.width) == (4 * 2 ** (layers - 1), 2)
    assert (loaded.config.latent_size, loaded.config.channels) == (7, 1)
    latent = torch.randn(2, 7)
    with torch.inference_mode():
        assert torch.equal(loaded.module(latent), network.eval()(latent[:, :, None, None]))


def test_a_file_of_another_generator_is_named(tmp_path: Path) -> None:
    torch.save(dcgan_generator(4).state_dict(), tmp_path / "netG.pth")
    with pytest.raises(InvalidInput, match=r"netG\.pth holds a 'dcgan' generator, expected 'esrgan'"):
        checkpoint.load("esrgan", str(tmp_path / "netG.pth"))
    torch.save({"whatever.weight": torch.zeros(3)}, tmp_path / "odd.pth")
    with pytest.raises(InvalidInput, match=r"no generator known here: whatever\.weight"):
        checkpoint.load("esrgan", str(tmp_path / "odd.pth"))
    torch.save({"epoch": 3, "netD": {"x": torch.zeros(1)}}, tmp_path / "rest.pth")
    with pytest.raises(InvalidInput, match="holds no state dict of tensors; its keys are epoch, netD"):
        checkpoint.load("esrgan", str(tmp_path / "rest.pth"))


def test_a_generator_without_other_names_is_read_under_our_names(tmp_path: Path) -> None:
    spec = families.get("acgan")
    module = spec.module(spec.config()).eval()
    torch.save(module.state_dict(), tmp_path / "acgan.pth")
    loaded = checkpoint.load("acgan", str(tmp_path / "acgan.pth")).module.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in module.state_dict().items())


def test_tensors_that_are_missing_or_too_many_under_our_own_names_are_named(tmp_path: Path) -> None:
    spec = families.get("acgan")
    state = spec.module(spec.config()).state_dict()
    del state["linear.bias"]
    torch.save(state, tmp_path / "acgan.pth")
    with pytest.raises(
        InvalidInput, match=r"does not fit the configuration \(see --set\): missing linear\.bias"
    ):
        checkpoint.load("acgan", str(tmp_path / "acgan.pth"))
    torch.save(state | {"linear.bias": torch.zeros(6144), "more": torch.zeros(1)}, tmp_path / "acgan.pth")
    with pytest.raises(InvalidInput, match="unexpected more"):
        checkpoint.load("acgan", str(tmp_path / "acgan.pth"))


def test_the_manifest_says_whose_tensor_names_it_had(tmp_path: Path) -> None:
    torch.save(original(Old, scale=4).state_dict(), tmp_path / "4x.pth")
    loaded = checkpoint.load("esrgan", str(tmp_path / "4x.pth"))
    weights = first_manifest(loaded, name="mine", precision="float32").weights
    assert (weights["source"], weights["tensor_names"]) == ("4x.pth", "old ESRGAN")
    random = checkpoint.load("dcgan", "random:0")
    assert "tensor_names" not in first_manifest(random, name="mine", precision="float32").weights


def test_files_of_ours_are_float16_and_their_hash_is_that_of_their_bytes(tmp_path: Path) -> None:
    spec = families.get("dcgan")
    path = tmp_path / "ours.safetensors"
    checkpoint.save(path, "dcgan", spec.tiny, spec.module(spec.tiny), ())
    stored = load_file(path)
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    assert not any(name.endswith("num_batches_tracked") for name in stored)
    loaded = checkpoint.load("dcgan", str(path))
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert {tensor.dtype for tensor in loaded.module.parameters()} == {torch.float32}
    copy = tmp_path / "renamed.safetensors"
    copy.write_bytes(path.read_bytes())
    assert checkpoint.load("dcgan", str(copy)).sha256 == loaded.sha256


def test_a_save_that_fails_leaves_the_file_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = families.get("dcgan")
    path = tmp_path / "ours.safetensors"
    checkpoint.save(path, "dcgan", spec.tiny, spec.module(spec.tiny), ())
    before = path.read_bytes()

    def fail(_tensors: object, unfinished: Path, _metadata: object) -> None:
        unfinished.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(checkpoint, "save_file", fail)
    with pytest.raises(OSError, match="no space left"):
        checkpoint.save(path, "dcgan", spec.tiny, spec.module(spec.tiny), ())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


# --- What is refused -------------------------------------------------------------------------------------------


def vgg_discriminator() -> nn.Module:
    features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.LeakyReLU(), nn.Conv2d(4, 4, 4), nn.BatchNorm2d(4))
    return nn.ModuleDict(
        {
            "features": features,
            "classifier": nn.Sequential(nn.Linear(4, 4), nn.LeakyReLU(), nn.Linear(4, 1)),
        }
    )


def named(*names: str) -> State:
    return {name: torch.zeros(2, 2, 1, 1) for name in names}


def linear(*widths: int) -> State:
    layers = [nn.Linear(a, b) for a, b in itertools.pairwise(widths)]
    return nn.Sequential(*(module for layer in layers for module in (layer, nn.ReLU()))).state_dict()


STAND_INS = {
    "SRGAN ×4": named("block1.0.weight", "block2.prelu.weight", "block8.0.conv.weight", "block8.1.conv.weight"),
    "SRGAN or SRResNet of BasicSR": named("conv_first.weight", "body.0.conv1.weight", "upconv1.weight"),
    "EDSR": named("conv_first.weight", "body.0.conv1.weight", "upsample.0.weight"),
    "SwinIR": named(
        "conv_first.weight", "layers.0.residual_group.blocks.0.attn.relative_position_bias_table"
    ),
    "HAT": named(
        "layers.0.residual_group.overlap_attn.qkv.weight",
        "layers.0.residual_group.blocks.0.attn.relative_position_bias_table",
    ),
    "PAN ×4": named(
        "conv_first.weight", "SCPA_trunk.0.conv1_a.weight", "att1.conv.weight", "upconv1.weight", "upconv2.weight"
    ),
    "DCGAN's discriminator": dcgan_discriminator().state_dict(),
    "ESRGAN's discriminator": named("conv0_0.weight", "conv0_0.bias", "linear1.weight"),
    "ESRGAN's discriminator in xinntao's first form": vgg_discriminator().state_dict(),
    "Real-ESRGAN's U-Net discriminator": named("conv0.weight", "conv1.weight_orig", "conv9.weight"),
    "a VGG classifier": named("features.0.weight", "classifier.6.weight"),
    "a discriminator of linear layers": linear(784, 8, 1),
    "an MLP GAN generator: linear layers, 64 values in, 784 out, a picture of 28×28 (MNIST)": linear(64, 8, 784),
}  # fmt: skip


@pytest.mark.parametrize("name", STAND_INS)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_network_of_another_kind_is_recognised_by_name_and_keys(
    name: str, prefix: str, tmp_path: Path
) -> None:
    state = {prefix + key: value for key, value in STAND_INS[name].items()}
    torch.save({"params": state}, tmp_path / "other.pth")
    for model in ("esrgan", "dcgan"):
        with pytest.raises(UnsupportedCheckpoint) as refused:
            checkpoint.load(model, str(tmp_path / "other.pth"))
        assert refused.value.kind.startswith(name)
        assert refused.value.evidence
        assert set(refused.value.evidence) <= set(STAND_INS[name])
        assert f"is {refused.value.kind}, recognised by {', '.join(refused.value.evidence)}" in str(
            refused.value
        )


def test_no_generator_of_ours_is_taken_for_another_network(tmp_path: Path) -> None:
    for model in families.names():
        spec = families.get(model)
        torch.save(spec.module(spec.tiny).state_dict(), tmp_path / "ours.pth")
        identify(tmp_path / "ours.pth")
    assert (
        len({kind.keys for kind in NETWORKS}) >= len(NETWORKS) - 1
    )  # the two of linear layers differ by shape


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ({"state": {}, "param_groups": []}, "an optimiser's state"),
        ({"epoch": 1, "optimizers": [], "schedulers": []}, "a training state of BasicSR"),
        ({"step": 1, "parts": {}, "average": {}, "random": {}}, "to resume a ganforge training"),
    ],
)
def test_a_pickle_without_a_generator_is_recognised_by_name(
    content: dict[str, Any], name: str, tmp_path: Path
) -> None:
    torch.save(content, tmp_path / "latest.pth")
    with pytest.raises(UnsupportedCheckpoint, match=name):
        checkpoint.load("esrgan", str(tmp_path / "latest.pth"))


@pytest.mark.parametrize("kind", FILES, ids=lambda kind: kind.name)
def test_a_file_of_another_kind_is_recognised_by_its_bytes(kind: Any, tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(b"\0" * kind.at + kind.begins + b" and so on" * 100)
    with pytest.raises(UnsupportedCheckpoint) as refused:
        checkpoint.load("esrgan", str(tmp_path / "x.pth"))
    assert refused.value.kind == kind.name


def archive(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as written:
        for name in names:
            written.writestr(name, "")
    return path


def test_archives_that_torch_save_did_not_write_are_recognised(tmp_path: Path) -> None:
    scripted = archive(tmp_path / "a.pt", "net/data.pkl", "net/constants.pkl", "net/code/__torch__.py")
    with pytest.raises(
        UnsupportedCheckpoint, match="TorchScript archive, which holds code, recognised by code/__torch__"
    ):
        checkpoint.load("esrgan", str(scripted))
    with pytest.raises(
        UnsupportedCheckpoint, match=r"a zip archive of other files, recognised by readme\.txt"
    ):
        checkpoint.load("esrgan", str(archive(tmp_path / "b.zip", "readme.txt")))
    torch.save(original(Old, scale=4).state_dict(), tmp_path / "whole.pth")
    (tmp_path / "part.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:2000])
    with pytest.raises(InvalidInput, match="cannot be read: it is damaged or cut short"):
        checkpoint.load("esrgan", str(tmp_path / "part.pth"))


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (b"", "it is empty"),
        (b"\x08\x08\x12\x07pytorch", "is an ONNX graph"),
        (b"\0\0\0\0some weights", "an ncnn network's weights?"),
        (b"hello", "its bytes are of no kind known here"),
    ],
)
def test_unknown_bytes_are_refused(head: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(head)
    with pytest.raises(InvalidInput) as refused:
        checkpoint.load("esrgan", str(tmp_path / "x.bin"))
    assert said in str(refused.value)


def test_metadata_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    for config, said in (("{", "not JSON"), ("3", "no configuration")):
        metadata = {"model": "esrgan", "config": config}
        save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors", metadata)
        with pytest.raises(InvalidInput, match=said):
            checkpoint.load("esrgan", str(tmp_path / "x.safetensors"))


class Payload:
    """Makes a file when it is unpickled by anything but a restricted loader."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def save_zip(content: Any, path: Path) -> None:
    torch.save(content, path)


def save_legacy(content: Any, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def save_plain(content: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(content))


def save_text(content: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(content, protocol=0))


@pytest.mark.parametrize("save", [save_zip, save_legacy, save_plain, save_text])
@pytest.mark.parametrize("suffix", [".pth", ".ckpt", ".safetensors"])
def test_a_payload_is_refused_and_does_not_run(
    save: Callable[[Any, Path], None], suffix: str, tmp_path: Path
) -> None:
    marker, path = tmp_path / "it-ran", tmp_path / f"model{suffix}"
    save({"params": original(BasicSR, scale=4).state_dict(), "x": Payload(marker)}, path)
    with pytest.raises(InvalidInput):
        checkpoint.load("esrgan", str(path))
    with pytest.raises(InvalidInput):
        checkpoint.read(path)
    assert inspected(path).exit_code == 1
    assert not marker.exists()
    if save is save_zip:
        with pytest.raises(
            UnsupportedCheckpoint,
            match=r"a pickle that asks for code, recognised by (posix|nt)\.mkdir; nothing",
        ):
            checkpoint.load("esrgan", str(path))
    if save is save_plain:  # and the marker does tell
        with pytest.raises(UnsupportedCheckpoint, match=r"a Python pickle that torch\.save did not write"):
            checkpoint.load("esrgan", str(path))
        pickle.loads(path.read_bytes())
        assert marker.exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mlp-gan-mnist-G.ckpt", "an MLP GAN generator: linear layers, 64 values in, 784 out, a picture of 28×28"),
        ("PANx4_DF2K.pth", "PAN ×4, recognised by SCPA_trunk.0.conv1_a.weight"),
    ],
)  # fmt: skip
def test_public_files_of_other_networks_are_refused_by_name(name: str, words: str) -> None:
    path = public("checkpoint-samples") / name
    for model in ("esrgan", "dcgan"):
        with pytest.raises(UnsupportedCheckpoint) as refused:
            checkpoint.load(model, str(path))
        assert f"{name} is {words}" in str(refused.value)


def test_a_public_file_of_another_generator_is_named() -> None:
    path = public("checkpoint-samples") / "srgan-x2.pth"
    with pytest.raises(InvalidInput, match=r"srgan-x2\.pth holds a 'srgan' generator, expected 'esrgan'"):
        checkpoint.load("esrgan", str(path))


# --- The command -----------------------------------------------------------------------------------------------


def inspected(path: Path) -> Result:
    return CliRunner().invoke(inspect_main, [str(path)])


def test_inspect_says_what_a_file_is(tmp_path: Path) -> None:
    network = original(BasicSR, scale=2)
    torch.save({"params_ema": network.half().state_dict()}, tmp_path / "2x.pth")
    result = inspected(tmp_path / "2x.pth")
    assert result.exit_code == 0
    lines = dict(line.split(":", 1) for line in result.output.splitlines())
    table = {key: value.strip() for key, value in lines.items()}
    expected = {
        "file": "2x.pth", "format": "PyTorch", "inside": "params_ema", "tensor names": "BasicSR, Real-ESRGAN",
        "model": "esrgan", "scale": "2", "features": "4", "blocks": "1", "growth": "2", "in_channels": "3",
        "unshuffle": "2", "dtype": "float16", "parameters": f"{sum(p.numel() for p in network.parameters()):,}",
    }  # fmt: skip
    assert table.items() >= expected.items()
    assert len(table["sha256"]) == 64
    assert "params_ema used" in table["notes"]


def test_inspect_says_what_a_file_is_not(tmp_path: Path) -> None:
    torch.save(STAND_INS["SwinIR"], tmp_path / "swin.pth")
    result = inspected(tmp_path / "swin.pth")
    assert result.exit_code == 1
    assert "is:            SwinIR" in result.output
    assert "layers.0.residual_group" in result.output
    torch.save(named("x.weight"), tmp_path / "x.pth")
    for path, said in ((tmp_path / "x.pth", "no generator known here"), (tmp_path / "none", "no file at")):
        result = inspected(path)
        assert result.exit_code == 1
        assert said in result.output
        assert "Traceback" not in result.output
    assert inspected(Path("shipped:dcgan")).exit_code == 0
