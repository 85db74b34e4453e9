"""Forecast a workspace's retention, keep what was forecast, and read it again.

A forecast lies in `.renewcast/forecasts/<cutoff>/`: `forecast.json` with all numbers, and `accounts.parquet` with the cohort and what was
expected of each account, so that it can be held against what happens (`training.reconciliation`).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from features.errors import WorkspaceError, explain
from features.ledger import replace_folder
from features.progress import Progress, silent
from features.workspace import Workspace
from training.coverage import Coverage, PastForecast, Rank, backtest_forecasts, measure_coverage, weigh_periods
from training.forecast import Interval, Outlook, Projection, forecast_retention
from training.history import History
from training.records import Records, read_records
from training.shocks import PARTS, Shocks
from training.simulation import BOOK

__all__ = ["Forecast", "ShockSummary", "forecast_workspace", "list_forecasts", "read_forecast", "read_forecast_accounts"]

_DRAWS = 2000
_PAST_DRAWS = 1000
_FORMAT = 2
_FILE, _ACCOUNTS = "forecast.json", "accounts.parquet"


@dataclass(frozen=True, kw_only=True)
class ShockSummary:
    """What past periods showed of one part, in log-odds: how far off scores are in the large, how much periods and their groups differ."""

    level: float
    spread: float
    groups: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What the customers of one day are expected to pay after a horizon and after about a year.

    Parameters
    ----------
    cutoff
        The day, UTC: the cohort pays then, and nothing later was known.
    made_at
        When it was made, ISO 8601, UTC.
    currency
        Of all amounts.
    horizon_days, lead_days, grace_days
        Of the targets.
    outlooks
        The numbers: by time ahead, then the book, then its groups by ARR.
    coverage, past
        How often intervals of forecasts from past cutoffs held what happened, and these forecasts.
    shocks
        By part.
    notes
        What it rests on and leaves out, in sentences.
    training, packages
        The training whose backtest was used, and the hash of the package of each part.
    draws, seed
        Of the simulation.
    """

    cutoff: datetime
    made_at: str
    currency: str
    horizon_days: int
    lead_days: int
    grace_days: int
    outlooks: tuple[Outlook, ...]
    coverage: tuple[Coverage, ...]
    past: tuple[PastForecast, ...]
    shocks: Mapping[str, ShockSummary]
    notes: tuple[str, ...]
    training: str
    packages: Mapping[str, str]
    draws: int
    seed: int

    @property
    def days(self) -> tuple[int, ...]:
        """How far ahead it looks, in days, in rising order."""
        return tuple(sorted({outlook.days for outlook in self.outlooks}))

    def book(self, days: int) -> Outlook:
        """Return what is expected of the whole book so many days ahead.

        Raises
        ------
        ValueError
            If the forecast does not look so far ahead; the message says how far it does.
        """
        if days not in self.days:
            raise ValueError(f"this forecast looks {' and '.join(map(str, self.days))} days ahead, not {days}")
        return self.by(BOOK, days)[0]

    def by(self, kind: str, days: int) -> tuple[Outlook, ...]:
        """Return what is expected of each `partner` or `segment` so many days ahead, the largest first."""
        return tuple(outlook for outlook in self.outlooks if (outlook.kind, outlook.days) == (kind, days))

    def frame(self) -> pd.DataFrame:
        """Return one row for each outlook; columns such as `ndr_mean`, `ndr_low80` or `churned_high95`."""
        return pd.DataFrame([_flat(asdict(outlook)) for outlook in self.outlooks])

    def past_frame(self) -> pd.DataFrame:
        """Return one row for each forecast from a past cutoff: cutoff, the outlook's columns, and `ndr` and `grr` as they came."""
        rows = [{"cutoff": one.cutoff, **_flat(asdict(one.outlook)), "ndr": one.ndr, "grr": one.grr} for one in self.past]
        return pd.DataFrame(rows)

    def to_json(self) -> dict[str, Any]:
        """Return what `read_forecast` reads."""
        past = [asdict(one) | {"cutoff": one.cutoff.isoformat()} for one in self.past]
        return {"format": _FORMAT} | asdict(self) | {"cutoff": self.cutoff.isoformat(), "past": past}


