"""One browser and one served book for all tests in a real browser."""

import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from playwright.sync_api import sync_playwright

from features.workspace import load_workspace
from serving.app import create_app
from serving.scores.batch import score_workspace
from tests.opened import DESK, HOSTILE, PATIENCE, served
from tests.serving_book import make_workspace

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def browser():
    """A browser for one file of tests: while Playwright runs, no other test of the process could run an event loop of its own."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def book(tmp_path_factory):
    """A workspace that was scored, with an account of which the name is an attack; to be copied, or served by one service."""
    workspace = make_workspace(tmp_path_factory.mktemp("browser") / "book")
    accounts = pq.read_table(workspace.tables / "accounts.parquet")
    names = accounts["name"].to_pylist()
    names[10] = HOSTILE
    place = accounts.column_names.index("name")
    pq.write_table(accounts.set_column(place, "name", pa.array(names)), workspace.tables / "accounts.parquet")
    score_workspace(workspace)
    return workspace


@pytest.fixture(scope="session")
def copy_of(book, tmp_path_factory):
    """Return a function that makes a copy of the book."""

    def copy():
        folder = tmp_path_factory.mktemp("copy") / "book"
        shutil.copytree(book.folder, folder)
        return load_workspace(folder, {})

    return copy


@pytest.fixture(scope="session")
def app(copy_of):
    return create_app(copy_of())


@pytest.fixture(scope="session")
def address(app):
    with served(app) as address:
        yield address


@pytest.fixture
def visitors(browser):
    """Open the pages of a service as somebody; whatever the browser complains about fails the test."""
    contexts, complaints = [], []

    def open_as(app, address, caller, *, role="analyst", viewport=DESK, script=True, **options):
        context = browser.new_context(viewport=viewport, java_script_enabled=script, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda message: complaints.append(message.text) if "the server responded" not in message.text else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        token = app.state.desk.identity.sign_in_token(caller, role=role, subject="jo")
        page.goto(f"{address}/sign-in?token={token}")
        return page

    yield open_as
    for context in contexts:
        context.close()
    assert complaints == [], "the browser complained, perhaps about the content security policy"


@pytest.fixture
def visit(visitors, app, address):
    """Open the pages of the shared book as somebody."""
    return lambda caller, **options: visitors(app, address, caller, **options)
