"""Imports the two TensorRT libraries, and tells what is missing here and which GPUs each compiles for.

`tensorrt` (data-centre GPUs) compiles for a GPU of this machine. `tensorrt_rtx` (RTX GPUs) has the same Python API,
compiles on a machine without a GPU, and puts kernels for several compute capabilities into one plan.
tensorrt_backend.py, tensorrt_loading.py and tensorrt_plan.py call it.
"""

from __future__ import annotations

import importlib
from collections import deque
from functools import cache
from importlib.util import find_spec
from typing import Any, Literal

from runtime.backends.tensorrt_cuda import Cuda
from runtime.errors import BackendUnavailable
from runtime.manifest import Manifest

Library = Literal["tensorrt", "tensorrt_rtx"]
LIBRARIES: tuple[Library, ...] = ("tensorrt", "tensorrt_rtx")
# Import names, best first: the full package, else its bindings alone (which load the package of libraries themselves).
MODULES = {
    "tensorrt": ("tensorrt", "tensorrt_bindings"),
    "tensorrt_rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}
PIP_NAMES = {"tensorrt": "tensorrt-cu13", "tensorrt_rtx": "tensorrt-rtx-cu13"}
FIRST_BFLOAT16 = 8.0  # compute capability: Ampere
LOG_MESSAGES = 20


@cache
def load_library(library: str) -> Any:
    """Import `tensorrt` or `tensorrt_rtx` and return the module. Raises BackendUnavailable naming what is missing."""
    installed = [name for name in MODULES[library] if find_spec(name) is not None]
    package = PIP_NAMES[library]
    if not installed:
        raise BackendUnavailable(
            f"{library} is not installed (pip install {package}-bindings {package}-libs)"
        )
    problems = []
    for name in installed:
        try:
            return importlib.import_module(name)
        except (ImportError, OSError) as error:
            problems.append(str(error))
    raise BackendUnavailable(
        f"{library}: its Python bindings are installed, its libraries are not ({problems[-1]}); "
        f"pip install {package}-libs, whose files come from NVIDIA's own package index (https://pypi.nvidia.com)"
    )


def missing(library: str, device: int = 0) -> str | None:
    """What `library` lacks to compile on this machine and how to get it, or None if nothing is missing.

    device: number of the GPU that TensorRT compiles on; TensorRT-RTX needs none.
    """
    try:
        load_library(library)
    except BackendUnavailable as error:
        return str(error)
    problem = Cuda.problem(device) if library == "tensorrt" else None
    return None if problem is None else f"tensorrt compiles only on the GPU that it compiles for: {problem}"


@cache
def library_log(library: str) -> Any:
    """The library's logger, which keeps the latest warnings and errors. The library takes only one per process."""
    base: Any = load_library(library).ILogger

    class Log(base):
        def __init__(self) -> None:
            base.__init__(self)
            self.messages: deque[str] = deque(maxlen=LOG_MESSAGES)

        def log(self, severity: Any, message: str) -> None:
            if severity <= base.Severity.WARNING:  # lower is more severe
                self.messages.append(message)

        def take(self) -> str:
            """The messages since the last call, joined for an error message."""
            text = "; ".join(self.messages)
            self.messages.clear()
            return text or f"{library} gave no reason"

    return Log()


def target_gpus(library: str, manifest: Manifest | None = None) -> tuple[str, ...] | None:
    """The compute capabilities that `library` compiles for, such as "8.6"; None if only for this machine's GPUs.

    manifest: if given, GPUs that lack its precision are left out.
    """
    members = getattr(load_library(library), "ComputeCapability", None)
    if members is None:
        return None
    numbers = sorted(int(name[2:]) for name in members.__members__ if name.startswith("SM"))
    if manifest is not None and manifest.precision == "bfloat16":
        numbers = [number for number in numbers if number / 10 >= FIRST_BFLOAT16]
    return tuple(f"{number // 10}.{number % 10}" for number in numbers)
