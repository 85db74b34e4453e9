import csv
import json
import os
import re
import shutil
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.errors import ConfigError, ContractError, QuarantineError, SourceError, WorkspaceError
from features.intake import check_workspace, intake_fingerprint
from features.pieces import DELIVERY, DIGEST, PLACE
from features.workspace import load_workspace

NOW = datetime(2025, 1, 1)
ACCOUNTS = "account_id,created_at\nA,2023-01-01\nB,2023-06-01\n7,2023-01-01\n"
EVENTS = "account_id,occurred_at,event\nA,2024-01-01,login\n"


def prepare(folder: Path, text: str = "", **files: str | bytes):
    """Write a workspace whose accounts and telemetry are sound unless given; `name__ext` is the file `name.ext`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {"accounts__csv": ACCOUNTS, "events__csv": EVENTS, **files}.items():
        data = content if isinstance(content, bytes) else content.encode()
        (folder / name.replace("__", ".")).write_bytes(data)
    tables = "" if "[tables.accounts]" in text else '[tables.accounts]\nsource = "accounts.csv"\n'
    tables += "" if "[tables.telemetry]" in text else '[tables.telemetry]\nsource = "events.csv"\n'
    (folder / "renewcast.toml").write_text(f"{text}\n{tables}", encoding="utf-8")
    return load_workspace(folder, {})


def check(workspace, now=NOW):
    return check_workspace(workspace, now=now)


def read(workspace, table):
    """Return a checked table, telemetry's pieces together in the order in which their rows became known."""
    found = pq.read_table(workspace.tables / f"{table}.parquet")
    if table == "telemetry":
        found = found.sort_by("known_at").drop_columns([DELIVERY, PLACE, DIGEST])
    return found


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def rows(workspace, table, *names):
    found = read(workspace, table).to_pylist()
    return [tuple(row[name] for name in names) if len(names) > 1 else row[names[0]] for row in found] if names else found


