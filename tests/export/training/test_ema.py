"""Tests of the moving average of weights and of recalibrated batch-norm statistics."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from export.networks.batch_norm import recalibrate_batch_norm
from export.training.ema import ExponentialMovingAverage


def test_the_average_follows_at_its_decay_and_copies_buffers() -> None:
    module = nn.BatchNorm1d(2)
    assert module.num_batches_tracked is not None
    average = ExponentialMovingAverage(module, decay=0.75)
    average.update(module, step=999)
    with torch.no_grad():
        module.weight.fill_(5.0)
        module.num_batches_tracked.fill_(7)
    average.update(module, step=1000)
    averaged = average.module.state_dict()
    torch.testing.assert_close(averaged["weight"], torch.full((2,), 2.0))  # 0.75 of 1 and 0.25 of 5
    assert int(averaged["num_batches_tracked"]) == 7
    assert float(module.weight.detach()[0]) == 5.0, "the module itself stays as it is"


def test_the_first_steps_do_not_keep_the_random_start() -> None:
    module = nn.Linear(1, 1, bias=False)
    average = ExponentialMovingAverage(module, decay=0.999)
    with torch.no_grad():
        module.weight.fill_(1000.0)
    for step in range(1, 51):
        average.update(module, step)
    assert abs(float(average.module.state_dict()["weight"]) - 1000) < 1


def test_the_decay_ramps_up_with_the_steps() -> None:
    module = nn.Linear(1, 1, bias=False)
    average = ExponentialMovingAverage(module, decay=0.999)
    values = (1.0, 5.0, 3.0)
    for step, value in enumerate(values, start=1):
        with torch.no_grad():
            module.weight.fill_(value)
        average.update(module, step)
    expected = values[0]  # the first update copies
    for step, value in enumerate(values[1:], start=2):
        decay = (1 + step) / (10 + step)
        expected = decay * expected + (1 - decay) * value
    assert float(average.module.state_dict()["weight"]) == torch.tensor(expected).item()


def test_a_restored_average_goes_on_to_the_last_bit() -> None:
    torch.manual_seed(0)
    module = nn.Linear(3, 2)
    unbroken = ExponentialMovingAverage(module, decay=0.9)
    unbroken.update(module, 1)
    restored = ExponentialMovingAverage(nn.Linear(3, 2), decay=0.9)
    restored.load_state_dict(unbroken.state_dict())
    with torch.no_grad():
        module.weight.add_(1.0)
    for average in (unbroken, restored):
        average.update(module, 2)
    for name, value in unbroken.module.state_dict().items():
        assert torch.equal(restored.module.state_dict()[name], value)


class Operations(TorchDispatchMode):
    """Counts the operations that change what they are given."""

    def __init__(self) -> None:
        super().__init__()
        self.changing: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None) -> Tensor:  # type: ignore[no-untyped-def]  # noqa: ANN001
        if func._schema.is_mutable:
            self.changing.append(str(func))
        return func(*args, **(kwargs or {}))


def test_all_parameters_are_averaged_in_one_operation() -> None:
    module = nn.Sequential(*(nn.Linear(2, 2) for _ in range(50)))
    average = ExponentialMovingAverage(module, decay=0.9)
    average.update(module, 1)
    with Operations() as operations:
        average.update(module, 2)
    # One for the 100 parameters, one for torch's own count of updates.
    assert len(operations.changing) == 2, operations.changing
    assert any("_foreach_lerp_" in name for name in operations.changing)


def test_batch_norm_is_recalibrated_on_what_the_module_really_sees() -> None:
    linear, norm = nn.Linear(1, 1), nn.BatchNorm1d(1, momentum=0.1)
    module = nn.Sequential(linear, norm)
    with torch.no_grad():
        linear.weight.fill_(2.0)
        linear.bias.fill_(3.0)
    batches = [torch.tensor([[-1.0], [1.0]]), torch.tensor([[1.0], [3.0]])]
    recalibrate_batch_norm(module, ((batch,) for batch in batches))
    assert not module.training
    # 2x + 3 has the means 3 and 7, and the (unbiased) variance 8 in both batches.
    torch.testing.assert_close(norm.running_mean, torch.tensor([5.0]))
    torch.testing.assert_close(norm.running_var, torch.tensor([8.0]))
    assert norm.momentum == 0.1
