import random
import threading
import time
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise, product

import numpy as np
import pyarrow.parquet as pq
import pytest

from features import folding, numbering, vocabulary
from features.ahead import made_of
from features.clock import microseconds
from features.engine import Engine
from features.forms import CARRYING, FOLDED, WHOLE
from features.numbering import number_telemetry
from tests.brute_force import known_since
from tests.numbered_books import deliver, make_all_forms, numbered
from tests.random_worlds import FULL, KINDS, ORIGIN, Recipe, columns_of

pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning:ibis")  # by Ibis 12 on DuckDB 2

WORLD = FULL.world()
NUMBERS = [random.Random(i).randrange(3) for i in range(len(WORLD["telemetry"]))]


@pytest.fixture(scope="module")
def engine():
    with Engine(threads=1) as engine:
        yield engine


def as_rows(engine, telemetry):
    """Return the rows with their accounts and, for users, pairs of account and user, as texts again."""
    found = engine.to_arrow(telemetry.table(engine, {"event": KINDS[:2]})).to_pylist()
    accounts = telemetry.account_ids.to_pylist()
    return [row | {"account_id": accounts[row.pop("account")]} for row in found]


def test_no_row_and_no_value_is_lost(engine, tmp_path):
    telemetry = numbered(engine, WORLD, NUMBERS, tmp_path)
    users = {}
    found = []
    for row in as_rows(engine, telemetry):
        level = row.pop("event_level")
        assert level == (KINDS.index(row["event"]) if row["event"] in KINDS[:2] else None)
        assert row.pop("known_at") == (row["recorded_at"] if row["recorded_at"] is not None else row["occurred_at"])
        found.append(row)
    expected = [
        {name: microseconds(value) if isinstance(value, datetime) else value for name, value in row.items()} for row in WORLD["telemetry"]
    ]
    for row, truth in zip(*(sorted(rows, key=lambda row: repr(_without_user(row))) for rows in (found, expected)), strict=True):
        assert _without_user(row) == _without_user(truth)
        assert (row["user_id"] is None) == (truth["user_id"] is None)
    for row in found:
        if row["user_id"] is not None:
            users.setdefault(row["user_id"], set()).add(row["account_id"])
    pairs = {(row["account_id"], row["user_id"]) for row in expected if row["user_id"]}
    assert len(users) == len(pairs)
    accounts = telemetry.account_ids.to_pylist()
    assert all({accounts[telemetry.user_accounts[user]]} == found for user, found in users.items())


def _without_user(row):
    return {name: row[name] for name in sorted(row) if name != "user_id"}


def test_what_stays_keeps_its_file_and_its_numbers(engine, tmp_path):
    before = numbered(engine, WORLD, NUMBERS, tmp_path)
    accounts, texts = before.account_ids.to_pylist(), before.texts
    files = {piece.name: (before.folder / piece.name).stat().st_ino for piece in before.pieces}
    more = [WORLD["telemetry"][0] | {"account_id": "another", "event": "another", "user_id": "another"}]
    world = WORLD | {"telemetry": WORLD["telemetry"] + more}
    deliver(engine, world, [*NUMBERS, 4], tmp_path / "pieces")
    after = number_telemetry(tmp_path / "pieces", tmp_path / "numbered")
    new = {piece.name for piece in after.pieces} - files.keys()
    assert len(new) == 1
    assert {name: (after.folder / name).stat().st_ino for name in files} == files
    assert after.account_ids.to_pylist() == [*accounts, "another"]
    assert after.texts["event"] == (*texts["event"], "another")
    assert len(after.user_accounts) == after.user_accounts.tolist().index(len(accounts)) + 1


def test_what_is_counted_of_pieces_is_counted_of_the_rows(engine, tmp_path):
    telemetry = numbered(engine, WORLD, NUMBERS, tmp_path)
    rows = WORLD["telemetry"]
    known = [microseconds(known_since("telemetry", row)) for row in rows]
    assert telemetry.known_span == (min(known), max(known))
    for kind in telemetry.kinds.to_pylist():
        of_kind = [row for row in rows if row["event"] == kind["event"]]
        assert kind["events"] == sum(row["events"] or 0 for row in of_kind)
        assert kind["carried"] == sum(row["quantity"] is not None for row in of_kind)
    assert telemetry.kinds["event"].to_pylist() == sorted({row["event"] for row in rows})
    accounts = [row["account_id"] for row in rows]
    assert max(accounts.count(account) for account in set(accounts)) <= telemetry.busiest <= len(rows)
    assert telemetry.largest == max(abs(row[name] or 0) for row in rows for name in ("events", "quantity", "users"))


