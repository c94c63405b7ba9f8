"""Turns `--device` of `python -m export.evaluate` into a torch device."""

from __future__ import annotations

import torch

from runtime.errors import InvalidInput


def device(name: str) -> torch.device:
    """The torch device `name`: "cpu", "cuda" or "cuda:1". Also turns off TF32, so that float32 is computed as float32.

    Raises InvalidInput if torch does not know the device or cannot use it here.
    """
    try:
        wanted = torch.device(name)
        torch.empty(0, device=wanted)
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built with CUDA
        reason = str(error).splitlines()[0]
        raise InvalidInput(
            "device", f"got {name!r}, expected cpu, cuda or cuda:N; torch says: {reason}"
        ) from error
    # By default cuDNN computes convolutions in TF32, whose significand is as short as float16's.
    torch.backends.cudnn.allow_tf32 = False
    return wanted
