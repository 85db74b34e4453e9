"""The rows that a model learns from, and the one way in which features become numbers.

`encode_features` is the only preparation there is: training, the batch, the endpoint and notebooks all call it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.parquet as pq

from features.catalogue import Catalogue
from features.errors import PackageError, WorkspaceError, explain
from features.feature import Feature, Target
from features.snapshot_files import snapshot_files

__all__ = [
    "CONTEXT",
    "Array",
    "Categories",
    "Dataset",
    "Encoded",
    "days_to_renewal",
    "encode_features",
    "learn_categories",
    "load_dataset",
    "read_features",
    "require_columns",
]

Array = npt.NDArray[np.float64]
Categories = Mapping[str, tuple[str, ...]]
"""The levels of each category feature, in the order of their codes."""

CONTEXT = ("segment", "partner_id", "partner_type", "renewal_at", "left_at", "arr_end", "nonrenewal")
"""Where a row belongs and what became of it: segment and partner as of the cutoff; the renewal date that was known then; when the account
left, its ARR at the window's end, and whether it let that renewal pass, as far as these are known and apply."""

_LABELS = ("arr", "renewal_at", "left_at", "arr_end", "nonrenewal")
_GROUPS = ("segment", "partner_id", "partner_type")
_KEY = ["account_id", "cutoff"]
_OUTCOME = "label: "
"""What the names of label columns begin with while they stand beside features: a feature may well be called `arr`."""

