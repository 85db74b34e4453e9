import json
import os
import shutil
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path

import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features import hindsight
from features.catalogue import Catalogue
from features.engine import Engine
from features.families import VIEWS
from features.feature import Feature, Window
from features.findings import Audit, Finding
from features.hindsight import find_hindsight, probed_accounts, probed_instant, without_future
from features.intake import check_workspace
from features.label_times import find_open_ends, find_outcome_dates, find_overwritten_ends
from features.labels import build_labels
from features.plan import open_tables, plan_snapshots
from features.preparation import prepare_workspace
from features.probes import Book, audit_tables, probe_tables
from features.row_times import find_early_rows, find_odd_recording
from features.simulate import WorldSettings, simulate_workspace
from features.slices import KnownTables
from features.snapshots import build_matrix
from features.workspace import load_workspace
from tests.brute_force import KNOWN_FROM, is_known
from tests.numbered_books import numbered
from tests.random_worlds import FULL, KINDS, ORIGIN, as_spine, as_tables, catalogue_of

pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning:ibis")  # by Ibis 12 on DuckDB 2
ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("RENEWCAST_DATA", ROOT / ".." / "shared" / "data")).absolute()
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def engine():
    with Engine(threads=1) as engine:
        yield engine


# --- findings


def finding(**columns):
    return Finding(**({"probe": "p", "severity": "look at", "subject": "t.c", "message": "odd.", "todo": "Look."} | columns))


def test_an_audit_survives_json_and_puts_leaks_first():
    odd, leak = finding(evidence={"rows": 3}), finding(severity="leak", examples=("account a",))
    audit = Audit((odd,), {"p": "what p does"}).joined(Audit((leak,), {"q": "what q does"}))
    assert audit.findings == (leak, odd)
    assert audit.leaks == (leak,)
    assert Audit.from_json(json.loads(json.dumps(audit.to_json()))) == audit
    assert str(leak) == "leak: t.c: odd.\n    account a\n  next: Look."


# --- features that change when the future does


PAIRS = [(f"a{i:02d}", ORIGIN + timedelta(days=days)) for days in (-366, -275, -182, -91, 0) for i in range(24)]
PLAIN = dict.fromkeys(("family", "unit", "meaning", "sentence"), "usage")


def all_events(known):
    """Hand out every event that there will ever be: what no feature may see."""
    rows = known.loaded("telemetry")
    return rows.join(known.spine, "account")


def last_event(known):
    latest = known.loaded("telemetry").group_by("account").agg(kind=ibis._.event.max(), at=ibis._.occurred_at.max())
    return known.spine.join(latest, "account")


PEEKING = {"all_events": all_events, "last_event": last_event}


def planted(name, table, expression, **columns):
    return Feature(name=name, source=Window(table=table) if table else None, expression=expression, **(PLAIN | columns))


def hindsight_of(engine, *features, every=40, numbers_in=None):
    """Look for hindsight in these features and in some of the catalogue's, on a random book, numbered in a folder if there is one."""
    world = FULL.world()
    catalogue = Catalogue((*[feature for feature in catalogue_of(world) if feature.source][::every], *features))
    tables = as_tables(engine, world)

    def rebuild(tables, sampled, spine):
        known = KnownTables(engine, tables, spine, levels={"event": KINDS}, views=VIEWS | PEEKING, sampled=sampled)
        return build_matrix(known, spine, catalogue)

    spine = as_spine(PAIRS)
    telemetry = numbered(engine, world, [0] * len(world["telemetry"]), numbers_in) if numbers_in else None
    matrix = rebuild(tables, None, spine)
    return find_hindsight(engine, tables, matrix, catalogue, rebuild, instant=probed_instant(spine), telemetry=telemetry)


@pytest.fixture(params=[False, True], ids=["from tables", "from numbered telemetry"])
def numbers_in(request, tmp_path):
    return tmp_path if request.param else None


def test_no_feature_of_the_catalogue_has_hindsight(engine, numbers_in):
    audit = hindsight_of(engine, every=3, numbers_in=numbers_in)
    assert audit.findings == ()
    assert "24 rows" in audit.probes[hindsight.HINDSIGHT]


