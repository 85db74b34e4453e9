import csv
import dataclasses
import json
import re
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from features.errors import ContractError, RenewcastError, WorkspaceError
from features.intake import check_workspace
from features.pieces import DELIVERY, DIGEST, MOST_PIECES, PLACE, piece_files, read_manifest
from features.progress import silent
from features.workspace import load_workspace

NOW = datetime(2025, 1, 1)
START = datetime(2024, 1, 1)
CONFIG = """
[tables.accounts]
source = "accounts.csv"
quarantine_limit = 1.0
[tables.telemetry]
source = "events/*.parquet"
quarantine_limit = 1.0
before_created_at = "{before}"
"""
TYPES = {
    "account_id": pa.string(),
    "occurred_at": pa.timestamp("us"),
    "event": pa.string(),
    "quantity": pa.float64(),
    "recorded_at": pa.timestamp("us"),
    "event_id": pa.int64(),
}


def event(account="A", day=0.0, kind="login", *, quantity=None, late=None, number=0):
    occurred = None if day is None else START + timedelta(days=day)
    recorded = None if late is None or occurred is None else occurred + timedelta(days=late)
    return account, occurred, kind, quantity, recorded, number


class Book:
    """A workspace whose telemetry comes in files, beside one that is checked from nothing each time."""

    def __init__(self, folder, *, before="keep"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "events").mkdir(exist_ok=True)
        (folder / "renewcast.toml").write_text(CONFIG.format(before=before), encoding="utf-8")
        self.folder = folder
        self.give_accounts({"A": "2023-01-01", "B": "2024-01-20"})

    def give_accounts(self, accounts):
        lines = [f"{name},{created}\n" for name, created in accounts.items()]
        (self.folder / "accounts.csv").write_text("account_id,created_at\n" + "".join(lines), encoding="utf-8")

    def give(self, name, events, *, without=()):
        columns = {
            column: pa.array([row[place] for row in events], kind)
            for place, (column, kind) in enumerate(TYPES.items())
            if column not in without
        }
        pq.write_table(pa.table(columns), self.folder / "events" / f"{name}.parquet")

    def take(self, name):
        (self.folder / "events" / f"{name}.parquet").unlink()

    def check(self, *, now=NOW, on_progress=silent):
        workspace = load_workspace(self.folder, {})
        workspace.state.mkdir(exist_ok=True)
        return check_workspace(workspace, now=now, on_progress=on_progress).table("telemetry")

    def found(self, summary):
        """Return all that a check leaves, in a form in which two checks can be compared."""
        state = self.folder / ".renewcast"
        table = pq.read_table(state / "tables" / "telemetry.parquet").drop_columns([DELIVERY, PLACE, DIGEST])
        listed = []
        if summary.quarantine_file is not None:
            with (state / "quarantine" / "telemetry.csv").open(encoding="utf-8", newline="") as stream:
                listed = list(csv.DictReader(stream))
        counted = {name: value for name, value in dataclasses.asdict(summary).items() if name not in ("seconds", "read", "unchanged")}
        days = {}
        for piece in read_manifest(state / "tables" / "telemetry.parquet").pieces:
            for day, (rows, total) in piece.days.items():
                had = days.get(day, (0, 0))
                days[day] = had[0] + rows, (had[1] + total) % 2**64
        return sorted(map(repr, table.to_pylist())), listed, counted, dict(sorted(days.items()))

    def check_both(self, *, now=NOW):
        """Check on top of the last check, then from nothing, and return both."""
        summary = self.check(now=now)
        found = self.found(summary)
        tables, aside = self.folder / ".renewcast" / "tables", self.folder / "aside"
        tables.rename(aside)
        rebuilt = self.found(self.check(now=now))
        shutil.rmtree(tables)
        aside.rename(tables)
        return summary, found, rebuilt


def agree(book, *, now=NOW):
    summary, found, rebuilt = book.check_both(now=now)
    assert found == rebuilt
    return summary


