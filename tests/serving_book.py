"""A small book for the tests of serving: canonical tables, snapshots and champions, as the steps before serving leave them."""

import warnings
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path

import lightgbm as lgb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from starlette.exceptions import StarletteDeprecationWarning

from features.catalogue import Catalogue
from features.feature import Feature, Window
from features.workspace import Workspace, load_workspace
from tests.feature_files import write_features
from training.calibration import BetaCalibrator, PlattCalibrator
from training.dataset import encode_features, learn_categories
from training.model import model_names
from training.package import Package, describe

with warnings.catch_warnings():
    # Starlette is moving its client to the successor of httpx, and works with both until then
    warnings.simplefilter("ignore", StarletteDeprecationWarning)
    from starlette.testclient import TestClient

__all__ = ["ACCOUNTS", "CATALOGUE", "CUTOFF", "EARLIER", "TestClient", "feature", "feature_rows", "make_workspace", "packages"]

CUTOFF = datetime(2025, 7, 1)
EARLIER = datetime(2025, 4, 1)
ACCOUNTS = 240
PARTNERS = {"p1": "Northwind Consulting", "p2": "Blue Harbour MSP", "p3": "Kestrel Systems", "p4": "Alder & Finch"}
SEGMENTS = ("Enterprise", "Mid-market", "Small business")

CONFIG = """
[workspace]
name = "Fieldnote"
currency = "USD"
[tables.accounts]
source = "accounts.csv"
[tables.telemetry]
source = "telemetry.csv"
[tables.subscriptions]
source = "subscriptions.csv"
[serving.limits]
requests_per_minute = 1_000_000
failures_per_minute = 1_000_000
"""


TABLES = {"engagement": "engagement", "partner": "assigned_partner"}


def feature(name, family, unit, sentence, *, sensitivity="shared", kind="number", days=None, actionable=False):
    return Feature(
        name=name,
        family=family,
        unit=unit,
        meaning=name.replace("_", " "),
        sentence=sentence,
        expression=lambda rows: rows,
        source=Window(table=TABLES.get(family, "telemetry"), days=days),
        kind=kind,
        sensitivity=sensitivity,
        actionable=actionable,
    )


CATALOGUE = Catalogue(
    (
        feature("active_users_28d", "usage", "users", "active users {moved} in 28 days", days=28, actionable=True),
        feature("active_users_91d", "usage", "users", "active users {moved} in 91 days", days=91, actionable=True),
        feature("events_28d", "usage", "events", "use {moved} events in 28 days", days=28),
        feature("seat_use_28d", "usage", "share", "the share of seats in use {moved}", days=28, actionable=True),
        feature("days_since_last_event", "usage", "days", "the last use was {value} ago"),
        feature("trainings_182d", "engagement", "trainings", "trainings taken {moved} in half a year", days=182, actionable=True),
        feature("last_nps", "engagement", "score", "the last NPS answer {moved}"),
        feature("open_tickets", "support", "tickets", "open tickets {moved}", actionable=True),
        feature("days_to_renewal", "commercial", "days", "the contract renews in {value}"),
        feature("seats", "commercial", "seats", "seats paid for {moved}"),
        feature("tenure_days", "commercial", "days", "customer for {value}"),
        feature("discount", "commercial", "share", "the discount {moved}", sensitivity="vendor"),
        feature("price_per_seat", "commercial", "USD", "the price per seat {moved}", sensitivity="vendor"),
        feature("list_price_gap", "commercial", "share", "the gap to the list price {moved}", sensitivity="vendor"),
        feature("partner_tier", "partner", "level", "the partner's tier {moved}", kind="category", sensitivity="vendor"),
    )
)


