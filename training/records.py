"""Read a workspace's past for a forecast: its labels and groups, the backtest of the last training, and today's scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.parquet as pq
from scipy.special import expit, logit

from features.catalogue import Catalogue, read_catalogue
from features.errors import ConfigError, NotEnoughDataError, PackageError, WorkspaceError, explain
from features.feature import Target
from features.snapshot_files import snapshot_files
from features.workspace import Workspace
from training.backtest import BACKTEST, read_backtest
from training.copies import champion_folder, load_champion, provisional_reason
from training.dataset import Array, encode_features, learn_categories
from training.history import Groups, History, realised_ratio
from training.package import Package
from training.report import read_report
from training.shocks import PARTS
from training.splits import LabelWindow

__all__ = ["Records", "read_records"]

_KEY = ["account_id", "cutoff"]
_LABELS = [*_KEY, *PARTS, "arr", "arr_end", "renewal_at"]
_GROUPS = {"partner": "partner_id", "segment": "segment"}
"""The kinds of group, and the column that says each."""
_CHANGE_FAMILY = "commercial"
"""The features on which the size of a change may depend: contracts and prices; and few, so that it is learnt fast."""
_BASE_RATE_DAYS = 365
_SMALLEST = 1e-7
_DAY = np.timedelta64(1, "D")


@dataclass(frozen=True, eq=False)
class Records:
    """What there is to forecast from.

    Parameters
    ----------
    training
        The training whose backtest is used.
    packages
        Hash of the package in use, by part.
    notes
        What a reader must know about it, in sentences.
    """

    history: History
    training: str
    packages: Mapping[str, str]
    notes: tuple[str, ...]


def read_records(workspace: Workspace) -> Records:
    """Read everything that a forecast of retention uses.

    A part without a model in use, or without a backtest of one, is given base rates: the share of accounts to which it happened over
    the last closed year.

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
    _refuse_impossible(workspace)
    catalogue = _catalogue(workspace.snapshots)
    everyone = _read(workspace.snapshots / "labels.parquet", _LABELS).sort_values(["cutoff", "account_id"], ignore_index=True)
    labels = everyone[everyone["arr"] > 0].reset_index(drop=True)
    _require_closed(labels)
    run = str(read_report(workspace.training)["run"])
    packages, scores = _scored(workspace, run)
    history = _history(workspace, catalogue, labels, packages, scores)
    notes = _notes(workspace, history, late=int(((everyone["arr"] == 0) & (everyone["cutoff"] == everyone["cutoff"].max())).sum()))
    return Records(history, run, {part: package.hash for part, package in packages.items()}, notes)


def _refuse_impossible(workspace: Workspace) -> None:
    config = workspace.config
    if "subscriptions" not in config.tables:
        todo = "If you know what the customers pay, map it: [tables.subscriptions] with start_date, end_date and arr."
        raise NotEnoughDataError(
            explain("this book has no subscriptions, so it has no ARR to forecast", given=", ".join(config.tables), todo=todo)
        )
    if config.targets.kind != "subscription":
        todo = 'Set kind = "subscription" in [targets], then run `renewcast features` and `renewcast train`.'
        raise ConfigError(
            explain("churn is silence in this book, not the end of payment, so scores do not add up to ARR", given="usage", todo=todo)
        )
    if config.cutoffs.every == "renewal":
        todo = 'Set every = "month" in [cutoffs], then run `renewcast features` and `renewcast train`.'
        raise ConfigError(
            explain("retention is that of all customers of one day, but each account has cutoffs of its own", given="renewal", todo=todo)
        )


def _require_closed(labels: pd.DataFrame) -> None:
    if labels["churn"].notna().any():
        return
    cutoffs = labels["cutoff"].nunique()
    todo = "Load a longer history, or choose a shorter horizon."
    raise NotEnoughDataError(
        explain("no label window has closed yet, so there is no past to learn from", given=f"{cutoffs} cutoffs", todo=todo)
    )


def _catalogue(snapshots: Path) -> Catalogue:
    try:
        return read_catalogue(snapshots / "catalogue.json")
    except FileNotFoundError as error:
        raise _missing(snapshots) from error


