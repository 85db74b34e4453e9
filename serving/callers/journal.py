"""The journal: who read which account, who was refused what and why, and who let whom in: keys, sign-in links, sessions.

A refusal's reason stands here and not in the answer, so that an answer tells nobody what exists.

Lines are written to a local segment (see `serving.callers.spool`) before the answer is handed over, and taken to the database by a thread,
each exactly once: a line has an id of its own, and the database takes none twice. While the database is down, segments wait. While the disk
is full, lines are kept in memory up to a bound; beyond it nothing is answered any more that would have to be in the journal.
"""

import json
import logging
from collections.abc import Iterable
from contextlib import AbstractContextManager
from contextvars import ContextVar
from datetime import UTC, datetime
from itertools import count
from json.encoder import encode_basestring_ascii
from pathlib import Path
from secrets import token_hex
from typing import Literal

from features.errors import StoreDownError, explain
from serving.callers.background import repeating
from serving.callers.identity import Principal
from serving.callers.shipping import ship
from serving.callers.spool import Segments, SegmentsFullError
from serving.records.store import Store

__all__ = ["REQUEST_ID", "Action", "Journal"]

_LOG = logging.getLogger("renewcast.serving")

Action = Literal[
    "list accounts",
    "read account",
    "predict",
    "issue key",
    "rotate key",
    "revoke key",
    "make link",
    "sign in",
    "sign out",
    "authenticate",
    "read history",
    "read changes",
    "what-if",
    "follow changes",
    "read partners",
    "read retention",
    "read models",
    "export",
    "contribute",
    "withdraw contribution",
    "read contributions",
    "read worth",
    "record play",
    "read plays",
    "give feedback",
    "read feedback",
    "write note",
    "read notes",
]

REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the request that is being answered; set by the outermost layer of the application."""

_SHIPPED_EVERY = 1.0
_SLOWEST = 10.0
_LONGEST_TEXT = 500


class Journal:
    """Appends lines, and takes them to a store.

    Parameters
    ----------
    folder
        Where the lines are until they are in the store; for this journal alone, shared by all processes of a service.
    """

    def __init__(self, store: Store, folder: Path, *, segments: Segments | None = None) -> None:
        self._store = store
        self._segments = segments or Segments(folder)
        self._run, self._count = token_hex(8), count()
        self._fault: str | None = None

    async def read(self, accounts: Iterable[str], *, principal: Principal, action: Action, score_set: str) -> None:
        """Note that the principal read these accounts; called before they are handed over.

        Raises
        ------
        StoreDownError
            If it cannot be noted, so that nothing may be handed over.
        """
        self._append(accounts, _who(principal, "") | {"action": action, "outcome": "read", "score_set": score_set})

    async def wrote(self, what: str, *, principal: Principal, action: Action, accounts: Iterable[str | None] = (None,)) -> None:
        """Note that the principal wrote something; called when it is kept, before that is answered.

        Parameters
        ----------
        what
            What was written, by its id and not by what it says.

        Raises
        ------
        StoreDownError
            If it cannot be noted.
        """
        self.note(what, principal=principal, action=action, accounts=accounts)

    def note(self, what: str, *, principal: Principal, action: Action, accounts: Iterable[str | None] = (None,)) -> None:
        """Note what the principal wrote, as `wrote`, outside of any request."""
        self._append(accounts, _who(principal, "") | {"action": action, "outcome": "written", "reason": what[:_LONGEST_TEXT]})

    async def refused(
        self,
        reason: str,
        *,
        action: Action,
        principal: Principal | None = None,
        credential: str = "",
        accounts: Iterable[str | None] = (None,),
    ) -> None:
        """Note a refusal, and the reason that the caller is not told.

        Parameters
        ----------
        credential
            What kind of credential was shown, where it did not tell who calls.

        Raises
        ------
        StoreDownError
            If it cannot be noted.
        """
        shared = _who(principal, credential) | {"action": action, "outcome": "refused", "reason": reason[:_LONGEST_TEXT]}
        self._append(accounts, shared)

    def ship(self) -> int:
        """Take all lines that no running process writes, and this process's own, to the store; return how many were new there.

        Raises
        ------
        StoreDownError
            If the store is down; what was not taken waits.
        """
        try:
            shipped = ship(self._segments, self._store)
        except StoreDownError as error:
            self._fault = str(error).splitlines()[0]
            raise
        self._fault = None
        return shipped

    def shipping(self) -> AbstractContextManager[None]:
        """Ship in a thread while the block runs, and a last time when it ends."""
        return repeating(self.ship, seconds=_SHIPPED_EVERY, name="the journal", slowest=_SLOWEST)

    def close(self) -> None:
        """Take to the store what is left, for a process that ends; what the store does not take waits on the disk for the next one.

        Raises
        ------
        StoreDownError
            If neither takes it.
        """
        try:
            self.ship()
        except StoreDownError:
            if self._segments.held:
                raise
        self._segments.close()

    def backlog(self) -> int:
        """Return how many lines, of all processes of the service, are not in the store yet."""
        waiting = 0
        for path in self._segments.backlog():
            try:
                waiting += path.read_bytes().count(b"\n")
            except FileNotFoundError:
                continue  # it was shipped in this moment
        return waiting + sum(part.count(b"\n") for part in self._segments.held)

    def fault(self) -> str | None:
        """Say for an operator what is wrong; None if nothing is."""
        if self._segments.held:
            return "the disk takes no lines of the journal; they are in memory, and the service refuses to answer when that is full"
        return self._fault and f"lines of the journal wait: {self._fault}"

    def _append(self, accounts: Iterable[str | None], shared: dict[str, str]) -> None:
        at = datetime.now(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")
        rest = json.dumps({"at": at, "request_id": REQUEST_ID.get(), **shared})[1:]
        run, number = self._run, self._count
        lines = "".join([f'{{"line_id": "{run}-{next(number)}", "account_id": {_quoted(account)}, {rest}\n' for account in accounts])
        try:
            if lines:
                self._segments.append(_storable(lines).encode("ascii"))
        except SegmentsFullError as error:
            todo = "Make room on the disk of the workspace."
            raise StoreDownError(explain("the journal cannot be kept: the disk and the memory for it are full", todo=todo)) from error


def _who(principal: Principal | None, credential: str) -> dict[str, str]:
    if principal is None:
        return {"caller": "unknown", "credential": credential}
    return {
        "caller": principal.caller.name,
        "credential": principal.credential,
        "role": principal.role,
        "subject": principal.subject,
    }


def _quoted(account: str | None) -> str:
    return "null" if account is None else encode_basestring_ascii(account[:_LONGEST_TEXT])


def _storable(lines: str) -> str:
    """Replace what JSON can say and PostgreSQL cannot keep: the character zero, and halves of pairs of surrogates."""
    if "\\u0000" not in lines and "\\ud" not in lines:
        return lines
    whole = (json.loads(line) for line in lines.splitlines())
    return "".join(json.dumps({name: _text(value) for name, value in line.items()}) + "\n" for line in whole)


def _text(value: str | None) -> str | None:
    return value and value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()
