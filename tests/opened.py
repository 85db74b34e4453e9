"""An application that a browser opens: served on loopback, from a thread of the tests."""

import socket
import threading
import time
from contextlib import contextmanager

import uvicorn
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

__all__ = ["DESK", "HOSTILE", "PHONE", "faults", "first_content", "headed", "only_red", "served", "settled"]

HOSTILE = "<img src=x onerror=alert(1)>\"'{{7*7}}</title><script>alert(2)</script>"
"""A name that is an attack."""

DESK = {"width": 1360, "height": 900}
PHONE = {"width": 390, "height": 844}
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"], "resultTypes": ["violations"]}

PATIENCE = 60_000
"""Milliseconds after which something does not come any more: a machine may be busy with other work, and nothing is measured by it."""

expect.set_options(timeout=PATIENCE)

ROUND_TRIP = 0.15
BYTES_PER_SECOND = 1_600_000 / 8
"""A slow 4G line: 150 ms there and back, 1.6 Mbit a second."""

LOADED = """performance.getEntries().filter(e => e.transferSize !== undefined).map(e => ({
  address: e.name,
  bytes: e.transferSize,
  by: e.initiatorType,
  first: e.entryType === "navigation" || e.renderBlockingStatus === "blocking",
}))"""
"""What a page was put together from, and whether it was needed before anything was painted."""


def headed(page, title):
    """Wait until a page is there, by its heading."""
    expect(page.get_by_role("heading", level=1, name=title, exact=True)).to_be_visible()


def only_red(page):
    """Wait until the list holds accounts in red and no others."""
    rows, red = page.locator("table.book tbody tr"), page.locator(".mark.fill-red")
    expect(rows.filter(has=red).first).to_be_visible()
    expect(rows.filter(has_not=red)).to_have_count(0)


def settled(page):
    """Wait until a page has fetched the parts that come after it."""
    expect(page.locator("[hx-trigger=load], .htmx-request")).to_have_count(0)


def faults(page, addresses):
    """Return by address the rules of accessibility that a page breaks, and whether it is wider than the screen."""
    axe, found = Axe(), {}
    for address in addresses:
        page.goto(address)
        settled(page)
        broken = [(one["id"], one["nodes"][0]["html"][:200]) for one in axe.run(page, options=RULES).response["violations"]]
        wide = page.evaluate("document.documentElement.scrollWidth") > page.viewport_size["width"]
        if broken or wide:
            found[address] = [*broken, *["wider than the screen"] * wide]
    return found


def first_content(page, address):
    """Hold a page that was opened before to showing its first content within a second on a slow 4G line, and to 300 kB in all.

    What the line takes follows from what the browser fetched over a connection that is open: the document, and then what must be there
    before it paints (it paints before the document is whole, so this is the most). To that come the processor time of this process, which
    serves, and 100 ms for the browser; no clock on the wall is read, which would tell how busy the machine is.
    """
    line = page.context.new_cdp_session(page)
    line.send("Network.enable")
    line.send("Network.setCacheDisabled", {"cacheDisabled": True})
    spent = []
    for _ in range(3):
        started = time.process_time()
        page.goto(address)
        spent.append(time.process_time() - started)
    loaded = page.evaluate(LOADED)
    line.detach()
    needed = [one for one in loaded if one["first"]]
    assert {one["by"] for one in needed} == {"navigation", "link"}, "a style sheet that asks for another costs one more round trip"
    assert 2 * ROUND_TRIP + sum(one["bytes"] for one in needed) / BYTES_PER_SECOND + min(spent) < 0.9, (address, needed, spent)
    assert sum(one["bytes"] for one in loaded) < 300_000, (address, loaded)


@contextmanager
def served(app):
    """Serve an application on loopback while the block runs, and give its address."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5))  # a browser may leave a request open
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive(), "the application did not start"
                time.sleep(0.02)
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