def test_only_new_files_are_read_and_late_rows_find_their_month(tmp_path):
    book = Book(tmp_path)
    book.give("day1", [event("A", 1.5), event("B", 45.0)])
    assert (book.check().read, book.check().read) == (1, 0)
    book.give("day2", [event("A", 46.0), event("A", 1.25, late=45)])
    summary = agree(book)
    assert (summary.read, summary.unchanged, summary.rows_in, summary.rows_out) == (1, 1, 4, 4)


def test_a_touched_file_is_the_same_and_a_file_that_grew_or_changed_is_read_again(tmp_path):
    book = Book(tmp_path)
    rows = [event("A", 1.0), event("Z", 2.0)]
    book.give("day1", rows)
    book.give("day2", [event("B", 50.0)])
    book.check()
    book.give("day1", rows)
    assert agree(book).read == 0
    book.give("day1", [*rows, event("A", 3.0)])
    assert agree(book).read == 1
    book.take("day1")
    summary = agree(book)
    assert (summary.read, summary.rows_in, summary.quarantined) == (0, 1, 0)


@pytest.mark.parametrize(("first", "second"), [("a", "b"), ("b", "a")], ids=["comes later", "sorts before"])
def test_a_row_that_is_in_two_files_counts_once_wherever_it_comes_first(tmp_path, first, second):
    book = Book(tmp_path)
    book.give(first, [event("A", 1.0), event("A", 2.0)])
    book.check()
    book.give(second, [event("A", 1.0), event("A", 1.0, number=7)])
    summary = agree(book)
    assert (summary.rows_out, dict(summary.reasons)) == (3, {"exact duplicate of an earlier row": 1})
    book.take("a")
    assert agree(book).quarantined == 0


def test_an_account_that_becomes_known_brings_its_rows_and_one_that_goes_takes_them_away(tmp_path):
    book = Book(tmp_path)
    book.give("day1", [event("Z", 1.0), event("Z", 1.0), event("A", 2.0)])
    book.give("day2", [event("A", 3.0)])
    assert book.check().rows_out == 2
    book.give_accounts({"A": "2023-01-01", "Z": "2024-01-01"})
    summary = agree(book)
    assert (summary.read, summary.unchanged, summary.rows_out) == (1, 1, 3)
    book.give_accounts({"Z": "2024-01-01"})
    assert agree(book).rows_out == 1


@pytest.mark.parametrize("before", ["keep", "quarantine"])
def test_an_account_with_another_date_of_creation_is_judged_anew(tmp_path, before):
    book = Book(tmp_path, before=before)
    book.give("day1", [event("A", 1.0), event("B", 2.0)])
    book.check()
    book.give_accounts({"A": "2024-01-01", "B": "2023-01-01"})
    agree(book)
    book.give_accounts({"A": "2024-06-01", "B": "2023-01-01"})
    assert agree(book).rows_out == (2 if before == "keep" else 1)


def test_a_row_of_the_future_is_one_of_today_when_its_day_has_come(tmp_path):
    book = Book(tmp_path)
    book.give("day1", [event("A", 1.0), event("A", 10.0)])
    assert book.check(now=START + timedelta(days=2)).quarantined == 1
    assert agree(book, now=START + timedelta(days=5)).read == 0
    summary = agree(book, now=START + timedelta(days=9))
    assert (summary.read, summary.quarantined) == (1, 0)


def test_a_new_column_makes_all_files_be_read_again_and_a_missing_one_is_empty(tmp_path):
    book = Book(tmp_path)
    book.give("day1", [event("A", 1.0)], without=("quantity",))
    book.check()
    book.give("day2", [event("A", 2.0, quantity=3.5)])
    assert agree(book).read == 2
    book.give("day3", [event("A", 3.0)], without=("quantity",))
    assert agree(book).read == 1


