import json
import shutil
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from threading import Thread

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from filelock import FileLock

from features import contributed, receipt
from features.errors import SourceError, StoreDownError, WorkspaceError
from features.workspace import load_workspace
from serving.answers import contributions as module
from serving.answers.contributions import Contributions, assigned_accounts, given_file, given_rows_of
from serving.callers.identity import Principal
from serving.commands.steps import run_steps
from serving.permissions.caller import VENDOR, Caller
from serving.records.store import SERVICE, open_store
from serving.records.tables import NOTES
from tests.small_book import write_book, write_config

NOW = datetime(2025, 7, 1, 12)
HOUR = timedelta(hours=1)
CONFIG = '[tables.accounts]\nsource = "a.csv"\n[tables.telemetry]\nsource = "t.csv"\n'


def principal(partner_id="p1"):
    return Principal(Caller(partner_id), "key:abc", frozenset({"contribute"}), "analyst", "crm of the partner")


@pytest.fixture
def workspace(tmp_path):
    """Accounts a1 and a2 of p1, a3 of p2, a4 that goes from p1 to p2 at noon, a5 of nobody."""
    (tmp_path / "renewcast.toml").write_text(CONFIG)
    workspace = load_workspace(tmp_path, {})
    workspace.tables.mkdir(parents=True)
    pq.write_table(pa.table({"account_id": ["a1", "a2", "a3", "a4", "a5"]}), workspace.tables / "accounts.parquet")
    year = datetime(2025, 1, 1)
    terms = [("a1", "p1", year, None), ("a2", "p1", year, None), ("a3", "p2", year, None), ("a4", "p1", year, NOW), ("a4", "p2", NOW, None)]
    columns = zip(("account_id", "partner_id", "valid_from", "valid_to"), zip(*terms, strict=True), strict=True)
    pq.write_table(pa.table({name: list(values) for name, values in columns}), workspace.tables / "assignments.parquet")
    return workspace


def plain_check(_workspace, file, *, kind, accounts, earlier, now, most_listed):
    """Stand for the check, which test_receipt holds: knows accounts and nothing else, and is done at once."""
    assert (kind, now.tzinfo, most_listed) == ("parquet", None, module.MOST_LISTED)
    known, seen, kept, broken = set(accounts["account_id"].to_pylist()), set(earlier), [], []
    given = pq.read_table(file).to_pylist()
    for number, row in enumerate(given, start=1):
        digest = json.dumps(row, sort_keys=True)
        if row["account_id"] not in known:
            broken.append(receipt.BrokenRow(row=number, kept=False, reasons=("account_id: unknown account",)))
        elif digest not in seen:
            seen.add(digest)
            kept.append(row | {"occurred_at": datetime.fromisoformat(row["occurred_at"]), "row": number, "row_hash": digest})
    return receipt.Received(
        rows=pa.Table.from_pylist(kept, schema=KEPT),
        given=len(given),
        duplicates=len(given) - len(kept) - len(broken),
        quarantined=len(broken),
        broken=tuple(broken),
        reasons={"account_id: unknown account": len(broken)} if broken else {},
        ignored=(),
    )


TEXTS = ("account_id", "channel", "kind", "contact_id", "note", "row_hash")
KEPT = pa.schema({**dict.fromkeys(TEXTS, pa.string()), "occurred_at": pa.timestamp("us"), "value": pa.float64(), "row": pa.int64()})


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(receipt, "check_contribution", plain_check)


@pytest.fixture
def desk(workspace, store, quick):
    """The contributions of the workspace, in a store of each kind."""
    return Contributions(workspace, store)


@pytest.fixture
def file_desk(workspace, empty_sqlite_store):
    """The contributions of the workspace, in a file: for what does not hang on the store."""
    store = open_store(Path(shutil.copy(empty_sqlite_store, workspace.folder / "renewcast.db")))
    yield Contributions(workspace, store)
    store.dispose()


def rows(*accounts, channel="training", note=None, occurred="2025-06-01"):
    return [{"account_id": account, "occurred_at": occurred, "channel": channel, "note": note} for account in accounts]


def give(desk, given, *, who=None, at=NOW):
    return desk.receive(given_rows_of(given, desk.workspace.folder / "given.parquet"), who or principal(), at=at)


