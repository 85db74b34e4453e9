"""What goes over the wire of what partners contribute, and of what it is worth to their scores."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from features.contributed import MOST_ROWS
from features.feature import Target
from serving.answers.schema import Instant, NextCursor, Probability, Strict

__all__ = [
    "BrokenRow",
    "ContributedRow",
    "Contribution",
    "ContributionList",
    "ContributionRequest",
    "ContributionSummary",
    "Status",
    "Worth",
    "WorthOfAccount",
    "WorthOfFeature",
    "WorthOfTarget",
]

Status = Literal["used", "waiting", "withdrawn", "nothing_kept"]
Health = Annotated[int, Field(ge=0, le=100)]
Text = Annotated[str, Field(max_length=10_000)]

_ID = "5b6c7d8e9f00112233445566778899aa"
_ROW = {"account_id": "acc-0001", "occurred_at": "2025-06-12T09:00:00Z", "channel": "training", "kind": "onboarding", "value": 6.0}
_NOTE = {
    "account_id": "acc-0002",
    "occurred_at": "2025-06-13T15:30:00Z",
    "channel": "health_note",
    "note": "They compare us with another product; the sponsor has left.",
}


def _example(*examples: dict[str, Any]) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": list(examples)})


class ContributedRow(Strict):
    """One contact with a customer, as you know it. What is wrong with one row is answered with its number and keeps no other back."""

    account_id: Text = Field(description="An account that is assigned to you now.")
    occurred_at: Text = Field(description="When it happened, such as `2025-06-12T09:00:00Z`; UTC if no zone is given; not in the future.")
    channel: Text = Field(description="`training`, `meeting`, `qbr`, `email`, `community`, `survey`; `health_note` for words alone.")
    kind: Text | None = Field(default=None, description="What it was; `nps` or `csat` for a survey.")
    contact_id: Text | None = Field(default=None, description="The customer's person, by an id of your own.")
    value: float | None = Field(default=None, description="A survey's answer, or an amount.")
    note: Text | None = Field(default=None, description="Words; needed for a `health_note`. They are kept to be read, and feed no score.")


class ContributionRequest(Strict):
    """Rows about your accounts."""

    model_config = _example({"rows": [_ROW, _NOTE]})

    rows: list[ContributedRow] = Field(min_length=1, max_length=MOST_ROWS)


class BrokenRow(Strict):
    """A row that was left out, or kept without a value that could not be read."""

    row: int = Field(description="Its number, from 1; a header does not count.")
    kept: bool
    reasons: list[str] = Field(examples=[["account_id: unknown account"]])


_SUMMARY = {
    "contribution_id": _ID,
    "partner_id": "p1",
    "received_at": "2025-06-14T08:00:00Z",
    "subject": "crm of the partner",
    "role": "analyst",
    "file_name": "june.csv",
    "content_hash": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "given": 120,
    "accepted": 112,
    "duplicates": 5,
    "quarantined": 3,
    "withdrawn_at": None,
    "status": "used",
    "text": "112 rows known since 2025-06-14 08:00 UTC; the current scores rest on them.",
}
_BROKEN = {"row": 17, "kept": False, "reasons": ["account_id: unknown account"]}
_WHOLE = _SUMMARY | {"reasons": {"account_id: unknown account": 3}, "broken": [_BROKEN], "ignored": ["colour"]}


class ContributionSummary(Strict):
    """A contribution: who gave it, when, and what became of its rows. `given = accepted + duplicates + quarantined`."""

    contribution_id: str
    partner_id: str
    received_at: Instant = Field(description="The rows are known from then on, whenever what they tell happened.")
    subject: str | None = Field(description="Who gave it, as the credential names the person or application.")
    role: str | None
    file_name: str | None
    content_hash: str = Field(description="SHA-256 of what was sent.")
    given: int
    accepted: int
    duplicates: int = Field(description="Rows that you had given before.")
    quarantined: int = Field(description="Rows left out because something is wrong with them.")
    withdrawn_at: Instant | None = Field(description="From when on it no longer counts.")
    status: Status = Field(description="Whether the current scores rest on it.")
    text: str = Field(description="The same in words.")


class Contribution(ContributionSummary):
    """A contribution with what is wrong with its rows."""

    model_config = _example(_WHOLE)

    reasons: dict[str, int] = Field(description="Rows by what is wrong with them.")
    broken: list[BrokenRow] = Field(description="The first 1,000 of them.")
    ignored: list[str] = Field(description="Columns that were given and are not used.")


class ContributionList(Strict):
    """Your contributions, the newest first; for the vendor those of all partners."""

    model_config = _example({"contributions": [_SUMMARY], "next_cursor": None})

    contributions: list[ContributionSummary]
    next_cursor: NextCursor


class WorthOfTarget(Strict):
    """One target's probability with your data, and without."""

    target: Target
    probability: Probability
    without: Probability


class WorthOfFeature(Strict):
    """A feature whose value rests on your data; null where there is no value, or where it is the vendor's to know."""

    feature: str
    meaning: str
    unit: str
    value: float | None
    without: float | None


class WorthOfAccount(Strict):
    """What your data about one account change in its scores."""

    account_id: str
    name: str | None
    rows: int = Field(description="Your rows that were known at the cutoff.")
    health: Health
    health_without: Health
    points: int = Field(description="The difference.")
    targets: list[WorthOfTarget]
    features: list[WorthOfFeature] = Field(description="Those that you may see.")


class Worth(Strict):
    """What a partner's data change in its own scores: the same accounts and the same models, with its data and without."""

    model_config = _example(
        {
            "partner_id": "p1",
            "score_set": "20250701T060000000000-1a2b3c4d",
            "cutoff": "2025-07-01T00:00:00Z",
            "text": "Your data changed the health of 1 of your 60 accounts, by 6 points. The most: Aster Foods, from 41 to 47.",
            "notes": ["This is what the models make of the data, not what was done for the customers."],
            "accounts_managed": 60,
            "accounts_with_data": 12,
            "accounts_changed": 1,
            "mean_points": 6.0,
            "rows": 41,
            "rows_waiting": 0,
            "accounts": [
                {
                    "account_id": "acc-0001",
                    "name": "Aster Foods",
                    "rows": 7,
                    "health": 47,
                    "health_without": 41,
                    "points": 6,
                    "targets": [{"target": "churn", "probability": 0.12, "without": 0.17}],
                    "features": [
                        {
                            "feature": "training_contacts_91d",
                            "meaning": "trainings in the last 91 days",
                            "unit": "trainings",
                            "value": 3.0,
                            "without": None,
                        }
                    ],
                }
            ],
        }
    )

    partner_id: str
    score_set: str
    cutoff: Instant
    text: str
    notes: list[str] = Field(description="What to know to read it rightly.")
    accounts_managed: int
    accounts_with_data: int = Field(description="Those of them about which rows of the partner's were known at the cutoff.")
    accounts_changed: int = Field(description="Those of them whose health differs by a point or more.")
    mean_points: float | None = Field(description="By how many points on average, up or down; null if no health changed.")
    rows: int
    rows_waiting: int = Field(description="Rows that came after the cutoff of the current scores.")
    accounts: list[WorthOfAccount] = Field(description="Those whose health changed most first; at most 200.")
