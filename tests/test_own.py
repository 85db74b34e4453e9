"""Features of one's own: declared in a file, tried, computed like any other, and refused with the file and the feature named."""

import os
import re
from datetime import datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from features.catalogue import read_catalogue
from features.errors import ConfigError
from features.own import own_fingerprint, read_own_features
from features.preparation import prepare_workspace
from features.reference import render_reference
from features.workspace import load_workspace
from tests.random_worlds import as_arrow
from tests.small_book import run, summary_of

pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning:ibis")  # by Ibis 12 on DuckDB 2

CONFIG = """
[tables.accounts]
source = "accounts.csv"
[tables.telemetry]
source = "telemetry.csv"
[targets]
kind = "usage"
expansion = {{ measure = "events" }}
contraction = {{ measure = "events" }}
[features]
own = {own}
"""

TEN_LINES = """\
from features import Feature, Window

FEATURES = (
    Feature(
        name="export_share_28d", family="usage", unit="share", actionable=True,
        meaning="share of exports among the events of the last 28 days",
        sentence="the share of exports {moved} in the last 28 days",
        source=Window(table="telemetry", days=28),
        expression=lambda rows: rows.events.sum(where=rows.event == "export") / rows.events.sum(),
    ),
)
"""


def feature(expression: str = "lambda rows: rows.count()", *, source: str | None = 'Window(table="telemetry", days=28)', more: str = ""):
    """Return a file that declares one feature."""
    text = TEN_LINES.split("    Feature(")[0] + '    Feature(name="mine", family="usage", unit="share", meaning="m", sentence="{moved}",'
    return f"{text}\n        source={source},\n        expression={expression}, {more}),\n)\n"


@pytest.fixture
def workspace(tmp_path):
    """Make a workspace with checked tables, and its own features in a file."""

    def make(text: str | None, *, own: str = '"mine.py"'):
        (tmp_path / "renewcast.toml").write_text(CONFIG.format(own=own), encoding="utf-8")
        if text is not None:
            (tmp_path / "mine.py").write_text(text, encoding="utf-8")
        found = load_workspace(tmp_path, {})
        found.tables.mkdir(parents=True, exist_ok=True)
        world = {"accounts": [{"account_id": account} for account in "abc"], "telemetry": events()}
        for table in world:
            pq.write_table(as_arrow(world, table), found.tables / f"{table}.parquet")
        return found

    return make


def events():
    """Return one event a day of each account: every third one is an export, and only `a` uses the product at weekends."""
    days = [datetime(2024, 1, 1, 9) + timedelta(days=n) for n in range(120)]
    kinds = ("login", "login", "export")
    return [
        {"account_id": account, "occurred_at": at, "event": kinds[n % 3], "events": 1.0, "product": "core"}
        for account in "abc"
        for n, at in enumerate(days)
        if account == "a" or at.weekday() < 5
    ]


def computed(workspace) -> pd.DataFrame:
    prepare_workspace(workspace)
    return pq.read_table(workspace.snapshots / "features.parquet").to_pandas()


def test_ten_lines_are_a_feature(workspace):
    assert len(TEN_LINES.split("FEATURES")[1].strip().splitlines()) <= 10
    made = workspace(TEN_LINES)
    found = computed(made)
    for row in found.itertuples():
        known = [
            e for e in events() if e["account_id"] == row.account_id and row.cutoff - timedelta(days=28) < e["occurred_at"] <= row.cutoff
        ]
        assert row.export_share_28d == pytest.approx(sum(e["event"] == "export" for e in known) / len(known))
    assert found["export_share_28d"].nunique() > 2
    catalogue = read_catalogue(made.snapshots / "catalogue.json")
    assert catalogue.names[-1] == "export_share_28d"
    assert "| `export_share_28d` | share | share of exports among the events" in render_reference(catalogue)


def test_weekends_are_days_five_and_six(workspace):
    found = computed(workspace(feature("lambda rows: rows.events.sum(where=rows.weekday >= 5)", more="empty=0.0")))
    assert (found.loc[found["account_id"] == "a", "mine"] > 0).all()
    assert (found.loc[found["account_id"] != "a", "mine"] == 0).all()


def test_a_derived_feature_reads_built_in_ones_and_ones_own(workspace):
    other = feature("lambda row: row.mine * row.events_28d", source=None, more='inputs=("mine", "events_28d")').replace(
        '"mine", family', '"twice", family'
    )
    made = workspace(feature(), own='["mine.py", "other.py"]')
    (made.folder / "other.py").write_text(other)
    found = computed(made)
    assert (found["twice"] == found["mine"] * found["events_28d"]).all()
    assert found.columns[-2:].tolist() == ["mine", "twice"]


