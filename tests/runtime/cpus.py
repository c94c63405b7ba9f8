"""What the real CPU makes of the arithmetic of imitated ones."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from runtime.backends.openvino_backend import compile_graph, executed_precision
from runtime.tensors import Precision
from tests.runtime import graphs


@cache
def executes(precision: Precision) -> Precision:
    """What OpenVINO really runs here where `precision` is asked for.

    With AVX-512 it emulates bfloat16 where that is not native; with AVX2 alone it runs float32 instead.
    """
    with tempfile.TemporaryDirectory() as folder:
        bundle = graphs.write_bundle(Path(folder), graphs.upscaler(), graphs.upscale_manifest())
        return executed_precision(compile_graph(bundle, precision, "LATENCY"))
