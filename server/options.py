"""The flags of `python -m server`, in groups, and the settings that they become. server/__main__.py reads both.

A new flag is a field of its group's dataclass and one line in the group; a new group is also a line in GROUPS and a field
of Settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, get_args

import click

from runtime import backends, tasks
from runtime.tensors import Precision, TaskName
from server.limits import Limits
from server.option_groups import Group, limit, option
from server.security.options import SECURITY, Security


@dataclass(frozen=True)
class Listening:
    """Where the server listens and how it stops. grace_s: seconds that running calls get to finish."""

    host: str = "127.0.0.1"
    port: int = 50051
    grace_s: float = 30.0


@dataclass(frozen=True)
class ModelChoice:
    """Which bundles are served and by which engines.

    defaults: for each task, the model for requests that name none. backend, device, min_precision: as for
    `runtime.backends.open_engine`. watch: follow the folder while serving. lazy: open models when they are called.
    max_models_bytes: estimated memory of the open models.
    """

    bundles: Path
    backend: str = "auto"
    defaults: Mapping[TaskName, str] = field(default_factory=dict)
    device: str | None = None
    min_precision: Precision | None = None
    watch: bool = False
    lazy: bool = False
    max_models_bytes: int | None = None


@dataclass(frozen=True)
class Monitoring:
    """Where Prometheus scrapes. metrics_port: None for nowhere, 0 for a free one."""

    metrics_port: int | None = None
    # The metrics are read without a token and without TLS, so they are for this machine unless the operator says otherwise.
    metrics_host: str = "127.0.0.1"


@dataclass(frozen=True)
class Settings:
    """All settings of a server; a field for each group of GROUPS."""

    models: ModelChoice
    listening: Listening = field(default_factory=Listening)
    limits: Limits = field(default_factory=Limits)
    monitoring: Monitoring = field(default_factory=Monitoring)
    security: Security = field(default_factory=Security)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Settings:
        """The settings out of the values of all flags, by parameter name."""
        return cls(**{group.table: group.read(values) for group in GROUPS})


def _parse_defaults(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[TaskName, str]:
    """Parse the values of --default, TASK=MODEL each. Raises click.BadParameter."""
    by_name = {str(task): task for task in tasks.ALL}
    defaults: dict[TaskName, str] = {}
    for value in values:
        name, _, model = value.partition("=")
        if name not in by_name or not model:
            raise click.BadParameter(f"got {value!r}, expected TASK=MODEL, TASK one of {', '.join(by_name)}")
        if by_name[name] in defaults:
            raise click.BadParameter(
                f"got two models for {name}, {defaults[by_name[name]]} and {model}, expected one"
            )
        defaults[by_name[name]] = model
    return defaults


MODELS = Group(
    "Models",
    "models",
    ModelChoice,
    [
        option(
            "--bundles",
            click.Path(path_type=Path),
            "Folder of bundles. All of them are served.",
            required=True,
        ),
        option(
            "--backend",
            click.Choice(["auto", *backends.NAMES]),
            "Engine library; auto takes, for each bundle, the first that can run it on this machine.",
            default="auto",
        ),
        click.Option(
            ["--default", "defaults"],
            envvar="GANFORGE_SERVE_DEFAULT",
            metavar="TASK=MODEL",
            multiple=True,
            callback=_parse_defaults,
            help="Model for requests of that task that name no model, e.g. upscale=esrgan-x4. Repeat for other tasks. "
            "[default: the task's only model, else the first that `make demo` builds]",
        ),
        option(
            "--device",
            str,
            "Device: CPU, cuda:0, …; several share the work: cuda:0,cuda:1, or cuda:all for every GPU.  "
            "[default: the fastest available]",
        ),
        option(
            "--min-precision",
            click.Choice(get_args(Precision)),
            "Lowest precision to compute in, e.g. bfloat16 to run float16 bundles faster on a CPU that supports it.  "
            "[default: each bundle's own]",
        ),
        option(
            "--watch",
            bool,
            "Add, replace and remove models when the folder changes; it may be empty at first. "
            "Without it, they follow the folder on SIGHUP and on `ganforge reload`.",
            is_flag=True,
            default=False,
        ),
        option(
            "--lazy",
            bool,
            "Open a model only when a request needs it, which waits until then.",
            is_flag=True,
            default=False,
        ),
        option(
            "--max-models-bytes",
            click.IntRange(min=1),
            "Most memory, in bytes, that open models are estimated to take. With --lazy, the one that was not used for the "
            "longest time is closed for another; otherwise a model that does not fit is refused.  [default: no limit]",
        ),
    ],
)

LISTENING = Group(
    "Listening and stopping",
    "listening",
    Listening,
    [
        option("--host", str, "Address to listen on; 0.0.0.0 for all interfaces.", default=Listening.host),
        option(
            "--port",
            click.IntRange(0, 65535),
            "Port to listen on; 0 for a free one.",
            default=Listening.port,
        ),
        option(
            "--grace-s",
            click.FloatRange(min=0),
            "Seconds that running calls get to finish after Ctrl-C or SIGTERM.",
            default=Listening.grace_s,
        ),
    ],
)

_limit = partial(limit, Limits)
LIMITS = Group(
    "Limits",
    "limits",
    Limits,
    [
        _limit("--max-pixels", "Most pixels of an input image."),
        _limit(
            "--max-output-pixels", "Most pixels of an answer; of all samples of a Generate request together."
        ),
        _limit("--max-count", "Most samples of a Generate request."),
        _limit("--max-message-bytes", "Most bytes of a gRPC message, in either direction."),
        _limit("--max-upload-bytes", "Most bytes of an image uploaded in pieces."),
        _limit("--max-uploads-bytes", "Most bytes of all images being uploaded in pieces, together."),
        _limit(
            "--max-active-bytes",
            "Most memory, in bytes, of all running requests and their answers; one request may have three quarters of it.",
        ),
        _limit(
            "--max-disk-bytes",
            "Most bytes of temporary files: uploads, and answers that are too large for memory.",
        ),
        _limit(
            "--max-queue-pixels",
            "Most pixels of all waiting requests; further requests are refused at once.",
        ),
        _limit(
            "--max-queue-s",
            "Most seconds of work, as estimated, of all waiting requests; further requests are refused at once.",
        ),
        _limit("--max-calls", "Most calls open at once."),
        _limit(
            "--max-calls-per-client",
            "Most calls from one address open at once. Behind a proxy, set it to --max-calls.",
        ),
        _limit("--max-watches", "Most health watches open at once; one client may have half of them."),
        _limit(
            "--max-transit-bytes",
            "Most memory, in bytes, of messages that arrive or are held by calls, and of answers that leave; the slowest "
            "clients' calls are ended beyond it.",
        ),
        _limit("--idle-s", "Seconds without progress after which a call is ended."),
        _limit("--min-rate-bytes-s", "Fewest bytes a second that a client must send or take."),
    ],
)

MONITORING = Group(
    "Metrics",
    "monitoring",
    Monitoring,
    [
        option(
            "--metrics-port",
            click.IntRange(0, 65535),
            "Port of the metrics for Prometheus, at /metrics; 0 for a free one.  [default: no metrics]",
        ),
        option(
            "--metrics-host",
            str,
            "Address of that port. Whoever reaches it reads the metrics: it asks for no token and is plain HTTP.",
            default=Monitoring.metrics_host,
        ),
    ],
)

GROUPS = (MODELS, LISTENING, SECURITY, LIMITS, MONITORING)
