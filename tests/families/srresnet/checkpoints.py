"""The tensor names of SRResNet in leftthomas/SRGAN: block1, block2 … for the residual blocks, the last two for the rest."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from export.checkpoints.naming import Inferred, Naming

PARAMETERS = ("weight", "bias")
STATISTICS = (*PARAMETERS, "running_mean", "running_var")
# Inside a residual block: their name, our place in the Sequential, the tensors.
BLOCK = (
    ("conv1", 0, PARAMETERS), ("bn1", 1, STATISTICS), ("prelu", 2, ("weight",)),
    ("conv2", 3, PARAMETERS), ("bn2", 4, STATISTICS),
)  # fmt: skip


def names(blocks: int, ups: int) -> Mapping[str, str]:
    """{theirs: ours} of a network with so many residual blocks and upsamplings."""
    layers = [("block1.0", "first.0", PARAMETERS), ("block1.1", "first.1", ("weight",))]
    for block in range(blocks):
        layers += [
            (f"block{block + 2}.{name}", f"body.{block}.layers.{place}", kinds)
            for name, place, kinds in BLOCK
        ]
    trunk, tail = f"block{blocks + 2}", f"block{blocks + 3}"
    layers += [(f"{trunk}.0", "trunk.0", PARAMETERS), (f"{trunk}.1", "trunk.1", STATISTICS)]
    for up in range(ups):
        layers += [(f"{tail}.{up}.conv", f"up.{3 * up}", PARAMETERS)]
        layers += [(f"{tail}.{up}.prelu", f"up.{3 * up + 2}", ("weight",))]
    layers += [(f"{tail}.{ups}", "last", PARAMETERS)]
    return {f"{theirs}.{kind}": f"{ours}.{kind}" for theirs, ours, kinds in layers for kind in kinds}


def to_ours(keys: Iterable[str]) -> Mapping[str, str]:
    keys = list(keys)
    blocks = sum(bool(re.fullmatch(r"block\d+\.conv1\.weight", key)) for key in keys)
    return names(blocks, sum(bool(re.fullmatch(r"block\d+\.\d\.conv\.weight", key)) for key in keys))


def from_ours(keys: Iterable[str]) -> Mapping[str, str]:
    keys = list(keys)
    blocks = sum(bool(re.fullmatch(r"body\.\d+\.layers\.0\.weight", key)) for key in keys)
    ups = sum(bool(re.fullmatch(r"up\.\d+\.bias", key)) for key in keys)
    return {ours: theirs for theirs, ours in names(blocks, ups).items()}


def infer(tensors: Mapping[str, Tensor]) -> Inferred:
    features, _, kernel, _ = tensors["first.0.weight"].shape
    blocks = sum(key.endswith("layers.0.weight") for key in tensors)
    ups = sum(bool(re.fullmatch(r"up\.\d+\.bias", key)) for key in tensors)
    return Inferred({"features": features, "blocks": blocks, "scale": 2**ups, "kernel": kernel})


NAMINGS = (
    Naming(
        name="leftthomas/SRGAN",
        recognised_by=(r"block1\.0\.weight", r"block2\.conv1\.weight", r"block\d+\.\d\.conv\.weight"),
        to_ours=to_ours,
        from_ours=from_ours,
        infer=infer,
        target="srgan",
    ),
)
