"""Whether a server would start with these certificates, tokens and keys, and who could call it. command.py calls `check`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from runtime.errors import GanforgeError
from server.doctor.finding import Finding
from server.options import Settings

SECTION = "security"


def check(settings: Settings) -> Iterator[Finding]:
    """A finding each for TLS, for who may call and for the keys of bundles."""
    security = settings.security
    host = settings.listening.host

    def tls() -> str:
        certificates = security.certificates(host)
        return f"{host}: " + ("encrypted" if certificates else "not encrypted")

    def callers() -> str:
        security.access()
        return security.summary()["callers"]

    def bundles() -> str:
        security.trusted()
        return security.summary()["bundles"]

    looked_at: dict[str, Callable[[], str]] = {"connections": tls, "callers": callers, "bundles": bundles}
    for name, look in looked_at.items():
        try:
            yield Finding(SECTION, name, look())
        except GanforgeError as error:
            yield Finding(SECTION, name, str(error), "error")
