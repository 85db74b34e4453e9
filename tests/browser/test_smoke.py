"""The whole service as people meet it: BentoML's process tree, a real browser, a vendor and a partner."""

import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from playwright.sync_api import expect

from serving.app import sign_in_links
from tests.opened import PATIENCE, PHONE, headed, only_red, settled
from tests.ports import free_port

SERVE = """
import sys
from pathlib import Path
from features.workspace import load_workspace
from serving.service import serve
serve(load_workspace(Path(sys.argv[1]), {}), host="127.0.0.1", port=int(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def workspace(copy_of):
    return copy_of()


@pytest.fixture(scope="module")
def address(workspace):
    port = free_port()
    service = subprocess.Popen([sys.executable, "-c", SERVE, str(workspace.folder), str(port)], stdout=subprocess.PIPE)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(address, service)
        yield address
        service.send_signal(signal.SIGTERM)
        assert service.wait(timeout=90) == 0
        assert service.stdout.read() == b"", "standard output belongs to the command's summary"
    finally:
        if service.poll() is None:
            service.kill()
            service.wait()
        service.stdout.close()


def wait_until_ready(address, service, seconds=90):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert service.poll() is None, "the service ended before it was ready"
        try:
            with urllib.request.urlopen(f"{address}/readyz", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise AssertionError(f"not ready after {seconds} seconds")


@pytest.fixture
def page(browser):
    context = browser.new_context(viewport={"width": 1360, "height": 900})
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    complaints = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    context.close()
    assert complaints == [], "the browser complained, perhaps about the content security policy"


def test_the_vendor_goes_from_the_book_to_an_account_and_back(page, address, workspace):
    page.goto(sign_in_links(workspace, address=address).vendor)
    headed(page, "The book")
    page.get_by_label("Health").select_option("red")
    page.wait_for_url("**/?band=red")
    only_red(page)
    first = page.locator("table.book tbody a").first
    name = first.inner_text()
    first.click()
    headed(page, name)
    expect(page.get_by_role("heading", name="Why it might leave")).to_be_visible()
    expect(page.locator("svg.fall rect.bad").first).to_be_visible()
    page.get_by_role("link", name="← The book").click()
    headed(page, "The book")


def test_a_partner_sees_its_accounts_and_signs_out(page, address, workspace):
    page.goto(sign_in_links(workspace, address=address).partner)
    headed(page, "Your accounts")
    expect(page.locator(".who")).to_contain_text("Northwind Consulting")
    page.get_by_role("button", name="Sign out").click()
    headed(page, "Sign in")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_a_phone_and_can_be_read(browser, address, workspace, scheme):
    context = browser.new_context(viewport=PHONE, color_scheme=scheme)
    page = context.new_page()
    page.goto(sign_in_links(workspace, address=address).vendor)
    for path in ("/", "/accounts/acc-0100"):
        page.goto(address + path)
        settled(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        poor = page.evaluate(CONTRAST)
        assert poor == []
    context.close()


CONTRAST = """() => {
  const channel = v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = c => .2126 * channel(c[0]) + .7152 * channel(c[1]) + .0722 * channel(c[2]);
  const rgb = text => text.match(/[\\d.]+/g).map(Number);
  const ground = e => {
    for (; e; e = e.parentElement) {
      const c = rgb(getComputedStyle(e).backgroundColor);
      if (c.length < 4 || c[3] > 0) return c;
    }
    return [255, 255, 255];
  };
  const poor = new Set();
  for (const e of document.querySelectorAll('main *, header *, footer *')) {
    const says = [...e.childNodes].some(n => n.nodeType == 3 && n.textContent.trim());
    if (!says || !e.getClientRects().length || e.closest('svg')) continue;
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(ground(e))].sort((x, y) => y - x);
    const ratio = (a + .05) / (b + .05);
    if (ratio < 4.5) poor.add(e.className + ': ' + e.textContent.trim().slice(0, 30) + ' ' + ratio.toFixed(2));
  }
  return [...poor];
}"""
