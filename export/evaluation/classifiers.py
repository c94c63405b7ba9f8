"""The classifiers in whose features samples are compared with real pictures. `load` reads one from a file.

There are two: ResNet-56 for CIFAR-10 (He et al.), as akamaster/pytorch_resnet_cifar10 publishes it, and the small network
that `python -m export.evaluation.classifier` trains on any labelled pictures. sampling.py computes all figures with it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.checkpoints import checkpoint
from export.evaluation.progress import with_progress
from export.networks.features import IMAGENET_MEAN, IMAGENET_STD
from runtime.errors import InvalidInput

BATCH = 256
SIDE_PX = 32
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# The name of our own network in the metadata of its files.
SMALL = "small-classifier"
# For messages: what `load` takes and how to get it.
ACCEPTED = (
    "give a .safetensors that `python -m export.evaluation.classifier --data DATA --output classifier.safetensors` "
    "trains on the same real pictures (minutes on a CPU), or the public ResNet-56 for CIFAR-10, "
    "resnet56-4bfd9763.th from https://github.com/akamaster/pytorch_resnet_cifar10"
)


@dataclass(frozen=True)
class Classified:
    """A classifier's result for N pictures, on the CPU. features: [N, D] float32. classes: [N] int64, the likeliest class."""

    features: Tensor
    classes: Tensor


@dataclass(frozen=True)
class Config:
    """The configuration of the small network. size: side in pixels. width: maps of the first layer; features are four times
    as many.
    """

    size: int = SIDE_PX
    channels: int = 1
    classes: int = 10
    width: int = 24


class Net(nn.Module):
    """A classifier in two halves: `embed` gives [N, D] features, `linear` makes [N, classes] logits of them."""

    linear: nn.Linear

    def embed(self, images: Tensor) -> Tensor:
        """[N, C, H, W] float32 in [0, 1] → [N, D]."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(self.embed(images))


class SmallNet(Net):
    """Four 3×3 convolutions with batch norm, the mean of each map as features, one linear layer."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width = config.width
        self.body = nn.Sequential(
            *convolution(config.channels, width, stride=2),
            *convolution(width, 2 * width),
            nn.MaxPool2d(2),
            *convolution(2 * width, 4 * width),
            nn.MaxPool2d(2),
            *convolution(4 * width, 4 * width),
        )
        self.linear = nn.Linear(4 * width, config.classes)

    def embed(self, images: Tensor) -> Tensor:
        return self.body(images).mean(dim=(2, 3))


def convolution(inputs: int, outputs: int, stride: int = 1) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class ResNet56(Net):
    """He et al. 2015 (arXiv 1512.03385), section 4.2: 6n + 2 layers with n = 9; shortcuts have no parameters."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None], persistent=False)
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(Residual(16, 16) for _ in range(9)))
        self.layer2 = nn.Sequential(Residual(16, 32), *(Residual(32, 32) for _ in range(8)))
        self.layer3 = nn.Sequential(Residual(32, 64), *(Residual(64, 64) for _ in range(8)))
        self.linear = nn.Linear(64, len(CIFAR10))

    def embed(self, images: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1((images - self.mean) / self.std)))
        return self.layer3(self.layer2(self.layer1(x))).mean(dim=(2, 3))


class Residual(nn.Module):
    """Two convolutions and a shortcut. Where the maps double, the shortcut takes every other pixel and pads with zero maps."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.stride, self.added = outputs // inputs, outputs - inputs
        self.conv1, self.bn1, _ = convolution(inputs, outputs, self.stride)
        self.conv2, self.bn2, _ = convolution(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        residual = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        shortcut = x[:, :, :: self.stride, :: self.stride]
        half = self.added // 2
        return F.relu(residual + F.pad(shortcut, (0, 0, 0, 0, half, half)))


class Classifier:
    """A trained network and what it was trained on: `size` px a side, `channels`, the names of its classes."""

    def __init__(
        self, net: Net, *, name: str, size: int, channels: int, class_names: tuple[str, ...]
    ) -> None:
        self.net = net.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.device = torch.device("cpu")
        self.name, self.size, self.channels, self.class_names = name, size, channels, class_names

    def to(self, device: torch.device) -> Self:
        """Run on `device` from now on."""
        self.net.to(device)
        self.device = device
        return self

    @torch.inference_mode()
    def classify(self, images: Tensor, description: str) -> Classified:
        """Classify pictures, [N, C, size, size] uint8, in batches. description: of the progress bar."""
        features, classes = [], []
        for batch in with_progress(images.split(BATCH), description):
            floats = batch.to(self.device, torch.float32, memory_format=torch.channels_last) / 255
            embedded = self.net.embed(floats)
            features.append(embedded.cpu())
            classes.append(self.net.linear(embedded).argmax(dim=1).cpu())
        return Classified(torch.cat(features), torch.cat(classes))


def load(path: Path) -> Classifier:
    """The classifier in the file `path`. Raises InvalidInput if there is no such file or it holds another network."""
    if not path.is_file():
        raise InvalidInput("classifier", f"no file at {path}; {ACCEPTED}")
    if path.suffix == ".safetensors":
        return load_small(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's unpickler raises many types for a file that it cannot read
        raise InvalidInput("classifier", f"{path.name} cannot be read: {error}") from error
    state_dict = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state_dict, dict):
        raise InvalidInput("classifier", f"{path.name} has no `state_dict`; {ACCEPTED}")
    return resnet56(state_dict, path)


def resnet56(state_dict: Mapping[str, Tensor], path: Path) -> Classifier:
    """ResNet-56 with the weights of `state_dict`, whose names are those of akamaster's file (`module.…`)."""
    net = ResNet56()
    checkpoint.load_strictly(
        net, {key.removeprefix("module."): value for key, value in state_dict.items()}, path
    )
    return Classifier(net, name="resnet56", size=SIDE_PX, channels=3, class_names=CIFAR10)


def save_small(path: Path, config: Config, net: SmallNet, class_names: tuple[str, ...]) -> None:
    """Write a file for `load`: weights in float16, with network, configuration and class names in the metadata."""
    checkpoint.save(path, SMALL, config, net, class_names)


def load_small(path: Path) -> Classifier:
    tensors, metadata = checkpoint.read(path)
    if metadata.get("model") != SMALL:
        raise InvalidInput(
            "classifier",
            f"{path.name} holds {metadata.get('model')!r} by its metadata, not {SMALL!r}; {ACCEPTED}",
        )
    config = Config(**json.loads(metadata["config"]))
    net = SmallNet(config)
    checkpoint.load_strictly(net, tensors, path)
    names = tuple(json.loads(metadata["class_names"])) or tuple(map(str, range(config.classes)))
    return Classifier(net, name=SMALL, size=config.size, channels=config.channels, class_names=names)
