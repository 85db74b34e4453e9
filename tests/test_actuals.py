from datetime import datetime, timedelta
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from features.engine import Engine
from features.errors import WorkspaceError
from tests.brute_force import movements
from tests.random_worlds import ORIGIN, as_tables, recipes
from training.actuals import read_paid

pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning:ibis")  # by Ibis 12 on DuckDB 2


def paid_in(folder, world, instants, *, grace_days=30):
    """Return what is paid by account, for each instant, where somebody pays."""
    folder.mkdir(exist_ok=True)
    with Engine(threads=1) as engine:
        for name, table in as_tables(engine, world).items():
            pq.write_table(engine.to_arrow(table), folder / f"{name}.parquet")
    targets = SimpleNamespace(grace_days=grace_days)
    paid = read_paid(SimpleNamespace(book_tables=folder, config=SimpleNamespace(targets=targets)), instants)
    return [{account: arr for account, arr in paid[instant].items() if arr} for instant in instants]


@settings(max_examples=8, derandomize=True, deadline=None, phases=(Phase.explicit, Phase.generate), suppress_health_check=list(HealthCheck))
@given(recipe=recipes().filter(lambda recipe: "subscriptions" in recipe.world()))
def test_at_the_starts_of_months_it_is_what_the_movements_say(tmp_path, recipe):
    world = recipe.world()
    expected = {}
    for row in movements(world, ORIGIN, 30):
        expected.setdefault(row["month"], {})[row["account_id"]] = row["arr"]
    instants = sorted(expected) or [ORIGIN]
    assert paid_in(tmp_path / "tables", world, instants) == [pytest.approx(expected.get(instant, {})) for instant in instants]


def test_between_months_too(tmp_path):
    start = datetime(2024, 1, 10)
    terms = [
        {"account_id": "a", "subscription_id": "1", "arr": 100.0, "start_date": start, "end_date": start + timedelta(days=20)},
        {"account_id": "a", "subscription_id": "2", "arr": 150.0, "start_date": start + timedelta(days=25), "end_date": None},
        {"account_id": "b", "subscription_id": "3", "arr": 10.0, "start_date": start, "end_date": start + timedelta(days=5)},
    ]
    world = {"accounts": [{"account_id": name} for name in "abc"], "telemetry": [], "subscriptions": terms}
    instants = [start - timedelta(days=1), start, start + timedelta(days=22), start + timedelta(days=25, hours=3)]
    expected = [{}, {"a": 100.0, "b": 10.0}, {"a": 100.0}, {"a": 150.0}]
    assert paid_in(tmp_path / "tables", world, instants) == expected


def test_unchecked_tables_are_said(tmp_path):
    with pytest.raises(WorkspaceError, match="have not been checked yet"):
        read_paid(SimpleNamespace(book_tables=tmp_path, config=None), [ORIGIN])