SINGLE = Recipe(1, FULL.sizes, tuple(("telemetry", name) for name in ("product", "recorded_at", "users"))).world()
SINGLE["telemetry"] = [row | {"events": 1.0} for row in SINGLE["telemetry"]]


def test_what_is_counted_of_pieces_is_the_same_whatever_forms_there_are(engine, tmp_path, monkeypatch):
    numbers = NUMBERS[: len(SINGLE["telemetry"])]
    monkeypatch.setattr(folding, "_WORTH", 10**9)
    monkeypatch.setattr(folding, "_WORTH_WHOLE", 10**9)
    without = numbered(engine, SINGLE, numbers, tmp_path / "without")
    make_all_forms(monkeypatch)
    with_all = numbered(engine, SINGLE, numbers, tmp_path / "with_all")
    assert {form for piece in without.pieces for form in piece.extracts} == set()
    assert {*FOLDED, *WHOLE, CARRYING["quantity"]} <= {form for piece in with_all.pieces for form in piece.extracts}
    for ones, others in zip(without.pieces, with_all.pieces, strict=True):
        assert replace(others, extracts=()) == ones


def test_rows_that_nobody_asked_for_are_not_there_until_somebody_does(engine, tmp_path, monkeypatch):
    make_all_forms(monkeypatch)
    numbers = NUMBERS[: len(SINGLE["telemetry"])]
    telemetry = numbered(engine, SINGLE, numbers, tmp_path)
    files = [telemetry.folder / piece.name for piece in telemetry.pieces]
    assert files and not any(file.exists() for file in files)
    list(map(list, telemetry.arrivals(["account", "event"], [microseconds(ORIGIN)], days=None)))
    assert not any(file.exists() for file in files)
    found = as_rows(engine, telemetry)
    assert all(file.exists() for file in files)
    expected = [(row["account_id"], row["event"], microseconds(row["occurred_at"]), row["quantity"], 1.0) for row in SINGLE["telemetry"]]
    of_rows = [tuple(row[name] for name in ("account_id", "event", "occurred_at", "quantity", "events")) for row in found]
    assert sorted(map(repr, of_rows)) == sorted(map(repr, expected))
    more = SINGLE | {"telemetry": [*SINGLE["telemetry"], SINGLE["telemetry"][0]]}
    deliver(engine, more, [*numbers, 3], tmp_path / "pieces")
    after = number_telemetry(tmp_path / "pieces", tmp_path / "numbered")
    assert all(file.exists() for file in files)
    assert len(as_rows(engine, after)) == len(expected) + 1


def test_rows_that_two_ask_for_at_once_are_written_once(engine, tmp_path, monkeypatch):
    make_all_forms(monkeypatch)
    telemetry = numbered(engine, SINGLE, NUMBERS[: len(SINGLE["telemetry"])], tmp_path)
    write_rows, written = numbering._write_rows, []

    def slowly(blocks, columns, file):
        written.append(file)
        time.sleep(0.05)
        write_rows(blocks, columns, file)

    monkeypatch.setattr(numbering, "_write_rows", slowly)
    asked = [piece for piece in telemetry.pieces for _ in range(2)]
    files = made_of(asked, telemetry.file)
    assert len(written) == len(telemetry.pieces)
    assert [pq.read_metadata(file).num_rows for file in files] == [piece.rows for piece in asked]


