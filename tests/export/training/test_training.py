"""Tests every recipe through the command line: it trains, its weights load, and it resumes."""

from __future__ import annotations

import json
import re
import shlex
import signal
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from export import families
from export.build.command import main as build
from export.checkpoints import checkpoint
from export.models.dcgan.recipes import DcganTrainer
from export.training import recipes
from export.training.recipe import Batch, LossTerms
from tests.export.training.conftest import Train, tiny_command


def option(command: list[Any], name: str) -> Any:
    return command[command.index(name) + 1]


def weights(command: list[Any]) -> dict[str, Tensor]:
    """The tensors of all files of weights that a run left, by the file's name and their own."""
    loaded = {path.stem: checkpoint.load(option(command, "--model"), str(path)) for path in files(command)}
    return {
        f"{file}.{name}": value
        for file, weights in loaded.items()
        for name, value in weights.module.state_dict().items()
    }


def files(command: list[Any]) -> list[Path]:
    """The files of weights that a run leaves: one for each of its trainer's exports."""
    model = option(command, "--model")
    _, recipe = recipes.get(model, None)
    names = ["-".join(word for word in (model, name) if word) for name in recipe.trainer.exports]
    return [option(command, "--output") / f"{name}.safetensors" for name in names]


def test_a_run_leaves_weights_that_load_and_a_record(completed: list[Any]) -> None:
    assert weights(completed)
    folder: Path = option(completed, "--output")
    assert json.loads((folder / "options.json").read_text())["options"]["steps"] == 4
    assert steps_logged(folder) == [1, 2, 3, 4]
    assert (folder / "losses.png").is_file()
    assert (folder / "samples" / "step-00000004.png").is_file()


def test_a_run_says_what_it_does_at_its_start(complete_run: tuple[list[Any], str]) -> None:
    command, output = complete_run
    model = option(command, "--model")
    name, recipe = recipes.get(model, None)
    start, _, rest = output.partition("step 1/4")
    assert f"model: {model}, recipe {name}: {recipe.about}" in start
    generator = checkpoint.build(families.get(model), families.get(model).tiny)
    count = sum(parameter.numel() for parameter in generator.parameters())
    assert re.search(rf"^generator\w*: {count:,} parameters$", start, re.MULTILINE)
    of_archive = "12 colour pictures from {}, at 32×32 px, labels 0 to 2"
    of_photographs = "3 pictures from {}, 48 to 64 px a side, in crops of 32 px"
    of_kinds = "{}, A: 3 pictures, 32 to 43 px a side; B: 3 pictures, 32 to 43 px a side; in crops of 32 px"
    descriptions = {"two-kinds": of_kinds, "photographs": of_photographs, "archive.npz": of_archive}
    data = option(command, "--data")
    assert descriptions[data.name].format(data) in start
    assert "device: " in start
    assert f"output: {option(command, '--output')}" in start
    assert "steps: 4 with a batch of 2" in start
    assert "step 4/4" in rest


def test_the_command_that_a_run_ends_with_builds_its_weights(complete_run: tuple[list[Any], str]) -> None:
    command, output = complete_run
    bundles = set()
    for path, (program, *arguments) in zip(files(command), built(output), strict=True):
        assert f"weights: {path}" in output
        assert program == "export.build"
        assert option(arguments, "--weights") == str(path)
        result = CliRunner().invoke(build, [*arguments, "--dry-run"])
        assert result.exit_code == 0, result.output
        (bundle,) = [line for line in result.output.splitlines() if line.startswith("bundle:")]
        bundles.add(bundle)
    assert len(bundles) == len(files(command)), "else one bundle would replace another"


def built(output: str) -> list[list[str]]:
    """The commands that a run ends with, after `python -m`."""
    lines = [line for line in output.splitlines() if line.startswith("build them: ")]
    commands = [shlex.split(line.removeprefix("build them: ")) for line in lines]
    assert all(words[:2] == ["python", "-m"] for words in commands)
    return [words[2:] for words in commands]


def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(
    completed: list[Any], train: Train
) -> None:
    unbroken = weights(completed)
    folder: Path = option(completed, "--output")
    (folder / "checkpoints" / "step-00000004.pt").unlink()
    result = train(*completed, "--resume")
    assert result.exit_code == 0, result.output
    assert "steps: 4 with a batch of 2, continued after step 2" in result.output
    assert "step 2/4" not in result.output
    for name, value in weights(completed).items():
        torch.testing.assert_close(value, unbroken[name], rtol=0, atol=0, msg=name)
    assert steps_logged(folder) == [1, 2, 3, 4]


def test_a_complete_run_that_is_resumed_says_where_its_weights_are(
    completed: list[Any], train: Train
) -> None:
    before = weights(completed)
    folder: Path = option(completed, "--output")
    for path in (folder / "losses.png", *files(completed)):
        path.unlink()
    result = train(*completed, "--resume")
    assert result.exit_code == 0, result.output
    assert "step 1/4" not in result.output
    assert built(result.output)
    assert (folder / "losses.png").is_file()
    assert all(torch.equal(value, before[name]) for name, value in weights(completed).items())


