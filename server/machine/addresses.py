"""Tells addresses of this machine alone from those that others can reach. The server and the client use it."""

from __future__ import annotations

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether `host` is `localhost` or an address of 127.0.0.0/8 or ::1. Any other name counts as reachable by others."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_of(target: str) -> str:
    """The host of a gRPC target: "[::1]:50051", "dns:///example.org:443" and "ipv4:127.0.0.1:50051" have one.

    A Unix socket counts as localhost. Empty if the target names no host.
    """
    scheme, _, rest = target.partition(":")
    if scheme in ("unix", "unix-abstract"):
        return "localhost"
    if scheme in ("dns", "ipv4", "ipv6"):
        target = rest.removeprefix("//").rpartition("/")[2]
    if target.startswith("["):
        return target[1:].partition("]")[0]
    host, colon, _ = target.rpartition(":")
    return host if colon else target
