from datetime import datetime, timedelta

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from features.catalogue import read_catalogue
from features.errors import ConfigError, NotEnoughDataError, WorkspaceError
from features.preparation import prepare_workspace
from features.workspace import load_workspace
from tests.brute_force import all_twins, differences, feature_values, groups, is_customer, labels, movements
from tests.random_worlds import ATTRIBUTES, FULL, as_arrow, columns_of, make_world

pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning:ibis")  # by Ibis 12 on DuckDB 2

TABLES = """
[workspace]
name = "Small"
{more}
[tables.accounts]
source = "accounts.csv"
[tables.accounts.attributes]
channel = "category"
score = "number"
go_live = "date"
[tables.telemetry]
source = "telemetry.csv"
"""
SUBSCRIPTIONS = """
[tables.subscriptions]
source = "subscriptions.csv"
"""
MONTHLY = """
[targets]
horizon_days = 60
[cutoffs]
every = { days = 61 }
first = 2023-10-01
"""


@pytest.fixture
def workspace(tmp_path):
    """Make a workspace whose tables have been checked."""

    def make(world, config, *, more=""):
        (tmp_path / "renewcast.toml").write_text(TABLES.format(more=more) + config, encoding="utf-8")
        found = load_workspace(tmp_path, {})
        found.tables.mkdir(parents=True, exist_ok=True)
        for table in world:
            pq.write_table(as_arrow(world, table), found.tables / f"{table}.parquet")
        return found

    return make


def small_world(**tables):
    accounts = [{"account_id": "a"}, {"account_id": "b", "created_at": None}, {"account_id": "c"}]
    created = [row | {"created_at": datetime(2024, 3, 1) if row["account_id"] == "c" else None} for row in accounts]
    attributes = {"attribute_channel": "web", "attribute_score": 1.0, "attribute_go_live": None}
    telemetry = [event(account, n) for account in "abc" for n in range(0, 180, 10)]
    return {"accounts": [row | attributes for row in created], "telemetry": telemetry} | tables


def event(account, n, **columns):
    at = datetime(2024, 1, 1) + timedelta(days=n, hours=5)
    return {"account_id": account, "occurred_at": at, "event": "login", "user_id": "u", "events": 1.0} | columns


def term(account, start, end, **columns):
    found = {"account_id": account, "subscription_id": f"{account}{start}", "arr": 10.0}
    return (
        found
        | {"start_date": datetime(2024, 1, 1) + timedelta(days=start), "end_date": datetime(2024, 1, 1) + timedelta(days=end)}
        | columns
    )


def read(workspace):
    features, found = (pq.read_table(workspace.snapshots / f"{name}.parquet") for name in ("features", "labels"))
    return features, found, read_catalogue(workspace.snapshots / "catalogue.json")


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_snapshots_of_a_random_book_are_those_of_its_twin(workspace):
    world = FULL.world()
    sources = "".join(f'[tables.{name}]\nsource = "{name}.csv"\n' for name in world if name not in ("accounts", "telemetry"))
    made = workspace(world, sources + MONTHLY, more="data_until = 2024-07-01")
    summary = prepare_workspace(made)
    features, found, catalogue = read(made)
    assert features.column_names == ["account_id", "cutoff", *catalogue.names]
    assert features.select(["account_id", "cutoff"]).equals(found.select(["account_id", "cutoff"]))
    pairs = list(zip(features["account_id"].to_pylist(), features["cutoff"].to_pylist(), strict=True))
    cutoffs = [datetime(2023, 10, 1) + timedelta(days=61 * n) for n in range(5)] + [datetime(2024, 7, 1)]
    created = {row["account_id"]: row["created_at"] or cutoffs[0] for row in world["accounts"]}
    targets = made.config.targets
    expected = [(a, c) for c in cutoffs for a in created if created[a] <= c and is_customer(world, a, c, targets)]
    assert pairs == expected
    truths = [labels(world, account, cutoff, targets, datetime(2024, 7, 1)) for account, cutoff in pairs]
    assert found.drop(["account_id", "cutoff"]).to_pylist() == truths
    paid = pq.read_table(made.snapshots / "movements.parquet").to_pylist()
    assert paid == movements(world, datetime(2024, 7, 1), targets.grace_days)
    in_groups = pq.read_table(made.snapshots / "groups.parquet").to_pylist()
    assert in_groups == [{"account_id": a, "cutoff": c} | groups(world, a, c) for a, c in pairs]
    columns = {table: columns_of(world, table) for table in world}
    twins = all_twins(columns, event_names={}, carrying=(), ratios={}, attributes=ATTRIBUTES)
    names = [feature.name for feature in catalogue if feature.name in twins and feature.kind == "number"]
    assert not differences(features, feature_values(world, pairs, names, twins, minimum_peers=10), pairs)
    assert (summary.rows, summary.cutoffs, summary.features) == (len(pairs), len(cutoffs), len(catalogue))
    assert summary.accounts_to_score == sum(cutoff == datetime(2024, 7, 1) for _, cutoff in pairs) > 0
    assert summary.labelled == sum(truth["churn"] is not None for truth in truths) > 0
    assert summary.dropped_tables == ("plays",)


