"""The operational store: the database that holds `serving.records.tables`. SQLite, or PostgreSQL in production.

The journal is append only: the database itself refuses to change or delete a line of it, on either.

Every transaction names its tenant: a caller, or the service itself. On PostgreSQL row-level security then shows the rows of that tenant and
no others, and none at all to a transaction that names nobody. It is a second wall, behind the queries, which ask for the caller's rows
anyway: it holds against a query that forgot to, under a role that does not own the tables. It does not hold against somebody who can run
SQL of their own under that role, because they could name another tenant. SQLite has no such wall.

A SQLite store is brought to the newest version when it is opened. A PostgreSQL database is brought there by its owner, with
`renewcast store upgrade`; the service's own role may not change tables.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import sqlalchemy as sa

from features.config import ServingLimits
from features.errors import ConfigError, ServiceError, StoreDownError, explain
from serving.records.silence import Rest, give_up_after
from serving.records.tables import API_KEYS, JOURNAL, METADATA, NEWEST

__all__ = ["SERVICE", "Store", "Tenant", "open_store", "role_of", "upgrade_store"]


class Tenant(Protocol):
    """Whose rows a transaction may touch, such as a `Caller`."""

    @property
    def name(self) -> str:
        """How the journal and the database call it."""


@dataclass(frozen=True)
class _Service:
    name: str = "service"


SERVICE: Tenant = _Service()
"""The tenant of what the service does for itself: check credentials, keep the journal, read what all partners contributed."""


class Store:
    """Opens transactions, once the tables are known to be of this version."""

    def __init__(self, engine: sa.Engine, *, rest: Rest) -> None:
        self.engine = engine
        self._rest = rest
        self._prepared = False
        self._preparing = Lock()

    @contextmanager
    def tenant(self, tenant: Tenant) -> Iterator[sa.Connection]:
        """Run the block as one transaction of a tenant.

        Raises
        ------
        StoreDownError
            If the database does not answer or cannot write; the transaction did not happen.
        ServiceError
            If its tables are not of this version.
        """
        self.prepare()
        with self._rest.asking() as answered, _telling_what_is_down(), self.engine.begin() as connection:
            if self.engine.dialect.name == "postgresql":
                connection.execute(sa.select(sa.func.set_config("renewcast.tenant", tenant.name, True)))
            answered()
            yield connection

    def prepare(self) -> None:
        """Bring a SQLite store to this version, and make sure of that of a PostgreSQL database.

        Raises
        ------
        StoreDownError
            If the database does not answer; it is asked again the next time.
        ServiceError
            If the tables cannot be used.
        """
        if self._prepared:
            return
        with self._preparing, self._rest.asking() as answered, _telling_what_is_down():
            if self.engine.dialect.name == "postgresql":
                with self.engine.connect() as connection:
                    _require_serving_role(connection)
                    _require_newest(connection)
            else:
                _upgrade_file(self.engine)
            answered()
            self._prepared = True

    def dispose(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def open_store(address: Path | str, *, seconds: float = ServingLimits.database_seconds) -> Store:
    """Open the store in a SQLite file, which is made if it is not there, or in a PostgreSQL database; dispose of it when done.

    A database that does not answer does not matter until it is used.

    Parameters
    ----------
    seconds
        How long a PostgreSQL database may say nothing until it counts as one that does not answer.

    Raises
    ------
    ServiceError
        If the tables were made by a newer version, or a PostgreSQL database has to be upgraded first.
    ConfigError
        If the address cannot be understood.
    """
    engine = _engine(address)
    if engine.dialect.name == "postgresql":
        give_up_after(engine, seconds)
    store = Store(engine, rest=Rest(seconds))
    try:
        with suppress(StoreDownError):
            store.prepare()
    except ServiceError:
        store.dispose()
        raise
    return store


def upgrade_store(address: Path | str, *, serving_role: str | None = None) -> str:
    """Bring a store to the newest version, and return the version that it had before; empty if it had no tables.

    Parameters
    ----------
    address
        On PostgreSQL with the user that is to own the tables.
    serving_role
        The PostgreSQL role of the service, which gets what it needs and no more.

    Raises
    ------
    StoreDownError
        If the database does not answer.
    ServiceError
        If the tables were made by a newer version, or the role does not exist.
    """
    engine = _engine(address)
    try:
        with _telling_what_is_down():
            if engine.dialect.name == "sqlite":
                return _upgrade_file(engine)
            with engine.begin() as connection:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_UPGRADE_LOCK)))
                before = _upgrade(connection)
                if serving_role is not None:
                    _grant(connection, serving_role)
                return before
    finally:
        engine.dispose()


def role_of(address: str) -> str:
    """Return the role with which an address of a PostgreSQL database signs in.

    Raises
    ------
    ConfigError
        If the address cannot be understood, or names none.
    """
    role = _engine(address).url.username
    if role is None:
        todo = "Write it into database = ... in [serving]: postgresql://user@host/name."
        raise ConfigError(explain("the address of the store names no user", todo=todo))
    return role


_UPGRADE_LOCK = 0x52656E65776361  # any number, as long as every version uses the same


def _engine(address: Path | str) -> sa.Engine:
    if isinstance(address, Path):
        address.parent.mkdir(parents=True, exist_ok=True)
        address.touch(mode=0o600)
        address.chmod(0o600)
        engine = sa.create_engine(f"sqlite:///{address}", connect_args={"timeout": 30})
        sa.event.listen(engine, "connect", _prepare_file)
        return engine
    todo = 'Write database = "postgresql://user:password@host:5432/name" in [serving], or set the variable that it names.'
    try:
        url = sa.make_url(address)
    except sa.exc.ArgumentError as error:
        raise ConfigError(explain("the address of the store cannot be read", allowed="postgresql://...", todo=todo)) from error
    if url.drivername not in ("postgresql", "postgres", "postgresql+psycopg") or "${" in address:
        given = url.render_as_string(hide_password=True)
        raise ConfigError(explain("this is no address of a store", given=given, allowed="postgresql://...", todo=todo))
    options = {"connect_timeout": 5, "application_name": "renewcast"}
    try:
        return sa.create_engine(url.set(drivername="postgresql+psycopg"), pool_pre_ping=True, pool_timeout=5, connect_args=options)
    except ModuleNotFoundError as error:
        raise ServiceError(explain("PostgreSQL needs a driver", todo="Install it: pip install 'renewcast[postgres]'.")) from error


def _prepare_file(connection: Any, _record: object) -> None:
    for statement in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = NORMAL"):
        connection.execute(statement)


def _upgrade_file(engine: sa.Engine) -> str:
    with engine.connect() as connection:
        if (version := _version(connection)) == NEWEST:
            return version
    with engine.begin() as connection:
        # one writer at a time: two workers may start at once, and the second finds all done
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        return _upgrade(connection)


def _upgrade(connection: sa.Connection) -> str:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    version = _version(connection)
    if version not in {"", *(script.revision for script in ScriptDirectory.from_config(config).walk_revisions())}:
        raise _too_new(version)
    if version == "" and sa.inspect(connection).has_table(API_KEYS.name):
        version = "0001"
        command.stamp(config, version)  # made before stores had versions
    if version != NEWEST:
        command.upgrade(config, "head")
    return version


def _version(connection: sa.Connection) -> str:
    """Return the version of the tables; empty if there is none."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return ""
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar_one_or_none() or ""


