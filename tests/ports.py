"""Ports for servers of the tests."""

import random
import socket

__all__ = ["free_port"]


def free_port() -> int:
    """Return a port at which nobody listens; no connection takes it before a server does, as systems give theirs higher ones."""
    while True:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
