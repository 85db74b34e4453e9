"""The desk of a service: what every request works with, and who is asking.

A route names what its caller must be allowed to do; the desk finds out who asks before anything of the request's body is read:

    @router.get("/v1/accounts/{account_id}")
    async def get_account(desk: DeskOf, principal: Reader, account_id: str) -> ...
"""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.openapi.models import HTTPBearer
from fastapi.security.base import SecurityBase

from features.workspace import Workspace
from serving.answers.live import LiveScores
from serving.answers.problems import ProblemError, not_found
from serving.api.idempotency import OnlyOnce
from serving.api.rates import Rates, address_of
from serving.callers.credentials import Identity
from serving.callers.identity import Principal, RefusedError, Scope
from serving.callers.journal import Action, Journal
from serving.permissions.policies import LivePolicy
from serving.records.store import Store
from serving.records.tables import now
from serving.scores.account_json import tier_of
from serving.scores.scoring import ScoreSet
from serving.scores.sharing import View
from serving.scores.standings import Archive

__all__ = ["RATE_HEADERS", "Desk", "DeskOf", "Predictor", "Reader", "Require", "account_row", "desk_of", "require", "view_of"]

RATE_HEADERS = "renewcast.rate_headers"
"""Where the scope of a request keeps the headers that tell how often its credential may still ask."""


@dataclass(frozen=True)
class Desk:
    """What every request works with."""

    live: LiveScores
    identity: Identity
    journal: Journal
    policies: LivePolicy
    archive: Archive
    workspace: Workspace
    store: Store
    once: OnlyOnce
    rates: Rates


async def desk_of(request: Request) -> Desk:
    """Return the desk of the application that a request came to."""
    desk: Desk = request.app.state.desk
    return desk


DeskOf = Annotated[Desk, Depends(desk_of)]


class Require(SecurityBase):
    """The requirement that the caller shows a credential that is good for a scope.

    As a dependency it yields the `Principal`. `serving.api.routing` asks it before the body is read, and it remembers its answer for the
    rest of the request.
    """

    scheme_name = "bearer"
    model = HTTPBearer(description="An API key (`rk_...`), or an OIDC token of the identity provider that the vendor has set up.")

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    async def __call__(self, request: Request) -> Principal:
        """Return who asks.

        Raises
        ------
        ProblemError
            401 without a good credential, 403 if it is not good for this, 429 if it came too often.
        """
        known: dict[str, Principal] = request.scope.setdefault("renewcast.principals", {})
        if self.scope not in known:
            known[self.scope] = await self._principal(request)
        return known[self.scope]

    async def _principal(self, request: Request) -> Principal:
        desk: Desk = request.app.state.desk
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        unknown = ProblemError(401, "Send an API key: `Authorization: Bearer rk_...`.", headers={"WWW-Authenticate": "Bearer"})
        if kind.casefold() != "bearer" or not token:
            raise unknown
        address = address_of(request)
        desk.rates.require_patience(address)
        try:
            principal = await desk.identity.authenticate(token.strip())
        except RefusedError as error:
            desk.rates.count_failure(address)
            await desk.journal.refused(str(error), credential="key", action="authenticate")
            raise unknown from error
        request.scope[RATE_HEADERS] = desk.rates.count_request(principal.credential)
        if self.scope not in principal.scopes:
            await desk.journal.refused(f"lacks scope {self.scope}", principal=principal, action="authenticate")
            raise ProblemError(403, f"This key may not do that: it lacks the scope {self.scope}.")
        return principal


def require(scope: Scope) -> Require:
    """Return the requirement of a scope, for `Annotated[Principal, Depends(require("accounts:read"))]`."""
    return Require(scope)


Reader = Annotated[Principal, Depends(require("accounts:read"))]
Predictor = Annotated[Principal, Depends(require("predict"))]


def view_of(desk: Desk, principal: Principal, score_set: ScoreSet) -> View:
    """Return what the caller may see of the score set now; a request asks once, so that all of its answer is of one instant."""
    partner = principal.caller.partner_id
    tier = None if partner is None else tier_of(score_set, partner)
    return View(principal.caller, tier, desk.policies.current(), now())


async def account_row(
    desk: Desk, score_set: ScoreSet, account_id: str, principal: Principal, view: View, *, action: Action = "read account"
) -> int:
    """Return the account's row and note in the journal that it was read.

    Raises
    ------
    ProblemError
        404, the same whether the account does not exist or belongs to somebody else; the journal knows which.
    """
    row = score_set.index.get(account_id)
    if row is None or not view.manages(row, score_set.assignments):
        reason = "no such account" if row is None else "assigned to somebody else"
        await desk.journal.refused(reason, principal=principal, action=action, accounts=[account_id])
        raise not_found()
    await desk.journal.read([account_id], principal=principal, action=action, score_set=score_set.manifest.version)
    return row
