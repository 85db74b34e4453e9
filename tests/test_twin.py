"""The check of a feature against its twin: what a twin is handed was known, and every difference is found."""

from datetime import datetime, timedelta

import pandas as pd
import pyarrow.parquet as pq
import pytest

from features.contracts import CONTRACT
from features.errors import ConfigError, FeatureError, WorkspaceError
from features.feature import Feature, Window
from features.twin import check_feature, rows_known
from features.workspace import load_workspace
from tests.brute_force import HAPPENED, known_world
from tests.random_worlds import FULL, ORIGIN, as_arrow

pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning:ibis")  # by Ibis 12 on DuckDB 2

CONFIG = """
[workspace]
data_until = 2024-07-01
{tables}
[targets]
horizon_days = 60
[cutoffs]
every = {{ days = 61 }}
first = 2023-10-01
"""
YEAR = pd.Timedelta(days=364)


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """A random world whose rows arrive late, are corrected and have fields that become known later. Read only."""
    folder = tmp_path_factory.mktemp("book")
    world = FULL.world()
    tables = "".join(f'[tables.{table}]\nsource = "{table}.csv"\n' for table in world)
    (folder / "renewcast.toml").write_text(CONFIG.format(tables=tables), encoding="utf-8")
    workspace = load_workspace(folder, {})
    workspace.tables.mkdir(parents=True)
    for table in world:
        pq.write_table(as_arrow(world, table), workspace.tables / f"{table}.parquet")
    return workspace


def feature(expression, table="telemetry", **more):
    words = {"name": "mine", "family": "usage", "unit": "events", "meaning": "m", "sentence": "{moved}"}
    return Feature(**(words | {"source": Window(table=table, days=364), "expression": expression} | more))


def logins(rows):
    return rows.events.sum(where=rows.event == "login")


def logins_slowly(rows, cutoff):
    recent = rows[(rows["occurred_at"] > cutoff - YEAR) & (rows["event"] == "login")]
    return recent["events"].sum()


def test_a_feature_that_says_what_its_twin_says(book):
    found = check_feature(book, feature(logins, empty=0.0), logins_slowly)
    assert found.columns.tolist() == ["account_id", "cutoff", "value", "twin"]
    assert found["value"].equals(found["twin"])
    assert found["value"].nunique() > 3
    assert len(found) > 30


def test_the_rows_are_drawn_by_the_seed(book):
    draws = [check_feature(book, feature(logins, empty=0.0), logins_slowly, rows=30, seed=seed) for seed in (0, 0, 1)]
    assert draws[0].equals(draws[1])
    assert not draws[0][["account_id", "cutoff"]].equals(draws[2][["account_id", "cutoff"]])
    assert [len(draw) for draw in draws] == [30, 30, 30]


