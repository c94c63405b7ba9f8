"""VGG19, whose features compare pictures: of one layer (`load`), or of several in one pass (`open_vgg19`).

VGG19: Simonyan and Zisserman 2014 (arXiv 1409.1556). Two kinds of file are read, told apart by their tensors: torchvision's,
and the style-transfer one, whose channels are scaled to a mean activation of one (Gatys et al. 2015, arXiv 1508.06576). Either
may end early: a file holds the first so many convolutions. `load` is for perceptual losses and the evaluation, `open_vgg19`
and `gram` for style transfer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from export.checkpoints import checkpoint
from runtime.errors import InvalidInput

DEFAULT = "vgg19-conv5_4"
# VGG19's convolutions in each block, and their channels.
BLOCKS, CHANNELS = (2, 2, 4, 4, 4), (64, 128, 256, 512, 512)
# All of its convolutions by name, from the picture on: conv1_1 … conv5_4.
CONVOLUTIONS = tuple(
    f"conv{block}_{number}" for block, count in enumerate(BLOCKS, start=1) for number in range(1, count + 1)
)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
VGG19_URL = "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth"
POOLINGS: Mapping[str, Callable[..., nn.Module]] = {"max": nn.MaxPool2d, "average": nn.AvgPool2d}


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    name: for messages. mean, std: of RGB in [0, 1], by which pictures are normalised. prefix: of the keys; the layer's place
    in the original Sequential follows it. style: whether it is built as in the style-transfer files: a 1×1 convolution in
    front normalises, padding reflects, pooling rounds up. url: to download the file from; "" if that is not possible.
    """

    name: str
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    prefix: str = ""
    style: bool = False
    url: str = ""


TORCHVISION = Kind("torchvision's VGG19", IMAGENET_MEAN, IMAGENET_STD, prefix="features.", url=VGG19_URL)
NORMALISED = Kind("the style-transfer VGG19", style=True)
KINDS = (TORCHVISION, NORMALISED)


@dataclass(frozen=True)
class Net:
    """VGG19 of one kind up to the convolution `last`."""

    kind: Kind
    last: str


NETS: Mapping[str, Net] = {f"vgg19-{name}": Net(TORCHVISION, name) for name in CONVOLUTIONS} | {
    "vgg-normalised-conv3_1": Net(NORMALISED, "conv3_1")
}


class Frozen(nn.Module):
    """A module that stays in eval mode, also when the trainer that holds it switches to training mode."""

    def freeze(self) -> None:
        self.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        return super().train(False)


