import itertools
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from datetime import datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from features.errors import ConfigError, ServiceError, StoreDownError
from serving.permissions.caller import VENDOR, Caller
from serving.records.store import SERVICE, open_store, upgrade_store
from serving.records.tables import API_KEYS, CONTRIBUTIONS, FEEDBACK, JOURNAL, METADATA, NEWEST, NOTES, PLAYS, SESSIONS, SIGN_IN_LINKS, now

P1, P2 = Caller("p1"), Caller("p2")
AT = datetime(2026, 1, 1)
LINE = {"at": AT, "credential": "key:1", "action": "read account", "outcome": "read"}
FIRST_TABLES = """
CREATE TABLE api_keys (key_id VARCHAR(16) NOT NULL, key_hash VARCHAR(64) NOT NULL, partner_id VARCHAR, scopes VARCHAR NOT NULL,
  label VARCHAR NOT NULL, created_at DATETIME NOT NULL, revoked_at DATETIME, PRIMARY KEY (key_id));
CREATE TABLE sign_in_links (link_id VARCHAR(32) NOT NULL, browser_hash VARCHAR(64) NOT NULL, used_at DATETIME NOT NULL,
  PRIMARY KEY (link_id));
CREATE TABLE journal (line INTEGER NOT NULL, at DATETIME NOT NULL, caller VARCHAR NOT NULL, credential VARCHAR NOT NULL,
  action VARCHAR NOT NULL, outcome VARCHAR NOT NULL, account_id VARCHAR, reason VARCHAR, score_set VARCHAR, PRIMARY KEY (line));
CREATE INDEX journal_by_account ON journal (account_id, at);
CREATE TRIGGER journal_no_UPDATE BEFORE UPDATE ON journal BEGIN SELECT RAISE(ABORT, 'the journal is append only'); END;
CREATE TRIGGER journal_no_DELETE BEFORE DELETE ON journal BEGIN SELECT RAISE(ABORT, 'the journal is append only'); END;
INSERT INTO api_keys VALUES ('abc', 'hash', 'p1', 'predict', 'crm', '2025-01-01 00:00:00', NULL);
INSERT INTO journal VALUES (1, '2025-01-01 00:00:00', 'vendor', 'key:abc', 'predict', 'read', 'a', NULL, 'v1');
"""
"""A store of the first release, which had no versions."""


def rows(store, tenant, statement):
    with store.tenant(tenant) as connection:
        return [tuple(row) for row in connection.execute(statement)]


def test_the_tables_are_those_that_the_migrations_make(store):
    with store.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, METADATA) == []


def test_the_newest_version_is_the_last_migration():
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent.parent / "serving" / "records" / "migrations"))
    assert ScriptDirectory.from_config(config).get_heads() == [NEWEST]


def test_a_transaction_is_whole_or_did_not_happen(store):
    with pytest.raises(ZeroDivisionError), store.tenant(SERVICE) as connection:
        connection.execute(sa.insert(JOURNAL).values(LINE | {"caller": "vendor"}))
        raise ZeroDivisionError
    assert rows(store, SERVICE, sa.select(JOURNAL.c.line)) == []


def test_the_journal_can_only_grow(store):
    with store.tenant(SERVICE) as connection:
        connection.execute(sa.insert(JOURNAL).values(LINE | {"caller": "vendor", "account_id": "a"}))
    for statement in (sa.delete(JOURNAL), sa.update(JOURNAL).values(caller="nobody")):
        with pytest.raises(sa.exc.DatabaseError, match=r"append only|permission denied"), store.tenant(SERVICE) as connection:
            connection.execute(statement)
    assert rows(store, SERVICE, sa.select(JOURNAL.c.caller)) == [("vendor",)]


def test_not_even_their_owner_changes_the_journal_on_postgresql(postgres_store):
    owner = sa.create_engine(postgres_store.replace("renewcast@", "reader@", 1).replace("postgresql", "postgresql+psycopg", 1))
    with owner.begin() as connection:
        connection.execute(sa.insert(JOURNAL).values(LINE | {"caller": "vendor"}))
    for statement in ("DELETE FROM journal", "UPDATE journal SET caller = 'x'", "TRUNCATE journal"):
        with pytest.raises(sa.exc.IntegrityError, match="append only"), owner.begin() as connection:
            connection.exec_driver_sql(statement)
    owner.dispose()


