"""What every test shares: how hypothesis searches, and tiny bundles to serve."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings

from runtime.bundle import Bundle
from runtime.tensors import Precision

# A shell starts background jobs with SIGINT ignored, and what they start inherits that: tests send Ctrl-C to children.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is slow, not wrong: no deadline.
# On CI the same examples each time, so that a failure there can be repeated.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")

TinyBundle = Callable[[str, Precision], Bundle]
# A tile this small makes tiles of the smallest pictures.
TINY_TILE, TINY_HALO = 48, 10
# The largest picture of tiny networks that are never tiled.
TINY_WHOLE_PX = 128 * 128
SERVED = ("esrgan", "dcgan", "acgan")


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> TinyBundle:
    """A factory of bundles of tiny generators, each built once a session: (model, precision) → Bundle."""

    folder = tmp_path_factory.mktemp("tiny")

    @cache
    def make(model: str, precision: Precision = "float32") -> Bundle:
        # Imported here, so that tests of the serving side start without torch.
        from export import families
        from export.build.options import BuildOptions
        from export.build.pipeline import build
        from export.checkpoints.checkpoint import save
        from runtime import tasks
        from tests.export.lively import class_names, lively

        spec = families.get(model)
        items = tasks.get(spec.task).items(tiled=spec.signature(spec.tiny).tiled)
        weights = folder / f"{model}.safetensors"
        save(weights, model, spec.tiny, lively(spec), class_names(spec))
        options = BuildOptions(
            model=model,
            weights=str(weights),
            overrides={},
            output=folder / precision,
            name=None,
            precision=precision,
            targets=("onnx",),
            tile=TINY_TILE if items == "tiles" else None,
            halo=TINY_HALO if items == "tiles" else None,
            max_whole_px=TINY_WHOLE_PX if items == "whole" else None,
        )
        return build(options)

    return make


@pytest.fixture(scope="session")
def tiny_bundles(tiny_bundle: TinyBundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny float32 bundles of the models that `make demo` serves: esrgan-x4 (tile 48, halo 8), dcgan, acgan."""
    folder = tmp_path_factory.mktemp("tiny-bundles")
    for model in SERVED:
        source = tiny_bundle(model, "float32").path
        shutil.copytree(source, folder / source.name)
    return folder
