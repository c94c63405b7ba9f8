"""NAMINGS: the tensor names of DCGAN's generator in checkpoints of pytorch/examples, which are our names too.

export/checkpoints/identification.py recognises such a file by them. The network may have any number of layers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from export.checkpoints.naming import Inferred, Naming
from runtime.errors import InvalidInput

SIDE_PX = 4  # of the first layer's maps; each further layer doubles it


def names(keys: Iterable[str]) -> Mapping[str, str]:
    """{name: name} for all tensors of the network to which `keys` belong, even if some are missing.

    Every third layer is a convolution, and batch norm follows each but the last.
    """
    matches = (re.fullmatch(r"main\.(\d+)\.weight", key) for key in keys)
    places = [int(match[1]) for match in matches if match]
    last = min(max(places), 3 * len(places)) // 3 * 3
    expected = [f"main.{at}.weight" for at in range(0, last + 1, 3)]
    expected += [
        f"main.{at + 1}.{kind}"
        for at in range(0, last, 3)
        for kind in ("weight", "bias", "running_mean", "running_var")
    ]
    return {name: name for name in expected}


def infer(tensors: Mapping[str, Tensor]) -> Inferred:
    """The configuration, from the tensors' shapes. Raises InvalidInput if not every third layer is a convolution."""
    weights = [tensors[key] for key in sorted(tensors, key=place) if tensors[key].dim() == 4]
    if len(weights) != len(tensors) // 5 + 1:
        raise InvalidInput(
            "weights",
            f"got {len(weights)} convolutions' weights [in, out, 4, 4], expected one in every third layer",
        )
    return Inferred(
        {
            "size": SIDE_PX * 2 ** (len(weights) - 1),
            "channels": weights[-1].shape[1],
            "latent_size": weights[0].shape[0],
            "width": weights[-1].shape[0],
        }
    )


def place(key: str) -> int:
    return int(key.split(".")[1])


NAMINGS = (
    Naming(
        name="pytorch/examples",
        recognised_by=(r"main\.0\.weight", r"main\.1\.running_mean", r"main\.3\.weight"),
        to_ours=names,
        from_ours=names,
        infer=infer,
    ),
)