def forecast_workspace(workspace: Workspace, *, draws: int = _DRAWS, seed: int | None = None, on_progress: Progress = silent) -> Forecast:
    """Forecast the retention of the customers at the end of a workspace's data, and keep it in the workspace.

    Parameters
    ----------
    draws
        So many futures are drawn; a thousand give intervals to about a tenth of their width.
    seed
        The same seed gives the same forecast; the one of `[training]` if None.

    Raises
    ------
    NotEnoughDataError
        If the book has no ARR, or no label window has closed yet.
    ConfigError
        If cutoffs or targets are such that retention cannot be forecast.
    WorkspaceError
        If features were not computed, or nothing was trained.
    PackageError
        If a model does not fit the features or the horizon.
    """
    on_progress("reading the past", 0, 1)
    records = read_records(workspace)
    history = records.history
    seed = workspace.config.training.seed if seed is None else seed
    evidence, models = weigh_periods(history, on_progress=on_progress)
    past = backtest_forecasts(history, evidence, models, draws=_PAST_DRAWS, seed=seed, on_progress=on_progress)
    on_progress("drawing futures", 0, 1)
    now = len(history.cutoffs) - 1
    steps = tuple(dict.fromkeys((1, history.steps)))
    projection = forecast_retention(history, now, evidence, steps=steps, draws=draws, seed=seed, models=models[now])
    forecast = _forecast(workspace, records, projection, past, draws=draws, seed=seed)
    with replace_folder(_folder(workspace, forecast.cutoff)) as folder:
        (folder / _FILE).write_text(json.dumps(forecast.to_json(), indent=1), encoding="utf-8")
        _accounts(history, projection).to_parquet(folder / _ACCOUNTS, index=False)
    return forecast


def list_forecasts(workspace: Workspace) -> tuple[datetime, ...]:
    """Return the cutoffs of the forecasts that are kept, in order."""
    found = [datetime.fromisoformat(file.parent.name) for file in (workspace.state / "forecasts").glob(f"[!.]*/{_FILE}")]
    return tuple(sorted(found))


