"""What goes over the wire about the past and the possible: history, what changed, what-if, and the feed of changes."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from features.feature import Target
from serving.answers.schema import WITHOUT_CONTROLS, AsOf, Instant, Probability, Strict
from serving.health import Band
from serving.scores.reasons import Effect

__all__ = [
    "MOST_ADJUSTED",
    "AccountChanges",
    "AccountHistory",
    "Adjustable",
    "ChangeKind",
    "Feed",
    "FeedChange",
    "FeedDriver",
    "HealthMove",
    "HistoryPoint",
    "ModelMove",
    "Move",
    "MoveDriver",
    "MoveRest",
    "MovedFeature",
    "Standing",
    "WhatIf",
    "WhatIfRequest",
]

MOST_ADJUSTED = 50
"""How many features one what-if may change."""

Value = float | str | None
Health = Annotated[int, Field(ge=0, le=100)]
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=WITHOUT_CONTROLS)]
ChangeKind = Literal["model", "new_account", "gone_account", "turned_red", "band", "first_driver"]

_POINTS = "Points of health that it gave, negative for those that it took; null for other targets than churn, and where sizes are withheld."
_SHOWN = "The same in whole points, so rounded that all of them add up to the move of health that is shown."
_WITHHELD = "null where sizes are withheld"


class HistoryPoint(Strict):
    """How an account stood as of one cutoff."""

    cutoff: Instant = Field(description="Only what was known at this time went into the scores.")
    scored_at: Instant | None = Field(description="When it was said; null for a replayed point.")
    origin: Literal["said", "replayed"] = Field(
        description="`said` at the time; or `replayed`: what a later model says on what was known then, which it may have learnt from."
    )
    health: Health
    band: Band
    health_version: int = Field(description="The definition of health that the points are of.")
    churn_probability: Probability
    contraction_probability: Probability | None
    expansion_probability: Probability | None
    arr: float | None
    score_set: str | None = Field(description="The score set that said so; null for a replayed point.")
    package: str = Field(description="SHA-256 of the model of churn.")


class AccountHistory(Strict):
    """How an account's health went, oldest first."""

    account_id: str
    points: list[HistoryPoint]
    note: str | None
    as_of: AsOf


class Standing(Strict):
    """An account as of one cutoff."""

    score_set: str | None = Field(description="The score set that said so; null for what the present models say of other values.")
    cutoff: Instant
    scored_at: Instant | None
    health: Health
    band: Band
    health_version: int
    probabilities: dict[Target, Probability]


class MoveDriver(Strict):
    """What a driver did to a score between two standings."""

    features: list[str] = Field(description="Features that say nearly the same, the one in the sentence first.")
    family: str
    sentence: str = Field(examples=["Active users fell from 41 to 23 in 28 days"])
    effect: Effect
    log_odds: float | None = Field(description=f"Exact part of the move of the calibrated log-odds; {_WITHHELD}.")
    odds_factor: float | None = Field(description=f"What it multiplied the odds by; {_WITHHELD}.", examples=[1.8])
    points: float | None = Field(description=_POINTS)
    points_shown: int | None = Field(description=_SHOWN)
    value: Value = Field(description="The newer value.")
    earlier: Value = Field(description="The older value.")
    unit: str
    actionable: bool
    sensitivity: Literal["shared", "vendor", "partner"] | None


class MoveRest(Strict):
    """All drivers that are not named, merged exactly."""

    log_odds: float | None
    odds_factor: float | None
    points: float | None = Field(description=_POINTS)
    points_shown: int | None = Field(description=_SHOWN)
    features: list[str] | None = Field(description="The largest of them, for the vendor.")
    count: int | None
    confidential: bool = Field(description="Whether factors are among them that you may not see one by one.")


class ModelMove(Strict):
    """What a newer model did by itself: its score of the older values against the older model's."""

    changed: bool
    log_odds: float | None = Field(description=f"{_WITHHELD}; 0 for the same model.")
    odds_factor: float | None
    points: float | None = Field(description=_POINTS)
    points_shown: int | None = Field(description=_SHOWN)
    new_features: list[str] = Field(description="Features that the older score set does not hold; they are taken as they are now.")


