"""Reads `renewcast.toml` section by section, and answers every mistake with the key, what was given and what is allowed."""

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from ipaddress import ip_network
from typing import get_args

from features.config import (
    PLAUSIBLE_AUC,
    ChangeTarget,
    Config,
    Cutoffs,
    EngineName,
    Features,
    Measure,
    Oidc,
    Serving,
    ServingLimits,
    Spark,
    TableConfig,
    Targets,
    Tracking,
    Training,
)
from features.feature import Target
from features.section import REQUIRED, Section
from features.table_declarations import Locate, read_tables

__all__ = ["read_config"]


def read_config(file: Section, *, locate: Locate, environ: Mapping[str, str]) -> Config:
    """Read the whole file.

    Parameters
    ----------
    locate
        Makes a path of what a key says.
    environ
        Where the addresses of databases are looked up.

    Raises
    ------
    ConfigError
        If a key is unknown, missing or impossible.
    """
    workspace = file.section("workspace")
    limit = workspace.number("quarantine_limit", 0.05, low=0, high=1)
    tables = read_tables(file.section("tables"), limit=limit, locate=locate, environ=environ)
    config = Config(
        name=workspace.text("name", file.file.absolute().parent.name),
        currency=workspace.text("currency", "USD").upper(),
        currencies=_currencies(file.section("currencies")),
        quarantine_limit=limit,
        data_until=workspace.instant("data_until"),
        tables=tables,
        targets=_targets(file.section("targets"), tables),
        cutoffs=_cutoffs(file.section("cutoffs")),
        training=_training(file.section("training")),
        features=_features(file.section("features")),
        mlflow=_tracking(file.section("mlflow")),
        serving=_serving(file.section("serving"), environ),
        engine=workspace.choice("engine", get_args(EngineName), "duckdb"),
        spark=_spark(file.section("spark"), environ),
        memory_gigabytes=workspace.number("memory_gigabytes", 4.0, low=0.5),
    )
    _refuse_without_spark(config, file)
    workspace.get("data", None)
    workspace.refuse_others()
    file.refuse_others()
    return config


def _currencies(section: Section) -> dict[str, float]:
    rates = {}
    for code in section.values:
        rates[code.upper()] = rate = section.number(code, low=0)
        if rate == 0:
            raise section.wrong(code, "is a rate of zero", given=0, allowed="what one unit is worth in the workspace's currency")
    return rates


def _targets(section: Section, tables: Mapping[str, TableConfig]) -> Targets:
    kind = section.choice("kind", ("subscription", "usage"), "subscription" if "subscriptions" in tables else "usage")
    if kind == "subscription" and "subscriptions" not in tables:
        todo = 'Add [tables.subscriptions], or write kind = "usage".'
        raise section.wrong("kind", "is subscription, but there is no subscriptions table", given=", ".join(tables), todo=todo)
    measure: Measure = "arr" if kind == "subscription" else "active_users"
    targets = Targets(
        kind=kind,
        horizon_days=section.whole("horizon_days", 90, low=1, high=730),
        lead_days=section.whole("lead_days", 0, low=0, high=365),
        grace_days=section.whole("grace_days", 30, low=0, high=365),
        eligible_events=section.whole("eligible_events", 1, low=1),
        eligible_days=section.whole("eligible_days", 182, low=1, high=3650),
        expansion=_change(section.section("expansion"), measure, tables),
        contraction=_change(section.section("contraction"), measure, tables),
    )
    section.refuse_others()
    return targets


def _change(section: Section, measure: Measure, tables: Mapping[str, TableConfig]) -> ChangeTarget:
    change = ChangeTarget(
        measure=section.choice("measure", get_args(Measure), measure),
        threshold=section.number("threshold", 0.05, low=0),
        minimum_change=section.number("minimum_change", 0.0, low=0),
    )
    needed = "subscriptions" if change.measure in ("arr", "seats") else "telemetry"
    if needed not in tables:
        raise section.wrong("measure", f"needs the table {needed}", given=change.measure, todo=f"Add [tables.{needed}].")
    section.refuse_others()
    return change


