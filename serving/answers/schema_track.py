"""What goes over the wire about what was said and what happened."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from serving.answers.schema import AsOf, Instant, Probability, Strict
from serving.health import Band

__all__ = ["BandRecord", "CalibrationBin", "Cohort", "Miss", "Said", "TrackRecord"]

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


class Said(Strict):
    """What the score sets that were served said, as far as it has come due. Of each cutoff what was said first counts."""

    cohorts: list[Cohort] | None = Field(description="Newest first.")
    misses: list[Miss] | None = Field(description="Of the newest cohort.")
    first_due: Instant | None = Field(description="When the first of it comes due, where nothing has yet; null if nothing was said.")


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
                    "said": {
                        "cohorts": [
                            {
                                "cutoff": "2025-12-01T00:00:00Z",
                                "until": "2026-03-01T00:00:00Z",
                                "bands": [
                                    {"band": "red", "accounts": 150, "left": 21, "share": 0.14},
                                    {"band": "amber", "accounts": 610, "left": 20, "share": 0.033},
                                    {"band": "green", "accounts": 820, "left": 5, "share": 0.0061},
                                ],
                            }
                        ],
                        "misses": [{"account_id": "acc-0007", "probability": 0.21, "health": 22, "left": False, "arr": 8400.0}],
                        "first_due": None,
                    },
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
    said: Said | None = Field(description="What was really said since the workspace was set up, beside what would have been said before.")
    note: str | None
    as_of: AsOf | None
