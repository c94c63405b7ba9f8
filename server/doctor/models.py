"""What each backend says and computes, and how each bundle would be served. command.py calls the checks.

They need the serve extra.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyvips

from runtime import backends, bundle
from runtime.errors import GanforgeError
from runtime.signing import SIGNATURE
from server.doctor.finding import Finding
from server.doctor.self_test import difference, tiny_bundle
from server.models.opening import open_warm
from server.options import ModelChoice
from server.security.options import Security

BACKENDS, BUNDLES = "backends", "bundles"


def check_backends() -> Iterator[Finding]:
    """Each backend: the reason why it is not available, or what it made of the self-test's picture."""
    with tempfile.TemporaryDirectory(prefix="ganforge-doctor-") as folder:
        tiny = tiny_bundle(Path(folder))
        findings = [_backend(name, tiny) for name in backends.NAMES]
    yield from findings
    if not any(finding.status == "ok" and not finding.text.startswith("no: ") for finding in findings):
        yield Finding(
            BACKENDS, "any", "no backend runs the self-test here, so nothing can be served", "error"
        )


def _backend(name: str, tiny: bundle.Bundle) -> Finding:
    module = backends.load(name)
    reason = module.unavailable(tiny, None)
    if reason is not None:
        return Finding(BACKENDS, name, f"no: {reason}")
    try:
        engine = module.open_engine(tiny, None)
        try:
            largest, allowed = difference(engine)
        finally:
            engine.close()
    except GanforgeError as error:
        return Finding(BACKENDS, name, f"the self-test failed: {error}", "error")
    text = f"{engine.device} in {engine.precision}; the self-test differs by {largest:.1g} (at most {allowed:.1g})"
    return Finding(BACKENDS, name, text, "ok" if largest <= allowed else "error")


def check_pictures() -> Iterator[Finding]:
    """Whether libvips encodes and decodes a picture."""
    pixels = np.full((2, 3, 3), 128, np.uint8)
    version = ".".join(str(pyvips.version(part)) for part in range(3))
    try:
        encoded = pyvips.Image.new_from_array(pixels).pngsave_buffer()
        same = (pyvips.Image.new_from_buffer(encoded, "").numpy() == pixels).all()
    except pyvips.Error as error:
        yield Finding("software", "libvips", f"{version}: cannot write and read a PNG: {error}", "error")
        return
    yield Finding("software", "libvips", version, "ok" if same else "error")


def check_bundles(choice: ModelChoice, security: Security) -> Iterator[Finding]:
    """Each bundle of the folder: whether it is valid, and which backend would run it, as the server would open it."""
    try:
        folders = [path for path in sorted(choice.bundles.iterdir()) if (path / bundle.MANIFEST).is_file()]
    except OSError as error:
        yield Finding(
            BUNDLES, str(choice.bundles), f"{error.strerror}; name the folder with --bundles", "error"
        )
        return
    visible = [folder for folder in folders if not folder.name.startswith(".")]
    if not visible:
        yield Finding(BUNDLES, str(choice.bundles), "holds no bundle; build one with ganforge build", "error")
    for folder in visible:
        yield _bundle(folder, choice, security)


def _bundle(folder: Path, choice: ModelChoice, security: Security) -> Finding:
    began = time.monotonic()
    try:
        loaded = bundle.load(folder, security.trusted())
        engine, reason = open_warm(
            loaded, backend=choice.backend, device=choice.device, min_precision=choice.min_precision
        )
        engine.close()
    except GanforgeError as error:
        return Finding(BUNDLES, folder.name, str(error), "error")
    manifest = loaded.manifest
    megabytes = sum(file.bytes for file in manifest.files.values()) / 1e6
    seconds = time.monotonic() - began
    return Finding(
        BUNDLES,
        folder.name,
        f"{manifest.task}, {manifest.precision}, {megabytes:.1f} MB, version {loaded.version}, "
        f"{_signed(folder, security)}, warm in {seconds:.1f} s; "
        f"{reason}",
    )


def _signed(folder: Path, security: Security) -> str:
    if security.trust:
        return "signed by a trusted key"
    return "signed, not checked without --trust" if (folder / SIGNATURE).exists() else "not signed"
