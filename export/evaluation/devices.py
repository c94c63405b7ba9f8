"""Where the networks of an evaluation run: the device that `--device` names."""

from __future__ import annotations

import torch

from runtime.errors import InvalidInput


def device(name: str) -> torch.device:
    """The device called `name`: "cpu", "cuda" or "cuda:1", with float32 arithmetic that is really float32.

    Raises InvalidInput where torch knows no such device or cannot use it here.
    """
    try:
        wanted = torch.device(name)
        torch.empty(0, device=wanted)
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built with CUDA
        reason = str(error).splitlines()[0]
        raise InvalidInput(
            "device", f"got {name!r}, expected cpu, cuda or cuda:N; torch says: {reason}"
        ) from error
    # By default cuDNN computes convolutions in TF32, which has the significand of float16.
    torch.backends.cudnn.allow_tf32 = False
    return wanted
