import random

import pyarrow as pa
import pytest

from features.clock import microseconds
from features.engine import Engine
from features.sampled import sample_telemetry
from tests.brute_force import known_since
from tests.numbered_books import make_all_forms, numbered
from tests.random_worlds import FULL, KINDS, ORIGIN

LEVELS = {"event": KINDS[:2]}


@pytest.fixture(scope="module")
def engine():
    with Engine(threads=1) as engine:
        yield engine


@pytest.fixture(params=[set(), {"recorded_at", "product"}], ids=["files of rows", "rows left out"])
def book(request, engine, tmp_path, monkeypatch):
    """Return the rows of a book in three deliveries, and its numbered telemetry."""
    make_all_forms(monkeypatch)
    rows = [{name: row[name] for name in row if name not in request.param} | {"events": 1.0} for row in FULL.world()["telemetry"]]
    numbers = [random.Random(i).randrange(3) for i in range(len(rows))]
    telemetry = numbered(engine, FULL.world() | {"telemetry": rows}, numbers, tmp_path)
    assert all(piece.is_short == bool(request.param) for piece in telemetry.pieces)
    return rows, telemetry


def as_texts(engine, telemetry, account_ids, *, last_user=None):
    """Return all rows in some order, with accounts as texts and users by the numbers of the files."""
    accounts = account_ids.to_pylist()
    rows = engine.to_arrow(telemetry.table(engine, LEVELS)).to_pylist()
    for row in rows:
        row["account_id"] = accounts[row.pop("account")]
        if last_user is not None and row["user_id"] is not None:
            row["user_id"] = last_user - row["user_id"]
    return rows


def in_order(rows):
    return sorted((dict(sorted(row.items())) for row in rows), key=repr)


@pytest.mark.parametrize("until", [None, microseconds(ORIGIN) - 200 * 86_400_000_000, microseconds(ORIGIN) - 10**17])
def test_a_sample_has_the_rows_of_its_accounts_that_were_known_by_then(engine, book, until):
    rows, telemetry = book
    names = [*sorted({row["account_id"] for row in rows})[1::3], "nobody"]
    sample = sample_telemetry(engine, telemetry, pa.array(names), until=until)
    found = as_texts(engine, sample, sample.account_ids, last_user=len(telemetry.user_accounts) - 1)
    chosen = [row for row in as_texts(engine, telemetry, telemetry.account_ids) if row["account_id"] in names]
    assert in_order(found) == in_order(row for row in chosen if until is None or row["known_at"] <= until)
    truth = [row for row in rows if row["account_id"] in names and (until is None or microseconds(known_since("telemetry", row)) <= until)]
    assert sample.rows == len(found) == len(truth)


def test_a_sample_leaves_rows_unwritten_and_later_files_closed(engine, book):
    _, telemetry = book
    before = sorted(telemetry.folder.iterdir())
    last = max(telemetry.pieces, key=lambda piece: piece.first_known)
    for name in (last.name, last.source):
        (telemetry.folder / name).unlink(missing_ok=True)
        (telemetry.folder.parent / "pieces" / name).unlink(missing_ok=True)
    sample = sample_telemetry(engine, telemetry, telemetry.account_ids, until=last.first_known - 1)
    assert sample.rows > 0
    assert sorted(telemetry.folder.iterdir()) == [file for file in before if file.name != last.name]