def _cutoffs(section: Section) -> Cutoffs:
    every = section.get("every", "month")
    if isinstance(every, dict):
        days = section.section("every")
        every = days.whole("days", low=1, high=365)
        days.refuse_others()
    else:
        every = section.choice("every", ("month", "week", "renewal"), "month")
    cutoffs = Cutoffs(
        every=every,
        first=section.instant("first"),
        last=section.instant("last"),
        before_renewal_days=section.whole("before_renewal_days", 90, low=0, high=365),
    )
    _in_order(section, "first", cutoffs.first, "last", cutoffs.last)
    section.refuse_others()
    return cutoffs


def _in_order(section: Section, first: str, start: datetime | None, last: str, end: datetime | None) -> None:
    if start is not None and end is not None and end < start:
        raise section.wrong(last, f"lies before {first}", given=f"{first} = {start:%Y-%m-%d}, {last} = {end:%Y-%m-%d}")


def _training(section: Section) -> Training:
    parameters = section.section("parameters")
    training = Training(
        test_from=section.instant("test_from"),
        test_to=section.instant("test_to"),
        folds=section.whole("folds", 4, low=1, high=12),
        minimum_positives=section.whole("minimum_positives", 50, low=1),
        seed=section.whole("seed", 0, low=0),
        trials=section.whole("trials", 0, low=0),
        plausible_auc=_plausible(section.section("plausible_auc")),
        health_score=section.text("health_score", None),
        parameters={target: _parameters(parameters.section(target)) for target in get_args(Target)},
    )
    _in_order(section, "test_from", training.test_from, "test_to", training.test_to)
    parameters.refuse_others()
    section.refuse_others()
    return training


def _plausible(section: Section) -> dict[str, float]:
    limits = {}
    for target, usual in PLAUSIBLE_AUC.items():
        limits[target] = limit = section.number(target, usual, low=0.5, high=1)
        if limit == 0.5:
            raise section.wrong(target, "is the AUC of chance", given=limit, allowed="above 0.5, up to 1")
    section.refuse_others()
    return limits


def _parameters(section: Section) -> dict[str, float | int | str]:
    for key, value in section.values.items():
        if not isinstance(value, int | float | str):
            raise section.wrong(key, "is not a number or a text", given=value, allowed="parameters of LightGBM")
    return dict(section.values)


def _features(section: Section) -> Features:
    features = Features(
        events=section.texts("events", None),
        top_events=section.whole("top_events", 12, low=0, high=200),
        ratios=_ratios(section.section("ratios")),
        own=_files(section, "own"),
    )
    section.refuse_others()
    return features


def _files(section: Section, key: str) -> tuple[str, ...]:
    """Read one path or a list of them."""
    value = section.get(key, [])
    return tuple(section.texts(key, [])) if isinstance(value, list) else (section.text(key),)


def _ratios(section: Section) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    ratios = {}
    for name in section.values:
        part = section.section(name)
        ratios[name] = part.texts("above"), part.texts("below")
        part.refuse_others()
    return ratios


def _tracking(section: Section) -> Tracking:
    tracking = Tracking(tracking_uri=section.text("tracking_uri", None))
    section.refuse_others()
    return tracking


def _serving(section: Section, environ: Mapping[str, str]) -> Serving:
    plain = Serving()
    serving = Serving(
        host=section.text("host", plain.host),
        port=section.whole("port", plain.port, low=1, high=65535),
        address=_address(section),
        trusted_proxies=_networks(section, plain.trusted_proxies),
        workers=section.whole("workers", plain.workers, low=1, high=64),
        drain_seconds=section.number("drain_seconds", plain.drain_seconds, low=0, high=3600),
        keep_score_sets=section.whole("keep_score_sets", plain.keep_score_sets, low=2, high=10_000),
        limits=_limits(section.section("limits")),
        database=section.filled("database", environ),
        oidc=_oidc(section.section("oidc"), environ),
    )
    section.refuse_others()
    return serving