def test_other_settings_are_a_new_beginning(tmp_path):
    book = Book(tmp_path)
    book.give("day1", [event("A", 1.0), event("B", 1.0)])
    book.check()
    book = Book(tmp_path, before="quarantine")
    summary = agree(book)
    assert (summary.read, summary.quarantined) == (1, 1)


class TextBook(Book):
    """A workspace whose telemetry comes as text."""

    def __init__(self, folder, *, suffix="csv", before="keep"):
        super().__init__(folder, before=before)
        self.suffix = suffix
        (folder / "renewcast.toml").write_text(CONFIG.format(before=before).replace("*.parquet", f"*.{suffix}"), encoding="utf-8")

    def give_text(self, name, events, *, times="%Y-%m-%dT%H:%M:%S", numbers="point", only=None):
        """Write a file in which a quantity of 1.5 is written with a point or a comma, or as a word for what is missing."""
        said = {"point": "1.5", "comma": "1,5", "word": "n/a"}[numbers]
        columns = ("account_id", "occurred_at", "event", "quantity")
        rows = [(a, t and t.strftime(times), e, q and said) for a, t, e, q, _, _ in events]
        records = [{column: row[columns.index(column)] for column in only or columns} for row in rows]
        path = self.folder / "events" / f"{name}.{self.suffix}"
        if self.suffix == "jsonl":
            path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
            return
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, only or columns, delimiter=";" if numbers == "comma" else ",")
            writer.writeheader()
            writer.writerows(records)

    def take(self, name):
        (self.folder / "events" / f"{name}.{self.suffix}").unlink(missing_ok=True)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_of_text_too_only_new_files_are_read(tmp_path, suffix):
    book = TextBook(tmp_path, suffix=suffix)
    book.give_text("1", [event("A", 1.5, quantity=1.5), event("Z", 2.0, quantity=1.5)])
    book.check()
    book.give_text("2", [event("A", 46.0, quantity=1.5), event("A", 1.5, quantity=1.5)], numbers="word")
    summary = agree(book)
    assert (summary.read, summary.unchanged, summary.rows_in, summary.quarantined) == (1, 1, 4, 1)
    assert summary.noticed == {"quantity: word for a missing value": 2}
    book.take("2")
    assert agree(book).noticed == {}
    (tmp_path / "events" / f"3.{suffix}").write_text("", encoding="utf-8")
    assert (agree(book).read, agree(book).read) == (2, 0)


@pytest.mark.parametrize(
    ("more", "noticed"),
    [
        pytest.param({"numbers": "comma"}, None, id="other numbers"),
        pytest.param({"times": "%d/%m/%Y"}, None, id="other dates"),
        pytest.param({"only": ("event", "occurred_at", "account_id", "quantity")}, 2, id="another order of columns"),
        pytest.param({"only": ("occurred_at", "event")}, 2, id="a column that must be there is missing"),
    ],
)
def test_text_is_read_again_as_a_whole_where_all_values_decide_otherwise_what_it_means(tmp_path, more, noticed):
    book = TextBook(tmp_path)
    book.give_text("1", [event("A", 1.0, quantity=1.5)])
    book.check()
    assert book.check().read == 0
    book.give_text("2", [event("B", 50.0, quantity=1.5), event("B", 51.0)], **more)
    summary = agree(book)
    assert summary.read == 2
    assert noticed is None or len(summary.noticed) == noticed


def test_dates_that_can_be_read_in_two_ways_are_refused_whichever_file_came_last(tmp_path):
    book = TextBook(tmp_path)
    book.give_text("1", [event("A", 0.0)], times="%d/%m/%Y")
    book.give_text("2", [event("A", 20.0)], times="%d/%m/%Y")
    book.check()
    book.give_text("3", [event("A", 1.0)], times="%d/%m/%Y")
    assert agree(book).read == 1
    book.take("2")
    with pytest.raises(ContractError, match="read in two ways"):
        book.check()


