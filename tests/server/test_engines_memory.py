"""A model that is closed gives its memory back: engines take turns in one process, whose memory stays level."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import helper, numpy_helper

from runtime.bundle import GRAPH, Writer
from runtime.manifest import Manifest
from tests.server.versions import IMAGE, UPSCALED

CHANNELS, LAYERS = 256, 5
MIB = 2**20
ROUNDS = 4
PROGRAM = """
import asyncio, sys
from functools import partial
from pathlib import Path
from runtime import bundle
from server.models.models import Models
from server.models.opening import open_warm

def rss_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

bundles = bundle.discover(Path(sys.argv[1]))
models = Models(lazy=True, max_bytes=150 * 2**20, open_bundle=partial(open_warm, backend=sys.argv[2]))
for each in bundles:
    models.add(each)

async def use(name):
    async with models.using("upscale", name):
        pass

for number in range(int(sys.argv[3])):
    for each in bundles:
        asyncio.run(use(each.manifest.name))
        assert models.stats().open == 1
    print("rss", rss_bytes())
models.close()
"""


def write_large(folder: Path, name: str) -> None:
    """12 MiB of weights."""
    random, nodes, constants = np.random.default_rng(0), [], []

    def convolve(source: str, target: str, inputs: int, outputs: int) -> None:
        weights = random.normal(size=(outputs, inputs, 3, 3)).astype(np.float32) / np.sqrt(inputs * 9)
        constants.append(numpy_helper.from_array(weights.astype(np.float32), f"{target}.weights"))
        nodes.append(helper.make_node("Conv", [source, f"{target}.weights"], [target], pads=[1, 1, 1, 1]))

    convolve("image", "0", 3, CHANNELS)
    for layer in range(LAYERS):
        convolve(str(layer), str(layer + 1), CHANNELS, CHANNELS)
    convolve(str(LAYERS), "last", CHANNELS, 48)
    nodes.append(helper.make_node("DepthToSpace", ["last"], ["upscaled"], blocksize=4))
    values = [helper.make_tensor_value_info(spec.name, 1, list(spec.shape)) for spec in (IMAGE, UPSCALED)]
    graph = helper.make_graph(nodes, name, values[:1], values[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    with Writer(folder, name) as writer:
        (writer.path / GRAPH).write_bytes(model.SerializeToString())
        writer.commit(Manifest(name, "upscale", "float32", (IMAGE,), (UPSCALED,), 4, 1, (16,), 2))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads memory from /proc")
@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_memory_stays_level_while_models_take_turns(tmp_path: Path, backend: str) -> None:
    for name in "ab":
        write_large(tmp_path, name)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path), backend, str(ROUNDS)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rss_mib = [int(line.split()[1]) / MIB for line in done.stdout.splitlines() if line.startswith("rss ")]
    assert len(rss_mib) == ROUNDS
    # Two engines a round, of 36 MiB and more each.
    assert rss_mib[-1] - rss_mib[1] < 36, rss_mib
