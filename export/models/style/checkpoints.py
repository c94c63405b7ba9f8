"""NAMINGS: TransformerNet's tensor names in files of pytorch/examples' `fast_neural_style` (candy.pth, mosaic.pth, *.model).

export/checkpoints/identification.py recognises files by them; `export.convert` writes such files. Our names are the same. Old
files hold running means and variances of the instance norms, which never used them: that project's script deletes them, and
they are left out here too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from torch import Tensor

from export.checkpoints.naming import Inferred, Naming
from export.models.style.generator import Config
from runtime.errors import InvalidInput

ENDS = ("conv1", "conv2", "conv3", "deconv1", "deconv2", "deconv3")
NORMS = ("in1", "in2", "in3", "in4", "in5")


def names(blocks: Iterable[str]) -> Iterator[str]:
    """The names of all tensors of a network with instance norm and these residual blocks ("res1", …)."""
    convolutions = [*ENDS, *(f"{block}.conv{number}" for block in blocks for number in (1, 2))]
    norms = [*NORMS, *(f"{block}.in{number}" for block in blocks for number in (1, 2))]
    for layer in (*(f"{convolution}.conv2d" for convolution in convolutions), *norms):
        yield from (f"{layer}.weight", f"{layer}.bias")


def same(keys: Iterable[str]) -> Mapping[str, str]:
    """{name: name} of all tensors of the network to which `keys` belong."""
    counted = sum(bool(re.fullmatch(r"res\d+\.conv1\.conv2d\.weight", key)) for key in set(keys))
    return {name: name for name in names([f"res{number}" for number in range(1, counted + 1)])}


def infer(tensors: Mapping[str, Tensor]) -> Inferred:
    """The configuration of the network with these tensors. Raises InvalidInput if its first layer is another one."""
    first = tensors["conv1.conv2d.weight"]
    if first.dim() != 4 or tuple(first.shape[1:]) != (3, 9, 9):
        raise InvalidInput(
            "weights",
            f"conv1.conv2d.weight: got {list(first.shape)}, expected a convolution's [out, 3, 9, 9]",
        )
    blocks = sum(key.endswith(".conv1.conv2d.weight") for key in tensors)
    return Inferred({"features": first.shape[0], "blocks": blocks, "norm": "instance"})


def lacks(config: Config) -> str:
    return "batch norm" if config.norm != "instance" else ""


NAMINGS = (
    Naming(
        name="pytorch/examples fast_neural_style",
        recognised_by=(r"conv1\.conv2d\.weight", r"in1\.weight", r"deconv1\.conv2d\.weight"),
        to_ours=same,
        from_ours=same,
        infer=infer,
        target="fast-neural-style",
        ignored=r"(res\d+\.)?in\d+\.running_(mean|var)",
        lacks=lacks,
    ),
)