def kept(desk):
    files = sorted(desk.workspace.contributions.glob("[!.]*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def listed(desk, caller, **options):
    return desk.page(caller, limit=10, **options).lines


def notes(desk):
    with desk.store.tenant(SERVICE) as connection:
        return connection.execute(sa.select(NOTES)).mappings().all()


def test_good_rows_are_kept_with_who_gave_them_and_broken_ones_are_named(desk):
    found = give(desk, [*rows("a1", "a3", "a9"), *rows("a2", channel="health_note", note="They are glad")])
    assert (found.given, found.accepted, found.duplicates, found.quarantined) == (4, 2, 0, 2)
    assert [(one.row, one.reasons) for one in found.broken] == [
        (2, ("account_id: unknown account",)),
        (3, ("account_id: unknown account",)),
    ]
    assert (found.partner_id, found.received_at, found.subject, found.role) == ("p1", NOW, "crm of the partner", "analyst")
    assert [(row["account_id"], row["channel"], row["source"], row["recorded_at"], row["withdrawn_at"]) for row in kept(desk)] == [
        ("a1", "training", "p1", NOW, None),
        ("a2", "health_note", "p1", NOW, None),
    ]
    assert "note" not in kept(desk)[0]
    (note,) = notes(desk)
    assert (note["account_id"], note["text"], note["contribution_id"]) == ("a2", "They are glad", found.contribution_id)
    assert contributed.contribution_file(desk.workspace, found.contribution_id).exists()


def test_another_partner_s_account_is_answered_like_one_that_does_not_exist(file_desk, quick):
    theirs, nobody_s, none = (give(file_desk, rows(account)) for account in ("a3", "a5", "a9"))
    same = [replace(one, contribution_id="", content_hash="") for one in (theirs, nobody_s, none)]
    assert same[0].reasons == {"account_id: unknown account": 1}
    assert same[0] == same[1] == same[2]
    assert kept(file_desk) == []


def test_the_partner_of_the_instant_of_receipt_may_speak_of_an_account(file_desk, quick):
    assert give(file_desk, rows("a4"), at=NOW - timedelta(microseconds=1)).accepted == 1
    assert give(file_desk, rows("a4", occurred="2025-06-02")).accepted == 0
    assert give(file_desk, rows("a4", occurred="2025-06-02"), who=principal("p2")).accepted == 1
    assert assigned_accounts(file_desk.workspace, "p2", NOW)["account_id"].to_pylist() == ["a3", "a4"]
    assert assigned_accounts(file_desk.workspace, "nobody", NOW)["account_id"].to_pylist() == []


def test_the_same_content_again_is_the_same_contribution_and_changes_nothing(desk):
    first = give(desk, rows("a1", "a3"))
    again = give(desk, rows("a1", "a3"), at=NOW + HOUR)
    assert again == first
    assert len(kept(desk)) == 1
    assert len(listed(desk, VENDOR)) == 1


def test_rows_that_were_given_before_count_as_duplicates_whoever_else_gave_them(file_desk, quick):
    give(file_desk, rows("a1", "a2"))
    more = give(file_desk, rows("a2", "a1", "a1", occurred="2025-06-01") + rows("a1", occurred="2025-06-05"), at=NOW + HOUR)
    assert (more.given, more.accepted, more.duplicates) == (4, 1, 3)
    assert give(file_desk, rows("a3"), who=principal("p2")).accepted == 1


def test_what_is_withdrawn_is_marked_and_may_be_given_again(desk):
    first = give(desk, rows("a1", "a2"))
    assert desk.withdraw(first.contribution_id, principal("p2"), at=NOW + HOUR) is None
    taken_back = desk.withdraw(first.contribution_id, principal(), at=NOW + HOUR)
    assert (taken_back.withdrawn_at, taken_back.withdrawn_by) == (NOW + HOUR, "partner:p1 crm of the partner")
    assert [row["withdrawn_at"] for row in kept(desk)] == [NOW + HOUR] * 2
    assert desk.withdraw(first.contribution_id, principal(), at=NOW + 2 * HOUR) == taken_back
    again = give(desk, rows("a1", "a2"), at=NOW + 3 * HOUR)
    assert (again.accepted, again.contribution_id == first.contribution_id) == (2, False)
    assert desk.withdraw("unknown", principal(), at=NOW) is None
    empty = give(desk, rows("a3"))
    assert desk.withdraw(empty.contribution_id, principal(), at=NOW + HOUR).withdrawn_at == NOW + HOUR


def test_a_partner_sees_its_own_contributions_and_the_vendor_all(desk):
    mine, theirs = give(desk, rows("a1")), give(desk, rows("a3"), who=principal("p2"), at=NOW + HOUR)
    for caller, partner_id, seen in (
        (Caller("p1"), None, [mine]),
        (Caller("p1"), "p2", [mine]),
        (VENDOR, None, [theirs, mine]),
        (VENDOR, "p1", [mine]),
    ):
        assert listed(desk, caller, partner_id=partner_id) == seen
        assert sorted(map(str, desk.standing(caller, partner_id=partner_id))) == sorted(map(str, seen))
    first = desk.page(VENDOR, limit=1)
    assert (first.lines, desk.page(VENDOR, after=first.end, limit=1).lines) == ([theirs], [mine])
    assert desk.find(theirs.contribution_id, Caller("p1")) is None
    assert desk.find(theirs.contribution_id, VENDOR).partner_id == "p2"


def test_a_file_keeps_its_name_and_one_that_cannot_be_read_leaves_nothing(file_desk, tmp_path):
    file = tmp_path / "june.csv"
    file.write_text("account_id,occurred_at,channel\na1,2025-06-01,qbr\n")
    assert file_desk.receive(given_file(file, "csv", name="june.csv"), principal(), at=NOW).file_name == "june.csv"
    file.write_text("")
    with pytest.raises(SourceError):
        file_desk.receive(given_file(file, "csv", name="june.csv"), principal(), at=NOW)
    assert len(listed(file_desk, VENDOR)) == len(kept(file_desk)) == 1


def test_a_contribution_that_cannot_be_kept_in_one_place_is_in_neither(desk, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_contribution", full)
    with pytest.raises(OSError, match="No space"):
        give(desk, rows("a1", channel="health_note", note="x"))
    assert (len(listed(desk, VENDOR)), kept(desk), notes(desk)) == (0, [], [])
    monkeypatch.undo()
    monkeypatch.setattr(module, "_notes", lambda *_: [{"note_id": None}])
    with pytest.raises(sa.exc.SQLAlchemyError):
        give(desk, rows("a1"))
    assert (len(listed(desk, VENDOR)), kept(desk)) == (0, [])


def test_of_the_same_content_given_at_once_one_is_kept(desk):
    found = []
    givers = [
        Thread(target=lambda name: found.append(desk.receive(given_rows_of(rows("a1", "a2"), name), principal(), at=NOW)), args=(path,))
        for path in (desk.workspace.folder / f"{number}.parquet" for number in range(3))
    ]
    for giver in givers:
        giver.start()
    for giver in givers:
        giver.join()
    assert len({one.contribution_id for one in found}) == 1
    assert len(kept(desk)) == 2


def test_who_waits_too_long_is_told_to_come_again(file_desk, monkeypatch):
    monkeypatch.setattr(module, "_PATIENCE_SECONDS", 0)
    file_desk.workspace.contributions.mkdir(parents=True)
    with FileLock(file_desk.workspace.contributions / ".lock"), pytest.raises(StoreDownError, match="other contributions"):
        give(file_desk, rows("a1"))


def test_without_checked_tables_there_is_nothing_to_speak_of(tmp_path):
    (tmp_path / "renewcast.toml").write_text(CONFIG)
    with pytest.raises(WorkspaceError, match="not been checked"):
        assigned_accounts(load_workspace(tmp_path, {}), "p1", NOW)


ASSIGNED = """
[tables.partners]
source = "partners.csv"
[tables.assignments]
source = "assignments.csv"
"""


@pytest.fixture
def small_book(tmp_path):
    """The small book, its first two accounts managed by p1, and no engagement table."""
    folder = write_book(tmp_path / "book")
    (folder / "partners.csv").write_text("partner_id,name\np1,Northwind\n")
    (folder / "assignments.csv").write_text("account_id,partner_id,valid_from\na000,p1,2023-01-01\na001,p1,2023-01-01\n")
    write_config(folder, folder, ASSIGNED)
    return load_workspace(folder, {})


def computed(workspace):
    """Do what is needed up to the features, and return them with what was done."""
    done = run_steps(workspace, until="features")
    matrix = pq.read_table(workspace.snapshots / "features.parquet").to_pandas()
    return matrix.set_index(["account_id", "cutoff"]).sort_index(), [step.unchanged for step in done]


def test_what_is_contributed_is_used_from_its_receipt_on_and_what_is_withdrawn_no_longer(small_book, tmp_path):
    store = open_store(small_book.database)
    desk = Contributions(small_book, store)
    before, _ = computed(small_book)
    assert "trainings_ever" not in before.columns
    given = rows("a001", "a149", occurred="2023-06-01") + rows("a001", channel="health_note", note="Fine", occurred="2023-06-01")
    received = datetime(2024, 4, 10, 8)
    contribution = give(desk, given, at=received)
    after, done = computed(small_book)
    assert done == [False, False]
    assert computed(small_book)[1] == [True, True]
    assert after[before.columns].equals(before)
    knowing = after.index[after["trainings_ever"] > 0]
    cutoffs = sorted(cutoff for cutoff in before.loc["a001"].index if cutoff >= received)
    assert list(knowing) == [("a001", cutoff) for cutoff in cutoffs]
    assert len(cutoffs) == 2
    assert (after.loc[knowing, ["trainings_ever", "contacts_partner_182d"]].to_numpy() == [1, 0]).all()
    (engagement,) = [table for table in json.loads(small_book.check_report.read_text())["tables"] if table["table"] == "engagement"]
    assert engagement["contributed"] == {contribution.contribution_id: {"rows_in": 1, "quarantined": 0}}
    desk.withdraw(contribution.contribution_id, principal(), at=datetime(2024, 5, 10))
    later, done = computed(small_book)
    assert done == [False, False]
    assert list(later.index[later["trainings_ever"] > 0]) == [("a001", cutoffs[0])]
    assert later[before.columns].equals(before)
    store.dispose()
