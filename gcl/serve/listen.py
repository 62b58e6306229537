"""The page's port, taken before any model is loaded, and the names under which the server may be asked."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from gcl.errors import ConfigError

LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")
_BACKLOG = 2048
_ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


@dataclass(frozen=True)
class Names:
    """Host names that a server answers to, so that no page can point a name of its own at it (DNS rebinding).

    >>> names = Names(("Shop.example",), addresses=True)
    >>> names.answer("shop.example:8765"), names.answer("192.0.2.7:80"), names.answer("[2001:db8::1]:80")
    (True, True, True)
    >>> names.answer("other.example"), names.answer(""), Names(("localhost",)).answer("192.0.2.7")
    (False, False, False)
    """

    names: Sequence[str]
    """`*` is every name."""
    addresses: bool = False
    """Whether every IP address is answered to as well: nobody can point one of those somewhere else."""

    def answer(self, host: str) -> bool:
        name = name_of(host)
        if "*" in self.names or name in [known.lower() for known in self.names]:
            return True
        try:
            return self.addresses and bool(ip_address(name.strip("[]")))
        except ValueError:
            return False


def names_of(host: str, named: Sequence[str] = ()) -> Names:
    """What a server at this address answers to: on loopback its names there, elsewhere every address and the names of
    this machine; and those that are given."""
    if host in LOOPBACK:
        return Names((*LOOPBACK, *named))
    own = socket.gethostname()
    return Names((*LOOPBACK, host, own, own.partition(".")[0] + ".local", *named), addresses=True)


def name_of(host: str) -> str:
    """A Host header without its port.

    >>> name_of("127.0.0.1:8000"), name_of("[::1]:80"), name_of("LOCALHOST")
    ('127.0.0.1', '[::1]', 'localhost')
    """
    return (host if host.endswith("]") else host.rpartition(":")[0] or host).lower()


def listen(host: str, port: int) -> list[socket.socket]:
    """Sockets that listen at every address of the host; who connects waits until the server begins.

    Raises ConfigError: the port is taken or not allowed, or this machine has no such host.
    """
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ConfigError(_no_address(host)) from error
    listening: list[socket.socket] = []
    absent: OSError | None = None
    for family, kind, protocol, _, address in dict.fromkeys(found):
        try:
            listening.append(_listening(socket.socket(family, kind, protocol), address))
        except OSError as error:
            if error.errno not in _ABSENT:
                close(listening)
                raise ConfigError(_sentence(error, host, port)) from error
            absent = error  # localhost is ::1, too, where IPv6 is switched off
    if not listening:
        raise ConfigError(_no_address(host)) from absent
    return listening


def close(sockets: Sequence[socket.socket]) -> None:
    for one in sockets:
        one.close()


def _listening(one: socket.socket, address: tuple) -> socket.socket:
    try:
        if os.name == "posix":  # elsewhere the option lets two servers have one port
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if one.family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind(address)
        one.listen(_BACKLOG)  # until then a second server could bind the port as well
    except OSError:
        one.close()
        raise
    return one


def _sentence(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        another = port + 1 if port < 65_535 else port - 1
        return (
            f"port={port} is taken at {host}: another program, perhaps another gcl search, answers there. Stop it, or "
            f"choose another port, for example port={another}."
        )
    if error.errno == errno.EACCES:
        return f"port={port} may not be used without more rights: choose one from 1024 on, for example port=8765."
    return f"The page cannot be served at host={host} port={port}: {error.strerror}."


def _no_address(host: str) -> str:
    return (
        f"host={host} is no address of this machine: give 127.0.0.1 (this machine alone), 0.0.0.0 (everyone), or one "
        "of its own."
    )