def test_a_run_stopped_by_ctrl_c_says_how_to_go_on(
    train: Train, archive: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    updated = DcganTrainer.generator_step

    def interrupted(self: DcganTrainer, batch: Batch) -> LossTerms:
        signal.raise_signal(signal.SIGINT)
        return updated(self, batch)

    monkeypatch.setattr(DcganTrainer, "generator_step", interrupted)
    run = tmp_path / "run"
    arguments = tiny_command("dcgan", tmp_path, archive(), run)
    result = train(*arguments)
    assert result.exit_code == 130
    assert "stopped before the end; the same command with --resume continues" in result.output
    assert built(result.output)
    assert steps_logged(run) == [1]
    assert (run / "samples/step-00000001.png").is_file()
    assert (run / "losses.png").is_file()
    monkeypatch.setattr(DcganTrainer, "generator_step", updated)
    assert train(*arguments, "--resume").exit_code == 0
    assert steps_logged(run) == [1, 2, 3, 4]


def steps_logged(folder: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines()]


def test_another_seed_gives_other_weights(completed: list[Any], train: Train, tmp_path: Path) -> None:
    first = weights(completed)
    completed[completed.index("--output") + 1] = tmp_path / "other"
    assert train(*completed, "--seed", 1).exit_code == 0
    assert any(not torch.equal(value, first[name]) for name, value in weights(completed).items())


def test_an_existing_run_is_not_overwritten(completed: list[Any], train: Train) -> None:
    result = train(*completed)
    assert result.exit_code == 1
    assert "output:" in result.output
    assert "--resume" in result.output


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(command: list[Any], train: Train) -> None:
    result = train(*command, "--set", "lr=1e30", "--set", "checkpoint_every=0", "--steps", 40)
    assert result.exit_code == 1
    assert "step " in result.output
    assert "expected a finite number" in result.output
    assert "build them" not in result.output, "nothing was saved"


def test_a_resumed_run_keeps_what_it_was_begun_with(completed: list[Any], train: Train) -> None:
    folder: Path = option(completed, "--output")
    before = (folder / "options.json").read_text()
    for wrong in (
        ("--seed", 7),
        ("--precision", "bfloat16"),
        ("--set", "latent_size=9"),
        ("--set", "growth=5"),
    ):
        assert train(*completed, "--resume", *wrong).exit_code == 1
        assert (folder / "options.json").read_text() == before


def test_samples_may_come_before_the_first_line_of_the_log(
    train: Train, archive: Callable[..., Path], tmp_path: Path
) -> None:
    extra = ("--set", "log_every=0", "--set", "sample_every=1", "--set", "checkpoint_every=0")
    result = train(*tiny_command("dcgan", tmp_path, archive(), tmp_path / "run"), *extra)
    assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "run/samples").iterdir())) == 4


def test_a_log_that_a_crash_cut_short_can_be_resumed(completed: list[Any], train: Train) -> None:
    folder: Path = option(completed, "--output")
    log = folder / "log.jsonl"
    log.write_text(log.read_text() + '{"step": 4, "sec')
    assert train(*completed, "--resume", "--steps", 5).exit_code == 0
    assert steps_logged(folder) == [1, 2, 3, 4, 5]


def test_time_can_end_a_run_before_its_steps_do(command: list[Any], train: Train) -> None:
    result = train(*command, "--steps", 1_000_000, "--set", "minutes=0.001")
    assert result.exit_code == 0, result.output
    assert weights(command)


def test_acgan_takes_class_names_from_the_archive_or_from_the_user(
    train: Train, archive: Callable[..., Path], tmp_path: Path
) -> None:
    tiny = [
        word
        for key, value in asdict(families.get("acgan").tiny).items()
        for word in ("--set", f"{key}={value}")
    ]
    common = [
        "--model",
        "acgan",
        "--data",
        archive(),
        "--steps",
        1,
        "--set",
        "batch=2",
        "--set",
        "discriminator_width=1",
        *tiny,
    ]
    assert train(*common, "--output", tmp_path / "a").exit_code == 0
    assert checkpoint.load("acgan", str(tmp_path / "a/acgan.safetensors")).class_names == (
        "cat",
        "dog",
        "ship",
    )
    assert train(*common, "--output", tmp_path / "b", "--classes", "x, y,z").exit_code == 0
    assert checkpoint.load("acgan", str(tmp_path / "b/acgan.safetensors")).class_names == ("x", "y", "z")


def test_esrgan_measures_psnr_on_held_out_pairs(train: Train, photographs: Path, tmp_path: Path) -> None:
    from export.data import read_picture, write_picture
    from export.data.resize import resize

    held_out = tmp_path / "held-out"
    (held_out / "HR").mkdir(parents=True)
    (held_out / "LR_bicubic/X4").mkdir(parents=True)
    picture = read_picture(photographs / "1.png")
    write_picture(held_out / "HR/1.png", picture)
    write_picture(held_out / "LR_bicubic/X4/1x4.png", resize(picture, 1 / 4))
    tiny = [word for key in ("features=8", "blocks=1", "growth=4", "patch_px=8") for word in ("--set", key)]
    result = train(
        "--model", "esrgan", "--data", photographs, "--output", tmp_path / "run", "--steps", 1, "--validate", held_out, *tiny
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    # Bilinear interpolation, which the generator starts as, gives 30 dB here: a wrong shift or range, 20 or less.
    last = json.loads((tmp_path / "run/log.jsonl").read_text().splitlines()[-1])
    assert last["psnr_y_db"] > 28
