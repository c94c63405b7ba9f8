"""The precision in which OpenVINO really runs on this CPU for each imitated one, as expected values for the tests."""

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
