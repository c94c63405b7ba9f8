"""Plain training loops, as a tutorial would write them, with which benchmarks/training.py compares the recipes' speed.

There is one function a recipe, listed in PLAIN. It takes the recipe's trainer, whose networks and data it uses, and returns
a function that trains one step. A step does the same work as the recipe's: it draws a batch, updates every network and the
moving average. Like the recipe's, it computes no gradients of a network that it does not update.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from export.training.recipe import Trainer, TrainingOptions

Step = Callable[[], None]


def averaged(generator: nn.Module, options: TrainingOptions) -> AveragedModel:
    return AveragedModel(generator, multi_avg_fn=get_ema_multi_avg_fn(options.ema_decay))


def adam(module: nn.Module, options: TrainingOptions) -> torch.optim.Adam:
    return torch.optim.Adam(module.parameters(), lr=options.lr, betas=(options.beta1, options.beta2))


def optimizers(trainer: Any) -> tuple[torch.optim.Adam, torch.optim.Adam, AveragedModel]:
    """The generator's optimizer, the discriminator's, and the moving average of the generator."""
    generator, options = trainer.generator, trainer.settings
    return adam(generator, options), adam(trainer.discriminator, options), averaged(generator, options)


def draw_real(trainer: Any) -> tuple[Tensor, Tensor]:
    """A batch of real pictures, [N, C, H, W] float32 in [-1, 1], and their indices, [N] int64."""
    chosen = torch.randint(len(trainer.images), (trainer.settings.batch,))
    pictures = trainer.images[chosen].float().div(127.5).sub(1)
    return pictures.contiguous(memory_format=torch.channels_last), chosen


def dcgan(trainer: Any) -> Step:
    """DCGAN as in pytorch/examples: binary cross-entropy; both players are updated on the same samples."""
    generator, discriminator, options = trainer.generator, trainer.discriminator, trainer.settings
    latent_size = trainer.config.latent_size
    generator_adam, discriminator_adam, average = optimizers(trainer)
    ones, zeros = torch.ones(options.batch), torch.zeros(options.batch)

    def step() -> None:
        real, _ = draw_real(trainer)
        fake = generator(torch.randn(options.batch, latent_size))
        discriminator_adam.zero_grad()
        loss = F.binary_cross_entropy_with_logits(discriminator(real).logits, ones)
        loss += F.binary_cross_entropy_with_logits(discriminator(fake.detach()).logits, zeros)
        loss.backward()
        discriminator_adam.step()
        discriminator.requires_grad_(False)
        generator_adam.zero_grad()
        loss = F.binary_cross_entropy_with_logits(discriminator(fake).logits, ones)
        loss.backward()
        generator_adam.step()
        discriminator.requires_grad_(True)
        average.update_parameters(generator)

    return step


def wgan_gp(trainer: Any) -> Step:
    """WGAN-GP as in Gulrajani et al. (arXiv 1704.00028): several critic steps with gradient penalty, one generator step."""
    generator, critic, options = trainer.generator, trainer.discriminator, trainer.settings
    generator_adam, discriminator_adam, average = optimizers(trainer)

    def step() -> None:
        for number in range(options.discriminator_steps):
            real, _ = draw_real(trainer)
            with torch.set_grad_enabled(number == options.discriminator_steps - 1):
                fake = generator(torch.randn(options.batch, trainer.config.latent_size))
            discriminator_adam.zero_grad()
            loss = critic(fake.detach()).logits.mean() - critic(real).logits.mean()
            share = torch.rand(options.batch, 1, 1, 1)
            between = (real + share * (fake.detach() - real)).requires_grad_()
            (slope,) = torch.autograd.grad(critic(between).logits.sum(), between, create_graph=True)
            loss += options.gradient_penalty * (slope.flatten(1).norm(dim=1) - 1).square().mean()
            loss.backward()
            discriminator_adam.step()
        critic.requires_grad_(False)
        generator_adam.zero_grad()
        (-critic(fake).logits.mean()).backward()
        generator_adam.step()
        critic.requires_grad_(True)
        average.update_parameters(generator)

    return step


def acgan(trainer: Any) -> Step:
    """ACGAN: DCGAN's losses and, for both players, the cross-entropy of the discriminator's class head."""
    generator, discriminator, options = trainer.generator, trainer.discriminator, trainer.settings
    labels, config = trainer.labels, trainer.config
    generator_adam, discriminator_adam, average = optimizers(trainer)
    ones, zeros = torch.ones(options.batch), torch.zeros(options.batch)

    def step() -> None:
        real, chosen = draw_real(trainer)
        asked = torch.randint(config.classes, (options.batch,))
        fake = generator(torch.randn(options.batch, config.latent_size), asked)
        discriminator_adam.zero_grad()
        on_real, on_fake = discriminator(real), discriminator(fake.detach())
        loss = F.binary_cross_entropy_with_logits(on_real.logits, ones)
        loss += F.binary_cross_entropy_with_logits(on_fake.logits, zeros)
        loss += F.cross_entropy(on_real.classes, labels[chosen]) + F.cross_entropy(on_fake.classes, asked)
        loss.backward()
        discriminator_adam.step()
        discriminator.requires_grad_(False)
        generator_adam.zero_grad()
        on_fake = discriminator(fake)
        loss = F.binary_cross_entropy_with_logits(on_fake.logits, ones)
        loss += F.cross_entropy(on_fake.classes, asked)
        loss.backward()
        generator_adam.step()
        discriminator.requires_grad_(True)
        average.update_parameters(generator)

    return step


def psnr(trainer: Any) -> Step:
    """ESRGAN's first stage: L1 on crops."""
    generator, options, numbers = trainer.generator, trainer.settings, iter(range(10**9))
    optimizer, average = adam(generator, options), averaged(generator, options)

    def step() -> None:
        low, high = crops(trainer, next(numbers))
        optimizer.zero_grad()
        F.l1_loss(generator(low), high).backward()
        optimizer.step()
        average.update_parameters(generator)

    return step


