"""The same work on Spark as on DuckDB: every feature, label, group and movement, on one local session for all tests."""

import gc
import json
import sys
from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features import peers
from features.catalogue import read_catalogue
from features.config import ChangeTarget, Targets
from features.contributed import write_contribution
from features.engine import Engine
from features.errors import ConfigError, ContractError, PackageError, QuarantineError, SourceError
from features.groups import build_groups
from features.intake import check_workspace
from features.labels import build_labels, eligible_rows
from features.lake import check_lake, open_lake
from features.lake_snapshots import PARTITION, lake_folder, prepare_lake, sampled_rows
from features.ledger import Ledger
from features.matrix_query import matrix_query
from features.movements import build_movements
from features.preparation import prepare_workspace
from features.progress import silent
from features.slices import Spine
from features.snapshots import build_matrix
from features.spark_engine import SparkEngine
from features.workspace import load_workspace
from serving.commands.steps import STEPS, run_step
from serving.scores.batch import score_workspace
from serving.scores.scoring import load_score_set
from tests.random_worlds import MOST, OPTIONAL, ORIGIN, Recipe, as_spine, catalogue_of, known_tables
from tests.small_book import write_book
from tests.small_package import small_package
from training.copies import champion_folder
from training.lake_scores import score_batches, score_lake

pytestmark = [
    pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning:ibis"),  # by Ibis 12 on DuckDB 2
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),  # PySpark leaves those that bring results to the collector
]

LARGE = Recipe(2026, {table: 5 * rows for table, rows in MOST.items()} | {"partners": 1, "accounts": 60})
"""As many rows as there are in dozens of the random worlds on which DuckDB is held against slow twins."""

BARE = Recipe(7, MOST | {"accounts": 24}, tuple(OPTIONAL))
"""Only the columns that must be there."""


def pairs_of(recipe):
    """Return cutoffs that all accounts share, at midnight and not, and some of each account's own."""
    accounts = [f"a{i:02d}" for i in range(recipe.sizes["accounts"])]
    shared = [(account, ORIGIN + timedelta(days=d, hours=h)) for d, h in ((-91, 0), (0, 0), (31, 13)) for account in accounts]
    return shared + [(account, ORIGIN - timedelta(days=i % 5 * 61 + 7, microseconds=i)) for i, account in enumerate(accounts)]


@pytest.fixture(scope="module")
def spark(spark_settings):
    with SparkEngine(spark_settings) as engine:
        yield engine
    gc.collect()


@pytest.fixture(scope="module")
def duckdb():
    with Engine(threads=1) as engine:
        yield engine


@pytest.fixture(autouse=True)
def small_groups(monkeypatch):
    monkeypatch.setattr(peers, "MINIMUM_PEERS", 3)


@pytest.mark.parametrize("recipe", [LARGE, BARE], ids=["every column", "required columns"])
def test_every_feature_is_that_of_duckdb(recipe, spark, duckdb):
    world, pairs = recipe.world(), pairs_of(recipe)
    catalogue = catalogue_of(world)
    expected = build_matrix(known_tables(duckdb, world, pairs), as_spine(pairs), catalogue)
    found = spark.to_arrow(matrix_query(known_tables(spark, world, pairs), catalogue).order_by("row")).drop("row")
    assert differing(found, expected) == []


def differing(found, expected):
    """Return the columns that are not the same in two tables, to the bit and in their type."""
    assert found.column_names == expected.column_names
    return [name for name in expected.column_names if not found[name].equals(expected[name])]


@pytest.mark.parametrize(("kind", "measure"), [("subscription", "seats"), ("usage", "active_users"), ("usage", "events")])
def test_labels_and_customers_are_those_of_duckdb(kind, measure, spark, duckdb):
    world, pairs = LARGE.world(), pairs_of(LARGE)
    spine, change = as_spine(pairs), ChangeTarget(measure=measure)
    targets = Targets(kind=kind, lead_days=7, expansion=change, contraction=change)
    on_spark, on_duckdb = (known_tables(engine, world, pairs) for engine in (spark, duckdb))
    assert eligible_rows(on_spark, targets, n_rows=len(spine)).tolist() == eligible_rows(on_duckdb, targets, n_rows=len(spine)).tolist()
    found, expected = (build_labels(known, spine, targets, data_until=ORIGIN + timedelta(days=100)) for known in (on_spark, on_duckdb))
    assert differing(found, expected) == []
    assert 0 < found["churn"].null_count < len(found)


