import json
import shutil
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import features.preparation
import features.probes
from features import reuse
from features.intake import check_workspace
from features.preparation import prepare_workspace
from features.probes import earlier_hindsight
from features.reuse import KEYS_FILE, Month, Reusable
from features.snapshot_files import months_of, snapshot_files
from features.workspace import load_workspace

START = datetime(2024, 1, 1)
CONFIG = """
[workspace]
quarantine_limit = 1.0
data_until = 2024-06-15
[tables.accounts]
source = "accounts.csv"
[tables.telemetry]
source = "events/*.parquet"
[tables.tickets]
source = "tickets.csv"
[targets]
kind = "usage"
horizon_days = 28
eligible_events = 1
[cutoffs]
every = "month"
[features]
top_events = 2
events = ["login", "open"]
"""
ACCOUNTS = {"A": "2023-01-01", "B": "2023-06-01", "C": "2024-02-15"}
TICKETS = [("t1", "A", "2024-01-10", ""), ("t2", "B", "2024-03-10", "")]


class Book:
    """A workspace with telemetry that says when it was recorded."""

    def __init__(self, folder):
        (folder / "events").mkdir(parents=True)
        (folder / "renewcast.toml").write_text(CONFIG, encoding="utf-8")
        self.folder = folder
        self.workspace = load_workspace(folder, {})
        self.workspace.state.mkdir()
        self.tickets(TICKETS)
        self.accounts(ACCOUNTS)
        rows = [(name, day + 0.25, f"u{day % 3}", 0) for day in range(0, 160, 5) for name in "ABC"]
        self.give("0", rows)

    def accounts(self, accounts, *, csm=""):
        lines = "".join(f"{name},{created},{csm}\n" for name, created in accounts.items())
        (self.folder / "accounts.csv").write_text(f"account_id,created_at,csm\n{lines}", encoding="utf-8")

    def tickets(self, tickets):
        lines = "".join(f"{','.join(ticket)}\n" for ticket in tickets)
        (self.folder / "tickets.csv").write_text(f"ticket_id,account_id,opened_at,closed_at\n{lines}", encoding="utf-8")

    def give(self, name, rows):
        times = [START + timedelta(days=day) for _, day, _, _ in rows]
        recorded = [time + timedelta(days=late) for time, (_, _, _, late) in zip(times, rows, strict=True)]
        columns = {
            "account_id": pa.array([account for account, _, _, _ in rows], pa.string()),
            "user_id": pa.array([user for _, _, user, _ in rows], pa.string()),
            "occurred_at": pa.array(times, pa.timestamp("us")),
            "recorded_at": pa.array(recorded, pa.timestamp("us")),
            "event": pa.array(["login" if number % 3 else "open" for number in range(len(rows))], pa.string()),
            "number": pa.array([f"{name}/{number}" for number in range(len(rows))], pa.string()),
        }
        pq.write_table(pa.table(columns), self.folder / "events" / f"{name}.parquet")

    def run(self):
        check_workspace(self.workspace, now=datetime(2025, 1, 1))
        prepare_workspace(self.workspace)
        return pq.read_table(self.workspace.snapshots / "features.parquet")

    def rebuilt(self):
        """Return what a run from nothing makes."""
        shutil.rmtree(self.workspace.tables)
        shutil.rmtree(self.workspace.snapshots)
        return self.run()

    def months(self):
        """Return by month the number of its file, which stays while the file does."""
        return {file.stem: file.stat().st_ino for file in snapshot_files(self.workspace.snapshots / "features.parquet")}

    def labels(self):
        return pq.read_table(self.workspace.snapshots / "labels.parquet")

    def movements(self):
        return pq.read_table(self.workspace.snapshots / "movements.parquet")


@pytest.fixture
def labelled(monkeypatch):
    """Return the cutoffs that each run makes labels of."""
    runs = []
    build = features.preparation.build_labels

    def noted(known, spine, *rest, **options):
        runs.append(sorted({f"{cutoff:%m-%d}" for cutoff in spine.cutoff.to_pylist()}))
        return build(known, spine, *rest, **options)

    monkeypatch.setattr(features.preparation, "build_labels", noted)
    return runs