def quarantined(workspace, table):
    with (workspace.quarantine / f"{table}.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_sound_tables_come_through_with_their_types_in_the_order_in_which_they_became_known(tmp_path):
    events = (
        "account_id,occurred_at,event,quantity,recorded_at\n"
        "7,2024-03-01T02:00:00+02:00,login,1.5,2024-05-01\nA,2024-02-01,open,,\nB,2024-04-01 10:00,login,2,2024-04-02\n"
    )
    workspace = prepare(tmp_path, events__csv=events)
    summary = check(workspace)
    table = read(workspace, "telemetry")
    assert {name: str(kind) for name, kind in zip(table.column_names, table.schema.types, strict=True)} == {
        "account_id": "string",
        "occurred_at": "timestamp[us]",
        "event": "string",
        "quantity": "double",
        "recorded_at": "timestamp[us]",
        "known_at": "timestamp[us]",
        "events": "double",
    }
    assert rows(workspace, "telemetry", "account_id", "known_at", "events") == [
        ("A", datetime(2024, 2, 1), 1.0),
        ("B", datetime(2024, 4, 2), 1.0),
        ("7", datetime(2024, 5, 1), 1.0),
    ]
    assert rows(workspace, "telemetry", "occurred_at")[2] == datetime(2024, 3, 1)
    assert rows(workspace, "accounts", "account_id", "known_at")[0] == ("A", datetime(2023, 1, 1))
    assert (summary.data_from, summary.data_until) == (datetime(2024, 2, 1), datetime(2024, 5, 1))
    assert summary.missing_tables == ("subscriptions", "engagement", "tickets", "partners", "assignments", "outcomes", "plays")
    assert json.loads(workspace.check_report.read_text())["tables"][0]["rows_out"] == 3
    assert not list(workspace.quarantine.iterdir())


TICKETS = """ticket_id,account_id,opened_at,closed_at,severity,csat
1,A,2024-01-01,2024-01-02,high,5
2,Z,2024-01-01,,high,4
3,,2024-01-01,,high,4
4,A,yesterday,,high,4
5,A,2024-01-05,2024-01-04,high,4
6,A,2024-01-01,soon,high,4
7,A,2025-02-01,,high,4
8,A,2024-01-01,,high,9
9,A,2024-01-01,,high,good
10,A,2024-01-02,,low,3
10,A,2024-01-02,,low,3
10,A,2024-01-03,,low,3
11,A,2022-01-01,,low,n/a
,Z,,,,
12,A,2024-01-01,2024-01-02,low
13,A,2024-01-01,,low,
14,B,2024-01-01,,low,2
15,B,2024-01-01,,low,2
16,B,2024-01-01,,low,2
"""


def test_every_broken_row_has_its_reasons_and_every_good_row_is_intact(tmp_path):
    workspace = prepare(tmp_path, '[tables.tickets]\nsource = "tickets.csv"\nquarantine_limit = 0.6\n', tickets__csv=TICKETS)
    table = check(workspace).table("tickets")
    assert (table.rows_in, table.rows_out, table.quarantined) == (19, 9, 10)
    assert table.reasons == {
        "account_id: unknown account": 2,
        "opened_at: empty": 1,
        "account_id: empty": 1,
        "ticket_id: empty": 1,
        "closed_at: before opened_at": 1,
        "closed_at: not a time": 1,
        "opened_at: in the future": 1,
        "opened_at: not a time": 1,
        "exact duplicate of an earlier row": 1,
        "ticket_id: used by an earlier row": 1,
        "line cannot be read: expected number of columns: 6 found: 5": 1,
    }
    assert table.blanked == {"csat: not a number": 1, "csat: outside 1 to 5": 1}
    assert table.noticed == {"csat: word for a missing value": 1, "opened_at: before the account was created": 1}
    lines = quarantined(workspace, "tickets")
    assert [(int(line["row"]), line["fate"]) for line in lines] == [
        (number, "value blanked" if number in (8, 9) else "row left out") for number in (2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 14, 15)
    ]
    assert lines[2]["opened_at"] == "yesterday"
    assert lines[9]["reasons"] == "ticket_id: used by an earlier row"
    assert lines[10]["reasons"] == "ticket_id: empty; opened_at: empty; account_id: unknown account"
    assert lines[11]["line"] == "12,A,2024-01-01,2024-01-02,low"
    kept = {row["ticket_id"]: row for row in rows(workspace, "tickets")}
    assert sorted(kept, key=int) == ["1", "8", "9", "10", "11", "13", "14", "15", "16"]
    assert kept["1"]["closed_at"] == datetime(2024, 1, 2)
    assert [kept[key]["csat"] for key in ("1", "8", "9", "11", "13")] == [5.0, None, None, None, None]


def test_too_many_broken_rows_stop_the_run_and_the_last_good_tables_stay(tmp_path):
    workspace = prepare(tmp_path)
    check(workspace)
    before = contents(workspace.tables / "telemetry.parquet")
    prepare(tmp_path, events__csv=EVENTS + "Z,2024-01-01,login\n" * 2 + "Z,2024-01-02,login\n")
    with pytest.raises(QuarantineError) as caught:
        check(workspace)
    message = str(caught.value)
    assert "telemetry: 3 of 4 rows (75.0%), 5.0% are allowed" in message
    assert "3 account_id: unknown account" in message
    assert "1 exact duplicate of an earlier row" in message
    assert "events.csv, 2, account_id: unknown account, Z, 2024-01-01, login" in message
    assert contents(workspace.tables / "telemetry.parquet") == before
    assert len(quarantined(workspace, "telemetry")) == 3
    assert json.loads(workspace.check_report.read_text())["tables"][1]["quarantined"] == 3
    assert not [path for path in workspace.state.iterdir() if "unfinished" in path.name]


def test_what_an_interrupted_check_left_is_removed_and_its_tables_are_never_seen(tmp_path):
    workspace = prepare(tmp_path)
    for name in (".unfinished-check-abc", ".unfinished-tables-abc", ".unfinished-quarantine-abc"):
        (workspace.state / name).mkdir(parents=True)
        (workspace.state / name / "half.parquet").write_bytes(b"half")
    check(workspace)
    assert sorted(path.name for path in workspace.state.iterdir()) == ["check.json", "quarantine", "tables"]


def test_a_workspace_that_cannot_be_written_to_says_so(tmp_path):
    workspace = prepare(tmp_path)
    workspace.state.write_text("in the way")
    with pytest.raises(WorkspaceError, match="cannot be written to"):
        check(workspace)


@pytest.mark.parametrize(
    ("values", "first"),
    [
        (["13/02/2024", "01/02/2024"], [datetime(2024, 2, 13), datetime(2024, 2, 1)]),
        (["02/13/2024", "01/02/2024"], [datetime(2024, 2, 13), datetime(2024, 1, 2)]),
        (["13.2.24 08:30", "1.2.24 23:15:01"], [datetime(2024, 2, 13, 8, 30), datetime(2024, 2, 1, 23, 15, 1)]),
        (["2/13/2024 2:05 PM", "1/2/2024 12:00 AM"], [datetime(2024, 2, 13, 14, 5), datetime(2024, 1, 2)]),
        (["1704067200", "1704067200000"], [datetime(2024, 1, 1), datetime(2024, 1, 1)]),
        (["20240213", "2024-02-01T01:00:00Z"], [datetime(2024, 2, 13), datetime(2024, 2, 1, 1)]),
        (["2024-02-13T01:00:00-05:30", "2024-02-01 02:00+02"], [datetime(2024, 2, 13, 6, 30), datetime(2024, 2, 1)]),
    ],
)
def test_times_are_read_as_all_values_of_their_column_allow(tmp_path, values, first):
    lines = "".join(f'A,"{value}",e{number}\n' for number, value in enumerate(values))
    workspace = prepare(tmp_path, events__csv="account_id,occurred_at,event\n" + lines)
    check(workspace)
    assert sorted(rows(workspace, "telemetry", "event", "occurred_at")) == [(f"e{number}", time) for number, time in enumerate(first)]


def test_dates_that_can_be_read_in_two_ways_are_asked_about(tmp_path):
    ambiguous = "account_id,occurred_at,event\nA,01/02/2024,a\nA,03/04/2024,b\n"
    with pytest.raises(ContractError, match="no value shows which number is the day") as caught:
        check(prepare(tmp_path, events__csv=ambiguous))
    assert "time_format" in str(caught.value)
    with pytest.raises(ContractError, match="some can only be day/month and some only month/day"):
        check(prepare(tmp_path, events__csv=ambiguous + "A,13/02/2024,c\nA,02/13/2024,d\n"))
    text = '[tables.telemetry]\nsource = "events.csv"\nquarantine_limit = 0.5\n[tables.telemetry.columns]\n'
    text += 'occurred_at = { column = "occurred_at", time_format = "%d/%m/%Y", time_zone = "Europe/Berlin" }\n'
    workspace = prepare(tmp_path, text, events__csv=ambiguous + "A,13/02/2024,c\nA,02/13/2024,d\n")
    assert check(workspace).table("telemetry").reasons == {"occurred_at: not a time": 1}
    assert rows(workspace, "telemetry", "occurred_at")[0] == datetime(2024, 1, 31, 23)


def test_local_times_become_utc_in_text_and_in_typed_columns(tmp_path):
    columns = '[tables.telemetry.columns]\noccurred_at = { column = "occurred_at", time_zone = "America/New_York" }\n'
    text = "account_id,occurred_at,event\nA,2024-01-01 00:00,a\nA,2024-07-01 00:00,b\nA,2024-07-01T00:00:00Z,c\n"
    workspace = prepare(tmp_path, '[tables.telemetry]\nsource = "events.csv"\n' + columns, events__csv=text)
    check(workspace)
    times = {"a": datetime(2024, 1, 1, 5), "b": datetime(2024, 7, 1, 4), "c": datetime(2024, 7, 1)}
    assert dict(rows(workspace, "telemetry", "event", "occurred_at")) == times
    typed = {"account_id": ["A", "A"], "occurred_at": [datetime(2024, 1, 1), datetime(2024, 7, 1)], "event": ["a", "b"]}
    pq.write_table(pa.table(typed), tmp_path / "events.parquet")
    workspace = prepare(tmp_path, '[tables.telemetry]\nsource = "events.parquet"\n' + columns)
    check(workspace)
    assert dict(rows(workspace, "telemetry", "event", "occurred_at")) == {name: times[name] for name in "ab"}


SUBSCRIPTIONS = '[tables.subscriptions]\nsource = "subs.csv"\n[tables.subscriptions.columns]\nsubscription_id = "account_id"\n'


@pytest.mark.parametrize(
    ("values", "expected", "blanked"),
    [
        (["1200", "12.5", "1e3"], [1200.0, 12.5, 1000.0], {}),
        (["1,200", "$12.50", "1'000"], [1200.0, 12.5, 1000.0], {}),
        (["1.200,50 €", "12,5", "7"], [1200.5, 12.5, 7.0], {}),
        (["1200.5", "12,5", "7"], [1200.5, None, 7.0], {"list_arr: not a number": 1}),
        (["-1", "n/a", "7"], [None, None, 7.0], {"list_arr: below 0": 1}),
        (["1e999", "7", "8"], [None, 7.0, 8.0], {"list_arr: not a number": 1}),
        (["1e16", "1e15", "8"], [None, 1e15, 8.0], {"list_arr: larger than 1e+15": 1}),
    ],
)
def test_numbers_are_read_as_all_values_of_their_column_allow(tmp_path, values, expected, blanked):
    lines = "".join(
        f'{name},2024-0{number}-01,,1,"{value}"\n' for number, (name, value) in enumerate(zip("AB7", values, strict=True), start=1)
    )
    workspace = prepare(tmp_path, SUBSCRIPTIONS, subs__csv="account_id,start_date,end_date,arr,list_arr\n" + lines)
    table = check(workspace).table("subscriptions")
    assert rows(workspace, "subscriptions", "list_arr") == expected
    assert table.blanked == blanked
    assert table.quarantined == 0


def test_a_number_that_may_not_be_empty_costs_its_row(tmp_path):
    subs = "account_id,start_date,end_date,arr\nA,2024-01-01,,1\nB,2024-01-01,,x\n7,2024-01-01,,\nA,2024-02-01,,-5\nB,2024-03-01,,5\n"
    workspace = prepare(tmp_path, "[workspace]\nquarantine_limit = 0.9\n" + SUBSCRIPTIONS, subs__csv=subs)
    assert check(workspace).table("subscriptions").reasons == {"arr: below 0": 1, "arr: empty": 1, "arr: not a number": 1}
    assert rows(workspace, "subscriptions", "arr") == [1.0, 5.0]


def test_amounts_are_converted_at_fixed_rates_and_a_missing_rate_is_named(tmp_path):
    subs = "account_id,start_date,end_date,arr,list_arr,currency\nA,2024-01-01,,100,200,eur\nB,2024-01-02,,100,,USD\n7,2024-01-03,,100,,\n"
    workspace = prepare(tmp_path, "[workspace]\nquarantine_limit = 0.5\n[currencies]\nEUR = 1.25\n" + SUBSCRIPTIONS, subs__csv=subs)
    table = check(workspace).table("subscriptions")
    assert rows(workspace, "subscriptions", "arr", "list_arr") == [(125.0, 250.0), (100.0, None)]
    assert table.reasons == {"currency: empty": 1}
    assert table.noticed == {"currency: converted from EUR": 1}
    with pytest.raises(ConfigError, match="EUR in 1 rows"):
        check(prepare(tmp_path, SUBSCRIPTIONS, subs__csv=subs))


def test_expressions_see_text_as_numbers_and_times_and_lose_no_broken_value(tmp_path):
    subs = "id,start,months,mrr,kind\nA,2024-01-31,1,10,paid\n7,2024-01-01,12,oops,paid\nB,2024-01-01,3,20,trial\nA,2024-03-01,1,1e1,paid\n"
    text = """
    [tables.subscriptions]
    source = "subs.csv"
    where = "kind <> 'trial' AND mrr > 0"
    quarantine_limit = 0.5
    [tables.subscriptions.columns]
    account_id = "id"
    subscription_id = { sql = "id || '/' || months" }
    start_date = "START"
    end_date = { sql = "start + to_months(months)" }
    arr = { sql = "mrr * 12" }
    product = { constant = "core" }
    """
    workspace = prepare(tmp_path, text, subs__csv=subs)
    table = check(workspace).table("subscriptions")
    assert (table.rows_in, table.rows_out, table.left_out) == (3, 2, 1)
    assert table.reasons == {"arr: not a number": 1}
    assert quarantined(workspace, "subscriptions")[0]["mrr"] == "oops"
    assert rows(workspace, "subscriptions", "subscription_id", "end_date", "arr", "product") == [
        ("A/1", datetime(2024, 2, 29), 120.0, "core"),
        ("A/1", datetime(2024, 4, 1), 120.0, "core"),
    ]


def test_a_query_joins_lookups_and_keeps_the_rows_of_its_files(tmp_path):
    text = """
    [tables.telemetry]
    source = "usage.csv"
    lookups = { kinds = "kinds.csv", subs = "subs.csv" }
    query = "SELECT source.*, kinds.name, subs.account_id FROM source LEFT JOIN kinds USING (kind) LEFT JOIN subs USING (sub)"
    quarantine_limit = 0.9
    [tables.telemetry.columns]
    occurred_at = "day"
    event = "name"
    """
    files = {
        "usage__csv": "sub,day,kind\ns1,2024-01-01,1\ns2,2024-01-02,2\ns9,2024-01-03,1\nbroken\n",
        "kinds__csv": "kind,name\n1,login\n2,open\n",
        "subs__csv": "sub,account_id\ns1,A\ns2,7\n",
    }
    workspace = prepare(tmp_path, text, **files)
    table = check(workspace).table("telemetry")
    assert rows(workspace, "telemetry", "account_id", "event") == [("A", "login"), ("7", "open")]
    assert (table.rows_in, table.rows_out) == (4, 2)
    lines = quarantined(workspace, "telemetry")
    assert [(Path(line["file"]).name, line["row"]) for line in lines] == [("usage.csv", "3"), ("usage.csv", "4")]
    assert lines[1]["line"] == "broken"


def test_accounts_can_be_made_of_what_happened(tmp_path):
    text = '[tables.accounts]\nsource = "events.csv"\nquery = "SELECT account_id, min(occurred_at) AS created_at FROM source GROUP BY 1"\n'
    workspace = prepare(tmp_path, text, events__csv=EVENTS + "A,2023-05-01,x\nN,2024-02-02,x\n")
    check(workspace)
    assert rows(workspace, "accounts", "account_id", "created_at") == [("A", datetime(2023, 5, 1)), ("N", datetime(2024, 2, 2))]


@pytest.mark.parametrize(
    ("line", "error", "message"),
    [
        ('event = "evnt"', ContractError, "event is mapped onto evnt"),
        ('event = "evnt"', ContractError, "did you mean 'event'?"),
        ('quantity = { sql = "evnt + 1" }', ConfigError, "did you mean 'event'?"),
        ('quantity = { sql = "1 +" }', ConfigError, "is not SQL"),
        ('quantity = { sql = "event + 1" }', ConfigError, "tables.telemetry.columns.quantity cannot be computed"),
        ('quantity = "event"', ContractError, r"100% of the values of telemetry.quantity cannot be read \(not a number\)"),
        ('recorded_at = "event"', ContractError, "login"),
        ("recorded_at = { constant = true }", ContractError, "recorded_at must be a time"),
    ],
)
def test_a_broken_column_stops_the_run_with_what_to_do(tmp_path, line, error, message):
    workspace = prepare(tmp_path, f'[tables.telemetry]\nsource = "events.csv"\n[tables.telemetry.columns]\n{line}\n')
    with pytest.raises(error, match=message):
        check(workspace)
    assert not workspace.tables.exists()


def test_a_missing_column_is_told_with_the_columns_and_first_rows(tmp_path):
    with pytest.raises(ContractError) as caught:
        check(prepare(tmp_path, events__csv="account_id,occured_at,event\nA,2024-01-01,login\n"))
    message = str(caught.value)
    assert "the table telemetry lacks a column: it needs occurred_at" in message
    assert "account_id=A, occured_at=2024-01-01, event=login" in message
    assert "did you mean 'occured_at'?" in message


def test_a_missing_file_and_an_expression_that_fails_on_a_value(tmp_path):
    with pytest.raises(SourceError, match="the file does not exist"):
        check(prepare(tmp_path, '[tables.telemetry]\nsource = "evnts.csv"\n'))
    text = '[tables.telemetry]\nsource = "events.csv"\n[tables.telemetry.columns]\nquantity = { sql = "CAST(event AS INTEGER)" }\n'
    with pytest.raises(SourceError, match="TRY_CAST"):
        check(prepare(tmp_path, text))


def test_rows_older_than_their_account_are_kept_or_quarantined_as_the_config_says(tmp_path):
    events = EVENTS + "B,2023-05-31,early\n"
    workspace = prepare(tmp_path, events__csv=events)
    table = check(workspace).table("telemetry")
    assert (table.rows_out, table.noticed) == (2, {"occurred_at: before the account was created": 1})
    text = '[tables.telemetry]\nsource = "events.csv"\nbefore_created_at = "quarantine"\nquarantine_limit = 0.5\n'
    table = check(prepare(tmp_path, text, events__csv=events)).table("telemetry")
    assert (table.rows_out, table.reasons, table.noticed) == (1, {"occurred_at: before the account was created": 1}, {})


def test_several_sources_make_one_table(tmp_path):
    text = """
    [[tables.engagement.sources]]
    source = "nps.jsonl"
    [tables.engagement.sources.columns]
    occurred_at = "at"
    channel = { constant = "survey" }
    value = { column = "score", low = 0, high = 10 }
    [[tables.engagement.sources]]
    source = "mails.csv"
    [tables.engagement.sources.columns]
    occurred_at = "sent"
    channel = { constant = "email" }
    """
    nps = '{"account_id": "A", "at": "2024-01-02", "score": 9}\n{"account_id": 7, "at": "2024-01-01", "score": "11"}\n'
    workspace = prepare(tmp_path, text, nps__jsonl=nps, mails__csv="account_id,sent,kind\nA,2024-01-03,opened\n")
    table = check(workspace).table("engagement")
    assert rows(workspace, "engagement", "account_id", "channel", "kind", "value") == [
        ("7", "survey", None, None),
        ("A", "survey", None, 9.0),
        ("A", "email", "opened", None),
    ]
    assert table.blanked == {"value: outside 0 to 10": 1}
    assert table.noticed == {"account_id: text among numbers": 1, "score: text among numbers": 1}


def test_assignments_name_known_partners(tmp_path):
    text = '[tables.partners]\nsource = "partners.csv"\n[tables.assignments]\nsource = "assigned.csv"\nquarantine_limit = 0.9\n'
    assigned = "account_id,partner_id,valid_from,valid_to\nA,P,2024-01-01,2030-01-01\nA,Q,2024-01-01,\nB,P,2027-01-01,2026-01-01\n"
    workspace = prepare(tmp_path, text, partners__csv="partner_id,name\nP,Partner\n", assigned__csv=assigned)
    assert check(workspace).table("assignments").reasons == {"partner_id: unknown partner": 1, "valid_to: before valid_from": 1}


def test_declared_attributes_are_kept_with_their_kind(tmp_path):
    text = '[tables.accounts]\nsource = "accounts.csv"\n[tables.accounts.attributes]\nchannel = "category"\nsize = "number"\n'
    text += 'founded = "date"\nhalf = { type = "number", sql = "size / 2" }\n'
    accounts = "account_id,channel,size,founded\nA,web,10,1999-05-01\nB,,x,never\n7,app,30,2001-05-01\n"
    workspace = prepare(tmp_path, text, accounts__csv=accounts)
    table = check(workspace).table("accounts")
    names = ("attribute_channel", "attribute_size", "attribute_founded", "attribute_half")
    assert rows(workspace, "accounts", *names)[:2] == [("web", 10.0, datetime(1999, 5, 1), 5.0), (None, None, None, None)]
    assert table.blanked == {"attribute_founded: not a time": 1, "attribute_half: not a number": 1, "attribute_size: not a number": 1}


def test_numbers_as_ids_agree_whatever_the_format(tmp_path):
    pq.write_table(pa.table({"account_id": [7.0, None], "occurred_at": [NOW, NOW], "event": ["a", "b"]}), tmp_path / "events.parquet")
    workspace = prepare(tmp_path, '[tables.telemetry]\nsource = "events.parquet"\nquarantine_limit = 0.5\n')
    assert check(workspace).table("telemetry").reasons == {"account_id: empty": 1}
    assert rows(workspace, "telemetry", "account_id") == ["7"]


def test_the_fingerprint_moves_with_files_and_config_only(tmp_path):
    workspace = prepare(tmp_path)
    first = intake_fingerprint(workspace)
    assert intake_fingerprint(workspace) == first
    os.utime(tmp_path / "events.csv", (1, 1))
    second = intake_fingerprint(workspace)
    assert second != first
    other = prepare(tmp_path, '[tables.telemetry]\nsource = "events.csv"\nwhere = "true"\n')
    os.utime(tmp_path / "events.csv", (1, 1))
    assert intake_fingerprint(other) != second


def test_two_checks_of_the_same_files_write_the_same_bytes(tmp_path):
    events = "account_id,occurred_at,event\n" + "".join(f"{'AB7'[n % 3]},2024-01-{n % 28 + 1:02},e{n}\n" for n in range(500))
    workspace = prepare(tmp_path, events__csv=events)
    check(workspace)
    first = contents(workspace.tables / "telemetry.parquet")
    shutil.rmtree(workspace.tables)
    check(workspace)
    assert contents(workspace.tables / "telemetry.parquet") == first


# A slow twin of the rules in plain Python, held against the check on random messy tables.

_IDS = ["A", "B", "7", " A ", "Z", "", "a"]
_TIMES = [
    "2024-01-01",
    "2024-01-02T10:00:00Z",
    "2024-01-02 12:00:00+02:00",
    "1704189600",
    "20240102",
    "",
    "n/a",
    "2024-02-30",
    "soon",
    "2026-01-01",
]
_NUMBERS = ["1", "2.5", "-3", "1,000", "$4", "", "null", "five", "1e999", "11", "0"]


def _twin_time(text: str) -> datetime | None:
    if re.fullmatch(r"\d{10}", text):
        return datetime.fromtimestamp(int(text), UTC).replace(tzinfo=None)
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time


def _twin_number(text: str) -> float | None:
    try:
        number = float(text.replace("$", "").replace(",", ""))
    except ValueError:
        return None
    return number if abs(number) < float("inf") else None


def _twin(table: list[tuple[str, ...]]):
    """Check tickets row by row: what is kept, and why each other row is not."""
    kept, reasons, blanked, seen, keys = [], Counter(), Counter(), set(), set()
    for raw in table:
        ticket, account, opened, closed, csat = (text.strip() for text in raw)
        states = {"opened_at": opened, "closed_at": closed, "csat": csat}
        states = {name: "" if text in ("n/a", "null") else text for name, text in states.items()}
        times = {name: _twin_time(states[name]) for name in ("opened_at", "closed_at")}
        number = _twin_number(states["csat"])
        why = [
            f"{name}: empty"
            for name, text in (("ticket_id", ticket), ("account_id", account), ("opened_at", states["opened_at"]))
            if not text
        ]
        why += [f"{name}: not a time" for name in times if states[name] and times[name] is None]
        why += [f"{name}: in the future" for name, time in times.items() if time and time > NOW + timedelta(days=1)]
        if times["opened_at"] and times["closed_at"] and times["opened_at"] > times["closed_at"]:
            why.append("closed_at: before opened_at")
        if account and account not in ("A", "B", "7"):
            why.append("account_id: unknown account")
        if raw in seen:
            why.append("exact duplicate of an earlier row")
        elif not why and ticket in keys:
            why.append("ticket_id: used by an earlier row")
        seen.add(raw)
        if states["csat"] and number is None:
            blanked["csat: not a number"] += 1
        elif number is not None and not 1 <= number <= 5:
            blanked["csat: outside 1 to 5"] += 1
            number = None
        reasons.update(why)
        if not why:
            keys.add(ticket)
            kept.append((ticket, account, times["opened_at"], times["closed_at"], number))
    return sorted(kept, key=str), dict(reasons), dict(blanked)


_good_ticket = st.tuples(st.just("x"), st.just("A"), st.just("2024-01-01"), st.just("2024-01-03"), st.just("5"))
_messy_ticket = st.tuples(
    st.sampled_from(["1", "2", "3", "4", ""]),
    st.sampled_from(_IDS),
    st.sampled_from(_TIMES),
    st.sampled_from(_TIMES),
    st.sampled_from(_NUMBERS),
)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_messy_ticket, min_size=1, max_size=60))
def test_random_messy_tables_agree_with_the_twin(tmp_path_factory, messy):
    # enough sound rows that no column counts as broken altogether
    sound = [(f"s{number}", "A", "2024-01-01", "2024-01-03", "5") for number in range(len(messy) + 1)]
    table = sound + messy
    folder = tmp_path_factory.mktemp("messy")
    lines = "\n".join(",".join(f'"{value}"' for value in row) for row in table)
    text = '[tables.tickets]\nsource = "tickets.csv"\nquarantine_limit = 1.0\n'
    workspace = prepare(folder, text, tickets__csv=f"ticket_id,account_id,opened_at,closed_at,csat\n{lines}\n")
    found = check(workspace).table("tickets")
    kept, reasons, blanked = _twin(table)
    assert sorted(rows(workspace, "tickets", "ticket_id", "account_id", "opened_at", "closed_at", "csat"), key=str) == kept
    assert found.reasons == reasons
    assert found.blanked == blanked
    assert found.rows_in == len(table) == found.rows_out + found.quarantined
    left_out = [line for line in quarantined(workspace, "tickets") if line["fate"] == "row left out"] if reasons or blanked else []
    assert len(left_out) == found.quarantined


