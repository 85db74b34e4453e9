"""What people do on the pages, in a real browser: on either side, by keyboard alone, in the dark, on a phone, and when it goes wrong."""

import re

import pytest

from serving.permissions.caller import VENDOR, Caller
from tests.opened import DESK, HOSTILE, PHONE, faults

PARTNER = Caller("p1")
EVERYWHERE = (
    "/?search=opal",
    "/?view=growth&search=opal",
    "/?search=zzz",
    "/accounts/acc-0004",
    "/accounts/acc-0004/what-if",
    "/track-record",
    "/retention",
    "/nothing",
)
OF_VENDOR = ("/partners", "/partners/p1", "/models")


def rows(page):
    return page.locator("table.book tbody tr")


def test_a_filter_works_as_one_chooses_and_the_address_keeps_it(visit):
    page = visit(VENDOR)
    page.get_by_label("Health").select_option("red")
    page.wait_for_url("**/?band=red")
    assert rows(page).count() == page.locator("tbody .mark.fill-red").count() > 0
    page.get_by_role("searchbox").fill("a")
    page.wait_for_url("**/?search=a&band=red")
    page.go_back()
    page.wait_for_url("**/?band=red")
    assert page.get_by_label("Health").input_value() == "red"


def test_the_keyboard_alone_leads_to_an_account_and_back(visit):
    page = visit(VENDOR)
    links = page.locator("table.book tbody th a")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("k")
    name = links.nth(1).inner_text()
    assert page.evaluate("document.activeElement.textContent") == name
    page.keyboard.press("Enter")
    page.get_by_role("heading", level=1, name=name).wait_for()
    page.keyboard.press("u")
    page.get_by_role("heading", level=1, name="The book").wait_for()
    page.keyboard.press("/")
    page.keyboard.type("opal")
    page.wait_for_url("**/?search=opal")
    assert {text.split()[0] for text in links.all_inner_texts()} == {"Opal"}
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    assert page.get_by_role("dialog").is_visible()


def test_everything_can_be_reached_with_the_tabulator(visit, address):
    page = visit(VENDOR)
    page.goto(f"{address}/accounts/acc-0004")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    wanted = page.locator("a[href], button, input:not([type=hidden]):not([type=range]), select, textarea").count()
    seen = 0
    while page.evaluate("document.activeElement !== document.body") and seen < 3 * wanted:
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle !== 'none' || document.activeElement.type === 'date'")
        page.keyboard.press("Tab")
        seen += 1
    assert seen >= wanted - 3  # radio buttons share one stop


def test_what_if_answers_at_once_and_refuses_at_the_field(visit, address):
    page = visit(VENDOR)
    page.goto(f"{address}/accounts/acc-0004")
    lever = page.locator(".lever").first
    field = lever.locator("input[type=number]")
    slider = lever.locator("input[type=range]")
    slider.focus()
    page.keyboard.press("End")
    assert field.input_value() == slider.input_value()
    page.locator("#what-if-outcome .outcome").wait_for()
    assert "A chance of leaving of" in page.locator("#what-if-outcome").inner_text()
    field.fill("-5000")
    field.press("Tab")
    page.locator("#what-if-outcome", has_text="There is no answer to that").wait_for()
    assert lever.locator(".wrong").inner_text()


@pytest.mark.parametrize(("caller", "home"), [(VENDOR, "The book"), (PARTNER, "Your accounts")])
def test_the_whole_day_of_a_csm(visit, caller, home, address):
    page = visit(caller)
    assert page.get_by_role("heading", level=1, name=home).is_visible()
    page.locator("table.book tbody a").first.click()
    for title in ("Health", "Why it might leave", "What changed", "What if?", "What can be done", "What was done and said"):
        assert page.get_by_role("heading", name=title, exact=True).is_visible(), title
    page.get_by_label("I do not agree").check()
    page.locator("select[name=reason]").select_option("renewal_agreed")
    page.get_by_label("In your words").fill("Signed on Monday")
    page.get_by_role("button", name="Send").click()
    page.get_by_text("No score changes by it").wait_for()
    assert page.get_by_text("Signed on Monday").is_visible()
    page.get_by_label("Note", exact=True).fill("Called them")
    page.get_by_role("button", name="Keep the note").click()
    page.get_by_text("The note is kept.").wait_for()
    assert page.get_by_label("Note", exact=True).input_value() == ""
    page.get_by_role("link", name="Track record", exact=True).first.click()
    assert page.get_by_role("heading", level=1, name="Track record").is_visible()
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("heading", name="Sign in").wait_for()


