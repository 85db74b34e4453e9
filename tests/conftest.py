"""Fixtures that several test files share: small books of snapshots with a known truth."""

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, settings

from features.catalogue import Catalogue
from features.feature import Feature
from features.workspace import Workspace, load_workspace
from tests.feature_files import write_features
from tests.postgres import SERVING_ROLE, Postgres, postgres_programs

# how long an example takes tells how busy the machine is
settings.register_profile("unhurried", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    return _must_run((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    return _must_run((yield))


def _must_run(report):
    """Where RENEWCAST_NO_SKIP is set, fail what is skipped because something is missing; what a platform cannot do may be skipped."""
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("RENEWCAST_NO_SKIP"):
        reason = str(report.longrepr[-1]).removeprefix("Skipped: ")
        if not reason.startswith("platform: "):
            report.outcome = "failed"
            report.longrepr = f"RENEWCAST_NO_SKIP is set, and this was skipped: {reason}"
    return report


SYNTHETIC_TARGETS = ("churn", "contraction", "expansion")


WORKSPACE_CONFIG = """
[workspace]
name = "Synthetic"
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


def _feature(name, family, unit, *, kind="number", sensitivity="shared", actionable=False, **direction):
    return Feature(
        name=name,
        family=family,
        unit=unit,
        meaning=f"the {unit} that {name} counts",
        sentence="{moved}",
        expression=lambda rows: rows.count(),
        kind=kind,
        direction=direction,
        sensitivity=sensitivity,
        actionable=actionable,
    )


SYNTHETIC_CATALOGUE = Catalogue(
    (
        _feature("days_since_last_event", "usage", "days", churn=1),
        _feature("active_users_28d", "usage", "users", churn=-1, actionable=True),
        _feature("users_trend_28d", "usage", "ratio", expansion=1),
        _feature("days_to_renewal", "commercial", "days"),
        _feature("arr", "commercial", "USD"),
        _feature("discount", "commercial", "share", sensitivity="vendor"),
        _feature("partner_tier", "partner", "level", kind="category"),
        _feature("noise", "support", "tickets"),
    )
)


def synthetic_tables(*, accounts=300, months=18, seed=0, signal=1.0, base=-3.0):
    """Return features and labels of a book whose churn and expansion odds are known functions of the features."""
    rng = np.random.default_rng(seed)
    cutoffs = pd.date_range("2022-01-01", periods=months, freq="MS").to_numpy().astype("datetime64[us]")
    n = accounts * months
    trait = np.repeat(rng.normal(size=accounts), months)
    features = pd.DataFrame(
        {
            "account_id": np.repeat([f"a{i:04d}" for i in range(accounts)], months),
            "cutoff": np.tile(cutoffs, accounts),
            "days_since_last_event": rng.exponential(8, n).round(2),
            "active_users_28d": rng.poisson(np.exp(2 + 0.5 * trait)).astype(float),
            "users_trend_28d": rng.normal(0, 0.3, n),
            "days_to_renewal": rng.integers(0, 365, n).astype(float),
            "arr": np.repeat(rng.lognormal(9, 1, accounts), months),
            "discount": np.where(rng.random(n) < 0.3, np.nan, rng.random(n)),
            "partner_tier": rng.choice(np.array(["gold", "silver", "blue", None], dtype=object), n),
            "noise": np.where(rng.random(n) < 0.1, np.nan, rng.normal(size=n)),
        }
    )
    tier = features["partner_tier"].map({"gold": -1.0, "silver": 0.0, "blue": 1.4}).fillna(0.0)
    season = 1.5 * np.cos(features["days_to_renewal"] * 2 * np.pi / 120)  # what no line and no single rule can follow
    lost = base + signal * (0.12 * features["days_since_last_event"] - 0.12 * features["active_users_28d"] + tier + season + 0.5)
    grown = -2.5 + signal * (3.0 * features["users_trend_28d"] - 1.2 * tier - season)
    churn = (rng.random(n) < 1 / (1 + np.exp(-lost))).astype(float)
    expansion = np.where(churn == 1, np.nan, rng.random(n) < 1 / (1 + np.exp(-grown)))
    labels = features[["account_id", "cutoff", "arr"]].assign(
        churn=churn,
        contraction=np.where(churn == 1, np.nan, 0.0),
        expansion=expansion,
        arr_end=np.where(churn == 1, 0.0, features["arr"]),
    )
    closed = features["cutoff"] < cutoffs[-2]
    labels.loc[~closed, list(SYNTHETIC_TARGETS)] = np.nan
    return features, _with_renewals(labels, features["days_to_renewal"], np.random.default_rng([seed, 1]))


def _with_renewals(labels, days_to_renewal, rng):
    """Add when contracts were due, and when those that left did: mostly on that day, some on any other of the 60."""
    renewal = days_to_renewal.to_numpy()
    due = (renewal > 0) & (renewal <= 60)
    left = np.where(due & (rng.random(len(labels)) < 0.8), renewal, rng.integers(1, 61, len(labels)))
    lost = labels["churn"].to_numpy() == 1
    return labels.assign(
        renewal_at=(labels["cutoff"] + pd.to_timedelta(renewal, unit="D")).astype("datetime64[us]"),
        left_at=(labels["cutoff"] + pd.to_timedelta(left, unit="D")).astype("datetime64[us]").where(lost),
        nonrenewal=np.where(due & labels["churn"].notna(), (lost & (left <= renewal)).astype(float), np.nan),
    )


def synthetic_groups(features):
    """Return the groups of a book's rows: each account has one segment and, more often than not, one of twelve partners."""
    accounts, number = np.unique(features["account_id"], return_inverse=True)
    rng = np.random.default_rng(len(accounts))
    partner = np.where(rng.random(len(accounts)) < 0.7, rng.integers(0, 12, len(accounts)), -1)[number]
    managed = {
        "partner_id": [f"p{i:02d}" for i in range(12)],
        "partner_type": rng.choice(np.array(["msp", "agency", "reseller"], dtype=object), 12),
        "partner_tier": rng.choice(np.array(["gold", "silver", "blue"], dtype=object), 12),
    }
    return features[["account_id", "cutoff"]].assign(
        segment=rng.choice(np.array(["small", "midmarket", "enterprise"], dtype=object), len(accounts), p=(0.6, 0.3, 0.1))[number],
        region=rng.choice(np.array(["north", "south"], dtype=object), len(accounts))[number],
        industry=rng.choice(np.array(["bank", "shop", None], dtype=object), len(accounts))[number],
        **{name: np.where(partner < 0, None, np.asarray(levels, dtype=object)[partner]) for name, levels in managed.items()},
    )


def write_snapshots(folder: Path, features: pd.DataFrame, labels: pd.DataFrame, catalogue: Catalogue) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_features(folder, features)
    labels.to_parquet(folder / "labels.parquet", index=False)
    synthetic_groups(features).to_parquet(folder / "groups.parquet", index=False)
    (folder / "catalogue.json").write_text(catalogue.to_json(), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def synthetic_catalogue() -> Catalogue:
    return SYNTHETIC_CATALOGUE


@pytest.fixture(scope="session")
def make_snapshots() -> Callable[..., Path]:
    """Write a synthetic book's snapshots into a folder; options as of `synthetic_tables`."""

    def make(folder: Path, **options: float) -> Path:
        return write_snapshots(folder, *synthetic_tables(**options), SYNTHETIC_CATALOGUE)

    return make


@pytest.fixture(scope="session")
def synthetic_snapshots(tmp_path_factory: pytest.TempPathFactory, make_snapshots: Callable[..., Path]) -> Path:
    """The default synthetic book: 300 accounts, 18 monthly cutoffs of which the last two are censored. Read only."""
    return make_snapshots(tmp_path_factory.mktemp("snapshots"))


@pytest.fixture(scope="session")
def synthetic_package(synthetic_snapshots: Path):
    """A small churn package, trained on all labelled rows of the default synthetic book."""
    from tests.small_package import small_package

    return small_package(synthetic_snapshots, SYNTHETIC_CATALOGUE, parameters={"num_leaves": 7}, trees=40, horizon_days=90)


@pytest.fixture(scope="session")
def empty_mlflow_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ready-made empty MLflow store: making one takes seconds, copying it none."""
    from training.registry import open_registry

    folder = tmp_path_factory.mktemp("mlflow")
    open_registry(f"sqlite:///{folder}/mlflow.db", experiment="template", artifacts=folder)
    return folder / "mlflow.db"


@pytest.fixture(scope="session")
def finished_book(tmp_path_factory: pytest.TempPathFactory, empty_mlflow_store: Path) -> Path:
    """A small workspace on which the whole main job was done by the command. Read only."""
    from tests.small_book import run, write_book, write_config

    tables = write_book(tmp_path_factory.mktemp("tables"))
    workspace = write_config(tmp_path_factory.mktemp("finished"), tables)
    (workspace / ".renewcast").mkdir()
    shutil.copy(empty_mlflow_store, workspace / ".renewcast" / "mlflow.db")
    assert run("up", "--workspace", workspace, "--no-serve").exit_code == 0
    return workspace


@pytest.fixture
def book(tmp_path: Path, finished_book: Path) -> Path:
    """A copy of the finished workspace, over the same tables."""
    return Path(shutil.copytree(finished_book, tmp_path / "book"))


@pytest.fixture
def make_workspace(tmp_path: Path, empty_mlflow_store: Path, make_snapshots: Callable[..., Path]) -> Callable[..., Workspace]:
    """Make a workspace with the snapshots of a synthetic book and an empty MLflow store; `config` is added to its renewcast.toml."""

    def make(name: str = "workspace", *, config: str = "", **options: float) -> Workspace:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "renewcast.toml").write_text(WORKSPACE_CONFIG + config, encoding="utf-8")
        workspace = load_workspace(folder, {})
        make_snapshots(workspace.snapshots, **options)
        shutil.copy(empty_mlflow_store, workspace.mlflow_db)
        return workspace

    return make


@pytest.fixture(scope="session")
def scored_book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small book of the tests of serving, scored: copying it takes no time. Read only."""
    from serving.scores.batch import score_workspace
    from tests.serving_book import make_workspace

    workspace = make_workspace(tmp_path_factory.mktemp("scored"))
    score_workspace(workspace)
    return workspace.folder


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, scored_book: Path) -> Workspace:
    """The scored small book, for the tests of one module; as are what follows from it."""
    return load_workspace(Path(shutil.copytree(scored_book, tmp_path_factory.mktemp("book") / "book")), {})


@pytest.fixture(scope="module")
def score_set(workspace: Workspace):
    from serving.scores.scoring import load_score_set

    return load_score_set(workspace.scores)


@pytest.fixture(scope="module")
def app(workspace: Workspace):
    from serving.app import create_app

    return create_app(workspace)


@pytest.fixture(scope="module")
def client(app):
    from tests.serving_book import TestClient

    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def vendor(app) -> dict[str, str]:
    """The headers of requests with a key of the vendor's."""
    from serving.permissions.caller import VENDOR
    from tests.calls import as_caller

    return as_caller(app, VENDOR)


@pytest.fixture(scope="module")
def partner(app) -> dict[str, str]:
    """The headers of requests with a key of the partner p1's."""
    from serving.permissions.caller import Caller
    from tests.calls import as_caller

    return as_caller(app, Caller("p1"))


@pytest.fixture(scope="session")
def spark_settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What makes Spark small and quick to start; all tests of one process share the context that is made from these."""
    if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        pytest.skip("needs Java, on which Spark runs: apt-get install default-jre-headless")
    folder = tmp_path_factory.mktemp("spark")
    return {
        "spark.master": "local[2]",
        "spark.driver.memory": "1g",
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",  # quick to start rather than quick in the end
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.local.dir": str(folder),
        "spark.log.level": "ERROR",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.adaptive.enabled": "false",
        "spark.sql.codegen.wholeStage": "false",  # code for a hundred rows takes longer to compile than to run
        "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    }


@pytest.fixture(scope="session")
def make_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Postgres]]:
    """Make PostgreSQL servers that run, each of its own; they are gone after the tests."""
    programs = postgres_programs()
    if programs is None:
        pytest.skip("needs a PostgreSQL server: apt-get install postgresql")
    made: list[Postgres] = []

    def make() -> Postgres:
        server = Postgres(programs, tmp_path_factory.mktemp("postgres"))
        server.start()
        made.append(server)
        return server

    yield make
    for server in made:
        server.stop()


@pytest.fixture(scope="session")
def postgres_server(make_postgres: Callable[[], Postgres]) -> str:
    """Host and port of a PostgreSQL server for all tests that only use one."""
    return make_postgres().host


@pytest.fixture(scope="module")
def postgres(postgres_server: str) -> str:
    """The address of a new database for the tests of one module."""
    import psycopg

    name = f"test_{secrets.token_hex(6)}"
    with psycopg.connect(f"postgresql://reader@{postgres_server}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"postgresql://reader@{postgres_server}/{name}"


@pytest.fixture(scope="session")
def empty_sqlite_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with its tables, in a file: copying it takes no time. Read only."""
    from serving.records.store import upgrade_store

    file = tmp_path_factory.mktemp("store") / "renewcast.db"
    upgrade_store(file)
    return file


@pytest.fixture(scope="session")
def empty_postgres_store(postgres_server: str) -> str:
    """The name of a database with a store in it, to make copies of; the service's role may use it, and owns nothing."""
    import psycopg

    from serving.records.store import upgrade_store

    with psycopg.connect(f"postgresql://reader@{postgres_server}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {SERVING_ROLE} LOGIN")
        connection.execute("CREATE DATABASE store_template")
    upgrade_store(f"postgresql://reader@{postgres_server}/store_template", serving_role=SERVING_ROLE)
    return "store_template"


@pytest.fixture
def postgres_store(postgres_server: str, empty_postgres_store: str) -> Iterator[str]:
    """The address, for the service's role, of a new database with an empty store in it."""
    import psycopg

    name = f"store_{secrets.token_hex(6)}"
    with psycopg.connect(f"postgresql://reader@{postgres_server}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {empty_postgres_store}")
        yield f"postgresql://{SERVING_ROLE}@{postgres_server}/{name}"
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgresql"])
def store_address(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """Where an empty store is: once in a SQLite file, once in a PostgreSQL database under the service's role."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgres_store"))
    return Path(shutil.copy(request.getfixturevalue("empty_sqlite_store"), tmp_path / "renewcast.db"))


@pytest.fixture
def store(store_address: Path | str):
    """An empty store, on each kind of database."""
    from serving.records.store import open_store

    store = open_store(store_address)
    yield store
    store.dispose()
