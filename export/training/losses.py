"""The losses other than the adversarial ones (objectives.py). Recipes weight and add them. Each function returns a scalar."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def pixel(output: Tensor, truth: Tensor) -> Tensor:
    """The mean absolute difference (L1) of two batches, [N, C, H, W] float32."""
    return F.l1_loss(output, truth)


def perceptual(net: nn.Module, output: Tensor, truth: Tensor) -> Tensor:
    """L1 between the features that `net` computes of two batches, [N, 3, H, W] float32 in [0, 1] (ESRGAN, arXiv 1809.00219)."""
    return F.l1_loss(net(output), net(truth).detach())


def content(net: nn.Module, output: Tensor, truth: Tensor, scale: float) -> Tensor:
    """The mean square difference of the features, times `scale`, that `net` computes of two batches (SRGAN, arXiv 1609.04802).

    net: gives features after their activation. output, truth: [N, 3, H, W] float32 in [0, 1]. The paper's scale, 1/12.75,
    makes the loss in VGG19's features about as large as the mean square error of the pixels.
    """
    return F.mse_loss(net(output) * scale, net(truth).detach() * scale)


def auxiliary_classifier(classes: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the discriminator's class logits [N, K] with `labels` [N] int64 (ACGAN, arXiv 1610.09585)."""
    return F.cross_entropy(classes, labels)


def categorical(classes: Tensor) -> Tensor:
    """What a generator minimises in CatGAN (Springenberg 2015, arXiv 1511.06390), from class logits [N, K].

    The mean entropy of each picture's class probabilities, minus the entropy of the batch's mean probabilities, in nats. Its
    minimum, −ln K, is reached if each picture shows one class and all classes are equally frequent in the batch.
    """
    log_probabilities = F.log_softmax(classes, dim=1)
    entropy_each = -(log_probabilities.exp() * log_probabilities).sum(dim=1).mean()
    batch_mean = log_probabilities.exp().mean(dim=0)
    entropy_of_mean = -(batch_mean * batch_mean.clamp_min(1e-12).log()).sum()
    return entropy_each - entropy_of_mean


def feature_matching(fake: Tensor, real: Tensor) -> Tensor:
    """The squared difference of the batches' mean features, averaged over F; both [N, F] (Salimans et al. 2016,
    arXiv 1606.03498). No gradient flows to `real`: it is the generator's loss.
    """
    return (real.detach().mean(0) - fake.mean(0)).square().mean()


def style(output: Iterable[Tensor], wanted: Iterable[Tensor]) -> Tensor:
    """How far Gram matrices are from those of a style picture (Johnson et al. 2016, arXiv 1603.08155, section 3.2).

    output: of each layer, [N, C, C]. wanted: of the same layers, [1, C, C]. Of each layer the squared Frobenius norm of the
    difference, averaged over N; summed over the layers.
    """
    pairs = zip(output, wanted, strict=True)
    return torch.stack([(grams - target).square().sum((1, 2)).mean() for grams, target in pairs]).sum()


def total_variation(output: Tensor) -> Tensor:
    """The mean squared difference of neighbouring pixels, along rows plus along columns, of [N, C, H, W] float32 in [0, 1].

    Mahendran and Vedaldi 2015 (arXiv 1412.0035) with β = 2, as means instead of sums.
    """
    down = output[..., 1:, :] - output[..., :-1, :]
    across = output[..., 1:] - output[..., :-1]
    return down.square().mean() + across.square().mean()
