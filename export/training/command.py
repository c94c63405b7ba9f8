"""From what the command line asks to a run: options resolved and saved, networks built, the loop started."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import torch

from export import families
from export.checkpoints import checkpoint
from export.checkpoints.checkpoint import Checkpoint
from export.training import recipes
from export.training.loop import Loop, turn
from export.training.machine import Machine
from export.training.recipe import NEEDED, Options, Recipe, Source, Trainer, learning_rate
from export.training.run import Run
from runtime.errors import InvalidInput

NAMED = 10  # skipped files that are named before the rest is only counted


@dataclass(frozen=True)
class Asked:
    """The command line's options, under their own names."""

    model: str
    recipe: str | None
    data: Path | None
    output: Path | None
    validate: Path | None
    classes: str
    start: str | None
    vgg19: Path | None
    steps: int | None
    settings: tuple[str, ...]
    seed: int | None
    threads: int | None
    accelerator: str
    devices: int
    nodes: int
    precision: str | None
    resume: bool
    dry_run: bool


def start(asked: Asked) -> bool:
    """Resolve the options, build the trainer and run the loop. True if the run is complete."""
    recipes.get(asked.model, asked.recipe)  # a name that does not exist is told before anything else
    run = Run(asked.output or Path("runs") / asked.model, asked.model)
    if asked.resume:
        asked = resumed(asked, run.saved_options())
    elif run.checkpoints() and not asked.dry_run:
        raise InvalidInput(
            "output", f"{run.folder} holds a run already; add --resume, or choose another folder"
        )
    name, recipe = recipes.get(asked.model, asked.recipe)
    if asked.data is None:
        raise InvalidInput(
            "data", "missing; name a folder of pictures, IDX or CIFAR files, or an .npz archive"
        )
    machine = Machine(asked.accelerator, asked.devices, asked.nodes, asked.precision or "float32")
    if asked.threads:
        torch.set_num_threads(asked.threads)
    seed = asked.seed or 0
    torch.manual_seed(seed)
    generator, config, options, started = prepare(asked, recipe)
    class_names = tuple(one.strip() for one in asked.classes.split(",")) if asked.classes else ()
    source = Source(asked.data, asked.validate, class_names, seed, asked.vgg19, started)
    trainer = recipe.trainer(machine.place(generator), config, options, source, machine)
    learning_rate(options, 1 - 1e-9)  # a schedule that does not exist is told before the first step
    if not machine.first:
        torch.manual_seed(seed + machine.fabric.global_rank)  # dropout of its own
    if machine.first:
        tell_skipped(trainer.skipped)
    if asked.dry_run:
        rehearse(asked.model, name, config, options, trainer, machine)
        return True
    loop = Loop(asked.model, config, trainer, options, run, machine)
    if asked.resume:
        loop.restore()
    if machine.first:
        run.start(record(asked, name, config, options, trainer, machine), fresh=not asked.resume)
    complete = loop.train()
    if machine.first and not complete:
        click.echo("stopped; add --resume to go on")
    return complete or not machine.first  # one process speaks for all


def prepare(asked: Asked, recipe: Recipe) -> tuple[torch.nn.Module, Any, Options, bool]:
    """The generator, its configuration, the recipe's options, and whether the generator comes from weights."""
    spec, overrides = families.get(asked.model), parse(asked.settings)
    if asked.steps:
        overrides["steps"] = str(asked.steps)
    begun = starting_weights(asked, recipe, overrides)
    own = begun.config if begun else replace(spec.config(), **recipe.config)
    config, options = resolve(own, recipe.options, overrides)
    return (begun.module.train() if begun else checkpoint.build(spec, config)), config, options, bool(begun)


def starting_weights(asked: Asked, recipe: Recipe, overrides: dict[str, str]) -> Checkpoint | None:
    """The weights that training begins from; None for the network's own random start.

    overrides: those of the configuration must be what the weights have, or what they leave open.
    """
    start = asked.start or recipe.start
    if start == NEEDED:
        raise InvalidInput("start", "missing; this recipe begins from trained weights: give --start PATH")
    ours = {field.name for field in fields(families.get(asked.model).config)}
    settings = {key: value for key, value in overrides.items() if key in ours}
    return checkpoint.load(asked.model, start, settings) if start else None


