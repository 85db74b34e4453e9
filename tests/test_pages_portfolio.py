"""The pages of the whole book: retention, partners, models."""

import json
import re
import shutil
from dataclasses import replace

import pytest

from serving.answers.schema_portfolio import ForecastInterval, RetentionWindow
from serving.app import create_app
from serving.permissions.caller import VENDOR, Caller
from serving.scores.batch import score_workspace
from serving.web.charts_retention import retention_plot, span_bar
from tests.serving_book import CUTOFF, PARTNERS, TestClient, make_workspace
from tests.test_pages import Elements, signed_in, text_of
from tests.test_report import JUDGEMENT, TRAINED, summary
from training.versions import Links, links_to


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    workspace = make_workspace(tmp_path_factory.mktemp("book"))
    score_workspace(workspace)
    app = create_app(workspace)
    with TestClient(app):
        yield app


@pytest.fixture(scope="module")
def vendor(app):
    return signed_in(app, VENDOR)


@pytest.fixture(scope="module")
def partner(app):
    return signed_in(app, Caller("p1"))


@pytest.mark.parametrize("path", ["/retention", "/partners", "/partners/p1", "/partners/retention", "/models", "/track-record"])
def test_pages_are_well_formed_and_small(vendor, path):
    page = vendor.get(path)
    assert page.status_code == 200
    assert len(page.content) < 300_000
    Elements(page.text)


def test_the_partners_add_up_to_what_their_accounts_do(vendor, app):
    shown = text_of(vendor.get("/partners"))
    score_set = app.state.desk.live.current()
    for name in PARTNERS.values():
        assert name.replace("&", "&amp;") in shown
    assert "no ranking" in shown
    rows = vendor.get("/?partner=p1").text
    accounts = re.search(r'role="status">(\d+)', rows).group(1)
    assert f"Northwind Consulting p1 {accounts} " in shown
    assert score_set.manifest.currency == "USD"


def test_a_partner_sees_itself_and_no_other(partner):
    assert "Northwind Consulting" in partner.get("/partners/p1").text
    for path in ("/partners", "/partners/p2", "/partners/nobody", "/partners/retention", "/models", "/models/churn/card"):
        assert partner.get(path).status_code == 404, path
    menu = partner.get("/").text
    assert 'href="/partners"' not in menu and 'href="/models"' not in menu


def test_without_a_training_the_corner_says_so(vendor):
    page = text_of(vendor.get("/models"))
    assert "No training that is kept has a report of it." in page
    assert "Drift" in page
    assert vendor.get("/models/churn/card").status_code == 404


def leave_reports(app, *reports):
    """Leave what trainings leave, the last one last."""
    training = app.state.desk.workspace.training
    folders = [training / f"2026010{number}T000000-test" for number in range(1, len(reports) + 1)]
    for folder, part in zip(folders, reports, strict=True):
        folder.mkdir()
        report = summary(training, part).to_json() | {"run": folder.name, "made_at": "2026-01-02T03:04:05+00:00"}
        (folder / "report.json").write_text(json.dumps(report))
    return folders


def test_champion_and_challenger_stand_side_by_side_with_what_decided_and_where_mlflow_shows_them(vendor, app):
    used = app.state.desk.live.current().manifest.models["churn"].package_hash
    links = links_to("https://jo@ml.example.com", target="churn", version="7", experiment="3", run="c0ffee")
    champion = replace(TRAINED, package_hash=used, version="7", links=links)
    better = JUDGEMENT.metrics | {"auc": replace(JUDGEMENT.metrics["auc"], value=0.8123)}
    challenger = replace(
        TRAINED, judgement=replace(JUDGEMENT, metrics=better), role="challenger", decision="It is no better.", version="8", links=None
    )
    folders = leave_reports(app, champion, challenger)
    page = vendor.get("/models")
    Elements(page.text)
    shown = text_of(page)
    assert "Measure (95 % interval) In use Challenger" in shown
    assert "AUC 0.800 (0.750 to 0.850) 0.812 (0.750 to 0.850)" in shown
    assert "In use: what decided It is the first." in shown and "Challenger: what decided It is no better." in shown
    assert 'href="https://ml.example.com/#/experiments/3/runs/c0ffee"' in page.text
    assert 'href="https://ml.example.com/#/models/renewcast-churn/versions/7"' in page.text
    assert "jo@" not in page.text
    assert 'href="/models/churn/card"' in page.text
    for folder in folders:
        shutil.rmtree(folder)


