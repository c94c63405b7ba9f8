"""Subject: what can be measured, be it a checkpoint, a bundle, the bicubic baseline or a server's model.

`python -m export.evaluate` opens one (`open_checkpoint`, `open_bundle`); restoration.py and sampling.py measure it. The
subject for a running server is in export/evaluate.py, the only file of export/ that may import the client.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from export.build.reference import CPU, TorchEngine, first_manifest
from export.checkpoints import checkpoint
from export.checkpoints.checkpoint import RANDOM, Checkpoint
from export.checkpoints.identification import named_model
from export.data.resize import resize
from export.networks.batch_norm import recalibrate_batch_norm
from runtime import backends, latents, tasks
from runtime.backends.base import Engine
from runtime.bundle import Bundle, load
from runtime.errors import InvalidInput
from runtime.pixels import to_float, to_uint8
from runtime.sample_work import run_samples
from runtime.tasks import Task
from runtime.tasks.upscale import UPSCALE
from runtime.tensors import Array
from runtime.tiling.inline import run_picture

# Samples are drawn in blocks, each with its own seed, because a server limits the samples of one call.
BLOCK = 100
SEEDS_PER_RUN = 2**20
# An untrained generator's batch norm gets its statistics from this many samples.
UNTRAINED_SAMPLES = 256


class Subject:
    """What is measured. If `task.source` is "picture", `convert` works; if it is "latents", `samples` does.

    kind: "checkpoint", "untrained", "bundle", "server" or "bicubic". name: of the model. scale: output pixels per input
    pixel along a side. classes: the number of classes; 0 if it takes no labels. class_names: their names, or (). notes:
    what the user should know about how a file was read.
    """

    notes: tuple[str, ...] = ()

    def __init__(
        self,
        kind: str,
        name: str,
        task: Task,
        *,
        scale: int = 1,
        classes: int = 0,
        class_names: tuple[str, ...] = (),
    ) -> None:
        self.kind, self.name, self.task = kind, name, task
        self.scale, self.classes, self.class_names = scale, classes, class_names

    def convert(self, image: Array) -> Array:
        """The network's answer to a picture: [H, W, 3] uint8 → [S·H, S·W, 3] uint8. Raises InvalidInput."""
        raise InvalidInput("subject", f"{self.name} draws samples, it takes no pictures")

    def samples(self, count: int, labels: Array | None, seed: int) -> Array:
        """Samples 0 … count - 1 of `seed`: [N, C, H, W] uint8. Raises InvalidInput.

        labels: [N] int64, the class of each sample; None to draw them from the seed, or if the model has no classes.
        """
        raise InvalidInput("subject", f"{self.name} takes pictures, it does not draw samples")

    def close(self) -> None:
        """Free the engine or the connection."""


class BicubicSubject(Subject):
    """Bicubic interpolation as MATLAB computes it, the baseline of super-resolution papers."""

    def __init__(self, scale: int) -> None:
        super().__init__("bicubic", "bicubic", UPSCALE, scale=scale)

    def convert(self, image: Array) -> Array:
        return resize(image, self.scale)


class EngineSubject(Subject):
    """A model that an engine runs. Pictures are tiled as on a server; without tile sizes in the manifest they run whole."""

    def __init__(self, kind: str, engine: Engine) -> None:
        manifest = engine.manifest
        super().__init__(
            kind,
            manifest.name,
            tasks.of(manifest),
            scale=manifest.scale,
            classes=manifest.classes,
            class_names=manifest.class_names,
        )
        self.engine = engine

    def convert(self, image: Array) -> Array:
        if self.task.source != "picture":
            return super().convert(image)
        manifest = self.engine.manifest
        for spec, direction in ((manifest.inputs[0], "takes"), (manifest.outputs[0], "gives")):
            if spec.shape[1] != 3:
                raise InvalidInput(
                    "subject", f"{self.name} {direction} {spec.shape[1]} channels, expected the 3 of RGB"
                )
        answer = run_picture(self.engine, to_float(image))
        return to_uint8(answer.transpose(1, 2, 0))

    def samples(self, count: int, labels: Array | None, seed: int) -> Array:
        if self.task.source != "latents":
            return super().samples(count, labels, seed)
        manifest = self.engine.manifest
        if labels is None:
            labels = latents.draw_labels(seed, 0, count, max(manifest.classes, 1))
        drawn = latents.draw(seed, 0, count, manifest.latent_size)
        return to_uint8(run_samples(self.engine, drawn, labels))

    def close(self) -> None:
        self.engine.close()


class CheckpointSubject(EngineSubject):
    """A checkpoint run in float32 torch, with whole pictures."""

    def __init__(self, trained: Checkpoint, device: torch.device) -> None:
        super().__init__("checkpoint", torch_engine(trained, trained.module, device))
        self.checkpoint, self.device, self.notes = trained, device, trained.notes

    def untrained(self) -> EngineSubject:
        """The same configuration with random initial weights, as before training.

        Its batch-norm statistics are measured: otherwise each layer would shrink the signal, and all samples would be grey.
        """
        trained = self.checkpoint
        module = checkpoint.random_module(trained.spec, trained.config, f"{RANDOM}0")
        signature = trained.spec.signature(trained.config)
        by_dtype = {
            "float32": torch.from_numpy(latents.draw(0, 0, UNTRAINED_SAMPLES, signature.latent_size)),
            "int64": torch.from_numpy(
                latents.draw_labels(0, 0, UNTRAINED_SAMPLES, max(signature.classes, 1))
            ),
        }
        recalibrate_batch_norm(module, [tuple(by_dtype[spec.dtype] for spec in signature.inputs)])
        return EngineSubject("untrained", torch_engine(trained, module, self.device))


def open_bundle(folder: Path) -> EngineSubject:
    """The bundle in `folder`, on the first backend that can run it here. Raises BundleError, BackendUnavailable."""
    return EngineSubject("bundle", backends.open_engine(load(folder))[0])


def open_checkpoint(
    path: Path,
    model: str | None = None,
    overrides: Mapping[str, str] | None = None,
    device: torch.device = CPU,
) -> CheckpointSubject:
    """The checkpoint in `path`, on `device`. Raises InvalidInput.

    model: the family, if the file does not say it. overrides: for settings that the file leaves open.
    """
    return CheckpointSubject(checkpoint.load(named_model(path, model), str(path), overrides), device)


def torch_engine(trained: Checkpoint, module: nn.Module, device: torch.device) -> TorchEngine:
    """An engine that runs `module`, which has the configuration of `trained`."""
    manifest = first_manifest(trained, name=trained.model, precision="float32")
    return TorchEngine(Bundle(Path(), manifest), module, device=device)