def test_groups_and_movements_are_those_of_duckdb(spark, duckdb):
    world, pairs = LARGE.world(), pairs_of(LARGE)
    on_spark, on_duckdb = (known_tables(engine, world, pairs) for engine in (spark, duckdb))
    known_tables(spark, world, pairs[-3:])  # other rows, whose tables do not take the place of the first ones
    assert build_groups(on_spark, as_spine(pairs)).equals(build_groups(on_duckdb, as_spine(pairs)))
    end = {"data_until": ORIGIN + timedelta(days=130), "grace_days": 30}
    found, expected = (build_movements(known.engine, known.tables, **end) for known in (on_spark, on_duckdb))
    assert len(found)
    assert found.equals(expected)


# A workspace on Spark beside the same one on DuckDB

NOW = datetime(2024, 6, 2)
TOML = """
[workspace]
name = "Lake"
data = "{data}"
data_until = 2024-05-15
{engine}
[tables.accounts]
{accounts}
quarantine_limit = 0.2
[tables.accounts.attributes]
joined = {{ type = "date", column = "created_at" }}

[tables.telemetry]
source = "telemetry"
where = "event <> 'noise'"
[tables.telemetry.columns]
occurred_at = "at"
event = {{ sql = "event || ' '" }}

[tables.subscriptions]
source = "subscriptions/*.parquet"

[currencies]
EUR = 1.25

[targets]
kind = "subscription"
horizon_days = 60
grace_days = 0

[cutoffs]
first = 2024-01-01

[features]
top_events = 1
"""
SETTINGS = """
[spark]
lake = "{lake}"
sample_rows = {sample_rows}
[spark.settings]
"spark.master" = "local[2]"
"""


def write_lake(folder, spark):
    """Write the small book as Parquet, telemetry in partitions and accounts as a table of the catalogue too, each with broken rows."""
    write_book(folder / "csv")
    accounts, telemetry, terms = (pd.read_csv(folder / "csv" / f"{name}.csv") for name in ("accounts", "telemetry", "subscriptions"))
    telemetry["event"] = telemetry["event"].replace({"open": "view of", "save": "f\tv"})
    accounts["created_at"] = pd.to_datetime(accounts["created_at"])
    accounts["employees"] = np.where(accounts.index % 5 == 0, -1.0, accounts.index % 40)
    accounts = pd.concat([accounts, accounts.iloc[[3]], pd.DataFrame({"account_id": [" ", None]})], ignore_index=True)
    del telemetry["user_id"], terms["seats"]  # fewer features are planned in less time
    telemetry["at"] = pd.to_datetime(telemetry.pop("occurred_at"))
    late = telemetry.iloc[:3].assign(at=pd.Timestamp("2030-01-01"))
    unknown = telemetry.iloc[3:5].assign(account_id="nobody")
    noise = telemetry.iloc[5:8].assign(event="noise")
    telemetry = pd.concat([telemetry, late, unknown, noise], ignore_index=True)
    terms["start_date"], terms["end_date"] = pd.to_datetime(terms["start_date"]), pd.to_datetime(terms["end_date"])
    terms["currency"] = np.where(terms.index % 3 == 0, "EUR", "USD")
    terms = pd.concat([terms, terms.iloc[[9]], terms.iloc[[7]].assign(end_date=pd.Timestamp("2020-01-01"))], ignore_index=True)
    for name, table in (("accounts", accounts), ("subscriptions", terms)):
        (folder / name).mkdir()
        pq.write_table(pa.Table.from_pandas(table, preserve_index=False), folder / name / "part.parquet", coerce_timestamps="us")
    for month, rows in telemetry.groupby(telemetry["at"].dt.strftime("%Y-%m")):
        (folder / "telemetry" / f"month={month}").mkdir(parents=True)
        table = pa.Table.from_pandas(rows, preserve_index=False)
        pq.write_table(table, folder / "telemetry" / f"month={month}" / "part.parquet", coerce_timestamps="us")
    spark.session.sql("CREATE DATABASE IF NOT EXISTS lake")
    spark.session.read.parquet(str(folder / "accounts")).write.mode("overwrite").saveAsTable("lake.accounts")
    return folder


