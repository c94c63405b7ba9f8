"""What the tests of bundles share: a manifest, and bundles of a few bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx

from runtime.bundle import (
    GRAPH,
    MANIFEST,
    Bundle,
    Writer,
)
from runtime.manifest import Manifest
from runtime.tensors import TensorSpec

ROOT = Path(__file__).resolve().parents[2]
IMAGE = TensorSpec("image", "float32", ("N", 3, "H", "W"), (0, 1))
UPSCALED = TensorSpec("upscaled", "float32", ("N", 3, "SH", "SW"), (0, 1))


def onnx_file(text: bytes) -> bytes:
    """The simplest ONNX file: a model with nothing but its producer's name."""
    model = onnx.ModelProto(producer_name=text.decode())
    return model.SerializeToString()


A_GRAPH = onnx_file(b"a graph")


def manifest(name: str = "tiny", **given_fields: Any) -> Manifest:
    return Manifest(
        **{
            "name": name,
            "task": "upscale",
            "precision": "float32",
            "inputs": (IMAGE,),
            "outputs": (UPSCALED,),
            "scale": 4,
            "tile_sizes": (64, 128),
            "halo": 8,
            **given_fields,
        }
    )


def write(parent: Path, name: str = "tiny", graph: bytes = A_GRAPH, **given_fields: Any) -> Bundle:
    with Writer(parent, name) as writer:
        (writer.path / GRAPH).write_bytes(graph)
        (writer.path / "engines").mkdir()
        (writer.path / "engines" / "one.plan").write_bytes(b"a plan")
        return writer.commit(manifest(**{"name": name, **given_fields}))


def edit(bundle: Bundle, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest by hand."""
    path = bundle.path / MANIFEST
    raw = json.loads(path.read_text())
    change(raw)
    path.write_text(json.dumps(raw))
