"""What people of either side say about an account: what they did for it, whether they agree with a score and why, and notes.

All of it is kept as it was said, with who said it and when. The vendor sees everything; a partner sees its own, what the policy shows it of
the vendor's plays and notes, and nothing of any other partner's, also where the account was that partner's before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any, Generic, Literal, TypeVar
from uuid import uuid4

import sqlalchemy as sa

from features.feature import Target
from serving.answers.newest_first import Page, Place, newest_first
from serving.callers.identity import Principal
from serving.permissions.caller import VENDOR, Caller
from serving.records.store import SERVICE, Store
from serving.records.tables import CONTRIBUTIONS, FEEDBACK, NOTES, PLAYS
from serving.scores.sharing import View

__all__ = ["KINDS", "Category", "Feedback", "Note", "Play", "Reason", "Remarks", "Said", "What"]

Category = Literal["Implementation", "Adoption", "Growth", "Experience"]
"""What is done for retention falls into one of these."""

Reason = Literal[
    "customer_said_so",
    "renewal_agreed",
    "leaving_announced",
    "people_changed",
    "use_misleads",
    "data_wrong",
    "known_otherwise",
    "other",
]
"""Why somebody agrees with a score or does not."""


@dataclass(frozen=True, kw_only=True)
class Play:
    """Something that was done for the customer; `cost` is in the workspace's currency."""

    play: str
    performed_at: datetime
    category: Category
    cost: float | None = None
    note: str | None = None


@dataclass(frozen=True, kw_only=True)
class Feedback:
    """Whether somebody agrees with a score, and why.

    Parameters
    ----------
    score_set, probability
        What was looked at, and what it said.
    """

    target: Target
    agrees: bool
    reason: Reason | None = None
    words: str | None = None
    score_set: str
    probability: float


@dataclass(frozen=True, kw_only=True)
class Note:
    """Words about an account; `contribution_id` is that of the contribution that they came with, if any."""

    occurred_at: datetime
    text: str
    contribution_id: str | None = None


What = TypeVar("What", Play, Feedback, Note)


@dataclass(frozen=True, kw_only=True)
class Said(Generic[What]):
    """Something that somebody said about an account, with who said it and when; times are naive in UTC.

    Parameters
    ----------
    partner_id
        Whose side it was said on; None for the vendor.
    subject, role, credential
        The person or application that said it.
    """

    said_id: str
    partner_id: str | None
    account_id: str
    recorded_at: datetime
    subject: str | None
    role: str | None
    credential: str
    what: What

    @property
    def author(self) -> Caller:
        """Whose side it was said on."""
        return Caller(self.partner_id)

    def columns(self) -> dict[str, object]:
        """Return all of it as one flat row."""
        row = asdict(self)
        return {**{name: value for name, value in row.items() if name != "what"}, **row["what"]}


@dataclass(frozen=True)
class Remarks:
    """What was said about accounts. What touches the store takes a while: call it in a thread."""

    store: Store

    def add(self, principal: Principal, account_id: str, what: What, *, at: datetime) -> Said[What]:
        """Keep what somebody says about an account that it sees."""
        said = Said(
            said_id=uuid4().hex,
            partner_id=principal.caller.partner_id,
            account_id=account_id,
            recorded_at=at,
            subject=principal.subject,
            role=principal.role,
            credential=principal.credential,
            what=what,
        )
        with self.store.tenant(principal.caller) as connection:
            connection.execute(sa.insert(_TABLES[type(what)]).values(_to_row(said)))
        return said

    def page(self, kind: type[What], view: View, account_id: str, *, after: Place | None = None, limit: int) -> Page[Said[What]]:
        """Return a page of what was said of one kind about an account, as far as the viewer may read it, the newest first.

        A partner may see that the vendor's people have done something, or their notes, if the policy says so; what they think of a
        score it never sees. Notes of a contribution that was withdrawn are gone.
        """
        table = _TABLES[kind]
        query = sa.select(table).where(table.c.account_id == account_id, _readable(kind, view), _stands(kind))
        newest = newest_first(query, (table.c.recorded_at, _key(table)), after=after, limit=limit)
        with self.store.tenant(view.caller) as connection:
            found = [_from_row(kind, row) for row in connection.execute(newest).mappings()]
        return Page.of(found, limit, lambda said: Place(said.recorded_at, said.said_id))

    def everything(self, kind: type[What]) -> Sequence[Said[What]]:
        """Return all that was said of one kind, by anybody, in the order in which it was said: for the vendor's data scientists."""
        table = _TABLES[kind]
        query = sa.select(table).where(_stands(kind)).order_by(table.c.recorded_at, _key(table))
        with self.store.tenant(SERVICE) as connection:
            return [_from_row(kind, row) for row in connection.execute(query).mappings()]


KINDS: Mapping[str, type[Any]] = {"feedback": Feedback, "plays": Play, "notes": Note}
"""What is kept, by the name by which people call it."""

_TABLES: Mapping[type[object], sa.Table] = {Play: PLAYS, Feedback: FEEDBACK, Note: NOTES}


def _readable(kind: type[What], view: View) -> sa.ColumnElement[bool]:
    """Return the condition that the viewer may read a row."""
    author = _TABLES[kind].c.partner_id
    if view.caller.is_vendor:
        return sa.true()
    own = author == view.caller.partner_id
    shown = {Play: view.shows_note("vendor_plays", author=VENDOR), Note: view.shows_note("vendor_notes", author=VENDOR)}
    return own | author.is_(None) if shown.get(kind, False) else own


def _stands(kind: type[What]) -> sa.ColumnElement[bool]:
    """Return the condition that a row has not been withdrawn with the contribution that it came with."""
    if kind is not Note:
        return sa.true()
    withdrawn = sa.select(CONTRIBUTIONS.c.contribution_id).where(CONTRIBUTIONS.c.withdrawn_at.is_not(None))
    return NOTES.c.contribution_id.is_(None) | NOTES.c.contribution_id.not_in(withdrawn)


def _key(table: sa.Table) -> sa.Column[str]:
    (key,) = table.primary_key.columns
    return key


def _to_row(said: Said[What]) -> dict[str, object]:
    row = asdict(said)
    return {_key(_TABLES[type(said.what)]).name: row.pop("said_id"), **row.pop("what"), **row}


def _from_row(kind: type[What], row: Mapping[Any, Any]) -> Said[What]:
    values = dict(row)
    what = {field.name: values.pop(field.name) for field in fields(kind)}
    return Said(said_id=values.pop(_key(_TABLES[kind]).name), what=kind(**what), **values)