# The cloud provider's landing zone, counted a second time from the raw files.

DATA = Path(os.environ.get("RENEWCAST_DATA", Path(__file__).parent.parent / ".." / "shared" / "data")).absolute()
LANDING = DATA / "cloud_provider" / "landing"


@pytest.fixture(scope="module")
def cloud(tmp_path_factory):
    if not LANDING.is_dir():
        pytest.skip(f"needs the tables of cloud_provider in {DATA}; set RENEWCAST_DATA to the folder that holds them")
    folder = tmp_path_factory.mktemp("cloud")
    config = Path(__file__).parent / "workspaces" / "cloud_provider" / "renewcast.toml"
    (folder / "renewcast.toml").write_text(config.read_text())
    workspace = load_workspace(folder, {"RENEWCAST_DATA": str(DATA)})
    return workspace, check_workspace(workspace, now=datetime(2026, 1, 1))


def _landed(name: str) -> list[dict[str, str]]:
    with (LANDING / name).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def events(cloud):
    files = sorted((LANDING / "usage_events_stream").glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def _number(text: str) -> float | None:
    return float(text) if text else None


def _signed_up() -> dict[str, str]:
    return {org["org_id"]: org["signup_date"] for org in _landed("customers_orgs.csv")}


def test_cloud_loses_no_row(cloud):
    _, summary = cloud
    landed = {
        "accounts": len(_landed("customers_orgs.csv")),
        "telemetry": sum(1 for file in (LANDING / "usage_events_stream").iterdir() for _ in file.read_text().splitlines()),
        "subscriptions": len(_landed("billing_monthly.csv")),
        "engagement": len(_landed("nps_surveys.csv")) + len(_landed("marketing_touches.csv")),
        "tickets": len(_landed("support_tickets.csv")),
    }
    assert {table.table: table.rows_in for table in summary.tables} == landed
    assert all(table.rows_in == table.rows_out + table.quarantined for table in summary.tables)


def test_cloud_every_planted_fault_is_counted_by_kind(cloud, events):
    _, summary = cloud
    signed_up = _signed_up()
    telemetry, bills = summary.table("telemetry"), _landed("billing_monthly.csv")
    assert telemetry.noticed == {
        "value: text among numbers": sum(isinstance(event["value"], str) for event in events),
        "carbon_kg: not in the record": sum("carbon_kg" not in event for event in events),
        "genai_tokens: not in the record": sum("genai_tokens" not in event for event in events),
    }
    assert telemetry.empty["value"] == sum(event["value"] is None for event in events)
    assert telemetry.empty["unit"] == sum(event["unit"] is None for event in events)
    assert telemetry.blanked == {"quantity: below 0": sum(event["cost_usd_increment"] < 0 for event in events)}
    assert telemetry.quarantined == len(events) - len({event["event_id"] for event in events}) == 0
    tickets = _landed("support_tickets.csv")
    early = [ticket for ticket in tickets if ticket["created_at"] < signed_up[ticket["org_id"]]]
    assert summary.table("tickets").reasons == {"opened_at: before the account was created": len(early)}
    assert summary.table("tickets").blanked == {"csat: outside 1 to 5": sum(not 1 <= float(t["csat"]) <= 5 for t in tickets if t["csat"])}
    surveys, touches = _landed("nps_surveys.csv"), _landed("marketing_touches.csv")
    outside = [survey for survey in surveys if survey["nps_score"] and not 0 <= float(survey["nps_score"]) <= 10]
    assert summary.table("engagement").blanked == {"value: outside 0 to 10": len(outside)}
    before = sum(s["survey_date"] < signed_up[s["org_id"]] for s in surveys) + sum(t["timestamp"] < signed_up[t["org_id"]] for t in touches)
    assert summary.table("engagement").noticed == {"occurred_at: before the account was created": before}
    assert summary.table("subscriptions").reasons == {"arr: below 0": sum(float(bill["subtotal"]) < 0 for bill in bills)}
    currencies = Counter(bill["currency"] for bill in bills)
    assert {what: count for what, count in summary.table("subscriptions").noticed.items() if "currency" in what} == {
        "currency: converted from ARS": currencies["ARS"],
        "currency: converted from EUR": currencies["EUR"],
    }
    # the faults are there, so that nothing above compares nothing with nothing
    assert min(len(early), len(outside), currencies["ARS"], telemetry.empty["value"], *telemetry.blanked.values()) > 10


def test_cloud_good_rows_are_intact_value_by_value(cloud, events):
    workspace, _ = cloud
    signed_up = _signed_up()
    found = Counter(rows(workspace, "telemetry", "account_id", "occurred_at", "event", "product", "quantity", "events"))
    expected = Counter()
    for event in events:
        cost = event["cost_usd_increment"]
        occurred = datetime.fromisoformat(event["timestamp"]).replace(tzinfo=None)
        expected[(event["org_id"], occurred, event["metric"], event["service"], None if cost < 0 else cost, 1.0)] += 1
    assert found == expected
    tickets = {
        (
            *(ticket["ticket_id"], ticket["org_id"], datetime.fromisoformat(ticket["created_at"])),
            datetime.fromisoformat(ticket["resolved_at"]) if ticket["resolved_at"] else None,
            *(ticket["severity"], csat if (csat := _number(ticket["csat"])) and 1 <= csat <= 5 else None),
        )
        for ticket in _landed("support_tickets.csv")
        if ticket["created_at"] >= signed_up[ticket["org_id"]]
    }
    assert set(rows(workspace, "tickets", "ticket_id", "account_id", "opened_at", "closed_at", "severity", "csat")) == tickets
    worth = {"USD": 1.0, "EUR": 1.1, "ARS": 0.0015}
    terms = {
        (bill["org_id"], datetime.fromisoformat(bill["month"])): float(bill["subtotal"]) * 12 * worth[bill["currency"]]
        for bill in _landed("billing_monthly.csv")
        if float(bill["subtotal"]) >= 0
    }
    assert {(a, s): arr for a, s, arr in rows(workspace, "subscriptions", "account_id", "start_date", "arr")} == pytest.approx(terms)
    answers = [s["nps_score"] for s in _landed("nps_surveys.csv")]
    kept = sorted(float(answer) for answer in answers if answer and 0 <= float(answer) <= 10)
    assert sorted(value for value in rows(workspace, "engagement", "value") if value is not None) == kept


def test_cloud_every_row_left_out_and_every_value_blanked_has_its_line(cloud):
    workspace, summary = cloud
    for table in summary.tables:
        lines = quarantined(workspace, table.table) if table.quarantine_file else []
        assert sum(line["fate"] == "row left out" for line in lines) == table.quarantined
        counted = Counter(reason for line in lines for reason in line["reasons"].split("; "))
        assert counted == Counter(table.reasons) + Counter(table.blanked)
    line = quarantined(workspace, "tickets")[0]
    assert _landed("support_tickets.csv")[int(line["row"]) - 1]["ticket_id"] == line["ticket_id"]


def test_a_duckdb_source_goes_through(tmp_path):
    with duckdb.connect(str(tmp_path / "book.duckdb")) as connection:
        connection.execute("CREATE TABLE t AS SELECT 'A' AS account_id, TIMESTAMPTZ '2024-01-01 02:00:00+02' AS occurred_at, 'x' AS event")
    workspace = prepare(tmp_path, '[tables.telemetry]\ndatabase = "duckdb"\nsource = "book.duckdb"\ntable = "t"\n')
    check(workspace)
    assert rows(workspace, "telemetry", "occurred_at") == [datetime(2024, 1, 1)]