def _require_newest(connection: sa.Connection) -> None:
    version = _version(connection)
    if version == NEWEST:
        return
    if version.isdecimal() and int(version) <= int(NEWEST):
        todo = "Run `renewcast store upgrade` with the address of the user that owns the tables."
        raise ServiceError(explain("the store has to be upgraded first", given=f"version {version}", allowed=NEWEST, todo=todo))
    if version == "":
        todo = "Run `renewcast store upgrade` with the address of the user that is to own the tables."
        raise ServiceError(explain("this database holds no store yet, or its role may not see it", todo=todo))
    raise _too_new(version)


def _too_new(version: str) -> ServiceError:
    todo = "Use that version of Renewcast, or a backup from before its upgrade."
    return ServiceError(
        explain("the store was made by a newer version of Renewcast", given=f"version {version}", allowed=f"up to {NEWEST}", todo=todo)
    )


_UNBOUND = sa.text(
    """
    SELECT rolsuper OR rolbypassrls OR EXISTS (SELECT FROM pg_tables WHERE tablename = 'journal' AND tableowner = current_user)
    FROM pg_roles WHERE rolname = current_user
    """
)


def _require_serving_role(connection: sa.Connection) -> None:
    """Refuse a role for which row-level security is no wall."""
    if connection.execute(_UNBOUND).scalar_one():
        todo = "Give the service a role of its own: neither a superuser, nor BYPASSRLS, nor the owner of the tables."
        user = connection.engine.url.username
        raise ServiceError(explain("row-level security does not bind the role of the service", given=user, todo=todo))


def _grant(connection: sa.Connection, role: str) -> None:
    if connection.execute(sa.text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": role}).one_or_none() is None:
        raise ServiceError(
            explain("the role of the service does not exist", given=role, todo=f"Run CREATE ROLE {role} LOGIN PASSWORD '...'")
        )
    quoted = connection.dialect.identifier_preparer.quote(role)
    schema = connection.dialect.identifier_preparer.quote(connection.execute(sa.text("SELECT current_schema()")).scalar_one())
    connection.exec_driver_sql(f"GRANT USAGE ON SCHEMA {schema} TO {quoted}")
    connection.exec_driver_sql(f"GRANT SELECT ON alembic_version TO {quoted}")
    for table in METADATA.sorted_tables:
        rights = "SELECT, INSERT" if table is JOURNAL else "SELECT, INSERT, UPDATE, DELETE"
        connection.exec_driver_sql(f"GRANT {rights} ON {table.name} TO {quoted}")


@contextmanager
def _telling_what_is_down() -> Iterator[None]:
    """Turn what a driver says about a database that is away, full or damaged into one error."""
    try:
        yield
    except (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.InternalError, sa.exc.TimeoutError) as error:
        raise _down(error) from error
    except sa.exc.DatabaseError as error:
        if type(error) is not sa.exc.DatabaseError:
            raise  # a mistake in what was asked, not in the database
        raise _down(error) from error


def _down(error: sa.exc.SQLAlchemyError) -> StoreDownError:
    reason = str(getattr(error, "orig", None) or error).splitlines()[0]
    return StoreDownError(explain(f"the store cannot be used: {reason}", todo="See that the database runs and has room, then try again."))
