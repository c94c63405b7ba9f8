"""Networks that tell what a picture shows. Their features are the space in which samples are compared.

`load` takes a file and finds out which network it holds: He's ResNet-56 for CIFAR-10 in the public file of
akamaster/pytorch_resnet_cifar10, or a small one of ours (`python -m export.evaluation.classifier` trains it).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.checkpoints import checkpoint
from export.evaluation.progress import followed
from export.networks.features import IMAGENET_MEAN, IMAGENET_STD
from runtime.errors import InvalidInput

BATCH = 256
SIDE_PX = 32
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# What the metadata of our own files calls the network in them.
SMALL = "small-classifier"


@dataclass(frozen=True)
class Seen:
    """What a classifier made of N pictures: features [N, D] float32; classes [N] int64, the likeliest of each."""

    features: Tensor
    classes: Tensor


@dataclass(frozen=True)
class Config:
    """Of the small network. size: side in pixels; width: maps of the first layer, a quarter of the features."""

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
    """Two convolutions beside a shortcut. Where maps double, every other pixel is taken and zeros are the new maps."""

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
        self.name, self.size, self.channels, self.class_names = name, size, channels, class_names

    @torch.inference_mode()
    def features(self, images: Tensor) -> Tensor:
        """[N, C, size, size] float32 in [0, 1] → [N, D] float32."""
        return self.net.embed(images)

    @torch.inference_mode()
    def logits(self, images: Tensor) -> Tensor:
        """[N, C, size, size] float32 in [0, 1] → [N, classes] float32."""
        return self.net(images)

    @torch.inference_mode()
    def see(self, images: Tensor, doing: str) -> Seen:
        """[N, C, size, size] uint8, in batches, with a bar that says `doing`. One pass gives both results."""
        features, classes = [], []
        for batch in followed(images.split(BATCH), doing):
            embedded = self.net.embed(batch.to(torch.float32, memory_format=torch.channels_last) / 255)
            features.append(embedded)
            classes.append(self.net.linear(embedded).argmax(dim=1))
        return Seen(torch.cat(features), torch.cat(classes))


def load(path: Path) -> Classifier:
    """The classifier in `path`. Raises InvalidInput where the file holds none that is known here."""
    if not path.is_file():
        raise InvalidInput(
            "classifier", f"no file at {path}; python -m export.evaluation.classifier makes one"
        )
    if path.suffix == ".safetensors":
        return load_small(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's unpickler has many words for what it cannot read
        raise InvalidInput("classifier", f"{path.name} cannot be read: {error}") from error
    state = found.get("state_dict") if isinstance(found, dict) else None
    if not isinstance(state, dict):
        raise InvalidInput(
            "classifier",
            f"{path.name} has no `state_dict`; expected the public ResNet-56 for CIFAR-10, or a .safetensors of ours",
        )
    return resnet56(state, path)


def resnet56(state: Mapping[str, Tensor], path: Path) -> Classifier:
    """state: with the names of akamaster's file, `module.` in front."""
    net = ResNet56()
    checkpoint.load_strictly(net, {key.removeprefix("module."): value for key, value in state.items()}, path)
    return Classifier(net, name="resnet56", size=SIDE_PX, channels=3, class_names=CIFAR10)


def save_small(path: Path, config: Config, net: SmallNet, class_names: tuple[str, ...]) -> None:
    """Write a file that `load` takes: float16 weights; network, configuration and class names in the metadata."""
    checkpoint.save(path, SMALL, config, net, class_names)


def load_small(path: Path) -> Classifier:
    tensors, metadata = checkpoint.read(path)
    if metadata.get("model") != SMALL:
        raise InvalidInput(
            "classifier", f"{path.name} holds {metadata.get('model')!r} by its metadata, expected {SMALL!r}"
        )
    config = Config(**json.loads(metadata["config"]))
    net = SmallNet(config)
    checkpoint.load_strictly(net, tensors, path)
    names = tuple(json.loads(metadata["class_names"])) or tuple(map(str, range(config.classes)))
    return Classifier(net, name=SMALL, size=config.size, channels=config.channels, class_names=names)
