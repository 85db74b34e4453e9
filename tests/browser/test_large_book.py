"""Fifty thousand accounts: a page stays a page, and nobody waits for the book behind it."""

import pytest
from playwright.sync_api import expect

from serving.app import create_app
from serving.permissions.caller import VENDOR, Caller
from tests.large_book import enlarge
from tests.opened import first_content, served, settled

ACCOUNTS = 50_000
ROWS = 50
"""On a page of the list."""


@pytest.fixture(scope="module")
def large_app(copy_of):
    workspace = copy_of()
    enlarge(workspace, ACCOUNTS)
    return create_app(workspace)


@pytest.fixture(scope="module")
def large(large_app):
    with served(large_app) as address:
        yield address


def rows(page):
    return page.locator("table.book tbody tr")


def total(page):
    return int(page.get_by_role("status").first.inner_text().replace(",", ""))


@pytest.mark.parametrize("caller", [VENDOR, Caller("p1")])
def test_a_page_is_small_whatever_is_asked_of_it(visitors, large_app, large, caller):
    page = visitors(large_app, large, caller)
    whole = total(page)
    assert whole == ACCOUNTS if caller.is_vendor else 0 < whole < ACCOUNTS
    for address in ("/", "/?view=growth", "/?band=red&sort=name", "/?search=opal", "/?renewal=90&page=3", "/?csm=Ada+Moreau"):
        answer = page.goto(large + address)
        assert len(answer.body()) < 300_000, address
        assert rows(page).count() == ROWS, address
        assert 0 < total(page) <= whole


def test_one_finds_sorts_and_turns_pages_in_place(visitors, large_app, large):
    page = visitors(large_app, large, VENDOR)
    asked = []
    page.on("request", lambda request: asked.append(request.url) if request.is_navigation_request() else None)
    page.get_by_label("Health").select_option("red")
    page.wait_for_url("**/?band=red")
    expect(rows(page).filter(has=page.locator(".mark.fill-red"))).to_have_count(ROWS)
    expect(rows(page)).to_have_count(ROWS)
    page.get_by_role("searchbox").fill("opal foods 17")
    page.wait_for_url("**/?search=opal*")
    expect(rows(page).filter(has_not_text="Opal Foods 17")).to_have_count(0)
    expect(page.get_by_role("status").first).to_have_text(str(rows(page).count()))
    assert asked == []


def test_the_first_content_needs_little_over_a_slow_line(visitors, large_app, large):
    page = visitors(large_app, large, VENDOR)
    account = page.locator("table.book tbody th a").first.get_attribute("href")
    settled(page)  # what a service works out once for a score set
    for address in ("/", account):
        first_content(page, large + address)
