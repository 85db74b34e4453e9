"""What goes over the wire about a book as a whole: partners, retention, the features and the models."""

from typing import Literal

from pydantic import Field

from features.feature import Target
from serving.answers.schema import AsOf, Instant, Probability, Strict, Totals

__all__ = [
    "FeatureEntry",
    "FeatureReference",
    "ForecastInterval",
    "ModelEntry",
    "ModelList",
    "PartnerBook",
    "PartnerDetail",
    "PartnerList",
    "Peers",
    "Retention",
    "RetentionCoverage",
    "RetentionForecast",
    "RetentionOutlook",
    "RetentionSeries",
    "RetentionWindow",
    "SegmentBook",
]


class PartnerBook(Strict):
    """The accounts that one partner manages now, added up."""

    partner_id: str = Field(examples=["p1"])
    name: str | None = Field(examples=["Northwind Consulting"])
    totals: Totals
    mean_churn_probability: Probability | None = Field(description="Null where the partner manages no account.")
    mean_expansion_probability: Probability | None = Field(description="Null where no expansion is predicted.")
    expansion_arr: float | None = Field(description="Probability of expansion times ARR, summed.")


class SegmentBook(Strict):
    """The accounts of one segment, added up."""

    segment: str | None = Field(description="Null for accounts without one.", examples=["Enterprise"])
    totals: Totals
    mean_churn_probability: Probability


class Peers(Strict):
    """The accounts that other partners manage, as one. Accounts differ between partners: this is no ranking."""

    accounts: int | None
    mean_churn_probability: Probability
    red_share: Probability = Field(description="The share of accounts in the red band.")


class PartnerDetail(PartnerBook):
    """One partner's book, by segment, and beside it what other partners' accounts are like."""

    segments: list[SegmentBook]
    peers: Peers | None = Field(description="Null where too few accounts or too few partners would be behind it.")
    as_of: AsOf


class PartnerList(Strict):
    """The partners that manage accounts; for a partner, itself."""

    partners: list[PartnerBook] = Field(description="By ARR at risk, the most first; without ARR, by accounts.")
    as_of: AsOf


class RetentionWindow(Strict):
    """What became of the customers of one day by another: a closed cohort, new customers left out."""

    start: Instant
    end: Instant
    accounts: int = Field(description="Customers that paid at the start.")
    lost_accounts: int = Field(description="Those of them that did not pay at the end.")
    arr_start: float
    arr_end: float
    churned: float = Field(description="ARR of those that left.")
    contracted: float
    expanded: float
    ndr: float | None = Field(description="Net dollar retention, a ratio; null where nobody paid at the start.", examples=[1.03])
    grr: float | None = Field(description="Gross dollar retention, a ratio of at most 1.", examples=[0.94])
    logo_churn: float | None = Field(description="The share of customers that were lost.")
    provisional: bool = Field(description="Renewals that are booked late may still change it.")


class RetentionSeries(Strict):
    """Windows of one group, each ending a month after the one before."""

    group: str | None = Field(description="A partner's id or a segment at the start of each window; null for the book, and for none.")
    windows: list[RetentionWindow]


class ForecastInterval(Strict):
    """A forecast number: what is expected, and where it lies with 80 and with 95 % probability."""

    mean: float
    median: float
    low80: float
    high80: float
    low95: float
    high95: float


class RetentionOutlook(Strict):
    """What is expected of the customers of the forecast's day."""

    group: str | None = Field(description="A partner's id or a segment; null for the book, and for those without one.")
    days: int = Field(description="How far ahead.", examples=[364])
    accounts: int
    arr: float | None
    ndr: ForecastInterval
    grr: ForecastInterval
    churned: ForecastInterval
    contracted: ForecastInterval
    expanded: ForecastInterval


class RetentionCoverage(Strict):
    """How often the intervals of past forecasts held what came."""

    kind: Literal["book", "partner", "segment"]
    days: int
    forecasts: int
    ndr80: float = Field(description="Share of outcomes within the 80 % interval of NDR.")
    ndr95: float
    grr80: float
    grr95: float


class RetentionForecast(Strict):
    """Net and gross retention of today's customers, with intervals."""

    cutoff: Instant = Field(description="Nothing later was known.")
    made_at: Instant
    outlooks: list[RetentionOutlook]
    coverage: list[RetentionCoverage]
    notes: list[str] | None = Field(description="What it rests on and leaves out.")


class Retention(Strict):
    """Net and gross retention of your book: what was, by month, and what is to come."""

    currency: str
    months: int = Field(description="Length of the windows.")
    by: Literal["partner", "segment"] | None
    actual: list[RetentionSeries] = Field(description="The book first, then its groups.")
    forecast: RetentionForecast | None
    notes: list[str] = Field(description="Why something is not there.")


class FeatureEntry(Strict):
    """A feature that models use."""

    name: str = Field(examples=["active_users_28d"])
    family: str = Field(examples=["usage"])
    unit: str = Field(examples=["users"])
    meaning: str = Field(examples=["users with an event in 28 days"])
    kind: Literal["number", "category"]
    window_days: int | None = Field(description="The days that it looks back; null for all that is known, and for formulas.")
    actionable: bool = Field(description="Whether somebody at either side can do something about it.")
    used_by: list[Target] = Field(description="Whose models use it.")
    sensitivity: Literal["shared", "vendor", "partner"] | None


class FeatureReference(Strict):
    """The features of the models, as far as you may know of them."""

    features: list[FeatureEntry]
    withheld: bool = Field(description="Whether models use features that you may not know of.")
    as_of: AsOf


class ModelEntry(Strict):
    """A model that made the scores."""

    target: Target
    horizon_days: int
    lead_days: int
    provisional: bool = Field(description="It has not yet been shown to beat a simpler one by more than chance.")
    trained_until: Instant | None = Field(description="The last cutoff that it learnt from.")
    package: str | None = Field(description="SHA-256 of the model package.")
    features: int | None = Field(description="How many features it reads.")


class ModelList(Strict):
    """The models that made the scores."""

    models: list[ModelEntry]
    as_of: AsOf