def test_a_feature_that_reads_the_future_is_named_with_what_comes_from_it(engine, numbers_in):
    audit = hindsight_of(
        engine,
        planted("half_of_all", None, lambda row: row.events_of_all / 2, inputs=("events_of_all",)),
        planted("events_of_all", "all_events", lambda rows: rows.events.sum()),
        planted("last_kind", "last_event", lambda rows: rows.kind.max(), kind="category"),
        planted("events_so_far", "telemetry", lambda rows: rows.events.sum()),
        numbers_in=numbers_in,
    )
    assert {(finding.severity, finding.subject) for finding in audit.leaks} == {
        ("leak", "events_of_all, half_of_all"),
        ("leak", "last_kind"),
    }
    first = next(finding for finding in audit.leaks if finding.subject != "last_kind")
    assert first.evidence["rows"] == 24
    assert 0 < first.evidence["differing"] <= 24
    assert first.evidence["features"] == 2
    assert "with the future" in first.examples[0]
    assert first.examples[0].startswith("account a")


def test_a_feature_of_the_numbers_of_users_is_no_leak(engine, tmp_path):
    (found,) = hindsight_of(engine, planted("last_user", "telemetry", lambda rows: rows.user_id.max()), numbers_in=tmp_path).findings
    assert (found.severity, found.subject) == ("look at", "last_user")


def test_a_feature_that_is_never_twice_the_same_is_no_leak(engine):
    numbers = count()

    def unsteady(rows):
        return rows.count() * 0 + next(numbers)

    (found,) = hindsight_of(engine, planted("by_the_way", "telemetry", unsteady)).findings
    assert (found.severity, found.subject) == ("look at", "by_the_way")


@pytest.mark.parametrize("name", ["accounts", "telemetry", "subscriptions", "tickets", "assignments", "outcomes"])
def test_the_past_is_what_was_known_then(engine, name):
    world, cutoff = FULL.world(), ORIGIN - timedelta(days=91)
    table = without_future(engine, name, as_tables(engine, world)[name], np.datetime64(cutoff, "us"))
    late = KNOWN_FROM.get(name, {}) | {"attribute_go_live": "attribute_go_live", "created_at": "created_at"}

    def then(row):
        unknown = {field for field in row if field in late and not (row[late[field]] and row[late[field]] <= cutoff)}
        return {field: None if field in unknown else value for field, value in row.items()}

    expected = [then(row) for row in world[name] if name == "accounts" or is_known(name, row, cutoff)]
    found = [{field: row[field] for field in world[name][0]} for row in engine.to_arrow(table).to_pylist()]
    assert sorted(map(repr, found)) == sorted(map(repr, expected))
    assert found != world[name]


def test_accounts_that_came_later_are_not_there(engine):
    known = [datetime(2024, 1, 1), datetime(2024, 1, 3), None]
    accounts = engine.hold(
        pa.table({"account_id": ["a", "b", "c"], "known_at": pa.array(known, pa.timestamp("us"))}), name="three_accounts"
    )
    found = engine.to_arrow(without_future(engine, "accounts", accounts, np.datetime64("2024-01-02T00:00:00", "us")))
    assert found["account_id"].to_pylist() == ["a", "c"]


def rank(row):
    return ibis.rank().over(ibis.window(group_by=row.cutoff, order_by=row.events_so_far))


def next_events(row):
    return row.events_so_far.lead().over(ibis.window(group_by=row.account_id, order_by=row.cutoff))


SO_FAR = planted("events_so_far", "telemetry", lambda rows: rows.events.sum())


def test_a_book_with_many_rows_is_looked_at_in_a_sample_of_accounts(engine, monkeypatch):
    monkeypatch.setattr(hindsight, "_ROWS", 60)
    monkeypatch.setattr(hindsight, "_FEWEST", 10)
    audit = hindsight_of(
        engine,
        SO_FAR,
        planted("rank_of_events", None, rank, inputs=("events_so_far",)),
        planted("events_of_all", "all_events", lambda rows: rows.events.sum()),
    )
    assert [finding.subject for finding in audit.leaks] == [finding.subject for finding in audit.findings] == ["events_of_all"]
    assert audit.leaks[0].evidence["rows"] == 10
    assert f"10 rows of 10 accounts up to {PAIRS[48][1]:%Y-%m-%d} " in audit.probes[hindsight.HINDSIGHT]


