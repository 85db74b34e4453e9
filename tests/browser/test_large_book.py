"""Fifty thousand accounts: a page stays a page, and nobody waits for the book behind it."""

import re

import pytest

from serving.app import create_app
from serving.permissions.caller import VENDOR, Caller
from tests.large_book import enlarge
from tests.opened import served

ACCOUNTS = 50_000
ROWS = 50
"""On a page of the list."""

SLOW = {"offline": False, "latency": 150, "downloadThroughput": 1_600_000 / 8, "uploadThroughput": 750_000 / 8}
"""A slow 4G line: 150 ms there and back, 1.6 Mbit a second."""


@pytest.fixture(scope="module")
def large_app(copy_of):
    workspace = copy_of()
    enlarge(workspace, ACCOUNTS)
    return create_app(workspace)


@pytest.fixture(scope="module")
def large(large_app):
    with served(large_app) as address:
        yield address


def shown(page):
    return page.locator("table.book tbody tr").count()


def total(page):
    return int(page.get_by_role("status").first.inner_text().replace(",", ""))


@pytest.mark.parametrize("caller", [VENDOR, Caller("p1")])
def test_a_page_is_small_whatever_is_asked_of_it(visitors, large_app, large, caller):
    page = visitors(large_app, large, caller)
    whole = total(page)
    assert whole == ACCOUNTS if caller.is_vendor else 0 < whole < ACCOUNTS
    sizes = []
    page.on("response", lambda response: sizes.append(len(response.body())) if "/static/" not in response.url else None)
    for address in ("/", "/?view=growth", "/?band=red&sort=name", "/?search=opal", "/?renewal=90&page=3", "/?csm=Ada+Moreau"):
        page.goto(large + address, wait_until="load")
        assert shown(page) == ROWS, address
        assert 0 < total(page) <= whole
    assert max(sizes) < 300_000


def test_one_finds_sorts_and_turns_pages_in_place(visitors, large_app, large):
    page = visitors(large_app, large, VENDOR)
    asked = []
    page.on("request", lambda request: asked.append(request.url) if request.is_navigation_request() else None)
    page.get_by_label("Health").select_option("red")
    page.wait_for_url("**/?band=red")
    assert shown(page) == page.locator("tbody .mark.fill-red").count() == ROWS
    page.get_by_role("searchbox").fill("opal foods 17")
    page.wait_for_url("**/?search=opal*")
    assert asked == []
    assert total(page) == page.get_by_role("link", name=re.compile("^Opal Foods 17")).count()


def test_the_first_content_is_there_within_a_second_on_a_slow_line(visitors, large_app, large):
    page = visitors(large_app, large, VENDOR)
    account = page.locator("table.book tbody th a").first.get_attribute("href")
    page.goto(large + account)  # what a service works out once for a score set
    line = page.context.new_cdp_session(page)
    line.send("Network.enable")
    line.send("Network.setCacheDisabled", {"cacheDisabled": True})
    line.send("Network.emulateNetworkConditions", SLOW)
    for address in ("/", account):
        painted = []
        for _ in range(3):  # the machine may be busy with something else
            page.goto(large + address)
            painted.append(page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
            weight = page.evaluate("performance.getEntries().reduce((sum, e) => sum + (e.transferSize || 0), 0)")
            assert weight < 300_000, address
        assert min(painted) < 1000, address
