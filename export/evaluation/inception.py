"""FID and Inception Score as papers state them: in the features of the standard Inception network.

Through torch-fidelity, whose figures equal those of the original TensorFlow code. It is an extra of its own
(`pip install '.[inception]'`), since it brings torchvision, and downloads the network's weights (91 MB) when first used.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

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


class Rgb(Dataset[Tensor]):
    """[N, C, H, W] uint8 as N pictures [3, H, W]; grey is repeated."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index].expand(3, -1, -1)


def library() -> Any:
    """The torch_fidelity module. Raises InvalidInput naming the extra where it is not installed."""
    try:
        return importlib.import_module("torch_fidelity")
    except ImportError as error:
        raise InvalidInput(
            "inception",
            "torch-fidelity is not installed; pip install -c constraints.txt '.[inception]' adds it",
        ) from error


def measure(samples: Tensor, real: Tensor) -> InceptionFigures:
    """samples, real: [N, C, H, W] uint8, equally many. Raises InvalidInput where the weights cannot be had."""
    fidelity = library()
    try:
        found = fidelity.calculate_metrics(
            input1=Rgb(samples), input2=Rgb(real), isc=True, fid=True, cuda=False, verbose=False
        )
    except OSError as error:
        raise InvalidInput(
            "inception", f"the weights of the Inception network cannot be downloaded: {error}"
        ) from error
    return InceptionFigures(
        fid=float(found["frechet_inception_distance"]),
        score=float(found["inception_score_mean"]),
        score_std=float(found["inception_score_std"]),
    )
