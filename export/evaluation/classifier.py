"""`python -m export.evaluation.classifier --data DATA --output FILE.safetensors`: trains the small classifier.

`python -m export.evaluate --classifier FILE` compares samples with real pictures in its features, so train it on the same
pictures as the generator. That takes minutes on one CPU core.
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
from export.evaluation.progress import with_progress
from runtime.errors import GanforgeError, InvalidInput

TRAINING_BATCH = 64
PEAK_LR, WEIGHT_DECAY = 5e-3, 0.05
# Some classes overlap (shirt, T-shirt), so the network should not learn to be certain.
LABEL_SMOOTHING = 0.1
SHIFT_PX = 2
WARM_UP = 0.25  # share of the steps in which the learning rate rises


def train(
    net: SmallNet, train_set: Labelled, test_set: Labelled, *, epochs: int, seed: int, flips: bool
) -> float:
    """Train `net` with AdamW and one cycle of the learning rate (Smith 2018, arXiv 1708.07120).

    train_set, test_set: of `net`'s size and channels, with labels. flips: mirror half of the pictures at random. Returns
    the accuracy on the test set after the last epoch, in [0, 1].
    """
    random = torch.Generator().manual_seed(seed)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(net.parameters(), PEAK_LR, weight_decay=WEIGHT_DECAY)
    images, labels = train_set.images, labels_of(train_set)
    steps = epochs * -(-len(images) // TRAINING_BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: one_cycle((step + 1) / steps))
    test_accuracy = 0.0
    for epoch in range(1, epochs + 1):
        net.train()
        batches = torch.randperm(len(images), generator=random).split(TRAINING_BATCH)
        for chosen in with_progress(batches, f"epoch {epoch} of {epochs}"):
            logits = net(augmented(images[chosen], random, flips))
            loss = F.cross_entropy(logits, labels[chosen], label_smoothing=LABEL_SMOOTHING)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        test_accuracy = accuracy(net, test_set)
        click.echo(f"epoch {epoch}/{epochs}: {100 * test_accuracy:.2f} % of the test pictures right")
    return test_accuracy


def one_cycle(done: float) -> float:
    """The learning rate, as a share of its peak, after `done` in [0, 1] of the steps: a linear rise, then half a cosine."""
    if done < WARM_UP:
        return done / WARM_UP
    return (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP))) / 2


def augmented(images: Tensor, random: torch.Generator, flips: bool) -> Tensor:
    """[N, C, H, W] uint8 → float32 in [0, 1], each shifted at random by up to SHIFT_PX pixels, with black at the edges, and
    with `flips` mirrored half of the time.
    """
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
    """The share of `pictures` that `net` classifies as their label."""
    net.eval()
    classes = [net(batch.float() / 255).argmax(dim=1) for batch in pictures.images.split(BATCH)]
    return float((torch.cat(classes) == labels_of(pictures)).double().mean())


def labels_of(pictures: Labelled) -> Tensor:
    """[N] int64. Raises InvalidInput where the pictures have no labels."""
    if pictures.labels is None:
        raise InvalidInput("data", "the pictures have no labels, which a classifier learns from")
    return pictures.labels


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    required=True,
    help="Pictures with labels: .npz, IDX, CIFAR or folder.",
)
@click.option("--test-data", type=click.Path(path_type=Path), help="The test set, if it is another file.")
@click.option(
    "--output", type=click.Path(path_type=Path), required=True, help="File to write (.safetensors)."
)
@click.option(
    "--channels", type=click.Choice(["1", "3"]), default="1", show_default=True, help="1 for grey, 3 for RGB."
)
@click.option("--classes", default="", help="Class names in the order of the labels, separated by commas.")
@click.option("--epochs", type=click.IntRange(min=1), default=8, show_default=True)
@click.option("--flips", is_flag=True, help="Mirror pictures at random. Not for text or digits.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), help="Threads of torch.  [default: one a core]")
def main(threads: int | None, **options: Any) -> None:
    """Train the small classifier on labelled pictures of up to 32 px, and print its accuracy after each epoch."""
    if threads:
        torch.set_num_threads(threads)
    try:
        run(**options)
    except GanforgeError as error:
        raise click.ClickException(str(error)) from error


def run(
    *,
    data: Path,
    test_data: Path | None,
    output: Path,
    channels: str,
    classes: str,
    epochs: int,
    flips: bool,
    seed: int,
) -> None:
    """Read the pictures, train, write the file. classes: names separated by commas; "" for those of the data."""
    size = Config().size
    train_set = read_labelled(data, size, int(channels), split="train")
    test_set = read_labelled(test_data or data, size, int(channels), split="test")
    names = tuple(name.strip() for name in classes.split(",")) if classes else train_set.class_names
    highest = int(labels_of(train_set).max())
    if len(names) not in (0, highest + 1):
        raise InvalidInput(
            "classes", f"got {len(names)} names, expected {highest + 1}: the labels go up to {highest}"
        )
    config = Config(channels=int(channels), classes=highest + 1)
    torch.manual_seed(seed)
    net = SmallNet(config)
    train(net, train_set, test_set, epochs=epochs, seed=seed, flips=flips)
    save_small(output, config, net, names)
    click.echo(
        f"written to {output}; python -m export.evaluate SUBJECT --data {data} --classifier {output} uses it"
    )


if __name__ == "__main__":
    main()
