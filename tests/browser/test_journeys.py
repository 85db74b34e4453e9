"""What people do on the pages, in a real browser: on either side, by keyboard alone, in the dark, on a phone, and when it goes wrong."""

import re

import pytest
from playwright.sync_api import expect

from serving.permissions.caller import VENDOR, Caller
from tests.opened import DESK, HOSTILE, PHONE, faults, first_content, headed, only_red

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


def test_a_filter_works_as_one_chooses_and_the_address_keeps_it(visit):
    page = visit(VENDOR)
    page.get_by_label("Health").select_option("red")
    page.wait_for_url("**/?band=red")
    only_red(page)
    page.get_by_role("searchbox").fill("a")
    page.wait_for_url("**/?search=a&band=red")
    page.go_back()
    page.wait_for_url("**/?band=red")
    expect(page.get_by_role("searchbox")).to_have_value("")
    expect(page.get_by_label("Health")).to_have_value("red")
    only_red(page)


def test_what_comes_later_leaves_the_title_as_it_is(visit, address):
    page = visit(VENDOR)
    for path, part in (("/", "#outlook-tile"), ("/partners", "#partner-retention")):
        with page.expect_response(lambda answer: answer.url.endswith("retention") and answer.ok):
            page.goto(address + path)
        expect(page.locator(f"{part}[hx-get]")).to_have_count(0)  # it has come
        expect(page).not_to_have_title(re.compile("Retention"))


def test_the_keyboard_alone_leads_to_an_account_and_back(visit):
    page = visit(VENDOR)
    links = page.locator("table.book tbody th a")
    for key in ("j", "j", "ArrowDown", "k"):
        page.keyboard.press(key)
    expect(links.nth(1)).to_be_focused()
    name = links.nth(1).inner_text()
    with page.expect_navigation():
        page.keyboard.press("Enter")
    headed(page, name)
    with page.expect_navigation():
        page.keyboard.press("u")
    headed(page, "The book")
    page.keyboard.press("/")
    page.keyboard.type("opal")
    page.wait_for_url("**/?search=opal")
    expect(links.filter(has_text=re.compile("^Opal ")).first).to_be_visible()
    expect(links.filter(has_not_text=re.compile("^Opal "))).to_have_count(0)
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()


def test_everything_can_be_reached_with_the_tabulator(visit, address):
    page = visit(VENDOR)
    page.goto(f"{address}/accounts/acc-0004")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
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
    before = slider.input_value()
    slider.focus()
    page.keyboard.press("End")
    expect(slider).not_to_have_value(before)
    expect(field).to_have_value(slider.input_value())
    expect(page.locator("#what-if-outcome")).to_contain_text("A chance of leaving of")
    field.fill("-5000")
    field.press("Tab")
    expect(page.locator("#what-if-outcome")).to_contain_text("There is no answer to that")
    expect(lever.locator(".wrong")).not_to_be_empty()


@pytest.mark.parametrize(("caller", "home"), [(VENDOR, "The book"), (PARTNER, "Your accounts")])
def test_the_whole_day_of_a_csm(visit, caller, home, address):
    page = visit(caller)
    headed(page, home)
    page.locator("table.book tbody a").first.click()
    for title in ("Health", "Why it might leave", "What changed", "What if?", "What can be done", "What was done and said"):
        expect(page.get_by_role("heading", name=title, exact=True), title).to_be_visible()
    page.get_by_label("I do not agree").check()
    page.locator("select[name=reason]").select_option("renewal_agreed")
    page.get_by_label("In your words").fill("Signed on Monday")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_text("No score changes by it")).to_be_visible()
    expect(page.get_by_text("Signed on Monday")).to_be_visible()
    page.get_by_label("Note", exact=True).fill("Called them")
    page.get_by_role("button", name="Keep the note").click()
    expect(page.get_by_text("The note is kept.")).to_be_visible()
    expect(page.get_by_label("Note", exact=True)).to_have_value("")
    page.get_by_role("link", name="Track record", exact=True).first.click()
    headed(page, "Track record")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_a_partner_finds_no_word_of_what_is_withheld(visit, address):
    page = visit(PARTNER)
    menu = page.get_by_role("navigation", name="Pages").get_by_role("link")
    expect(menu).to_have_text(["Book", "Retention", "Track record", "API"])
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
    expect(page.get_by_role("heading", name="Your session has ended")).to_be_visible()
    expect(page.get_by_label("What you wrote")).to_have_value("Twenty minutes of thought")
    other = page.context.new_page()
    other.goto(f"{address}/sign-in?token={app.state.desk.identity.sign_in_token(VENDOR, role='csm')}")
    page.get_by_role("button", name="I have signed in: send it").click()
    page.get_by_role("button", name="Send it").click()
    expect(page.get_by_text("The note is kept.")).to_be_visible()
    expect(page.locator(".log").get_by_text("Twenty minutes of thought")).to_be_visible()


