"""What lets an operator watch a server: metrics for Prometheus and traces, each only if it is asked for.

server/__main__.py makes a Monitors before the models are warm, and closes it last.
"""

from __future__ import annotations

import os

from server.core.service import Service
from server.monitoring import tracing
from server.monitoring.metrics import Metrics
from server.monitoring.port import MetricsPort
from server.options import Monitoring
from server.security.certificates import Certificates


class Monitors:
    """The metrics and traces of a service. Raises BackendUnavailable if the metrics' address cannot be used.

    certificates: the server's; None if it does not speak TLS. url: where Prometheus scrapes; None for nowhere.
    """

    def __init__(
        self, service: Service, settings: Monitoring, certificates: Certificates | None = None
    ) -> None:
        self._port: MetricsPort | None = None
        if settings.metrics_port is not None:
            registry = Metrics(service, certificates).registry
            self._port = MetricsPort(registry, settings.metrics_host, settings.metrics_port)
        self._tracing = tracing.from_environment(os.environ)
        if self._tracing:
            service.observe(self._tracing)

    @property
    def url(self) -> str | None:
        """Where Prometheus scrapes; None for nowhere."""
        return self._port.url if self._port else None

    def close(self) -> None:
        """Export the last spans and stop listening."""
        if self._tracing:
            self._tracing.close()
        if self._port:
            self._port.close()
