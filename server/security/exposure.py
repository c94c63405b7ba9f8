"""Refuses to serve more openly than the operator asked for. server/__main__.py calls these before it listens."""

from __future__ import annotations

import resource

from runtime.errors import InvalidInput
from server.machine.addresses import is_loopback


def check_exposure(host: str, *, tls: bool, insecure: bool) -> None:
    """Raises InvalidInput if pictures and tokens of other machines would cross the network unencrypted.

    host: to listen on. tls: whether connections are encrypted. insecure: whether the operator gave --insecure.
    """
    if not (tls or insecure or is_loopback(host)):
        raise InvalidInput(
            "--host",
            f"{host or 'an empty host'} can be reached from other machines, and what they send would cross the network "
            "unencrypted; give --tls-cert and --tls-key, or listen on 127.0.0.1, or give --insecure if something in "
            "front of the server (a proxy, a private network) protects it",
        )


def forbid_core_dumps() -> None:
    """No core files of this process: they would hold keys, tokens' hashes and clients' pictures."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