def test_the_most_frequent_kinds_of_event_have_features_of_their_own(workspace):
    kinds = {"often": 40, "tied b": 9, "tied a": 9, "seldom": 1}
    telemetry = [
        event("a", n, event=kind, quantity=1.0 if kind == "often" else None) for kind, count in kinds.items() for n in range(count)
    ]
    made = workspace(small_world(telemetry=telemetry), '[features]\ntop_events = 2\n[targets]\nkind = "usage"\n')
    prepare_workspace(made)
    levels = {feature.level: feature.needs for feature in read(made)[2] if feature.level is not None}
    assert levels == {"often": {"quantity"}, "tied a": set()}


def test_a_book_without_subscriptions_has_no_movements(workspace):
    made = workspace(small_world(), '[targets]\nkind = "usage"\n')
    prepare_workspace(made)
    assert not (made.snapshots / "movements.parquet").exists()


def test_accounts_are_looked_at_from_their_creation_on_and_scored_at_the_last_midnight(workspace):
    made = workspace(small_world(), '[targets]\nkind = "usage"\n')
    summary = prepare_workspace(made)
    features, _, _ = read(made)
    assert summary.scoring_cutoff == datetime(2024, 6, 19)
    first = {
        account: min(c for a, c in zip(features["account_id"].to_pylist(), features["cutoff"].to_pylist(), strict=True) if a == account)
        for account in "abc"
    }
    assert first == {"a": datetime(2024, 2, 1), "b": datetime(2024, 2, 1), "c": datetime(2024, 3, 1)}


def test_no_account_is_there_twice_at_a_cutoff(workspace):
    """The scoring cutoff of 2024-06-19 is also 90 days before a renewal."""
    terms = [term("a", 0, 170 + 90), term("b", 0, 365), term("a", 10, 100)]
    made = workspace(small_world(subscriptions=terms), SUBSCRIPTIONS + '[cutoffs]\nevery = "renewal"\n')
    prepare_workspace(made)
    features, found, _ = read(made)
    pairs = list(zip(features["account_id"].to_pylist(), features["cutoff"].to_pylist(), strict=True))
    assert pairs == [("a", datetime(2024, 1, 11)), ("a", datetime(2024, 6, 19)), ("b", datetime(2024, 6, 19))]
    assert len(found) == 3


def test_unchanged_tables_give_the_same_snapshots_byte_for_byte(workspace):
    made = workspace(FULL.world(), SUBSCRIPTIONS + MONTHLY)
    prepare_workspace(made)
    before = contents(made.snapshots)
    prepare_workspace(made)
    assert contents(made.snapshots) == before
    months = {f"features.parquet/{month}.parquet" for month in pc.strftime(read(made)[0]["cutoff"], format="%Y-%m").unique().to_pylist()}
    assert len(months) > 3
    made_of = {"labels.parquet", "groups.parquet", "movements.parquet"}
    assert set(before) == {*months, "features.parquet/_parts.json", *made_of, "catalogue.json", "cutoffs.json", "probes.json"}


