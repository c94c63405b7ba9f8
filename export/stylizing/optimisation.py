"""Minimises an objective over the pixels of a picture: `minimise`, which export/stylize.py calls."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.optim import LBFGS, Adam, Optimizer

from runtime.errors import InvalidInput

ADAM_RATE = 0.02  # of the range of a pixel
# The objective sees the pixels cut to [0, 1], as the file has them: what an optimizer gains beyond black and white is lost in
# the file. Pixels outside have no gradient from it, and this weight of their squared excess brings them back.
OUTSIDE = 0.1
LBFGS_HISTORY = 20  # past gradients, each as large as the picture

# Each evaluates its closure at least once in a step. L-BFGS ends its step after so many evaluations, and goes on in the next.
OPTIMIZERS: Mapping[str, Callable[[Tensor], Optimizer]] = {
    "lbfgs": lambda pixels: LBFGS(
        [pixels],
        max_iter=100,
        history_size=LBFGS_HISTORY,
        tolerance_grad=0,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    ),
    "adam": lambda pixels: Adam([pixels], lr=ADAM_RATE),
}


@dataclass
class Progress:
    """What a run has reached. step: evaluations of the objective so far. best: the picture with the smallest loss so far,
    [1, 3, H, W] float32, cut to [0, 1]; `best_loss` was found at `best_step`. log: of each step, every weighted loss and their
    sum, "loss".
    """

    best: Tensor
    step: int = 0
    best_loss: float = math.inf
    best_step: int = 0
    log: list[dict[str, float]] = field(default_factory=list)


class _Enough(Exception):
    """Ends an optimizer's step from inside its closure."""


def minimise(
    objective: Callable[[Tensor], Mapping[str, Tensor]],
    start: Tensor,
    *,
    optimizer: str,
    steps: int,
    report: Callable[[Progress], None] = lambda progress: None,
    interrupted: Callable[[], bool] = lambda: False,
) -> Progress:
    """Change the pixels of `start`, [1, 3, H, W] float32 in [0, 1], to make the sum of the objective's losses smaller.

    A step is one evaluation of the objective with its gradient; L-BFGS takes several of them to search along a line.
    report: called after each. interrupted: asked after each; True ends the run early. Raises InvalidInput if a loss is not
    finite.
    """
    pixels = start.clone().requires_grad_()
    progress = Progress(start.clone())
    chosen = OPTIMIZERS[optimizer](pixels)

    def closure() -> float:
        chosen.zero_grad()
        picture = pixels.clamp(0, 1)
        terms = objective(picture)
        loss = torch.stack(list(terms.values())).sum()
        pull = OUTSIDE * (pixels - picture.detach()).square().sum()
        (loss + pull).backward()
        note(picture.detach(), terms, loss)
        return (loss + pull).item()

    def note(picture: Tensor, terms: Mapping[str, Tensor], loss: Tensor) -> None:
        figures = {name: value.item() for name, value in terms.items()} | {"loss": loss.item()}
        progress.step += 1
        if not loss.isfinite():
            listed = ", ".join(f"{name} {value:g}" for name, value in figures.items())
            raise InvalidInput(
                "beta",
                f"the losses of step {progress.step} are not finite ({listed}); "
                "try smaller --alpha, --beta and --tv, or --optimizer adam",
            )
        if figures["loss"] < progress.best_loss:
            progress.best_loss, progress.best_step = figures["loss"], progress.step
            progress.best = picture
        progress.log.append(figures)
        report(progress)
        if progress.step >= steps or interrupted():
            raise _Enough

    try:
        while True:
            chosen.step(closure)
    except _Enough:
        return progress
