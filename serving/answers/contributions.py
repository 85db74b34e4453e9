"""What partners contribute: rows about their own accounts, checked when they come, kept with who gave them, and withdrawn when they say so.

A contribution is a line in the store and, for the rows that were accepted, a file that the next check of the workspace reads beside its own
tables (`features.contributed`). Both come into being in one transaction. The same content given again is the contribution that there is
already; a row that an earlier one holds is counted as a duplicate and kept once.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import sqlalchemy as sa
from filelock import FileLock, Timeout

from features.config import FileFormat
from features.contributed import contribution_file, given_rows, withdraw_contribution, write_contribution
from features.errors import SourceError, StoreDownError, WorkspaceError, explain
from features.workspace import Workspace
from serving.answers.newest_first import Page, Place, newest_first
from serving.callers.identity import Principal
from serving.permissions.assignments import Assignments, Term
from serving.permissions.caller import Caller
from serving.records.store import Store
from serving.records.tables import CONTRIBUTIONS, NOTES

if TYPE_CHECKING:
    from features.receipt import Received

__all__ = ["MOST_LISTED", "BrokenRow", "Contribution", "Contributions", "Given", "assigned_accounts", "given_file", "given_rows_of"]

MOST_LISTED = 1_000
"""Broken rows that an answer lists; all are counted."""

_PATIENCE_SECONDS = 30
_ROW_TYPES = {
    **dict.fromkeys(("account_id", "occurred_at", "channel", "kind", "contact_id", "note"), pa.string()),
    "value": pa.float64(),
}


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a partner hands over.

    Parameters
    ----------
    file
        Where the rows are.
    name
        What the partner calls the file; None for rows that came without one.
    content_hash
        SHA-256 of what was handed over.
    """

    file: Path
    kind: FileFormat
    name: str | None
    content_hash: str


@dataclass(frozen=True, kw_only=True)
class BrokenRow:
    """A row that was left out, or kept without a value that could not be read, and why; rows count from 1."""

    row: int
    kept: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Contribution:
    """One contribution, with what the check found and who gave it; `given = accepted + duplicates + quarantined`.

    Parameters
    ----------
    subject, role, credential
        The person or application that gave it.
    broken
        The first broken rows; `reasons` counts all of them.
    ignored
        Columns that were given and are not used.
    """

    contribution_id: str
    partner_id: str
    received_at: datetime
    subject: str | None
    role: str | None
    credential: str
    file_name: str | None
    content_hash: str
    given: int
    accepted: int
    duplicates: int
    quarantined: int
    reasons: Mapping[str, int]
    broken: tuple[BrokenRow, ...]
    ignored: tuple[str, ...]
    withdrawn_at: datetime | None
    withdrawn_by: str | None