def feature_rows(rng, n, *, decline):
    seats = rng.integers(5, 200, n).astype(float)
    use = rng.beta(4, 2, n) * decline
    users = np.floor(seats * use)
    return pd.DataFrame(
        {
            "active_users_28d": users,
            "active_users_91d": np.floor(users * rng.uniform(1.0, 1.3, n)),
            "events_28d": np.floor(users * rng.gamma(4, 10, n)),
            "seat_use_28d": users / seats,
            "days_since_last_event": np.floor(rng.exponential(4, n) / np.maximum(use, 0.05)),
            "trainings_182d": rng.poisson(1.2, n).astype(float),
            "last_nps": np.where(rng.random(n) < 0.4, np.nan, rng.integers(0, 11, n)),
            "open_tickets": rng.poisson(1.0, n).astype(float),
            "days_to_renewal": rng.integers(1, 365, n).astype(float),
            "seats": seats,
            "tenure_days": rng.integers(10, 1500, n).astype(float),
            "discount": np.round(rng.beta(2, 8, n), 2),
            "price_per_seat": np.round(rng.uniform(120, 600, n)),
            "list_price_gap": np.round(rng.beta(2, 6, n), 2),
            "partner_tier": rng.choice(["gold", "silver", "blue"], n),
        }
    )


@cache
def packages():
    """Train one small model a target on a few thousand rows of the process above."""
    rng = np.random.default_rng(7)
    frame = feature_rows(rng, 3000, decline=rng.uniform(0.2, 1.0, 3000))
    categories = learn_categories(frame, CATALOGUE)
    matrix = encode_features(frame, features=CATALOGUE.names, categories=categories)
    risk = -2.6 - 3.0 * (frame["seat_use_28d"] - 0.4) + 0.35 * (frame["open_tickets"] - 1) - 0.9 * (frame["days_to_renewal"] > 90)
    risk = risk + 2.5 * (frame["discount"] - 0.2) - 0.3 * frame["trainings_182d"] + 0.05 * np.minimum(frame["days_since_last_event"], 40)
    growth = -3.0 + 3.5 * (frame["seat_use_28d"] - 0.4) + 0.25 * frame["trainings_182d"] + 0.4 * (frame["partner_tier"] == "gold")
    calibrators = {"churn": BetaCalibrator(low=1.1, high=0.8, intercept=0.1), "expansion": PlattCalibrator(slope=0.9, intercept=-0.1)}
    return {
        target: package(target, frame, matrix, categories, rng.random(3000) < 1 / (1 + np.exp(-score)), calibrators[target])
        for target, score in (("churn", risk), ("expansion", growth))
    }


def package(target, frame, matrix, categories, outcome, calibrator):
    data = lgb.Dataset(
        matrix, outcome.astype(float), feature_name=model_names(CATALOGUE.names), categorical_feature=[len(CATALOGUE.names) - 1]
    )
    parameters = {"objective": "binary", "num_leaves": 8, "verbosity": -1, "num_threads": 1, "seed": 1, "deterministic": True}
    return Package(
        target=target,
        model=lgb.train(parameters, data, num_boost_round=60).model_to_string(),
        calibrator=calibrator,
        catalogue=CATALOGUE,
        categories=categories,
        reference=describe(frame, CATALOGUE),
        horizon_days=90,
        lead_days=0,
        cutoff=datetime(2025, 1, 1),
        base_rate=float(outcome.mean()),
        recipe=parameters,
        data_fingerprint="0" * 64,
        code_version="0.1.0",
    )


