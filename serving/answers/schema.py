"""What goes over the wire: strict models, no unknown fields, no NaN, times in UTC.

Every field of a response has a line in `serving/permissions/policy.toml`; what a caller may not read is null.
"""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from fastapi import Path
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue

from features.feature import Target
from serving.health import Band
from serving.scores.reasons import Effect

__all__ = [
    "MOST_PREDICTIONS",
    "WITHOUT_CONTROLS",
    "Account",
    "AccountId",
    "AccountSummary",
    "AsOf",
    "Book",
    "Driver",
    "FeatureRow",
    "FieldProblem",
    "FirstDriver",
    "Identifier",
    "Instant",
    "Limit",
    "NextCursor",
    "OtherFactors",
    "PartnerId",
    "PredictAccounts",
    "PredictRequest",
    "PredictRows",
    "Prediction",
    "Predictions",
    "Probability",
    "Problem",
    "Score",
    "Source",
    "Strict",
    "Totals",
]

MOST_PREDICTIONS = 10_000

WITHOUT_CONTROLS = r"^[^\x00-\x1f\x7f]+$"
"""Text in one line: no NUL, which databases refuse, and no other control characters."""

Value = float | str | None


class Strict(BaseModel):
    """What all models of requests and answers hold to: no unknown fields, no coercion, no NaN."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


def _in_utc(time: object) -> object:
    return time.replace(tzinfo=UTC) if isinstance(time, datetime) and time.tzinfo is None else time


Instant = Annotated[datetime, AfterValidator(_in_utc)]
Probability = Annotated[float, Field(ge=0, le=1)]
Identifier = Annotated[str, Field(min_length=1, max_length=200, pattern=WITHOUT_CONTROLS)]
NextCursor = Annotated[str | None, Field(description="Send it as `cursor`, with the same filters, for what comes next; null at the end.")]
AccountId = Annotated[
    str, Path(min_length=1, max_length=200, pattern=WITHOUT_CONTROLS, description="An account's id.", examples=["acc-0001"])
]
PartnerId = Annotated[str, Path(min_length=1, max_length=200, pattern=WITHOUT_CONTROLS, description="A partner's id.", examples=["p1"])]


class FieldProblem(Strict):
    """What is wrong with one field of a request."""

    pointer: str = Field(examples=["/body/accounts/0"])
    message: str


class Problem(Strict):
    """An error, as RFC 9457 has it."""

    type: str = Field(description="Where this kind of problem is explained.", examples=["/docs#not-found"])
    title: str = Field(examples=["Not found"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["There is no such account."])
    errors: list[FieldProblem] = Field(description="What is wrong with which field of the request.")
    request_id: str = Field(description="By what the log of the service knows the request.", examples=["5f2c9a7e41d04b1c"])


class FeatureRow(Strict):
    """Features of one account, to be scored on the fly."""

    id: Identifier = Field(description="Your name for the row; it comes back with the result.")
    features: dict[str, Value] = Field(description="One value for every feature of the models; null where it is not known.")


class PredictAccounts(Strict):
    """Accounts of the score set."""

    accounts: list[Identifier] = Field(min_length=1, max_length=MOST_PREDICTIONS, description="Ids of accounts.")


class PredictRows(Strict):
    """Rows of features, to be scored on the fly."""

    rows: list[FeatureRow] = Field(min_length=1, max_length=MOST_PREDICTIONS)


class PredictRequest(Strict):
    """Accounts of the score set, or rows of features: `PredictAccounts` or `PredictRows`, with errors that name the field."""

    accounts: list[Identifier] | None = Field(default=None, min_length=1, max_length=MOST_PREDICTIONS)
    rows: list[FeatureRow] | None = Field(default=None, min_length=1, max_length=MOST_PREDICTIONS)

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if len(self.model_fields_set) != 1 or (self.accounts is None) == (self.rows is None):
            raise ValueError("give either accounts or rows")
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, _schema: Any, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Say that it is one of the two."""
        return {"oneOf": [handler(model.__pydantic_core_schema__) for model in (PredictAccounts, PredictRows)]}


