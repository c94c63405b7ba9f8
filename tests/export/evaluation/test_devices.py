"""Tests of `--device` of the evaluation."""

from __future__ import annotations

import pytest
import torch

from export.evaluation.devices import device
from runtime.errors import InvalidInput


def test_float32_is_not_computed_in_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    assert device("cpu") == torch.device("cpu")
    assert torch.backends.cudnn.allow_tf32 is False


@pytest.mark.parametrize("name", ["nonsense", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match=f"device: got '{name}', expected cpu, cuda or cuda:N; torch says"):
        device(name)


@pytest.mark.gpu
def test_a_gpu_is_a_device() -> None:
    assert device("cuda").type == "cuda"
