"""First step of a build: `load` reads the weights and checks all options, before any long work is done.

`pipeline.build` and `--dry-run` call it and get a LoadedModel.
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

    tolerance: of the bundle's precision. items: what a request is cut into. name: of the bundle. replaces: a description of
    the bundle that this one will replace; "" if there is none.
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
            f"{options.output / name} exists: {replaces}; choose another --name, or leave out --keep-existing",
        )
    return LoadedModel(loaded, signature, tolerance, items, name, replaces)


def tolerance_of(spec: Spec, model: str, precision: Precision) -> Tolerance:
    """How far a bundle in `precision` may lie from float32 torch. Raises InvalidInput if the SPEC has no tolerance for it."""
    if precision not in spec.tolerances:
        known = ", ".join(spec.tolerances) or "none"
        raise InvalidInput(
            "precision",
            f"got {precision}, but the SPEC of {model} has no tolerance for it (it has {known}); choose one of those, "
            f"or add a Tolerance to export/models/{model}/generator.py",
        )
    return spec.tolerances[precision]


def check_class_names(names: tuple[str, ...], signature: Signature, model: str) -> None:
    """Raises InvalidInput unless each class has a name of its own."""
    if not signature.classes:
        raise InvalidInput(
            "classes", f"got {len(names)} names, but {model} has no classes; leave out --classes"
        )
    if len(set(names)) != signature.classes or len(names) != signature.classes or not all(names):
        raise InvalidInput(
            "classes",
            f"got {len(names)} names, {len(set(names) - {''})} of them different; "
            f"expected {signature.classes}, one for each class",
        )


def existing(place: Path) -> str:
    """A description of the bundle at `place`; "" if nothing is there. Raises InvalidInput if something else is.

    A manifest that cannot be parsed is no error: bundles of an older format and damaged ones may be replaced too.
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