def test_only_addresses_that_a_browser_opens_are_links(vendor, app):
    used = app.state.desk.live.current().manifest.models["churn"].package_hash
    (folder,) = leave_reports(app, replace(TRAINED, package_hash=used, links=Links(version="javascript:alert(1)", run="file:///etc")))
    page = vendor.get("/models").text
    assert "javascript:" not in page and "file:" not in page
    assert "own store" in page
    shutil.rmtree(folder)


def test_a_newer_champion_waits_for_the_next_scoring(vendor, app):
    used = app.state.desk.live.current().manifest.models["churn"].package_hash
    folders = leave_reports(app, replace(TRAINED, package_hash=used), TRAINED)
    assert "In use Champion from the next scoring on" in text_of(vendor.get("/models"))
    for folder in folders:
        shutil.rmtree(folder)


def test_the_corner_tells_what_was_set_aside(vendor, app):
    found = {"table": "tickets", "rows_in": 120, "quarantined": 7, "reasons": {"unknown account": 7}}
    report = app.state.desk.workspace.check_report
    report.write_text(json.dumps({"tables": [found]}))
    assert "tickets 120 7 unknown account: 7" in text_of(vendor.get("/models"))
    report.unlink()


def test_the_book_is_taken_along_by_those_who_may(app):
    analyst = signed_in(app, Caller("p1"), role="analyst")
    assert 'href="/export?band=red"' in analyst.get("/?band=red").text
    file = analyst.get("/export?band=red")
    assert file.headers["content-type"].startswith("text/csv")
    assert file.text.count("\n") == 1 + int(re.search(r'role="status">(\d+)', analyst.get("/?band=red").text).group(1))
    csm = signed_in(app, Caller("p1"), role="csm")
    assert "/export" not in csm.get("/").text
    assert csm.get("/export").status_code == 403


def interval(low, middle, high):
    return ForecastInterval(mean=middle, median=middle, low80=low, high80=high, low95=low - 0.02, high95=high + 0.02)


def window(ndr, grr):
    amounts = dict.fromkeys(("arr_start", "arr_end", "churned", "contracted", "expanded"), 1.0)
    return RetentionWindow(
        start=CUTOFF, end=CUTOFF, accounts=20, lost_accounts=1, ndr=ndr, grr=grr, logo_churn=0.05, provisional=False, **amounts
    )


def test_higher_rates_stand_higher_and_wider_intervals_are_wider():
    plot = retention_plot([window(0.9, 0.8), window(1.05, 0.85)], [("ndr", interval(0.97, 1.0, 1.03)), ("grr", interval(0.8, 0.85, 0.9))])
    ndr, grr = plot.fans
    assert ndr.last[1] < grr.last[1]
    assert ndr.outer[0] < ndr.inner[0] < ndr.middle < ndr.inner[1] < ndr.outer[1]
    assert grr.inner[1] - grr.inner[0] > ndr.inner[1] - ndr.inner[0]
    assert retention_plot([window(0.9, 0.8)]) is None


def test_bars_share_their_scale():
    narrow, wide = interval(0.99, 1.0, 1.01), interval(0.8, 0.9, 1.0)
    first, second = span_bar(narrow, [narrow, wide]), span_bar(wide, [narrow, wide])
    assert first.whole == second.whole
    assert first.inner[1] - first.inner[0] < second.inner[1] - second.inner[0]