@pytest.fixture
def filled(postgres_store):
    """A PostgreSQL store in which the vendor, p1 and p2 each have a row in every table."""
    store = open_store(postgres_store)
    said = {"account_id": "a", "recorded_at": AT, "credential": "key:1"}
    texts = itertools.count()
    with store.tenant(SERVICE) as connection:
        for caller in (VENDOR, P1, P2):
            who, key = {"partner_id": caller.partner_id}, {"partner_id": caller.partner_id, **said}
            of = f"of {caller.name}"
            connection.execute(
                sa.insert(API_KEYS).values(who | {"key_id": of[:16], "key_hash": of, "scopes": "", "label": of, "created_at": AT})
            )
            connection.execute(
                sa.insert(SESSIONS).values(who | {"session_hash": of, "role": "csm", "subject": of, "created_at": AT, "seen_at": AT})
            )
            connection.execute(sa.insert(SIGN_IN_LINKS).values(link_id=of, browser_hash="b", used_at=AT))
            connection.execute(sa.insert(JOURNAL).values(LINE | {"caller": caller.name}))
            connection.execute(sa.insert(NOTES).values(key | {"note_id": of, "occurred_at": AT, "text": of}))
            connection.execute(sa.insert(PLAYS).values(key | {"play_id": of, "play": of, "performed_at": AT, "category": "x"}))
            words = {"target": "churn", "agrees": True, "score_set": "v1", "probability": 0.5}
            connection.execute(sa.insert(FEEDBACK).values(key | words | {"feedback_id": of}))
            if caller.partner_id:
                connection.execute(sa.insert(CONTRIBUTIONS).values(contribution(who["partner_id"], str(next(texts)))))
    yield store
    store.dispose()


def contribution(partner_id, key):
    counts = dict.fromkeys(("given", "accepted", "duplicates", "quarantined"), 0)
    given = {"contribution_id": key, "partner_id": partner_id, "received_at": AT, "credential": "key:1", "content_hash": key}
    return given | counts | {"findings": []}


def seen(store, tenant, table, column="partner_id"):
    return {row[0] for row in rows(store, tenant, sa.text(f"SELECT {column} FROM {table}"))}


@pytest.mark.parametrize("table", ["contributions", "notes", "plays", "feedback"])
def test_a_query_without_a_condition_finds_no_other_partner_s_rows(filled, table):
    others = {None} if table != "contributions" else set()
    assert seen(filled, P1, table) == {"p1"} | others
    assert seen(filled, P2, table) == {"p2"} | others
    assert seen(filled, Caller("p3"), table) == others
    assert seen(filled, VENDOR, table) == seen(filled, SERVICE, table) == {"p1", "p2"} | others


def test_a_partner_finds_its_own_lines_of_the_journal_and_the_vendor_all(filled):
    assert seen(filled, P1, "journal", "caller") == {"partner:p1"}
    assert seen(filled, VENDOR, "journal", "caller") == {"vendor", "partner:p1", "partner:p2"}


@pytest.mark.parametrize("table", ["api_keys", "sessions", "sign_in_links"])
def test_credentials_are_for_the_service_alone(filled, table):
    assert len(rows(filled, SERVICE, sa.text(f"SELECT * FROM {table}"))) == 3
    for tenant in (VENDOR, P1):
        assert rows(filled, tenant, sa.text(f"SELECT * FROM {table}")) == []


@pytest.mark.parametrize("table", METADATA.tables)
def test_a_transaction_that_names_nobody_finds_nothing(filled, table):
    with filled.engine.begin() as connection:
        assert connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one() == 0
    rows(filled, SERVICE, sa.select(1))  # on the same connection: what was set ended with its transaction
    for setting in ("", "SERVICE", "partner:", "partner:%", "p1", "nobody"):
        with filled.engine.begin() as connection:
            connection.execute(sa.select(sa.func.set_config("renewcast.tenant", setting, True)))
            found = connection.exec_driver_sql(f"SELECT * FROM {table}").mappings().all()
            assert {row["partner_id"] for row in found if "partner_id" in row} <= {None}
            assert table in ("notes", "plays", "feedback") or found == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE notes SET text = 'x'",
        "DELETE FROM plays",
        "UPDATE feedback SET partner_id = 'p1'",
        "UPDATE contributions SET withdrawn_at = now()",
        "DELETE FROM contributions USING notes WHERE true",
        "UPDATE api_keys SET revoked_at = NULL",
        "DELETE FROM sessions",
    ],
)
def test_nobody_changes_another_partner_s_rows(filled, statement):
    table = next(name for name in METADATA.tables if f" {name} " in f"{statement} ")
    key = METADATA.tables[table].primary_key.columns[0].name
    before = {row[0]: row for row in rows(filled, SERVICE, sa.text(f"SELECT {key}, t::text FROM {table} t WHERE partner_id = 'p2'"))}
    with filled.tenant(P1) as connection:
        assert connection.exec_driver_sql(statement).rowcount <= 1
    after = {row[0]: row for row in rows(filled, SERVICE, sa.text(f"SELECT {key}, t::text FROM {table} t WHERE partner_id = 'p2'"))}
    assert after == before


@pytest.mark.parametrize(
    "statement",
    [
        sa.insert(CONTRIBUTIONS).values(contribution("p2", "x")),
        sa.insert(JOURNAL).values(LINE | {"caller": "partner:p1"}),
        sa.insert(API_KEYS).values(key_id="x", key_hash="x", partner_id="p1", scopes="", label="", created_at=AT),
        sa.insert(NOTES).values(note_id="x", account_id="a", recorded_at=AT, credential="c", occurred_at=AT, text="as the vendor"),
        sa.update(NOTES).values(partner_id="p2"),
    ],
)
def test_nobody_writes_in_another_s_name(filled, statement):
    with pytest.raises(sa.exc.ProgrammingError, match="row-level security"), filled.tenant(P1) as connection:
        connection.execute(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE notes DISABLE ROW LEVEL SECURITY",
        "DROP POLICY reads ON notes",
        "SET ROLE reader",
        "SET row_security = off; SELECT * FROM notes",
    ],
)
def test_the_service_s_role_cannot_tear_the_wall_down(filled, statement):
    with pytest.raises(sa.exc.ProgrammingError), filled.tenant(P1) as connection:
        connection.exec_driver_sql(statement)


