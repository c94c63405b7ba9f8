"""Which precisions this CPU computes natively. The OpenVINO backend calls `cpu_features` to choose a precision.

For tests, the environment variable GANFORGE_IMITATE_CPU names a row of IMITATED; the answer is then that CPU's, and the
backend chooses as it would there. If the real CPU lacks the chosen precision, OpenVINO emulates bfloat16 (slowly, with
AVX-512) and computes everything else in float32.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from runtime.errors import BackendUnavailable
from runtime.tensors import Precision

IMITATE = "GANFORGE_IMITATE_CPU"
# With either of these, float16 convolutions are faster than float32. With AVX512-FP16 alone OpenVINO lists FP16 too,
# and takes 1.6 times as long as in float32 (RRDB-23 on a Xeon with AMX).
FAST_FLOAT16_FLAGS = {"amx_fp16", "asimdhp"}


@dataclass(frozen=True)
class CpuFeatures:
    """What a CPU can do. capabilities: OpenVINO's names ("FP32", "BF16", …). flags: Linux' names of instruction sets."""

    capabilities: frozenset[str]
    flags: frozenset[str]

    @property
    def native_precisions(self) -> tuple[Precision, ...]:
        """The floating-point precisions that are native and no slower than float32, fastest first."""
        bfloat16: tuple[Precision, ...] = ("bfloat16",) if "BF16" in self.capabilities else ()
        fast_float16 = "FP16" in self.capabilities and not FAST_FLOAT16_FLAGS.isdisjoint(self.flags)
        float16: tuple[Precision, ...] = ("float16",) if fast_float16 else ()
        return (*bfloat16, *float16, "float32")


def _cpu(capabilities: str, flags: str) -> CpuFeatures:
    return CpuFeatures(frozenset(capabilities.split()), frozenset(flags.split()))


IMITATED = {
    "plain": _cpu("FP32 INT8", "avx2 avx512f avx512_vnni"),
    "avx512-bf16": _cpu("FP32 INT8 BF16", "avx2 avx512f avx512_vnni avx512_bf16"),
    "amx": _cpu("FP32 INT8 BF16 FP16", "avx2 avx512f avx512_vnni avx512_bf16 avx512_fp16 amx_bf16 amx_int8"),
    "amx-fp16": _cpu(
        "FP32 INT8 BF16 FP16", "avx2 avx512f avx512_bf16 avx512_fp16 amx_bf16 amx_int8 amx_fp16"
    ),
}


def cpu_features(capabilities: Callable[[], Iterable[str]]) -> CpuFeatures:
    """The features of this machine's CPU, or of the one that GANFORGE_IMITATE_CPU names.

    capabilities: returns OpenVINO's list for this machine. Raises BackendUnavailable for an unknown name.
    """
    name = os.environ.get(IMITATE, "")
    if not name:
        return CpuFeatures(frozenset(capabilities()), _flags())
    if name not in IMITATED:
        raise BackendUnavailable(f"{IMITATE}: got {name!r}, expected one of {', '.join(IMITATED)}")
    return IMITATED[name]


@cache
def _flags() -> frozenset[str]:
    """The instruction sets of this CPU. Without /proc/cpuinfo, only those that every such CPU has."""
    if platform.system() == "Darwin":
        return frozenset({"asimdhp"}) if platform.machine() == "arm64" else frozenset()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    listed = (line.partition(":")[2] for line in lines if line.startswith(("flags", "Features")))
    return frozenset(next(listed, "").split())
