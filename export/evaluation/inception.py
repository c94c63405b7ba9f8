"""FID and Inception Score as in papers, from the features of the standard Inception network. measures.py calls `measure`.

torch-fidelity computes them; its results agree with the original TensorFlow code. It is an optional extra
(`pip install '.[inception]'`), since it needs torchvision. At its first use it downloads the network's weights (91 MB).
"""

from __future__ import annotations

import importlib
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from runtime.errors import InvalidInput


@dataclass(frozen=True)
class InceptionFigures:
    """fid: against the real pictures (arXiv 1706.08500). score, score_std: Inception Score over ten parts
    (arXiv 1606.03498)."""

    fid: float
    score: float
    score_std: float


class RgbDataset(Dataset[Tensor]):
    """[N, C, H, W] uint8 as N pictures [3, H, W]; a single channel is repeated."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index].expand(3, -1, -1)


def library() -> Any:
    """The torch_fidelity module. Raises InvalidInput naming the extra to install if it is missing."""
    try:
        return importlib.import_module("torch_fidelity")
    except ImportError as error:
        raise InvalidInput(
            "inception",
            "torch-fidelity is not installed; pip install -c constraints.txt '.[inception]' adds it",
        ) from error


def check_device(device: torch.device) -> None:
    """Raises InvalidInput where torch-fidelity cannot run on `device`."""
    if device.type not in ("cpu", "cuda"):
        raise InvalidInput("device", f"got {device}; --inception runs on cpu or cuda")


def measure(samples: Tensor, real: Tensor, device: torch.device) -> InceptionFigures:
    """FID of `samples` against `real`, and the Inception Score of `samples`. Both are [N, C, H, W] uint8.

    device: where the network runs. Raises InvalidInput if the weights cannot be downloaded.
    """
    fidelity = library()
    on_gpu = device.type == "cuda"
    try:
        # torch-fidelity takes no device: it runs on the current one.
        with torch.cuda.device(device) if on_gpu else nullcontext():
            metrics = fidelity.calculate_metrics(
                input1=RgbDataset(samples),
                input2=RgbDataset(real),
                isc=True,
                fid=True,
                cuda=on_gpu,
                verbose=False,
            )
    except OSError as error:
        raise InvalidInput(
            "inception", f"the weights of the Inception network cannot be downloaded: {error}"
        ) from error
    return InceptionFigures(
        fid=float(metrics["frechet_inception_distance"]),
        score=float(metrics["inception_score_mean"]),
        score_std=float(metrics["inception_score_std"]),
    )
