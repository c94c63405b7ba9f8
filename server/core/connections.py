"""The connections of this process: who is at the other end, and how many bytes the kernel has received from there.

gRPC keeps a message that is not complete to itself: nothing in its API says how much of it has arrived. The kernel knows,
per connection (TCP_INFO of Linux; elsewhere nothing is known here). server/core/transit.py asks, so that half-sent messages
count.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Container, Mapping
from contextlib import suppress
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from urllib.parse import unquote

# Of struct tcp_info in linux/tcp.h, since Linux 4.1: ms since something came last, and bytes received.
TCP_FIGURES = struct.Struct("=52xI72xQ")
OPEN_FILES = "/proc/self/fd"
IPV6_MACHINE_BITS = 64

Address = tuple[str, int]


class Connections:
    """The connections that others opened to this process, by peer as gRPC writes it, such as "ipv4:192.0.2.1:4711"."""

    def __init__(self) -> None:
        self._descriptors: Mapping[Address, int] = {}

    def scan(self) -> None:
        """Look for all connections again. Takes a few ms per 1,000 open files."""
        names = os.listdir(OPEN_FILES) if os.path.isdir(OPEN_FILES) else []
        found = {address: int(name) for name in names if (address := _other_end(int(name)))}
        self._descriptors = found

    def received_bytes(self, peer: str) -> int | None:
        """Bytes that have arrived on a connection since it was opened; None if it is closed, or not found by `scan`."""
        address = address_of(peer)
        descriptor = self._descriptors.get(address) if address else None
        if descriptor is None or _other_end(descriptor) != address:
            return None
        figures = _figures(descriptor)
        return figures[1] if figures else None

    def silent(self, port: int, busy: Container[Address | None]) -> list[tuple[float, Address]]:
        """The connections to this process's `port` that are not in `busy`, with the seconds since anything came on them."""
        silent = []
        for address, descriptor in self._descriptors.items():
            if address not in busy and _other_end(descriptor) == address and _own_port(descriptor) == port:
                figures = _figures(descriptor)
                if figures:
                    silent.append((figures[0] / 1e3, address))
        return silent

    def hang_up(self, address: Address) -> None:
        """End a connection. gRPC notices, and closes it."""
        descriptor = self._descriptors.get(address)
        if descriptor is None or _other_end(descriptor) != address:
            return
        connection = _opened(descriptor)
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.detach()


@lru_cache(4096)
def machine(peer: str) -> str:
    """The machine behind a peer: its address, for IPv6 its network, of which one machine may use every address."""
    address = address_of(peer)
    if address is None:
        return peer
    ip = ip_address(address[0])
    return str(ip_network((ip, IPV6_MACHINE_BITS), strict=False)) if isinstance(ip, IPv6Address) else str(ip)


@lru_cache(4096)
def address_of(peer: str) -> Address | None:
    """The address of a peer as gRPC writes it; None if it is none of TCP."""
    kind, _, rest = peer.partition(":")
    host, _, port = unquote(rest).rpartition(":")
    return _plain(host.strip("[]"), int(port)) if kind in ("ipv4", "ipv6") and port.isdecimal() else None


@lru_cache(4096)
def _plain(host: str, port: int) -> Address | None:
    """An address in the one way it is written here; None if it is none."""
    try:
        ip = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
    return str(mapped or ip), port


def _opened(descriptor: int) -> socket.socket:
    """A connection of gRPC's, to be asked and then detached, not closed. Raises OSError if the file is no socket."""
    return socket.socket(socket.AF_INET6, socket.SOCK_STREAM, 0, descriptor)  # fits IPv4 as well


def _other_end(descriptor: int) -> Address | None:
    try:
        connection = _opened(descriptor)
    except OSError:
        return None
    try:
        name = connection.getpeername()
    except OSError:
        return None
    finally:
        connection.detach()
    return _plain(name[0], name[1]) if isinstance(name, tuple) else None


def _own_port(descriptor: int) -> int:
    connection = _opened(descriptor)
    try:
        return int(connection.getsockname()[1])
    finally:
        connection.detach()


def _figures(descriptor: int) -> tuple[int, int] | None:
    """Milliseconds since something came last on a connection, and bytes received in all; None if the kernel tells neither."""
    connection = _opened(descriptor)
    try:
        silence_ms, received_bytes = TCP_FIGURES.unpack(
            connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_FIGURES.size)
        )
        return silence_ms, received_bytes
    except (OSError, struct.error):
        return None
    finally:
        connection.detach()