@pytest.mark.parametrize("fewest", [10, 500])
def test_a_feature_that_is_made_of_later_rows_is_a_leak(engine, monkeypatch, fewest):
    monkeypatch.setattr(hindsight, "_ROWS", 60)
    monkeypatch.setattr(hindsight, "_FEWEST", fewest)
    (leak,) = hindsight_of(engine, SO_FAR, planted("next_events", None, next_events, inputs=("events_so_far",))).leaks
    assert leak.subject == "next_events"


def test_a_sample_is_the_same_of_the_whole_spine_and_of_a_part_that_holds_it(engine, monkeypatch):
    monkeypatch.setattr(hindsight, "_ROWS", 20)
    monkeypatch.setattr(hindsight, "_FEWEST", 7)
    tables = as_tables(engine, FULL.world())
    spine = as_spine(PAIRS)
    sample = probed_accounts(engine, tables, spine, probed_instant(spine))
    part = [(name, cutoff) for name, cutoff in PAIRS if name in sample.to_pylist() or (name.endswith("3") and cutoff > ORIGIN - 100 * DAY)]
    assert len(sample) == 7
    assert probed_accounts(engine, tables, as_spine(part), probed_instant(spine)).equals(sample)
    monkeypatch.setattr(hindsight, "_ROWS", 10**6)
    assert probed_accounts(engine, tables, spine, probed_instant(spine)).to_pylist() == [name for name, _ in PAIRS[:24]]


# --- times that tell the outcome


MONTHS = pd.date_range("2022-01-01", "2024-01-01", freq="MS")


def contracts(seed=0, *, accounts=400, overwritten=15, add_ons=60, leaving=0.3):
    """Return terms of 1, 3 and 12 months, of which some of those who leave were cut short, and their labels.

    Add-ons begin whenever they are bought and end with the main term.
    """
    rng = np.random.default_rng(seed)
    terms, gone = [], {}
    for number in range(accounts):
        name, months = f"a{number:03d}", (1, 3, 12)[number % 3]
        start = pd.Timestamp("2021-06-01") + rng.integers(400) * pd.Timedelta(DAY)
        while name not in gone and start < MONTHS[-1]:
            end = start + pd.DateOffset(months=months)
            leaves = rng.random() < leaving * months / 12
            if leaves and months > 1 and overwritten and end < MONTHS[-4]:
                end = start + pd.Timedelta(days=int(rng.integers(20, 28) + 30 * rng.integers(months - 1)))
                overwritten -= 1
            terms.append((name, start, end))
            if leaves:
                gone[name] = end
            elif add_ons and months == 12 and rng.random() < 0.5:
                terms.append((name, start + pd.Timedelta(days=int(rng.integers(20, 300))), end))
                add_ons -= 1
            start = end
    table = pd.DataFrame(terms, columns=["account_id", "start_date", "end_date"])
    return pa.Table.from_pandas(table, preserve_index=False), labels_of(table, gone)


def labels_of(terms, gone):
    first = terms.groupby("account_id")["start_date"].min()
    rows = [
        (name, cutoff, float(name in gone and gone[name] <= cutoff + 90 * DAY), gone.get(name))
        for cutoff in MONTHS[:-3]
        for name, begun in first.items()
        if begun <= cutoff and not (name in gone and gone[name] <= cutoff)
    ]
    found = pd.DataFrame(rows, columns=["account_id", "cutoff", "churn", "left_at"])
    found["left_at"] = pd.to_datetime(found["left_at"]).where(found["churn"] == 1)
    return pa.Table.from_pandas(found, preserve_index=False)


ENDS = {"days_ahead": 90, "versioned": False}


