"""Ports for servers that other processes begin, and so later."""

import random
import socket
from contextlib import suppress


def free_port() -> int:
    """A port of the loopback that the system gives to nobody who asks for any: those are 32768 and up."""
    while True:
        port = random.SystemRandom().randrange(10_000, 32_768)
        with socket.socket() as one, suppress(OSError):
            one.bind(("127.0.0.1", port))
            return port