def resumed(asked: Asked, saved: dict[str, Any]) -> Asked:
    """What was asked when the run began, with what is given now over it."""
    if saved["model"] != asked.model:
        raise InvalidInput("resume", f"{asked.output} holds a run of {saved['model']!r}, got {asked.model!r}")
    for key in ("recipe", "seed", "precision"):
        given = getattr(asked, key)
        if given is not None and given != saved[key]:
            raise InvalidInput(
                key, f"the run in {asked.output} has {saved[key]!r}, got {given!r}; give it another --output"
            )
    before = [f"{key}={value}" for key, value in (saved["config"] | saved["options"]).items()]
    paths = {key: Path(saved[key]) if saved[key] else None for key in ("data", "validate", "vgg19")}
    return replace(
        asked,
        recipe=saved["recipe"],
        data=asked.data or paths["data"],
        validate=asked.validate or paths["validate"],
        vgg19=asked.vgg19 or paths["vgg19"],
        classes=asked.classes or saved["classes"],
        threads=asked.threads or saved["threads"],
        start=asked.start or saved["start"],
        seed=saved["seed"],
        precision=saved["precision"],
        settings=(*before, *asked.settings),
    )


def parse(settings: tuple[str, ...]) -> dict[str, str]:
    """ "key=value" pairs. Raises InvalidInput for anything else."""
    for setting in settings:
        if "=" not in setting:
            raise InvalidInput("set", f"got {setting!r}, expected key=value")
    return dict(setting.split("=", 1) for setting in settings)


def resolve(config: Any, options: Any, overrides: dict[str, str]) -> tuple[Any, Any]:
    """Give each override to the generator's config or to the recipe's options, whichever has a field of that name."""
    ours = {field.name for field in fields(config)}
    theirs = {field.name for field in fields(options)}
    for key in overrides:
        if key not in ours | theirs:
            expected = (
                f"the generator's {', '.join(sorted(ours))}, or the recipe's {', '.join(sorted(theirs))}"
            )
            raise InvalidInput("set", f"got {key!r}, expected one of {expected}")
    return (
        checkpoint.configure(config, {key: value for key, value in overrides.items() if key in ours}),
        checkpoint.configure(options, {key: value for key, value in overrides.items() if key in theirs}),
    )


def record(
    asked: Asked, recipe: str, config: Any, options: Options, trainer: Trainer, machine: Machine
) -> dict[str, Any]:
    """What a run's options.json holds: enough to go on with it, or to do it again."""
    return {
        "model": asked.model,
        "recipe": recipe,
        "data": str(asked.data),
        "validate": str(asked.validate) if asked.validate else None,
        "vgg19": str(asked.vgg19) if asked.vgg19 else None,
        "start": asked.start,
        "classes": asked.classes,
        "class_names": trainer.class_names,
        "seed": asked.seed or 0,
        "precision": asked.precision or "float32",
        "processes": machine.processes,
        "device": str(machine.device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "config": asdict(config),
        "options": asdict(options),
    }


def tell_skipped(skipped: tuple[str, ...]) -> None:
    for problem in skipped[:NAMED]:
        click.echo(f"skipped: {problem}")
    if skipped:
        rest = f", {len(skipped) - NAMED} of them not named here" if len(skipped) > NAMED else ""
        click.echo(f"skipped {len(skipped)} files that could not be used{rest}")


def rehearse(
    model: str, name: str, config: Any, options: Options, trainer: Trainer, machine: Machine
) -> None:
    """Say what the run would be, and how long it would take by its second step; nothing is written."""
    say = click.echo if machine.first else (lambda _: None)
    say(f"{model}, recipe {name}: {recipes.get(model, name)[1].about}")
    for key, value in (asdict(config) | asdict(options)).items():
        say(f"  {key} = {value}")
    for part in trainer.parts().values():
        if isinstance(part, torch.nn.Module):
            count = sum(one.numel() for one in part.parameters())
            say(f"{type(part).__name__}: {count:,} parameters on {machine.device}")
    for step in range(2):  # the first one also prepares kernels
        started = time.monotonic()
        losses = turn(trainer, step, lambda number: machine.take(trainer.batch(number)))
        told = "  ".join(f"{key} {float(value):.4g}" for key, value in losses.items())
    seconds = time.monotonic() - started
    say(told)
    long = timedelta(seconds=round(seconds * options.steps))
    say(f"{seconds:.3g} s a step: {options.steps} steps in about {long}; nothing was written")
