import json
from datetime import datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features import receipt
from features.errors import ContractError, SourceError
from features.receipt import COLUMNS, BrokenRow, check_contribution
from features.workspace import load_workspace

NOW = datetime(2025, 1, 1)
CONFIG = '[tables.accounts]\nsource = "a.csv"\n[tables.telemetry]\nsource = "t.csv"\n'
ACCOUNTS = pa.table({"account_id": ["A", "B"], "created_at": pa.array([datetime(2023, 1, 1), None], pa.timestamp("us"))})


@pytest.fixture
def receive(tmp_path):
    """Write a file and check it."""
    (tmp_path / "renewcast.toml").write_text(CONFIG)
    workspace = load_workspace(tmp_path, {})

    def check(content, *, kind="csv", earlier=(), most_listed=100):
        file = tmp_path / f"given.{kind}"
        if kind == "parquet":
            pq.write_table(content, file)
        else:
            file.write_text(content, encoding="utf-8")
        return check_contribution(workspace, file, kind=kind, accounts=ACCOUNTS, earlier=set(earlier), now=NOW, most_listed=most_listed)

    return check


GIVEN = """\
account_id,occurred_at,channel,kind,value,note,source,recorded_at,colour
A,2024-03-01,training,,3,,p9,2020-01-01,red
Z,2024-03-01,training,,,,,,
A,2099-03-01,training,,,,,,
A,soon,training,,,,,,
A,2024-03-02,meeting,,good,,,,
B,2024-03-03,health_note,,,They mean to stay,,,
B,2024-03-03,Health_Note,,,,,,
A,2024-03-01,training,,3,,p8,2021-01-01,blue
,2024-03-01,training,,,,,,
A,2024-03-04,meeting
"""


def test_broken_rows_are_named_with_their_reasons_and_all_others_are_kept(receive):
    found = receive(GIVEN)
    assert found.broken == (
        BrokenRow(row=2, kept=False, reasons=("account_id: unknown account",)),
        BrokenRow(row=3, kept=False, reasons=("occurred_at: in the future",)),
        BrokenRow(row=4, kept=False, reasons=("occurred_at: not a time",)),
        BrokenRow(row=5, kept=True, reasons=("value: not a number",)),
        BrokenRow(row=7, kept=False, reasons=("note: empty",)),
        BrokenRow(row=9, kept=False, reasons=("account_id: empty",)),
        BrokenRow(row=10, kept=False, reasons=("line cannot be read: expected number of columns: 9 found: 3",)),
    )
    assert [(row["row"], row["account_id"], row["channel"], row["value"], row["note"]) for row in found.rows.to_pylist()] == [
        (1, "A", "training", 3.0, None),
        (5, "A", "meeting", None, None),
        (6, "B", "health_note", None, "They mean to stay"),
    ]
    assert (found.given, found.quarantined, found.duplicates) == (10, 6, 1)
    assert found.reasons["account_id: unknown account"] == 1
    assert found.rows.column_names == [*COLUMNS, "note", "row", "row_hash"]


def test_who_supplied_a_row_and_when_it_was_received_is_not_for_it_to_say(receive):
    found = receive("account_id,occurred_at,channel,source,recorded_at,withdrawn_at\nA,2024-01-01,qbr,vendor,2020-01-01,2019-01-01\n")
    assert found.ignored == ("source", "recorded_at", "withdrawn_at")
    assert len(found.rows) == 1
    assert receive("account_id,occurred_at,channel,recorded_at\nA,2024-01-01,qbr,never\n").broken == ()


def test_rows_that_were_given_before_are_counted_and_not_kept_again(receive):
    first = receive("account_id,occurred_at,channel\nA,2024-01-01,qbr\nA,2024-01-02,qbr\n")
    hashes = first.rows["row_hash"].to_pylist()
    again = receive("channel;account_id;occurred_at;value\nqbr;A;2024-01-02T00:00:00Z;\nqbr;A;2024-01-03;\n", earlier=hashes)
    assert (again.given, again.duplicates, again.rows["row"].to_pylist()) == (2, 1, [2])


def test_the_same_rows_are_the_same_in_every_format(receive):
    rows = [
        {"account_id": "A", "occurred_at": "2024-01-01T08:00:00Z", "channel": "survey", "kind": "nps", "contact_id": "7", "value": 9.5},
        {"account_id": "B", "occurred_at": "2024-01-01T08:00:00Z", "channel": "health_note", "note": "Calm, for once"},
    ]
    columns = [*COLUMNS, "note"]
    lines = "\n".join(json.dumps(row) for row in rows)
    text = ",".join(columns) + "\n" + "\n".join(",".join(f'"{row.get(name, "")}"' for name in columns) for row in rows)
    table = pa.table({name: [row.get(name) for row in rows] for name in columns})
    found = [receive(lines, kind="jsonl"), receive(text), receive(table, kind="parquet")]
    assert found[0].rows.equals(found[1].rows)
    assert found[0].rows.equals(found[2].rows)
    assert found[0].rows["occurred_at"].to_pylist() == [datetime(2024, 1, 1, 8)] * 2