WRONG = {
    "missing instead of zero": (feature(logins), logins_slowly),
    "fewer days": (feature(logins, empty=0.0), lambda rows, cutoff: logins_slowly(rows[rows["occurred_at"] > cutoff - 0.9 * YEAR], cutoff)),
    "another kind": (feature(lambda rows: rows.events.sum(), empty=0.0), logins_slowly),
    "rows of which nothing was known": (
        feature(lambda rows: rows.count(), empty=0.0, source=Window(table="telemetry")),
        lambda rows, cutoff: len(rows) + (cutoff > ORIGIN),
    ),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_a_difference_is_shown_with_its_rows(book, wrong):
    mine, twin = WRONG[wrong]
    with pytest.raises(
        FeatureError, match=r"mine differs from its twin in \d+ of \d+ rows\n  given: +account_id +cutoff +value +twin\n +a\d\d 202"
    ):
        check_feature(book, mine, twin)  # fmt: skip


def test_a_feature_that_is_always_missing_proves_nothing(book):
    with pytest.raises(FeatureError, match="missing in all rows that were drawn"):
        check_feature(book, feature(lambda rows: rows.events.sum(where=rows.event == "nothing like it")), lambda rows, cutoff: None)


def test_corrected_terms_count_as_they_were_known(book):
    running = feature(lambda terms: terms.arr.sum(where=terms.running), source=Window(table="subscriptions"), empty=0.0)

    def slowly(terms, cutoff):
        end = terms[["end_date", "ended_at"]].min(axis=1)
        return terms.loc[(terms["start_date"] <= cutoff) & ~(end <= cutoff), "arr"].sum()

    assert check_feature(book, running, slowly)["value"].nunique() > 3


def test_categories_and_derived_features_have_twins_too(book):
    last = feature(lambda rows: rows.event.max(), kind="category", unit="level")
    found = check_feature(book, last, lambda rows, cutoff: max(rows.loc[rows["occurred_at"] > cutoff - YEAR, "event"], default=None))
    assert found["value"].nunique() > 2
    twice = feature(lambda row: row.events_28d * 2 + row.active_users_28d, source=None, inputs=("events_28d", "active_users_28d"))
    check_feature(book, twice, lambda row, cutoff: row["events_28d"].item() * 2 + row["active_users_28d"].item())
    with pytest.raises(FeatureError, match="differs"):
        check_feature(book, twice, lambda row, cutoff: row["events_28d"].item())


def test_a_feature_of_the_catalogue_can_be_held_against_its_twin(book):
    from features.usage import usage_features

    (active,) = (one for one in usage_features() if one.name == "active_users_364d")
    check_feature(book, active, lambda rows, cutoff: rows.loc[rows["occurred_at"] > cutoff - YEAR, "user_id"].nunique())


def test_a_table_without_rows_of_single_accounts(book):
    with pytest.raises(ConfigError, match="reads partner_book, of which single accounts have no rows"):
        check_feature(book, feature(lambda rows: rows.managed.max(), source=Window(table="partner_book")), lambda rows, cutoff: 0)


def test_tables_that_were_not_checked(tmp_path, book):
    (tmp_path / "renewcast.toml").write_text((book.folder / "renewcast.toml").read_text(), encoding="utf-8")
    with pytest.raises(WorkspaceError, match="renewcast check"):
        check_feature(load_workspace(tmp_path, {}), feature(logins), logins_slowly)


@pytest.mark.parametrize("table", HAPPENED)
def test_a_twin_is_handed_what_was_known(table):
    world = FULL.world()
    rows = as_arrow(world, table).to_pandas()
    seen = 0
    for cutoff in (ORIGIN + timedelta(days=days) for days in (-400, -91, 0, 31)):
        for account, of_account in rows.groupby("account_id"):
            found = rows_known(of_account, CONTRACT[table], pd.Timestamp(cutoff))
            known = [row for row in known_world(world, cutoff)[table] if row["account_id"] == account]
            assert keyed(found.to_dict("records"), table) == keyed(known, table)
            assert "known_at" not in found.columns
            seen += len(known)
    assert seen > 20


def keyed(rows, table):
    """Return rows in an order of their own, with None for what is missing."""
    plain = [{name: plainly(value) for name, value in row.items() if name in CONTRACT[table].columns} for row in rows]
    return sorted(plain, key=lambda row: str(sorted(row.items())))


def plainly(value):
    if pd.isna(value):
        return None
    return value.to_pydatetime() if isinstance(value, pd.Timestamp) else value


def test_dates_of_accounts_are_hidden_until_they_come():
    accounts = pd.DataFrame({"account_id": ["a"], "created_at": [datetime(2024, 1, 1)], "attribute_go_live": [datetime(2024, 3, 1)]})
    shown = [rows_known(accounts, CONTRACT["accounts"], pd.Timestamp(2024, month, 1)).notna().to_dict("records")[0] for month in (2, 3)]
    assert shown[0] == {"account_id": True, "created_at": True, "attribute_go_live": False}
    assert shown[1]["attribute_go_live"]
