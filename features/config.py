"""What `renewcast.toml` says: where the tables are and how their columns map onto the contract, targets, cutoffs, training.

The classes are the settings that there are; `features.declarations` reads each from the section of the same name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal

__all__ = [
    "ATTRIBUTE",
    "PLAUSIBLE_AUC",
    "AttributeKind",
    "BeforeCreated",
    "ChangeTarget",
    "ColumnMap",
    "Config",
    "Cutoffs",
    "Database",
    "EngineName",
    "Features",
    "FileFormat",
    "Measure",
    "Oidc",
    "Serving",
    "ServingLimits",
    "Spark",
    "TableConfig",
    "TableSource",
    "Targets",
    "Tracking",
    "Training",
]

Measure = Literal["arr", "seats", "active_users", "events"]
FileFormat = Literal["parquet", "csv", "jsonl"]
Database = Literal["duckdb", "sqlite", "postgresql", "spark"]
EngineName = Literal["duckdb", "spark"]
AttributeKind = Literal["category", "number", "date"]
BeforeCreated = Literal["keep", "quarantine"]

ATTRIBUTE = "attribute_"
"""What the names of declared account attributes start with in the accounts table."""

PLAUSIBLE_AUC: Mapping[str, float] = {"churn": 0.95, "contraction": 0.97, "expansion": 0.98}
"""By target, the area under the ROC curve that no honest model of this kind has been seen to pass."""


@dataclass(frozen=True, kw_only=True)
class ColumnMap:
    """How one column of a contract table is derived from a source's columns: by exactly one of column, sql and constant.

    Parameters
    ----------
    sql
        An expression over the source's columns in DuckDB's SQL; in Spark's where the workspace runs on Spark.
    time_format
        How a time is written, in the codes of `strptime`; found out from the values if None.
    time_zone
        The zone of times that name none; UTC if None.
    low, high
        Bounds of plausible numbers, beside those of the contract.
    """

    name: str
    column: str | None = None
    sql: str | None = None
    constant: str | float | bool | datetime | None = None
    time_format: str | None = None
    time_zone: str | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class TableSource:
    """One place that rows of a table come from.

    Parameters
    ----------
    location
        A file, a folder or a glob, as an absolute path; the file of a DuckDB or SQLite database; None for PostgreSQL and Spark.
    format
        Format of the files; told from their names if None.
    database
        The kind of database, None for files.
    url, url_env
        Address of a PostgreSQL database, and the environment variable that it was found in.
    relation
        The table to read in the database, or in the catalogue of the Spark session.
    query
        SQL to read instead: run by the database (for `spark` by the session), or for files by DuckDB over a table `source` and the lookups.
    lookups
        Further files that a query over files may join, by name.
    where
        SQL condition over the source's columns; rows that do not meet it are left out.
    columns
        How columns are derived, by their contract name; what is not named is taken from a column of the same name.
    """

    table: str
    location: Path | None = None
    format: FileFormat | None = None
    database: Database | None = None
    url: str | None = field(default=None, repr=False, compare=False)
    url_env: str | None = None
    relation: str | None = None
    query: str | None = None
    lookups: Mapping[str, Path] = field(default_factory=dict)
    where: str | None = None
    columns: Mapping[str, ColumnMap] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TableConfig:
    """One table of the contract: its sources and how strictly it is checked.

    Parameters
    ----------
    quarantine_limit
        The share of rows that may be broken before the run fails.
    before_created_at
        What happens to rows that are older than their account: they are counted and kept, or go to quarantine.
    attributes
        Account attributes that the workspace declares, by name.
    """

    table: str
    sources: tuple[TableSource, ...]
    quarantine_limit: float
    before_created_at: BeforeCreated = "keep"
    attributes: Mapping[str, AttributeKind] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ChangeTarget:
    """When a change counts as an expansion or a contraction: by a share of the measure and at least by an amount."""

    measure: Measure
    threshold: float = 0.05
    minimum_change: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What is predicted, and for which accounts.

    Parameters
    ----------
    horizon_days, lead_days
        The label window is `(cutoff + lead, cutoff + lead + horizon]`.
    grace_days
        How long an account must stay without ARR to count as churned.
    eligible_events, eligible_days
        A usage-based account is scored if it had that many events in so many days before the cutoff.
    """

    kind: Literal["subscription", "usage"]
    horizon_days: int = 90
    lead_days: int = 0
    grace_days: int = 30
    eligible_events: int = 1
    eligible_days: int = 182
    expansion: ChangeTarget
    contraction: ChangeTarget


@dataclass(frozen=True, kw_only=True)
class Cutoffs:
    """When accounts are looked at: every month, week or so many days, or before each account's renewals."""

    every: Literal["month", "week", "renewal"] | int = "month"
    first: datetime | None = None
    last: datetime | None = None
    before_renewal_days: int = 90


