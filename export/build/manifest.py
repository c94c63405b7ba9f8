"""Last step of a build: `commit` writes report.json and the manifest, and moves the bundle to its place. pipeline.py calls it."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import reduce
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from export.build.compare import NONE, Difference
from export.build.load import LoadedModel
from export.build.options import BuildOptions
from export.build.sizes import Sizes
from export.build.verify import Verified
from runtime.bundle import Bundle, Writer
from runtime.manifest import Manifest

REPORT = "report.json"
TOOLS = ("ganforge", "torch", "onnx", "onnxscript", "openvino", "onnxruntime", "numpy")


def versions() -> dict[str, str]:
    """The installed versions of the tools that make a bundle, by name, for its manifest."""
    versions = {"python": platform.python_version()}
    for name in TOOLS:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def commit(
    writer: Writer,
    manifest: Manifest,
    loaded: LoadedModel,
    options: BuildOptions,
    *,
    verified: Sequence[Verified],
    not_run: Mapping[str, str],
    sizes: Sizes,
    speed: Mapping[str, Any],
    seconds: Mapping[str, float],
) -> Bundle:
    """Write report.json and the manifest (which gets the largest measured error), and move the bundle to its place.

    verified: one entry an engine. not_run: backend → why it was not compared here. speed: of the engine that serves here.
    seconds: step → how long it took.
    """
    worst = reduce(Difference.worst, (engine.worst for engine in verified), NONE)
    manifest = replace(manifest, error={"psnr_db": worst.psnr_db, "max_abs": worst.max_abs})
    report = {
        "name": loaded.name,
        "model": options.model,
        "config": asdict(loaded.checkpoint.config),
        "precision": options.precision,
        "weights": dict(manifest.weights),
        "tolerance": asdict(loaded.tolerance),
        "error": dict(manifest.error),
        "verified": [engine.report() for engine in verified],
        "not_run": dict(not_run),
        **sizes.report,
        "speed": dict(speed),
        "engines": [asdict(engine) for engine in manifest.engines],
        "tools": dict(manifest.tools),
        "seconds": dict(seconds),
    }
    (writer.path / REPORT).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return writer.commit(manifest)
