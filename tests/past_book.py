"""For the tests of forecasts: a past with a known truth, and a workspace that looks as a training leaves it."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy.special import expit

from features.workspace import load_workspace
from training.backtest import BACKTEST
from training.copies import champion_folder
from training.history import Groups, History
from training.report import CURRENT, REPORT
from training.splits import LabelWindow

__all__ = ["CHANGES", "make_history", "tell_training", "write_book"]

CONFIG = """
[workspace]
name = "Past"
[tables.accounts]
source = "accounts.csv"
[tables.telemetry]
source = "telemetry.csv"
[tables.subscriptions]
source = "subscriptions.csv"
[targets]
kind = "subscription"
horizon_days = 60
grace_days = 0
"""

CHANGES = ((0.6, 0.8), (1.2, 1.5))
"""The ratios of those who contract and of those who expand, equally likely; who does neither changes by nothing."""

BASE = np.array([-3.0, -3.3, -2.6])


def make_history(*, accounts=600, quarters=8, spread=0.0, partners=5, seed=0, level=0.0):
    """Make a past of quarters that follow each other; the last one has not closed.

    Each account has log-odds of its own, which stay; each quarter shifts all of them by `level` and a normal shock of the given spread.
    """
    rng = np.random.default_rng(seed)
    trait = BASE + 0.7 * rng.standard_normal((accounts, 3))
    partner, segment = rng.integers(0, partners, accounts), rng.integers(0, 2, accounts)
    arr, present = rng.lognormal(8, 1, accounts), np.arange(accounts)
    rows = []
    for quarter in range(quarters):
        shift = level + spread * rng.standard_normal(3)
        happened, ratio = draw(rng, trait[present] + shift)
        if quarter == quarters - 1:
            happened, ratio = np.full_like(happened, np.nan), np.full_like(ratio, np.nan)
        rows.append((np.full(len(present), quarter), present, arr[present], trait[present], happened, ratio))
        arr[present] *= ratio
        present = present[ratio > 0]
    period, account, paid, log_odds, outcome, ratio = (np.concatenate(columns) for columns in zip(*rows, strict=True))
    cutoffs = np.datetime64("2020-01-01", "us") + np.arange(quarters) * np.timedelta64(90, "D")
    return History(
        cutoffs=cutoffs,
        test=np.arange(quarters) >= quarters // 2,
        period=period,
        account=account,
        account_id=np.array([f"a{number:04d}" for number in range(accounts)], dtype=object),
        arr=paid,
        log_odds=log_odds,
        outcome=outcome,
        ratio=ratio,
        renewal_days=np.full(len(period), np.nan),
        matrix=np.column_stack([paid, rng.random(len(period))]),
        categories=(),
        groups={
            "partner": Groups((*(f"p{number}" for number in range(partners - 1)), None), partner[account]),
            "segment": Groups(("large", "small"), segment[account]),
        },
        window=LabelWindow(horizon_days=90, lead_days=0, grace_days=0),
    )


def draw(rng, log_odds):
    """Return what happened `(n, 3)` and the ratios of ARR `(n,)`."""
    chance = expit(log_odds)
    uniform = rng.random(len(chance))
    borders = chance.cumsum(axis=1)
    kind = (uniform[:, None] > borders).sum(axis=1)
    ratio = np.select([kind == 0, kind == 1, kind == 2], [0.0, rng.choice(CHANGES[0], len(kind)), rng.choice(CHANGES[1], len(kind))], 1.0)
    return (kind[:, None] == np.arange(3)).astype(float), ratio


def write_book(folder, make_snapshots, *, accounts=80):
    """Make a workspace of 18 months with snapshots, and nothing else."""
    folder.mkdir(exist_ok=True)
    (folder / "renewcast.toml").write_text(CONFIG, encoding="utf-8")
    workspace = load_workspace(folder, {})
    make_snapshots(workspace.snapshots, accounts=accounts)
    return workspace


def tell_training(workspace, package, *, parts=("churn",), run="20240101T000000-test"):
    """Leave what a training leaves: a report, a backtest of the last four closed cutoffs for each part, and champions."""
    folder = workspace.training / run
    (folder / BACKTEST).mkdir(parents=True)
    (folder / REPORT).write_text(json.dumps({"run": run}), encoding="utf-8")
    (workspace.training / CURRENT).write_text(run, encoding="utf-8")
    labels = pd.read_parquet(workspace.snapshots / "labels.parquet")
    for part in parts:
        known = labels[labels[part].notna()]
        cutoffs = np.sort(known["cutoff"].unique())
        scored = known[known["cutoff"].isin(cutoffs[-4:])]
        stage = np.where(scored["cutoff"].isin(cutoffs[-2:]), "test", "inner")
        rows = scored[["account_id", "cutoff"]].assign(stage=stage, fold=0, target=scored[part], raw=-2.0, probability=0.12)
        rows.to_parquet(folder / BACKTEST / f"{part}.parquet")
        replace(package, target=part, horizon_days=60).save(champion_folder(workspace, part))
