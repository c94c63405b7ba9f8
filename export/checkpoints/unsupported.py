"""What is refused by name: files of other kinds, and networks that no generator here is.

Three tables, one a stage of reading: the first bytes of a file, the top of what a pickle holds, the names of a state
dict's tensors. A row says what tells it, and the error names just that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from runtime.errors import InvalidInput

HEAD_BYTES = 512
EXPECTED = "expected a generator's weights in a .pth, .ckpt or .safetensors file"
ITS_GENERATOR = "give the generator that was trained against it"
NO_GENERATOR = (
    "no generator here has these layers; python -m export.build --list shows those that can be built"
)


class Stranger(InvalidInput):
    """A file that is known, and cannot be used. name: what it is; keys: what told."""

    def __init__(self, path: Path, name: str, keys: tuple[str, ...], advice: str) -> None:
        super().__init__("weights", f"{path.name} is {name}, told by {', '.join(keys)}; {advice}")
        self.name, self.keys, self.advice = name, keys, advice


@dataclass(frozen=True)
class Bytes:
    """A kind of file that has `begins` at byte `at`."""

    name: str
    begins: bytes
    advice: str
    at: int = 0


@dataclass(frozen=True)
class Contents:
    """A kind of pickle with all these keys at its top."""

    name: str
    keys: tuple[str, ...]
    advice: str


@dataclass(frozen=True)
class Network:
    """A kind of network. keys, without: regular expressions; a tensor's name matches each of the former, none the latter.

    suits: a further condition on the tensors; detail: what they say beside the name, for instance the scale.
    """

    name: str
    keys: tuple[str, ...]
    advice: str = NO_GENERATOR
    without: tuple[str, ...] = ()
    suits: Callable[[Mapping[str, Tensor]], bool] = lambda tensors: True
    detail: Callable[[Mapping[str, Tensor]], str] = lambda tensors: ""


ITS_CHECKPOINT = "give the PyTorch checkpoint that it was made from"
FILES = (
    Bytes("an ncnn network (.param)", b"7767517", ITS_CHECKPOINT),
    Bytes("an ncnn network (.param.bin)", (7767517).to_bytes(4, "little"), ITS_CHECKPOINT),
    Bytes("an ncnn network's weights (.bin)", (0x01306B47).to_bytes(4, "little"), ITS_CHECKPOINT),
    Bytes("a Keras or HDF5 file", b"\x89HDF\r\n", EXPECTED),
    Bytes("a NumPy array", b"\x93NUMPY", EXPECTED),
    Bytes("a TensorFlow Lite network", b"TFL3", EXPECTED, at=4),
    Bytes("a GGUF file", b"GGUF", EXPECTED),
    Bytes("a tar archive", b"ustar", "unpack it, and give the checkpoint inside", at=257),
    Bytes("a gzip archive", b"\x1f\x8b", "unpack it, and give the checkpoint inside"),
    Bytes("a 7z archive", b"7z\xbc\xaf", "unpack it, and give the checkpoint inside"),
    Bytes("a Git LFS pointer, not the file itself", b"version https://git-lfs", "fetch it with git lfs pull"),
    Bytes("a web page", b"<!doctype html", "the download gave a page in place of the file; fetch it again"),
    Bytes("a web page", b"<html", "the download gave a page in place of the file; fetch it again"),
)
# protobuf: the version of the format, then the producer's name, its version or the graph.
ONNX = re.compile(rb"\x08[\x01-\x1f][\x12\x1a:B]")


CONTENTS = (
    Contents("an optimiser's state", ("state", "param_groups"), "give the network that it was training"),
    Contents(
        "a training state of BasicSR, with optimisers and schedulers but no weights",
        ("optimizers", "schedulers"),
        "give net_g_*.pth of the same training",
    ),
    Contents(
        "a checkpoint to resume a ganforge training from",
        ("parts", "average", "random"),
        "give the .safetensors file in the run's folder, whose batch norm is settled",
    ),
)


def times(pattern: str) -> Callable[[Mapping[str, Tensor]], str]:
    """The scale, where each layer whose weight's name is `pattern` doubles the side."""
    return lambda tensors: f" ×{2 ** sum(1 for key in tensors if re.fullmatch(pattern, key))}"


def ends(tensors: Mapping[str, Tensor]) -> tuple[int, int]:
    """How many values a stack of linear layers takes and gives."""
    weights = sorted(
        (key for key in tensors if key.endswith("weight")), key=lambda key: int(key.split(".")[0])
    )
    return tensors[weights[0]].shape[1], tensors[weights[-1]].shape[0]


def all_linear(tensors: Mapping[str, Tensor]) -> bool:
    return all(
        re.fullmatch(r"\d+\.(weight|bias)", key) and tensor.dim() == (2 if key.endswith("weight") else 1)
        for key, tensor in tensors.items()
    )


def perceptron(tensors: Mapping[str, Tensor]) -> str:
    inputs, outputs = ends(tensors)
    side = round(outputs**0.5)
    picture = (
        f", a picture of {side}×{side}" + (" (MNIST)" if side == 28 else "") if side**2 == outputs else ""
    )
    return f": linear layers, {inputs} values in, {outputs} out{picture}"


