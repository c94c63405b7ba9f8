"""Tests of how torch-fidelity is called for FID and Inception Score; the figures themselves are not tested here."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest
import torch

from export.evaluation import inception
from runtime.errors import InvalidInput


class FakeLibrary(ModuleType):
    """torch_fidelity, which remembers what it is asked for and on which CUDA device."""

    def __init__(self) -> None:
        super().__init__("torch_fidelity")
        self.calls: list[dict[str, Any]] = []
        self.current_device: object = None

    def calculate_metrics(self, **options: Any) -> dict[str, float]:
        self.calls.append(options | {"device": self.current_device})
        return {"frechet_inception_distance": 12, "inception_score_mean": 3, "inception_score_std": 0.1}


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> FakeLibrary:
    fake = FakeLibrary()

    @contextmanager
    def current(device: torch.device) -> Iterator[None]:
        fake.current_device = device
        yield
        fake.current_device = None

    monkeypatch.setitem(sys.modules, "torch_fidelity", fake)
    monkeypatch.setattr(torch.cuda, "device", current)
    return fake


@pytest.mark.parametrize(
    ("name", "cuda", "current"),
    [("cpu", False, None), ("cuda", True, torch.device("cuda")), ("cuda:1", True, torch.device("cuda", 1))],
)
def test_inception_runs_on_the_device_asked_for(
    library: FakeLibrary, name: str, cuda: bool, current: torch.device | None
) -> None:
    grey = torch.arange(128, dtype=torch.uint8).reshape(2, 1, 8, 8)
    figures = inception.measure(grey, torch.zeros(3, 3, 8, 8, dtype=torch.uint8), torch.device(name))
    assert figures == inception.InceptionFigures(fid=12, score=3, score_std=0.1)
    (call,) = library.calls
    assert (call["cuda"], call["device"]) == (cuda, current)
    assert (len(call["input1"]), len(call["input2"])) == (2, 3)
    assert torch.equal(call["input1"][1], grey[1].repeat(3, 1, 1))


def test_a_device_that_torch_fidelity_does_not_know_is_refused() -> None:
    inception.check_device(torch.device("cuda", 2))
    with pytest.raises(InvalidInput, match="device: got mps; --inception runs on cpu or cuda"):
        inception.check_device(torch.device("mps"))
