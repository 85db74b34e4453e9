"""An application that a browser opens: served on loopback, from a thread of the tests."""

import socket
import threading
import time
from contextlib import contextmanager

import uvicorn

__all__ = ["DESK", "HOSTILE", "served"]

HOSTILE = "<img src=x onerror=alert(1)>\"'{{7*7}}</title><script>alert(2)</script>"
"""A name that is an attack."""

DESK = {"width": 1360, "height": 900}


@contextmanager
def served(app):
    """Serve an application on loopback while the block runs, and give its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()