def test_a_session_that_ends_while_filtering_is_said(visit):
    page = visit(VENDOR)
    page.context.clear_cookies(name=re.compile("session"))
    page.get_by_label("Health").select_option("red")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    expect(page.get_by_text("You sign in with a link that is made for you")).to_be_visible()
    expect(page.locator("table.book")).to_have_count(0)


def test_hostile_names_are_only_names(visit, address):
    page = visit(VENDOR)
    page.goto(f"{address}/accounts/acc-0010")
    expect(page.get_by_role("heading", level=1)).to_have_text(HOSTILE)
    page.goto(f"{address}/?search=onerror")
    expect(page.locator("table.book tbody a")).to_have_text(HOSTILE)
    expect(page.locator("img[src='x']")).to_have_count(0)
    page.goto(f"{address}/?search={HOSTILE}&segment={HOSTILE}")
    expect(page.get_by_text("No account matches these filters.")).to_be_visible()


def test_all_of_it_works_without_script(visit, address):
    page = visit(VENDOR, script=False)
    page.get_by_label("Health").select_option("red")
    page.get_by_role("button", name="Show").click()
    only_red(page)
    page.locator("table.book tbody a").first.click()
    page.locator(".lever input[type=number]").first.fill("1")
    page.get_by_role("button", name="What would they say?").click()
    page.wait_for_url("**/what-if?*")
    expect(page.get_by_role("heading", name="What if?")).to_be_visible()
    page.goto(f"{address}/accounts/acc-0004")
    page.get_by_label("Note", exact=True).fill("Without script")
    page.get_by_role("button", name="Keep the note").click()
    expect(page.get_by_text("The note is kept.")).to_be_visible()


def test_colours_are_chosen_and_kept(visit):
    page = visit(VENDOR, color_scheme="light")
    body = page.locator("body")
    light = body.evaluate("body => getComputedStyle(body).backgroundColor")
    page.get_by_role("button", name="Dark").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    expect(body).not_to_have_css("background-color", light)
    page.reload()
    expect(page.get_by_role("button", name="Dark")).to_have_attribute("aria-pressed", "true")
    expect(body).not_to_have_css("background-color", light)


LOOKS = [(VENDOR, "light", DESK), (VENDOR, "dark", PHONE), (PARTNER, "dark", DESK), (PARTNER, "light", PHONE)]


@pytest.mark.parametrize(("caller", "scheme", "viewport"), LOOKS)
def test_pages_fit_the_screen_and_break_no_rule_of_accessibility(visit, address, caller, scheme, viewport):
    page = visit(caller, viewport=viewport, color_scheme=scheme)
    paths = EVERYWHERE + (OF_VENDOR if caller.is_vendor else ("/partners/p1",))
    assert faults(page, [address + path for path in paths]) == {}


def test_the_first_content_needs_little_over_a_slow_line(visit, address):
    page = visit(VENDOR)
    for path in ("/", "/accounts/acc-0004"):
        first_content(page, address + path)
