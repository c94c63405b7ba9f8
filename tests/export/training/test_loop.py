"""Tests of the loop with tiny trainers: the moving average, the learning rate, and how a run ends and resumes."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from export import data, families
from export.training.loop import CALIBRATION_BATCHES, Loop
from export.training.machine import Machine
from export.training.recipe import Batch, LossTerms, Stateful, Trainer, TrainingOptions
from export.training.run import Run
from runtime.errors import EngineError, InvalidInput

ACCIDENT = 3  # the step in which it happens


class Counter(Trainer):
    """Its weight is the number of the last step. Presses Ctrl-C in its third step, or loses its loss or weight in it."""

    def __init__(self, accident: str = "") -> None:
        torch.manual_seed(0)
        self.linear = nn.Linear(1, 1, bias=False)
        self.generator = nn.Sequential(self.linear, nn.BatchNorm1d(1))
        self.optimizer = torch.optim.SGD(self.generator.parameters(), lr=123.0)
        self.accident, self.taken = accident, 0
        self.learning_rates: list[float] = []

    def batch(self, number: int) -> Batch:
        latent = torch.randn(8, 1, generator=data.generator(0, number))
        return Batch(torch.zeros(1, 1), (latent,))

    def generator_step(self, batch: Batch) -> LossTerms:
        self.taken += 1
        accident = self.accident if self.taken == ACCIDENT else ""
        if accident == "interrupt":
            signal.raise_signal(signal.SIGINT)
        self.learning_rates.append(self.optimizer.param_groups[0]["lr"])
        with torch.no_grad():
            self.generator(*batch.inputs)
            self.linear.weight.fill_(float("nan") if accident == "weight" else self.taken)
        return {"loss": torch.tensor(float("nan") if accident == "loss" else 1.0)}

    def optimizers(self) -> Mapping[str, Any]:
        return {"optimizer": self.optimizer}

    def parts(self) -> Mapping[str, Stateful]:
        return {"generator": self.generator}

    def samples(self, generator: nn.Module) -> np.ndarray:
        assert not generator.training
        return np.zeros((1, 1, 3), np.uint8)


MakeLoop = Callable[..., Loop]


@pytest.fixture
def loop(tmp_path: Path) -> MakeLoop:
    """A run of a Counter, with these options."""

    def make(accident: str = "", **options: Any) -> Loop:
        run = Run(tmp_path / "run", "esrgan")
        run.start({}, fresh=not run.checkpoints())
        config, machine = families.get("esrgan").tiny, Machine("cpu")
        return Loop("esrgan", config, Counter(accident), TrainingOptions(**options), run, machine)

    return make


def exported(loop: Loop) -> dict[str, torch.Tensor]:
    return load_file(loop.run.weights())


def logged_steps(loop: Loop) -> list[int]:
    return [json.loads(line)["step"] for line in loop.run.log_file.read_text().splitlines()]


def test_the_exported_weights_are_the_moving_average(loop: MakeLoop) -> None:
    run = loop(steps=3, ema_decay=0.5)
    run.train()
    # After step 1 the average is 1; the ramp's decays at steps 2 and 3 are 3/12 and 4/13.
    second = 1 * 3 / 12 + 2 * 9 / 12
    third = second * 4 / 13 + 3 * 9 / 13
    assert exported(run)["0.weight"].item() == pytest.approx(third, abs=2e-3)  # stored in float16
    assert float(run.trainer.generator.state_dict()["0.weight"]) == 3, (
        "what is trained is not what is exported"
    )


def test_several_networks_are_exported_to_a_file_each(loop: MakeLoop) -> None:
    run = loop(steps=2, ema_decay=0.0)
    run.trainer.exports = {"scale": "0", "norm": "1"}
    run.train()
    assert not run.run.weights().exists()
    assert load_file(run.run.folder / "esrgan-scale.safetensors")["weight"].item() == 2
    assert "running_mean" in load_file(run.run.folder / "esrgan-norm.safetensors")


def test_with_decay_0_the_average_is_the_last_weight(loop: MakeLoop) -> None:
    run = loop(steps=4, ema_decay=0.0)
    run.train()
    assert exported(run)["0.weight"].item() == 4


def test_the_exported_batch_norm_is_calibrated_for_the_average(loop: MakeLoop) -> None:
    run = loop(steps=3, ema_decay=0.5)
    run.train()
    weight = exported(run)["0.weight"].item()
    outputs = [weight * run.trainer.batch(number).inputs[0] for number in range(CALIBRATION_BATCHES)]
    mean = torch.stack([output.mean() for output in outputs]).mean()
    variance = torch.stack([output.var() for output in outputs]).mean()
    assert exported(run)["1.running_mean"].item() == pytest.approx(mean.item(), abs=2e-3)
    assert exported(run)["1.running_var"].item() == pytest.approx(variance.item(), rel=5e-3)


def test_every_step_has_the_schedules_learning_rate(loop: MakeLoop) -> None:
    run = loop(steps=4, lr=2.0, schedule="halving", halve_at="0.5,0.75")
    assert isinstance(run.trainer, Counter)
    run.train()
    assert run.trainer.learning_rates == [2.0, 2.0, 1.0, 0.5]
    assert run.trainer.optimizer.param_groups[0]["betas"] == (0.9, 0.999)


def test_a_resumed_run_takes_the_learning_rate_that_is_given_now(loop: MakeLoop) -> None:
    loop(steps=2, lr=2.0).train()
    resumed = loop(steps=4, lr=3.0)
    assert isinstance(resumed.trainer, Counter)
    resumed.restore()
    resumed.train()
    assert resumed.trainer.learning_rates == [3.0, 3.0]


def test_ctrl_c_ends_the_step_and_saves_it_with_samples_and_curves(loop: MakeLoop) -> None:
    interrupted = loop("interrupt", steps=9)
    assert not interrupted.train()
    assert interrupted.run.load_checkpoint()["step"] == ACCIDENT
    assert exported(interrupted)
    assert (interrupted.run.folder / "samples/step-00000003.png").is_file()
    assert (interrupted.run.folder / "losses.png").is_file()
    assert logged_steps(interrupted) == [ACCIDENT]


def test_a_run_that_was_complete_has_its_results_made_again(loop: MakeLoop) -> None:
    complete = loop(steps=2)
    assert complete.train()
    before = exported(complete)
    results = [complete.run.weights(), complete.run.folder / "samples/step-00000002.png"]
    results.append(complete.run.folder / "losses.png")
    for path in results:
        path.unlink()
    resumed = loop(steps=2)
    resumed.restore()
    assert resumed.train()
    assert isinstance(resumed.trainer, Counter)
    assert resumed.trainer.taken == 0
    assert all(path.is_file() for path in results)
    assert all(torch.equal(value, before[name]) for name, value in exported(resumed).items())


def test_a_nan_is_named_with_its_step_and_the_last_good_checkpoint(loop: MakeLoop) -> None:
    with pytest.raises(EngineError, match=r"step 3: the loss 'loss' is nan.*step-00000002\.pt"):
        loop("loss", steps=9, checkpoint_every=2).train()


def test_weights_that_are_not_finite_are_not_saved(loop: MakeLoop) -> None:
    run = loop("weight", steps=9, checkpoint_every=1, ema_decay=0.5)
    with pytest.raises(EngineError, match=r"step 3: the weight '0\.weight' is not finite.*step-00000002\.pt"):
        run.train()
    assert run.run.checkpoints()[-1].name == "step-00000002.pt"
    assert torch.isfinite(exported(run)["0.weight"]).all()


def test_only_the_last_two_checkpoints_are_kept(loop: MakeLoop) -> None:
    complete = loop(steps=5, checkpoint_every=1)
    assert complete.train()
    assert [path.name for path in complete.run.checkpoints()] == ["step-00000004.pt", "step-00000005.pt"]
    assert not list(complete.run.folder.rglob("*.part"))


def test_a_checkpoint_of_another_version_is_refused_with_advice(loop: MakeLoop) -> None:
    complete = loop(steps=1)
    complete.train()
    path = complete.run.checkpoints()[-1]
    state = torch.load(path, weights_only=True)
    del state["format"]  # as the first version wrote them
    torch.save(state, path)
    with pytest.raises(
        InvalidInput, match=r"another version of ganforge \(format 1, expected 2\).*--start .*esrgan"
    ):
        loop(steps=2).restore()


def test_what_is_drawn_for_samples_leaves_the_runs_random_numbers_alone(loop: MakeLoop) -> None:
    class Drawing(Counter):
        def samples(self, generator: nn.Module) -> np.ndarray:
            torch.randn(100)
            return super().samples(generator)

    after = []
    for sample_every in (0, 1):
        run = loop(steps=3, sample_every=sample_every)
        run.trainer = Drawing()
        run.train()
        after.append(torch.randn(1).item())
    assert after[0] == after[1]
