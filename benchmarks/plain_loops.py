"""Training as a tutorial writes it: one function a recipe, with the same networks, and nothing of export/training around.

Each gives a function that takes one step. They do the work of a run's step: draw a batch, update every network, average
the generator's weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from export.training.recipe import Options, Trainer

Step = Callable[[], None]


def averaged(generator: nn.Module, options: Options) -> AveragedModel:
    return AveragedModel(generator, multi_avg_fn=get_ema_multi_avg_fn(options.ema_decay), use_buffers=False)


def adam(module: nn.Module, options: Options) -> torch.optim.Adam:
    return torch.optim.Adam(module.parameters(), lr=options.lr, betas=(options.beta1, options.beta2))


def optimizers(trainer: Any) -> tuple[torch.optim.Adam, torch.optim.Adam, AveragedModel]:
    """The generator's, the discriminator's, and the generator's average."""
    generator, options = trainer.generator, trainer.settings
    return adam(generator, options), adam(trainer.discriminator, options), averaged(generator, options)


def drawn(trainer: Any) -> tuple[Tensor, Tensor]:
    """A batch of real pictures in [-1, 1], and which they are."""
    chosen = torch.randint(len(trainer.images), (trainer.settings.batch,))
    pictures = trainer.images[chosen].float().div(127.5).sub(1)
    return pictures.contiguous(memory_format=torch.channels_last), chosen


def dcgan(trainer: Any) -> Step:
    """As pytorch/examples has it: binary cross-entropy; the generator's step on the same samples."""
    generator, discriminator, options = trainer.generator, trainer.discriminator, trainer.settings
    latent_size = trainer.config.latent_size
    play, judge, average = optimizers(trainer)
    ones, zeros = torch.ones(options.batch), torch.zeros(options.batch)

    def step() -> None:
        real, _ = drawn(trainer)
        fake = generator(torch.randn(options.batch, latent_size))
        judge.zero_grad()
        loss = F.binary_cross_entropy_with_logits(discriminator(real).logits, ones)
        loss += F.binary_cross_entropy_with_logits(discriminator(fake.detach()).logits, zeros)
        loss.backward()
        judge.step()
        play.zero_grad()
        loss = F.binary_cross_entropy_with_logits(discriminator(fake).logits, ones)
        loss.backward()
        play.step()
        average.update_parameters(generator)

    return step


def wgan_gp(trainer: Any) -> Step:
    """As Gulrajani et al. have it: several steps of the critic with the penalty on its slope, one of the generator."""
    generator, critic, options = trainer.generator, trainer.discriminator, trainer.settings
    play, judge, average = optimizers(trainer)

    def step() -> None:
        for _ in range(options.discriminator_steps):
            real, _ = drawn(trainer)
            fake = generator(torch.randn(options.batch, trainer.config.latent_size))
            judge.zero_grad()
            loss = critic(fake.detach()).logits.mean() - critic(real).logits.mean()
            share = torch.rand(options.batch, 1, 1, 1)
            between = (real + share * (fake.detach() - real)).requires_grad_()
            (slope,) = torch.autograd.grad(critic(between).logits.sum(), between, create_graph=True)
            loss += options.gradient_penalty * (slope.flatten(1).norm(dim=1) - 1).square().mean()
            loss.backward()
            judge.step()
        play.zero_grad()
        (-critic(fake).logits.mean()).backward()
        play.step()
        average.update_parameters(generator)

    return step


def acgan(trainer: Any) -> Step:
    """The same with classes: cross-entropy of the second head for both players."""
    generator, discriminator, options = trainer.generator, trainer.discriminator, trainer.settings
    labels, config = trainer.labels, trainer.config
    play, judge, average = optimizers(trainer)
    ones, zeros = torch.ones(options.batch), torch.zeros(options.batch)

    def step() -> None:
        real, chosen = drawn(trainer)
        asked = torch.randint(config.classes, (options.batch,))
        fake = generator(torch.randn(options.batch, config.latent_size), asked)
        judge.zero_grad()
        on_real, on_fake = discriminator(real), discriminator(fake.detach())
        loss = F.binary_cross_entropy_with_logits(on_real.logits, ones)
        loss += F.binary_cross_entropy_with_logits(on_fake.logits, zeros)
        loss += F.cross_entropy(on_real.classes, labels[chosen]) + F.cross_entropy(on_fake.classes, asked)
        loss.backward()
        judge.step()
        play.zero_grad()
        on_fake = discriminator(fake)
        loss = F.binary_cross_entropy_with_logits(on_fake.logits, ones)
        loss += F.cross_entropy(on_fake.classes, asked)
        loss.backward()
        play.step()
        average.update_parameters(generator)

    return step


def psnr(trainer: Any) -> Step:
    """L1 on crops."""
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
    play, judge, average = optimizers(trainer)
    numbers, believed = iter(range(10**9)), F.binary_cross_entropy_with_logits
    ones, zeros = torch.ones(options.batch), torch.zeros(options.batch)

    def step() -> None:
        low, high = crops(trainer, next(numbers))
        output = generator(low)
        judge.zero_grad()
        real, fake = discriminator(high).logits, discriminator(output.detach()).logits
        loss = believed(real - fake.mean().detach(), ones) + believed(fake - real.mean().detach(), zeros)
        (loss / 2).backward()
        judge.step()
        play.zero_grad()
        with torch.no_grad():
            real = discriminator(high).logits
        fake = discriminator(output).logits
        loss = (believed(real - fake.mean(), zeros) + believed(fake - real.mean(), ones)) / 2
        loss = options.adversarial * loss + options.pixel * F.l1_loss(output, high)
        loss = loss + options.perceptual * F.l1_loss(trainer.net(output), trainer.net(high).detach())
        loss.backward()
        play.step()
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
