"""The losses beside the adversarial one, a function each. All give a scalar."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


def pixel(output: Tensor, truth: Tensor) -> Tensor:
    """Mean absolute difference (L1); both [N, C, H, W] float32."""
    return F.l1_loss(output, truth)


def perceptual(net: nn.Module, output: Tensor, truth: Tensor) -> Tensor:
    """L1 between a feature net's maps of both pictures, [N, 3, H, W] float32 in [0, 1] (ESRGAN, arXiv 1809.00219)."""
    return F.l1_loss(net(output), net(truth).detach())


def auxiliary_classifier(classes: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the discriminator's class logits [N, K] with `labels` [N] int64 (ACGAN, arXiv 1610.09585)."""
    return F.cross_entropy(classes, labels)


def categorical(classes: Tensor) -> Tensor:
    """Least where each picture shows one class, and all of them every class equally often: −(mutual information).

    The mean entropy of a picture's classes less the entropy of the batch's, in nats, of logits [N, K]: what a
    generator minimises in CatGAN (Springenberg 2015, arXiv 1511.06390).
    """
    logs = F.log_softmax(classes, dim=1)
    each = -(logs.exp() * logs).sum(dim=1).mean()
    shares = logs.exp().mean(dim=0)
    return each + (shares * shares.clamp_min(1e-12).log()).sum()


def feature_matching(fake: Tensor, real: Tensor) -> Tensor:
    """‖mean of real features − mean of fake ones‖², a mean over features [N, F] (Salimans et al. 2016, arXiv 1606.03498).

    The real ones carry no gradient: it is the generator's loss.
    """
    return (real.detach().mean(0) - fake.mean(0)).square().mean()