def make_workspace(folder: Path) -> Workspace:
    """Write all that scoring reads below a new workspace folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "renewcast.toml").write_text(CONFIG)
    workspace = load_workspace(folder, {})
    rng = np.random.default_rng(3)
    ids = [f"acc-{number:04d}" for number in range(ACCOUNTS)]
    workspace.tables.mkdir(parents=True)
    workspace.snapshots.mkdir()
    write_tables(workspace.tables, ids, rng)
    write_snapshots(workspace.snapshots, ids, rng)
    for target, trained in packages().items():
        trained.save(workspace.training / "champion" / target)
    return workspace


_FIRST = (
    *("Aster", "Birch", "Cobalt", "Dune", "Ember", "Fathom", "Granite", "Harbor", "Indigo", "Juniper"),
    *("Kelp", "Lumen", "Mesa", "Nimbus", "Opal", "Pine", "Quarry", "Ridge", "Sable", "Tundra"),
)
_SECOND = ("Logistics", "Foods", "Health", "Media", "Labs", "Energy", "Retail", "Partners", "Motors", "Insurance", "Textiles", "Robotics")


def write_tables(tables: Path, ids, rng):
    n = len(ids)
    created = [CUTOFF - timedelta(days=int(age)) for age in rng.integers(60, 1500, n)]
    created[0] = CUTOFF - timedelta(days=12)
    accounts = {
        "account_id": ids,
        "name": [f"{_FIRST[i % 20]} {_SECOND[i // 20]}" for i in range(n)],
        "segment": rng.choice(SEGMENTS, n, p=[0.2, 0.3, 0.5]).tolist(),
        "csm": rng.choice(["Ada Moreau", "Ben Okafor", "Chiara Rossi"], n).tolist(),
        "created_at": pa.array(created, pa.timestamp("us")),
    }
    accounts["segment"][1:5] = ["Public sector"] * 4
    write(tables / "accounts.parquet", accounts)
    used = [account for account in ids if account != ids[5]]
    when = [CUTOFF - timedelta(days=int(day), hours=3) for day in rng.integers(0, 300, len(used))]
    write(
        tables / "telemetry.parquet",
        {"account_id": used, "occurred_at": stamps(when), "known_at": stamps(when), "event": ["open"] * len(used)},
    )
    opened = [CUTOFF - timedelta(days=40)] * 3
    write(tables / "tickets.parquet", {"account_id": ids[:3], "opened_at": stamps(opened), "known_at": stamps(opened)})
    write(tables / "partners.parquet", {"partner_id": list(PARTNERS), "name": list(PARTNERS.values())})
    write_assignments(tables, ids)


def write_assignments(tables: Path, ids):
    """Give accounts 1..180 a partner; account 1 moved from p2 to p1, account 2 leaves p2 in the future, account 3 has left p3."""
    partners = ["p1", "p1", "p1", "p2", "p3", "p4"]
    start = datetime(2024, 1, 1)
    rows = [(account, partners[i % 6], start, None) for i, account in enumerate(ids[4:180])]
    rows += [(ids[1], "p2", start, datetime(2025, 2, 1)), (ids[1], "p1", datetime(2025, 2, 1), None)]
    rows += [(ids[2], "p2", start, datetime(2025, 9, 1)), (ids[3], "p3", start, datetime(2025, 3, 1))]
    rows += [(ids[0], "p4", datetime(2025, 8, 1), None)]
    account, partner, valid_from, valid_to = zip(*rows, strict=True)
    columns = {"account_id": account, "partner_id": partner, "valid_from": stamps(valid_from), "valid_to": stamps(valid_to)}
    write(tables / "assignments.parquet", columns | {"known_at": stamps(valid_from)})


def write_snapshots(snapshots: Path, ids, rng):
    n = len(ids)
    (snapshots / "catalogue.json").write_text(CATALOGUE.to_json())
    decline = np.where(rng.random(n) < 0.25, 0.35, 0.95)
    now, past = feature_rows(rng, n, decline=decline), feature_rows(rng, n, decline=1.0)
    for name in ("seats", "discount", "price_per_seat", "partner_tier", "list_price_gap"):
        past[name] = np.where(rng.random(n) < 0.8, now[name], past[name])
    past["active_users_28d"] = np.maximum(np.floor(now["active_users_28d"] / decline), 1)
    older = feature_rows(rng, n, decline=1.0)
    cutoffs = (datetime(2024, 7, 1), EARLIER, datetime(2025, 6, 24), CUTOFF)
    frames = [frame.assign(account_id=ids, cutoff=cutoff) for cutoff, frame in zip(cutoffs, (older, past, older, now), strict=True)]
    frames[1] = frames[1].iloc[1:]  # the new account was not there a quarter ago
    write_features(snapshots, pd.concat(frames, ignore_index=True))
    arr = np.round(now["seats"] * now["price_per_seat"] * (1 - now["discount"]))
    renewal = [CUTOFF + timedelta(days=int(days)) for days in now["days_to_renewal"]]
    labels = {
        "account_id": ids,
        "cutoff": stamps([CUTOFF] * n),
        "churn": pa.nulls(n, pa.float64()),
        "arr": arr,
        "renewal_at": stamps(renewal),
    }
    write(snapshots / "labels.parquet", labels)


def stamps(times):
    return pa.array(list(times), pa.timestamp("us"))


def write(path: Path, columns):
    table = pa.Table.from_pandas(columns, preserve_index=False) if isinstance(columns, pd.DataFrame) else pa.table(columns)
    pq.write_table(table, path)
