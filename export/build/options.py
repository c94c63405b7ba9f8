"""What a build is asked to do: BuildOptions. command.py makes one of the command line, tests make it directly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runtime.tensors import Precision


@dataclass(frozen=True)
class BuildOptions:
    """The options of one build.

    model: the family. weights, overrides: as in `checkpoint.load`. output: the folder that holds the bundles.
    name: of the bundle; None for the task's usual name. class_names: replace those in the checkpoint; () to keep them.
    targets: names of `engines.TARGETS`. all_required: fail if one of them cannot be made, since the user named it.
    tile, halo: in input pixels; None to measure. max_whole_px: height times width in input pixels; None to measure.
    min_precision: the lowest that engines may compute in; None for `precision`.
    keep_existing: fail where a bundle of this name exists, instead of replacing it.
    """

    model: str
    weights: str | None
    overrides: Mapping[str, str]
    output: Path
    name: str | None
    precision: Precision
    targets: tuple[str, ...]
    class_names: tuple[str, ...] = ()
    all_required: bool = False
    tile: int | None = None
    halo: int | None = None
    max_whole_px: int | None = None
    min_precision: Precision | None = None
    keep_existing: bool = False