@pytest.mark.parametrize("seed", range(3))
def test_ends_that_were_overwritten_with_the_day_of_leaving(seed):
    (found,) = find_overwritten_ends(*contracts(seed), **ENDS)
    assert (found.severity, found.subject) == ("leak", "subscriptions.end_date")
    assert found.evidence["hits"] >= 10
    assert found.evidence["chance"] < 1e-6
    assert "1, 3, 12 months" in found.message
    assert all("on which the account left" in example for example in found.examples)
    (versioned,) = find_overwritten_ends(*contracts(seed), days_ahead=90, versioned=True)
    assert versioned.severity == "look at"


@pytest.mark.parametrize("seed", range(8))
def test_add_ons_that_end_with_the_main_term_are_no_overwritten_ends(seed):
    terms, labels = contracts(seed, overwritten=0)
    assert find_overwritten_ends(terms, labels, **ENDS) == ()
    assert find_open_ends(terms, labels, **ENDS) == ()


def test_ends_that_only_those_have_who_left():
    terms, labels = contracts(overwritten=0)
    left = set(zip(*(labels.filter(labels["left_at"].is_valid())[name].to_pylist() for name in ("account_id", "left_at")), strict=True))
    rows = [row | {"end_date": row["end_date"] if (row["account_id"], row["end_date"]) in left else None} for row in terms.to_pylist()]
    (found,) = find_open_ends(pa.Table.from_pylist(rows, terms.schema), labels, **ENDS)
    assert (found.severity, found.subject) == ("leak", "subscriptions.end_date")
    assert found.evidence["hits"] == found.evidence["of"] > 20


def test_tables_without_terms_or_labels_tell_nothing():
    terms, labels = contracts()
    for some_terms, some_labels in ((terms[:0], labels), (terms, labels[:0])):
        assert find_overwritten_ends(some_terms, some_labels, **ENDS) == ()
        assert find_open_ends(some_terms, some_labels, **ENDS) == ()


@given(start=st.datetimes(datetime(2015, 1, 1), datetime(2035, 1, 1)), months=st.integers(1, 60), more=st.integers(-20, 20))
@settings(max_examples=200, deadline=None)
def test_a_length_in_months_is_that_of_the_calendar(start, months, more):
    from features.label_times import _whole_months

    end = pd.Timestamp(start.date()) + pd.DateOffset(months=months) + more * DAY
    (found,) = _whole_months(np.array([pd.Timestamp(start.date())], "M8[us]"), np.array([end], "M8[us]"))
    if abs(more) <= 3:
        assert found == months
    elif 5 < abs(more) < 10:
        assert found == 0


def dated(dates):
    return pa.table({"account_id": list(dates), "attribute_seen": pa.array(list(dates.values()), pa.timestamp("us"))})


@pytest.mark.parametrize("seed", range(3))
def test_a_date_that_is_written_when_the_customer_leaves(seed):
    terms, labels = contracts(seed)
    frame = labels.to_pandas()
    left = frame.dropna(subset="left_at").groupby("account_id")["left_at"].first()
    names = sorted(set(terms["account_id"].to_pylist()))
    rng = np.random.default_rng(seed)
    last_seen = {name: (left.get(name, MONTHS[-1]) - rng.integers(20) * DAY).to_pydatetime() for name in names}
    (found,) = find_outcome_dates(dated(last_seen), labels, days_ahead=90)
    assert (found.severity, found.subject) == ("leak", "accounts.seen")
    assert found.evidence["hits"] > 0.9 * found.evidence["of"]
    reviews = {name: (MONTHS[0] + rng.integers(800) * DAY).to_pydatetime() for name in names}
    assert find_outcome_dates(dated(reviews), labels, days_ahead=90) == ()
    begun = {row["account_id"]: row["start_date"] for row in terms.to_pylist()[::-1]}
    assert find_outcome_dates(dated(begun), labels, days_ahead=90) == ()
    assert find_outcome_dates(dated(dict.fromkeys(names)), labels, days_ahead=90) == ()


# --- rows that cannot have happened


START = datetime(2024, 1, 1)
NAMES = [f"a{number}" for number in range(4)]
ROWS = [{"account_id": name, "occurred_at": START + day * DAY} for name in NAMES for day in range(0, 180, 3)]


def times(rows):
    return pa.table({name: pa.array([row[name] for row in rows], None if name == "account_id" else pa.timestamp("us")) for name in rows[0]})


