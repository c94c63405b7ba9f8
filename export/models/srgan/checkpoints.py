"""NAMINGS: SRResNet's tensor names in leftthomas/SRGAN, whose layers are called block1, block2 … in the order of use.

export/checkpoints/identification.py recognises files by them; `export.convert` writes such files. The numbers of blocks and
upsamplings are counted in a file's names; the rest of the configuration follows from the tensors' shapes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from export.checkpoints.naming import Inferred, Naming
from export.models.srgan.generator import SCALES, Config, SRResNet
from runtime.errors import InvalidInput

CONV, PRELU = ("weight", "bias"), ("weight",)
NORM = (*CONV, "running_mean", "running_var")
# A residual block's layers: their name, ours, the tensors.
BLOCK = (("conv1", "conv1", CONV), ("bn1", "norm1", NORM), ("prelu", "act", PRELU),
         ("conv2", "conv2", CONV), ("bn2", "norm2", NORM))  # fmt: skip

# Expressions for the names of which there is one for each residual block, for each upsampling, and for a trunk's batch norm.
THEIRS = (r"block\d+\.conv1\.weight", r"block\d+\.\d+\.conv\.weight", r"block\d+\.1\.running_mean")
OURS = (r"body\.\d+\.conv1\.weight", r"ups\.\d+\.conv\.weight", r"trunk\.1\.running_mean")


def names(blocks: int, ups: int, trunk_norm: bool) -> Mapping[str, str]:
    """{their name: our name} of all tensors of a network with PReLU."""
    layers = [("block1.0", "first.0", CONV), ("block1.1", "first.1", PRELU)]
    for block in range(blocks):
        layers += [
            (f"block{block + 2}.{theirs}", f"body.{block}.{ours}", kinds) for theirs, ours, kinds in BLOCK
        ]
    trunk, tail = f"block{blocks + 2}", f"block{blocks + 3}"
    layers += [(f"{trunk}.0", "trunk.0", CONV), (f"{trunk}.1", "trunk.1", NORM if trunk_norm else PRELU)]
    for up in range(ups):
        layers += [
            (f"{tail}.{up}.conv", f"ups.{up}.conv", CONV),
            (f"{tail}.{up}.prelu", f"ups.{up}.act", PRELU),
        ]
    layers += [(f"{tail}.{ups}", "last", CONV)]
    return {f"{theirs}.{kind}": f"{ours}.{kind}" for theirs, ours, kinds in layers for kind in kinds}


def counted(keys: Iterable[str], expressions: tuple[str, str, str]) -> tuple[int, int, bool]:
    """The arguments of `names` for the network with these tensors. expressions: THEIRS or OURS."""
    keys = list(keys)
    blocks, ups, norms = (sum(bool(re.fullmatch(each, key)) for key in keys) for each in expressions)
    return blocks, ups, norms > 0


def to_ours(keys: Iterable[str]) -> Mapping[str, str]:
    return names(*counted(keys, THEIRS))


def from_ours(keys: Iterable[str]) -> Mapping[str, str]:
    return {ours: theirs for theirs, ours in names(*counted(keys, OURS)).items()}


def infer(tensors: Mapping[str, Tensor]) -> Inferred:
    """The configuration of the network with these tensors, under our names. Raises InvalidInput if it is another network.

    All shapes are compared, since other networks have the same names: with other kernels, or a slope for each channel.
    """
    theirs = from_ours(tensors)
    blocks, ups, trunk_norm = counted(tensors, OURS)
    if 2**ups not in SCALES:
        raise other(f"it has {ups} upsamplings, expected 1, 2 or 3 for ×2, ×4 or ×8")
    first, last = (tensors[key].shape for key in ("first.0.weight", "last.weight"))
    for key, shape in (("first.0.weight", first), ("last.weight", last)):
        if len(shape) != 4 or 0 in shape:
            raise other(f"{theirs[key]} is {list(shape)}, expected a convolution's [out, in, 9, 9]")
    config = {
        "features": first[0],
        "blocks": blocks,
        "scale": 2**ups,
        "activation": "prelu",
        "trunk_norm": trunk_norm,
        "output": "tanh",
        "in_channels": first[1],
        "out_channels": last[0],
    }
    with torch.device("meta"):
        wanted = SRResNet(Config(**config)).state_dict()
    for key, tensor in tensors.items():
        if tensor.shape != wanted[key].shape:
            raise other(f"{theirs[key]} is {list(tensor.shape)}, expected {list(wanted[key].shape)}")
    return Inferred(config)


def other(why: str) -> InvalidInput:
    return InvalidInput(
        "weights", f"the names are those of SRResNet in leftthomas/SRGAN, but it is another network: {why}"
    )


def lacks(config: Config) -> str:
    if config.activation != "prelu":
        return "LeakyReLU in place of PReLU"
    return "" if config.output == "tanh" else "an output without tanh"


NAMINGS = (
    Naming(
        name="leftthomas/SRGAN",
        recognised_by=(r"block1\.0\.weight", r"block2\.conv1\.weight", r"block\d+\.0\.conv\.weight"),
        to_ours=to_ours,
        from_ours=from_ours,
        infer=infer,
        target="srgan",
        lacks=lacks,
    ),
)