def test_words_that_are_too_long_or_no_text_are_refused(receive):
    rows = [
        {"account_id": "A", "occurred_at": "2024-01-01", "channel": "x" * 201, "note": "y"},
        {"account_id": "A", "occurred_at": "2024-01-01", "channel": "meeting", "note": "z" * 4001},
        {"account_id": "A", "occurred_at": "2024-01-01", "channel": "meeting", "note": "a\0b"},
        {"account_id": "A", "occurred_at": "2024-01-01", "channel": "meeting", "note": "  plain  "},
    ]
    found = receive(pa.Table.from_pylist(rows), kind="parquet")
    assert [row.reasons for row in found.broken] == [
        ("channel: longer than 200 characters",),
        ("note: longer than 4,000 characters",),
        ("note: not text",),
    ]
    assert found.rows["note"].to_pylist() == ["plain"]


def test_only_the_first_broken_rows_are_listed_and_all_are_counted(receive):
    found = receive("account_id,occurred_at,channel\n" + "Z,2024-01-01,qbr\n" * 5, most_listed=2)
    assert [row.row for row in found.broken] == [1, 2]
    assert (found.quarantined, found.reasons) == (5, {"account_id: unknown account": 5})


@pytest.mark.parametrize(
    ("content", "kind", "error", "said"),
    [
        ("account_id,channel\nA,qbr\n", "csv", ContractError, "it needs occurred_at"),
        ("account_id,occurred_at,channel\nA,01/02/2024,qbr\n", "csv", ContractError, "can be read in two ways"),
        ("", "csv", SourceError, "empty"),
        ("[1, 2]", "jsonl", SourceError, "JSON"),
        ("account_id,occurred_at,channel\n", "csv", SourceError, "no rows"),
    ],
)
def test_a_file_that_cannot_be_understood_is_refused_whole(receive, content, kind, error, said):
    with pytest.raises(error, match=said):
        receive(content, kind=kind)


def test_a_file_that_is_too_large_is_refused_before_it_is_unpacked(receive, monkeypatch, tmp_path):
    table = pa.table({"account_id": ["A"] * 30, "occurred_at": ["2024-01-01"] * 30, "channel": [f"c{number}" for number in range(30)]})
    monkeypatch.setattr(receipt, "MOST_ROWS", 20)
    for kind, content in (("parquet", table), ("csv", "account_id,occurred_at,channel\n" + "A,2024-01-01,qbr\n" * 21)):
        with pytest.raises(SourceError, match="too many rows"):
            receive(content, kind=kind)
    monkeypatch.setattr(receipt, "MOST_ROWS", 40)
    monkeypatch.setattr(receipt, "_MOST_BYTES", 100)
    with pytest.raises(SourceError, match="too large"):
        receive(table, kind="parquet")
    (tmp_path / "no.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(SourceError, match="cannot be read as parquet"):
        check_contribution(
            load_workspace(tmp_path, {}), tmp_path / "no.parquet", kind="parquet", accounts=ACCOUNTS, earlier=(), now=NOW, most_listed=1
        )


WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "account_id": st.sampled_from(("A", "B", "Z", "", " A ")),
            "occurred_at": st.sampled_from(("2024-01-01", "2024-01-01T10:00:00+02:00", "2026-01-01", "", "x")),
            "channel": st.sampled_from(("meeting", "health_note", "")),
            "value": st.sampled_from((None, 1.0, -2.5)),
            "note": st.none() | WORDS,
        }
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS)
def test_no_row_is_lost_and_giving_the_rest_again_changes_nothing(receive, rows):
    types = pa.schema(
        {"account_id": pa.string(), "occurred_at": pa.string(), "channel": pa.string(), "value": pa.float64(), "note": pa.string()}
    )
    table = pa.Table.from_pylist(rows, schema=types)
    found = receive(table, kind="parquet")
    assert found.given == len(rows) == len(found.rows) + found.duplicates + found.quarantined
    numbers = [row.row for row in found.broken if not row.kept] + found.rows["row"].to_pylist()
    assert len(numbers) == len(set(numbers))
    assert set(found.rows["account_id"].to_pylist()) <= {"A", "B"}
    again = receive(table, kind="parquet", earlier=found.rows["row_hash"].to_pylist())
    assert (len(again.rows), again.duplicates, again.broken) == (0, found.duplicates + len(found.rows), found.broken)
