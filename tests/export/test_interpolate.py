"""Tests of `python -m export.interpolate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file

from export import families
from export.checkpoints import checkpoint
from export.data import read_picture, write_picture
from export.interpolate import interpolate, main
from runtime.errors import InvalidInput


def weights(
    path: Path, seed: int, model: str = "esrgan", names: tuple[str, ...] = (), **changed: Any
) -> Path:
    """A checkpoint of a tiny generator, `changed` in its configuration."""
    spec = families.get(model)
    config = checkpoint.configure(spec.tiny, {key: str(value) for key, value in changed.items()})
    torch.manual_seed(seed)
    checkpoint.save(path, model, config, spec.module(config), names)
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def ends(tmp_path: Path) -> tuple[Path, Path]:
    return weights(tmp_path / "a.safetensors", 1), weights(tmp_path / "b.safetensors", 2)


def test_every_parameter_is_interpolated(ends: tuple[Path, Path], tmp_path: Path) -> None:
    result = run(*ends, "--alpha", 0.8, tmp_path / "out.safetensors")
    assert result.exit_code == 0, result.output
    assert "0.2 · a.safetensors + 0.8 · b.safetensors" in result.output
    a, b, out = (load_file(path) for path in (*ends, tmp_path / "out.safetensors"))
    assert out.keys() == a.keys()
    for key, value in out.items():
        # Weights are stored in float16.
        torch.testing.assert_close(
            value.float(), 0.2 * a[key].float() + 0.8 * b[key].float(), rtol=1e-3, atol=1e-6
        )
    assert checkpoint.load("esrgan", str(tmp_path / "out.safetensors")).config == families.get("esrgan").tiny


@pytest.mark.parametrize("alpha", [0, 1])
def test_alpha_0_and_1_give_the_checkpoints_bit_for_bit(
    ends: tuple[Path, Path], tmp_path: Path, alpha: int
) -> None:
    assert run(*ends, "--alpha", alpha, tmp_path / "out.safetensors").exit_code == 0
    out, end = load_file(tmp_path / "out.safetensors"), load_file(ends[alpha])
    assert out.keys() == end.keys()
    for key, value in out.items():
        assert torch.equal(value.view(torch.int16), end[key].view(torch.int16)), key
    a, b = {"x": torch.tensor([-0.0, 1.0])}, {"x": torch.tensor([5.0, float("inf")])}
    assert torch.equal(interpolate(a, b, alpha)["x"].view(torch.int32), (a, b)[alpha]["x"].view(torch.int32))


def test_a_strip_shows_alphas_from_0_to_1(ends: tuple[Path, Path], tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (20, 16, 3), dtype=np.uint8)
    write_picture(tmp_path / "in.png", picture)
    result = run(*ends, tmp_path / "strip.png", "--strip", tmp_path / "in.png")
    assert result.exit_code == 0, result.output
    drawn = read_picture(tmp_path / "strip.png")  # the middle 16×16, six times, ×4
    assert drawn.shape == (64, 6 * 64, 3)
    low = torch.from_numpy(picture[2:18].transpose(2, 0, 1) / np.float32(255))[None]
    for end, column in zip(ends, (drawn[:, :64], drawn[:, -64:]), strict=True):
        with torch.inference_mode():
            expected = checkpoint.load("esrgan", str(end)).module(low)[0].mul(255).round().clamp(0, 255)
        assert (torch.from_numpy(column.transpose(2, 0, 1).copy()).float() - expected).abs().max() <= 1


def test_exactly_one_of_alpha_and_strip_must_be_given(ends: tuple[Path, Path], tmp_path: Path) -> None:
    assert "alpha: is missing" in run(*ends, tmp_path / "out.safetensors").output


def test_what_is_read_is_never_overwritten(ends: tuple[Path, Path], tmp_path: Path) -> None:
    picture, link = tmp_path / "picture.png", tmp_path / "link.safetensors"
    write_picture(picture, np.zeros((8, 8, 3), np.uint8))
    link.symlink_to(ends[1])
    before = [path.read_bytes() for path in (*ends, picture)]
    for result in (
        run(*ends, "--alpha", 0.5, ends[0]),
        run(*ends, "--alpha", 0.5, link),
        run(*ends, "--strip", picture, picture),
    ):
        assert result.exit_code == 1
        assert "is one of the files that are read" in result.output
    assert [path.read_bytes() for path in (*ends, picture)] == before


def test_a_strip_needs_networks_that_take_a_picture(tmp_path: Path) -> None:
    ends = [weights(tmp_path / f"{seed}.safetensors", seed, "dcgan") for seed in (1, 2)]
    write_picture(tmp_path / "in.png", np.zeros((20, 16, 3), np.uint8))
    result = run(*ends, tmp_path / "strip.png", "--strip", tmp_path / "in.png")
    assert result.exit_code == 1
    assert "strip: dcgan takes no picture" in result.output
    assert not (tmp_path / "strip.png").exists()


def test_counts_are_not_averaged() -> None:
    a, b = {"count": torch.tensor(3)}, {"count": torch.tensor(8)}
    assert interpolate(a, b, 0.4)["count"] == 3
    assert interpolate(a, b, 0.6)["count"] == 8


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_an_alpha_outside_0_to_1_is_refused(alpha: float) -> None:
    with pytest.raises(InvalidInput, match="expected a number from 0 to 1"):
        interpolate({}, {}, alpha)


def test_tensors_that_do_not_fit_are_named() -> None:
    with pytest.raises(InvalidInput, match="z is in one of them only"):
        interpolate({"x": torch.zeros(1)}, {"x": torch.zeros(1), "z": torch.zeros(1)}, 0.5)
    with pytest.raises(InvalidInput, match=r"x: \[1\] and \[2\]"):
        interpolate({"x": torch.zeros(1)}, {"x": torch.zeros(2)}, 0.5)


def test_checkpoints_of_different_generators_are_refused(tmp_path: Path) -> None:
    first = weights(tmp_path / "first.safetensors", 1)
    others = {
        "blocks is 1 in A and 2 in B": weights(tmp_path / "deep.safetensors", 2, blocks=2),
        "model is 'esrgan' in A and 'dcgan' in B": weights(tmp_path / "dcgan.safetensors", 2, "dcgan"),
    }
    for words, other in others.items():
        result = run(first, other, "--alpha", 0.5, tmp_path / "out.safetensors")
        assert result.exit_code == 1
        assert words in result.output
    named = [weights(tmp_path / f"{name}.safetensors", 1, "acgan", (name, "b", "c")) for name in ("x", "y")]
    assert "class names is 'x, b, c' in A" in run(*named, "--alpha", 0.5, tmp_path / "out.safetensors").output
    assert not (tmp_path / "out.safetensors").exists()
    assert (
        "no file at"
        in run(first, tmp_path / "nowhere.pth", "--alpha", 0.5, "--model", "esrgan", tmp_path / "o").output
    )
