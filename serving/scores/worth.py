"""What a partner's data is worth: the scores of its accounts with its data, and without.

At each scoring, and for each account about which a partner supplied rows of engagement, the account is scored a second time as if that
partner had supplied nothing (`features.absence`), by the same models. The difference is kept beside the scores, for that partner and the
vendor. A difference says what the model makes of the data, not what the data did for the customer.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from features import clock
from features.feature import Target
from features.workspace import Workspace
from serving.health import health_of
from serving.scores.scoring import ScoreSet
from training.package import Package

if TYPE_CHECKING:
    from features.absence import SuppliedRows

__all__ = ["FILE", "AccountWorth", "MovedFeature", "TargetWorth", "read_worth", "write_worth"]

FILE = "worth.parquet"
"""Where it is kept in a score set."""


@dataclass(frozen=True, kw_only=True)
class MovedFeature:
    """A feature whose value rests on the partner's data; None where there is no value."""

    feature: str
    value: float | None
    without: float | None


@dataclass(frozen=True, kw_only=True)
class TargetWorth:
    """One target's probability with the partner's data and without.

    Parameters
    ----------
    learnt
        Whether the model was trained on rows that could have held the partner's data about this account: if not, it has learnt from others
        what such data mean, or nothing.
    """

    target: Target
    probability: float
    without: float
    learnt: bool


@dataclass(frozen=True, kw_only=True)
class AccountWorth:
    """What one partner's data about one account change in its scores.

    Parameters
    ----------
    rows
        Rows that the partner supplied and that were known at the cutoff.
    health, health_without
        With the data, and as if there were none.
    features
        Those that rest on the data, in the order of the catalogue.
    """

    account_id: str
    partner_id: str
    rows: int
    health: int
    health_without: int
    targets: tuple[TargetWorth, ...]
    features: tuple[MovedFeature, ...]


def write_worth(workspace: Workspace, score_set: ScoreSet, folder: Path) -> None:
    """Score the accounts without what partners supplied, and write what that changes to a score set's folder; nothing if none did.

    It needs the checked tables that the scores were made from.
    """
    from features.absence import features_without, supplied_features, supplied_rows
    from features.engine import Engine
    from features.plan import open_tables

    cutoff = score_set.manifest.cutoff
    with Engine() as engine:
        tables = open_tables(engine, workspace.book_tables)
        supplied = [one for one in supplied_rows(engine, tables, cutoff=cutoff) if one.account_id in score_set.index]
        if not supplied:
            return
        catalogue = supplied_features(tables["engagement"].columns, score_set.values)
        pairs = [(one.account_id, one.partner_id) for one in supplied]
        without = features_without(engine, tables["engagement"], pairs, cutoff=cutoff, catalogue=catalogue)
    found = _compared(score_set, supplied, without.to_pandas())
    pq.write_table(pa.Table.from_pylist([_to_row(one) for one in found], schema=_SCHEMA), folder / FILE, compression="zstd")


def read_worth(folder: Path) -> tuple[AccountWorth, ...]:
    """Read what a score set keeps of it; nothing if nobody has supplied anything."""
    path = folder / FILE
    return tuple(_from_row(row) for row in pq.read_table(path).to_pylist()) if path.exists() else ()


def _compared(score_set: ScoreSet, supplied: Sequence["SuppliedRows"], without: pd.DataFrame) -> list[AccountWorth]:
    at = np.array([score_set.index[one.account_id] for one in supplied])
    whole = pd.DataFrame({name: column[at] for name, column in score_set.values.items()})
    reduced = whole.assign(**{name: without[name].to_numpy(dtype=np.float64, na_value=np.nan) for name in without.columns})
    scores = {target: package.score_rows(reduced).probability for target, package in score_set.packages.items()}
    health = health_of(scores["churn"], score_set.manifest.health)
    return [
        AccountWorth(
            account_id=one.account_id,
            partner_id=one.partner_id,
            rows=one.rows,
            health=int(score_set.accounts["health"][row]),
            health_without=int(health[position]),
            targets=tuple(
                TargetWorth(
                    target=target,
                    probability=float(score_set.accounts[f"{target}_probability"][row]),
                    without=float(scores[target][position]),
                    learnt=_has_learnt(package, one.first_known_at),
                )
                for target, package in score_set.packages.items()
            ),
            features=tuple(_moved(whole.iloc[position], without.iloc[position])),
        )
        for position, (one, row) in enumerate(zip(supplied, at.tolist(), strict=True))
    ]


def _has_learnt(package: Package, first_known_at: datetime) -> bool:
    return clock.has_come(first_known_at, package.cutoff)


def _moved(whole: "pd.Series[Any]", without: "pd.Series[Any]") -> list[MovedFeature]:
    values = [(name, _value(whole[name]), _value(without[name])) for name in without.index]
    return [MovedFeature(feature=name, value=value, without=other) for name, value, other in values if value != other]


def _value(number: Any) -> float | None:
    return None if pd.isna(number) else float(number)


_SCHEMA = pa.schema(
    {
        "account_id": pa.string(),
        "partner_id": pa.string(),
        "rows": pa.int64(),
        "health": pa.int64(),
        "health_without": pa.int64(),
        "targets": pa.string(),
        "features": pa.string(),
    }
)


def _to_row(worth: AccountWorth) -> dict[str, Any]:
    lists = {name: json.dumps([vars(one) for one in getattr(worth, name)]) for name in ("targets", "features")}
    return vars(worth) | lists


def _from_row(row: Mapping[str, Any]) -> AccountWorth:
    targets = tuple(TargetWorth(**one) for one in json.loads(row["targets"]))
    features = tuple(MovedFeature(**one) for one in json.loads(row["features"]))
    return AccountWorth(**{**row, "targets": targets, "features": features})
