"""VGG networks whose features compare pictures: `load` gives them to ESRGAN's perceptual loss and to the evaluation.

VGG19: Simonyan and Zisserman 2014 (arXiv 1409.1556), with torchvision's weights. `vgg-normalised`: the same network
with its channels scaled to a mean activation of one (Gatys et al. 2015, arXiv 1508.06576), as style transfer uses it.
The features are those before the activation, which are denser (ESRGAN, arXiv 1809.00219, section 3.3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from export.checkpoints import checkpoint
from runtime.errors import InvalidInput

DEFAULT = "vgg19-conv5_4"
# VGG19's convolutions in each block, and their channels.
BLOCKS, CHANNELS = (2, 2, 4, 4, 4), (64, 128, 256, 512, 512)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
VGG19_URL = "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth"


@dataclass(frozen=True)
class Net:
    """A feature network and the layout of its file.

    convolutions: how many in each block, up to the one whose output is taken; (2, 2, 1) ends at conv3_1.
    mean, std: of RGB in [0, 1], by which pictures are normalised. prefix: of the keys in the file; the layer's index in
    the original Sequential follows it. style: whether it is built as in the style-transfer files: a 1×1 convolution in
    front normalises, padding reflects, pooling rounds up. url: to download the file from; "" if that is not possible.
    """

    convolutions: tuple[int, ...]
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    prefix: str = ""
    style: bool = False
    url: str = ""


NETS: Mapping[str, Net] = {
    f"vgg19-conv{block}_{last}": Net(
        (*BLOCKS[: block - 1], last), IMAGENET_MEAN, IMAGENET_STD, prefix="features.", url=VGG19_URL
    )
    for block, count in enumerate(BLOCKS, start=1)
    for last in range(1, count + 1)
} | {"vgg-normalised-conv3_1": Net((2, 2, 1), style=True)}


class Features(nn.Module):
    """[N, 3, H, W] float32 in [0, 1] → [N, C, H/2ᵏ, W/2ᵏ] float32 after k poolings, before the activation. Frozen."""

    mean: Tensor
    std: Tensor

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(net.mean)[:, None, None])
        self.register_buffer("std", torch.tensor(net.std)[:, None, None])
        self.layers = layers(net)

    def forward(self, image: Tensor) -> Tensor:
        return self.layers((image - self.mean) / self.std)

    def train(self, mode: bool = True) -> Features:
        """Stay in eval mode, also when the trainer that holds this network switches to training mode."""
        return super().train(False)


def layers(net: Net) -> nn.Sequential:
    """The network's layers, each at its index in the original Sequential, which is in the file's keys."""
    made: list[nn.Module] = [nn.Conv2d(3, 3, 1)] if net.style else []
    channels = 3
    for block, count in enumerate(net.convolutions):
        if block:
            made.append(nn.MaxPool2d(2, ceil_mode=net.style))
        for _ in range(count):
            if net.style:
                made.append(nn.ReflectionPad2d(1))
            convolution = nn.Conv2d(channels, CHANNELS[block], 3, padding=0 if net.style else 1)
            made += [convolution, nn.ReLU(inplace=True)]
            channels = CHANNELS[block]
    return nn.Sequential(*made[:-1])


def load(name: str, path: Path | None = None) -> Features:
    """The network `name` of NETS with the weights of `path`, frozen, in eval mode.

    path: a .pth or .safetensors state dict; None downloads it once into torch hub's cache and checks its hash.
    Raises InvalidInput if the name is unknown, the file does not fit (naming the keys), or it cannot be downloaded.
    """
    if name not in NETS:
        raise InvalidInput(
            "features", f"got {name!r}, expected one of {', '.join(NETS)} (VGG19's convolutions by name)"
        )
    net = NETS[name]
    tensors = download(name, net) if path is None else read(path)
    features = Features(net)
    wanted = features.layers.state_dict()
    problems = [f"missing {net.prefix}{key}" for key in wanted if net.prefix + key not in tensors]
    problems += [
        f"{net.prefix}{key} is {list(tensors[net.prefix + key].shape)}, expected {list(wanted[key].shape)}"
        for key in wanted
        if net.prefix + key in tensors and tensors[net.prefix + key].shape != wanted[key].shape
    ]
    if problems:
        source = path.name if path else net.url
        raise InvalidInput("vgg19", f"{source} does not hold the weights of {name}: {'; '.join(problems)}")
    features.layers.load_state_dict({key: tensors[net.prefix + key] for key in wanted})
    return features.eval().requires_grad_(False)


def read(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise InvalidInput("vgg19", f"no file at {path}, expected the weights of a feature network")
    return checkpoint.read(path)[0]


def download(name: str, net: Net) -> Mapping[str, Tensor]:
    if not net.url:
        raise InvalidInput("vgg19", f"is missing; {name} cannot be downloaded, give --vgg19 PATH")
    try:
        return torch.hub.load_state_dict_from_url(
            net.url, map_location="cpu", check_hash=True, weights_only=True
        )
    except (OSError, RuntimeError) as error:  # no network; a hash that does not fit
        raise InvalidInput(
            "vgg19", f"{net.url} cannot be downloaded ({error}); fetch it elsewhere and give --vgg19 PATH"
        ) from error
