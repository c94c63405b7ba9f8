"""Tests of CycleGAN's training: its losses, its pool, its figures, and what it refuses before it starts."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from export.data import write_picture
from export.models.cyclegan.cycle import CycleOptions, CycleTrainer, PicturePool
from export.models.cyclegan.generator import SPEC, build
from export.training.machine import Machine
from export.training.recipe import Source
from tests.export.training.conftest import Train, write_two_kinds

SMALL: dict[str, Any] = {"crop_px": 24, "load_px": 0, "discriminator_width": 2, "pool": 1}


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_two_kinds(tmp_path_factory.mktemp("kinds") / "two-kinds")


def trainer(data: Path, validation: Path | None = None, **options: Any) -> CycleTrainer:
    torch.manual_seed(0)
    settings = CycleOptions(**(SMALL | options))
    return CycleTrainer(build(SPEC.tiny), SPEC.tiny, settings, Source(data, validation), Machine("cpu"))


def test_the_losses_are_the_papers(kinds: Path) -> None:
    """Equation 3 with least squares, λ 10 and identity 5; the discriminators' losses are halved."""
    training = trainer(kinds)
    batch = training.batch(0)
    a, b = batch.inputs
    with torch.no_grad():
        nets = copy.deepcopy(training.generator)
        judges = copy.deepcopy(training.discriminators)
        made_b, made_a = nets.a_to_b(a), nets.b_to_a(b)
        expected = {
            "generator_a": (judges["a"](made_a).logits - 1).square().mean(),
            "generator_b": (judges["b"](made_b).logits - 1).square().mean(),
            "cycle_a": 10 * (nets.b_to_a(made_b) - a).abs().mean(),
            "cycle_b": 10 * (nets.a_to_b(made_a) - b).abs().mean(),
            "identity_a": 5 * (nets.b_to_a(a) - a).abs().mean(),
            "identity_b": 5 * (nets.a_to_b(b) - b).abs().mean(),
        }
        for kind, real, fake in (("a", a, made_a), ("b", b, made_b)):
            logits = judges[kind](real).logits, judges[kind](fake).logits
            expected[f"discriminator_{kind}"] = (
                (logits[0] - 1).square().mean() + logits[1].square().mean()
            ) / 2
    terms = training.generator_step(batch)
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, rtol=1e-4, atol=1e-6, msg=name)
    for before, after in ((nets, training.generator), (judges, training.discriminators)):
        changed = [
            not torch.equal(x, y) for x, y in zip(before.parameters(), after.parameters(), strict=True)
        ]
        assert sum(changed) > len(changed) / 2  # a bias before an instance norm has no gradient


def test_without_an_identity_weight_there_is_no_such_loss(kinds: Path) -> None:
    training = trainer(kinds, identity=0.0)
    assert not {"identity_a", "identity_b"} & training.generator_step(training.batch(0)).keys()


def numbered(*numbers: int) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float32)[:, None, None, None]


def test_the_pool_shows_each_picture_until_it_is_full_and_then_older_ones_half_of_the_time() -> None:
    torch.manual_seed(0)
    pool, size = PicturePool(20), 20
    assert pool.exchange(numbered(*range(size))).flatten().tolist() == list(range(size))
    shown = [int(pool.exchange(numbered(number))) for number in range(size, 1000)]
    older = [number for place, number in enumerate(shown, start=size) if number != place]
    assert 0.45 < len(older) / len(shown) < 0.55
    assert len(set(older)) == len(older), "a picture that was shown again has left the pool"
    assert {int(picture) for picture in pool.pictures} | set(shown) == set(range(1000))


def test_a_pool_of_none_shows_what_comes() -> None:
    pool = PicturePool(0)
    assert pool.exchange(numbered(1, 2)).flatten().tolist() == [1, 2]
    pool.load_state_dict(pool.state_dict())
    assert not pool.pictures


def test_a_resumed_pool_shows_what_it_would_have_shown() -> None:
    pool = PicturePool(3)
    pool.exchange(numbered(1, 2, 3))
    resumed = PicturePool(3)
    resumed.load_state_dict(pool.state_dict())
    shown = []
    for each in (pool, resumed):
        torch.manual_seed(5)
        shown.append([each.exchange(numbered(number)).tolist() for number in range(4, 20)])
    assert shown[0] == shown[1]


