"""A fourth backend is one file and one line: tried in a scratch copy of runtime/ and the build's list of targets."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.runtime import graphs

ROOT = Path(__file__).resolve().parents[2]
FILE = """
from runtime.backends.base import Engine

NAME, PACKAGES, TARGETS = "repeating", ("numpy",), ("repeated",)


def unavailable(bundle, device):
    return None


def open_engine(bundle, device=None, *, min_precision=None):
    return Repeating(bundle, device="CPU", precision="float32", slots=1, batch_sizes=(1, 2))


def native_precisions(device=None):
    return ("float32",)


def cannot_make(target):
    return None


def compile_engine(target, onnx, manifest):
    return None


class Repeating(Engine):
    backend = NAME

    def _run(self, inputs):
        (image,) = inputs.values()
        return {"upscaled": image.repeat(2, axis=2).repeat(2, axis=3)}
"""
LINE = '    ("repeating", "CPU"),\n'
SCRIPT = """
import sys
from pathlib import Path
import numpy as np
from export.build import engines
from runtime import backends, bundle

engine, why = backends.open_engine(bundle.load(Path(sys.argv[1])))
engine.warm_up()
print(why)
print(engine.run({"image": np.ones((1, 3, 2, 2), np.float32)})["upscaled"].shape)
print(engines.TARGETS["repeated"], engines.missing("repeated"), *engines.native_precisions(("repeated",)))
"""


def test_a_backend_is_one_file_and_one_line(tmp_path: Path) -> None:
    unwanted = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "runtime", tmp_path / "runtime", ignore=unwanted)
    shutil.copytree(ROOT / "export", tmp_path / "export", ignore=shutil.ignore_patterns("weights", "assets"))
    folder = tmp_path / "runtime" / "backends"
    (folder / "repeating_backend.py").write_text(FILE)
    listing = (folder / "__init__.py").read_text()
    (folder / "__init__.py").write_text(listing.replace("PREFERENCE = (\n", "PREFERENCE = (\n" + LINE, 1))
    made = graphs.write_bundle(tmp_path, graphs.upscaler(), graphs.upscale_manifest())
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(made.path)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.splitlines() == [
        "tiny-upscaler runs on repeating (CPU) in float32: the first backend that can",
        "(1, 3, 4, 4)",
        "repeating None float32",
    ], done.stderr