def test_a_partner_finds_no_word_of_what_is_withheld(visit, address):
    page = visit(PARTNER)
    menu = page.get_by_role("navigation", name="Pages").get_by_role("link").all_inner_texts()
    assert menu == ["Book", "Retention", "Track record", "API"]
    page.goto(f"{address}/accounts/acc-0004")
    text = page.locator("body").inner_text()
    assert "ther factors" in text
    for word in ("discount", "list price", "price per seat", "hidden", "withheld", "null", "None"):
        assert word not in text, word


def test_a_session_that_ends_loses_nothing(visit, app, address):
    page = visit(VENDOR)
    page.goto(f"{address}/accounts/acc-0004")
    page.get_by_label("Note", exact=True).fill("Twenty minutes of thought")
    page.context.clear_cookies(name=re.compile("session"))
    page.get_by_role("button", name="Keep the note").click()
    page.get_by_role("heading", name="Your session has ended").wait_for()
    assert page.get_by_label("What you wrote").input_value() == "Twenty minutes of thought"
    other = page.context.new_page()
    other.goto(f"{address}/sign-in?token={app.state.desk.identity.sign_in_token(VENDOR, role='csm')}")
    page.get_by_role("button", name="I have signed in: send it").click()
    page.get_by_role("button", name="Send it").click()
    page.get_by_text("The note is kept.").wait_for()
    assert page.locator(".log").get_by_text("Twenty minutes of thought").is_visible()


def test_a_session_that_ends_while_filtering_is_said(visit):
    page = visit(VENDOR)
    page.context.clear_cookies(name=re.compile("session"))
    page.get_by_label("Health").select_option("red")
    page.get_by_role("heading", name="Sign in").wait_for()
    assert page.get_by_text("You sign in with a link that is made for you").is_visible()
    assert page.locator("table.book").count() == 0


def test_hostile_names_are_only_names(visit, address):
    page = visit(VENDOR)
    page.goto(f"{address}/accounts/acc-0010")
    assert page.get_by_role("heading", level=1).inner_text() == HOSTILE
    page.goto(f"{address}/?search=onerror")
    assert page.locator("table.book tbody a").inner_text() == HOSTILE
    assert page.locator("img[src='x']").count() == 0
    page.goto(f"{address}/?search={HOSTILE}&segment={HOSTILE}")
    assert page.get_by_text("No account matches these filters.").is_visible()


def test_all_of_it_works_without_script(visit, address):
    page = visit(VENDOR, script=False)
    page.get_by_label("Health").select_option("red")
    page.get_by_role("button", name="Show").click()
    assert rows(page).count() == page.locator("tbody .mark.fill-red").count() > 0
    page.locator("table.book tbody a").first.click()
    page.locator(".lever input[type=number]").first.fill("1")
    page.get_by_role("button", name="What would they say?").click()
    assert page.get_by_role("heading", name="What if?").is_visible()
    page.goto(f"{address}/accounts/acc-0004")
    page.get_by_label("Note", exact=True).fill("Without script")
    page.get_by_role("button", name="Keep the note").click()
    assert page.get_by_text("The note is kept.").is_visible()


def test_colours_are_chosen_and_kept(visit):
    page = visit(VENDOR, color_scheme="light")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_role("button", name="Dark").click()
    dark = page.evaluate(ground)
    assert dark != light
    page.reload()
    assert page.evaluate(ground) == dark


LOOKS = [(VENDOR, "light", DESK), (VENDOR, "dark", PHONE), (PARTNER, "dark", DESK), (PARTNER, "light", PHONE)]


@pytest.mark.parametrize(("caller", "scheme", "viewport"), LOOKS)
def test_pages_fit_the_screen_and_break_no_rule_of_accessibility(visit, address, caller, scheme, viewport):
    page = visit(caller, viewport=viewport, color_scheme=scheme)
    paths = EVERYWHERE + (OF_VENDOR if caller.is_vendor else ("/partners/p1",))
    assert faults(page, [address + path for path in paths]) == {}


def test_the_first_content_is_there_within_a_second_on_a_slow_line(visit, address):
    page = visit(VENDOR)
    page.goto(f"{address}/accounts/acc-0004")  # what a service works out once for a score set
    line = page.context.new_cdp_session(page)
    line.send("Network.enable")
    line.send("Network.setCacheDisabled", {"cacheDisabled": True})
    slow = {"offline": False, "latency": 150, "downloadThroughput": 1_600_000 / 8, "uploadThroughput": 750_000 / 8}  # a slow 4G
    line.send("Network.emulateNetworkConditions", slow)
    for path in ("/", "/accounts/acc-0004"):
        page.goto(address + path)
        painted = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        weight = page.evaluate("performance.getEntries().reduce((sum, e) => sum + (e.transferSize || 0), 0)")
        assert painted < 1000, path
        assert weight < 300_000, path
