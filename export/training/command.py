"""Runs a training from the options of the command line: __main__.py calls `start` with them.

`start` resolves the options, makes the networks and the trainer, and runs the loop. report.py prints about it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from export import families
from export.checkpoints import checkpoint
from export.checkpoints.checkpoint import Checkpoint
from export.training import recipes, report
from export.training.loop import Loop
from export.training.machine import Machine
from export.training.recipe import NEEDED, Recipe, Source, TrainingOptions, learning_rate
from export.training.run import Run
from runtime.errors import InvalidInput


@dataclass(frozen=True)
class Arguments:
    """The options of `python -m export.training`, explained in its --help; None for options that were not given."""

    model: str
    recipe: str | None
    data: Path | None
    output: Path | None
    validate: Path | None
    classes: str
    start: str | None
    vgg19: Path | None
    style: Path | None
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


def start(arguments: Arguments) -> bool:
    """Train, or with `dry_run` rehearse it. Returns True if the run is complete, False if Ctrl-C stopped it.

    Raises InvalidInput naming an option that cannot work, before anything is written; EngineError if a loss or a weight
    is not finite.
    """
    _, recipe = recipe_of(arguments)  # an unknown name is reported before anything else
    run = Run(arguments.output or Path("runs") / arguments.model, arguments.model)
    if arguments.resume:
        arguments = with_saved_options(arguments, run.saved_options())
    elif run.checkpoints() and not arguments.dry_run:
        raise InvalidInput(
            "output", f"{run.folder} holds a run already; add --resume, or choose another folder"
        )
    elif not arguments.dry_run:
        for path in map(run.weights, recipe.trainer.exports):
            if path.exists():
                raise InvalidInput("output", f"{path} exists and would be overwritten; choose another folder")
    if arguments.data is None:
        raise InvalidInput(
            "data", "is missing; give a folder of pictures, IDX or CIFAR files, or an .npz archive"
        )
    loop = prepare(arguments, arguments.data, run)
    if arguments.dry_run:
        if loop.machine.first:
            report.print_start(loop, recipe_of(arguments), writes=False)
        report.rehearse(loop)
        return True
    if arguments.resume:
        loop.restore()
    if loop.machine.first:
        run.start(record(arguments, loop), fresh=not arguments.resume)
        report.print_start(loop, recipe_of(arguments))
    complete = False
    try:
        complete = loop.train()
    finally:  # after an error too: weights that were saved before it can be built
        if loop.machine.first:
            report.print_end(loop, complete)
    return complete or not loop.machine.first  # only the first process reports an interrupted run


def prepare(arguments: Arguments, data: Path, run: Run) -> Loop:
    """Make the networks, the trainer with its data, and the loop. Raises InvalidInput."""
    _, recipe = recipes.get(arguments.model, arguments.recipe)
    machine = Machine(
        arguments.accelerator, arguments.devices, arguments.nodes, arguments.precision or "float32"
    )
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    seed = arguments.seed or 0
    torch.manual_seed(seed)
    generator, config, options, pretrained = prepare_generator(arguments, recipe)
    class_names = tuple(name.strip() for name in arguments.classes.split(",")) if arguments.classes else ()
    source = Source(data, arguments.validate, class_names, seed, arguments.vgg19, arguments.style, pretrained)
    trainer = recipe.trainer(machine.place(generator), config, options, source, machine)
    learning_rate(options, 1 - 1e-9)  # an unknown schedule is reported before the first step
    if not machine.first:
        torch.manual_seed(seed + machine.fabric.global_rank)  # each process draws its own dropout
    return Loop(arguments.model, config, trainer, options, run, machine)


def prepare_generator(
    arguments: Arguments, recipe: Recipe
) -> tuple[torch.nn.Module, Any, TrainingOptions, bool]:
    """The generator, its configuration, the recipe's options, and whether the generator's weights are trained ones."""
    spec, overrides = families.get(arguments.model), parse(arguments.settings)
    if arguments.steps:
        overrides["steps"] = str(arguments.steps)
    weights = starting_weights(arguments, recipe, overrides)
    base = weights.config if weights else replace(spec.config(), **recipe.config)
    config, options = resolve(base, recipe.options, overrides)
    generator = weights.module.train() if weights else checkpoint.build(spec, config)
    return generator, config, options, weights is not None


def starting_weights(arguments: Arguments, recipe: Recipe, overrides: dict[str, str]) -> Checkpoint | None:
    """The weights that training starts from; None for random ones.

    overrides: settings of the configuration must agree with the weights. Raises InvalidInput if they do not, or if the
    recipe needs weights and none are given.
    """
    start = arguments.start or recipe.start
    if start == NEEDED:
        raise InvalidInput("start", "is missing; this recipe starts from trained weights: give --start PATH")
    names = {field.name for field in fields(families.get(arguments.model).config)}
    settings = {key: value for key, value in overrides.items() if key in names}
    return checkpoint.load(arguments.model, start, settings) if start else None


def with_saved_options(arguments: Arguments, saved: dict[str, Any]) -> Arguments:
    """The options that the run was started with, replaced by those that are given now.

    saved: the content of options.json. Raises InvalidInput for an option that a resumed run cannot change.
    """
    if saved["model"] != arguments.model:
        raise InvalidInput(
            "resume",
            f"{arguments.output} holds a run of {saved['model']!r}, got --model {arguments.model}; give its model",
        )
    for key in ("recipe", "seed", "precision"):
        value = getattr(arguments, key)
        if value is not None and value != saved[key]:
            raise InvalidInput(
                key,
                f"the run in {arguments.output} has {saved[key]!r}, got {value!r}; choose another --output",
            )
    settings = [f"{key}={value}" for key, value in (saved["config"] | saved["options"]).items()]
    paths = {
        key: Path(saved[key]) if saved.get(key) else None for key in ("data", "validate", "vgg19", "style")
    }
    return replace(
        arguments,
        recipe=saved["recipe"],
        data=arguments.data or paths["data"],
        validate=arguments.validate or paths["validate"],
        vgg19=arguments.vgg19 or paths["vgg19"],
        style=arguments.style or paths["style"],
        classes=arguments.classes or saved["classes"],
        threads=arguments.threads or saved["threads"],
        start=arguments.start or saved["start"],
        seed=saved["seed"],
        precision=saved["precision"],
        settings=(*settings, *arguments.settings),
    )


def parse(settings: tuple[str, ...]) -> dict[str, str]:
    """`--set key=value` pairs. Raises InvalidInput for anything else."""
    for setting in settings:
        if "=" not in setting:
            raise InvalidInput("set", f"got {setting!r}, expected key=value")
    return dict(setting.split("=", 1) for setting in settings)


def resolve(config: Any, options: Any, overrides: dict[str, str]) -> tuple[Any, Any]:
    """The generator's config and the recipe's options with `overrides`, each applied where a field has its name.

    Raises InvalidInput for a name that neither has.
    """
    of_config = {field.name for field in fields(config)}
    of_options = {field.name for field in fields(options)}
    for key in overrides:
        if key not in of_config | of_options:
            expected = (
                f"the generator's {', '.join(sorted(of_config))}, "
                f"or the recipe's {', '.join(sorted(of_options))}"
            )
            raise InvalidInput("set", f"got {key!r}, expected one of {expected}")
    return (
        checkpoint.configure(config, {key: value for key, value in overrides.items() if key in of_config}),
        checkpoint.configure(options, {key: value for key, value in overrides.items() if key in of_options}),
    )


def recipe_of(arguments: Arguments) -> tuple[str, Recipe]:
    """The recipe of this run and its name."""
    return recipes.get(arguments.model, arguments.recipe)


def record(arguments: Arguments, loop: Loop) -> dict[str, Any]:
    """The content of a run's options.json: all that is needed to resume or repeat the run."""
    return {
        "model": arguments.model,
        "recipe": recipe_of(arguments)[0],
        "data": str(arguments.data),
        "validate": str(arguments.validate) if arguments.validate else None,
        "vgg19": str(arguments.vgg19) if arguments.vgg19 else None,
        "style": str(arguments.style) if arguments.style else None,
        "start": arguments.start,
        "classes": arguments.classes,
        "class_names": loop.trainer.class_names,
        "seed": arguments.seed or 0,
        "precision": arguments.precision or "float32",
        "processes": loop.machine.processes,
        "device": str(loop.machine.device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "config": asdict(loop.config),
        "options": asdict(loop.options),
    }
