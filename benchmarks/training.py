"""`python -m benchmarks.training`: the speed of each compact recipe against a plain hand-written loop of the same work.

The recipe and the plain loop (plain_loops.py) take turns in one process, with the same networks, batch and threads; the
recipe also logs and prefetches as in a real run. Each of its turns is compared with the plain loop's turn before it, and
the median of these ratios is reported. It trains on shipped photographs or on noise. Writes training.json and training.png.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from benchmarks import machine, plots
from benchmarks.plain_loops import PLAIN
from export import families
from export.build import photographs
from export.checkpoints import checkpoint
from export.data import write_picture
from export.models.esrgan.recipes import GanOptions
from export.networks import features
from export.training import recipes
from export.training.loop import Loop
from export.training.machine import Machine
from export.training.recipe import Source, Trainer, TrainingOptions
from export.training.run import Run

FEATURES = "vgg19-conv3_1"  # ends at the same layer as the network of the compact recipe
WARM_UP_STEPS = 3


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--output", type=click.Path(path_type=Path), default="benchmarks/results", show_default=True)
@click.option("--duration-s", type=float, default=10.0, show_default=True, help="Seconds of each turn.")
@click.option("--rounds", type=click.IntRange(min=1), default=9, show_default=True, help="Pairs of turns.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
def main(output: Path, duration_s: float, rounds: int, threads: int) -> None:
    """Measure training's samples a second against a plain loop's."""
    torch.set_num_threads(threads)
    report: dict[str, Any] = {"machine": machine.describe(), "threads": threads, "recipes": []}
    with tempfile.TemporaryDirectory() as scratch:
        for model, name in PLAIN:
            row = compare(model, name, Path(scratch), duration_s, rounds)
            report["recipes"].append(row)
            click.echo(f"{model:<8} {name:<12} ours {row['ours_per_s']:8.2f}, plain {row['plain_per_s']:8.2f} samples/s: "
                       f"{row['ratio']:.3f} of the plain loop")  # fmt: skip
    output.mkdir(parents=True, exist_ok=True)
    (output / "training.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    plots.training(report, output / "training.png")
    click.echo(f"written {output / 'training.json'} and {output / 'training.png'}")


def compare(model: str, name: str, scratch: Path, duration_s: float, rounds: int) -> dict[str, Any]:
    """A row of the report: samples a second of both loops and their ratio, measured in turns, the plain loop first."""
    trainer, options, config = prepared(model, name, scratch)
    step = PLAIN[model, name](trainer)
    for _ in range(WARM_UP_STEPS):
        step()
    seconds = timed(step, 2) / 2
    steps = max(4, round(duration_s / seconds))
    plain_s, ours_s = [], []
    for turn in range(rounds):
        plain_s.append(timed(step, steps))
        run = Run(scratch / f"{model}-{name}-{turn}", model)
        ours_s.append(
            looped(
                WithoutResults(model, config, trainer, replace(options, steps=steps), run, trainer.machine)
            )
        )
    samples = steps * options.batch
    return {
        "model": model,
        "recipe": name,
        "steps_a_turn": steps,
        "ours_per_s": round(samples / statistics.median(ours_s), 3),
        "plain_per_s": round(samples / statistics.median(plain_s), 3),
        "turns_s": {
            "ours": [round(seconds, 2) for seconds in ours_s],
            "plain": [round(seconds, 2) for seconds in plain_s],
        },
        "ratio": round(
            statistics.median(plain / ours for plain, ours in zip(plain_s, ours_s, strict=True)), 3
        ),
    }


def prepared(model: str, name: str, scratch: Path) -> tuple[Trainer, TrainingOptions, Any]:
    """The trainer of a recipe, its options and the generator's configuration, with data that needs no download."""
    torch.manual_seed(0)
    _, recipe = recipes.get(model, name)
    config = (
        checkpoint.load(model).config
        if recipe.start
        else replace(families.get(model).config(), **recipe.config)
    )
    module = checkpoint.build(families.get(model), config)
    here = Machine("cpu")
    source = Source(
        training_data(model, config, scratch), vgg19=random_vgg(scratch), pretrained=bool(recipe.start)
    )
    options: TrainingOptions = recipe.options
    if isinstance(options, GanOptions):
        options = replace(options, feature_net=FEATURES)
    trainer = recipe.trainer(here.place(module), config, options, source, here)
    trainer.generator.train()
    return trainer, options, config


def training_data(model: str, config: Any, scratch: Path) -> Path:
    """A folder with a shipped photograph, or, for a generator that takes latents, an archive of noise with labels."""
    if not families.get(model).signature(config).latent_size:
        folder = scratch / "photographs"
        folder.mkdir(exist_ok=True)
        picture = photographs.crop(480, 640)  # [3, H, W] float32 in [0, 1]
        write_picture(folder / "one.png", (picture.transpose(1, 2, 0) * 255).astype(np.uint8))
        return folder
    random, path = np.random.default_rng(0), scratch / f"{model}.npz"
    images = random.integers(0, 256, (2048, config.size, config.size, config.channels), dtype=np.uint8)
    np.savez(path, images=images, labels=np.arange(2048) % 10)
    return path


def random_vgg(scratch: Path) -> Path:
    """A file of random VGG19 weights under torchvision's names: they cost as much time as the real ones."""
    path = scratch / "vgg19.pth"
    if not path.exists():
        layers = features.layers(features.NETS[FEATURES]).state_dict()
        torch.save({f"features.{name}": value for name, value in layers.items()}, path)
    return path


def timed(step: Any, steps: int) -> float:
    started = time.perf_counter()
    for _ in range(steps):
        step()
    return time.perf_counter() - started


class WithoutResults(Loop):
    """A run that keeps no checkpoints, samples and figures, so that only its steps and its log are timed."""

    def keep(self, *_: Any) -> None:
        pass


def looped(loop: Loop) -> float:
    """Run `loop` silently; how long it took, in seconds."""
    loop.run.start({})
    with redirect_stdout(StringIO()):
        started = time.perf_counter()
        loop.train()
        return time.perf_counter() - started


if __name__ == "__main__":
    main()
