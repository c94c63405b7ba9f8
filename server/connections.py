"""The connections of this process: who is at the other end, and how many bytes the kernel has received from there.

gRPC keeps a message that is not complete to itself: nothing in its API says how much of it has arrived. The kernel knows,
per connection (TCP_INFO of Linux; elsewhere nothing is known here). server/receiving.py asks, so that half-sent messages
count.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Mapping
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from urllib.parse import unquote

# Of struct tcp_info in linux/tcp.h, since Linux 4.1.
BYTES_RECEIVED = struct.Struct("=128xQ")
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
        address = _address(peer)
        descriptor = self._descriptors.get(address) if address else None
        if descriptor is None or _other_end(descriptor) != address:
            return None
        connection = _opened(descriptor)
        try:
            info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, BYTES_RECEIVED.size)
            return int(BYTES_RECEIVED.unpack(info)[0])
        except (OSError, struct.error):
            return None
        finally:
            connection.detach()


@lru_cache(4096)
def machine(peer: str) -> str:
    """The machine behind a peer: its address, for IPv6 its network, of which one machine may use every address."""
    address = _address(peer)
    if address is None:
        return peer
    ip = ip_address(address[0])
    return str(ip_network((ip, IPV6_MACHINE_BITS), strict=False)) if isinstance(ip, IPv6Address) else str(ip)


@lru_cache(4096)
def _address(peer: str) -> Address | None:
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