# The first that fits is the name, so a special kind stands before the general one.
NETWORKS = (
    Network("SRGAN", (r"block1\.0\.weight", r"block2\.prelu\.weight", r"block\d+\.0\.conv\.weight"),
            detail=times(r"block\d+\.\d+\.conv\.weight")),
    Network("SRGAN or SRResNet of BasicSR", (r"conv_first\.weight", r"body\.0\.conv1\.weight", r"upconv1\.weight")),
    Network("SRGAN or SRResNet in xinntao's first form", (r"model\.0\.weight", r"model\.1\.sub\.0\.res\.0\.weight")),
    Network("SRGAN or SRResNet", (r"(conv_input|conv1)\.weight", r"residual\.0\.conv1\.weight", r"residual\.0\.in1\.weight")),
    Network("PAN", (r"SCPA_trunk\.0\.conv1_a\.weight", r"att1\.conv\.weight"), detail=times(r"upconv\d\.weight")),
    Network("EDSR", (r"conv_first\.weight", r"body\.0\.conv1\.weight", r"upsample\.0\.weight")),
    Network("EDSR", (r"head\.0\.weight", r"body\.0\.body\.0\.weight", r"tail\.0\.0\.weight")),
    Network("RCAN", (r"body\.0\.(residual_group|rcab|body)\.0\.(rcab|body)\.\d.*",)),
    Network("SRVGGNet, the compact Real-ESRGAN", (r"body\.0\.weight", r"body\.1\.weight", r"body\.2\.weight"),
            without=(r"conv_first\.weight",), suits=lambda tensors: tensors["body.0.weight"].dim() == 4),
    Network("HAT", (r"layers\.0\.residual_group\.overlap_attn\..*",)),
    Network("SwinIR", (r"layers\.0\.residual_group\.blocks\.0\.attn\.relative_position_bias_table",)),
    Network("Swin2SR", (r"layers\.0\.residual_group\.blocks\.0\.attn\.logit_scale",)),
    Network("DAT", (r"layers\.0\.blocks\.0\.attn\.attns\..*",)),
    Network("OmniSR", (r"residual_layer\.0\.residual_layer\..*",)),
    Network("SPAN", (r"block_1\.c1_r\..*",)),
    Network("Real-CUGAN", (r"unet1\.conv1\.conv\.0\.weight",)),
    Network("GFPGAN", (r"stylegan_decoder\..*",)),
    Network("a StyleGAN generator", (r"(g_)?(synthesis|mapping)\..*",)),
    Network("CycleGAN's generator", (r"model\.\d+\.conv_block\.\d+\.weight",)),
    Network("a diffusion model", (r"model\.diffusion_model\..*",)),
    Network("DCGAN's discriminator", (r"main\.0\.weight", r"main\.2\.weight", r"main\.3\.running_mean"),
            ITS_GENERATOR, without=(r"main\.0\.bias", r"main\.1\..*", r"linear\..*")),
    Network("ESRGAN's discriminator", (r"conv0_0\.weight", r"linear1\.weight"), ITS_GENERATOR),
    Network("ESRGAN's discriminator in xinntao's first form",
            (r"features\.0(\.0)?\.weight", r"features\.[\d.]+\.running_mean", r"classifier\.2\.weight"),
            ITS_GENERATOR, without=(r"classifier\.[3-9]\..*",)),
    Network("Real-ESRGAN's U-Net discriminator",
            (r"conv0\.weight", r"conv[1-8]\.(weight_orig|parametrizations\.weight\.original)", r"conv9\.weight"),
            ITS_GENERATOR),
    Network("SRGAN's discriminator", (r"net\.0\.weight", r"net\.\d+\.running_mean"), ITS_GENERATOR),
    Network("a VGG classifier", (r"features\.0\.weight", r"classifier\.6\.weight")),
    Network("a ResNet classifier", (r"conv1\.weight", r"layer1\.0\.conv1\.weight", r"(fc|linear)\.weight")),
    Network("a discriminator of linear layers", (r"0\.weight", r"2\.weight"), ITS_GENERATOR,
            suits=lambda tensors: all_linear(tensors) and ends(tensors)[1] == 1, detail=perceptron),
    Network("an MLP GAN generator", (r"0\.weight", r"2\.weight"),
            suits=lambda tensors: all_linear(tensors) and ends(tensors)[0] < ends(tensors)[1], detail=perceptron),
)  # fmt: skip


def refuse_bytes(path: Path, head: bytes) -> None:
    """Raises Stranger where the first bytes of a file are those of another kind of file."""
    for kind in FILES:
        if head[kind.at : kind.at + len(kind.begins)].lower() == kind.begins.lower():
            raise Stranger(path, kind.name, (f"its bytes {kind.begins!r}",), kind.advice)
    if ONNX.match(head):
        raise Stranger(path, "an ONNX graph", (f"its bytes {head[:3]!r}",), ITS_CHECKPOINT)


def refuse_contents(path: Path, keys: Iterable[object]) -> None:
    """Raises Stranger where a pickle's top is that of something without a generator's weights."""
    there = set(keys)
    for kind in CONTENTS:
        if there >= set(kind.keys):
            raise Stranger(path, kind.name, kind.keys, kind.advice)


def refuse_network(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raises Stranger where the tensors are those of a network that is known, and is no generator here."""
    for kind in NETWORKS:
        told = matches(kind.keys, tensors)
        if len(told) == len(kind.keys) and not matches(kind.without, tensors) and kind.suits(tensors):
            raise Stranger(path, kind.name + kind.detail(tensors), told, kind.advice)


def matches(patterns: Iterable[str], keys: Iterable[str]) -> tuple[str, ...]:
    """For each pattern that matches a key in full, the first one that it does."""
    there = list(keys)
    found = (next((key for key in there if re.fullmatch(pattern, key)), None) for pattern in patterns)
    return tuple(key for key in found if key is not None)
