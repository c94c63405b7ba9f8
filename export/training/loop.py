"""The one training loop: step, average, log, samples, checkpoint. It knows no loss."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch

from export import checkpoint
from export.training.ema import Average, settle_batch_norm
from export.training.progress import Progress, interruptible
from export.training.recipe import Options, Trainer
from export.training.run import Run
from runtime.errors import EngineError, InvalidInput


def train(model: str, config: Any, trainer: Trainer, options: Options, run: Run, *, resume: bool) -> bool:
    """Train until `options.steps` or `options.minutes`, or until Ctrl-C. True if the run is complete.

    Raises EngineError at the first step whose loss is not finite; the checkpoints before it are kept.
    """
    average = Average(trainer.generator, options.ema_decay)
    first, seconds_before = restore(trainer, average, run) if resume else (0, 0.0)
    started = time.monotonic()
    sums: dict[str, float] = defaultdict(float)
    trainer.generator.train()
    step = first
    with Progress(first, options.steps) as progress, interruptible() as interrupted:
        done = progressed(options, step, seconds_before)
        while done < 1 and not interrupted():
            losses = finite(step, trainer.step(done))
            step += 1
            average.update(trainer.generator, step)
            for name, value in losses.items():
                sums[name] += value
            seconds = seconds_before + time.monotonic() - started
            done = progressed(options, step, seconds)
            last = done >= 1
            if due(step, options.log_every, last):
                counted = (step - first - 1) % options.log_every + 1
                means = {name: value / counted for name, value in sums.items()}
                sums.clear()
                run.log({"step": step, "seconds": seconds} | means)
                progress.tell(step, means)
            if due(step, options.validate_every, last):
                with aside():
                    figures = trainer.validate(settled(average, trainer))
                if figures:
                    run.log({"step": step, "seconds": seconds} | dict(figures))
                    progress.tell(step, figures)
            if due(step, options.sample_every, last):
                with aside():
                    run.save_samples(step, trainer.samples(settled(average, trainer)))
                run.draw_losses()
            if due(step, options.checkpoint_every, last) or interrupted():
                save(model, config, trainer, average, run, step, seconds)
            progress.advance()
    return done >= 1


def progressed(options: Options, step: int, seconds: float) -> float:
    """The share of the run that is done, by steps or by time, whichever is further."""
    by_time = seconds / (60 * options.minutes) if options.minutes else 0.0
    return max(step / options.steps, by_time)


def due(step: int, every: int, last: bool) -> bool:
    return step % every == 0 or last


def finite(step: int, losses: Mapping[str, torch.Tensor]) -> dict[str, float]:
    values = {name: float(value) for name, value in losses.items()}
    for name, value in values.items():
        if not math.isfinite(value):
            raise EngineError(
                f"step {step}: the loss {name!r} is {value}, expected a finite number; "
                "resume from the last checkpoint with a smaller learning rate (--resume --set lr=...)"
            )
    return values


def settled(average: Average, trainer: Trainer) -> torch.nn.Module:
    return settle_batch_norm(average.module, trainer.inputs)


def aside() -> Any:
    """Random numbers drawn inside do not change the run."""
    return torch.random.fork_rng(devices=[])


def save(
    model: str, config: Any, trainer: Trainer, average: Average, run: Run, step: int, seconds: float
) -> None:
    """A checkpoint to resume from, and the averaged generator as weights to build from."""
    state = {name: part.state_dict() for name, part in trainer.parts().items()}
    run.save_checkpoint(
        step,
        {
            "seconds": seconds,
            "parts": state,
            "average": average.module.state_dict(),
            "rng": torch.get_rng_state(),
        },
    )
    with aside():
        checkpoint.save(run.weights, model, config, settled(average, trainer), trainer.class_names)


def restore(trainer: Trainer, average: Average, run: Run) -> tuple[int, float]:
    """Put everything back as the last checkpoint has it; its step and the seconds trained so far."""
    state = run.load_checkpoint()
    try:
        for name, part in trainer.parts().items():
            part.load_state_dict(state["parts"][name])
        average.module.load_state_dict(state["average"])
    except (RuntimeError, ValueError, KeyError) as error:
        raise InvalidInput("resume", f"the checkpoint does not fit the options: {error}") from error
    torch.set_rng_state(state["rng"])
    run.forget_after(state["step"])
    return state["step"], state["seconds"]