def early(engine, telemetry=ROWS, *, created=None, paid=None):
    accounts = [{"account_id": name} | ({"created_at": created} if created else {}) for name in NAMES]
    tables = {"accounts": times(accounts), "telemetry": times(telemetry)}
    if paid:
        tables["subscriptions"] = times([{"account_id": name, "start_date": paid} for name in NAMES])
    return find_early_rows(engine, {name: engine.hold(table, name=f"early_{name}") for name, table in tables.items()})


@pytest.mark.parametrize(
    ("created", "paid", "severity", "share"),
    [
        (0, None, None, 0),
        (1, None, "look at", 1 / 60),
        (36, None, "leak", 12 / 60),
        (None, 36, "look at", 12 / 60),
        (None, 90, "leak", 30 / 60),
        (0, 90, None, 0),
        (None, None, None, 0),
    ],
)
def test_rows_that_are_older_than_their_account(engine, created, paid, severity, share):
    audit = early(engine, **{name: START + day * DAY for name, day in (("created", created), ("paid", paid)) if day is not None})
    assert list(audit.probes) == ["rows before their account"]
    assert [(f.severity, f.subject) for f in audit.findings] == ([(severity, "telemetry.occurred_at")] if severity else [])
    for finding in audit.findings:
        assert finding.evidence["share"] == pytest.approx(share)
        assert finding.examples[0].startswith("account a0: a row of 2024-01-01, though it")
        assert ("created_at" in finding.todo) == (created is not None or "Map created_at" in finding.todo)


@pytest.mark.parametrize(
    ("recorded_after", "words"), [(1, None), (0, None), (None, None), (-1, "before they happened"), (40, "more than 30 days after")]
)
def test_times_of_recording_that_do_not_fit(engine, recorded_after, words):
    rows = [row | {"recorded_at": None if recorded_after is None else row["occurred_at"] + recorded_after * DAY} for row in ROWS]
    audit = find_odd_recording(engine, {"telemetry": engine.hold(times(rows), name="recorded_telemetry")})
    assert [words in f.message for f in audit.findings] == ([True] if words else [])
    assert all((f.severity, f.subject, f.evidence["rows"]) == ("look at", "telemetry.recorded_at", len(rows)) for f in audit.findings)


def test_terms_may_be_booked_ahead(engine):
    terms = times([{"account_id": "a0", "start_date": START, "recorded_at": START - DAY}])
    assert find_odd_recording(engine, {"subscriptions": engine.hold(terms, name="booked_terms")}) == Audit()


TWO_TABLES = """
[tables.accounts]
source = "accounts.csv"
[tables.telemetry]
source = "telemetry.csv"
"""


def test_snapshots_from_elsewhere_are_said_to_be_unprobed(tmp_path):
    (tmp_path / "renewcast.toml").write_text(TWO_TABLES)
    audit = audit_tables(load_workspace(tmp_path, {}))
    assert [f.severity for f in audit.findings] == ["look at"]
    assert audit.probes == {}


# --- books with and without leaks


def test_a_simulated_book_has_no_leak(tmp_path):
    workspace = simulate_workspace(tmp_path / "book", WorldSettings(accounts=40, partners=3, months=13))
    workspace.state.mkdir(exist_ok=True)
    check_workspace(workspace, now=datetime(2027, 1, 1))
    prepare_workspace(workspace)
    audit = audit_tables(workspace)
    assert audit.findings == ()
    assert len(audit.probes) == 5


def probed(workspace):
    """Check a book and probe its tables, without any feature."""
    check_workspace(workspace, now=datetime(2027, 1, 1))
    with Engine(threads=1) as engine:
        tables = open_tables(engine, workspace.tables)
        plan, targets = plan_snapshots(engine, workspace, tables), workspace.config.targets
        labels = build_labels(KnownTables(engine, tables, plan.spine), plan.spine, targets, data_until=plan.data_until)
        matrix = labels.select(["account_id", "cutoff"])
        book = Book(
            engine=engine,
            tables=tables,
            matrix=matrix,
            labels=labels,
            catalogue=Catalogue(()),
            days_ahead=targets.horizon_days,
            instant=probed_instant(plan.spine),
        )
        return probe_tables(book, lambda tables, sampled, spine: matrix)