@dataclass(frozen=True, kw_only=True)
class Training:
    """How models are trained and judged.

    Parameters
    ----------
    test_from, test_to
        The period on which the models are judged; the last cutoffs if None.
    folds
        Consecutive blocks into which the test period is cut; each is judged by a model trained on what was closed when it began.
    minimum_positives
        With fewer positive rows a target is not trained.
    trials
        How many recipes an Optuna search tries; 0 for the default one.
    plausible_auc
        By target, the area under the ROC curve above which a model counts as leaking.
    health_score
        The feature that holds the vendor's own rule-based health score, as a baseline; None if there is none.
    parameters
        LightGBM's, by target.
    """

    test_from: datetime | None = None
    test_to: datetime | None = None
    folds: int = 4
    minimum_positives: int = 50
    seed: int = 0
    trials: int = 0
    plausible_auc: Mapping[str, float] = field(default_factory=lambda: dict(PLAUSIBLE_AUC))
    health_score: str | None = None
    parameters: Mapping[str, Mapping[str, float | int | str]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Features:
    """Which kinds of events get features of their own: those named, or the most frequent ones; and which are set in relation.

    Parameters
    ----------
    ratios
        From a name to the kinds above and the kinds below the line, such as deals lost over deals lost and won.
    own
        Python files, seen from the workspace's folder, that declare further features.
    """

    events: tuple[str, ...] | None = None
    top_events: int = 12
    ratios: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = field(default_factory=dict)
    own: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Tracking:
    """The MLflow server; the workspace's own store if there is no address."""

    tracking_uri: str | None = None


@dataclass(frozen=True, kw_only=True)
class ServingLimits:
    """What one request may take; it is refused, or cut off, when it takes more.

    Parameters
    ----------
    body_megabytes
        How large a body may be.
    header_seconds, body_seconds
        How long a client may take to send the head of a request, and its body.
    request_seconds
        How long it may take until the answer begins.
    database_seconds
        How long the database may say nothing, to a connection or a statement, until it counts as one that does not answer.
    in_flight
        How many requests a worker answers at a time; who comes on top is told to come again.
    requests_per_minute
        How many requests each credential may send.
    failures_per_minute
        How many wrong credentials may come from one address.
    """

    body_megabytes: int = 32
    header_seconds: float = 10.0
    body_seconds: float = 30.0
    request_seconds: float = 60.0
    database_seconds: float = 5.0
    in_flight: int = 64
    requests_per_minute: int = 6000
    failures_per_minute: int = 30


@dataclass(frozen=True, kw_only=True)
class Oidc:
    """Whose bearer tokens are taken beside API keys, and what their claims say.

    Parameters
    ----------
    issuer, audience
        What the claims `iss` and `aud` of a token must be.
    jwks
        Address of the issuer's public keys; looked up in its discovery document if None.
    algorithms
        The signatures that are taken; only those with a public and a private key can be.
    leeway_seconds
        How far the issuer's clock and ours may be apart.
    subject_claim
        The claim that names the person.
    caller_claim, callers
        The claim that tells the vendor from the partners, and from its values to `vendor` or `partner:<partner_id>`; without entries the
        values have to say this themselves, and with entries no other value counts.
    role_claim, roles
        The claim that tells the role, and from its values to roles, in the same way.
    client_id, scopes
        As which client of the issuer people sign in to the pages, and what it is asked for; they sign in with links alone if None.
    """

    issuer: str
    audience: str
    jwks: str | None = None
    algorithms: tuple[str, ...] = ("RS256", "ES256")
    leeway_seconds: int = 60
    subject_claim: str = "sub"
    caller_claim: str = "renewcast_caller"
    callers: Mapping[str, str] = field(default_factory=dict)
    role_claim: str = "renewcast_role"
    roles: Mapping[str, str] = field(default_factory=dict)
    client_id: str | None = None
    scopes: tuple[str, ...] = ("openid",)


@dataclass(frozen=True, kw_only=True)
class Serving:
    """Where the service listens, and how it works.

    Parameters
    ----------
    address
        Where people find it if a proxy stands before it, such as `https://renewcast.example.com`; at host and port if None.
    trusted_proxies
        Addresses and networks of the proxies whose word counts on who asks, over HTTPS or not, and for which host.
    workers
        Processes that answer requests; one of two can die without anybody noticing.
    drain_seconds
        How long a service that is told to stop goes on answering while it says that it is no longer ready.
    keep_score_sets
        How many score sets are kept, the current one among them; older ones are removed when a new one is made.
    database
        Address of the PostgreSQL database that holds keys, sessions, the journal and what people contribute; a SQLite file if None.
    oidc
        The issuer of bearer tokens; only API keys are taken if None.
    """

    host: str = "127.0.0.1"
    port: int = 3000
    address: str | None = field(default=None, compare=False)
    trusted_proxies: tuple[str, ...] = ("127.0.0.1", "::1")
    workers: int = 2
    drain_seconds: float = 5.0
    keep_score_sets: int = 30
    limits: ServingLimits = ServingLimits()
    database: str | None = field(default=None, repr=False, compare=False)
    oidc: Oidc | None = field(default=None, compare=False)


@dataclass(frozen=True, kw_only=True)
class Spark:
    """How a workspace runs on Spark.

    Parameters
    ----------
    settings
        Settings of the session, such as `spark.master`.
    lake
        Where snapshots and scores are written, partitioned: a path or an address such as `s3a://...`; below `.renewcast/` if None.
    sample_rows
        How many rows of past cutoffs are brought to this machine at most, as whole accounts: what models are trained on.
    """

    settings: Mapping[str, str] = field(default_factory=dict)
    lake: str | None = None
    sample_rows: int = 2_000_000


@dataclass(frozen=True, kw_only=True)
class Config:
    """All that `renewcast.toml` says.

    Parameters
    ----------
    currency
        The workspace's currency; `currencies` holds what one unit of another one is worth in it.
    quarantine_limit
        The share of a table's rows that may be broken, where the table says nothing else.
    data_until
        The end of the data, in UTC; the latest known time in the data if None.
    engine
        What computes features and labels: DuckDB on this machine, or Spark where the tables lie.
    memory_gigabytes
        What queries on this machine may hold in memory before they go on to disk.
    """

    name: str
    currency: str
    currencies: Mapping[str, float]
    quarantine_limit: float
    data_until: datetime | None
    tables: Mapping[str, TableConfig]
    targets: Targets
    cutoffs: Cutoffs
    training: Training
    features: Features
    mlflow: Tracking
    serving: Serving
    engine: EngineName = "duckdb"
    spark: Spark = Spark()
    memory_gigabytes: float = 4.0
