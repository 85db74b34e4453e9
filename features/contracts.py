"""The contract: which tables Renewcast reads, their columns, and the rules that a row must keep.

`CONTRACT` is data. `features.intake` enforces it, `features.discovery` guesses mappings onto it, `features.snapshots` relies on it,
and the reference page prints it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

__all__ = ["CONTRACT", "Column", "ColumnType", "TableContract"]

ColumnType = Literal["id", "text", "time", "number", "flag"]


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a table.

    Parameters
    ----------
    type
        `id` and `text` are strings, `time` is a timestamp in UTC, `number` a float64, `flag` a boolean.
    required
        Whether the table is unusable without it.
    nullable
        Whether a row may leave it empty. A row with an empty column that is not nullable is quarantined.
    known_from
        The column that says when this one became known, where that is later than the row itself. The snapshot engine hides the
        value until then.
    low, high
        Bounds of plausible numbers. A number outside them is blanked where the column is nullable; else its row is quarantined.
    future
        Whether the time may lie in the future, as a renewal date does.
    """

    type: ColumnType
    meaning: str
    required: bool = False
    nullable: bool = True
    known_from: str | None = None
    low: float | None = None
    high: float | None = None
    future: bool = False


@dataclass(frozen=True, kw_only=True)
class TableContract:
    """One table: its columns, its time, its keys and the order that its times must keep.

    Parameters
    ----------
    required
        Whether a workspace is unusable without the table.
    occurred
        The column that says when the row happened; a row is known from `recorded_at` where the table has it, else from then on.
    unique
        Columns that no two rows may share (within one `recorded_at`, where the table has it).
    ordered
        Pairs of time columns of which the first must not be later than the second.
    term
        The pair of time columns between which the row is in force, the end excluded.
    ended
        The time column that says when it really ended, if before the end of its term.
    withdrawn
        The time column that says when the row was taken back; cutoffs from then on do not see it.
    """

    meaning: str
    columns: Mapping[str, Column]
    required: bool = False
    occurred: str | None = None
    unique: tuple[str, ...] = ()
    ordered: tuple[tuple[str, str], ...] = ()
    term: tuple[str, str] | None = None
    ended: str | None = None
    withdrawn: str | None = None


def _key(meaning: str) -> Column:
    return Column(type="id", meaning=meaning, required=True, nullable=False)


def _when(meaning: str, *, future: bool = False) -> Column:
    return Column(type="time", meaning=meaning, required=True, nullable=False, future=future)


_RECORDED_AT = Column(type="time", meaning="when your systems first held the row; past cutoffs do not see it earlier")