def test_a_check_tells_how_far_it_is_by_the_size_of_its_files_and_month_by_month(tmp_path):
    book, told = Book(tmp_path), []
    book.give("day1", [event("A", day) for day in (1.0, 45.0, 80.0)])
    book.check(on_progress=lambda *step: told.append(step))
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    first = {}
    for what, *far in told:
        first.setdefault(what, far)
    words, done, totals = first, *zip(*first.values(), strict=True)
    reading = ["telemetry: reading 1 of 1 files", "telemetry: looking for repeated rows"]
    assert list(words) == ["accounts", "telemetry", *reading, *(f"telemetry: writing 2024-0{month}" for month in (1, 2, 3)), "done"]
    assert done[0] == 0
    assert 0 < done[1] == done[2] < done[3] < done[4] < done[5] < done[6] < done[7] == 100
    assert set(totals) == {100}


def test_a_reading_tells_how_far_its_query_is(tmp_path, monkeypatch):
    @contextmanager
    def watched(_, tell, *, queries):
        numbers.append(queries)
        tell(0.5)
        yield

    monkeypatch.setattr("features.engine.Engine.watched", watched)
    monkeypatch.setattr("features.increments.queries_before_reading", lambda source, only: 4)
    numbers, book, told = [], Book(tmp_path), []
    book.give("day1", [event("A", 1.0)])
    book.check(on_progress=lambda *step: told.append(step))
    reading, looking = ([done for what, done, _ in told if words in what] for words in ("reading", "repeated"))
    assert len(reading) == len(looking) == 2
    assert reading[0] < reading[1] < looking[0] < looking[1] < next(done for what, done, _ in told if "writing" in what)
    book.give("day2", [event("A", 2.0)])
    book.check()
    assert numbers == [5, 1, 5, 3]


KILLED = """
import os, signal, sys
from datetime import datetime
from features.pieces import PieceWriter
from features.errors import WorkspaceError
from features.intake import check_workspace
from features.workspace import load_workspace
PieceWriter.compact = lambda self: os.kill(os.getpid(), signal.SIGKILL)
check_workspace(load_workspace(sys.argv[1], {}), now=datetime(2025, 1, 1))
"""


def test_a_killed_check_leaves_the_last_good_state(tmp_path):
    book = Book(tmp_path)
    book.give("day1", [event("A", 1.0), event("Z", 1.0)])
    before = book.found(book.check())
    book.give("day2", [event("A", 2.0), event("A", 1.0)])
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False, cwd=Path(__file__).parent.parent)
    assert killed.returncode == -signal.SIGKILL
    tables = tmp_path / ".renewcast" / "tables"
    assert read_manifest(tables / "telemetry.parquet").rows == 1
    assert len(before[0]) == 1
    summary = agree(book)
    assert (summary.read, summary.rows_out) == (1, 2)
    assert [path.name for path in tables.parent.iterdir() if "unfinished" in path.name] == []


