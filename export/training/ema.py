"""ExponentialMovingAverage: the average of a generator's weights over training. loop.py updates it at each step, draws
samples with it and exports it.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class ExponentialMovingAverage:
    """An exponential moving average of a module's parameters: torch's AveragedModel, with a decay that ramps up.

    module: the averaged copy, in eval mode, without gradients. Its buffers are copied from the module at each update,
    and the loop measures batch-norm statistics again (export/networks/batch_norm.py) before it uses the copy.
    The decay of update n is min(decay, (1 + n) / (10 + n)), so that the random initial weights are soon forgotten.
    All parameters are averaged in one torch._foreach call.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self._rate = 0.0
        self._averaged = AveragedModel(
            module,
            multi_avg_fn=lambda averages, values, _: get_ema_multi_avg_fn(self._rate)(averages, values, _),
        )
        self._averaged.eval().requires_grad_(False)

    @property
    def module(self) -> nn.Module:
        return self._averaged.module

    def update(self, module: nn.Module, step: int) -> None:
        """Add the weights that `module` has after `step` (1 or more) to the average. The first update copies them."""
        self._rate = min(self.decay, (1 + step) / (10 + step))
        self._averaged.update_parameters(module)

    def state_dict(self) -> dict[str, Any]:
        return self._averaged.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._averaged.load_state_dict(state_dict)
