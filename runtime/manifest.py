"""The manifest: what a bundle holds, as data. `runtime/bundle.py` reads, checks and writes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from runtime.tensors import STRICT, Precision, TaskName, TensorSpec

FORMAT = 2


@dataclass(frozen=True)
class FileInfo:
    """sha256: hexadecimal digest; bytes: the file's length."""

    sha256: str
    bytes: int

    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class EngineFile:
    """A compiled engine and what it was compiled for; it runs only where all of it fits.

    path: inside the bundle; library: "tensorrt" or "tensorrt_rtx"; compute_capability: "8.9", or "any" for a plan
    that carries several; onnx_sha256: of the graph it was compiled from; profile: the shapes it takes.
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

    scale: output pixels per input pixel along a side. size_multiple: the graph takes heights and widths that are
    multiples of this, in pixels.
    tiled: whether pictures are cut into tiles; a network with global statistics must see them whole.
    tile_sizes, halo: input pixels, chosen by measurement at build; empty and 0 where nothing is tiled.
    max_whole_px: pixels (height times width) of the largest picture that a network which is not tiled takes, measured
    at build; 0 where pictures are tiled, or there are none.
    error: measured at build against float32 torch ("psnr_db", "max_abs"). files: every file but the manifest.
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
    format: int = FORMAT

    __pydantic_config__ = STRICT

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"
