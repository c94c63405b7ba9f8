"""`python -m export.training --model esrgan --data data/bsds500 --output runs/esrgan`: the options of the command.

They go to command.py as Arguments. `ganforge train` runs the same. The exit status is 130 for a run that Ctrl-C stopped.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from runtime.errors import GanforgeError, InvalidInput

INTERRUPTED = 130  # the exit status a shell gives a program stopped by Ctrl-C
FOLDER = click.Path(path_type=Path)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--model", help="Generator to train.")
@click.option("--recipe", help="Its recipe; --list shows them.  [default: the compact one, for a CPU]")
@click.option("--data", type=FOLDER, help="Pictures: a folder, IDX or CIFAR files, or an .npz archive.")
@click.option("--output", type=FOLDER, help="Folder of this run.  [default: runs/MODEL]")
@click.option(
    "--validate", type=FOLDER, help="Folder to measure on: HR/ and LR_bicubic/X<scale>/, or A/ and B/."
)
@click.option("--classes", default="", help="Class names in the order of the labels, separated by commas.")
@click.option("--start", metavar="PATH|shipped:NAME", help="Weights to start from.")
@click.option("--vgg19", type=FOLDER, help="Weights of the perceptual loss's feature network.")
@click.option("--style", metavar="PICTURE", type=FOLDER, help="The picture whose style is learned.")
@click.option("--steps", type=click.IntRange(min=1), help="Updates of the generator in the whole run.")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE",
    help="An option of the generator or the recipe; --dry-run shows them.",
)  # fmt: skip
@click.option("--seed", type=int, help="Seed of everything random.  [default: 0]")
@click.option("--threads", type=click.IntRange(min=1), help="Threads of torch.  [default: one a core]")
@click.option(
    "--accelerator", default="auto", show_default=True, help="cpu, cuda, …: Lightning Fabric's names."
)
@click.option(
    "--devices",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Processes on each machine, a device each.",
)
@click.option("--nodes", type=click.IntRange(min=1), default=1, show_default=True, help="Number of machines.")
@click.option(
    "--precision", type=click.Choice(["float32", "bfloat16"]),
    help="Precision of the passes; weights stay float32.  [default: float32]",
)  # fmt: skip
@click.option(
    "--resume", is_flag=True, help="Continue from the last checkpoint in --output, with its options."
)
@click.option(
    "--dry-run", is_flag=True, help="Read the data, take two steps, estimate the time; write no run."
)
@click.option("--list", "lists", is_flag=True, help="List the recipes of --model, or of all models.")
def main(lists: bool, model: str | None, **arguments: Any) -> None:
    """Train a generator; Ctrl-C saves, and --resume continues from there."""
    from export.training import command, recipes

    try:
        if lists:
            for name in [model] if model else recipes.models():
                for recipe, declared in recipes.of(name).items():
                    click.echo(f"{name:<8} {recipe:<12} {declared.about}")
            return
        if model is None:
            raise InvalidInput(
                "model", f"is missing; expected one of {', '.join(recipes.models())}, see --list for recipes"
            )
        complete = command.start(command.Arguments(model=model, **arguments))
    except GanforgeError as error:
        raise click.ClickException(str(error)) from error
    if not complete:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