def needs(name):
    folder = DATA / name
    if not folder.exists():
        pytest.skip(f"needs the tables of {name} in {DATA}; set RENEWCAST_DATA to the folder that holds them")
    return folder


def real_book(folder, name, data, **changes):
    """Make a workspace of a book's config, with some of its lines changed."""
    config = (ROOT / "tests" / "workspaces" / name / "renewcast.toml").read_text()
    lines = [changes.get(line.split(" = ")[0].strip("[]").replace("tables.", ""), line) for line in config.splitlines()]
    folder.mkdir(parents=True)
    (folder / "renewcast.toml").write_text("\n".join(lines))
    workspace = load_workspace(folder, {"RENEWCAST_DATA": str(data)})
    workspace.state.mkdir()
    return workspace


@pytest.fixture(scope="module")
def part_of_crm(tmp_path_factory):
    """Every twentieth account, and those whose end was overwritten; of the telemetry, the meetings."""
    source, target = needs("fightchurn_crm5"), tmp_path_factory.mktemp("data") / "fightchurn_crm5"
    target.mkdir()
    terms = pd.read_csv(source / "subscriptions.csv", parse_dates=["start_date", "end_date"])
    planned = [start + pd.DateOffset(months=n) for start, n in zip(terms["start_date"], terms["bill_period_months"], strict=True)]
    cut_short = terms["end_date"] < pd.Series(planned) - 3 * DAY
    assert cut_short.sum() == 21
    kept = set(terms["account_id"][cut_short]) | set(range(0, 4000, 20))
    terms[terms["account_id"].isin(kept)].to_csv(target / "subscriptions.csv", index=False)
    accounts = pd.read_csv(source / "accounts.csv")
    accounts[accounts["account_id"].isin(kept)].to_csv(target / "accounts.csv", index=False)
    shutil.copy(source / "event_types.csv", target)
    meetings = pq.read_table(source / "usage_daily.parquet", filters=[("type", "==", 3), ("account_id", "in", sorted(kept))])
    pq.write_table(meetings, target / "usage_daily.parquet")
    return target.parent


def test_the_overwritten_ends_of_the_crm_are_found_where_they_are_mapped(tmp_path, part_of_crm):
    audit = probed(real_book(tmp_path / "book", "fightchurn_crm5", part_of_crm, end_date="", ended_at=""))
    (found,) = audit.findings
    assert (found.severity, found.subject, found.probe) == ("leak", "subscriptions.end_date", "overwritten ends")
    assert found.evidence["hits"] == found.evidence["of"] == 15
    assert found.examples[0].startswith("account 1556: a term from 2022-02-16 to 2022-07-16 (150 days)")


def test_the_crm_as_it_is_mapped_has_no_leak(tmp_path, part_of_crm):
    assert probed(real_book(tmp_path / "book", "fightchurn_crm5", part_of_crm)).findings == ()


def test_rows_before_the_account_and_ends_of_those_who_left_are_found(tmp_path):
    needs("ravenstack")
    audit = probed(real_book(tmp_path / "book", "ravenstack", DATA, end_date='end_date = "end_date"', ended_at=""))
    assert {f.subject for f in audit.leaks} == {"telemetry.occurred_at", "tickets.opened_at", "subscriptions.end_date"}
    shares = {f.subject: f.evidence["share"] for f in audit.leaks if "share" in f.evidence}
    assert shares == {"telemetry.occurred_at": pytest.approx(0.764, abs=0.001), "tickets.opened_at": pytest.approx(0.760, abs=0.001)}


def test_rows_before_the_account_that_are_set_aside_are_no_leak(tmp_path):
    needs("ravenstack")
    aside = '\nbefore_created_at = "quarantine"\nquarantine_limit = 0.9'
    book = real_book(tmp_path / "book", "ravenstack", DATA, telemetry=f"[tables.telemetry]{aside}", tickets=f"[tables.tickets]{aside}")
    assert probed(book).findings == ()