def test_rows_of_two_pieces_that_are_read_at_once_have_their_users(engine, tmp_path, monkeypatch):
    make_all_forms(monkeypatch)
    row = SINGLE["telemetry"][0]
    years = [row["occurred_at"] + timedelta(days=366 * number) for number in range(3)]
    users = [[f"u{number}" for number in range(n)] for n in (40, 2, 30)]  # the first, the few and the many; few are looked up otherwise
    rows = [row | {"user_id": user, "occurred_at": year} for year, named in zip(years, users, strict=True) for user in named]
    telemetry = numbered(engine, SINGLE | {"telemetry": rows}, [0] * len(rows), tmp_path)
    expected = [_users_of(telemetry.left_out.read(piece)) for piece in telemetry.pieces]
    beside_tables, fill_shards = vocabulary._Users._beside_tables, vocabulary._Users._fill_shards
    is_looking = threading.Event()

    def look(self, *asked):
        is_looking.set()
        time.sleep(0.1)
        return beside_tables(self, *asked)

    def fill(self):
        is_looking.wait(0.5)
        fill_shards(self)

    monkeypatch.setattr(vocabulary._Users, "_beside_tables", look)
    monkeypatch.setattr(vocabulary._Users, "_fill_shards", fill)
    anew = number_telemetry(tmp_path / "pieces", tmp_path / "numbered")
    assert list(map(_users_of, made_of(anew.pieces[1:], anew.left_out.read))) == expected[1:]


def _users_of(blocks):
    return [number for rows in blocks for number in rows.columns["user_id"].tolist()]


def test_texts_have_their_numbers_however_each_part_of_a_file_keeps_them(engine, tmp_path, monkeypatch):
    monkeypatch.setattr("features.engine.ROWS_PER_GROUP", 2048)
    monkeypatch.setattr("features.engine._KEPT", "COMPRESSION zstd, DICTIONARY_SIZE_LIMIT 50")
    users = ["u1"] * 3000 + [None if number % 7 == 0 else f"v{number % 3000}" for number in range(5000)]
    row = SINGLE["telemetry"][0]
    rows = [row | {"user_id": user, "occurred_at": row["occurred_at"] + timedelta(seconds=number)} for number, user in enumerate(users)]
    deliver(engine, SINGLE | {"telemetry": rows}, [0] * len(rows), tmp_path / "pieces")
    kept_as = {
        encoding
        for file in (tmp_path / "pieces").glob("*.parquet")
        for group in map(pq.read_metadata(file).row_group, range(pq.read_metadata(file).num_row_groups))
        for column in map(group.column, range(group.num_columns))
        for encoding in column.encodings
        if column.path_in_schema == "user_id"
    }
    assert {"RLE_DICTIONARY", "DELTA_LENGTH_BYTE_ARRAY"} <= kept_as
    telemetry = number_telemetry(tmp_path / "pieces", tmp_path / "numbered")
    found = sorted(as_rows(engine, telemetry), key=lambda row: row["occurred_at"])
    pairs = {(row["user_id"], user) for row, user in zip(found, users, strict=True)}
    assert len(pairs) == len({number for number, _ in pairs}) == len({user for _, user in pairs})
    assert (None, None) in pairs


def test_columns_that_files_do_not_have_keep_their_types(engine, tmp_path):
    kinds = [
        engine.to_arrow(numbered(engine, world, NUMBERS, tmp_path / name).table(engine, {"event": KINDS})).schema
        for world, name in ((WORLD, "full"), (SINGLE, "single"))
    ]
    assert all(kinds[0].field(name).type == kinds[1].field(name).type for name in kinds[1].names)


def test_the_rows_of_a_delivery_that_is_gone_are_gone(engine, tmp_path):
    numbered(engine, WORLD, NUMBERS, tmp_path)
    kept = [row for row, number in zip(WORLD["telemetry"], NUMBERS, strict=True) if number != 1]
    deliver(engine, WORLD | {"telemetry": kept}, [number for number in NUMBERS if number != 1], tmp_path / "pieces")
    after = number_telemetry(tmp_path / "pieces", tmp_path / "numbered")
    assert after.rows == len(kept)
    assert {file.name for file in after.folder.glob("2*.parquet")} == {piece.name for piece in after.pieces}


def test_nothing_is_written_where_nothing_came(engine, tmp_path):
    first = numbered(engine, WORLD, NUMBERS, tmp_path)
    inode = first.folder.stat().st_ino
    assert number_telemetry(tmp_path / "pieces", tmp_path / "numbered").pieces == first.pieces
    assert first.folder.stat().st_ino == inode


def test_files_of_another_version_are_written_anew(engine, tmp_path, monkeypatch):
    first = numbered(engine, WORLD, NUMBERS, tmp_path)
    monkeypatch.setattr("features.numbering._FORMAT", 0)
    inode = first.folder.stat().st_ino
    assert number_telemetry(tmp_path / "pieces", tmp_path / "numbered").rows == first.rows
    assert first.folder.stat().st_ino != inode


