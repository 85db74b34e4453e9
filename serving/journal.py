"""The journal: who read which account, and who was refused what and why.

A refusal's reason stands here and not in the answer, so that an answer tells nobody what exists.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import sqlalchemy as sa

from serving.sharing import Caller
from serving.store import JOURNAL, now

__all__ = ["Action", "Journal"]

Action = Literal["list accounts", "read account", "predict", "sign in", "authenticate"]


@dataclass(frozen=True)
class Journal:
    """Appends lines to the journal of a store."""

    store: sa.Engine

    def read(self, accounts: Iterable[str], *, caller: Caller, credential: str, action: Action, score_set: str) -> None:
        """Note that the caller read these accounts; called before they are handed over."""
        shared = {"at": now(), "caller": caller.name, "credential": credential, "action": action, "outcome": "read", "score_set": score_set}
        self._append([shared | {"account_id": account} for account in accounts])

    def refused(self, reason: str, *, caller: str, credential: str, action: Action, accounts: Iterable[str | None] = (None,)) -> None:
        """Note that the caller was refused, and the reason that it is not told."""
        shared = {"at": now(), "caller": caller, "credential": credential, "action": action, "outcome": "refused", "reason": reason}
        self._append([shared | {"account_id": account} for account in accounts])

    def _append(self, lines: list[dict[str, object]]) -> None:
        if lines:
            with self.store.begin() as connection:
                connection.execute(sa.insert(JOURNAL), lines)
