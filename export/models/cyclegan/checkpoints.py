"""NAMINGS: the tensor names of pytorch-CycleGAN-and-pix2pix (junyanz), in its files `latest_net_G.pth`, `latest_net_G_A.pth`.

export/checkpoints/identification.py recognises files by them; `export.convert` writes such files. The layers here have the
names that they have there, with two exceptions. A ResNet that was trained with dropout has one more layer in the middle of
each block, which shifts the second convolution by one. Files written with PyTorch before 0.4 hold running statistics of
instance norm, which that code base removes as well when it loads them (`__patch_instance_norm_state_dict`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from export.checkpoints.naming import Assumption, Inferred, Naming
from export.models.cyclegan.generator import Config, build
from export.models.cyclegan.unet import LEAST_DOWNS
from runtime.errors import InvalidInput

CODE_BASE_DOWNS = 5  # the fewest halvings of its U-Net
UNET_FIRST, RESNET_FIRST = "model.model.0.weight", "model.1.weight"
INSIDE = r"model\.model\.1(\.model\.3)*\.model"
INNER = rf"{INSIDE}\.1\.weight"
# A norm with weights: batch norm.
RESNET_NORM, UNET_NORM = "model.2.weight", rf"{INSIDE}\.[246]\.weight"
SECOND = re.compile(r"(conv_block)\.(\d)\.")


OF_TRAINING = Assumption(
    "norm",
    "batch",
    ("picture",),
    "that code base normalises by the statistics of each picture unless it is given --eval",
)


def counted(keys: Collection[str]) -> Config:
    """The network with tensors of these names, as narrow as possible. With tensors missing, the one that fits best."""
    if UNET_FIRST in keys:
        downs = 1 + sum(bool(re.fullmatch(INNER, key)) for key in keys)
        batch = any(re.fullmatch(UNET_NORM, key) for key in keys)
        return Config("unet", 1, norm="batch" if batch else "instance", downs=max(downs, LEAST_DOWNS))
    blocks = sum(key.endswith(".conv_block.1.weight") for key in keys)
    return Config("resnet", 1, blocks, norm="batch" if RESNET_NORM in keys else "instance")


def names(keys: Collection[str]) -> list[str]:
    """Our names of all tensors of the network to which `keys` belong, in either code base's names."""
    with torch.device("meta"):
        return [key for key in build(counted(keys)).state_dict() if not key.endswith("num_batches_tracked")]


def to_ours(keys: Iterable[str]) -> Mapping[str, str]:
    keys = set(keys)
    first, second = (sum(f".conv_block.{index}.weight" in key for key in keys) for index in (5, 6))
    shifted = int(second > first)  # dropout is layer 4
    return {
        SECOND.sub(lambda at: f"{at[1]}.{int(at[2]) + shifted * (int(at[2]) > 3)}.", name): name
        for name in names(keys)
    }


def from_ours(keys: Iterable[str]) -> Mapping[str, str]:
    return {name: name for name in keys}


def infer(tensors: Mapping[str, Tensor]) -> Inferred:
    """The configuration of the network with these tensors. Raises InvalidInput if their shapes are of no such network."""
    found = counted(tensors.keys())
    first = UNET_FIRST if found.architecture == "unet" else RESNET_FIRST
    # The last layer's weights come last but for their bias: [out, features, 7, 7], transposed in a U-Net.
    last = [name for name in names(tensors.keys()) if name.endswith("weight")][-1]
    for key in (first, last):
        if tensors[key].dim() != 4:
            got = list(tensors[key].shape)
            raise InvalidInput(
                "weights", f"{key}: got {got}, expected a convolution's [out, in, height, width]"
            )
    features, in_channels = tensors[first].shape[:2]
    config = {
        "architecture": found.architecture,
        "features": features,
        "norm": found.norm,
        "in_channels": in_channels,
        "out_channels": tensors[last].shape[1 if found.architecture == "unet" else 0],
    }
    own = {"downs": found.downs} if found.architecture == "unet" else {"blocks": found.blocks}
    return Inferred(config | own, (OF_TRAINING,) if found.norm == "batch" else ())


def lacks(config: Config) -> str:
    if config.architecture == "unet" and config.downs < CODE_BASE_DOWNS:
        return f"a U-Net of {config.downs} halvings (it has {CODE_BASE_DOWNS} or more)"
    return ""


WITH_BATCH_NORM = Naming(
    name="pytorch-CycleGAN-and-pix2pix",
    recognised_by=(
        rf"{re.escape(RESNET_FIRST)}|{re.escape(UNET_FIRST)}",
        rf"model\.\d+\.conv_block\.1\.weight|{INNER}",
        rf"{re.escape(RESNET_NORM)}|{UNET_NORM}",
    ),
    to_ours=to_ours,
    from_ours=from_ours,
    infer=infer,
    target="cyclegan",
    lacks=lacks,
)
# The first naming that matches a file is used. Without weights of norms, they are instance norms.
NAMINGS = (
    WITH_BATCH_NORM,
    replace(
        WITH_BATCH_NORM,
        recognised_by=WITH_BATCH_NORM.recognised_by[:2],
        ignored=r".*\.running_(mean|var)",
        target="",
    ),
)
