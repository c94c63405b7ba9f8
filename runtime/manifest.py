"""The manifest of a bundle as frozen dataclasses, written to and read from `manifest.json`.

runtime/bundle.py reads, checks and writes it. The build fills it in; backends, tiler, tasks and server read it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from runtime.tensors import STRICT, Padding, Precision, TaskName, TensorSpec

FORMAT = 2


@dataclass(frozen=True)
class FileInfo:
    """A file of the bundle. sha256: its digest, in hexadecimal. bytes: its length."""

    sha256: str
    bytes: int

    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class EngineFile:
    """A compiled engine and what it was compiled for. It is used only if every field matches the machine and graph.

    path: inside the bundle. library: "tensorrt" or "tensorrt_rtx". compute_capability: of the GPU, such as "8.9", or
    "any" for a plan with kernels for several. onnx_sha256: of the graph it was compiled from. profile: the shapes it takes.
    """

    path: str
    library: str
    library_version: str
    compute_capability: str
    onnx_sha256: str
    profile: str

    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class Manifest:
    """What a bundle holds and what a server must know to serve it.

    inputs, outputs: tensors of the graph. precision: of the graph's arithmetic.
    scale: output pixels per input pixel along a side. size_multiple: heights and widths that the graph takes are
    multiples of it, in pixels. least_side_px: and not below it. padding: how pictures of other sizes grow to one, at the
    bottom and on the right.
    tiled: whether pictures are cut into tiles; networks with global statistics need whole pictures.
    tile_sizes, halo: in input pixels, measured at build; empty and 0 for models that are not tiled.
    max_whole_px: largest picture (height × width, in pixels, padded) of a model that takes whole pictures, measured at
    build; 0 for all other models.
    latent_size, classes: values per latent and number of classes; 0 if the model takes none.
    error: measured at build against float32 torch ("psnr_db", "max_abs"). weights: where they came from. tools: versions
    used by the build. files: every file except the manifest, by path inside the bundle.
    """

    name: str
    task: TaskName
    precision: Precision
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    scale: int = 1
    size_multiple: int = 1
    tile_sizes: tuple[int, ...] = ()
    halo: int = 0
    latent_size: int = 0
    classes: int = 0
    class_names: tuple[str, ...] = ()
    error: Mapping[str, float] = field(default_factory=dict)
    engines: tuple[EngineFile, ...] = ()
    weights: Mapping[str, str] = field(default_factory=dict)
    tools: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, FileInfo] = field(default_factory=dict)
    tiled: bool = True
    max_whole_px: int = 0
    least_side_px: int = 1
    padding: Padding = "edge"
    format: int = FORMAT

    __pydantic_config__ = STRICT

    def to_json(self) -> str:
        """The content of `manifest.json`."""
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"