def test_there_is_nothing_to_number_without_pieces_or_rows(engine, tmp_path):
    assert number_telemetry(tmp_path / "pieces", tmp_path / "numbered") is None
    deliver(engine, WORLD | {"telemetry": WORLD["telemetry"][:1]}, [0], tmp_path / "pieces")
    assert number_telemetry(tmp_path / "pieces", tmp_path / "numbered").rows == 1


@pytest.mark.parametrize("rows_per_group", [7, 1 << 19], ids=["many blocks", "one block"])
@pytest.mark.parametrize(("days", "lag_days"), list(product((None, 7, 91), (0, 28))))
def test_a_row_arrives_once_at_the_first_cutoff_that_sees_it(engine, tmp_path, monkeypatch, rows_per_group, days, lag_days):
    monkeypatch.setattr(numbering, "_ROWS_PER_GROUP", rows_per_group)
    telemetry = numbered(engine, WORLD, NUMBERS, tmp_path)
    accounts = telemetry.account_ids.to_pylist()
    cutoffs = [ORIGIN - timedelta(days=400), ORIGIN, ORIGIN + timedelta(hours=7, minutes=20), ORIGIN + timedelta(days=40)]
    arrivals = telemetry.arrivals(["account"], [microseconds(cutoff) for cutoff in cutoffs], days=days, lag_days=lag_days)
    seen = set()
    for cutoff, arriving in zip(cutoffs, arrivals, strict=True):
        until = cutoff - timedelta(days=lag_days)
        since = datetime.min if days is None else until - timedelta(days=days)
        visible = {n for n, row in enumerate(WORLD["telemetry"]) if known_since("telemetry", row) <= cutoff and row["occurred_at"] <= until}
        parts = list(arriving)
        found = sorted((accounts[a], t) for rows in parts for a, t in zip(rows.columns["account"], rows.time.tolist(), strict=True))
        new = [WORLD["telemetry"][n] for n in visible - seen]
        assert found == sorted((row["account_id"], microseconds(row["occurred_at"])) for row in new if row["occurred_at"] > since)
        assert all(len(rows.time) and np.all(np.diff(rows.time) >= 0) for rows in parts)
        years = [rows.time.astype("datetime64[us]").astype("datetime64[Y]") for rows in parts]
        assert all(one[-1] <= other[0] for one, other in pairwise(years)), "a piece of these books is of a year"
        seen |= visible


def test_no_row_arrives_of_a_piece_in_which_none_carries_the_amount(engine, tmp_path):
    rows = [row | {"quantity": None} for row in SINGLE["telemetry"]]
    telemetry = numbered(engine, SINGLE | {"telemetry": rows}, NUMBERS[: len(rows)], tmp_path)
    assert all("with-quantity" in piece.extracts for piece in telemetry.pieces)
    (arriving,) = telemetry.arrivals(["account", "quantity"], [microseconds(ORIGIN)], days=None, carrying="quantity")
    assert not list(arriving)


def test_columns_that_telemetry_does_not_have_are_not_there(engine, tmp_path):
    world = Recipe(1, FULL.sizes, tuple(("telemetry", name) for name in ("user_id", "product", "recorded_at", "quantity", "users"))).world()
    telemetry = numbered(engine, world, NUMBERS, tmp_path)
    expected = {*columns_of(world, "telemetry"), "account", "event_level"} - {"account_id"}
    assert set(telemetry.table(engine, {"event": KINDS}).columns) == expected


def test_users_may_come_late_or_never(engine, tmp_path):
    rows = [row | {"user_id": "u1" if number else None} for number, row in enumerate(WORLD["telemetry"][:3])]
    world = WORLD | {"telemetry": rows}
    deliver(engine, world | {"telemetry": rows[:1]}, [0], tmp_path / "pieces")
    before = number_telemetry(tmp_path / "pieces", tmp_path / "numbered")
    assert before.user_accounts.tolist() == []
    deliver(engine, world, [0, 1, 2], tmp_path / "pieces")
    after = number_telemetry(tmp_path / "pieces", tmp_path / "numbered")
    pairs = {row["account_id"] for row in rows[1:]}
    assert {after.account_ids[number].as_py() for number in after.user_accounts.tolist()} == pairs
    assert sum(row["user_id"] is None for row in as_rows(engine, after)) == 1
