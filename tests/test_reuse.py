import json
import shutil
from datetime import datetime, timedelta

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
from features.reuse import KEYS_FILE, Reusable
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

    def labels(self):
        return pq.read_table(self.workspace.snapshots / "labels.parquet")


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
    first = book.run()
    book.give("1", [("A", 40.0, "u9", 60)])  # happened on 10 February, known on 10 April
    second = book.run()
    assert computed == [ALL, ["05-01", "06-01", "06-15"]]
    same(second.slice(0, 8), first.slice(0, 8))
    same(second, book.rebuilt())
    assert second.filter(pa.compute.equal(second["account_id"], "A"))["users_ever"].to_pylist() == [3, 3, 3, 4, 4, 4]


def test_nothing_is_computed_where_nothing_has_changed(tmp_path, computed):
    book = Book(tmp_path / "book")
    first = book.run()
    made = (book.workspace.snapshots / "features.parquet").stat()
    book.accounts(ACCOUNTS, csm="Mina")
    same(book.run(), first)
    assert computed == [ALL]
    assert (book.workspace.snapshots / "features.parquet").stat().st_ino == made.st_ino, "a file that stays is not written again"


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


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    stays=st.lists(st.booleans(), min_size=1, max_size=9),
    gone=st.lists(st.integers(0, 9), max_size=3),
    rows_an_instant=st.integers(1, 4),
    group=st.integers(1, 12),
)
def test_rows_that_stay_and_computed_ones_come_in_the_order_of_the_spine(tmp_path_factory, stays, gone, rows_an_instant, group):
    """Instants are numbers here, and each row carries its place in the spine; rows of instants that are gone lie between them."""
    file = tmp_path_factory.mktemp("snapshots") / "features.parquet"
    place = np.arange(len(stays) * rows_an_instant)
    fresh = np.repeat(stays, rows_an_instant)
    kept = np.insert(np.where(fresh, place, -1), np.minimum(np.sort(gone).astype(int), len(place)), -1)
    pq.write_table(pa.table({"other": kept * 2, "place": kept}), file, row_group_size=group)
    reusable = Reusable(file, ["place"], kept >= 0, np.flatnonzero(~fresh))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reuse, "ROWS_PER_GROUP", 5)
        blocks = list(reusable.blocks(pa.table({"place": place[~fresh]}) if not all(stays) else None))
    assert [len(block) for block in blocks[:-1]] == [5] * (len(blocks) - 1)
    assert pa.concat_tables(blocks)["place"].to_pylist() == place.tolist()
    assert reusable.is_whole == (all(stays) and not gone)