def _read(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    try:
        frame: pd.DataFrame = pq.read_table(snapshot_files(path), columns=list(columns)).to_pandas()
    except FileNotFoundError as error:
        raise _missing(path) from error
    return frame


def _missing(path: Path) -> WorkspaceError:
    return WorkspaceError(explain("the snapshots have not been made yet", given=path, todo="Run `renewcast features` first."))


def _scored(workspace: Workspace, run: str) -> tuple[dict[Target, Package], dict[Target, pd.DataFrame]]:
    """Return the packages in use of those targets of which the last training left a backtest, and that."""
    packages, scores = {}, {}
    for part in PARTS:
        left = (workspace.training / run / BACKTEST / f"{part}.parquet").exists()
        if left and champion_folder(workspace, part).exists():
            packages[part] = load_champion(workspace, part)
            scores[part] = read_backtest(workspace.training / run, part).drop_duplicates(_KEY, keep="last")
            _require_horizon(workspace, packages[part])
    return packages, scores


def _require_horizon(workspace: Workspace, package: Package) -> None:
    asked = (workspace.config.targets.horizon_days, workspace.config.targets.lead_days)
    if (package.horizon_days, package.lead_days) != asked:
        given = f"{package.horizon_days} days ahead with a lead of {package.lead_days}; the config says {asked[0]} with {asked[1]}"
        raise PackageError(
            explain(f"the model of {package.target} looks ahead otherwise", given=given, todo="Run `renewcast train` again.")
        )


def _history(
    workspace: Workspace,
    catalogue: Catalogue,
    labels: pd.DataFrame,
    packages: Mapping[Target, Package],
    scores: Mapping[Target, pd.DataFrame],
) -> History:
    """Put together what is known of all rows that pay at their cutoff."""
    cutoffs, period = np.unique(labels["cutoff"].to_numpy(dtype="datetime64[us]"), return_inverse=True)
    account_id, account = np.unique(labels["account_id"].to_numpy(dtype=object), return_inverse=True)
    arr, churn = (labels[name].to_numpy(dtype=np.float64, na_value=np.nan) for name in ("arr", "churn"))
    matrix, categories = _change_matrix(workspace.snapshots, catalogue, labels)
    targets = workspace.config.targets
    window = LabelWindow(horizon_days=targets.horizon_days, lead_days=targets.lead_days, grace_days=targets.grace_days)
    outcome = labels[list(PARTS)].to_numpy(dtype=np.float64, na_value=np.nan)
    log_odds = np.column_stack(
        [
            _log_odds(workspace.snapshots, labels, packages[part], scores[part])
            if part in packages
            else _base_log_odds(outcome[:, number], period, cutoffs, window)
            for number, part in enumerate(PARTS)
        ]
    )
    ratio = realised_ratio(arr, labels["arr_end"].to_numpy(dtype=np.float64, na_value=np.nan), churn)
    return History(
        cutoffs=cutoffs,
        test=_tested(labels, cutoffs, period, scores),
        period=period,
        account=account,
        account_id=account_id,
        arr=arr,
        log_odds=_completed(log_odds, ratio, period),
        outcome=outcome,
        ratio=ratio,
        renewal_days=_days_between(labels["cutoff"], labels["renewal_at"]),
        matrix=matrix,
        categories=categories,
        groups=_groups(workspace.snapshots, labels),
        window=window,
        assumed=tuple(part for part in PARTS if part not in packages),
    )


def _change_matrix(snapshots: Path, catalogue: Catalogue, labels: pd.DataFrame) -> tuple[Array, tuple[int, ...]]:
    chosen = [feature for feature in catalogue if feature.family == _CHANGE_FAMILY]
    names = [feature.name for feature in chosen]
    frame = _read(snapshots / "features.parquet", [*_KEY, *names])
    rows = frame.iloc[_positions(frame, labels)]
    categories = learn_categories(rows, chosen)
    return encode_features(rows, features=names, categories=categories), tuple(i for i, name in enumerate(names) if name in categories)


def _groups(snapshots: Path, labels: pd.DataFrame) -> dict[str, Groups]:
    frame = _read(snapshots / "groups.parquet", [*_KEY, *_GROUPS.values()])
    rows = frame.iloc[_positions(frame, labels)]
    return {kind: _numbered(rows[column]) for kind, column in _GROUPS.items() if rows[column].notna().any()}


def _numbered(column: pd.Series) -> Groups:
    code, names = pd.factorize(column, sort=True)
    unnamed = code < 0
    listed = tuple(str(name) for name in names)
    return Groups((*listed, None), np.where(unnamed, len(names), code)) if unnamed.any() else Groups(listed, code)


def _positions(frame: pd.DataFrame, labels: pd.DataFrame) -> npt.NDArray[np.intp]:
    """Return where the rows of labels stand in another table of the snapshots."""
    positions: npt.NDArray[np.intp] = pd.MultiIndex.from_frame(frame[_KEY]).get_indexer(pd.MultiIndex.from_frame(labels[_KEY]))
    if (positions < 0).any():
        raise WorkspaceError(explain("the tables of the snapshots do not belong together", todo="Run `renewcast features` again."))
    return positions


def _log_odds(snapshots: Path, labels: pd.DataFrame, package: Package, scores: pd.DataFrame) -> Array:
    """Return the calibrated scores: of past rows those of the backtest, of today's rows those of the package in use."""
    last = labels["cutoff"].max()
    known = scores.set_index(_KEY)["probability"].reindex(pd.MultiIndex.from_frame(labels[_KEY])).to_numpy(dtype=np.float64, copy=True)
    table = pq.read_table(snapshot_files(snapshots / "features.parquet")[-1], filters=[("cutoff", "==", last)])
    frame: pd.DataFrame = table.to_pandas()
    today = (labels["cutoff"] == last).to_numpy()
    known[today] = package.score_rows(frame.iloc[_positions(frame, labels[today])]).probability
    return _as_log_odds(known)


def _completed(log_odds: Array, ratio: Array, period: npt.NDArray[np.intp]) -> Array:
    """Give rows between two terms, which lack the label of a part, the mean score of their period; and none to rows without an end."""
    whole = log_odds.copy()
    for number in np.unique(period):
        rows = np.flatnonzero(period == number)
        for part in range(log_odds.shape[1]):
            missing = np.isnan(log_odds[rows, part])
            if not missing.all():
                whole[rows[missing], part] = log_odds[rows[~missing], part].mean()
        if not np.isnan(ratio[rows]).all():
            whole[rows[np.isnan(ratio[rows])]] = np.nan
    return whole


def _as_log_odds(probability: Array) -> Array:
    log_odds: Array = logit(np.clip(probability, _SMALLEST, 1 - _SMALLEST))
    return log_odds


def _base_log_odds(outcome: Array, period: npt.NDArray[np.intp], cutoffs: npt.NDArray[np.datetime64], window: LabelWindow) -> Array:
    """Return the log-odds of the share of accounts to which it happened in the year before, of what was known at each cutoff."""
    known = ~np.isnan(outcome)
    happened = np.bincount(period[known], weights=outcome[known], minlength=len(cutoffs))
    asked = np.bincount(period[known], minlength=len(cutoffs))
    rates = np.full(len(cutoffs), np.nan)
    for number, cutoff in enumerate(cutoffs):
        closed = window.closed(cutoffs, cutoff)
        if asked[closed].any():
            age_days = (cutoffs[closed].max() - cutoffs) / _DAY
            recent = closed & (age_days < _BASE_RATE_DAYS)
            rates[number] = (happened[recent].sum() + 0.5) / (asked[recent].sum() + 1)  # Jeffreys' prior: never quite zero
    return _as_log_odds(rates)[period]


def _tested(
    labels: pd.DataFrame, cutoffs: npt.NDArray[np.datetime64], period: npt.NDArray[np.intp], scores: Mapping[Target, pd.DataFrame]
) -> npt.NDArray[np.bool_]:
    """Tell which periods nothing was chosen on: those in every backtest's test period; base rates are chosen on nothing."""
    tested = np.ones(len(cutoffs), dtype=bool)
    for found in scores.values():
        test = found.loc[found["stage"] == "test", "cutoff"].to_numpy(dtype="datetime64[us]")
        tested &= np.isin(cutoffs, test)
    closed = np.zeros(len(cutoffs), dtype=bool)
    closed[period[labels["churn"].notna().to_numpy()]] = True
    return tested & closed


def _days_between(start: pd.Series, end: pd.Series) -> Array:
    days: Array = (end.to_numpy(dtype="datetime64[us]") - start.to_numpy(dtype="datetime64[us]")) / _DAY
    return days


def _notes(workspace: Workspace, history: History, *, late: int) -> tuple[str, ...]:
    last = history.period == len(history.cutoffs) - 1
    notes = []
    for number, part in enumerate(PARTS):
        if part in history.assumed:
            share = expit(history.log_odds[last, number]).mean()
            notes.append(f"No model of {part} is in use: every account is given its share in the last closed year, {share:.2%}.")
        elif reason := provisional_reason(workspace, part):
            notes.append(f"The model of {part} is provisional: {reason}")
    if late:
        grace_days = workspace.config.targets.grace_days
        notes.append(f"{late:,} accounts are left out: their terms ended in the last {grace_days} days, and no renewal is on record.")
    if lead_days := workspace.config.targets.lead_days:
        notes.append(f"What happens in the {lead_days} days of lead after the cutoff is left out: no score tells it.")
    return tuple(notes)
