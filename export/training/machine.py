"""Machine: the devices that a run trains on, and in which precision. Recipes, meter.py and the loop use it.

Lightning Fabric starts the processes and connects them. Every process holds the whole networks and takes its own rows of each
batch; torch's DistributedDataParallel averages the gradients over all processes during the backward pass.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, TypeVar

import torch
from lightning_fabric import Fabric
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from runtime.errors import InvalidInput

M = TypeVar("M", bound=nn.Module)
PRECISIONS = {"float32": "32-true", "bfloat16": "bf16-mixed"}


class Machine:
    """The devices of this run, seen from one of its processes.

    accelerator: "auto", "cpu", "cuda" or another of Fabric's names. devices: processes on each of `nodes` machines.
    precision: of the forward and backward passes ("bfloat16" is mixed: weights and optimizers stay float32).
    Raises InvalidInput if there are no such devices.
    """

    def __init__(
        self, accelerator: str = "auto", devices: int = 1, nodes: int = 1, precision: str = "float32"
    ) -> None:
        self.precision = precision
        self._averaged: set[nn.Parameter] = set()  # whose gradients `parallel` averages
        strategy = "ddp" if devices * nodes > 1 else "auto"
        try:
            self.fabric = Fabric(
                accelerator=accelerator,
                devices=devices,
                num_nodes=nodes,
                strategy=strategy,
                precision=PRECISIONS[precision],  # type: ignore[arg-type]
            )
        except (RuntimeError, ValueError, MisconfigurationException) as error:  # a device that is not there
            raise InvalidInput("accelerator", f"{accelerator} × {devices} cannot be used: {error}") from error
        self.fabric.launch()

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes, prints and evaluates."""
        return self.fabric.is_global_zero

    @property
    def processes(self) -> int:
        return self.fabric.world_size

    @property
    def device(self) -> torch.device:
        return self.fabric.device

    def rows(self, batch: int) -> slice:
        """This process's rows of a batch of `batch`. Raises InvalidInput if the processes cannot share it equally."""
        share, rest = divmod(batch, self.processes)
        if rest:
            raise InvalidInput(
                "batch",
                f"got {batch} pictures for {self.processes} processes, expected a multiple of {self.processes}",
            )
        return slice(self.fabric.global_rank * share, (self.fabric.global_rank + 1) * share)

    def place(self, module: M) -> M:
        """Move `module` to this process's device, in channels-last layout, the fastest for convolutions; returns it."""
        module.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return module

    def parallel(self, module: nn.Module) -> nn.Module:
        """What an update must call in place of `module`: the backward pass then averages its gradients over all processes.

        Every update must use all parameters. Batch-norm statistics stay each process's own.
        """
        if self.processes == 1:
            return module
        self._averaged |= set(module.parameters())
        return DistributedDataParallel(module, forward_sync_buffers=False)

    def move(self, batch: Any) -> Any:
        """The batch with its tensors on this process's device."""
        return self.fabric.to_device(batch)

    def autocast(self) -> AbstractContextManager[Any]:
        """A context manager in which forward passes run in the run's precision."""
        return self.fabric.autocast()

    def step(self, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        """One step of `optimizer` down the gradient of `loss`, a scalar.

        Raises ValueError where several processes would train apart: a network was not given to `parallel`.
        """
        parameters = {parameter for group in optimizer.param_groups for parameter in group["params"]}
        if self.processes > 1 and not parameters <= self._averaged:
            raise ValueError(
                "an update of several processes calls Machine.parallel(network), not the network"
            )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def random_state(self) -> dict[str, Tensor]:
        """The state of torch's random generators, from which networks draw (dropout), to be kept in a checkpoint."""
        state = {"cpu": torch.get_rng_state()}
        return state | {"cuda": torch.cuda.get_rng_state(self.device)} if self.on_gpu else state

    def set_random_state(self, state: dict[str, Tensor]) -> None:
        torch.set_rng_state(state["cpu"])
        if self.on_gpu and "cuda" in state:
            torch.cuda.set_rng_state(state["cuda"], self.device)

    def preserve_random_state(self) -> AbstractContextManager[None]:
        """A context manager in which drawing random numbers does not change those of the run."""
        return torch.random.fork_rng(devices=[self.device] if self.on_gpu else [])

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    def mean(self, values: Tensor) -> Tensor:
        """`values` averaged over all processes."""
        return values if self.processes == 1 else self._reduced(values, "mean")

    def maximum(self, *values: float) -> list[float]:
        """Each value's maximum over all processes, so that all of them stop at the same step."""
        if self.processes == 1:
            return list(values)
        return self._reduced(torch.tensor(values, dtype=torch.float64, device=self.device), "max").tolist()

    def wait(self) -> None:
        """Wait until every process has called this: when one ends, the others are killed."""
        self.fabric.barrier()

    def _reduced(self, values: Tensor, operation: str) -> Tensor:
        result = self.fabric.all_reduce(values, reduce_op=operation)
        assert isinstance(result, Tensor)
        return result