def workspace_of(folder, data, *, engine, sample_rows=1_000_000):
    folder.mkdir()
    on_spark = engine == "spark"
    accounts = 'database = "spark"\ntable = "lake.accounts"' if on_spark else 'source = "accounts/part.parquet"'
    text = TOML.format(data=data, engine=f'engine = "{engine}"', accounts=accounts)
    more = SETTINGS.format(lake=folder / "lake", sample_rows=sample_rows) if on_spark else ""
    (folder / "renewcast.toml").write_text(text + more, encoding="utf-8")
    workspace = load_workspace(folder, {})
    workspace.state.mkdir()
    return workspace


@pytest.fixture(scope="module")
def lake(tmp_path_factory, spark):
    return write_lake(tmp_path_factory.mktemp("lake"), spark)


@pytest.fixture(scope="module")
def on_duckdb(tmp_path_factory, lake):
    workspace = workspace_of(tmp_path_factory.mktemp("duckdb") / "book", lake, engine="duckdb")
    return workspace, check_workspace(workspace, now=NOW), prepare_workspace(workspace)


@pytest.fixture(scope="module")
def on_spark(tmp_path_factory, lake):
    workspace = workspace_of(tmp_path_factory.mktemp("spark_book") / "book", lake, engine="spark", sample_rows=200)
    return workspace, check_lake(workspace, now=NOW), prepare_lake(workspace, now=NOW)


def test_a_lake_is_checked_by_the_same_rules_where_it_lies(on_spark, on_duckdb):
    (_, found, _), (_, expected, _) = on_spark, on_duckdb
    assert (found.data_from, found.data_until) == (expected.data_from, expected.data_until)
    for here, there in zip(found.tables, expected.tables, strict=True):
        assert (here.table, here.rows_in, here.rows_out, here.blanked) == (there.table, there.rows_in, there.rows_out, there.blanked)
    reasons = {table.table: table.reasons for table in found.tables}
    assert reasons == {
        "accounts": {"account_id: empty": 2, "account_id: used by another row": 1},
        "telemetry": {"occurred_at: in the future": 3, "account_id: unknown account": 2},
        "subscriptions": {"end_date: before start_date": 1, "subscription_id, start_date: used by another row": 1},
    }


def test_snapshots_in_the_lake_are_those_of_duckdb_in_a_folder_for_each_cutoff(on_spark, on_duckdb, spark):
    (workspace, _, summary), (other, _, expected) = on_spark, on_duckdb
    assert summary == expected
    assert (workspace.snapshots / "catalogue.json").read_bytes() == (other.snapshots / "catalogue.json").read_bytes()
    for name in ("features", "labels", "groups"):
        there = pq.read_table(other.snapshots / f"{name}.parquet")
        folder = workspace.folder / "lake" / name
        days = {f"{PARTITION}={cutoff:%Y-%m-%d}" for cutoff in there["cutoff"].unique().to_pylist()}
        assert {path.name for path in folder.iterdir() if path.is_dir()} == days
        found = spark.to_arrow(spark.read_parquet(str(folder)))
        key = [("cutoff", "ascending"), ("account_id", "ascending")]
        found, there = found.select(there.column_names).sort_by(key), there.sort_by(key)
        assert differing(found, there) == []


