"""Averages the losses between two lines of the log (LossMeter), and words the error if one is not finite. loop.py uses it."""

from __future__ import annotations

import math
import time

import torch

from export.training.machine import Machine
from export.training.recipe import LossTerms
from export.training.run import Run
from runtime.errors import EngineError


class LossMeter:
    """Collects the losses since the last line of the log. They are copied from the device only for that line."""

    def __init__(self, run: Run, machine: Machine) -> None:
        self.run, self.machine = run, machine
        self.steps: list[int] = []
        self.terms: list[LossTerms] = []
        self.since_s, self.waited_before_s = time.monotonic(), 0.0

    def add(self, step: int, terms: LossTerms) -> None:
        self.steps.append(step)
        self.terms.append(terms)

    def means(self, waited_s: float, lr: float) -> dict[str, float]:
        """The mean of each loss over the steps since the last call and over all processes, `lr`, and the share of waiting.

        waited_s: how long the run has waited for data so far, in seconds. Returns {} if no step was added. Raises
        EngineError naming the first step with a loss that is not finite.
        """
        if not self.terms:
            return {}
        figures = {}
        for name in self.terms[0]:
            values = self.machine.mean(torch.stack([terms[name].float() for terms in self.terms])).tolist()
            for step, value in zip(self.steps, values, strict=True):
                if not math.isfinite(value):
                    problem = f"the loss {name!r} is {value}, expected a finite number"
                    raise EngineError(failure_message(self.run, step, problem))
            figures[name] = sum(values) / len(values)
        now_s = time.monotonic()
        waiting = (waited_s - self.waited_before_s) / (now_s - self.since_s)
        self.steps, self.terms, self.since_s, self.waited_before_s = [], [], now_s, waited_s
        return figures | {"lr": lr, "waiting_for_data": waiting}


def failure_message(run: Run, step: int, problem: str) -> str:
    """`problem` with its step, the last good checkpoint, and what to do."""
    checkpoints = run.checkpoints()
    if not checkpoints:
        return f"step {step}: {problem}; there is no checkpoint yet: start again with a smaller learning rate (--set lr=...)"
    return (
        f"step {step}: {problem}; the last good checkpoint is {checkpoints[-1]}: "
        "resume with a smaller learning rate (--resume --set lr=...)"
    )