class LayerFeatures(Frozen):
    """The features of several layers by name: [N, 3, H, W] float32 in [0, 1] → {name: [N, C, H/2ᵏ, W/2ᵏ] float32}.

    k poolings precede a layer of block k + 1. The dictionary goes from shallow to deep. Frozen, in eval mode.

    names: of CONVOLUTIONS. activated: give the features after the activation (Gatys et al.), else before it, where they are
    denser (ESRGAN, arXiv 1809.00219, section 3.3). pooling: "max", or "average" as Gatys et al. have it.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, kind: Kind, names: Iterable[str], *, activated: bool = False, pooling: str = "max"
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(kind.mean)[:, None, None])
        self.register_buffer("std", torch.tensor(kind.std)[:, None, None])
        wanted = set(names)
        last = max(wanted, key=CONVOLUTIONS.index)
        self.layers = layers(Net(kind, last), pooling)
        if activated:
            self.layers.append(nn.ReLU())
        self.names = {place + activated: name for place, name in places(self.layers) if name in wanted}
        self.freeze()

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        maps, found = (image - self.mean) / self.std, {}
        for place, layer in enumerate(self.layers):
            maps = layer(maps)
            if place in self.names:
                found[self.names[place]] = maps
        return found


class Features(Frozen):
    """The features of one layer, the last of `net`: [N, 3, H, W] float32 in [0, 1] → [N, C, H/2ᵏ, W/2ᵏ] float32."""

    def __init__(self, net: Net, *, activated: bool = False) -> None:
        super().__init__()
        self.last = net.last
        self.net = LayerFeatures(net.kind, (net.last,), activated=activated)
        self.freeze()

    def forward(self, image: Tensor) -> Tensor:
        return self.net(image)[self.last]


def layers(net: Net, pooling: str = "max") -> nn.Sequential:
    """The network's layers, each at its place in the original Sequential, which is in the file's keys."""
    style, channels = net.kind.style, 3
    made: list[nn.Module] = [nn.Conv2d(3, 3, 1)] if style else []
    for name in CONVOLUTIONS[: CONVOLUTIONS.index(net.last) + 1]:
        if made and name.endswith("_1") and name != CONVOLUTIONS[0]:
            made.append(POOLINGS[pooling](2, ceil_mode=style))
        if style:
            made.append(nn.ReflectionPad2d(1))
        width = CHANNELS[int(name[4]) - 1]
        # The activation is not in place: that would change the features before it.
        made += [nn.Conv2d(channels, width, 3, padding=0 if style else 1), nn.ReLU()]
        channels = width
    return nn.Sequential(*made[:-1])


def places(network: nn.Sequential) -> list[tuple[int, str]]:
    """The place of each convolution of CONVOLUTIONS in a Sequential that `layers` made, and its name."""
    convolutions = [
        place
        for place, layer in enumerate(network)
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3)
    ]
    return list(zip(convolutions, CONVOLUTIONS, strict=False))


@dataclass(frozen=True)
class Vgg19File:
    """The weights of VGG19, or of its first so many layers, as a file holds them.

    source: the file's name. names: the convolutions that it holds, from conv1_1 on. tensors: by their places in the original
    Sequential ("0.weight"), float32.
    """

    source: str
    kind: Kind
    names: tuple[str, ...]
    tensors: Mapping[str, Tensor]

    def missing(self, wanted: Sequence[str]) -> tuple[str, ...]:
        """Those of `wanted` that the file does not hold. `str(file)` says where it ends."""
        return tuple(name for name in wanted if name not in self.names)

    def __str__(self) -> str:
        return f"{self.source} ends at {self.names[-1]}"

    def network(
        self, names: Sequence[str], *, activated: bool = False, pooling: str = "max"
    ) -> LayerFeatures:
        """The network that gives the features of the layers `names`, see LayerFeatures. Raises InvalidInput if one is missing."""
        if missing := self.missing(names):
            raise InvalidInput("vgg19", f"there is no {', '.join(missing)}: {self}")
        network = LayerFeatures(self.kind, names, activated=activated, pooling=pooling)
        fill(network, self.tensors)
        return network


def fill(network: LayerFeatures, tensors: Mapping[str, Tensor]) -> None:
    network.layers.load_state_dict({key: tensors[key] for key in network.layers.state_dict()})


def gram(maps: Tensor) -> Tensor:
    """The Gram matrix of each picture's features, [N, C, H, W] → [N, C, C]: Σ over the pixels of mapᵢ · mapⱼ, over C·H·W.

    Divided as in Johnson et al. (arXiv 1603.08155, section 3.2), so that pictures of different sizes compare. The loss of a
    layer in Gatys et al. (1/4N²M² Σ (G − A)², with N channels, M pixels and G, A without the division) is ¼ Σ (G − A)² of these.
    """
    N, C, H, W = maps.shape
    rows = maps.reshape(N, C, H * W)
    return rows @ rows.transpose(1, 2) / (C * H * W)


def load(name: str, path: Path | None = None, *, activated: bool = False) -> Features:
    """The network `name` of NETS with the weights of `path`, frozen, in eval mode.

    path: a .pth or .safetensors state dict; None downloads it once into torch hub's cache and checks its hash.
    activated: give the features after the activation; by default before it.
    Raises InvalidInput if the name is unknown, the file does not hold this network, or it cannot be downloaded.
    """
    if name not in NETS:
        raise InvalidInput(
            "features", f"got {name!r}, expected one of {', '.join(NETS)} (VGG19's convolutions by name)"
        )
    net = NETS[name]
    if path is None and not net.kind.url:
        raise InvalidInput("vgg19", f"is missing; {name} cannot be downloaded, give --vgg19 PATH")
    file = open_vgg19(path)
    if file.kind is not net.kind or net.last not in file.names:
        raise InvalidInput(
            "vgg19",
            f"{file.source} does not hold the weights of {name}: it is {file.kind.name} up to {file.names[-1]}",
        )
    features = Features(net, activated=activated)
    fill(features.net, file.tensors)
    return features


def open_vgg19(path: Path | None = None) -> Vgg19File:
    """The weights in `path`, a .pth or .safetensors state dict of one of KINDS, or of its first so many convolutions.

    The kind is told by the first convolution's shape; torchvision's keys may lack their prefix (`vgg19().features`). None
    downloads torchvision's file once into torch hub's cache and checks its hash. Raises InvalidInput naming what does not fit.
    """
    source = path.name if path else VGG19_URL.rpartition("/")[2]
    tensors = read(path) if path else download(VGG19_URL)
    shapes = {kind: shapes_of(kind) for kind in KINDS}
    for kind in KINDS:
        for prefix in dict.fromkeys((kind.prefix, "")):
            first = tensors.get(f"{prefix}0.weight")
            if first is not None and tuple(first.shape) == shapes[kind]["0.weight"]:
                return fitted(source, kind, prefix, tensors, shapes[kind])
    firsts = (f"{kind.prefix}0.weight {list(shapes[kind]['0.weight'])} ({kind.name})" for kind in KINDS)
    found = ", ".join(f"{key} {list(value.shape)}" for key, value in list(tensors.items())[:2])
    raise InvalidInput(
        "vgg19",
        f"{source} holds no VGG19: expected it to begin with {' or '.join(firsts)}, got {found or 'nothing'}",
    )


def fitted(
    source: str, kind: Kind, prefix: str, tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]
) -> Vgg19File:
    """The file as Vgg19File. Raises InvalidInput if its tensors are not VGG19's first so many, or not finite."""
    given = {
        key.removeprefix(prefix): value
        for key, value in tensors.items()
        if not key.startswith("classifier.")  # the layers after the last pooling
    }
    ordered = list(shapes)  # weight and bias of one convolution after the other
    held = next((number for number, key in enumerate(ordered) if key not in given), len(ordered))
    sizes = {key: (list(given[key].shape), list(shapes[key])) for key in ordered[:held]}
    problems = [f"{prefix}{key} is {a}, expected {b}" for key, (a, b) in sizes.items() if a != b]
    if held % 2 or any(key in given for key in ordered[held:]):
        problems.append(f"missing {prefix}{ordered[held]}")
    problems += [f"unexpected {prefix}{key}" for key in given if key not in shapes]
    unfit = [key for key in ordered[:held] if not given[key].isfinite().all()]
    problems += [f"{prefix}{key} has values that are not finite" for key in unfit]
    if problems:
        raise InvalidInput(
            "vgg19", f"{source} does not hold {kind.name} or its first layers: {'; '.join(problems[:4])}"
        )
    names = CONVOLUTIONS[: (held - 2 * kind.style) // 2]
    if not names:
        raise InvalidInput("vgg19", f"{source} ends before {CONVOLUTIONS[0]}, expected at least that layer")
    return Vgg19File(source, kind, names, given)


def shapes_of(kind: Kind) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of the whole network, by its place in the original Sequential."""
    with torch.device("meta"):
        whole = layers(Net(kind, CONVOLUTIONS[-1]))
        return {key: tuple(value.shape) for key, value in whole.state_dict().items()}


def read(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise InvalidInput(
            "vgg19", f"no file at {path}, expected the weights of VGG19 or of its first layers"
        )
    try:
        return checkpoint.read(path)[0]
    except InvalidInput as error:
        raise InvalidInput("vgg19", error.problem) from error


def download(url: str) -> Mapping[str, Tensor]:
    try:
        return torch.hub.load_state_dict_from_url(url, map_location="cpu", check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:  # no network; a hash that does not fit
        raise InvalidInput(
            "vgg19", f"{url} cannot be downloaded ({error}); fetch it elsewhere and give --vgg19 PATH"
        ) from error