HOLDING = """
import sys
from features.workspace import load_workspace
with load_workspace(sys.argv[1], {}).lock("renewcast check"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_of_two_runs_at_once_the_second_is_told_who_holds_the_workspace(tmp_path):
    Book(tmp_path)
    command, folder = [sys.executable, "-c", HOLDING, str(tmp_path)], Path(__file__).parent.parent
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=folder) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(WorkspaceError) as caught, load_workspace(tmp_path, {}).lock("renewcast features"):
            pass
        holder.communicate()
    assert re.search(rf"renewcast check, process {holder.pid} on .+, since 20\d\d-", str(caught.value))
    with load_workspace(tmp_path, {}).lock("renewcast features"):
        pass


def test_many_small_deliveries_are_put_together(tmp_path):
    book = Book(tmp_path)
    for day in range(MOST_PIECES + 3):
        book.give(f"day{day:02}", [event("A", day + 0.5)])
        book.check()
    files = piece_files(tmp_path / ".renewcast" / "tables" / "telemetry.parquet")
    assert len(files) == 3
    agree(book)


def test_a_file_without_rows_is_no_reason_to_read_the_others_again(tmp_path):
    book = Book(tmp_path)
    book.give("1", [event("A", 0.5), event("B", 1.0)])
    book.check()
    book.give("2", [])
    said = []
    book.check(on_progress=lambda what, *_: said.append(what))
    assert {what for what in said if "reading" in what} == {"telemetry: reading 1 of 2 files"}
    agree(book)


EVENTS = st.builds(
    event,
    st.sampled_from(["A", "B", "Z", None]),
    st.sampled_from([0.0, 0.5, 1.0, 30.0, 31.0, 45.5, 400.0, None]),
    st.sampled_from(["login", "open", ""]),
    quantity=st.sampled_from([None, 1.5]),
    late=st.sampled_from([None, 0, 40, 400]),
    number=st.sampled_from([0, 0, 0, 1]),
)
ACCOUNTS = st.dictionaries(st.sampled_from("ABZ"), st.sampled_from(["2023-01-01", "2024-01-15", "2024-02-01"]), min_size=1)
STEPS = st.lists(
    st.tuples(
        st.dictionaries(st.sampled_from("12345"), st.lists(EVENTS, max_size=6), max_size=3),
        st.sets(st.sampled_from("12345")),
        st.none() | ACCOUNTS,
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=8, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate], suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS, before=st.sampled_from(["keep", "quarantine"]))
def test_any_course_of_deliveries_leaves_what_a_check_of_all_files_finds(tmp_path_factory, steps, before):
    """Files come, change and go, accounts too, in any order."""
    book = Book(tmp_path_factory.mktemp("book"), before=before)
    book.give("0", [event("A", 0.5), event("Z", 31.0), event("B", 1.0)])
    book.check(now=START + timedelta(days=35))
    for number, (came, gone, accounts) in enumerate(steps):
        for name, events in came.items():
            book.give(name, events)
        for name in gone - came.keys():
            (book.folder / "events" / f"{name}.parquet").unlink(missing_ok=True)
        if accounts is not None:
            book.give_accounts(accounts | {"A": "2023-01-01"})
        now = START + timedelta(days=40 + 150 * number)
        book.check(now=now)
    agree(book, now=now)


TEXTS = st.tuples(
    st.lists(EVENTS, max_size=6),
    st.sampled_from(["point", "point", "comma", "word"]),
    st.sampled_from(["%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%d/%m/%Y", "%m/%d/%Y"]),
)
TEXT_STEPS = st.lists(
    st.tuples(st.dictionaries(st.sampled_from("12345"), TEXTS, max_size=2), st.sets(st.sampled_from("12345"), max_size=2)),
    min_size=1,
    max_size=4,
)


@settings(max_examples=8, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate], suppress_health_check=[HealthCheck.too_slow])
@given(steps=TEXT_STEPS, suffix=st.sampled_from(["csv", "jsonl"]))
def test_any_course_of_text_files_leaves_what_a_check_of_all_files_finds(tmp_path_factory, steps, suffix):
    """Files whose numbers and dates are written in one way or another come, change and go."""
    book = TextBook(tmp_path_factory.mktemp("book"), suffix=suffix)
    book.give_text("0", [event("A", 0.5, quantity=1.5), event("Z", 31.0), event("B", 1.0)])
    book.check()
    for came, gone in steps:
        for name, (events, numbers, times) in came.items():
            book.give_text(name, events, numbers=numbers, times=times)
        for name in gone - came.keys():
            book.take(name)
        found = answer(book)
    assert found == answer(TextBook(book.folder, suffix=suffix), anew=True)


def answer(book, *, anew=False):
    """Return what a check finds, or why it finds nothing."""
    if anew:
        shutil.rmtree(book.folder / ".renewcast" / "tables", ignore_errors=True)
    try:
        return book.found(book.check())
    except RenewcastError as error:
        return str(error)
