"""Calling the API: as whom, what the journal then holds, and a call of every operation that is answered with what it is for.

The examples in the OpenAPI document are recorded from these calls, and a client that is generated from the document makes them again.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from serving.permissions.caller import VENDOR, Caller
from serving.records.store import SERVICE
from serving.records.tables import JOURNAL
from tests.serving_book import CATALOGUE

__all__ = ["CALLS", "Call", "as_caller", "features_of", "journal"]

Answers = Mapping[str, Any]


def as_caller(app: Any, caller: Caller, *, label: str = "test", **options: Any) -> dict[str, str]:
    """Return the headers of requests with a new key of a caller's; options as of `Identity.issue_key`."""
    return {"Authorization": f"Bearer {app.state.desk.identity.issue_key(caller, label=label, **options)}"}


def journal(app: Any, **wanted: object) -> list[Mapping[Any, Any]]:
    """Return the lines of the journal that hold what is wanted."""
    app.state.desk.journal.ship()
    with app.state.desk.store.tenant(SERVICE) as connection:
        lines = connection.execute(sa.select(JOURNAL)).mappings().all()
    return [line for line in lines if all(line[name] == value for name, value in wanted.items())]


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call: the parameters by name, the JSON body or a file, and who makes it; a function is given the answers of the calls before."""

    parameters: Mapping[str, Any | Callable[[Answers], Any]] = field(default_factory=dict)
    body: Any | Callable[[Answers], Any] = None
    caller: Caller = VENDOR
    file: tuple[str, bytes] | None = None

    def parameters_after(self, answers: Answers) -> dict[str, Any]:
        return {name: value(answers) if callable(value) else value for name, value in self.parameters.items()}

    def body_after(self, answers: Answers) -> Any:
        return self.body(answers) if callable(self.body) else self.body


def features_of(_answers: Answers) -> dict[str, Any]:
    numbers = {
        "active_users_28d": 12.0,
        "active_users_91d": 21.0,
        "events_28d": 480.0,
        "seat_use_28d": 0.3,
        "days_since_last_event": 2.0,
        "trainings_182d": 0.0,
        "last_nps": None,
        "open_tickets": 3.0,
        "days_to_renewal": 40.0,
        "seats": 40.0,
        "tenure_days": 700.0,
        "discount": 0.1,
        "price_per_seat": 300.0,
        "list_price_gap": 0.05,
        "partner_tier": "gold",
    }
    assert set(numbers) == set(CATALOGUE.names)
    return {"rows": [{"id": "a customer that is not in the book", "features": numbers}]}


def opinion(answers: Answers) -> dict[str, Any]:
    words = "They told us on Monday that they will sign for two years."
    score_set = answers["get_account"]["as_of"]["score_set"]
    return {"target": "churn", "agrees": False, "reason": "renewal_agreed", "words": words, "score_set": score_set}


def contributed(answers: Answers) -> str:
    return answers["contribute_rows"]["contribution_id"]


ACCOUNT = {"account_id": "acc-0001"}
P1 = Caller("p1")
ROWS = [
    {"account_id": "acc-0004", "occurred_at": "2025-06-12T09:00:00Z", "channel": "training", "kind": "administrators"},
    {"account_id": "acc-9999", "occurred_at": "2025-06-13T14:00:00Z", "channel": "qbr"},
]
PLAY = {"play": "Training for new users", "performed_at": "2025-06-30T09:00:00Z", "category": "Adoption", "cost": 350.0}
NOTE = {"text": "The new head of operations knows the product from her last company.", "occurred_at": "2025-06-30T09:00:00Z"}
FILE = b"account_id,occurred_at,channel\r\nacc-0004,2025-06-20T10:00:00Z,meeting\r\n"

CALLS: Mapping[str, Call] = {
    "list_accounts": Call(parameters={"band": "red", "limit": 2}),
    "get_account": Call(parameters=ACCOUNT),
    "get_account_history": Call(parameters=ACCOUNT),
    "get_account_changes": Call(parameters=ACCOUNT),
    "ask_what_if": Call(parameters=ACCOUNT, body={"features": {"open_tickets": 0, "trainings_182d": 3}}),
    "follow_changes": Call(parameters={"limit": 3}),
    "contribute_rows": Call(body={"rows": ROWS}, caller=P1),
    "contribute_file": Call(file=("june.csv", FILE), caller=P1),
    "list_contributions": Call(parameters={"limit": 1}, caller=P1),
    "get_contribution": Call(parameters={"contribution_id": contributed}, caller=P1),
    "withdraw_contribution": Call(parameters={"contribution_id": contributed}, caller=P1),
    "get_worth": Call(caller=P1),
    "record_play": Call(parameters=ACCOUNT, body=PLAY, caller=P1),
    "list_plays": Call(parameters=ACCOUNT | {"limit": 20}, caller=P1),
    "give_feedback": Call(parameters=ACCOUNT, body=opinion, caller=P1),
    "list_feedback": Call(parameters=ACCOUNT | {"limit": 20}, caller=P1),
    "write_note": Call(parameters=ACCOUNT, body=NOTE, caller=P1),
    "list_notes": Call(parameters=ACCOUNT | {"limit": 20}, caller=P1),
    "predict": Call(body=features_of),
    "list_partners": Call(),
    "get_partner": Call(parameters={"partner_id": "p1"}, caller=Caller("p1")),
    "get_retention": Call(parameters={"months": 3, "last": 2}),
    "list_features": Call(),
    "list_models": Call(),
    "get_model_card": Call(parameters={"target": "churn"}),
    "export_accounts": Call(parameters={"format": "jsonl", "band": "red"}),
    "get_track_record": Call(),
    "livez": Call(),
    "readyz": Call(),
    "metrics": Call(),
}
