"""`python -m export.stylize CONTENT STYLE OUT`: paint one picture in the style of another, by optimising its pixels.

Gatys et al. 2015 (arXiv 1508.06576). The parts are in export/stylizing. `ganforge stylize` runs the same. A style that many
pictures shall have is better learned once, by a generator (export/models/style).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor

from export.evaluation import devices
from export.networks.features import Vgg19File, open_vgg19
from export.stylizing import pictures
from export.stylizing.objective import Layers, Objective, Weights, choose_layers
from export.stylizing.optimisation import OPTIMIZERS, Progress, minimise
from export.stylizing.output import Output
from export.training.progress import ProgressDisplay, interruptible
from runtime.errors import GanforgeError
from runtime.tensors import Array

INTERRUPTED = 130  # exit code
LINES = 10  # of figures that a run prints
POOLING = "average"  # as the paper has it


@dataclass(frozen=True)
class Arguments:
    """The options of the command, as `--help` explains them."""

    content: Path
    style: Path
    out: Path
    vgg19: Path | None
    size: int
    style_size: int | None
    steps: int
    alpha: float
    beta: float
    tv: float
    optimizer: str
    start: str
    keep_colours: bool
    every: int
    seed: int
    device: str
    threads: int | None
    overwrite: bool


def stylize(arguments: Arguments) -> Progress:
    """Write OUT, the pictures on the way to it and the losses' plot. Raises InvalidInput, mostly before the first step.

    Ctrl-C ends the optimisation early; the best picture until then is written.
    """
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = devices.device(arguments.device)
    sources = (arguments.content, arguments.style, Path(arguments.start))
    output = Output(arguments.out, sources, overwrite=arguments.overwrite)
    content = pictures.read("CONTENT", arguments.content, arguments.size)
    style = pictures.read("STYLE", arguments.style, arguments.style_size or arguments.size)
    file = open_vgg19(arguments.vgg19)
    layers = choose_layers(file)
    pictures.check_size("CONTENT", content, layers.least_px)
    pictures.check_size("STYLE", style, layers.least_px)
    weights = Weights(arguments.alpha, arguments.beta, arguments.tv)
    print_start(arguments, file, layers, weights, content, style)

    seen = pictures.without_colours(content, style) if arguments.keep_colours else (content, style)
    start = pictures.start(arguments.start, *seen, arguments.seed)
    network = file.network((layers.content, *layers.style), activated=True, pooling=POOLING).to(device)
    objective = Objective(network, layers, seen[0].to(device), seen[1].to(device), weights)

    def image(progress: Progress) -> Array:
        best = progress.best.cpu()
        return pictures.as_image(pictures.with_colours_of(content, best) if arguments.keep_colours else best)

    def report(progress: Progress) -> None:
        step, done = progress.step, progress.step / arguments.steps
        display.advance(step, done)
        if step in (1, arguments.steps) or step % max(1, arguments.steps // LINES) == 0:
            display.print_figures(step, done, progress.log[-1])
        if arguments.every and step % arguments.every == 0:
            output.save_step(step, image(progress))

    output.clear_steps()
    with ProgressDisplay(arguments.steps, 0.0) as display, interruptible() as interrupted:
        progress = minimise(
            objective,
            start.to(device),
            optimizer=arguments.optimizer,
            steps=arguments.steps,
            report=report,
            interrupted=interrupted,
        )
    output.save(image(progress))
    output.plot_losses(progress.log)
    print_end(arguments, output, progress)
    return progress


def print_start(
    arguments: Arguments, file: Vgg19File, layers: Layers, weights: Weights, content: Tensor, style: Tensor
) -> None:
    """Print what is compared where, and which of the paper's layers the file lacks."""
    for name, path, picture in (("content", arguments.content, content), ("style", arguments.style, style)):
        click.echo(f"{name}: {path.name}, {picture.shape[3]}×{picture.shape[2]} px")
    click.echo(f"features: {file.source}, {file.kind.name} up to {file.names[-1]}, {POOLING} pooling")
    click.echo(f"content at {layers.content}, style at {', '.join(layers.style)}")
    if layers.left_out:
        click.echo(f"{', '.join(layers.left_out)} left out: {file}")
    click.echo(f"weights: alpha {weights.alpha:g}, beta {weights.beta:g}, tv {weights.total_variation:g}")


def print_end(arguments: Arguments, output: Output, progress: Progress) -> None:
    """Print where the picture is and its losses."""
    if progress.step < arguments.steps:
        click.echo(f"interrupted after step {progress.step} of {arguments.steps}: kept the best so far")
    figures = ", ".join(f"{name} {value:.4g}" for name, value in progress.log[progress.best_step - 1].items())
    click.echo(f"{output.path}: step {progress.best_step}, {figures}")
    click.echo(f"losses: {output.plot}")
    if arguments.every and progress.step >= arguments.every:
        click.echo(f"every {arguments.every} steps: {output.steps}")


PATH = click.Path(path_type=Path)
SIDE = click.IntRange(min=32, max=pictures.MAX_SIDE_PX)
WEIGHT = click.FloatRange(min=0)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.argument("content", metavar="CONTENT", type=PATH)
@click.argument("style", metavar="STYLE", type=PATH)
@click.argument("out", metavar="OUT", type=PATH)
@click.option("--vgg19", metavar="PATH", type=PATH,
              help="Weights of VGG19: torchvision's file, the style-transfer one, or the first layers of either.  "
                   "[default: torchvision's, downloaded]")  # fmt: skip
@click.option("--size", type=SIDE, default=256, show_default=True,
              help="Longer side of OUT in px, if CONTENT is not smaller.")  # fmt: skip
@click.option("--style-size", type=SIDE,
              help="Longer side of STYLE in px: larger makes larger strokes.  [default: as --size]")  # fmt: skip
@click.option("--steps", type=click.IntRange(min=1), default=300, show_default=True,
              help="Evaluations of the losses.")  # fmt: skip
@click.option("--alpha", type=WEIGHT, default=1.0, show_default=True,
              help="Weight of the content: mean squared difference of features.")  # fmt: skip
@click.option("--beta", type=WEIGHT, default=1000.0, show_default=True,
              help="Weight of the style: 1/4N²M² Σ (G − A)², averaged over the layers.")  # fmt: skip
@click.option("--tv", type=WEIGHT, default=0.0, show_default=True,
              help="Weight of the smoothness: mean squared difference of neighbouring pixels.")  # fmt: skip
@click.option("--optimizer", type=click.Choice(list(OPTIMIZERS)), default="lbfgs", show_default=True)
@click.option("--from", "start", metavar="content|noise|style|PICTURE", default="content", show_default=True,
              help="What to start from. PICTURE: a file, such as OUT of a smaller --size.")  # fmt: skip
@click.option("--keep-colours", is_flag=True, help="Change the luminance only.")
@click.option("--every", type=click.IntRange(min=0), default=50, show_default=True,
              help="Steps between pictures in the folder OUT-steps; 0 for none.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Of --from noise.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads of torch.  [default: one a core]")
@click.option(
    "--overwrite", is_flag=True, help="Replace files of an earlier run (but never a picture that is read)."
)
def main(**options: Any) -> None:
    """Paint the picture CONTENT in the style of the picture STYLE.

    Writes OUT, a plot of the losses beside it, and the pictures on the way. Ctrl-C keeps the best picture so far.
    """
    arguments = Arguments(**options)
    try:
        progress = stylize(arguments)
    except GanforgeError as error:
        raise click.ClickException(str(error)) from error
    if progress.step < arguments.steps:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