@pytest.fixture
def computed(monkeypatch):
    """Return the cutoffs that each run computes."""
    runs = []
    build = features.preparation.build_matrix_of_own

    def noted(known, spine, *rest, **options):
        runs.append(sorted({f"{cutoff:%m-%d}" for cutoff in spine.cutoff.to_pylist()}))
        return build(known, spine, *rest, **options)

    monkeypatch.setattr(features.preparation, "build_matrix_of_own", noted)
    monkeypatch.setattr(features.preparation, "probe_tables", lambda book, rebuild, hindsight: features.preparation.Audit())
    return runs


def same(one, other):
    assert one.column_names == other.column_names
    assert len(one) == len(other)
    for name in one.column_names:
        if pa.types.is_floating(one[name].type):
            np.testing.assert_allclose(one[name].to_numpy(), other[name].to_numpy(), rtol=1e-9, atol=1e-12, err_msg=name)
        else:
            assert one[name].to_pylist() == other[name].to_pylist()


ALL = ["02-01", "03-01", "04-01", "05-01", "06-01", "06-15"]


def test_a_late_row_is_computed_where_it_was_known_and_past_cutoffs_keep_their_answer(tmp_path, computed):
    book = Book(tmp_path / "book")
    first, months = book.run(), book.months()
    book.give("1", [("A", 40.0, "u9", 60)])  # happened on 10 February, known on 10 April
    second = book.run()
    assert {month for month, file in book.months().items() if file == months[month]} == {"2024-02", "2024-03", "2024-04"}
    assert computed == [ALL, ["05-01", "06-01", "06-15"]]
    same(second.slice(0, 8), first.slice(0, 8))
    same(second, book.rebuilt())
    assert second.filter(pa.compute.equal(second["account_id"], "A"))["users_ever"].to_pylist() == [3, 3, 3, 4, 4, 4]


def test_nothing_is_computed_where_nothing_has_changed(tmp_path, computed):
    book = Book(tmp_path / "book")
    first, months = book.run(), book.months()
    book.accounts(ACCOUNTS, csm="Mina")
    same(book.run(), first)
    assert computed == [ALL]
    assert book.months() == months, "a file that stays is not written again"


def test_a_later_end_of_the_data_changes_the_file_of_its_month_only(tmp_path, computed):
    book = Book(tmp_path / "book")
    book.run()
    months = book.months()
    (book.folder / "renewcast.toml").write_text(CONFIG.replace("2024-06-15", "2024-06-30"), encoding="utf-8")
    book.workspace = load_workspace(book.folder, {})
    found = book.run()
    assert computed[1:] == [["06-30"]]
    assert {month for month, file in book.months().items() if file != months[month]} == {"2024-06"}
    same(found, book.rebuilt())


def rewritten(change):
    """Return what writes a month anew with other rows or columns."""

    def write(file):
        table = change(pq.read_table(file))
        file.unlink()  # what other snapshots link to stays
        pq.write_table(table, file)

    return write


def not_parquet(file):
    file.unlink()
    file.write_text("account_id,cutoff")


@pytest.mark.parametrize(
    "damages",
    [
        {
            "02-01": Path.unlink,
            "03-01": not_parquet,
            "04-01": rewritten(lambda rows: rows.slice(1)),
            "05-01": rewritten(lambda rows: rows.take([1, 0, 2])),
        },
        {
            "02-01": lambda file: shutil.copy(file.with_stem("2024-03"), file),
            "03-01": rewritten(lambda rows: rows.take([0, 0, 1, 2])),
            "04-01": rewritten(lambda rows: rows.drop(["users_ever"])),
            "05-01": rewritten(lambda rows: rows.set_column(2, rows.field(2).name, rows.column(2).cast(pa.string()))),
        },
    ],
)
def test_a_month_that_is_not_as_it_was_written_is_computed_again(tmp_path, computed, damages):
    book = Book(tmp_path / "book")
    first = book.run()
    for cutoff, damage in damages.items():
        damage(book.workspace.snapshots / "features.parquet" / f"2024-{cutoff[:2]}.parquet")
    same(book.run(), first)
    assert computed == [ALL, list(damages)]


def test_a_month_with_its_columns_in_another_order_keeps_its_rows(tmp_path, computed):
    book = Book(tmp_path / "book")
    first = book.run()
    rewritten(lambda rows: rows.select(rows.column_names[::-1]))(book.workspace.snapshots / "features.parquet" / "2024-04.parquet")
    months = book.months()
    same(book.run(), first)
    assert computed == [ALL]
    assert {month for month, file in book.months().items() if file != months[month]} == {"2024-04"}


