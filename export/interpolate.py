"""`python -m export.interpolate A B --alpha 0.8 OUT`: mix the weights of two generators that were trained alike.

Network interpolation (ESRGAN, arXiv 1809.00219, section 3.4): every parameter becomes (1 − α)·A + α·B. If A was trained for
PSNR, and B was then trained from A against a discriminator, α trades fidelity for sharpness. With `--strip PICTURE` it
draws the answers at six alphas instead. `ganforge interpolate` runs the same.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import click
import numpy as np
from torch import Tensor

from export.build.reference import CPU
from export.checkpoints import checkpoint
from export.checkpoints.checkpoint import Checkpoint
from export.checkpoints.identification import named_model
from export.data import read_picture, write_picture
from export.evaluation.subjects import CheckpointSubject
from runtime import tasks
from runtime.errors import GanforgeError, InvalidInput
from runtime.tensors import Array

STRIP_ALPHAS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
STRIP_PX = 48


def interpolate(a: Mapping[str, Tensor], b: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """(1 − α)·A + α·B for each tensor of two state dicts; at α = 0 and 1 exactly A and B.

    alpha: in [0, 1]. Integer tensors (batch norm's counts) are copied from the nearer of the two. Raises InvalidInput for
    another alpha, or if names or shapes differ.
    """
    if not 0 <= alpha <= 1:
        raise InvalidInput("alpha", f"got {alpha:g}, expected a number from 0 to 1")
    problems = [f"{key} is in one of them only" for key in sorted(a.keys() ^ b.keys())]
    problems += [
        f"{key}: {list(a[key].shape)} and {list(b[key].shape)}"
        for key in a
        if key in b and a[key].shape != b[key].shape
    ]
    if problems:
        raise InvalidInput(
            "checkpoints", f"differ: {'; '.join(problems[:5])}; expected the same network, trained twice"
        )
    near = a if alpha < 0.5 else b
    if alpha in (0, 1):
        return {key: near[key].clone() for key in a}  # −0.0 + 0·x would be 0.0
    return {
        key: (1 - alpha) * a[key] + alpha * b[key] if a[key].is_floating_point() else near[key].clone()
        for key in a
    }


def between(a: Checkpoint, b: Checkpoint, alpha: float) -> Checkpoint:
    """A new checkpoint between `a` and `b`. Raises InvalidInput naming what differs if they are not the same generator."""
    ours, theirs = asdict(a.config), asdict(b.config)
    different = [(key, ours[key], theirs.get(key)) for key in ours if ours[key] != theirs.get(key)]
    if a.model != b.model:
        different = [("model", a.model, b.model)]
    elif a.class_names != b.class_names:
        different.append(("class names", ", ".join(a.class_names), ", ".join(b.class_names)))
    if different:
        listed = "; ".join(f"{name} is {in_a!r} in A and {in_b!r} in B" for name, in_a, in_b in different)
        raise InvalidInput("checkpoints", f"{listed}; expected the same generator, trained twice")
    weights = interpolate(a.module.state_dict(), b.module.state_dict(), alpha)
    module = copy.deepcopy(a.module)
    module.load_state_dict(weights)
    return replace(a, module=module)


def strip(a: Checkpoint, b: Checkpoint, picture: Array) -> Array:
    """The generators' answers to the middle of `picture` at α = 0, 0.2 … 1, from left to right.

    [H, W, 3] uint8 → [S·side, 6·S·side, 3] uint8, where side is STRIP_PX, or the picture's shorter side if that is less.
    """
    height, width = picture.shape[:2]
    side = min(STRIP_PX, height, width)
    top, left = (height - side) // 2, (width - side) // 2
    middle = np.ascontiguousarray(picture[top : top + side, left : left + side])
    subjects = [CheckpointSubject(between(a, b, alpha), CPU) for alpha in STRIP_ALPHAS]
    return np.concatenate([subject.convert(middle) for subject in subjects], axis=1)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--alpha", type=float, help="From 0 (A) to 1 (B).")
@click.option("--model", metavar="NAME", help="The generator, if the files do not name it.")
@click.option(
    "--strip", "picture", metavar="PICTURE", type=click.Path(path_type=Path),
    help="Instead of a checkpoint, write to OUT a picture: the middle of PICTURE at six alphas, side by side.",
)  # fmt: skip
def main(a: str, b: str, target: Path, alpha: float | None, model: str | None, picture: Path | None) -> None:
    """Mix the weights of the checkpoints A and B (PATH or shipped:NAME), and write the result to OUT."""
    try:
        if alpha is not None and picture is not None:
            raise InvalidInput("alpha", "a strip has alphas of its own; give --alpha or --strip, not both")
        paths = [checkpoint.locate(source) for source in (a, b)]
        if target.exists() and any(
            target.samefile(path) for path in (*paths, picture) if path and path.exists()
        ):
            raise InvalidInput("out", f"{target} is one of the files that are read; choose another name")
        first, second = (checkpoint.load(named_model(path, model), str(path)) for path in paths)
        if picture is not None and tasks.get(first.spec.task).source != "picture":
            raise InvalidInput(
                "strip", f"{first.model} takes no picture; expected checkpoints of a model that does"
            )
        if picture is not None:
            write_picture(target, strip(first, second, read_picture(picture)))
            message = f"alpha {', '.join(f'{alpha:g}' for alpha in STRIP_ALPHAS)} from left to right"
        elif alpha is not None:
            mixed = between(first, second, alpha)
            checkpoint.save(target, mixed.model, mixed.config, mixed.module, mixed.class_names)
            message = f"{mixed.model}, {1 - alpha:g} · {paths[0].name} + {alpha:g} · {paths[1].name}"
        else:
            raise InvalidInput(
                "alpha", "is missing; give --alpha for a checkpoint, or --strip PICTURE for a picture"
            )
    except GanforgeError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{target}: {message}")


if __name__ == "__main__":
    main()
