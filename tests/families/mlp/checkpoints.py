"""The tensor names of the MLP in checkpoints of a public code base: `label_emb` and one Sequential, `model`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from export.checkpoints.naming import Inferred, Naming

PARAMETERS = ("weight", "bias")
STATISTICS = (*PARAMETERS, "running_mean", "running_var")


def names(layers: int) -> Mapping[str, str]:
    """{theirs: ours} of a network with so many hidden layers, each three long: linear, batch norm, activation."""
    table = {"label_emb.weight": "embedding.weight"}
    for place in range(0, 3 * layers, 3):
        table |= {f"model.{place}.{kind}": f"hidden.{place}.{kind}" for kind in PARAMETERS}
        table |= {f"model.{place + 1}.{kind}": f"hidden.{place + 1}.{kind}" for kind in STATISTICS}
    return table | {f"model.{3 * layers}.{kind}": f"pixels.{kind}" for kind in PARAMETERS}


def to_ours(keys: Iterable[str]) -> Mapping[str, str]:
    return names(sum(bool(re.fullmatch(r"model\.\d+\.running_mean", key)) for key in keys))


def from_ours(keys: Iterable[str]) -> Mapping[str, str]:
    layers = sum(bool(re.fullmatch(r"hidden\.\d+\.running_mean", key)) for key in keys)
    return {ours: theirs for theirs, ours in names(layers).items()}


def infer(tensors: Mapping[str, Tensor]) -> Inferred:
    classes = tensors["embedding.weight"].shape[0]
    width, inputs = tensors["hidden.0.weight"].shape
    layers = sum(key.endswith("running_mean") for key in tensors)
    size = round(tensors["pixels.weight"].shape[0] ** 0.5)
    config = {"classes": classes, "latent_size": inputs - classes, "width": width, "layers": layers}
    return Inferred(config | {"size": size})


NAMINGS = (
    Naming(
        name="PyTorch-GAN's cgan",
        recognised_by=(r"label_emb\.weight", r"model\.0\.weight", r"model\.1\.running_mean"),
        to_ours=to_ours,
        from_ours=from_ours,
        infer=infer,
        target="cgan",
    ),
)
