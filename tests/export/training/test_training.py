"""Every recipe, through the command line: it trains, its weights load, it resumes, and it says what is wrong."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from export import families
from export.checkpoints import checkpoint
from export.training import recipes
from export.training.loop import Loop
from export.training.machine import Machine
from export.training.recipe import Batch, LossTerms, Stateful, Trainer, TrainingOptions
from export.training.run import Run
from runtime.errors import EngineError
from tests.export.training.conftest import Train


@pytest.fixture(params=recipes.models())
def command(request: pytest.FixtureRequest, tmp_path: Path) -> list[Any]:
    """A run of four steps with the generator's tiny configuration, whichever recipe it is."""
    model = request.param
    spec = families.get(model)
    data = request.getfixturevalue("photographs" if spec.task == "upscale" else "archive")
    settings = asdict(spec.tiny) | {"batch": 2, "log_every": 1, "checkpoint_every": 2}
    if spec.task == "upscale":
        settings["patch_px"] = 8
    else:
        settings["discriminator_width"] = 1
    pairs = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    source = data if isinstance(data, Path) else data()
    return ["--model", model, "--data", source, "--output", tmp_path / "run", "--steps", 4, *pairs]


def option(command: list[Any], name: str) -> Any:
    return command[command.index(name) + 1]


def weights(command: list[Any]) -> dict[str, Tensor]:
    model = option(command, "--model")
    loaded = checkpoint.load(model, str(option(command, "--output") / f"{model}.safetensors"))
    return loaded.module.state_dict()


def test_a_run_leaves_weights_that_load_and_a_record(command: list[Any], train: Train) -> None:
    result = train(*command)
    assert result.exit_code == 0, result.output
    assert weights(command)
    folder: Path = option(command, "--output")
    assert json.loads((folder / "options.json").read_text())["options"]["steps"] == 4
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert (folder / "losses.png").is_file()
    assert (folder / "samples" / "step-00000004.png").is_file()
    assert "step 4/4" in result.output


def test_a_resumed_run_ends_where_an_unbroken_one_does(command: list[Any], train: Train) -> None:
    assert train(*command).exit_code == 0
    unbroken = weights(command)
    folder: Path = option(command, "--output")
    (folder / "checkpoints" / "step-00000004.pt").unlink()
    result = train(*command, "--resume")
    assert result.exit_code == 0, result.output
    assert "step 2/4" not in result.output
    for name, value in weights(command).items():
        torch.testing.assert_close(value, unbroken[name], rtol=0, atol=0, msg=name)
    steps = [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4]


def test_another_seed_gives_other_weights(command: list[Any], train: Train, tmp_path: Path) -> None:
    assert train(*command).exit_code == 0
    first = weights(command)
    command[command.index("--output") + 1] = tmp_path / "other"
    assert train(*command, "--seed", 1).exit_code == 0
    assert any(not torch.equal(value, first[name]) for name, value in weights(command).items())


def test_an_existing_run_is_not_overwritten(command: list[Any], train: Train) -> None:
    assert train(*command).exit_code == 0
    result = train(*command)
    assert result.exit_code == 1
    assert "output:" in result.output
    assert "--resume" in result.output


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(command: list[Any], train: Train) -> None:
    result = train(*command, "--set", "lr=1e30", "--steps", 40)
    assert result.exit_code == 1
    assert "step " in result.output
    assert "expected a finite number" in result.output


def test_a_resumed_run_keeps_what_it_was_begun_with(command: list[Any], train: Train) -> None:
    assert train(*command).exit_code == 0
    folder: Path = option(command, "--output")
    before = (folder / "options.json").read_text()
    for wrong in (
        ("--seed", 7),
        ("--precision", "bfloat16"),
        ("--set", "latent_size=9"),
        ("--set", "growth=5"),
    ):
        assert train(*command, "--resume", *wrong).exit_code == 1
        assert (folder / "options.json").read_text() == before
    assert train(*command, "--resume", "--steps", 5).exit_code == 0


def test_samples_may_come_before_the_first_line_of_the_log(command: list[Any], train: Train) -> None:
    extra = ("--set", "log_every=0", "--set", "sample_every=1", "--set", "checkpoint_every=0")
    result = train(*command, *extra)
    assert result.exit_code == 0, result.output
    assert len(list((option(command, "--output") / "samples").iterdir())) == 4


def test_a_log_that_a_crash_cut_short_is_no_obstacle(command: list[Any], train: Train) -> None:
    assert train(*command).exit_code == 0
    log = option(command, "--output") / "log.jsonl"
    log.write_text(log.read_text() + '{"step": 4, "sec')
    assert train(*command, "--resume", "--steps", 5).exit_code == 0
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == [1, 2, 3, 4, 5]


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


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        (("--set", "leraning_rate=1"), "set: got 'leraning_rate'"),
        (("--set", "lr"), "set: got 'lr', expected key=value"),
        (("--set", "lr=fast"), "set: lr: got 'fast', expected float"),
        (("--set", "classes=2"), "labels run from 0 to 2, expected 0 to 1"),
        (("--set", "channels=1"), "with 3 channels"),
        (("--set", "size=48"), "size: got 48"),
        (("--classes", "a,b"), "classes: got 2 different names, expected 3"),
        (("--data", "nowhere.npz"), "data: nothing at nowhere.npz"),
        (("--resume",), "resume: no checkpoint in"),
    ],
)
def test_a_wrong_option_is_named(
    train: Train, archive: Callable[..., Path], tmp_path: Path, extra: tuple[str, ...], told: str
) -> None:
    common = ("--model", "acgan", "--data", archive(), "--output", tmp_path / "run", "--set", "classes=3")
    result = train(*common, *extra)
    assert result.exit_code == 1
    assert told in result.output


