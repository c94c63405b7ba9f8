"""`python -m benchmarks.unpaired`: shows that CycleGAN learns a look from two folders of photographs without pairs.

`prepare` gives every second photograph of a folder the look `dusk` and leaves the others as they are: A and B of a training.
`measure` translates pictures that no training saw, back to what they were and into the look, and compares with doing nothing:
they have pairs, since the look is a formula. `strip` draws A → B → A of one picture. The model card of
export/models/cyclegan has the commands and figures.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from export import data
from export.checkpoints import checkpoint
from export.models.cyclegan.cycle import difference_db, translated
from runtime.errors import GanforgeError

# The look, for each of red, green and blue in [0, 1]: LIFT + GAIN · value^GAMMA. Dark, flat, and bluer in the shadows.
LIFT, GAIN, GAMMA = (0.02, 0.03, 0.08), (0.34, 0.30, 0.40), (1.5, 1.4, 1.1)
# Of the means over all pictures.
LEAST_GAIN_DB, LEAST_CYCLE_DB = 3.0, 25.0
GAP_PX = 6  # between the pictures of a strip
FOLDER = click.Path(path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def dusk(picture: np.ndarray) -> np.ndarray:
    """[H, W, 3] uint8 → the same, with the look."""
    values = picture.astype(np.float64) / 255
    return np.round(255 * (np.array(LIFT) + np.array(GAIN) * values ** np.array(GAMMA))).astype(np.uint8)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def main() -> None:
    """Prepare two folders without pairs, and measure what CycleGAN learned from them."""


@main.command()
@click.argument("photographs", type=FOLDER)
@click.argument("output", type=FOLDER)
def prepare(photographs: Path, output: Path) -> None:
    """Write PHOTOGRAPHS/train as OUTPUT/train/A (with the look) and OUTPUT/train/B (without): of each picture one of the two.

    PHOTOGRAPHS/test is written as OUTPUT/test/A and OUTPUT/test/B, each picture in both.
    """
    for number, path in enumerate(pictures(photographs / "train")):
        picture = data.read_picture(path)
        if number % 2:
            write(output / "train/B", path, picture)
        else:
            write(output / "train/A", path, dusk(picture))
    for path in pictures(photographs / "test"):
        picture = data.read_picture(path)
        write(output / "test/A", path, dusk(picture))
        write(output / "test/B", path, picture)


def pictures(folder: Path) -> list[Path]:
    try:
        return data.pictures_under(folder)
    except GanforgeError as error:
        raise click.ClickException(str(error)) from error


def write(folder: Path, source: Path, picture: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    data.write_picture(folder / f"{source.stem}.png", picture)


@main.command()
@click.argument("folder", type=FOLDER)
@click.argument("a_to_b", type=str)
@click.argument("b_to_a", type=str)
@click.option(
    "--every", type=click.IntRange(min=1), default=1, show_default=True, help="Only every n-th pair."
)
@click.option("--threads", type=click.IntRange(min=1), help="Threads of torch.  [default: one a core]")
def measure(folder: Path, a_to_b: str, b_to_a: str, every: int, threads: int | None) -> None:
    """Print the mean PSNR over FOLDER/A and FOLDER/B of both generators (files or shipped:NAME); fail below the bounds."""
    if threads:
        torch.set_num_threads(threads)
    try:
        forth, back = load(a_to_b), load(b_to_a)
        looks, originals = data.read_sides(folder)
    except GanforgeError as error:
        raise click.ClickException(str(error)) from error
    figures = []
    for name in track(sorted(looks)[::every], console=Console(stderr=True), disable=not sys.stderr.isatty()):
        a, b = looks[name], originals[name]
        made_b, made_a = forth(a), back(b)
        figures.append(
            (
                difference_db(a, b),
                difference_db(made_b, b),
                difference_db(made_a, a),
                difference_db(back(made_b), a),
                difference_db(forth(made_a), b),
            )
        )
    nothing, to_b, to_a, cycle_a, cycle_b = (float(mean) for mean in np.mean(figures, axis=0))
    table = Table("mean of", "PSNR, dB", title=f"{len(figures)} pairs of {folder}")
    for what, value in {
        "A and B, doing nothing": nothing,
        "A → B, and B": to_b,
        "B → A, and A": to_a,
        "A → B → A, and A": cycle_a,
        "B → A → B, and B": cycle_b,
    }.items():
        table.add_row(what, f"{value:.2f}")
    Console().print(table)
    nearer = sum(row[1] > row[0] for row in figures)
    click.echo(
        f"A → B is {to_b - nothing:.2f} dB nearer than doing nothing, in {nearer} of {len(figures)} pictures"
    )
    if to_b - nothing < LEAST_GAIN_DB or cycle_a < LEAST_CYCLE_DB:
        raise click.ClickException(
            f"expected {LEAST_GAIN_DB:g} dB nearer at least, and {LEAST_CYCLE_DB:g} dB after A → B → A"
        )


@main.command()
@click.argument("picture", type=FILE)
@click.argument("a_to_b", type=str)
@click.argument("b_to_a", type=str)
@click.argument("output", type=FOLDER)
@click.option(
    "--height-px", type=click.IntRange(min=16), default=256, show_default=True, help="Of the strip."
)
def strip(picture: Path, a_to_b: str, b_to_a: str, output: Path, height_px: int) -> None:
    """Give PICTURE the look, and write it beside its translation A → B and the way back, A → B → A."""
    look = data.planes(dusk(data.read_picture(picture, shorter_px=height_px)))
    try:
        made = load(a_to_b)(look)
        shown = [look, made, load(b_to_a)(made)]
    except GanforgeError as error:
        raise click.ClickException(str(error)) from error
    gap = torch.full((3, look.shape[1], GAP_PX), 255, dtype=torch.uint8)
    row = torch.cat([part for one in shown for part in (one, gap)][:-1], dim=2)
    data.write_picture(output, row.permute(1, 2, 0).numpy())


def load(source: str) -> Callable[[Tensor], Tensor]:
    """The generator of a file or shipped:NAME, as a function of a whole picture, [3, H, W] uint8."""
    loaded = checkpoint.load("cyclegan", source)
    size_multiple = loaded.spec.signature(loaded.config).size_multiple
    return lambda picture: translated(loaded.module, picture, size_multiple)


if __name__ == "__main__":
    main()
