"""Train a generator: `python -m export.training --model esrgan --data data/bsds500 --output runs/esrgan`."""

from __future__ import annotations

import sys
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import click
import torch

from export import checkpoint, generators
from export.training import recipes
from export.training.loop import train
from export.training.recipe import Source, channels_last
from export.training.run import Run
from runtime.errors import GanforgeError, InvalidInput

INTERRUPTED = 130  # the exit status a shell gives a program stopped by Ctrl-C


@click.command()
@click.option("--model", required=True, help="Generator to train.")
@click.option(
    "--data", type=click.Path(path_type=Path), required=True, help="Folder of pictures, or .npz archive."
)
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Folder of this run.")
@click.option(
    "--validate", type=click.Path(path_type=Path), help="Folder with HR and LR_bicubic/X<scale> pairs."
)
@click.option("--classes", default="", help="Class names in the order of the labels, separated by commas.")
@click.option("--steps", type=click.IntRange(min=1), help="Updates of the generator in the whole run.")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="An option of generator or recipe."
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), help="Threads of torch; default: one a core.")
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint in --output, with its settings.")
def main(**given: Any) -> None:
    """Train a generator; Ctrl-C saves, and --resume goes on from there."""
    try:
        complete = start(**given)
    except GanforgeError as error:
        raise click.ClickException(str(error)) from error
    if not complete:
        click.echo("stopped; add --resume to go on")
        sys.exit(INTERRUPTED)


def start(
    *,
    model: str,
    data: Path,
    output: Path,
    validate: Path | None,
    classes: str,
    steps: int | None,
    settings: tuple[str, ...],
    seed: int,
    threads: int | None,
    resume: bool,
) -> bool:
    """Resolve the options, build the trainer and run the loop. True if the run is complete."""
    spec, recipe, run = generators.get(model), recipes.get(model), Run(output, model)
    overrides = parse(settings) | ({"steps": str(steps)} if steps else {})
    if resume:
        saved = run.saved_options()
        if saved["model"] != model:
            raise InvalidInput("resume", f"{output} holds a run of {saved['model']!r}, got {model!r}")
        overrides = {
            key: str(value) for key, value in (saved["config"] | saved["recipe"]).items()
        } | overrides
    elif run.checkpoints():
        raise InvalidInput("output", f"{output} holds a run already; add --resume, or choose another folder")
    config, options = resolve(spec.config(), recipe.options(), overrides)
    class_names = tuple(name.strip() for name in classes.split(",")) if classes else ()
    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(seed)
    generator = channels_last(checkpoint.build(spec, config))
    trainer = recipe(generator, config, options, Source(data, validate, class_names))
    run.start(
        {
            "model": model,
            "data": str(data),
            "validate": str(validate) if validate else None,
            "class_names": trainer.class_names,
            "seed": seed,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "config": asdict(config),
            "recipe": asdict(options),
        }
    )
    return train(model, config, trainer, options, run, resume=resume)


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


if __name__ == "__main__":
    main()
