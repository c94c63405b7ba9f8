"""The one training loop: discriminator steps, generator step, average, tick. It knows no loss."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import nn

from export.checkpoints import checkpoint
from export.data import Ahead
from export.training.ema import Average, settle_batch_norm
from export.training.machine import Machine
from export.training.progress import Progress, interruptible
from export.training.recipe import Batch, Losses, Options, Trainer, learning_rate
from export.training.run import Run
from runtime.errors import EngineError, InvalidInput

T = TypeVar("T")


@dataclass
class Loop:
    """A run: what is trained, how long, on what, and where it is written.

    first: the step it goes on from. seconds_before: how long earlier parts of it took.
    """

    model: str
    config: Any
    trainer: Trainer
    options: Options
    run: Run
    machine: Machine
    average: Average = field(init=False)
    first: int = 0
    seconds_before: float = 0.0

    def __post_init__(self) -> None:
        self.average = Average(self.trainer.generator, self.options.ema_decay)

    def train(self) -> bool:
        """Train until `options.steps` or `options.minutes`, or until Ctrl-C. True if the run is complete.

        Raises EngineError at the first step whose loss is not finite; the checkpoints before it are kept.
        """
        trainer, options, machine = self.trainer, self.options, self.machine
        watch = Watch(self.run, machine)
        self.started = time.monotonic()
        step, (done,) = self.first, machine.furthest(self.progressed(self.first))
        trainer.generator.train()
        with (
            Ahead(
                trainer.batch,
                first=step * trainer.batches_a_step,
                depth=options.workers + 1,
                workers=options.workers,
            ) as batches,
            Progress(options.steps, done, shown=machine.first) as progress,
            interruptible() as interrupted,
        ):
            stopping = 0.0
            while done < 1 and not stopping:
                self.set_rates(done)
                losses = turn(trainer, step, lambda number: machine.take(batches.take(number)))
                step += 1
                self.average.update(trainer.generator, step)

                watch.add(step, losses)
                done, stopping = machine.furthest(self.progressed(step), interrupted())
                progress.advance(step, done)
                self.tick(step, done, bool(stopping), watch, batches, progress)
            machine.wait()
        return done >= 1

    def tick(
        self, step: int, done: float, stopping: bool, watch: Watch, batches: Ahead[Any], progress: Progress
    ) -> None:
        """What is due after this step: a line of the log; figures, samples, a checkpoint."""
        options, last = self.options, done >= 1 or stopping
        if due(step, options.log_every, last) or due(step, options.checkpoint_every, last):
            figures = watch.means(batches.waited_s, learning_rate(options, min(done, 1 - 1e-9)))
            self.tell(progress, step, done, figures)
        if self.machine.first:
            self.keep(step, done, last, progress)

    def keep(self, step: int, done: float, last: bool, progress: Progress) -> None:
        """Measure, draw and save the averaged generator, where it is due. The first process does so for all."""
        options = self.options
        if due(step, options.checkpoint_every, last):
            self.save(step)
        if due(step, options.validate_every, done >= 1):
            self.tell(progress, step, done, self.apart(self.trainer.validate))
        if due(step, options.sample_every, done >= 1):
            self.run.save_samples(step, self.apart(self.trainer.samples))
            self.run.draw_losses()

    def seconds(self) -> float:
        """How long the run has trained, earlier parts included."""
        return self.seconds_before + time.monotonic() - self.started

    def progressed(self, step: int) -> float:
        """The share of the run that is done, by steps or by time, whichever is further."""
        by_time = self.seconds() / (60 * self.options.minutes) if self.options.minutes else 0.0
        return max(step / self.options.steps, by_time)

    def set_rates(self, done: float) -> None:
        """Adam's, from the options: a resumed run may be given others than its checkpoint has."""
        options = self.options
        for optimizer in self.trainer.optimizers().values():
            for group in optimizer.param_groups:
                group |= {"lr": learning_rate(options, done), "betas": (options.beta1, options.beta2)}

    def tell(self, progress: Progress, step: int, done: float, figures: Mapping[str, float]) -> None:
        if figures and self.machine.first:
            self.run.log({"step": step, "seconds": self.seconds()} | dict(figures))
            progress.tell(step, done, figures)

    def apart(self, use: Callable[[nn.Module], T]) -> T:
        """What `use` makes of the averaged generator. The random numbers it draws do not change the run."""
        with self.machine.apart():
            inputs = (self.machine.take(self.trainer.batch(number)).inputs for number in range(32))
            return use(settle_batch_norm(self.average.module, inputs))

    def save(self, step: int) -> None:
        """A checkpoint to resume from, and the averaged generator as weights to build from.

        Raises EngineError where a weight is not finite: the last good checkpoint stays the last.
        """
        for name, value in self.average.module.state_dict().items():
            if not torch.isfinite(value).all():
                raise EngineError(blame(self.run, step, f"the weight {name!r} is not finite"))
        state = {name: part.state_dict() for name, part in self.trainer.parts().items()}
        self.run.save_checkpoint(
            step,
            {
                "seconds": self.seconds(),
                "parts": state,
                "average": self.average.module.state_dict(),
                "random": self.machine.random_state(),
            },
        )
        self.apart(
            lambda generator: checkpoint.save(
                self.run.weights, self.model, self.config, generator, self.trainer.class_names
            )
        )

    def restore(self) -> None:
        """Put everything back as the last checkpoint has it."""
        state = self.run.load_checkpoint()
        try:
            for name, part in self.trainer.parts().items():
                part.load_state_dict(state["parts"][name])
            self.average.module.load_state_dict(state["average"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise InvalidInput("resume", f"the checkpoint does not fit the options: {error}") from error
        self.first, self.seconds_before = state["step"], state["seconds"]
        if self.machine.first:
            self.machine.set_random_state(state["random"])
            self.run.forget_after(self.first)
        else:
            torch.manual_seed(torch.initial_seed() + self.first)


def turn(trainer: Trainer, step: int, take: Callable[[int], Batch]) -> Losses:
    """The discriminator's updates, each on a batch of its own, and the generator's on the last of them; their losses."""
    losses: Losses = {}
    for number in range(step * trainer.batches_a_step, (step + 1) * trainer.batches_a_step):
        batch = take(number)
        if trainer.discriminator_steps:
            losses = trainer.discriminator_step(batch)
    return losses | trainer.generator_step(batch)


class Watch:
    """The losses since the last line of the log. They are read from the device there, and not at every step."""

    def __init__(self, run: Run, machine: Machine) -> None:
        self.run, self.machine = run, machine
        self.steps: list[int] = []
        self.losses: list[Losses] = []
        self.since, self.waited_before_s = time.monotonic(), 0.0

    def add(self, step: int, losses: Losses) -> None:
        self.steps.append(step)
        self.losses.append(losses)

    def means(self, waited_s: float, lr: float) -> dict[str, float]:
        """Of each loss, over the steps since the last call and all processes; and the share of time spent waiting for data.

        Raises EngineError naming the first step with a loss that is not finite.
        """
        if not self.losses:
            return {}
        figures = {}
        for name in self.losses[0]:
            values = self.machine.mean(torch.stack([losses[name].float() for losses in self.losses])).tolist()
            for step, value in zip(self.steps, values, strict=True):
                if not math.isfinite(value):
                    raise EngineError(
                        blame(self.run, step, f"the loss {name!r} is {value}, expected a finite number")
                    )
            figures[name] = sum(values) / len(values)
        now = time.monotonic()
        figures |= {"lr": lr, "waiting_for_data": (waited_s - self.waited_before_s) / (now - self.since)}
        self.steps, self.losses, self.since, self.waited_before_s = [], [], now, waited_s
        return figures


def blame(run: Run, step: int, what: str) -> str:
    """What went wrong at a step, where the last good checkpoint lies, and what to do."""
    good = run.checkpoints()
    if not good:
        return f"step {step}: {what}; there is no checkpoint yet: start again with a smaller learning rate (--set lr=...)"
    return (
        f"step {step}: {what}; the last good checkpoint is {good[-1]}: "
        "resume with a smaller learning rate (--resume --set lr=...)"
    )


def due(step: int, every: int, last: bool) -> bool:
    return (every > 0 and step % every == 0) or last
