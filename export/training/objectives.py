"""The adversarial losses and the gradient penalty. adversarial.py gets one by its name in OBJECTIVES.

Each loss takes the discriminator's logits for real and generated pictures, [N] float32, and returns the losses of both players,
to be minimised. The discriminator's step uses one of them, on pictures detached from the generator; the generator's step uses
the other. target: the label of real pictures, 1 without label smoothing.
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
    """The losses of both players, scalars."""

    discriminator: Tensor
    generator: Tensor


def non_saturating(real: Tensor, fake: Tensor, target: float = 1.0) -> AdversarialLosses:
    """Goodfellow et al. 2014 (arXiv 1406.2661): the generator maximises log D(G(z)). All logits 0 give 2·ln 2 and ln 2."""
    return AdversarialLosses(bce(real, target) + bce(fake, 0.0), bce(fake, 1.0))


def minimax(real: Tensor, fake: Tensor, target: float = 1.0) -> AdversarialLosses:
    """Goodfellow et al. 2014: the generator minimises log(1 − D(G(z))), whose gradient vanishes if D is certain."""
    return AdversarialLosses(bce(real, target) + bce(fake, 0.0), -bce(fake, 0.0))


def lsgan(real: Tensor, fake: Tensor, target: float = 1.0) -> AdversarialLosses:
    """Mao et al. 2017 (arXiv 1611.04076): half the squared distance of the logits from 1 and 0."""
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
    """Jolicoeur-Martineau 2018 (arXiv 1807.00734), as in ESRGAN: each logit is compared with the other set's mean.

    Both losses are the mean of their two terms, so that equal logits give ln 2 (the paper's sum would be 2·ln 2).
    As in the paper, the discriminator's gradient also flows through the means (BasicSR detaches them). The generator's
    flows through the mean of its own pictures only: real pictures do not depend on it.
    """
    real_mean, fake_mean = real.mean(), fake.mean()
    discriminator = bce(real - fake_mean, target) + bce(fake - real_mean, 0.0)
    generator = bce(real.detach() - fake_mean, 0.0) + bce(fake - real_mean.detach(), 1.0)
    return AdversarialLosses(discriminator / 2, generator / 2)


def bce(logits: Tensor, target: float) -> Tensor:
    """Binary cross-entropy of `logits`, [N]. target: the probability that their pictures are real."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
    """Gulrajani et al. 2017 (arXiv 1704.00028): the mean of (‖∇critic‖₂ − 1)² at random points between real and fake.

    critic: pictures → logits, [N]. real, fake: [N, C, H, W]. Computed in float32 even inside autocast: 16 bits are too few
    for second derivatives.
    """
    share = torch.rand(len(real), 1, 1, 1, device=real.device)
    between = torch.lerp(real.float(), fake.float(), share).detach().requires_grad_()
    with torch.autocast(real.device.type, enabled=False):
        (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


@dataclass(frozen=True)
class Objective:
    """An adversarial loss and what it needs. smooths: whether it has a target for real pictures, for label smoothing.

    uses_real: whether the generator's loss needs the real pictures' logits. penalised: whether it is trained with the
    gradient penalty, which needs each picture's own gradient and so forbids batch norm in the critic.
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
    """The objective `name`. Raises InvalidInput if there is none, or if it cannot smooth labels and should."""
    if name not in OBJECTIVES:
        raise InvalidInput("objective", f"got {name!r}, expected one of {', '.join(OBJECTIVES)}")
    if not 0 <= label_smoothing < 1:
        raise InvalidInput("label_smoothing", f"got {label_smoothing}, expected at least 0 and less than 1")
    if label_smoothing and not OBJECTIVES[name].smooths:
        smoothing = ", ".join(key for key, value in OBJECTIVES.items() if value.smooths)
        raise InvalidInput("label_smoothing", f"{name!r} has no labels to smooth; these have: {smoothing}")
    return OBJECTIVES[name]
