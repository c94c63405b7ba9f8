"""What can be measured, behind one interface: a checkpoint, a bundle, the bicubic baseline.

A running server is one as well; export/evaluate.py adds it, since only that file knows the client.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from export.build.reference import TorchEngine, first_manifest
from export.checkpoints import checkpoint
from export.checkpoints.checkpoint import RANDOM, Checkpoint
from export.checkpoints.identification import identify
from export.data.resize import resize
from export.training.ema import settle_batch_norm
from runtime import backends, tiling
from runtime.backends.base import Engine
from runtime.bundle import Bundle, load
from runtime.errors import InvalidInput
from runtime.latents import draw, draw_labels
from runtime.pixels import to_float, to_uint8
from runtime.tensors import Array, TaskName

# A run of samples is drawn in blocks, each of a seed of its own: a call to a server gives at most some hundreds.
BLOCK = 100
BLOCKS_A_SEED = 2**20


SETTLED_ON = 256  # samples that an untrained generator's batch norm is measured on


class Subject:
    """One thing to measure. It upscales or it draws samples, as its task says.

    kind: "checkpoint", "bundle", "server" or "bicubic"; name: for the reader. scale: output pixels per input pixel
    along a side. classes: that a label chooses from, 0 where there are none; class_names: theirs, or empty.
    """

    def __init__(
        self,
        kind: str,
        name: str,
        task: TaskName,
        *,
        scale: int = 1,
        classes: int = 0,
        class_names: tuple[str, ...] = (),
    ) -> None:
        self.kind, self.name, self.task = kind, name, task
        self.scale, self.classes, self.class_names = scale, classes, class_names

    def upscale(self, image: Array) -> Array:
        """[H, W, 3] uint8 → [S·H, S·W, 3] uint8."""
        raise InvalidInput("subject", f"{self.name} draws samples, it does not upscale")

    def samples(self, count: int, labels: Array | None, seed: int) -> Array:
        """Samples 0 … count - 1 of `seed`: [N, C, H, W] uint8.

        labels: [N] int64, the class of each; None draws them, or there are none.
        """
        raise InvalidInput("subject", f"{self.name} upscales, it does not draw samples")

    def close(self) -> None:
        """Free what it holds."""


class BicubicSubject(Subject):
    """Bicubic interpolation as MATLAB's, the baseline of every paper."""

    def __init__(self, scale: int) -> None:
        super().__init__("bicubic", "bicubic", "upscale", scale=scale)

    def upscale(self, image: Array) -> Array:
        return resize(image, self.scale)


class EngineSubject(Subject):
    """An engine and its manifest: with tile sizes it upscales in tiles as a server does, without them the whole."""

    def __init__(self, kind: str, engine: Engine) -> None:
        manifest = engine.manifest
        super().__init__(
            kind,
            manifest.name,
            manifest.task,
            scale=manifest.scale,
            classes=manifest.classes,
            class_names=manifest.class_names,
        )
        self.engine = engine

    def upscale(self, image: Array) -> Array:
        if self.task != "upscale":
            return super().upscale(image)
        manifest = self.engine.manifest
        if manifest.inputs[0].shape[1] != 3:
            raise InvalidInput(
                "subject", f"{self.name} takes {manifest.inputs[0].shape[1]} channels, not RGB"
            )
        source = to_float(image)
        sides = [-(-side // manifest.size_multiple) * manifest.size_multiple for side in source.shape[1:]]
        tile = tiling.choose_tile(
            *sides,
            tile_sizes=manifest.tile_sizes or (max(sides),),
            halo=manifest.halo,
            multiple=manifest.size_multiple,
        )
        upscaled = tiling.run_tiled(self.engine, source, tile=tile, halo=manifest.halo)
        low, high = manifest.outputs[0].range or (0.0, 1.0)
        return to_uint8(upscaled.transpose(1, 2, 0), low, high)

    def samples(self, count: int, labels: Array | None, seed: int) -> Array:
        if self.task != "generate":
            return super().samples(count, labels, seed)
        manifest, batch = self.engine.manifest, self.engine.max_batch
        if labels is None:
            labels = draw_labels(seed, 0, count, max(manifest.classes, 1))
        given: dict[str, Array] = {
            "float32": draw(seed, 0, count, manifest.latent_size),
            "int64": labels.astype(np.int64),
        }
        output = manifest.outputs[0]
        parts = [
            self.engine.run({one.name: given[one.dtype][first : first + batch] for one in manifest.inputs})
            for first in range(0, count, batch)
        ]
        low, high = output.range or (-1.0, 1.0)
        return to_uint8(np.concatenate([part[output.name] for part in parts]), low, high)

    def close(self) -> None:
        self.engine.close()


class CheckpointSubject(EngineSubject):
    """A checkpoint in float32 torch, a picture whole at a time: the truth about the weights."""

    def __init__(self, found: Checkpoint) -> None:
        super().__init__("checkpoint", torch_engine(found, found.module))
        self.checkpoint = found

    def untrained(self) -> EngineSubject:
        """The same configuration with the weights that training starts from, batch norm's statistics settled.

        Unsettled, a random network's layers each shrink the signal, and its pictures are flat grey.
        """
        found = self.checkpoint
        module = checkpoint.random_module(found.spec, found.config, f"{RANDOM}0")
        signature = found.spec.signature(found.config)
        drawn = {
            "float32": torch.from_numpy(draw(0, 0, SETTLED_ON, signature.latent_size)),
            "int64": torch.from_numpy(draw_labels(0, 0, SETTLED_ON, max(signature.classes, 1))),
        }
        settle_batch_norm(module, [tuple(drawn[one.dtype] for one in signature.inputs)])
        return EngineSubject("untrained", torch_engine(found, module))


def open_bundle(folder: Path) -> EngineSubject:
    """The bundle in `folder`, on the first backend that can run it here. Raises BundleError, BackendUnavailable."""
    return EngineSubject("bundle", backends.open_engine(load(folder))[0])


def open_checkpoint(path: Path, model: str | None = None) -> CheckpointSubject:
    """The weights in `path`. model: as in `named_model`. Raises InvalidInput."""
    return CheckpointSubject(checkpoint.load(named_model(path, model), str(path)))


def named_model(path: Path, model: str | None = None) -> str:
    """The generator whose weights `path` holds: `model` where it is given, else what the file tells."""
    if model is not None:
        return model
    found = identify(path).model
    if not found:
        raise InvalidInput("model", f"is missing, and {path.name} does not say which generator it holds")
    return found


def torch_engine(found: Checkpoint, module: nn.Module) -> TorchEngine:
    """`module`, of the configuration of `found`, behind the door of the engines."""
    manifest = first_manifest(found, name=found.model, precision="float32")
    return TorchEngine(Bundle(Path(), manifest), module)
