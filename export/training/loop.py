"""The training loop of all recipes: steps, moving average, log, samples and checkpoints. The losses are in the trainers.

command.py makes a Loop of the command line's options; `train` runs it and writes to the run's folder (run.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from export.checkpoints import checkpoint
from export.data import Prefetcher
from export.networks.batch_norm import recalibrate_batch_norm
from export.training.ema import ExponentialMovingAverage
from export.training.machine import Machine
from export.training.meter import LossMeter, failure_message
from export.training.progress import ProgressDisplay, interruptible
from export.training.recipe import Batch, LossTerms, Trainer, TrainingOptions, learning_rate
from export.training.run import Run
from runtime.errors import EngineError, InvalidInput

CALIBRATION_BATCHES = 32  # on which the averaged generator's batch-norm statistics are measured


@dataclass
class Loop:
    """A training run.

    model: the family. config: of its generator. options: of the recipe. run: the folder to write to. machine: the devices.
    average: the EMA weights. first_step: the step after which a resumed run continues. seconds_before: how long it trained
    before it was resumed.
    """

    model: str
    config: Any
    trainer: Trainer
    options: TrainingOptions
    run: Run
    machine: Machine
    average: ExponentialMovingAverage = field(init=False)
    first_step: int = 0
    seconds_before: float = 0.0

    def __post_init__(self) -> None:
        self.average = ExponentialMovingAverage(self.trainer.generator, self.options.ema_decay)

    def train(self) -> bool:
        """Train until `options.steps` or `options.minutes` are over, or until Ctrl-C. Returns whether the run is complete.

        However it ends, even if there was nothing left to do, the folder has the averaged generator's weights, samples and
        curves. Raises EngineError at the first step whose loss is not finite; earlier checkpoints are kept.
        """
        trainer, options, machine = self.trainer, self.options, self.machine
        meter = LossMeter(self.run, machine)
        self.started_s = time.monotonic()
        step, (done,) = self.first_step, machine.maximum(self.progress(self.first_step))
        trainer.generator.train()
        with (
            Prefetcher(
                trainer.batch,
                first=step * trainer.batches_a_step,
                depth=options.workers + 1,
                workers=options.workers,
            ) as batches,
            ProgressDisplay(options.steps, done, shown=machine.first) as display,
            interruptible() as interrupted,
        ):
            stopping = 0.0
            while done < 1 and not stopping:
                self.set_learning_rates(done)
                terms = train_step(trainer, step, lambda number: machine.move(batches.take(number)))
                step += 1
                self.average.update(trainer.generator, step)
                meter.add(step, terms)
                done, stopping = machine.maximum(self.progress(step), interrupted())
                display.advance(step, done)
                last = done >= 1 or bool(stopping)
                if due(step, options.log_every, last) or due(step, options.checkpoint_every, last):
                    lr = learning_rate(options, min(done, 1 - 1e-9))
                    self.log(display, step, done, meter.means(batches.waited_s, lr))
                if machine.first:
                    self.keep(step, done, last, display)
            if step == self.first_step and machine.first:
                self.keep_results(step)
            machine.wait()
        return done >= 1

    def keep(self, step: int, done: float, last: bool, display: ProgressDisplay) -> None:
        """Save, validate and draw what is due after this step: checkpoint and weights, figures, samples.

        Called in the first process only. done: the share of the run, in [0, 1]. last: whether the run ends here.
        """
        options = self.options
        saves = due(step, options.checkpoint_every, last)
        validates = due(step, options.validate_every, done >= 1)
        shows = due(step, options.sample_every, last)
        if saves:
            self.save_checkpoint(step)
        if saves or validates or shows:
            with self.machine.preserve_random_state():
                generator = self.exported_generator()
                if saves:
                    self.save_weights(generator)
                if validates:
                    self.log(display, step, done, self.trainer.validate(generator))
                if shows:
                    self.run.save_samples(step, self.trainer.samples(generator))
                    self.run.plot_log()

    def keep_results(self, step: int) -> None:
        """Write weights, samples and curves again for a run that was already complete: they may have been deleted."""
        with self.machine.preserve_random_state():
            generator = self.exported_generator()
            self.save_weights(generator)
            self.run.save_samples(step, self.trainer.samples(generator))
            self.run.plot_log()

    def seconds(self) -> float:
        """How long the run has trained, including the time before it was resumed."""
        return self.seconds_before + time.monotonic() - self.started_s

    def progress(self, step: int) -> float:
        """The share of the run that is done after `step`: of the steps or of the time, whichever is larger."""
        by_time = self.seconds() / (60 * self.options.minutes) if self.options.minutes else 0.0
        return max(step / self.options.steps, by_time)

    def set_learning_rates(self, done: float) -> None:
        """Set Adam's learning rate and betas from the options, which may differ from those in a resumed checkpoint."""
        options = self.options
        for optimizer in self.trainer.optimizers().values():
            for group in optimizer.param_groups:
                group |= {"lr": learning_rate(options, done), "betas": (options.beta1, options.beta2)}

    def log(self, display: ProgressDisplay, step: int, done: float, figures: Mapping[str, float]) -> None:
        if figures and self.machine.first:
            self.run.log({"step": step, "seconds": self.seconds()} | dict(figures))
            display.print_figures(step, done, figures)

    def exported_generator(self) -> nn.Module:
        """The averaged generator in eval mode, with batch-norm statistics measured on the run's first batches."""
        inputs = (
            self.machine.move(self.trainer.batch(number)).inputs for number in range(CALIBRATION_BATCHES)
        )
        return recalibrate_batch_norm(self.average.module, inputs)

    def save_checkpoint(self, step: int) -> None:
        """Write a checkpoint to resume from. Raises EngineError, and writes nothing, if a weight is not finite."""
        for name, value in self.average.module.state_dict().items():
            if not torch.isfinite(value).all():
                raise EngineError(failure_message(self.run, step, f"the weight {name!r} is not finite"))
        self.run.save_checkpoint(
            step,
            {
                "seconds": self.seconds(),
                "parts": {name: part.state_dict() for name, part in self.trainer.parts().items()},
                "average": self.average.state_dict(),
                "random": self.machine.random_state(),
            },
        )

    def save_weights(self, generator: nn.Module) -> None:
        for name, part in self.trainer.exports.items():
            module = generator.get_submodule(part)
            checkpoint.save(self.run.weights(name), self.model, self.config, module, self.trainer.class_names)

    def restore(self) -> None:
        """Load the last checkpoint into the networks, optimizers and average. Raises InvalidInput if it does not fit them."""
        state = self.run.load_checkpoint()
        try:
            for name, part in self.trainer.parts().items():
                part.load_state_dict(state["parts"][name])
            self.average.load_state_dict(state["average"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise InvalidInput(
                "resume", f"the last checkpoint does not fit these options; resume without --set: {error}"
            ) from error
        self.first_step, self.seconds_before = state["step"], state["seconds"]
        if self.machine.first:
            self.machine.set_random_state(state["random"])
            self.run.forget_after(self.first_step)
        else:
            torch.manual_seed(torch.initial_seed() + self.first_step)


def train_step(trainer: Trainer, step: int, take: Callable[[int], Batch]) -> LossTerms:
    """Train one step: update the discriminator, each time on a new batch, then the generator on the last of these batches.

    take: gives the run's batch of a number. Returns the losses of both players' last updates, by name.
    """
    terms: LossTerms = {}
    last = (step + 1) * trainer.batches_a_step - 1
    for number in range(step * trainer.batches_a_step, last + 1):
        batch = take(number)
        if trainer.discriminator_steps:
            terms = trainer.discriminator_step(batch, generator_follows=number == last)
    return terms | trainer.generator_step(batch)


def due(step: int, every: int, last: bool) -> bool:
    return (every > 0 and step % every == 0) or last