def test_whole_accounts_and_all_that_are_scored_come_to_this_machine(on_spark, on_duckdb):
    (workspace, _, summary), (other, _, _) = on_spark, on_duckdb
    found, whole = (pd.read_parquet(one.snapshots / "features.parquet") for one in (workspace, other))
    now = whole["cutoff"] == pd.Timestamp(summary.scoring_cutoff)
    labels, groups = (pd.read_parquet(workspace.snapshots / f"{name}.parquet") for name in ("labels", "groups"))
    sampled = labels[labels["cutoff"] != pd.Timestamp(summary.scoring_cutoff)]
    assert 150 < len(sampled) <= 200
    earlier = whole["cutoff"] == pd.Timestamp("2024-02-01")  # 104 days before; 2024-03-01 lies 75 days before
    earlier |= (whole["cutoff"] == pd.Timestamp("2024-03-01")) & ~whole["account_id"].isin(whole["account_id"][earlier])
    earlier &= whole["account_id"].isin(whole["account_id"][now])
    drawn = whole["account_id"].isin(sampled["account_id"])
    kept = whole[now | earlier | drawn].reset_index(drop=True)
    assert earlier.sum() > 50
    pd.testing.assert_frame_equal(found, kept, check_exact=True)
    held = whole.loc[now | drawn, ["account_id", "cutoff"]].reset_index(drop=True)
    for keys in (labels, groups):
        pd.testing.assert_frame_equal(keys[["account_id", "cutoff"]], held)
    assert pq.read_table(workspace.snapshots / "movements.parquet").equals(pq.read_table(other.snapshots / "movements.parquet"))
    assert (workspace.snapshots / "probes.json").exists()


def package_of(workspace):
    """Train a small model of churn on what came to this machine."""
    catalogue = read_catalogue(workspace.snapshots / "catalogue.json")
    parameters = {"num_leaves": 7, "min_data_in_leaf": 5}
    return small_package(workspace.snapshots, catalogue, parameters=parameters, trees=20, horizon_days=60)


@pytest.fixture(scope="module")
def champion(on_spark):
    package = package_of(on_spark[0])
    package.save(champion_folder(on_spark[0], "churn"))
    return package


def test_scores_and_their_parts_in_the_lake_are_those_of_this_machine(on_spark, champion, spark):
    workspace, _, summary = on_spark
    package = champion
    scored = score_lake(workspace)
    assert (scored.cutoff, scored.accounts, scored.packages) == (summary.scoring_cutoff, summary.accounts_to_score, {"churn": package.hash})
    rows = pd.read_parquet(workspace.snapshots / "features.parquet")
    rows = rows[rows["cutoff"] == pd.Timestamp(scored.cutoff)].sort_values("account_id")
    found = spark.to_arrow(spark.read_parquet(f"{scored.folder}/churn").order_by("account_id")).to_pandas()
    assert found["account_id"].tolist() == rows["account_id"].tolist()
    assert set(found[PARTITION]) == {f"{scored.cutoff:%Y-%m-%d}"}
    expected, parts = package.score_rows(rows), package.explain_rows(rows)
    assert len(np.unique(expected.raw)) > 20
    assert found["raw"].tolist() == expected.raw.tolist()
    assert found["probability"].tolist() == expected.probability.tolist()
    assert np.array_equal(np.column_stack([np.stack(found["parts"].to_list()), found["base"]]), parts)


def test_tables_of_one_name_stay_what_they_were(spark):
    held = [spark.hold(pa.table({"value": [value]}), name="numbers") for value in (1, 2, 3)]
    kept = [spark.table(table.mutate(value=table.value * 10), name="products") for table in held]
    assert [spark.to_arrow(table)["value"].to_pylist() for table in (*held, *kept)] == [[1], [2], [3], [10], [20], [30]]


def test_a_write_that_fails_leaves_what_was_there_and_one_that_succeeds_all_of_the_new(spark, tmp_path):
    folder, days = str(tmp_path / "lake" / "numbers"), ("2024-01-01", "2024-02-01")
    first = spark.hold(pa.table({"value": [1, 2, 3], "day": [*days, "2023-12-01"]}), name="first_write")
    spark.write_partitioned(first, folder, by="day", values={*days, "2023-12-01"})
    second = spark.hold(pa.table({"value": [4, 5], "day": list(days)}), name="second_write")
    failing = second.mutate(value=(second.day == days[1]).ifelse("no number", "6").cast("int64"))
    with pytest.raises(spark.refusal):
        spark.write_partitioned(failing, folder, by="day", values=set(days))
    assert spark.to_arrow(spark.read_parquet(folder).order_by("value"))["value"].to_pylist() == [1, 2, 3]
    spark.write_partitioned(second, folder, by="day", values=set(days))
    assert spark.to_arrow(spark.read_parquet(folder).order_by("value")).to_pylist() == [
        {"value": 4, "day": days[0]},
        {"value": 5, "day": days[1]},
    ]