_NUMERIC = {"floating", "integer", "mixed-integer-float", "boolean", "decimal", "empty"}


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled rows of one target, ordered by cutoff and account.

    Parameters
    ----------
    account_id
        `(n,)` strings.
    cutoff
        `(n,)` datetime64[us], UTC.
    features
        `(n, n_features)` as the snapshot has them: float64 or strings, in the catalogue's order.
    target
        `(n,)` 0.0 or 1.0.
    arr
        `(n,)` ARR at the cutoff in the workspace's currency; missing for a business without subscriptions.
    context
        `(n, ...)` what is known of the rows beside their features, indexed like them; no model reads it. `CONTEXT` names the columns.
    """

    account_id: npt.NDArray[np.object_]
    cutoff: npt.NDArray[np.datetime64]
    features: pd.DataFrame
    target: Array
    arr: Array
    context: pd.DataFrame

    def __len__(self) -> int:
        return len(self.target)

    @property
    def positives(self) -> int:
        """Rows whose target is 1."""
        return int(self.target.sum())

    @property
    def cutoffs(self) -> npt.NDArray[np.datetime64]:
        """The different cutoffs, in order."""
        return np.unique(self.cutoff)

    def at(self, rows: npt.NDArray[Any]) -> "Dataset":
        """Return the rows of a boolean mask `(n,)`, or of positions; rows that lie side by side are not copied."""
        chosen = _side_by_side(np.flatnonzero(rows) if rows.dtype == bool else rows)
        return Dataset(
            account_id=self.account_id[chosen],
            cutoff=self.cutoff[chosen],
            features=self.features.iloc[chosen],
            target=self.target[chosen],
            arr=self.arr[chosen],
            context=self.context.iloc[chosen],
        )


@dataclass(frozen=True, eq=False)
class Encoded:
    """Rows `(n, n_features)` as models read them, and the levels of their category features."""

    matrix: Array
    categories: Categories


def read_features(snapshots: Path, catalogue: Catalogue) -> pd.DataFrame:
    """Read the features of all rows of a workspace's snapshots, labelled or not.

    Raises
    ------
    WorkspaceError
        If the snapshots have not been made yet.
    PackageError
        If a feature of the catalogue is not in the snapshot.
    """
    features = _read(snapshots / "features.parquet")
    require_columns(features.columns, catalogue.names)
    return features


def load_dataset(snapshots: Path, target: Target, catalogue: Catalogue, *, features: pd.DataFrame | None = None) -> Dataset:
    """Read the labelled rows of one target from a workspace's snapshots.

    Rows without a label (censored, or the target does not apply to them) are left out.

    Parameters
    ----------
    features
        What `read_features` returned, where several targets are read.

    Raises
    ------
    WorkspaceError
        If the snapshots have not been made yet.
    PackageError
        If a feature of the catalogue is not in the snapshot.
    """
    features = read_features(snapshots, catalogue) if features is None else features
    labels = _read(snapshots / "labels.parquet", columns=["account_id", "cutoff", target, *_LABELS])
    groups = _read(snapshots / "groups.parquet", columns=["account_id", "cutoff", *_GROUPS])
    known = labels[labels[target].notna()].merge(groups, on=_KEY, validate="one_to_one")
    rows = (
        known.rename(columns=lambda name: name if name in _KEY else f"{_OUTCOME}{name}")
        .merge(features, on=_KEY, validate="one_to_one")
        .sort_values(["cutoff", "account_id"], ignore_index=True)
    )
    return Dataset(
        account_id=rows["account_id"].to_numpy(dtype=object),
        cutoff=rows["cutoff"].to_numpy(dtype="datetime64[us]"),
        features=rows[list(catalogue.names)],
        target=rows[f"{_OUTCOME}{target}"].to_numpy(dtype=np.float64),
        arr=rows[f"{_OUTCOME}arr"].to_numpy(dtype=np.float64, na_value=np.nan),
        context=rows[[f"{_OUTCOME}{name}" for name in CONTEXT]].rename(columns=lambda name: name.removeprefix(_OUTCOME)),
    )


def _side_by_side(rows: npt.NDArray[np.intp]) -> npt.NDArray[np.intp] | slice:
    """Return positions as a slice, if they are one."""
    if len(rows) == 0 or rows[-1] - rows[0] + 1 != len(rows) or (np.diff(rows) != 1).any():
        return rows
    return slice(int(rows[0]), int(rows[-1]) + 1)


def days_to_renewal(data: Dataset) -> Array:
    """Return the days `(n,)` from each cutoff to the renewal date that was known then; missing where there was none."""
    ahead = data.context["renewal_at"].to_numpy(dtype="datetime64[us]") - data.cutoff.astype("datetime64[us]")
    return np.asarray(np.where(np.isnat(ahead), np.nan, ahead / np.timedelta64(1, "D")), dtype=np.float64)


def learn_categories(frame: pd.DataFrame, catalogue: Iterable[Feature]) -> dict[str, tuple[str, ...]]:
    """Return the levels that occur in each category feature, in alphabetical order.

    Examples
    --------
    >>> from training.dataset import learn_categories
    >>> tier = Feature(name="tier", family="partner", unit="level", meaning="", sentence="", expression=None, kind="category")
    >>> learn_categories(pd.DataFrame({"tier": ["gold", None, "blue"]}), [tier])
    {'tier': ('blue', 'gold')}
    """
    return {feature.name: tuple(sorted(frame[feature.name].dropna().unique())) for feature in catalogue if feature.kind == "category"}


def encode_features(frame: pd.DataFrame, *, features: Sequence[str], categories: Categories) -> Array:
    """Turn features into the matrix that models read.

    Columns are taken by name, so their order in `frame` does not matter, and further columns are ignored.

    Parameters
    ----------
    frame
        One row an account, with at least the columns `features`.
    features
        Names in the model's order.
    categories
        Levels of the category features. A level becomes its position; a level that is not listed becomes missing.

    Returns
    -------
    `(n, n_features)`, missing values as NaN.

    Raises
    ------
    PackageError
        If a column is missing, or a number feature holds text.

    Examples
    --------
    >>> frame = pd.DataFrame({"tier": ["gold", "new"], "users": [3, None]})
    >>> encode_features(frame, features=["users", "tier"], categories={"tier": ("blue", "gold")})
    array([[ 3.,  1.],
           [nan, nan]])
    """
    require_columns(frame.columns, features)
    matrix = np.empty((len(frame), len(features)))
    plain = {name for name, kind in frame.dtypes.items() if kind == np.float64 and name not in categories}
    floats = [position for position, name in enumerate(features) if name in plain]
    matrix[:, floats] = frame[[features[position] for position in floats]].to_numpy()
    for position, name in enumerate(features):
        if name not in plain:
            matrix[:, position] = _codes(frame[name], categories[name]) if name in categories else _numbers(frame[name])
    return matrix


def require_columns(present: Iterable[str], features: Sequence[str]) -> None:
    """Raise PackageError if a feature has no column."""
    known = set(present)
    missing = [name for name in features if name not in known]
    if missing:
        more = f" and {len(missing) - 10} more" if len(missing) > 10 else ""
        raise PackageError(
            explain(
                f"features that the model reads are missing: {', '.join(missing[:10])}{more}",
                given=f"{len(known)} columns",
                todo="Give a column for each (its values may be missing), or run `renewcast features` and `renewcast train` again.",
            )
        )


def _codes(column: pd.Series, levels: tuple[str, ...]) -> Array:
    codes = pd.Index(levels, dtype=object).get_indexer(pd.Index(column, dtype=object)).astype(np.float64)
    codes[codes < 0] = np.nan
    return codes


def _numbers(column: pd.Series) -> Array:
    if not pd.api.types.is_numeric_dtype(column) and pd.api.types.infer_dtype(column, skipna=True) not in _NUMERIC:
        raise PackageError(
            explain(
                f"the feature {column.name} is a number, but holds something else",
                given=repr(next(value for value in column if isinstance(value, str) or value is not None)),
                allowed="numbers, or nothing for a missing value",
                todo="Convert the column to numbers first.",
            )
        )
    return column.to_numpy(dtype=np.float64, na_value=np.nan)


def _read(path: Path, *, columns: list[str] | None = None) -> pd.DataFrame:
    try:
        frame: pd.DataFrame = pq.read_table(snapshot_files(path), columns=columns).to_pandas()
    except FileNotFoundError as error:
        raise WorkspaceError(explain("the snapshots have not been made yet", given=path, todo="Run `renewcast features` first.")) from error
    return frame