@dataclass(frozen=True)
class Contributions:
    """The contributions of a workspace's partners. What touches the store or a file takes a while: call it in a thread."""

    workspace: Workspace
    store: Store

    def receive(self, given: Given, principal: Principal, *, at: datetime) -> Contribution:
        """Check what a partner gives, and keep the rows that are good.

        Parameters
        ----------
        at
            The time of receipt, naive in UTC: the rows are known from then on, whatever they say.

        Raises
        ------
        SourceError, ContractError
            If it cannot be understood as a whole; nothing is kept then.
        StoreDownError
            If the store does not answer, or others have been contributing for too long.
        """
        from features.receipt import check_contribution

        assert principal.caller.partner_id is not None, "the vendor's rows are in its own tables"
        accounts = assigned_accounts(self.workspace, principal.caller.partner_id, at)
        with self._one_at_a_time():
            standing = self.standing(principal.caller)
            same = next((one for one in standing if one.content_hash == given.content_hash), None)
            if same is not None:
                return same
            received = check_contribution(
                self.workspace,
                given.file,
                kind=given.kind,
                accounts=accounts,
                earlier=given_rows(self.workspace, (one.contribution_id for one in standing)),
                now=at,
                most_listed=MOST_LISTED,
            )
            contribution = _contribution(given, received, principal, at)
            self._keep(contribution, received.rows, principal)
        return contribution

    def page(self, caller: Caller, *, partner_id: str | None = None, after: Place | None = None, limit: int) -> Page[Contribution]:
        """Return a page of the contributions that the caller may see, the newest first."""
        place = (CONTRIBUTIONS.c.received_at, CONTRIBUTIONS.c.contribution_id)
        query = newest_first(sa.select(CONTRIBUTIONS).where(_whose(caller, partner_id)), place, after=after, limit=limit)
        found = self._found(query, caller)
        return Page.of(found, limit, lambda one: Place(one.received_at, one.contribution_id))

    def standing(self, caller: Caller, *, partner_id: str | None = None) -> Sequence[Contribution]:
        """Return all contributions that the caller may see and nobody has withdrawn."""
        return self._found(sa.select(CONTRIBUTIONS).where(_whose(caller, partner_id), CONTRIBUTIONS.c.withdrawn_at.is_(None)), caller)

    def find(self, contribution_id: str, caller: Caller) -> Contribution | None:
        """Return one contribution; None if there is none that the caller may see."""
        return next(iter(self._found(sa.select(CONTRIBUTIONS).where(_visible(contribution_id, caller)), caller)), None)

    def withdraw(self, contribution_id: str, principal: Principal, *, at: datetime) -> Contribution | None:
        """Take a contribution back from now on; None if there is none that the caller may see. Once withdrawn it stays so."""
        caller = principal.caller
        mark = sa.update(CONTRIBUTIONS).where(_visible(contribution_id, caller), CONTRIBUTIONS.c.withdrawn_at.is_(None))
        with self._one_at_a_time(), self.store.tenant(caller) as connection:
            marked = connection.execute(mark.values(withdrawn_at=at, withdrawn_by=f"{caller.name} {principal.subject}"))
            if marked.rowcount == 1 and contribution_file(self.workspace, contribution_id).exists():
                withdraw_contribution(self.workspace, contribution_id, at=at)
        return self.find(contribution_id, caller)

    @contextmanager
    def _one_at_a_time(self) -> Iterator[None]:
        """Keep others from contributing while the block runs, so that no row is kept twice."""
        self.workspace.contributions.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.workspace.contributions / ".lock", timeout=_PATIENCE_SECONDS):
                yield
        except Timeout as error:
            raise StoreDownError(explain("other contributions are being checked", todo="Try again in a minute.")) from error

    def _found(self, query: sa.Select[Any], caller: Caller) -> Sequence[Contribution]:
        with self.store.tenant(caller) as connection:
            return [_from_row(row) for row in connection.execute(query).mappings()]

    def _keep(self, contribution: Contribution, rows: pa.Table, principal: Principal) -> None:
        path = contribution_file(self.workspace, contribution.contribution_id)
        notes = _notes(contribution, rows, principal)
        try:
            with self.store.tenant(principal.caller) as connection:
                connection.execute(sa.insert(CONTRIBUTIONS).values(_to_row(contribution)))
                if notes:
                    connection.execute(sa.insert(NOTES), notes)
                if len(rows):
                    write_contribution(
                        self.workspace,
                        contribution.contribution_id,
                        rows.drop_columns("note"),
                        partner_id=contribution.partner_id,
                        received_at=contribution.received_at,
                    )
        except BaseException:
            path.unlink(missing_ok=True)  # the transaction did not happen, so neither did the contribution
            raise


def given_file(file: Path, kind: FileFormat, *, name: str | None) -> Given:
    """Describe a file that a partner hands over.

    Raises
    ------
    SourceError
        If it cannot be opened.
    """
    try:
        with file.open("rb") as stream:
            return Given(file=file, kind=kind, name=name, content_hash=hashlib.file_digest(stream, "sha256").hexdigest())
    except OSError as error:
        raise SourceError(explain(f"the file cannot be read: {error.strerror}", given=file)) from error


def given_rows_of(rows: Sequence[Mapping[str, Any]], file: Path) -> Given:
    """Write rows that came as values to a file, and describe it; times are still text, which the check reads."""
    columns = {name: pa.array([row.get(name) for row in rows], kind) for name, kind in _ROW_TYPES.items()}
    pq.write_table(pa.table(columns), file)
    content = json.dumps([[row.get(name) for name in _ROW_TYPES] for row in rows])
    return Given(file=file, kind="parquet", name=None, content_hash=hashlib.sha256(content.encode()).hexdigest())


