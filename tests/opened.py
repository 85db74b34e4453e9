"""An application that a browser opens: served on loopback, from a thread of the tests."""

import socket
import threading
import time
from contextlib import contextmanager

import pytest
import uvicorn

__all__ = ["DESK", "HOSTILE", "PHONE", "faults", "served"]

HOSTILE = "<img src=x onerror=alert(1)>\"'{{7*7}}</title><script>alert(2)</script>"
"""A name that is an attack."""

DESK = {"width": 1360, "height": 900}
PHONE = {"width": 390, "height": 844}
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"], "resultTypes": ["violations"]}


def faults(page, addresses):
    """Return by address the rules of accessibility that a page breaks, and whether it is wider than the screen."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python").Axe()
    found = {}
    for address in addresses:
        page.goto(address)
        broken = [(one["id"], one["nodes"][0]["html"][:200]) for one in axe.run(page, options=RULES).response["violations"]]
        wide = page.evaluate("document.documentElement.scrollWidth") > page.viewport_size["width"]
        if broken or wide:
            found[address] = [*broken, *["wider than the screen"] * wide]
    return found


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
