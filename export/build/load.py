"""First step of a build: the weights, and everything that can be wrong with the options, before any work is done.

`load` is called by `pipeline.build` and by `--dry-run`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from export import families
from export.build import sizes
from export.build.options import BuildOptions
from export.checkpoints import checkpoint
from export.checkpoints.checkpoint import Checkpoint
from export.families.spec import Signature, Spec, Tolerance
from runtime import tasks
from runtime.bundle import MANIFEST
from runtime.errors import InvalidInput
from runtime.tasks import ItemKind
from runtime.tensors import Precision


@dataclass(frozen=True)
class LoadedModel:
    """A generator with its weights, and what a build knows before it writes a byte.

    items: what a request to it is cut into. name: of the bundle. replaces: what is at its place now, for people; "" if
    nothing.
    """

    checkpoint: Checkpoint
    signature: Signature
    tolerance: Tolerance
    items: ItemKind
    name: str
    replaces: str


def load(options: BuildOptions) -> LoadedModel:
    """Load the weights strictly and check the options against them. Raises InvalidInput naming the option."""
    tolerance = tolerance_of(families.get(options.model), options.model, options.precision)
    loaded = checkpoint.load(options.model, options.weights, options.overrides)
    signature = loaded.spec.signature(loaded.config)
    task = tasks.get(loaded.spec.task)
    items = task.items(tiled=signature.tiled)
    sizes.check(items, signature, options)
    if options.class_names:
        check_class_names(options.class_names, signature, options.model)
        loaded = replace(loaded, class_names=options.class_names)
    name = options.name or task.bundle_name(options.model, signature.scale)
    replaces = existing(options.output / name)
    if replaces and options.keep_existing:
        raise InvalidInput(
            "keep_existing",
            f"{options.output / name} exists: {replaces}; choose another --name, or leave it out",
        )
    return LoadedModel(loaded, signature, tolerance, items, name, replaces)


def tolerance_of(spec: Spec, model: str, precision: Precision) -> Tolerance:
    """How far a bundle in `precision` may lie from float32. Raises InvalidInput where the SPEC does not say."""
    if precision not in spec.tolerances:
        known = ", ".join(spec.tolerances) or "none"
        raise InvalidInput(
            "precision",
            f"got {precision}, but the SPEC of {model} has no tolerance for it (it has {known}); choose one of those, "
            f"or add a Tolerance to export/models/{model}/generator.py",
        )
    return spec.tolerances[precision]


def check_class_names(names: tuple[str, ...], signature: Signature, model: str) -> None:
    """Raises InvalidInput unless there is one different name for each class."""
    if not signature.classes:
        raise InvalidInput("classes", f"got {len(names)} names, but {model} has no classes")
    if len(set(names)) != signature.classes or len(names) != signature.classes or not all(names):
        raise InvalidInput(
            "classes",
            f"got {len(names)} names, {len(set(names) - {''})} of them different; expected {signature.classes}, one a class",
        )


def existing(place: Path) -> str:
    """What lies where the bundle will be, for people; "" for nothing. Raises InvalidInput for what is no bundle.

    The manifest is read leniently: a bundle of an older format, or a damaged one, may be replaced as well.
    """
    if not place.exists() or (place.is_dir() and not any(place.iterdir())):
        return ""
    manifest = place / MANIFEST
    if not manifest.is_file():
        raise InvalidInput("name", f"{place} exists and is no bundle; choose another --name or --output")
    built = time.strftime("%Y-%m-%d %H:%M", time.localtime(manifest.stat().st_mtime))
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        content = {}
    content = content if isinstance(content, Mapping) else {}
    weights = content.get("weights")
    source = weights.get("source") if isinstance(weights, Mapping) else None
    return f"a bundle built {built} in {content.get('precision', 'unknown precision')} from {source or 'unknown weights'}"