def test_the_order_of_rows_does_not_matter(workspace):
    world = make_world(5, FULL.sizes)
    made = workspace(world, SUBSCRIPTIONS + MONTHLY)
    prepare_workspace(made)
    before = read(made)
    prepare_workspace(workspace({table: rows[::-1] for table, rows in world.items()}, SUBSCRIPTIONS + MONTHLY))
    after = read(made)
    pairs = list(zip(after[0]["account_id"].to_pylist(), after[0]["cutoff"].to_pylist(), strict=True))
    assert not differences(after[0], before[0].to_pydict(), pairs)
    assert after[1].equals(before[1])
    assert after[2].hash == before[2].hash


def test_tables_that_were_not_checked(workspace):
    with pytest.raises(WorkspaceError, match=r"have not been checked yet(.|\n)*renewcast check"):
        prepare_workspace(workspace({}, '[targets]\nkind = "usage"\n'))


def test_telemetry_without_rows(workspace):
    with pytest.raises(NotEnoughDataError, match="telemetry has no rows"):
        prepare_workspace(workspace(small_world(telemetry=[]), '[targets]\nkind = "usage"\n'))


def test_nobody_is_a_customer(workspace):
    made = workspace(small_world(subscriptions=[term("a", 0, 100, arr=0.0)]), SUBSCRIPTIONS)
    with pytest.raises(NotEnoughDataError, match=r"no account is a customer at any cutoff(.|\n)*3 accounts(.|\n)*start_date"):
        prepare_workspace(made)
    assert not made.snapshots.exists()


def test_nobody_is_a_customer_at_the_end_of_the_data(workspace):
    made = workspace(small_world(subscriptions=[term("a", 0, 40)]), SUBSCRIPTIONS)
    with pytest.raises(NotEnoughDataError, match=r"no account is a customer at .*, the end of the data(.|\n)*data_until = "):
        prepare_workspace(made)


def test_the_last_snapshots_stay_when_a_run_fails(workspace):
    made = workspace(small_world(), '[targets]\nkind = "usage"\n')
    prepare_workspace(made)
    before = contents(made.snapshots)
    with pytest.raises(NotEnoughDataError):
        prepare_workspace(workspace({"telemetry": []}, '[targets]\nkind = "usage"\n'))
    assert contents(made.snapshots) == before


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            '[targets]\nkind = "usage"\nexpansion = { measure = "active_users" }\n',
            r"measure of \[targets.expansion\] needs user_id of telemetry",
        ),
        (
            SUBSCRIPTIONS + '[targets]\ncontraction = { measure = "seats" }\n',
            r"measure of \[targets.contraction\] needs seats of subscriptions",
        ),
    ],
)
def test_targets_that_need_a_column_that_is_not_there(workspace, config, message):
    world = small_world(subscriptions=[term("a", 0, 100)])
    world["telemetry"] = [{name: value for name, value in row.items() if name != "user_id"} for row in world["telemetry"]]
    with pytest.raises(ConfigError, match=message):
        prepare_workspace(workspace(world, config))


def test_renewals_need_subscriptions(workspace):
    with pytest.raises(ConfigError, match=r"subscriptions"):
        prepare_workspace(workspace(small_world(), '[targets]\nkind = "usage"\n[cutoffs]\nevery = "renewal"\n'))


def test_progress_is_told_of_every_part(workspace):
    told = []
    prepare_workspace(workspace(small_world(), '[targets]\nkind = "usage"\n'), on_progress=lambda *step: told.append(step))
    assert [done for _, done, _ in told] == list(range(1, told[-1][2] + 1))