def test_a_book_in_a_lake_is_shown_like_one_on_this_machine(on_spark, on_duckdb, champion):
    (workspace, _, _), (other, _, _) = on_spark, on_duckdb
    champion.save(champion_folder(other, "churn"))
    sets = []
    for book in (workspace, other):
        score_workspace(book)
        sets.append(load_score_set(book.scores))
    found, expected = sets
    assert found.manifest.sources == expected.manifest.sources
    assert len(expected) > 50
    for part in ("accounts", "values", "earlier"):
        here, there = (pd.DataFrame(dict(getattr(one, part))) for one in sets)
        pd.testing.assert_frame_equal(here, there, check_exact=True)
    with pytest.raises(ConfigError, match="an earlier cutoff cannot be scored on Spark"):
        score_workspace(workspace, cutoff=datetime(2024, 3, 1))


def test_the_steps_of_the_command_do_it_on_spark_and_not_twice(on_spark, champion, monkeypatch):
    workspace, checked, prepared = on_spark
    monkeypatch.setattr("features.lake.check_lake", lambda *_, **__: checked)
    monkeypatch.setattr("features.lake_snapshots.prepare_lake", lambda *_, **__: prepared)
    how = {"on_progress": silent, "clock": lambda: 0.0}
    assert run_step(STEPS["check"], workspace, **how).place == workspace.check_report
    assert run_step(STEPS["features"], workspace, **how).place == workspace.snapshots
    Ledger(workspace.ledger).record("train", "trained", {})
    first, second = (run_step(STEPS["score"], workspace, **how) for _ in range(2))
    assert first.line.startswith(f"{prepared.accounts_to_score} accounts scored as of 2024-05-15: ")
    assert first.line.endswith(f"; in the lake too: {workspace.folder / 'lake' / 'scores'}")
    assert (first.unchanged, second.unchanged) == (False, True)
    assert first.summary["packages"] == {"churn": champion.hash}
    assert load_score_set(workspace.scores).manifest.version == first.summary["version"]


def test_a_damaged_package_is_not_believed_by_a_worker_either(on_spark, champion):
    files = {file.name: file.read_bytes() for file in champion_folder(on_spark[0], "churn").iterdir()}
    files["model.txt"] = files["model.txt"].replace(b"leaf_value=", b"leaf_value=9", 1)
    with pytest.raises(PackageError, match="damaged"):
        next(score_batches(files)(iter([])))


