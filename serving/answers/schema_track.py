"""What goes over the wire about what was said and what happened."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from serving.answers.schema import AsOf, Instant, Probability, Strict
from serving.health import Band

__all__ = ["BandRecord", "CalibrationBin", "Cohort", "Miss", "TrackRecord"]

Count = Annotated[int, Field(ge=0)]


class BandRecord(Strict):
    """Of the accounts that stood in one band of health: how many left."""

    band: Band
    accounts: Count | None
    left: Count | None
    share: Probability | None = Field(description="The share that left; null for too small a group.")


class Cohort(Strict):
    """All accounts as of one cutoff, and what had become of them."""

    cutoff: Instant
    until: Instant = Field(description="The end of the window in which leaving counted.")
    bands: list[BandRecord] | None


class CalibrationBin(Strict):
    """Accounts that were given nearly the same chance."""

    rows: Count | None
    probability: Probability | None = Field(description="The chance that was given, on average.")
    frequency: Probability | None = Field(description="The share that left.")
    low: Probability | None = Field(description="Lower end of the 95 % interval of that share.")
    high: Probability | None


class Miss(Strict):
    """An account of the newest cohort of which the score gave the wrong picture."""

    account_id: str | None
    probability: Probability | None
    health: int | None
    left: bool | None = Field(description="true: it left though it was green; false: it stayed though it was red.")
    arr: float | None


class TrackRecord(Strict):
    """What was said, and what happened."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "source": "backtest",
                    "run": "20260105T060000-d4fb",
                    "in_use": True,
                    "horizon_days": 90,
                    "cohorts": [
                        {
                            "cutoff": "2025-09-01T00:00:00Z",
                            "until": "2025-11-30T00:00:00Z",
                            "bands": [
                                {"band": "red", "accounts": 160, "left": 24, "share": 0.15},
                                {"band": "amber", "accounts": 590, "left": 18, "share": 0.031},
                                {"band": "green", "accounts": 800, "left": 6, "share": 0.0075},
                            ],
                        }
                    ],
                    "calibration": [{"rows": 766, "probability": 0.031, "frequency": 0.029, "low": 0.018, "high": 0.046}],
                    "misses": [{"account_id": "acc-0100", "probability": 0.012, "health": 66, "left": True, "arr": 12000.0}],
                    "note": None,
                    "as_of": None,
                }
            ]
        }
    )

    source: Literal["backtest"] = Field(
        description="`backtest`: what models that had learnt only from what was known before would have said of each month."
    )
    run: str | None = Field(description="The training that left these scores.")
    in_use: bool | None = Field(description="Whether the model that is in use comes from that training.")
    horizon_days: int | None
    cohorts: list[Cohort] | None = Field(description="Newest first.")
    calibration: list[CalibrationBin] | None
    misses: list[Miss] | None
    note: str | None
    as_of: AsOf | None