@pytest.mark.parametrize(
    ("replaced", "told"),
    [
        ({"labels": None}, "the pictures have no labels"),
        ({"labels": np.zeros(3, np.uint8)}, "labels are (3,), expected (12,)"),
        ({"images": None}, "expected `images` or `train_images`"),
        ({"images": np.zeros((12, 32, 32, 3), np.float32)}, "expected [N, H, W(, C)] uint8"),
        ({"images": np.zeros((12, 40, 40, 3), np.uint8)}, "expected at most 32 px"),
    ],
)
def test_an_archive_that_does_not_fit_is_named(
    train: Train,
    archive: Callable[..., Path],
    tmp_path: Path,
    replaced: Mapping[str, Any],
    told: str,
) -> None:
    path = archive(**replaced)
    result = train("--model", "acgan", "--data", path, "--output", tmp_path / "run", "--set", "classes=3")
    assert result.exit_code == 1
    assert told in result.output


def test_a_folder_that_does_not_fit_is_named(train: Train, photographs: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    common = ("--model", "esrgan", "--output", tmp_path / "run")
    assert "no folder at" in train(*common, "--data", tmp_path / "nowhere").output
    assert "no pictures in" in train(*common, "--data", tmp_path / "empty").output
    assert "1.png is 64×48, expected 144 px" in train(*common, "--data", photographs).output


def test_a_corrupt_picture_is_named_and_left_out(train: Train, photographs: Path, tmp_path: Path) -> None:
    (photographs / "0.png").write_bytes(b"not a picture")
    tiny = [word for key in ("features=8", "blocks=1", "growth=4", "patch_px=8") for word in ("--set", key)]
    result = train(
        "--model", "esrgan", "--data", photographs, "--output", tmp_path / "run", "--steps", 1, *tiny
    )
    assert result.exit_code == 0, result.output
    assert "skipped: 0.png cannot be decoded" in result.output
    assert "skipped 1 files that could not be used" in result.output


def test_a_model_without_a_recipe_is_named(train: Train, tmp_path: Path) -> None:
    result = train("--model", "ergan", "--data", tmp_path, "--output", tmp_path / "run")
    assert result.exit_code == 1
    assert "model: got 'ergan'" in result.output


class Counter(Trainer):
    """A trainer of one number, which presses Ctrl-C in its third step, or loses a loss in it."""

    def __init__(self, accident: str) -> None:
        self.generator = nn.Linear(1, 1)
        self.accident = accident
        self.taken = 0

    def batch(self, number: int) -> Batch:
        return Batch(torch.zeros(1, 1), (torch.zeros(1, 1),))

    def generator_step(self, batch: Batch) -> LossTerms:
        self.taken += 1
        if self.taken == 3 and self.accident == "interrupt":
            signal.raise_signal(signal.SIGINT)
        return {"loss": torch.tensor(float("nan" if self.taken == 3 and self.accident == "nan" else 1))}

    def optimizers(self) -> Mapping[str, Any]:
        return {}

    def parts(self) -> Mapping[str, Stateful]:
        return {"generator": self.generator}

    def samples(self, generator: nn.Module) -> np.ndarray:
        return np.zeros((1, 1, 3), np.uint8)


@pytest.fixture
def loop(tmp_path: Path) -> Callable[..., Loop]:
    """A run of a Counter, with these options."""

    def make(accident: str, **options: Any) -> Loop:
        run = Run(tmp_path / "run", "esrgan")
        run.start({})
        config, machine = families.get("esrgan").tiny, Machine("cpu")
        return Loop("esrgan", config, Counter(accident), TrainingOptions(**options), run, machine)

    return make


def test_ctrl_c_ends_the_step_and_saves_it(loop: Callable[..., Loop]) -> None:
    interrupted = loop("interrupt", steps=9)
    assert not interrupted.train()
    assert interrupted.run.load_checkpoint()["step"] == 3


def test_a_nan_is_named_with_its_step_and_the_last_good_checkpoint(loop: Callable[..., Loop]) -> None:
    with pytest.raises(EngineError, match=r"step 3: the loss 'loss' is nan.*step-00000002\.pt"):
        loop("nan", steps=9, checkpoint_every=2).train()


def test_only_the_last_two_checkpoints_are_kept(loop: Callable[..., Loop]) -> None:
    complete = loop("", steps=5, checkpoint_every=1)
    assert complete.train()
    assert [path.name for path in complete.run.checkpoints()] == ["step-00000004.pt", "step-00000005.pt"]
