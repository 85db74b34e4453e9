"""The journal: who read which account, and who was refused what and why.

A refusal's reason stands here and not in the answer, so that an answer tells nobody what exists.
"""

from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal

import sqlalchemy as sa

from serving.identity import Principal
from serving.store import SERVICE, Store
from serving.tables import JOURNAL, now

__all__ = ["REQUEST_ID", "Action", "Journal"]

Action = Literal["list accounts", "read account", "predict", "sign in", "authenticate"]

REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the request that is being answered; set by the outermost layer of the application."""


@dataclass(frozen=True)
class Journal:
    """Appends lines to the journal of a store."""

    store: Store

    async def read(self, accounts: Iterable[str], *, principal: Principal, action: Action, score_set: str) -> None:
        """Note that the principal read these accounts; called before they are handed over."""
        self._append(accounts, _who(principal, "") | {"action": action, "outcome": "read", "score_set": score_set})

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
        """
        self._append(accounts, _who(principal, credential) | {"action": action, "outcome": "refused", "reason": reason})

    def _append(self, accounts: Iterable[str | None], shared: dict[str, object]) -> None:
        lines = [shared | {"at": now(), "account_id": account} for account in accounts]
        if lines:
            with self.store.tenant(SERVICE) as connection:
                connection.execute(sa.insert(JOURNAL), lines)


def _who(principal: Principal | None, credential: str) -> dict[str, object]:
    if principal is None:
        return {"caller": "unknown", "credential": credential}
    return {"caller": principal.caller.name, "credential": principal.credential}
