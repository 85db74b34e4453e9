"""What comes to this machine of a lake's tables, against the whole tables: every lookup finds the same."""

from datetime import datetime, timedelta

import pandas as pd
import pyarrow.parquet as pq
import pytest

from features.absence import features_without, supplied_features, supplied_rows
from features.engagement import engagement_features
from features.engine import Engine
from features.lake_copies import copy_book_tables
from features.plan import open_tables
from features.simulate import WorldSettings, simulate_workspace
from features.workspace import load_workspace
from serving.commands.steps import run_steps
from serving.permissions.assignments import Assignments
from serving.permissions.partner_facts import read_partners, read_supplies, read_terms
from serving.scores.facts import read_facts, read_sources

END = datetime(2025, 10, 1)


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated") / "book"
    simulate_workspace(folder, WorldSettings(accounts=60, seed=5))
    workspace = load_workspace(folder, {})
    run_steps(workspace, until="check")
    return workspace.tables


@pytest.fixture(scope="module")
def copies(tables, tmp_path_factory):
    folder = tmp_path_factory.mktemp("copies") / "book"
    with Engine() as engine:
        copy_book_tables(engine, open_tables(engine, tables), folder, end=END)
    return folder


def test_little_of_the_events_is_copied(tables, copies):
    with Engine() as engine:
        rows = {name: engine.count(table) for name, table in open_tables(engine, tables).items()}
    copied = {name: pq.read_metadata(copies / f"{name}.parquet").num_rows for name in rows}
    assert {name for name in rows if copied[name] == rows[name]} >= {"accounts", "subscriptions", "partners", "assignments"}
    assert copied["telemetry"] <= copied["accounts"] < rows["telemetry"] / 100
    assert copied["tickets"] < rows["tickets"] / 5


def test_facts_and_freshness_are_those_of_the_whole_tables(tables, copies):
    with Engine() as engine:
        found, expected = (read_facts(engine, folder, END).sort_index() for folder in (copies, tables))
        pd.testing.assert_frame_equal(found, expected)
        assert read_sources(engine, copies, END) == read_sources(engine, tables, END)


def test_partners_and_what_they_supplied_are_those_of_the_whole_tables(tables, copies):
    assert read_partners(copies) == read_partners(tables)
    assert read_terms(copies) == read_terms(tables)
    accounts = pq.read_table(tables / "accounts.parquet")["account_id"].to_pylist()
    assignments = Assignments.of(read_terms(tables), accounts)
    earlier = [END - timedelta(days=92)] * len(accounts)
    found, expected = (sorted(read_supplies(folder, accounts, assignments, cutoff=END, earlier_at=earlier)) for folder in (copies, tables))
    assert found == expected
    assert expected


def test_the_worth_of_what_was_supplied_can_be_computed_from_the_copies(tables, copies):
    found = []
    for folder in (copies, tables):
        with Engine() as engine:
            opened = open_tables(engine, folder)
            supplied = supplied_rows(engine, opened, cutoff=END)
            catalogue = supplied_features(opened["engagement"].columns, [feature.name for feature in engagement_features()])
            pairs = [(one.account_id, one.partner_id) for one in supplied]
            without = features_without(engine, opened["engagement"], pairs, cutoff=END, catalogue=catalogue)
            found.append((supplied, without))
    assert found[0][0] == found[1][0]
    assert found[0][0]
    assert found[0][1].equals(found[1][1])