def test_the_features_of_the_catalogue_stay_as_they_are(workspace):
    with_own = computed(workspace(TEN_LINES))
    without = computed(workspace(None, own="[]"))
    pd.testing.assert_frame_equal(with_own.drop(columns="export_share_28d"), without)


def test_the_documented_feature_agrees_with_its_documented_twin(workspace):
    page = Path(__file__).parents[1] / "features" / "WORKSPACE.md"
    declared, check = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(declared.split("\n\n")[1].strip().splitlines()) <= 10
    made = workspace(declared)
    names = {"pd": pd, "workspace": made, "FEATURES": [own.feature for own in read_own_features(made)]}
    exec(check, names)
    assert computed(made)["export_share_28d"].max() > 0


WITHOUT_FEATURES = "does not define FEATURES"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"names a file that cannot be read: No such file(.|\n)*mine.py(.|\n)*own in \[features\]"),
        ("FEATURES = (\n", r"mine.py, line 1, is not Python: '\(' was never closed"),
        ("import nothing_like_this\n", r"mine.py, line 1, fails: ModuleNotFoundError: No module named 'nothing_like_this'"),
        ("\n\n1 / 0\n", r"mine.py, line 3, fails: ZeroDivisionError"),
        ("import sys\nsys.exit(3)\n", r"mine.py, line 2, fails: SystemExit: 3"),
        ("x = 1\n", rf"mine.py {WITHOUT_FEATURES}\n  given:   no feature"),
        (TEN_LINES.replace("FEATURES = (", "HIS = (").replace("\n)\n", "\n)[0]\n"), rf"{WITHOUT_FEATURES}\n  given:   HIS"),
        (
            TEN_LINES.replace("\n    ),\n)", "\n    )\n)"),
            r"mine.py: FEATURES is not a tuple\n  given:   Feature\n  next:    Write FEATURES = \(",
        ),
        ("FEATURES = ['arr']\n", r"mine.py: number 1 of FEATURES is not a Feature\n  given:   str: 'arr'"),
        (TEN_LINES.replace("days=28)", "days=30)"), r"mine.py, line 8, fails: ValueError: a lookback is a positive multiple of 7 days"),
        (TEN_LINES.replace('family="usage"', 'family="used"'), r"the family of export_share_28d is one of usage, .*; given: 'used'"),
        (TEN_LINES.replace("{moved}", "{move}"), r"the sentence of export_share_28d holds {moved}, {value} or neither"),
        (feature(more='direction={"chrun": 1}'), r"the direction of mine is like"),
        (feature(source=None, more="empty=0.0"), "mine cannot have an empty value: only numbers that are measured"),
        (feature(more='sensitivity="secret"'), r"the sensitivity of mine is one of shared, vendor, partner"),
        (TEN_LINES.replace("        sentence=", "        # sentence="), r"line 4, fails: TypeError(.|\n)*missing 1 required .* 'sentence'"),
    ],
)
def test_a_file_that_cannot_be_used(workspace, text, message):
    with pytest.raises(ConfigError, match=message):
        read_own_features(workspace(text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TEN_LINES.replace("export_share_28d", "events_28d"), "the feature events_28d has a name that is taken by the built-in catalogue"),
        (TEN_LINES.replace("export_share_28d", "cutoff"), "has a name that is taken by the matrix"),
        (TEN_LINES.replace("export_share_28d", "Exports, %"), "allowed: small letters, digits and _"),
        (TEN_LINES.replace("\n)\n", "\n) * 2\n"), "has a name that is taken in mine.py"),
        (feature(source='Window(table="tickets")'), r"needs the table tickets, which is not there\n  allowed: accounts, telemetry"),
        (feature(source='Window(table="usage")'), "needs the table usage, which is not there"),
        (feature(source='Window(table="partner_book")'), "needs the table partner_book, which is not there"),
        (feature(more='needs={"user_id"}'), r"mine.py: the feature mine needs the column user_id of telemetry, which is not there"),
        (feature(source='Window(table="telemetry", by=("user_id",))'), "needs the column user_id of telemetry"),
        (feature("lambda rows: rows.evnts.sum()"), r"needs the column evnts, which is not there(.|\n)*did you mean 'events'"),
        (feature('lambda rows: rows["evnts"].sum()'), r"cannot be computed, line 6,: IbisTypeError: Column 'evnts' is not found"),
        (feature("lambda rows: rows.events.summ()"), r"mine.py: the feature mine cannot be computed, line 6,: AttributeError(.|\n)*summ"),
        (feature("lambda rows: 1 / 0"), r"cannot be computed, line 6,: ZeroDivisionError"),
        (feature("lambda rows: 3.0"), r"has an expression that is none\n  given:   float: 3.0"),
        (feature("3"), r"cannot be computed: TypeError: 'int' object is not callable"),
        (feature("lambda rows: rows"), "has an expression that is none"),
        (feature("lambda rows: rows.event.max()"), r"is a number, but yields something else\n  given:   string"),
        (feature("lambda rows: rows.count()", more='kind="category"'), r"is a category, but yields something else\n  given:   int64"),
        (feature("lambda rows: rows.events"), r"does not make one value of the window's rows\n  given:   a FloatingColumn(.|\n)*where="),
        (feature("lambda rows: rows.event.cast('float64').max()"), r"mine.py: the feature mine cannot be computed: (.|\n)*try_cast"),
        (feature("lambda rows: rows.events.sum() / (rows.count() - rows.count())"), r"mine is infinite in \d+ of \d+ rows(.|\n)*nullif"),
        (
            feature(source='Window(table="telemetry", each="event")', more='level="buy"'),
            r"a level of event that has no features\n  given:   buy",
        ),
        (
            feature("lambda row: row.event_28d", source=None, more='inputs=("event_28d",)'),
            r"needs the feature event_28d(.|\n)*did you mean",
        ),
        (feature("lambda row: row.events_91d", source=None, more='inputs=("events_28d",)'), "needs the column events_91d"),
    ],
)
def test_a_feature_that_cannot_be_computed(workspace, text, message):
    made = workspace(text)
    with pytest.raises(ConfigError, match=message):
        prepare_workspace(made)
    assert not made.snapshots.exists()


