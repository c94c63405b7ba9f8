"""What a generator and its discriminator play for: one function an objective.

Each takes the discriminator's logits of real and of generated pictures, [N] float32 of any range, and gives both
players' losses, scalars to minimise. A discriminator's step uses one, with the pictures detached from the generator;
a generator's step the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from runtime.errors import InvalidInput


class Losses(NamedTuple):
    """Scalars: what the discriminator minimises, and what the generator minimises."""

    discriminator: Tensor
    generator: Tensor


def non_saturating(real: Tensor, fake: Tensor, target: float = 1.0) -> Losses:
    """Goodfellow et al. 2014 (arXiv 1406.2661): the generator maximises log D(G(z)). At chance 2·ln 2 and ln 2."""
    return Losses(believed(real, target) + believed(fake, 0.0), believed(fake, 1.0))


def minimax(real: Tensor, fake: Tensor, target: float = 1.0) -> Losses:
    """Goodfellow et al. 2014: the generator minimises log(1 − D(G(z))), which is flat where it is found out."""
    return Losses(believed(real, target) + believed(fake, 0.0), -believed(fake, 0.0))


def lsgan(real: Tensor, fake: Tensor, target: float = 1.0) -> Losses:
    """Mao et al. 2017 (arXiv 1611.04076): least squares towards 1 and 0, each halved."""
    return Losses(
        ((real - target).square().mean() + fake.square().mean()) / 2, (fake - 1).square().mean() / 2
    )


def hinge(real: Tensor, fake: Tensor) -> Losses:
    """Lim and Ye 2017 (arXiv 1705.02894): the discriminator cares until a margin of 1."""
    return Losses(F.relu(1 - real).mean() + F.relu(1 + fake).mean(), -fake.mean())


def wasserstein(real: Tensor, fake: Tensor) -> Losses:
    """Arjovsky et al. 2017 (arXiv 1701.07875): the difference of the means, of a critic that must be 1-Lipschitz."""
    return Losses(fake.mean() - real.mean(), -fake.mean())


def relativistic_average(real: Tensor, fake: Tensor, target: float = 1.0) -> Losses:
    """Jolicoeur-Martineau 2018 (arXiv 1807.00734), as ESRGAN trains: each is judged against the other's mean.

    Both losses are the mean of their two terms, so that at chance each is ln 2 (the paper's sum would be 2·ln 2).
    The discriminator's means carry no gradient; the generator's mean of its own pictures does.
    """
    real_mean, fake_mean = real.mean(), fake.mean()
    discriminator = believed(real - fake_mean.detach(), target) + believed(fake - real_mean.detach(), 0.0)
    generator = believed(real.detach() - fake_mean, 0.0) + believed(fake - real_mean.detach(), 1.0)
    return Losses(discriminator / 2, generator / 2)


def believed(logits: Tensor, target: float) -> Tensor:
    """Binary cross-entropy of `logits` [N] with `target` being the probability that they are of real pictures."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
    """Gulrajani et al. 2017 (arXiv 1704.00028): how far the critic's slope is from 1, between real and fake.

    critic: pictures → logits [N]. real, fake: [N, C, H, W]. Mean over the batch of (‖∇critic‖₂ − 1)², in float32
    whatever the precision around it: a slope's slope has no bits to spare.
    """
    share = torch.rand(len(real), 1, 1, 1, device=real.device)
    between = torch.lerp(real.float(), fake.float(), share).detach().requires_grad_()
    with torch.autocast(real.device.type, enabled=False):
        (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return (slope.flatten(1).norm(dim=1) - 1).square().mean()


@dataclass(frozen=True)
class Objective:
    """losses: the function. smooths: it has a target for real pictures that label smoothing may lower.

    compares: the generator's loss looks at real pictures too. penalised: with the gradient penalty, which forbids
    batch norm in the critic, since it is each picture's own slope.
    """

    losses: Callable[..., Losses]
    smooths: bool = True
    compares: bool = False
    penalised: bool = False


OBJECTIVES = {
    "non-saturating": Objective(non_saturating),
    "minimax": Objective(minimax),
    "lsgan": Objective(lsgan),
    "hinge": Objective(hinge, smooths=False),
    "wgan-gp": Objective(wasserstein, smooths=False, penalised=True),
    "relativistic-average": Objective(relativistic_average, compares=True),
}


def get(name: str, label_smoothing: float) -> Objective:
    """The objective called `name`. Raises InvalidInput with the names there are, or where it has no labels to smooth."""
    if name not in OBJECTIVES:
        raise InvalidInput("objective", f"got {name!r}, expected one of {', '.join(OBJECTIVES)}")
    if not 0 <= label_smoothing < 1:
        raise InvalidInput("label_smoothing", f"got {label_smoothing}, expected a share from 0 to below 1")
    if label_smoothing and not OBJECTIVES[name].smooths:
        smoothing = ", ".join(key for key, value in OBJECTIVES.items() if value.smooths)
        raise InvalidInput("label_smoothing", f"{name!r} has no labels to smooth; these have: {smoothing}")
    return OBJECTIVES[name]
