"""A small book for the tests of the command: three tables in CSV, learnable churn and growth, and too few contractions to train on."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from typer.testing import CliRunner, Result

from serving.commands.cli import app

__all__ = ["run", "summary_of", "write_book", "write_config"]

CONFIG = """\
[workspace]
name = "Small book"
data = "{data}"
data_until = 2024-05-15

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

[training]
minimum_positives = 8

[features]
top_events = 2
"""

ACCOUNTS = 150
MONTHS = pd.date_range("2023-01-01", "2024-06-01", freq="MS")


def write_book(folder: Path) -> Path:
    """Write the tables and a config; small accounts and those that use the product little leave more often."""
    rng = np.random.default_rng(7)
    folder.mkdir(parents=True, exist_ok=True)
    events, terms = [], []
    for number in range(ACCOUNTS):
        account, small, use, seats = f"a{number:03d}", number % 2, rng.lognormal(1.2, 0.9), 10
        for month, following in pairwise(MONTHS):
            minutes = rng.choice((following - month).days * 1440, rng.poisson(use), replace=False)
            events += [(account, month + pd.Timedelta(minutes=int(at)), f"u{at % 4}", ("open", "save")[at % 2]) for at in minutes]
            terms.append((account, f"{account}-{month:%Y%m}", month, following, seats, seats * 120))
            if rng.random() < (0.3 if small else 0.03) / (1 + use):
                break
            seats += 5 * int(rng.random() < 0.05 * np.log1p(use))
    names = [f"a{number:03d}" for number in range(ACCOUNTS)]
    tables = {
        "accounts": pd.DataFrame({"account_id": names, "created_at": "2022-12-01", "segment": ["large", "small"] * (ACCOUNTS // 2)}),
        "telemetry": pd.DataFrame(events, columns=["account_id", "occurred_at", "user_id", "event"]),
        "subscriptions": pd.DataFrame(terms, columns=["account_id", "subscription_id", "start_date", "end_date", "seats", "arr"]),
    }
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    return write_config(folder, folder)


def write_config(folder: Path, data: Path, more: str = "") -> Path:
    """Make a workspace for the tables in another folder, or in this one."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "renewcast.toml").write_text(CONFIG.format(data=data) + more, encoding="utf-8")
    return folder


def run(*arguments: object) -> Result:
    """Run the command in this process; what it did not foresee is raised."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


def summary_of(result: Result) -> dict[str, Any]:
    """Return the one JSON object that standard output must be."""
    assert result.stdout.count("\n") == 1
    found: dict[str, Any] = json.loads(result.stdout)
    return found
