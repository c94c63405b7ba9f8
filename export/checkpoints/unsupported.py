"""Files that are recognised and cannot be used: other kinds of file, and networks that no generator here can build.

Three tables, one for each stage of reading: a file's first bytes, the keys at the top of a pickle, the names of a
state dict's tensors. A file that matches a row is rejected with UnsupportedCheckpoint, whose message says what the
file is, by what it was recognised and what to do instead. `reading` and `identification` call the three `refuse_…`.
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


class UnsupportedCheckpoint(InvalidInput):
    """Raised for a file that is recognised and cannot be used.

    kind: what it is, in words. evidence: the names or bytes by which it was recognised. advice: what to do instead.
    """

    def __init__(self, path: Path, kind: str, evidence: tuple[str, ...], advice: str) -> None:
        super().__init__("weights", f"{path.name} is {kind}, recognised by {', '.join(evidence)}; {advice}")
        self.kind, self.evidence, self.advice = kind, evidence, advice


@dataclass(frozen=True)
class FileKind:
    """A kind of file that has the bytes `begins` at offset `at`."""

    name: str
    begins: bytes
    advice: str
    at: int = 0


@dataclass(frozen=True)
class PickleKind:
    """A kind of pickle: a dictionary that has all of `keys`."""

    name: str
    keys: tuple[str, ...]
    advice: str


@dataclass(frozen=True)
class NetworkKind:
    """A kind of network, recognised by its tensors' names.

    keys: regular expressions; each must match the whole name of a tensor. without: expressions that must match none.
    suits: a further condition on the tensors. detail: text after the name, such as the scale.
    """

    name: str
    keys: tuple[str, ...]
    advice: str = NO_GENERATOR
    without: tuple[str, ...] = ()
    suits: Callable[[Mapping[str, Tensor]], bool] = lambda tensors: True
    detail: Callable[[Mapping[str, Tensor]], str] = lambda tensors: ""


ITS_CHECKPOINT = "give the PyTorch checkpoint that it was made from"
FILES = (
    FileKind("an ncnn network (.param)", b"7767517", ITS_CHECKPOINT),
    FileKind("an ncnn network (.param.bin)", (7767517).to_bytes(4, "little"), ITS_CHECKPOINT),
    FileKind("an ncnn network's weights (.bin)", (0x01306B47).to_bytes(4, "little"), ITS_CHECKPOINT),
    FileKind("a Keras or HDF5 file", b"\x89HDF\r\n", EXPECTED),
    FileKind("a NumPy array", b"\x93NUMPY", EXPECTED),
    FileKind("a TensorFlow Lite network", b"TFL3", EXPECTED, at=4),
    FileKind("a GGUF file", b"GGUF", EXPECTED),
    FileKind("a tar archive", b"ustar", "unpack it, and give the checkpoint inside", at=257),
    FileKind("a gzip archive", b"\x1f\x8b", "unpack it, and give the checkpoint inside"),
    FileKind("a 7z archive", b"7z\xbc\xaf", "unpack it, and give the checkpoint inside"),
    FileKind(
        "a Git LFS pointer, not the file itself", b"version https://git-lfs", "fetch it with git lfs pull"
    ),
    FileKind(
        "a web page", b"<!doctype html", "the download gave a page in place of the file; fetch it again"
    ),
    FileKind("a web page", b"<html", "the download gave a page in place of the file; fetch it again"),
)
# ONNX is protobuf: the format's version comes first, then the producer's name or version, or the graph.
ONNX = re.compile(rb"\x08[\x01-\x1f][\x12\x1a:B]")


PICKLES = (
    PickleKind("an optimiser's state", ("state", "param_groups"), "give the network that it was training"),
    PickleKind(
        "a training state of BasicSR, with optimisers and schedulers but no weights",
        ("optimizers", "schedulers"),
        "give net_g_*.pth of the same training",
    ),
    PickleKind(
        "a checkpoint to resume a ganforge training from",
        ("parts", "average", "random"),
        "give the .safetensors file in the run's folder, which holds the EMA weights",
    ),
)


def times(pattern: str) -> Callable[[Mapping[str, Tensor]], str]:
    """A function that gives the scale as text, if each layer whose weight's name matches `pattern` doubles the side."""
    return lambda tensors: f" ×{2 ** sum(1 for key in tensors if re.fullmatch(pattern, key))}"