class Source(Strict):
    """How fresh one table is."""

    table: str = Field(examples=["telemetry"])
    latest: Instant | None
    silent: bool = Field(description="Nothing has become known for more than 28 days.")


class AsOf(Strict):
    """What the answer stands on."""

    score_set: str
    cutoff: Instant = Field(description="Only what was known at this time went into the scores.")
    scored_at: Instant
    health_version: int
    currency: str
    provisional: list[Target] = Field(description="Targets whose model has not yet been shown to beat a simpler one by more than chance.")
    sources: list[Source]


class Limit(Strict):
    """What makes a score less sure."""

    code: Literal["new_account", "no_telemetry", "silent_source"]
    text: str


class FirstDriver(Strict):
    """The driver that matters most for churn."""

    sentence: str = Field(examples=["Active users fell from 41 to 23 in 28 days"])
    effect: Effect


class Driver(Strict):
    """One reason for a score."""

    features: list[str] = Field(description="Features that say nearly the same, the one in the sentence first.")
    family: str
    sentence: str = Field(examples=["Active users fell from 41 to 23 in 28 days"])
    effect: Effect
    part: float | None = Field(description="Exact part of the raw score, log-odds; null where sizes are withheld.")
    odds_factor: float | None = Field(description="What it multiplies the odds by; null where sizes are withheld.", examples=[1.8])
    value: Value
    earlier: Value = Field(description="The account's own value about a quarter before.")
    peers: float | None = Field(description="Median of the account's segment, if it has at least ten accounts.")
    unit: str
    actionable: bool
    sensitivity: Literal["shared", "vendor", "partner"] | None


class OtherFactors(Strict):
    """All drivers that are not named, merged exactly."""

    part: float | None
    odds_factor: float | None
    features: list[str] | None = Field(description="The ten largest of them.")
    count: int | None = Field(description="How many features are merged.")
    confidential: bool = Field(description="Whether factors are among them that you may not see one by one.")


class Score(Strict):
    """One target's score and why: `base + parts of the drivers + part of the other factors = raw_score`."""

    target: Target
    probability: Probability
    book_average: Probability | None
    horizon_days: int
    lead_days: int
    raw_score: float = Field(description="Log-odds, before calibration.")
    base: float = Field(description="The model's average raw score, from which the parts lead to this one.")
    base_probability: Probability
    drivers: list[Driver]
    other_factors: OtherFactors
    sizes: Literal["exact", "withheld"]
    package: str = Field(description="SHA-256 of the model package.")


class AccountSummary(Strict):
    """One line of the book."""

    account_id: str
    name: str
    segment: str | None
    csm: str | None
    partner_id: str | None
    partner_name: str | None
    health: int = Field(ge=0, le=100)
    band: Band
    churn_probability: Probability
    expansion_probability: Probability | None
    arr: float | None
    arr_at_risk: float | None = Field(description="Probability of churn times ARR.")
    renewal_at: Instant | None
    first_driver: FirstDriver | None
    limits: list[Limit]


class Account(AccountSummary):
    """One account with its scores explained."""

    earlier_at: Instant | None = Field(description="The cutoff of the drivers' earlier values.")
    seats: float | None
    scores: list[Score]
    as_of: AsOf


class Totals(Strict):
    """Sums over all accounts that the filters leave, not only those of the page."""

    accounts: int
    arr: float | None
    arr_at_risk: float | None
    bands: dict[Band, int]


class Book(Strict):
    """Some of the accounts that you may see, in order."""

    accounts: list[AccountSummary]
    totals: Totals
    next_cursor: NextCursor
    as_of: AsOf


class Prediction(Strict):
    """One account's or row's scores."""

    id: str
    health: int = Field(ge=0, le=100)
    band: Band
    scores: list[Score]
    notes: list[str] = Field(description="What to know about the row, such as a category level that the model has not seen.")


class Predictions(Strict):
    """Results in the order of the request; accounts that do not exist for the caller are listed apart."""

    results: list[Prediction]
    not_found: list[str]
    as_of: AsOf
