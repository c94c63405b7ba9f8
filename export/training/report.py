"""Prints what a run does: at its start, at its end, and in a rehearsal (--dry-run). command.py calls it."""

from __future__ import annotations

import shlex
import time
from dataclasses import asdict
from datetime import timedelta

import click
import torch

from export.data import write_picture
from export.training.loop import Loop, train_step
from export.training.recipe import Recipe, Trainer

NAMED_SKIPPED = 10  # how many skipped files are named; the others are only counted


def print_start(loop: Loop, recipe: tuple[str, Recipe], *, writes: bool = True) -> None:
    """Print model, recipe, parameters, data, device, output folder and steps. writes: False for a rehearsal."""
    name, declared = recipe
    options, machine, trainer = loop.options, loop.machine, loop.trainer
    click.echo(f"model: {loop.model}, recipe {name}: {declared.about}")
    for part, count in parameter_counts(trainer).items():
        click.echo(f"{part}: {count:,} parameters")
    print_skipped(trainer.skipped)
    click.echo(f"data: {trainer.dataset or 'not described by this recipe'}")
    processes = f"{machine.processes} processes of " if machine.processes > 1 else ""
    count = torch.get_num_threads()
    threads = f", {count} thread{'s' * (count > 1)}" if machine.device.type == "cpu" else ""
    click.echo(f"device: {processes}{device_name(machine.device)}{threads}, {machine.precision}")
    click.echo(f"output: {loop.run.folder}" if writes else "output: no run is written")
    begun = f", continued after step {loop.first_step:,}" if loop.first_step else ""
    limit = f", at most {options.minutes:g} minutes" if options.minutes else ""
    click.echo(f"steps: {options.steps:,} with a batch of {options.batch}{limit}{begun}")


def print_end(loop: Loop, complete: bool) -> None:
    """Print where the weights are, the commands that build them, and how to continue if the run is not complete."""
    written = [path for name in loop.trainer.exports if (path := loop.run.weights(name)).is_file()]
    if not complete and loop.run.checkpoints():
        click.echo("stopped before the end; the same command with --resume continues")
    for path in written:
        click.echo(f"weights: {path}")
    if written:
        click.echo(f"samples and curves: {loop.run.folder / 'samples'}, {loop.run.folder / 'losses.png'}")
    for path in written:
        command = ["python", "-m", "export.build", "--model", loop.model, "--weights", str(path)]
        name = ["--name", path.stem] if len(written) > 1 else []  # else the bundles would replace one another
        click.echo(f"build them: {shlex.join([*command, *name])}")


def parameter_counts(trainer: Trainer) -> dict[str, int]:
    """The number of parameters of each network, by its name in the trainer."""
    return {
        name: sum(parameter.numel() for parameter in part.parameters())
        for name, part in trainer.parts().items()
        if isinstance(part, torch.nn.Module)
    }


def print_skipped(skipped: tuple[str, ...]) -> None:
    for problem in skipped[:NAMED_SKIPPED]:
        click.echo(f"skipped: {problem}")
    if skipped:
        unnamed = len(skipped) - NAMED_SKIPPED
        rest = f", {unnamed} of them not named here" if unnamed > 0 else ""
        click.echo(f"skipped {len(skipped)} files that could not be used{rest}")


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def rehearse(loop: Loop) -> None:
    """Train two steps, and print all options and how long the run would take.

    Nothing is written but a picture of what the generator is given, if the recipe has one to show.
    """
    options, machine, trainer = loop.options, loop.machine, loop.trainer
    for step in range(2):  # the first one also prepares kernels
        started_s = time.monotonic()
        terms = train_step(trainer, step, lambda number: machine.move(trainer.batch(number)))
        figures = "  ".join(f"{name} {float(value):.4g}" for name, value in terms.items())
    step_s = time.monotonic() - started_s
    if not machine.first:
        return
    for key, value in (asdict(loop.config) | asdict(options)).items():
        click.echo(f"  {key} = {value}")
    click.echo(figures)
    duration = timedelta(seconds=round(step_s * options.steps))
    written = "nothing was written"
    if (picture := trainer.preview()) is not None:
        target = loop.run.folder / "inputs.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        write_picture(target, picture)
        written = f"only {target} was written, crops as the generator is given them"
    click.echo(f"{step_s:.3g} s a step: {options.steps} steps in about {duration}; {written}")