class Move(Strict):
    """How one target's score moved: the log-odds of the drivers, of the other factors and of the model add up to the whole."""

    target: Target
    log_odds: float = Field(description="The whole move of the calibrated log-odds.")
    odds_factor: float = Field(description="The newer odds as a multiple of the older.")
    drivers: list[MoveDriver]
    other_factors: MoveRest
    model: ModelMove
    sizes: Literal["exact", "withheld"]
    sentence: str = Field(examples=["The probability of growing rose from 8 % to 10 %: trainings taken rose from 1 to 3 (× 1.2)."])


class HealthMove(Strict):
    """How health moved: the points of all of churn's parts, of the definition and of the cut add up to `exact`."""

    before: Health
    after: Health
    moved: int = Field(description="In whole points, as shown.")
    exact: float = Field(description="Before rounding.")
    definition: float = Field(description="Points that a new definition of health gave; 0 for the same.")
    definition_shown: int | None
    cut: float = Field(description="Points that cutting health to 0..100 took off the move, or gave back.")
    cut_shown: int | None
    sentence: str = Field(
        examples=["Health fell by 9 points, from 52 to 43: active users fell from 41 to 23 in 28 days (−6), other factors (−3)."]
    )


class AccountChanges(Strict):
    """What changed between two standings of an account."""

    account_id: str
    before: Standing | None = Field(description="null if the account was not there then.")
    after: Standing
    health: HealthMove | None
    moves: list[Move] | None = Field(description="One for each target that both score sets have.")
    notes: list[str] = Field(description="What to know about the comparison.")
    as_of: AsOf


class WhatIfRequest(Strict):
    """Values that an account's features might have."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"features": {"active_users_28d": 40, "open_tickets": 0}}]})

    features: dict[Name, Value] = Field(
        description="New values of features that somebody can act on, by name.", min_length=1, max_length=MOST_ADJUSTED
    )


class MovedFeature(Strict):
    """A feature that a what-if changed."""

    feature: str
    earlier: Value
    value: Value
    reason: str | None = Field(description="Why it moved along; null for what was asked.")
    direction: Literal["raises", "lowers"] | None = Field(
        description="What a higher value can only do to the odds of churn, where the model is bound to that."
    )


class Adjustable(Strict):
    """A feature that a what-if of this account may change."""

    feature: str
    meaning: str
    unit: str
    value: Value
    lowest: float | None = Field(description="The lowest value that is taken; null for a category.")
    highest: float | None
    levels: list[str] | None = Field(description="The values of a category; null for a number.")
    whole: bool = Field(description="Whether only whole numbers are taken.")


class WhatIf(Strict):
    """What the models would say of an account with other values."""

    account_id: str
    before: Standing
    after: Standing
    health: HealthMove
    moves: list[Move]
    asked: list[MovedFeature]
    moved_along: list[MovedFeature] = Field(description="Features that must move with those, so that the account stays possible.")
    held: list[str] = Field(description="Features that depend on changed ones and cannot be worked out; they stay as they are.")
    note: str = Field(description="What this is, and what it is not.")
    as_of: AsOf


class FeedDriver(Strict):
    """A driver that leads an account's reasons."""

    features: list[str]
    sentence: str
    effect: Effect


class FeedChange(Strict):
    """What changed of one account, or of the models, from one score set to the next."""

    kinds: list[ChangeKind] = Field(description="What changed; `model` stands alone and has no account.")
    score_set: str = Field(description="The newer score set.")
    cutoff: Instant
    account_id: str | None
    name: str | None
    health_before: Health | None
    health: Health | None
    band_before: Band | None
    band: Band | None
    first_driver_before: FeedDriver | None
    first_driver: FeedDriver | None
    targets: list[Target] | None = Field(description="Of a change of models: whose.")


class Feed(Strict):
    """Changes in the order in which they came, each exactly once."""

    changes: list[FeedChange]
    cursor: str = Field(description="Send it as `since` to get what came after these changes.")
    more: bool = Field(description="Whether there is more to fetch now.")
    reset: bool = Field(description="Scores that the cursor stands for are no longer kept: read the book again, and go on from `cursor`.")
    as_of: AsOf