def gan(trainer: Any) -> Step:
    """ESRGAN's second stage: perceptual, relativistic average and pixel losses."""
    generator, discriminator, options = trainer.generator, trainer.discriminator, trainer.settings
    generator_adam, discriminator_adam, average = optimizers(trainer)
    numbers, bce = iter(range(10**9)), F.binary_cross_entropy_with_logits
    ones, zeros = torch.ones(options.batch), torch.zeros(options.batch)

    def step() -> None:
        low, high = crops(trainer, next(numbers))
        output = generator(low)
        discriminator_adam.zero_grad()
        real, fake = discriminator(high).logits, discriminator(output.detach()).logits
        loss = bce(real - fake.mean(), ones) + bce(fake - real.mean(), zeros)
        (loss / 2).backward()
        discriminator_adam.step()
        discriminator.requires_grad_(False)
        generator_adam.zero_grad()
        with torch.no_grad():
            real = discriminator(high).logits
        fake = discriminator(output).logits
        loss = (bce(real - fake.mean(), zeros) + bce(fake - real.mean(), ones)) / 2
        loss = options.adversarial * loss + options.pixel * F.l1_loss(output, high)
        loss = loss + options.perceptual * F.l1_loss(trainer.net(output), trainer.net(high).detach())
        loss.backward()
        generator_adam.step()
        discriminator.requires_grad_(True)
        average.update_parameters(generator)

    return step


def crops(trainer: Any, number: int) -> tuple[Tensor, Tensor]:
    return trainer.crops.batch(torch.Generator().manual_seed(number), trainer.settings.batch)


PLAIN: dict[tuple[str, str], Callable[[Trainer], Step]] = {
    ("dcgan", "compact"): dcgan,
    ("dcgan", "wgan-gp"): wgan_gp,
    ("acgan", "compact"): acgan,
    ("esrgan", "compact"): psnr,
    ("esrgan", "compact-gan"): gan,
}