def test_snapshots_of_an_earlier_version_whose_features_are_one_file_are_computed_again(tmp_path, computed):
    book = Book(tmp_path / "book")
    first = book.run()
    path = book.workspace.snapshots / "features.parquet"
    shutil.rmtree(path)
    pq.write_table(first, path)
    same(book.run(), first)
    assert computed == [ALL] * 2
    assert "2024-04" in book.months()


def test_a_field_that_becomes_known_changes_the_cutoffs_after_it(tmp_path, computed):
    book = Book(tmp_path / "book")
    book.run()
    book.tickets([("t1", "A", "2024-01-10", "2024-04-20"), TICKETS[1]])
    same(book.run(), book.rebuilt())
    assert computed[1] == ["05-01", "06-01", "06-15"]
    book.accounts(ACCOUNTS | {"C": "2024-03-15"})
    same(book.run(), book.rebuilt())
    assert computed[3] == ALL[1:]


def test_the_past_is_computed_again_without_the_future_only_where_it_has_changed(tmp_path, monkeypatch):
    book = Book(tmp_path / "book")
    book.run()
    found = earlier_hindsight(book.workspace)
    probe = features.probes.find_hindsight
    monkeypatch.setattr(features.probes, "find_hindsight", lambda *book, **at: pytest.fail("was computed again"))
    book.give("1", [("A", 150.0, "u9", 10)])
    book.run()
    assert earlier_hindsight(book.workspace) == found
    monkeypatch.setattr(features.probes, "find_hindsight", probe)
    book.give("2", [("A", 20.0, "u9", 0)])
    book.run()
    assert earlier_hindsight(book.workspace) == found


@pytest.mark.usefixtures("computed")
def test_labels_are_made_anew_where_something_happened_in_their_windows_or_they_have_closed(tmp_path, labelled):
    book = Book(tmp_path / "book")
    book.run()
    book.run()
    book.give("1", [("A", 40.0, "u9", 60)])  # happened on 10 February, known on 10 April
    book.run()
    assert labelled == [ALL, [], ["02-01", "03-01"]]
    labels = book.labels()
    book.rebuilt()
    assert labels.equals(book.labels())
    config = book.folder / "renewcast.toml"
    config.write_text(CONFIG.replace("2024-06-15", "2024-06-30"), encoding="utf-8")
    book.workspace = load_workspace(book.folder, {})
    book.run()
    assert labelled[-1] == ["06-01", "06-30"]
    labels = book.labels()
    book.rebuilt()
    assert labels.equals(book.labels())


PAID = CONFIG.replace('kind = "usage"', 'kind = "subscription"').replace("eligible_events = 1\n", "")
PAID = PAID.replace("[targets]", '[tables.subscriptions]\nsource = "subscriptions.csv"\n[targets]')
TERMS = {"A": "2024-12-31", "B": "2024-12-31", "C": "2024-04-20"}


class PaidBook(Book):
    """The workspace with subscriptions."""

    def __init__(self, folder):
        super().__init__(folder)
        (folder / "renewcast.toml").write_text(PAID, encoding="utf-8")
        self.workspace = load_workspace(folder, {})
        self.terms(TERMS)

    def terms(self, ends):
        lines = "".join(f"{name},s{name},100,2024-01-01,{end}\n" for name, end in ends.items())
        (self.folder / "subscriptions.csv").write_text(f"account_id,subscription_id,arr,start_date,end_date\n{lines}", encoding="utf-8")


@pytest.mark.usefixtures("computed")
def test_labels_of_payments_stay_while_subscriptions_do(tmp_path, labelled):
    book = PaidBook(tmp_path / "book")
    book.run()
    book.give("1", [("A", 40.0, "u9", 60)])
    book.run()
    book.terms(dict(reversed(TERMS.items())))
    book.run()
    assert [len(cutoffs) for cutoffs in labelled] == [6, 0, 0], "neither telemetry nor the order of terms changes a label"
    labels, movements = book.labels(), book.movements()
    book.terms(TERMS | {"B": "2024-03-10"})
    book.run()
    assert len(labelled[-1]) == 6
    assert not labels.equals(book.labels()) and not movements.equals(book.movements())
    labels, movements = book.labels(), book.movements()
    book.rebuilt()
    assert labels.equals(book.labels()) and movements.equals(book.movements())


