"""The averaged generator: what a server runs, in eval mode, must be what was averaged."""

from __future__ import annotations

import torch
from torch import nn

from export.training.ema import Average, settle_batch_norm


def test_the_average_follows_at_its_decay_and_copies_counters() -> None:
    module = nn.BatchNorm1d(2)
    assert module.num_batches_tracked is not None
    average = Average(module, decay=0.75)
    with torch.no_grad():
        module.weight.fill_(5.0)
        module.num_batches_tracked.fill_(7)
    average.update(module, step=1000)
    torch.testing.assert_close(
        average.module.state_dict()["weight"], torch.full((2,), 2.0)
    )  # 0.75 of 1 and 0.25 of 5
    assert int(average.module.state_dict()["num_batches_tracked"]) == 7


def test_the_first_steps_do_not_keep_the_random_start() -> None:
    module = nn.Linear(1, 1, bias=False)
    average = Average(module, decay=0.999)
    with torch.no_grad():
        module.weight.fill_(1000.0)
    for step in range(1, 51):
        average.update(module, step)
    assert abs(float(average.module.state_dict()["weight"]) - 1000) < 1


def test_batch_norm_is_settled_on_what_the_module_really_sees() -> None:
    linear, norm = nn.Linear(1, 1), nn.BatchNorm1d(1, momentum=0.1)
    module = nn.Sequential(linear, norm)
    with torch.no_grad():
        linear.weight.fill_(2.0)
        linear.bias.fill_(3.0)
    batches = [torch.tensor([[-1.0], [1.0]]), torch.tensor([[1.0], [3.0]])]
    settle_batch_norm(module, ((batch,) for batch in batches))
    assert not module.training
    # 2x + 3 has the means 3 and 7, and the (unbiased) variance 8 in both batches.
    torch.testing.assert_close(norm.running_mean, torch.tensor([5.0]))
    torch.testing.assert_close(norm.running_var, torch.tensor([8.0]))
    assert norm.momentum == 0.1