def test_every_table_stands_behind_the_wall(filled):
    with filled.engine.begin() as connection:
        found = connection.exec_driver_sql(
            "SELECT relname, relrowsecurity AND relforcerowsecurity, (SELECT count(*) FROM pg_policy WHERE polrelid = c.oid) > 0 "
            "FROM pg_class c WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname <> 'alembic_version'"
        ).all()
    assert sorted(tuple(row) for row in found) == sorted((name, True, True) for name in METADATA.tables)


def test_a_role_that_the_wall_does_not_bind_is_refused(postgres_store):
    with pytest.raises(ServiceError, match="neither a superuser"):
        open_store(postgres_store.replace("renewcast@", "reader@", 1))


def test_a_store_of_the_first_release_is_taken_over(tmp_path):
    file = tmp_path / "renewcast.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(FIRST_TABLES)
    store = open_store(file)
    assert rows(store, SERVICE, sa.select(API_KEYS.c.key_id, API_KEYS.c.role, API_KEYS.c.expires_at)) == [("abc", "analyst", None)]
    assert rows(store, SERVICE, sa.select(JOURNAL.c.account_id, JOURNAL.c.line_id)) == [("a", None)]
    with pytest.raises(sa.exc.IntegrityError, match="append only"), store.tenant(SERVICE) as connection:
        connection.execute(sa.delete(JOURNAL))
    store.dispose()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_store_of_a_newer_version_is_refused_and_left_alone(store_address, postgres_server):
    store = open_store(store_address)
    address = store_address
    if not isinstance(store_address, Path):
        address = store_address.replace("renewcast@", "reader@", 1).replace("postgresql", "postgresql+psycopg", 1)
    owner = sa.create_engine(address if isinstance(address, str) else f"sqlite:///{address}")
    with owner.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9001'")
    store.dispose()
    with pytest.raises(ServiceError, match="newer version"):
        open_store(store_address)
    with pytest.raises(ServiceError, match="newer version"):
        upgrade_store(address)
    with owner.begin() as connection:
        assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one() == "9001"
    owner.dispose()


def test_a_postgresql_database_is_upgraded_by_its_owner_and_only_then_served(postgres_server, empty_postgres_store):
    import psycopg

    with psycopg.connect(f"postgresql://reader@{postgres_server}/postgres", autocommit=True) as connection:
        connection.execute("CREATE DATABASE yet_empty")
    served, owned = (f"postgresql://{role}@{postgres_server}/yet_empty" for role in ("renewcast", "reader"))
    with pytest.raises(ServiceError, match="renewcast store upgrade"):
        open_store(served)
    with pytest.raises(ServiceError, match="CREATE ROLE nobody_knows"):
        upgrade_store(owned, serving_role="nobody_knows")
    assert upgrade_store(owned, serving_role="renewcast") == ""
    assert upgrade_store(owned, serving_role="renewcast") == NEWEST
    store = open_store(served)
    assert rows(store, SERVICE, sa.select(JOURNAL)) == []
    store.dispose()


def test_workers_that_start_at_once_upgrade_once(tmp_path):
    code = "import sys; from pathlib import Path; from serving.records.store import open_store; open_store(Path(sys.argv[1]))"
    file = tmp_path / "renewcast.db"
    workers = [subprocess.Popen([sys.executable, "-c", code, str(file)], stderr=subprocess.PIPE) for _ in range(2)]
    assert [(worker.communicate()[1], worker.returncode) for worker in workers] == [(b"", 0)] * 2


def test_a_database_that_is_away_is_said_and_found_again(tmp_path, postgres_server, postgres_store):
    store = open_store(postgres_store.replace(postgres_server, "127.0.0.1:1"))
    with pytest.raises(StoreDownError, match="cannot be used"), store.tenant(SERVICE):
        pass
    file = tmp_path / "renewcast.db"
    file.write_bytes(b"this is no database, and it is longer than the head of one would be: " * 20)
    store = open_store(file)
    with pytest.raises(StoreDownError, match="not a database"), store.tenant(SERVICE):
        pass
    file.unlink()
    assert rows(store, SERVICE, sa.select(JOURNAL)) == []
    store.dispose()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("${RENEWCAST_DATABASE}", "cannot be read"),
        ("mysql://u:secret@h/d", r"no address of a store\n.*mysql://u:"),
        ("postgresql://${U}:secret@h/d", "no address"),
    ],
)
def test_an_address_that_is_none_is_refused_without_its_password(address, message):
    with pytest.raises(ConfigError, match=message) as caught:
        open_store(address)
    assert "secret" not in str(caught.value)


def test_times_are_naive_and_in_utc():
    assert now().tzinfo is None
