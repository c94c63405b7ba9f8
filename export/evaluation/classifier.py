"""Train the small classifier: `python -m export.evaluation.classifier --data fashion_mnist.npz --output judge.safetensors`.

Samples are compared in the features of a classifier of the very pictures that the generator learned from. Minutes
on a core are enough for one that is right more often than the generator is.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor
from torch.nn import functional as F

from export.data import Labelled, read_labelled
from export.evaluation.classifiers import BATCH, Config, SmallNet, save_small
from export.evaluation.progress import followed
from runtime.errors import GanforgeError, InvalidInput

BATCH_TRAINED = 64
PEAK_LR, WEIGHT_DECAY = 5e-3, 0.05
# Classes overlap (a shirt, a T-shirt): certainty is not asked for.
LABEL_SMOOTHING = 0.1
SHIFT_PX = 2
WARM_UP = 0.25  # of the training


def train(
    net: SmallNet, train_set: Labelled, test_set: Labelled, *, epochs: int, seed: int, flips: bool
) -> float:
    """AdamW with one cycle of the rate (Smith 2018, arXiv 1708.07120); the last accuracy.

    The sets: of `net`'s size and channels, with labels. flips: mirror half of the pictures.
    """
    random = torch.Generator().manual_seed(seed)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(net.parameters(), PEAK_LR, weight_decay=WEIGHT_DECAY)
    images, labels = train_set.images, labels_of(train_set)
    steps = epochs * -(-len(images) // BATCH_TRAINED)
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: one_cycle((step + 1) / steps))
    right = 0.0
    for epoch in range(1, epochs + 1):
        net.train()
        batches = torch.randperm(len(images), generator=random).split(BATCH_TRAINED)
        for chosen in followed(batches, f"epoch {epoch} of {epochs}"):
            logits = net(varied(images[chosen], random, flips))
            loss = F.cross_entropy(logits, labels[chosen], label_smoothing=LABEL_SMOOTHING)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rate.step()
        right = accuracy(net, test_set)
        click.echo(f"epoch {epoch}/{epochs}: {100 * right:.2f} % of the test pictures right")
    return right


def one_cycle(done: float) -> float:
    """The rate, as a part of its peak, when `done` in [0, 1] of the training is over: straight up, then a cosine."""
    if done < WARM_UP:
        return done / WARM_UP
    return (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP))) / 2


def varied(images: Tensor, random: torch.Generator, flips: bool) -> Tensor:
    """[N, C, H, W] uint8 → float32 in [0, 1], each moved by up to SHIFT_PX pixels over black, perhaps mirrored."""
    count, channels, height, width = images.shape
    padded = F.pad(images, (SHIFT_PX,) * 4)
    top, left = (torch.randint(2 * SHIFT_PX + 1, (count, 1), generator=random) for _ in range(2))
    rows, columns = top + torch.arange(height), left + torch.arange(width)
    if flips:
        mirrored = torch.rand(count, generator=random) < 0.5
        columns[mirrored] = columns[mirrored].flip(1)
    moved = padded[
        torch.arange(count)[:, None, None, None],
        torch.arange(channels)[:, None, None],
        rows[:, None, :, None],
        columns[:, None, None, :],
    ]
    return moved.to(torch.float32, memory_format=torch.channels_last) / 255


@torch.inference_mode()
def accuracy(net: SmallNet, pictures: Labelled) -> float:
    """The share of `pictures` that `net` tells right."""
    net.eval()
    found = [net(batch.float() / 255).argmax(dim=1) for batch in pictures.images.split(BATCH)]
    return float((torch.cat(found) == labels_of(pictures)).double().mean())


def labels_of(pictures: Labelled) -> Tensor:
    if pictures.labels is None:
        raise InvalidInput("data", "the pictures have no labels, which a classifier learns from")
    return pictures.labels


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--data", type=click.Path(path_type=Path), required=True, help="Labelled pictures: .npz or folder."
)
@click.option("--test-data", type=click.Path(path_type=Path), help="The test set, where it is another file.")
@click.option(
    "--output", type=click.Path(path_type=Path), required=True, help="File to write (.safetensors)."
)
@click.option("--channels", type=click.Choice(["1", "3"]), default="1", show_default=True, help="1 is grey.")
@click.option("--classes", default="", help="Class names in the order of the labels, separated by commas.")
@click.option("--epochs", type=click.IntRange(min=1), default=8, show_default=True)
@click.option("--flips", is_flag=True, help="Mirror at random: where left and right mean nothing.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), help="Of torch.  [default: one a core]")
def main(**given: Any) -> None:
    """Train the small classifier on labelled pictures, zero-padded to 32 px; its accuracy each epoch."""
    if given["threads"]:
        torch.set_num_threads(given["threads"])
    try:
        run(given)
    except GanforgeError as error:
        raise click.ClickException(str(error)) from error


def run(given: dict[str, Any]) -> None:
    """Read, train, write."""
    config = Config(channels=int(given["channels"]))
    train_set = read_labelled(given["data"], config.size, config.channels, split="train")
    test_set = read_labelled(given["test_data"] or given["data"], config.size, config.channels, split="test")
    names = tuple(name.strip() for name in given["classes"].split(",")) if given["classes"] else ()
    names = names or train_set.class_names
    classes = int(labels_of(train_set).max()) + 1
    if len(names) not in (0, classes):
        raise InvalidInput(
            "classes", f"got {len(names)} names, expected {classes}: the labels go up to {classes - 1}"
        )
    config = Config(channels=config.channels, classes=classes)
    torch.manual_seed(given["seed"])
    net = SmallNet(config)
    train(net, train_set, test_set, epochs=given["epochs"], seed=given["seed"], flips=given["flips"])
    save_small(given["output"], config, net, names)
    click.echo(f"written to {given['output']}")


if __name__ == "__main__":
    main()
