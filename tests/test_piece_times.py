from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.clock import microseconds
from features.engine import Engine
from features.numbering import number_telemetry
from features.piece_times import count_times
from features.pieces import DELIVERY, DIGEST, PLACE, Manifest, PieceWriter

START, DAY = datetime(2024, 1, 1), timedelta(days=1)
NAMES = ("a", "b", "c")


@pytest.fixture(scope="module")
def engine():
    with Engine(threads=1) as engine:
        yield engine


class Pieces:
    """A folder of pieces, one of the rows that come at once in a month; rows are (account, day it happened, days until recorded)."""

    def __init__(self, engine, folder):
        self.engine, self.folder, self.runs = engine, folder, 0
        self.pieces = folder / "pieces"
        self.pieces.mkdir()
        self.writer = PieceWriter(engine, self.pieces, next_piece=0)
        self.rows, self.batches = [], []

    def add(self, rows):
        self.rows += rows
        self.batches.append(rows)
        happened = [START + day * DAY for _, day, _ in rows]
        recorded = [None if late is None else time + late * DAY for time, (_, _, late) in zip(happened, rows, strict=True)]
        known = [late or time for time, late in zip(happened, recorded, strict=True)]
        columns = {
            "account_id": [name for name, _, _ in rows],
            "event": ["login"] * len(rows),
            "events": [1.0] * len(rows),
            "occurred_at": happened,
            "known_at": known,
        } | ({"recorded_at": recorded} if any(recorded) else {})
        types = {
            "account_id": pa.string(),
            "event": pa.string(),
            "events": pa.float64(),
            DELIVERY: pa.int32(),
            PLACE: pa.int64(),
            DIGEST: pa.int64(),
        }
        numbers = dict.fromkeys((DELIVERY, PLACE, DIGEST), range(len(rows)))
        table = pa.table({name: pa.array(values, types.get(name, pa.timestamp("us"))) for name, values in (columns | numbers).items()})
        self.writer.add_by_month(self.engine.hold(table, name="delivered"), "occurred_at")
        next_piece, made = self.writer.next_piece, tuple(self.writer.pieces)
        nothing = {"mark": "", "columns": {}, "sources": {}, "deliveries": (), "next_delivery": 0}
        Manifest(**nothing, pieces=made, next_piece=next_piece).write(self.pieces)

    def count(self, born):
        """Return what was counted, and which files were written anew."""
        began = {name: (day is not None and START + day * DAY) or None for name, day in born.items()}
        columns = {"account_id": pa.array(list(began), pa.string()), "born": pa.array(list(began.values()), pa.timestamp("us"))}
        telemetry = self.telemetry = number_telemetry(self.pieces, self.folder / "numbered")
        table = self.engine.hold(pa.table(columns | {"created": pa.array([name != "c" for name in began])}), name="born")
        earlier, folder = (self.folder / f"run_{number}" for number in (self.runs, self.runs + 1))
        self.runs += 1
        times = count_times(self.engine, telemetry, table, earlier=earlier, folder=folder)
        anew = [file.name[:7] for file in sorted(folder.iterdir()) if file.stat().st_nlink == 1]
        found = {row["created"]: (row["n"], row["early"]) for row in self.engine.to_arrow(times.early(table)).to_pylist()}
        (recorded,) = self.engine.to_arrow(times.recorded()).to_pylist()
        self.spans = self.engine.to_arrow(times.counts.select("account_id", "rows", "first", "last")).to_pylist()
        return found, tuple(recorded[name] or 0 for name in ("n", "early", "late")), anew

    def expected(self, born):
        """Count row by row."""
        early = {}
        for name, day, _ in self.rows:
            if born.get(name) is not None:
                n, older = early.get(name != "c", (0, 0))
                early[name != "c"] = n + 1, older + (day < born[name])
        recorded = [late for _, _, late in self.rows if late is not None]
        return early, (len(recorded), sum(late < 0 for late in recorded), sum(late > 30 for late in recorded))

    def expected_spans(self):
        """Return how many rows of an account came at once in a month, and the first and the last of them."""
        spans = {}
        for number, rows in enumerate(self.batches):
            for name, day, _ in rows:
                time = START + day * DAY
                month = f"{time:%Y-%m}"
                spans.setdefault((number, month, name), []).append(microseconds(time))
        return sorted((name, len(times), min(times), max(times)) for (_, _, name), times in spans.items())


def test_only_new_pieces_and_those_with_rows_on_both_sides_of_a_new_beginning_are_counted(engine, tmp_path):
    book = Pieces(engine, tmp_path)
    book.add([("a", day, 0) for day in range(10, 80, 10)] + [("b", 45, 0)])
    born = {"a": 15, "b": 0, "c": None}
    assert book.count(born)[2] == ["2024-01", "2024-02", "2024-03"]
    book.add([("b", 75, -1)])
    assert book.count(born)[2] == ["2024-03"]
    assert book.count(born | {"c": 50})[2] == []
    later = born | {"a": 45, "b": 90}
    assert book.count(later) == (*book.expected(later), ["2024-02"])
    assert book.count(later)[2] == []


ROWS = st.lists(
    st.tuples(st.sampled_from(NAMES), st.integers(0, 100), st.sampled_from([None, -3, 0, 29.5, 30, 30.5, 60])), min_size=1, max_size=12
)
BORN = st.fixed_dictionaries(dict.fromkeys(NAMES, st.none() | st.integers(0, 100)))


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(runs=st.lists(st.tuples(ROWS, BORN), min_size=1, max_size=4), at_once=st.sampled_from([2, 1 << 17]))
def test_counts_are_those_of_all_rows_whatever_was_counted_before(engine, tmp_path_factory, runs, at_once):
    book = Pieces(engine, tmp_path_factory.mktemp("book"))
    with pytest.MonkeyPatch.context() as patch:
        for name in ("coded._BLOCK", "numbering._ROWS_PER_GROUP"):
            patch.setattr(f"features.{name}", at_once)
        for rows, born in runs:
            book.add(rows)
            found, recorded, _ = book.count(born)
            assert (found, recorded) == book.expected(born)
            assert sorted(tuple(span.values()) for span in book.spans) == book.expected_spans()


@pytest.mark.parametrize("born", [{"a": 5, "b": None, "c": 0}, {"a": 8.5, "b": 30, "c": 8.75}], ids=["at the ends of days", "within days"])
def test_rows_that_stand_for_several_of_a_day_count_as_so_many(engine, tmp_path, born):
    rng = np.random.default_rng(5)
    rows = [(NAMES[int(rng.integers(3))], int(rng.integers(1, 20 * 48)) / 48, None) for _ in range(1500)]
    book = Pieces(engine, tmp_path)
    book.add(sorted(rows, key=lambda row: row[1]))
    found, recorded, _ = book.count(born)
    assert (found, recorded) == book.expected(born)
    assert sorted(tuple(span.values()) for span in book.spans) == book.expected_spans()
    (piece,) = book.telemetry.pieces
    assert piece.is_short
    assert not (book.telemetry.folder / piece.name).exists()