def test_pictures_to_validate_on_are_measured_whole(kinds: Path, tmp_path: Path) -> None:
    """With generators that change nothing every cycle is exact, also of sides that are no multiple of 4."""
    for side in ("A", "B"):
        (tmp_path / side).mkdir()
        write_picture(tmp_path / side / "same.png", np.full((13, 10, 3), 40, np.uint8))
    write_picture(tmp_path / "A/other.png", np.full((9, 30, 3), 80, np.uint8))
    write_picture(tmp_path / "B/same.png", np.full((13, 10, 3), 45, np.uint8))
    training = trainer(kinds, tmp_path)
    training.generator.a_to_b = training.generator.b_to_a = torch.nn.Identity()
    figures = training.validate(training.generator)
    assert figures["a_to_b_db"] == figures["b_to_a_db"] == pytest.approx(10 * np.log10(255**2 / 25))
    assert min(figures["cycle_a_db"], figures["cycle_b_db"]) > 140  # the dB of no difference at all
    assert "validated on 2 and 1 from" in training.dataset


def test_samples_show_both_cycles(kinds: Path) -> None:
    training = trainer(kinds)
    picture = training.samples(training.generator.eval())
    assert picture.shape == (4 * 24, 6 * 24, 3)
    np.testing.assert_array_equal(picture, training.samples(training.generator))


def arguments(data: Path, output: Path, *settings: str) -> list[Any]:
    small = [f"{key}={value}" for key, value in (SMALL | {"features": 4, "blocks": 1}).items()]
    pairs = [word for setting in (*small, *settings) for word in ("--set", setting)]
    return ["--model", "cyclegan", "--data", data, "--output", output, "--steps", 1, *pairs]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("crop_px=26",), "crop_px: got 26, expected a multiple of 4"),
        (("crop_px=8",), "crop_px: got 8, expected 12 or more for discriminator_layers=2"),
        (("load_px=20",), "load_px: got 20, expected at least crop_px=24, or 0"),
        (("crop_px=60",), "is 64×48, expected 60 px a side or more"),
        (("out_channels=1",), "in_channels and out_channels: expected 3 for both"),
        (("objective=wgan-gp",), "objective: got 'wgan-gp', which this recipe does not implement"),
        (("discriminator_norm=layer",), "discriminator_norm: got 'layer'"),
        (("norm=layer",), "norm: got 'layer', expected one of instance, batch"),
        (("pool=-1",), "pool: got -1, expected 0 or more"),
    ],
)
def test_an_option_that_does_not_fit_is_named(
    train: Train, kinds: Path, tmp_path: Path, settings: tuple[str, ...], message: str
) -> None:
    result = train(*arguments(kinds, tmp_path / "run", *settings))
    assert result.exit_code == 1
    assert message in result.output
    assert not (tmp_path / "run").exists()


def test_what_was_found_in_the_folders_is_said_before_the_first_step(train: Train, tmp_path: Path) -> None:
    data = write_two_kinds(tmp_path / "data")
    (data / "B/0.png").write_bytes(b"not a picture")
    write_picture(data / "A/4.png", np.full((30, 24, 1), 9, np.uint8))
    start, _, _ = train(*arguments(data, tmp_path / "run")).output.partition("step 1/1")
    assert "skipped: B: 0.png cannot be decoded" in start
    assert "A: 4 pictures, 1 of them grey and taken as RGB, 24 to 64 px a side; B: 3 pictures" in start


def test_no_file_of_either_generator_is_overwritten(train: Train, kinds: Path, tmp_path: Path) -> None:
    mine = tmp_path / "run" / "cyclegan-b-to-a.safetensors"
    mine.parent.mkdir()
    mine.write_text("my own")
    result = train(*arguments(kinds, mine.parent))
    assert result.exit_code == 1
    assert f"{mine} exists and would be overwritten" in result.output


def test_weights_of_one_generator_are_no_start_for_two(train: Train, kinds: Path, tmp_path: Path) -> None:
    assert train(*arguments(kinds, tmp_path / "run")).exit_code == 0
    weights = tmp_path / "run" / "cyclegan-a-to-b.safetensors"
    result = train(*arguments(kinds, tmp_path / "again"), "--start", weights)
    assert result.exit_code == 1
    assert "start: got weights of one generator, but this recipe trains two" in result.output
    figures = json.loads((tmp_path / "run/log.jsonl").read_text().splitlines()[0])
    assert {"cycle_a", "identity_b", "discriminator_a"} <= figures.keys()