def ends(tensors: Mapping[str, Tensor]) -> tuple[int, int]:
    """The numbers of inputs and outputs of a stack of linear layers."""
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


def judges_patches(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the last convolution has one output, and all have kernels of 4 px or of 1."""
    convolutions = [tensor for tensor in tensors.values() if tensor.dim() == 4]
    kernels = {tuple(tensor.shape[2:]) for tensor in convolutions}
    return convolutions[-1].shape[0] == 1 and kernels in ({(4, 4)}, {(1, 1)})


# The first kind that matches is reported, so special kinds come before general ones.
NETWORKS = (
    NetworkKind("SRGAN", (r"block1\.0\.weight", r"block2\.prelu\.weight", r"block\d+\.0\.conv\.weight"),
            detail=times(r"block\d+\.\d+\.conv\.weight")),
    NetworkKind("SRGAN or SRResNet of BasicSR", (r"conv_first\.weight", r"body\.0\.conv1\.weight", r"upconv1\.weight")),
    NetworkKind("SRGAN or SRResNet in xinntao's first form", (r"model\.0\.weight", r"model\.1\.sub\.0\.res\.0\.weight")),
    NetworkKind("SRGAN or SRResNet", (r"(conv_input|conv1)\.weight", r"residual\.0\.conv1\.weight", r"residual\.0\.in1\.weight")),
    NetworkKind("PAN", (r"SCPA_trunk\.0\.conv1_a\.weight", r"att1\.conv\.weight"), detail=times(r"upconv\d\.weight")),
    NetworkKind("EDSR", (r"conv_first\.weight", r"body\.0\.conv1\.weight", r"upsample\.0\.weight")),
    NetworkKind("EDSR", (r"head\.0\.weight", r"body\.0\.body\.0\.weight", r"tail\.0\.0\.weight")),
    NetworkKind("RCAN", (r"body\.0\.(residual_group|rcab|body)\.0\.(rcab|body)\.\d.*",)),
    NetworkKind("HAT", (r"layers\.0\.residual_group\.overlap_attn\..*",)),
    NetworkKind("SwinIR", (r"layers\.0\.residual_group\.blocks\.0\.attn\.relative_position_bias_table",)),
    NetworkKind("Swin2SR", (r"layers\.0\.residual_group\.blocks\.0\.attn\.logit_scale",)),
    NetworkKind("DAT", (r"layers\.0\.blocks\.0\.attn\.attns\..*",)),
    NetworkKind("OmniSR", (r"residual_layer\.0\.residual_layer\..*",)),
    NetworkKind("SPAN", (r"block_1\.c1_r\..*",)),
    NetworkKind("Real-CUGAN", (r"unet1\.conv1\.conv\.0\.weight",)),
    NetworkKind("GFPGAN", (r"stylegan_decoder\..*",)),
    NetworkKind("a StyleGAN generator", (r"(g_)?(synthesis|mapping)\..*",)),
    NetworkKind("CycleGAN's or pix2pix' discriminator", (r"model\.0\.weight", r"model\.2\.weight", r"model\.5\.weight"),
            ITS_GENERATOR, suits=judges_patches),
    NetworkKind("CycleGAN's or pix2pix' discriminator of single pixels",
            (r"net\.0\.weight", r"net\.2\.weight", r"net\.5\.weight"), ITS_GENERATOR, suits=judges_patches),
    NetworkKind("abhiskk/fast-neural-style", (r"conv1\.conv2d\.weight", r"in1\.scale", r"deconv1\.conv2d\.weight"),
            "its norms are computed in another way and its pictures are BGR; train the style again, or give a file of "
            "pytorch/examples' fast_neural_style"),
    NetworkKind("a diffusion model", (r"model\.diffusion_model\..*",)),
    NetworkKind("DCGAN's discriminator", (r"main\.0\.weight", r"main\.2\.weight", r"main\.3\.running_mean"),
            ITS_GENERATOR, without=(r"main\.0\.bias", r"main\.1\..*", r"linear\..*")),
    NetworkKind("ESRGAN's discriminator", (r"conv0_0\.weight", r"linear1\.weight"), ITS_GENERATOR),
    NetworkKind("ESRGAN's discriminator in xinntao's first form",
            (r"features\.0(\.0)?\.weight", r"features\.[\d.]+\.running_mean", r"classifier\.2\.weight"),
            ITS_GENERATOR, without=(r"classifier\.[3-9]\..*",)),
    NetworkKind("Real-ESRGAN's U-Net discriminator",
            (r"conv0\.weight", r"conv[1-8]\.(weight_orig|parametrizations\.weight\.original)", r"conv9\.weight"),
            ITS_GENERATOR),
    NetworkKind("SRGAN's discriminator", (r"net\.0\.weight", r"net\.\d+\.running_mean"), ITS_GENERATOR),
    NetworkKind("a VGG classifier", (r"features\.0\.weight", r"classifier\.6\.weight")),
    NetworkKind("a ResNet classifier", (r"conv1\.weight", r"layer1\.0\.conv1\.weight", r"(fc|linear)\.weight")),
    NetworkKind("a discriminator of linear layers", (r"0\.weight", r"2\.weight"), ITS_GENERATOR,
            suits=lambda tensors: all_linear(tensors) and ends(tensors)[1] == 1, detail=perceptron),
    NetworkKind("an MLP GAN generator", (r"0\.weight", r"2\.weight"),
            suits=lambda tensors: all_linear(tensors) and ends(tensors)[0] < ends(tensors)[1], detail=perceptron),
)  # fmt: skip


def refuse_bytes(path: Path, head: bytes) -> None:
    """Raises UnsupportedCheckpoint if the file's first HEAD_BYTES bytes, `head`, are those of another kind of file."""
    for kind in FILES:
        if head[kind.at : kind.at + len(kind.begins)].lower() == kind.begins.lower():
            raise UnsupportedCheckpoint(path, kind.name, (f"its bytes {kind.begins!r}",), kind.advice)
    if ONNX.match(head):
        raise UnsupportedCheckpoint(path, "an ONNX graph", (f"its bytes {head[:3]!r}",), ITS_CHECKPOINT)


def refuse_pickle(path: Path, keys: Iterable[object]) -> None:
    """Raises UnsupportedCheckpoint if a pickled dictionary with these keys is known to hold no generator's weights."""
    present = set(keys)
    for kind in PICKLES:
        if present >= set(kind.keys):
            raise UnsupportedCheckpoint(path, kind.name, kind.keys, kind.advice)


def refuse_network(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raises UnsupportedCheckpoint if the tensors are those of a network that cannot be built here."""
    for kind in NETWORKS:
        evidence = matching_names(kind.keys, tensors)
        complete = len(evidence) == len(kind.keys)
        if complete and not matching_names(kind.without, tensors) and kind.suits(tensors):
            raise UnsupportedCheckpoint(path, kind.name + kind.detail(tensors), evidence, kind.advice)


def matching_names(patterns: Iterable[str], names: Iterable[str]) -> tuple[str, ...]:
    """For each pattern the first name that it matches as a whole; patterns that match none are left out."""
    names = list(names)
    first = (next((name for name in names if re.fullmatch(pattern, name)), None) for pattern in patterns)
    return tuple(name for name in first if name is not None)