def test_what_is_derived_from_the_vendors_features_is_not_shared(workspace):
    secret = feature(more='sensitivity="vendor"')
    derived = secret.replace("\n)\n", '\n    Feature(name="open", family="usage", unit="share", meaning="m", sentence="{value}", '
                             'inputs=("mine",), expression=lambda row: row.mine),\n)\n')  # fmt: skip
    with pytest.raises(ConfigError, match=r"the feature open would show mine, which is the vendor's(.|\n)*sensitivity=\"vendor\""):
        prepare_workspace(workspace(derived))
    prepare_workspace(workspace(derived.replace('name="open"', 'name="open", sensitivity="vendor"')))


def test_the_fingerprint_is_that_of_the_contents(workspace):
    made = workspace(TEN_LINES)
    before = own_fingerprint(made)
    os.utime(made.folder / "mine.py", (1, 1))
    assert own_fingerprint(made) == before
    assert own_fingerprint(workspace(TEN_LINES.replace("export", "import"))) != before
    assert own_fingerprint(workspace(TEN_LINES, own="[]")) != before


def test_nothing_is_written_beside_the_file(workspace):
    made = workspace(TEN_LINES)
    (declared,) = read_own_features(made)
    assert (declared.file, declared.feature.name) == (made.folder / "mine.py", "export_share_28d")
    assert {path.name for path in made.folder.iterdir()} == {"renewcast.toml", "mine.py", ".renewcast"}


SAVES = (
    TEN_LINES.replace('rows.event == "export"', 'rows.event == "save"').replace("/ rows.events.sum()", "").replace("export_share", "saves")
)


def test_a_feature_of_ones_own_is_everywhere(book):
    """It is computed when its file appears, and is then in the reference page, the package, and an account's reasons."""
    from serving import explain_account, load_score_set
    from training.package import load_package

    config = (book / "renewcast.toml").read_text()
    (book / "renewcast.toml").write_text(config.replace("top_events = 2", 'top_events = 0\nown = "mine.py"'))
    (book / "mine.py").write_text(SAVES.replace('unit="share"', 'unit="events"').replace("share of exports among the events", "saves"))
    done = summary_of(run("up", "--workspace", book, "--no-serve", "--json"))
    assert [step["status"] for step in done["steps"]] == ["unchanged", "done", "done", "done"]
    assert "| `saves_28d` | events | saves of the last 28 days | shared |" in run("reference", "--workspace", book).stdout
    state = book / ".renewcast"
    assert "saves_28d" in load_package(state / "training" / "champion" / "churn").features

    (book / "mine.py").write_text("raise RuntimeError('a score must not run this')")
    (state / "scores" / "CURRENT").unlink()
    assert run("score", "--workspace", book).exit_code == 0
    scores = load_score_set(state / "scores")
    drivers = [driver for row in range(len(scores)) for driver in explain_account(scores, row, "churn").drivers]
    own = [driver for driver in drivers if driver.main.feature.name == "saves_28d"]
    assert len(own) == len(scores)
    assert any(driver.part for driver in own)
    assert own[0].sentence.startswith("The share of exports ")