def _spark(section: Section, environ: Mapping[str, str]) -> Spark:
    plain, settings = Spark(), section.section("settings")
    spark = Spark(
        settings={key: settings.filled(key, environ) for key in settings.values},
        lake=section.filled("lake", environ),
        sample_rows=section.whole("sample_rows", plain.sample_rows, low=1),
    )
    settings.refuse_others()
    section.refuse_others()
    return spark


def _refuse_without_spark(config: Config, file: Section) -> None:
    if config.engine == "spark":
        return
    for table in config.tables.values():
        if any(source.database == "spark" for source in table.sources):
            section = Section(file.file, f"tables.{table.table}", {})
            raise section.wrong("database", "is Spark, but the workspace does not run on it", todo='Write engine = "spark" in [workspace].')


def _oidc(section: Section, environ: Mapping[str, str]) -> Oidc | None:
    if not section.values:
        return None
    plain = Oidc(issuer=section.filled("issuer", environ, REQUIRED), audience=section.filled("audience", environ, REQUIRED))
    oidc = replace(
        plain,
        jwks=section.filled("jwks", environ),
        algorithms=section.texts("algorithms", plain.algorithms),
        leeway_seconds=section.whole("leeway_seconds", plain.leeway_seconds, low=0, high=300),
        subject_claim=section.text("subject_claim", plain.subject_claim),
        caller_claim=section.text("caller_claim", plain.caller_claim),
        callers=_texts(section.section("callers")),
        role_claim=section.text("role_claim", plain.role_claim),
        roles=_texts(section.section("roles")),
        client_id=section.filled("client_id", environ),
        scopes=section.texts("scopes", plain.scopes),
    )
    section.refuse_others()
    return oidc


def _address(section: Section) -> str | None:
    address: str | None = section.text("address", None)
    if address is not None and not re.fullmatch(r"https?://[^/?#\s@]+/?", address):
        todo = 'Write address = "https://renewcast.example.com".'
        raise section.wrong("address", "is not the address of a host", given=address, todo=todo)
    return address and address.rstrip("/")


def _networks(section: Section, plain: tuple[str, ...]) -> tuple[str, ...]:
    networks: tuple[str, ...] = section.texts("trusted_proxies", plain)
    for network in networks:
        try:
            ip_network(network)
        except ValueError as error:
            allowed = "addresses and networks, such as 10.0.0.7 and 10.1.0.0/16"
            raise section.wrong("trusted_proxies", f"holds no network: {error}", given=network, allowed=allowed) from error
    return networks


def _texts(section: Section) -> dict[str, str]:
    return {key: section.text(key) for key in section.values}


def _limits(section: Section) -> ServingLimits:
    plain = ServingLimits()
    limits = ServingLimits(
        body_megabytes=section.whole("body_megabytes", plain.body_megabytes, low=1, high=1024),
        header_seconds=section.number("header_seconds", plain.header_seconds, low=0.1, high=3600),
        body_seconds=section.number("body_seconds", plain.body_seconds, low=0.1, high=3600),
        request_seconds=section.number("request_seconds", plain.request_seconds, low=0.1, high=3600),
        database_seconds=section.number("database_seconds", plain.database_seconds, low=0.1, high=3600),
        in_flight=section.whole("in_flight", plain.in_flight, low=1, high=10_000),
        requests_per_minute=section.whole("requests_per_minute", plain.requests_per_minute, low=1, high=10_000_000),
        failures_per_minute=section.whole("failures_per_minute", plain.failures_per_minute, low=1, high=10_000_000),
    )
    section.refuse_others()
    return limits