CONTRACT: Mapping[str, TableContract] = {
    "accounts": TableContract(
        meaning="the customers",
        required=True,
        unique=("account_id",),
        columns={
            "account_id": _key("the customer"),
            "created_at": Column(type="time", meaning="when it became a customer", known_from="created_at"),
            "name": Column(type="text", meaning="what people call it"),
            "segment": Column(type="text", meaning="the group in which it is compared with its peers"),
            "industry": Column(type="text", meaning="its industry"),
            "region": Column(type="text", meaning="its region"),
            "employees": Column(type="number", meaning="its number of employees", low=0),
            "csm": Column(type="text", meaning="the customer success manager who owns it"),
        },
    ),
    "telemetry": TableContract(
        meaning="what users did in the product, one row an event or one row a summed-up number of events",
        required=True,
        occurred="occurred_at",
        columns={
            "account_id": _key("the customer"),
            "occurred_at": _when("when it happened; for a row that sums up a day, the end of that day"),
            "event": Column(type="text", meaning="the kind of event", required=True, nullable=False),
            "user_id": Column(type="id", meaning="the user, unique within the account or across accounts"),
            "quantity": Column(type="number", meaning="an amount that the event carries, such as minutes or money"),
            "events": Column(type="number", meaning="how many events the row stands for (1 if not mapped)", low=0, high=1e12),
            "users": Column(type="number", meaning="how many distinct users a summed-up row stands for", low=0),
            "product": Column(type="text", meaning="the product or module"),
            "recorded_at": _RECORDED_AT,
        },
    ),
    "subscriptions": TableContract(
        meaning="what the customer pays for, one row a term of a subscription",
        occurred="start_date",
        ordered=(("start_date", "end_date"),),
        term=("start_date", "end_date"),
        ended="ended_at",
        unique=("subscription_id", "start_date"),
        columns={
            "account_id": _key("the customer"),
            "subscription_id": _key("the subscription; several terms may share it"),
            "start_date": _when("first day of the term", future=True),
            "end_date": Column(
                type="time", future=True, meaning="the renewal date, the first day after the term; empty for an open end", required=True
            ),
            "arr": Column(type="number", meaning="annual recurring revenue of the term", required=True, nullable=False, low=0),
            "product": Column(type="text", meaning="the plan or product"),
            "seats": Column(type="number", meaning="seats paid for", low=0),
            "currency": Column(type="text", meaning="currency of arr and list_arr; the workspace's if not mapped"),
            "list_arr": Column(type="number", meaning="annual recurring revenue at list price", low=0),
            "auto_renew": Column(type="flag", meaning="whether it renews unless cancelled"),
            "cancelled_at": Column(
                type="time", future=True, meaning="when the customer gave notice; the term still runs to its end", known_from="cancelled_at"
            ),
            "ended_at": Column(
                type="time", future=True, meaning="when it really ended, where that was before end_date", known_from="ended_at"
            ),
            "recorded_at": _RECORDED_AT,
        },
    ),
    "engagement": TableContract(
        meaning="contacts with the customer: mails, meetings, reviews, trainings, surveys",
        occurred="occurred_at",
        withdrawn="withdrawn_at",
        columns={
            "account_id": _key("the customer"),
            "occurred_at": _when("when it happened"),
            "channel": Column(
                type="text",
                meaning="email, meeting, qbr, training, community, survey, ...",
                required=True,
                nullable=False,
            ),
            "kind": Column(type="text", meaning="what it was, such as nps or csat for a survey, sent or opened for an email"),
            "contact_id": Column(type="id", meaning="the customer's person"),
            "value": Column(type="number", meaning="a survey's answer, or an amount"),
            "source": Column(type="text", meaning="vendor, or the partner_id that supplied the row"),
            "recorded_at": _RECORDED_AT,
            "withdrawn_at": Column(
                type="time", meaning="when the row was taken back; cutoffs from then on do not see it", known_from="withdrawn_at"
            ),
        },
    ),
    "tickets": TableContract(
        meaning="support tickets",
        occurred="opened_at",
        unique=("ticket_id",),
        ordered=(("opened_at", "closed_at"),),
        columns={
            "ticket_id": _key("the ticket"),
            "account_id": _key("the customer"),
            "opened_at": _when("when it was opened"),
            "closed_at": Column(type="time", meaning="when it was closed, empty while open", known_from="closed_at"),
            "reopened_at": Column(type="time", meaning="when it was first reopened", known_from="reopened_at"),
            "severity": Column(type="text", meaning="how bad it is"),
            "csat": Column(type="number", meaning="the customer's rating of the answer, 1 to 5", known_from="closed_at", low=1, high=5),
        },
    ),
    "partners": TableContract(
        meaning="the partners",
        unique=("partner_id",),
        columns={
            "partner_id": _key("the partner"),
            "name": Column(type="text", meaning="what people call it", required=True, nullable=False),
            "type": Column(type="text", meaning="integrator, msp, agency, reseller, isv, ..."),
            "tier": Column(type="text", meaning="its tier in the partner programme"),
            "region": Column(type="text", meaning="its region"),
        },
    ),
    "assignments": TableContract(
        meaning="which partner manages which account, and when",
        occurred="valid_from",
        ordered=(("valid_from", "valid_to"),),
        term=("valid_from", "valid_to"),
        columns={
            "account_id": _key("the customer"),
            "partner_id": _key("the partner"),
            "valid_from": _when("first day of the assignment", future=True),
            "valid_to": Column(type="time", future=True, meaning="first day after it, empty while it lasts", known_from="valid_to"),
        },
    ),
    "outcomes": TableContract(
        meaning="the success plan: outcomes agreed with the customer",
        occurred="agreed_at",
        unique=("outcome_id",),
        ordered=(("agreed_at", "verified_at"),),
        columns={
            "account_id": _key("the customer"),
            "outcome_id": _key("the outcome"),
            "agreed_at": _when("when it was agreed"),
            "due_at": _when("when it is due", future=True),
            "verified_at": Column(type="time", meaning="when it was verified from data, empty until then", known_from="verified_at"),
            "verified_by": Column(type="text", meaning="who verified it", known_from="verified_at"),
            "value": Column(type="number", meaning="what it is worth to the customer", known_from="verified_at"),
        },
    ),
    "plays": TableContract(
        meaning="what the vendor or a partner did for the customer",
        occurred="performed_at",
        columns={
            "account_id": _key("the customer"),
            "play": Column(type="text", meaning="what was done", required=True, nullable=False),
            "performed_at": _when("when it was done"),
            "performed_by": Column(type="text", meaning="vendor, or the partner_id that did it", required=True, nullable=False),
            "category": Column(type="text", meaning="Implementation, Adoption, Growth or Experience"),
            "cost": Column(type="number", meaning="what it cost", low=0),
        },
    ),
}