def assigned_accounts(workspace: Workspace, partner_id: str, instant: datetime) -> pa.Table:
    """Return the accounts that the partner manages at the instant, scored or not: account_id, created_at.

    Raises
    ------
    WorkspaceError
        If the workspace's tables have not been checked yet.
    """
    try:
        accounts = pq.read_table(workspace.book_tables / "accounts.parquet")
    except FileNotFoundError as error:
        todo = "Run `renewcast check`."
        raise WorkspaceError(
            explain("the tables of this workspace have not been checked yet", given=workspace.folder, todo=todo)
        ) from error
    if "created_at" not in accounts.column_names:
        accounts = accounts.append_column("created_at", pa.nulls(len(accounts), pa.timestamp("us")))
    names = accounts["account_id"].to_pylist()
    assignments = Assignments.of(_terms(workspace.book_tables / "assignments.parquet"), names)
    return accounts.select(["account_id", "created_at"]).take(pa.array(assignments.rows_of(partner_id, instant)))


_TERM = ("account_id", "partner_id", "valid_from", "valid_to")


def _terms(file: Path) -> Iterator[Term]:
    if file.exists():
        rows = pq.read_table(file)
        for row in rows.select([name for name in _TERM if name in rows.column_names]).to_pylist():
            yield Term(**row)


def _contribution(given: Given, received: "Received", principal: Principal, at: datetime) -> Contribution:
    assert principal.caller.partner_id is not None
    return Contribution(
        contribution_id=uuid4().hex,
        partner_id=principal.caller.partner_id,
        received_at=at,
        subject=principal.subject,
        role=principal.role,
        credential=principal.credential,
        file_name=given.name,
        content_hash=given.content_hash,
        given=received.given,
        accepted=len(received.rows),
        duplicates=received.duplicates,
        quarantined=received.quarantined,
        reasons=received.reasons,
        broken=tuple(BrokenRow(row=one.row, kept=one.kept, reasons=one.reasons) for one in received.broken),
        ignored=received.ignored,
        withdrawn_at=None,
        withdrawn_by=None,
    )


def _notes(contribution: Contribution, rows: pa.Table, principal: Principal) -> list[dict[str, Any]]:
    """Return what the rows say in words, as lines of the store."""
    said = rows.filter(pc.is_valid(rows["note"])).select(["account_id", "occurred_at", "note"]).to_pylist()
    shared = {
        "partner_id": contribution.partner_id,
        "recorded_at": contribution.received_at,
        "subject": principal.subject,
        "role": principal.role,
        "credential": principal.credential,
        "contribution_id": contribution.contribution_id,
    }
    return [
        shared | {"note_id": uuid4().hex, "account_id": row["account_id"], "occurred_at": row["occurred_at"], "text": row["note"]}
        for row in said
    ]


_FINDINGS = ("reasons", "broken", "ignored")


def _to_row(contribution: Contribution) -> dict[str, Any]:
    whole = asdict(contribution)
    findings = {name: whole.pop(name) for name in _FINDINGS}
    return whole | {"findings": findings}


def _from_row(row: Mapping[Any, Any]) -> Contribution:
    values = dict(row)
    findings = values.pop("findings")
    broken = tuple(BrokenRow(**one | {"reasons": tuple(one["reasons"])}) for one in findings["broken"])
    return Contribution(**values, reasons=findings["reasons"], broken=broken, ignored=tuple(findings["ignored"]))


def _whose(caller: Caller, partner_id: str | None = None) -> sa.ColumnElement[bool]:
    """Return the condition that a caller may see a row: a partner its own, the vendor those of all partners, or of the one it names."""
    wanted = caller.partner_id or partner_id
    return sa.true() if wanted is None else CONTRIBUTIONS.c.partner_id == wanted


def _visible(contribution_id: str, caller: Caller) -> sa.ColumnElement[bool]:
    return _whose(caller) & (CONTRIBUTIONS.c.contribution_id == contribution_id)