CORRECT = 'source = "accounts/part.parquet"'
WRONG = {
    "a table that is not there": (CORRECT, 'database = "spark"\ntable = "lake.nothing"', SourceError),
    "files that are no Parquet": (CORRECT, 'source = "csv/accounts.csv"', SourceError),
    "text for a time": (CORRECT, 'source = "accounts/part.parquet"\ncolumns = { created_at = "segment" }', ContractError),
    "a column that is not there": (CORRECT, 'source = "accounts/part.parquet"\ncolumns = { account_id = "id" }', ContractError),
    "SQL of another engine": ("event || ' '", "event::VARCHAR::ENUM('a')", ConfigError),
    "a currency without a rate": ("EUR = 1.25", "", ConfigError),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_spark_cannot_read_is_answered_with_the_place_and_what_to_do(wrong, lake, spark, tmp_path):
    given, changed, error = WRONG[wrong]
    workspace = changed_workspace(tmp_path, lake, given, changed)
    with pytest.raises(error, match=r"(?s)given:.*(Look|Write|Convert|Name|Add)"):
        open_lake(spark, workspace, now=NOW)


def changed_workspace(tmp_path, lake, given, changed):
    """Make a workspace on Spark with one change of its config."""
    workspace = workspace_of(tmp_path / "book", lake, engine="duckdb")
    file = workspace.folder / "renewcast.toml"
    text = file.read_text(encoding="utf-8").replace('engine = "duckdb"', 'engine = "spark"')
    assert given in text
    file.write_text(text.replace(given, changed), encoding="utf-8")
    return load_workspace(workspace.folder, {})


def test_a_lake_with_too_many_broken_rows_stops_the_run_and_is_counted_all_the_same(lake, spark, spark_settings, tmp_path):
    workspace = changed_workspace(tmp_path, lake, "quarantine_limit = 0.2", "quarantine_limit = 0.001")
    with pytest.raises(QuarantineError, match=r"(?s)accounts.*3 of 153 rows.*account_id: used by another row"):
        check_lake(workspace, now=NOW)
    assert json.loads(workspace.check_report.read_text(encoding="utf-8"))["tables"][0]["quarantined"] == 3


def test_what_partners_contributed_is_read_with_the_lake(lake, spark, tmp_path):
    workspace = changed_workspace(tmp_path, lake, 'engine = "spark"', 'engine = "spark"')
    row = {"account_id": "a001", "occurred_at": datetime(2024, 3, 1), "channel": "email"}
    rows = pa.table({name: pa.array([value]) for name, value in row.items()})
    write_contribution(workspace, "c1", rows, partner_id="p1", received_at=datetime(2024, 3, 5))
    (found,) = spark.to_arrow(open_lake(spark, workspace, now=NOW)["engagement"]).to_pylist()
    assert (found["account_id"], found["source"], found["known_at"]) == ("a001", "p1", datetime(2024, 3, 5))


@pytest.mark.parametrize(
    ("lake", "place"),
    [("s3a://acme/renewcast/", "s3a://acme/renewcast/labels"), ("dbfs:/acme", "dbfs:/acme/labels"), ("far", "{}/far/labels")],
)
def test_a_lake_is_an_address_or_a_path_seen_from_the_workspace(lake, place, tmp_path):
    text = '[spark]\nlake = "{}"\n[tables.accounts]\nsource = "a.csv"\n[tables.telemetry]\nsource = "t.csv"\n[tables.subscriptions]\n'
    (tmp_path / "renewcast.toml").write_text(text.format(lake) + 'source = "s.csv"\n', encoding="utf-8")
    assert lake_folder(load_workspace(tmp_path, {}), "labels") == place.format(tmp_path)


def test_a_sample_keeps_whole_accounts_and_stays_within_its_rows():
    accounts = [f"a{i}" for i in range(50) for _ in range(i % 7 + 1)]
    cutoffs = np.array([np.datetime64("2024-01-01") + np.timedelta64(j, "D") for i in range(50) for j in range(i % 7 + 1)], "M8[us]")
    end = datetime(2024, 1, 1)
    spine = Spine(pa.array(accounts), pa.array(cutoffs))
    rows = sampled_rows(spine, end, limit=60, seed=3)
    history = [row for row in rows if cutoffs[row] != np.datetime64(end)]
    assert 50 < len(history) <= 60
    drawn = {accounts[row] for row in history}
    assert {row for row in range(len(accounts)) if accounts[row] in drawn or cutoffs[row] == np.datetime64(end)} == set(rows.tolist())
    assert sampled_rows(spine, end, limit=len(accounts), seed=3).tolist() == list(range(len(accounts)))


def test_without_pyspark_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyspark.sql", None)
    with pytest.raises(SourceError, match=r"renewcast\[spark\]"):
        SparkEngine()


def test_a_table_of_spark_needs_a_workspace_on_spark(lake, tmp_path):
    workspace = changed_workspace(tmp_path, lake, CORRECT, 'database = "spark"\ntable = "lake.accounts"')
    file = workspace.folder / "renewcast.toml"
    file.write_text(file.read_text(encoding="utf-8").replace('engine = "spark"', ""), encoding="utf-8")
    with pytest.raises(ConfigError, match=r'engine = "spark"'):
        load_workspace(workspace.folder, {})