def read_forecast(workspace: Workspace, cutoff: datetime | None = None) -> Forecast:
    """Read a forecast that was kept.

    Parameters
    ----------
    cutoff
        From when it looked ahead; the last one if None.

    Raises
    ------
    WorkspaceError
        If there is none, or it cannot be read.
    """
    kept = list_forecasts(workspace)
    if not kept or (cutoff is not None and cutoff not in kept):
        given = f"{cutoff:%Y-%m-%d}" if cutoff else workspace.folder
        raise WorkspaceError(
            explain(
                "there is no such forecast" if cutoff else "nothing has been forecast yet",
                given=given,
                allowed=", ".join(f"{known:%Y-%m-%d}" for known in kept),
                todo="" if kept else "Run `renewcast forecast`.",
            )
        )
    file = _folder(workspace, cutoff or kept[-1]) / _FILE
    try:
        return _from_json(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        todo = "Run `renewcast forecast` again."
        raise WorkspaceError(explain(f"the forecast cannot be read: {type(error).__name__}: {error}", given=file, todo=todo)) from error


def read_forecast_accounts(workspace: Workspace, cutoff: datetime) -> pd.DataFrame:
    """Read the cohort of a forecast.

    Returns
    -------
    account_id, arr, the columns of its groups such as `partner`, and for each time ahead what was expected, such as `churned_90`,
    `contracted_90` and `expanded_90`, in ARR.

    Raises
    ------
    WorkspaceError
        If there is none.
    """
    file = _folder(workspace, cutoff) / _ACCOUNTS
    try:
        return pd.read_parquet(file)
    except FileNotFoundError as error:
        raise WorkspaceError(explain("the forecast has no accounts", given=file, todo="Run `renewcast forecast` again.")) from error


def _folder(workspace: Workspace, cutoff: datetime) -> Path:
    return workspace.state / "forecasts" / f"{cutoff:%Y-%m-%d}"


def _forecast(
    workspace: Workspace, records: Records, projection: Projection, past: Sequence[PastForecast], *, draws: int, seed: int
) -> Forecast:
    history, targets = records.history, workspace.config.targets
    return Forecast(
        cutoff=history.cutoffs[-1].astype("datetime64[us]").item(),
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        currency=workspace.config.currency,
        horizon_days=targets.horizon_days,
        lead_days=targets.lead_days,
        grace_days=targets.grace_days,
        outlooks=projection.outlooks,
        coverage=measure_coverage(past),
        past=tuple(past),
        shocks=_summarised(projection.shocks),
        notes=(*records.notes, *_assumptions(projection)),
        training=records.training,
        packages=records.packages,
        draws=draws,
        seed=seed,
    )


def _summarised(shocks: Shocks) -> dict[str, ShockSummary]:
    return {
        part: ShockSummary(
            level=shocks.levels[part].level,
            spread=shocks.levels[part].spread,
            groups={kind: spreads[part].spread for kind, spreads in shocks.groups.items()},
        )
        for part in PARTS
    }


def _assumptions(projection: Projection) -> list[str]:
    """Say what a forecast over several horizons rests on."""
    measured = projection.evolution.measured
    if len(measured) == 1:
        return []
    if all(measured):
        return ["Over the year, each account's chances evolve as those of such accounts did in past scores; who leaves stays away."]
    known = sum(measured)
    return [
        f"Past scores tell how chances evolve over {known} of the {len(measured)} horizons of the year; "
        "after that they are taken to stay as they are. Who leaves stays away."
    ]


def _accounts(history: History, projection: Projection) -> pd.DataFrame:
    rows = history.rows(len(history.cutoffs) - 1)
    columns: dict[str, Any] = {"account_id": history.account_id[history.account[rows]], "arr": history.arr[rows]}
    columns |= {kind: [groups.names[code] for code in groups.code[rows]] for kind, groups in history.groups.items()}
    for days, drawn in zip(projection.days, projection.draws, strict=True):
        columns |= {f"{name}_{days}": drawn.expected[:, part] for part, name in enumerate(("churned", "contracted", "expanded"))}
    return pd.DataFrame(columns)


def _flat(outlook: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in outlook.items():
        flat |= {f"{name}_{part}": number for part, number in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def _from_json(data: dict[str, Any]) -> Forecast:
    if data.pop("format") != _FORMAT:
        raise ValueError("another version of Renewcast made it")
    return Forecast(
        **data
        | {
            "cutoff": datetime.fromisoformat(data["cutoff"]),
            "outlooks": tuple(_outlook(one) for one in data["outlooks"]),
            "coverage": tuple(Coverage(**one) for one in data["coverage"]),
            "past": tuple(
                PastForecast(**one | _ranks(one) | {"cutoff": datetime.fromisoformat(one["cutoff"]), "outlook": _outlook(one["outlook"])})
                for one in data["past"]
            ),
            "shocks": {part: ShockSummary(**one) for part, one in data["shocks"].items()},
            "notes": tuple(data["notes"]),
        }
    )


def _ranks(data: Mapping[str, Any]) -> dict[str, Rank]:
    return {name: Rank(**data[name]) for name in ("ndr_rank", "grr_rank")}


def _outlook(data: Mapping[str, Any]) -> Outlook:
    values: dict[str, Any] = {name: Interval(**value) if isinstance(value, dict) else value for name, value in data.items()}
    return Outlook(**values)