@pytest.mark.usefixtures("computed")
def test_labels_of_payments_are_made_anew_when_their_windows_have_closed(tmp_path, labelled):
    book = PaidBook(tmp_path / "book")
    book.run()
    assert book.labels()["churn"].null_count
    (book.folder / "renewcast.toml").write_text(PAID.replace("2024-06-15", "2024-07-10"), encoding="utf-8")
    book.workspace = load_workspace(book.folder, {})
    book.run()
    assert labelled[-1] == ["05-01", "07-01", "07-10"], "28 days and the 30 of grace after 1 May end before 10 July"
    labels, movements = book.labels(), book.movements()
    assert datetime(2024, 6, 15) not in movements["month"].to_pylist()
    book.rebuilt()
    assert labels.equals(book.labels()) and movements.equals(book.movements())


def test_damaged_or_missing_keys_mean_that_all_is_computed(tmp_path, computed):
    book = Book(tmp_path / "book")
    first = book.run()
    (book.workspace.snapshots / KEYS_FILE).unlink()
    same(book.run(), first)
    keys = book.workspace.snapshots / KEYS_FILE
    keys.write_text(json.dumps({"cutoffs": {}, "hindsight": ""}), encoding="utf-8")
    same(book.run(), first)
    assert computed == [ALL] * 3


ROWS = st.lists(
    st.tuples(st.sampled_from("ABC"), st.integers(0, 160), st.sampled_from(["u1", "u8"]), st.sampled_from([0, 1, 30, 90])),
    min_size=1,
    max_size=5,
)


@settings(max_examples=3, deadline=None, phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck))
@given(deliveries=st.lists(ROWS, min_size=1, max_size=3))
def test_any_split_into_deliveries_gives_the_snapshots_of_a_rebuild(tmp_path_factory, computed, deliveries):
    book = Book(tmp_path_factory.mktemp("books") / "book")
    book.run()
    for number, rows in enumerate(deliveries):
        book.give(str(number + 1), [(account, day + 0.5, user, late) for account, day, user, late in rows])
        last, labels = book.run(), book.labels()
    same(last, book.rebuilt())
    assert labels.equals(book.labels())


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), stays=st.lists(st.booleans(), min_size=1, max_size=9), group=st.integers(1, 12), rows_a_cutoff=st.integers(1, 4))
def test_rows_that_stay_and_computed_ones_come_in_the_order_of_the_spine(tmp_path_factory, data, stays, group, rows_a_cutoff):
    """Cutoffs are ten days apart, and each row carries its place in the spine; rows of cutoffs that are gone lie between them."""
    folder = tmp_path_factory.mktemp("snapshots")
    schema = pa.schema([("cutoff", pa.timestamp("us")), ("place", pa.int64())])
    cutoff = np.datetime64(START, "us") + np.repeat(np.arange(len(stays)), rows_a_cutoff) * np.timedelta64(10, "D")
    place, stale = np.arange(len(cutoff)), ~np.repeat(stays, rows_a_cutoff)
    months, unchanged = [], []
    for month, rows in months_of(cutoff):
        gone = data.draw(st.lists(st.integers(0, 9), max_size=3))
        there = np.insert(np.where(stale, -1, place)[rows], np.minimum(np.sort(gone).astype(int), len(place[rows])), -1)
        taken = data.draw(st.sampled_from([["cutoff", "place"], ["place", "cutoff"]]))
        table = pa.table({"cutoff": cutoff[np.maximum(there, 0)], "place": there}).select(taken)
        pq.write_table(table, folder / f"{month}.parquet", row_group_size=group)
        months.append(Month(folder / f"{month}.parquet", there >= 0, stale[rows]))
        unchanged += [month] if (there >= 0).all() and taken == schema.names else []
    reusable = Reusable(schema, months)
    assert reusable.stale.tolist() == np.flatnonzero(stale).tolist()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reuse, "ROWS_PER_GROUP", 5)
        reusable.write(folder / "new", pa.table({"cutoff": cutoff[stale], "place": place[stale]}))
    files = snapshot_files(folder / "new")
    assert pq.read_table(files).equals(pa.table({"cutoff": cutoff, "place": place}))
    assert [file.stem for file in files if file.samefile(folder / file.name)] == unchanged
    for file in files:
        metadata = pq.read_metadata(file)
        sizes = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
        assert file.stem in unchanged or sizes[:-1] == [5] * (len(sizes) - 1)
