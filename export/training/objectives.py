"""The adversarial losses, a function each, and the gradient penalty. adversarial.py picks one by its name in OBJECTIVES.

Each takes the discriminator's logits of real and of generated pictures, [N] float32 of any range, and returns both
players' losses, scalars to minimise. A discriminator's step uses the one, with the pictures detached from the generator;
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


class AdversarialLosses(NamedTuple):
    """Scalars: what the discriminator minimises, and what the generator minimises."""

    discriminator: Tensor
    generator: Tensor


def non_saturating(real: Tensor, fake: Tensor, target: float = 1.0) -> AdversarialLosses:
    """Goodfellow et al. 2014 (arXiv 1406.2661): the generator maximises log D(G(z)). At chance 2·ln 2 and ln 2."""
    return AdversarialLosses(bce(real, target) + bce(fake, 0.0), bce(fake, 1.0))


def minimax(real: Tensor, fake: Tensor, target: float = 1.0) -> AdversarialLosses:
    """Goodfellow et al. 2014: the generator minimises log(1 − D(G(z))), whose gradient vanishes where D is sure."""
    return AdversarialLosses(bce(real, target) + bce(fake, 0.0), -bce(fake, 0.0))


def lsgan(real: Tensor, fake: Tensor, target: float = 1.0) -> AdversarialLosses:
    """Mao et al. 2017 (arXiv 1611.04076): least squares towards 1 and 0, each halved."""
    return AdversarialLosses(
        ((real - target).square().mean() + fake.square().mean()) / 2, (fake - 1).square().mean() / 2
    )


def hinge(real: Tensor, fake: Tensor) -> AdversarialLosses:
    """Lim and Ye 2017 (arXiv 1705.02894): logits beyond a margin of 1 cost the discriminator nothing."""
    return AdversarialLosses(F.relu(1 - real).mean() + F.relu(1 + fake).mean(), -fake.mean())


def wasserstein(real: Tensor, fake: Tensor) -> AdversarialLosses:
    """Arjovsky et al. 2017 (arXiv 1701.07875): the difference of the means, of a critic that must be 1-Lipschitz."""
    return AdversarialLosses(fake.mean() - real.mean(), -fake.mean())


def relativistic_average(real: Tensor, fake: Tensor, target: float = 1.0) -> AdversarialLosses:
    """Jolicoeur-Martineau 2018 (arXiv 1807.00734), as ESRGAN trains: each logit is compared with the others' mean.

    Both losses are the mean of their two terms, so that at chance each is ln 2 (the paper's sum would be 2·ln 2).
    As in the paper, the discriminator's gradient flows through the means too (BasicSR detaches them there). The
    generator's flows through the mean of its own pictures; the real ones' logits do not depend on it.
    """
    real_mean, fake_mean = real.mean(), fake.mean()
    discriminator = bce(real - fake_mean, target) + bce(fake - real_mean, 0.0)
    generator = bce(real.detach() - fake_mean, 0.0) + bce(fake - real_mean.detach(), 1.0)
    return AdversarialLosses(discriminator / 2, generator / 2)


def bce(logits: Tensor, target: float) -> Tensor:
    """Binary cross-entropy of `logits` [N], `target` being the probability that their pictures are real."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
    """Gulrajani et al. 2017 (arXiv 1704.00028): how far the critic's gradient norm is from 1, between real and fake.

    critic: pictures → logits [N]. real, fake: [N, C, H, W]. The mean over the batch of (‖∇critic‖₂ − 1)², in float32
    whatever the precision around it: second derivatives lose too much in 16 bits.
    """
    share = torch.rand(len(real), 1, 1, 1, device=real.device)
    between = torch.lerp(real.float(), fake.float(), share).detach().requires_grad_()
    with torch.autocast(real.device.type, enabled=False):
        (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


@dataclass(frozen=True)
class Objective:
    """losses: the function. smooths: it has a target for real pictures that label smoothing may lower.

    uses_real: the generator's loss needs the real pictures' logits too. penalised: trained with the gradient penalty,
    which needs each picture's own gradient and so forbids batch norm in the critic.
    """

    losses: Callable[..., AdversarialLosses]
    smooths: bool = True
    uses_real: bool = False
    penalised: bool = False


OBJECTIVES = {
    "non-saturating": Objective(non_saturating),
    "minimax": Objective(minimax),
    "lsgan": Objective(lsgan),
    "hinge": Objective(hinge, smooths=False),
    "wgan-gp": Objective(wasserstein, smooths=False, penalised=True),
    "relativistic-average": Objective(relativistic_average, uses_real=True),
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
