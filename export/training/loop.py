"""The one training loop: step, average, log, samples, checkpoint. It knows no loss."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import nn

from export import checkpoint
from export.training.ema import Average, settle_batch_norm
from export.training.progress import Progress, interruptible
from export.training.recipe import Options, Trainer
from export.training.run import Run
from runtime.errors import EngineError, InvalidInput

T = TypeVar("T")


def train(model: str, config: Any, trainer: Trainer, options: Options, run: Run, *, resume: bool) -> bool:
    """Train until `options.steps` or `options.minutes`, or until Ctrl-C. True if the run is complete.

    Raises EngineError at the first step whose loss is not finite; the checkpoints before it are kept.
    """
    average = Average(trainer.generator, options.ema_decay)
    first, seconds_before = restore(trainer, average, run) if resume else (0, 0.0)
    started = time.monotonic()
    step = saved = first
    seconds = seconds_before
    done = progressed(options, step, seconds)
    losses: list[dict[str, float]] = []
    trainer.generator.train()
    with Progress(options.steps, done) as progress, interruptible() as interrupted:
        while done < 1 and not interrupted():
            step += 1
            losses.append(finite(step, trainer.step(done)))
            average.update(trainer.generator, step)
            seconds = seconds_before + time.monotonic() - started
            done = progressed(options, step, seconds)
            last = done >= 1
            progress.advance(step, done)
            if due(step, options.log_every, last):
                tell(run, progress, step, seconds, done, means(losses))
                losses.clear()
            if due(step, options.validate_every, last):
                tell(run, progress, step, seconds, done, apart(trainer.validate, average, trainer))
            if due(step, options.sample_every, last):
                run.save_samples(step, apart(trainer.samples, average, trainer))
                run.draw_losses()
            if due(step, options.checkpoint_every, last):
                save(model, config, trainer, average, run, step, seconds)
                saved = step
        if saved != step:
            save(model, config, trainer, average, run, step, seconds)
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


def means(losses: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: sum(values[name] for values in losses) / len(losses) for name in losses[0]}


def tell(
    run: Run, progress: Progress, step: int, seconds: float, done: float, figures: Mapping[str, float]
) -> None:
    if figures:
        run.log({"step": step, "seconds": seconds} | dict(figures))
        progress.tell(step, done, figures)


def apart(use: Callable[[nn.Module], T], average: Average, trainer: Trainer) -> T:
    """What `use` makes of the averaged generator. The random numbers it draws do not change the run."""
    with torch.random.fork_rng(devices=[]):
        return use(settle_batch_norm(average.module, trainer.inputs))


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
    apart(
        lambda generator: checkpoint.save(run.weights, model, config, generator, trainer.class_names),
        average,
        trainer,
    )


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
