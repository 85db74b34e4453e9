import math
from datetime import datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.engine import Engine
from features.errors import NotEnoughDataError, WorkspaceError
from features.intake import check_workspace
from features.movements import build_movements
from features.plan import open_tables
from features.retention import Retention, is_settled, measure_monthly, measure_retention, read_movements, retention_frame
from features.workspace import load_workspace
from tests.brute_force import retention
from tests.test_real_books import DATA, WORKSPACES, needs

pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning:ibis")  # by Ibis 12 on DuckDB 2

MONTHS = tuple(datetime(2023 + month // 12, 1 + month % 12, 1) for month in range(15))
CONFIG = """
[workspace]
name = "Small"
[tables.accounts]
source = "accounts.csv"
[tables.telemetry]
source = "telemetry.csv"
"""
SMALL = settings(max_examples=60, derandomize=True, deadline=None)


def rows_of(**months):
    """Return movements from each account's ARR at the first months, 0 for none."""
    paid = [(account, MONTHS[n], arr) for account, arrs in months.items() for n, arr in enumerate(arrs) if arr]
    return pd.DataFrame(paid, columns=["account_id", "month", "arr"])


def book_of(movements, start=MONTHS[0], end=MONTHS[1]):
    return measure_retention(movements, start=start, end=end)[0]


@st.composite
def books(draw):
    """Draw rows of movements of up to eight accounts over five months, with a partner and a segment that may change."""
    names = [f"a{n}" for n in range(draw(st.integers(1, 8)))]
    amounts = st.sampled_from((0.0, 0.0, 0.1, 0.3, 100.0, 120.5, 7e6))
    groups = st.sampled_from(("p", "q", None))
    return [
        {"account_id": name, "month": month, "arr": arr, "partner_id": draw(groups), "segment": draw(groups)}
        for name in [*names, "always"]
        for month in MONTHS[:5]
        if (arr := 10.0 if name == "always" else draw(amounts))
    ]


windows = st.sampled_from([(MONTHS[i], MONTHS[j]) for i in range(4) for j in range(i + 1, 5)])
groupings = st.sampled_from((None, "partner_id", "segment"))


@SMALL
@given(books(), windows, groupings)
def test_retention_is_that_of_its_twin(rows, window, by):
    found = retention_frame(measure_retention(pd.DataFrame(rows), start=window[0], end=window[1], by=by))
    expected = retention(rows, *window, by=by)
    assert {None if pd.isna(group) else group for group in found["group"]} == set(expected)
    for row in found.to_dict("records"):
        truth = expected[None if pd.isna(row["group"]) else row["group"]]
        assert {name: row[name] for name in truth} == pytest.approx(truth, rel=1e-12, abs=1e-9)


@SMALL
@given(books().map(pd.DataFrame), windows, groupings)
def test_what_moved_adds_up(movements, window, by):
    for found in measure_retention(movements, start=window[0], end=window[1], by=by):
        if not found.accounts:
            assert math.isnan(found.ndr)
            assert math.isnan(found.grr)
            continue
        assert found.ndr == pytest.approx(1 + (found.expanded - found.contracted - found.churned) / found.arr_start, abs=1e-9)
        assert 0 <= found.grr <= min(1, found.ndr + 1e-12)
        assert min(found.churned, found.contracted, found.expanded, found.reactivated, found.new) >= 0


@SMALL
@given(books().map(pd.DataFrame), windows, st.sampled_from(("partner_id", "segment")))
def test_groups_add_up_to_the_book(movements, window, by):
    groups = retention_frame(measure_retention(movements, start=window[0], end=window[1], by=by))
    book = retention_frame(measure_retention(movements, start=window[0], end=window[1]))
    sums = groups.select_dtypes("number").drop(columns=["ndr", "grr", "logo_churn"]).sum()
    assert sums.to_dict() == pytest.approx(book.iloc[0][sums.index].to_dict())


@SMALL
@given(books().map(pd.DataFrame), windows, groupings, st.randoms())
def test_order_and_scale_do_not_matter(movements, window, by, random):
    order = random.sample(range(len(movements)), len(movements))
    one = measure_retention(movements, start=window[0], end=window[1], by=by)
    other = measure_retention(movements.iloc[order].assign(arr=movements["arr"].iloc[order] * 8), start=window[0], end=window[1], by=by)
    assert [found.group for found in one] == [found.group for found in other]
    assert np.allclose([[f.ndr, f.grr] for f in one], [[f.ndr, f.grr] for f in other], rtol=1e-12, equal_nan=True)


# Known answers


@pytest.mark.parametrize(
    ("paid", "expected"),
    [
        pytest.param({"a": (100, 100)}, {"ndr": 1, "grr": 1}, id="nothing moved"),
        pytest.param({"a": (100, 150), "b": (100, 50)}, {"ndr": 1, "grr": 0.75, "expanded": 50, "contracted": 50}, id="growth hides loss"),
        pytest.param({"a": (80, 100), "b": (20, 0)}, {"ndr": 1, "grr": 0.8, "churned": 20, "logo_churn": 0.5}, id="one left"),
        pytest.param({"a": (100, 0), "z": (0, 1)}, {"ndr": 0, "grr": 0, "logo_churn": 1}, id="all left"),
        pytest.param({"a": (100, 100), "b": (0, 900)}, {"ndr": 1, "new": 900, "accounts": 1}, id="new logos are left out"),
    ],
)
def test_known_answers(paid, expected):
    found = retention_frame([book_of(rows_of(**paid))]).iloc[0]
    assert found[list(expected)].to_dict() == pytest.approx(expected)


def test_a_worked_example_of_a_year():
    """ARR 1,000,000 with 150,000 of expansion, 30,000 of contraction and 50,000 of churn: NDR 107 %, GRR 92 %."""
    paid = {"stays": (600_000, 600_000), "grows": (200_000, 350_000), "shrinks": (150_000, 120_000), "leaves": (50_000, 0)}
    found = book_of(rows_of(**paid, joins=(0, 90_000)))
    assert (found.expanded, found.contracted, found.churned, found.new) == (150_000, 30_000, 50_000, 90_000)
    assert (found.ndr, found.grr) == pytest.approx((1.07, 0.92))


def test_who_is_back_within_the_window_counts_at_its_end():
    found = book_of(rows_of(a=(100, 0, 80), b=(100, 100, 100)), MONTHS[0], MONTHS[2])
    assert (found.ndr, found.grr, found.lost_accounts, found.reactivated) == (0.9, 0.9, 0, 0)


def test_who_is_back_later_is_reported_apart_from_new_customers():
    found = book_of(rows_of(a=(100, 0, 80), b=(100, 100, 100), c=(0, 0, 5)), MONTHS[1], MONTHS[2])
    assert (found.ndr, found.accounts, found.reactivated, found.new) == (1, 1, 80, 5)


def test_a_partner_keeps_what_it_had_at_the_start():
    movements = rows_of(a=(100, 50), b=(40, 40), c=(0, 7)).assign(partner_id=["p", "q", "q", "q", "q"])
    before, other = measure_retention(movements, start=MONTHS[0], end=MONTHS[1], by="partner_id")
    assert (before.group, before.ndr, before.new) == ("p", 0.5, 0)
    assert (other.group, other.ndr, other.new) == ("q", 1, 7)


def test_those_without_a_group_come_last():
    movements = rows_of(a=(100, 50), b=(40, 40), c=(10, 10)).assign(segment=[None, None, "small", "small", "big", "big"])
    found = measure_retention(movements, start=MONTHS[0], end=MONTHS[1], by="segment")
    assert [one.group for one in found] == ["big", "small", None]


def test_a_window_is_settled_when_late_renewals_can_no_longer_come_in():
    movements = rows_of(a=(100, 100, 100))
    settled = {
        (one.end, grace): is_settled(one, movements, grace_days=grace)
        for one in measure_monthly(movements, months=1)
        for grace in (0, 28, 29)
    }
    assert settled == {(MONTHS[1], 0): True, (MONTHS[1], 28): True, (MONTHS[1], 29): False} | {
        (MONTHS[2], grace): grace == 0 for grace in (0, 28, 29)
    }


def test_what_is_missing_is_none_for_machines():
    found = measure_retention(rows_of(a=(100, 50), b=(0, 7)).assign(segment=["x", "x", "y"]), start=MONTHS[0], end=MONTHS[1], by="segment")
    assert [(one.to_json()["ndr"], one.to_json()["logo_churn"], one.to_json()["end"]) for one in found] == [
        (0.5, 0.0, "2023-02-01T00:00:00"),
        (None, None, "2023-02-01T00:00:00"),
    ]


def test_each_month_has_its_window():
    movements = rows_of(a=(100,) * 15, b=[100] * 14 + [0])
    year, month = measure_monthly(movements, months=12), measure_monthly(movements, months=1)
    assert [(one.start, one.end) for one in year] == [(MONTHS[n], MONTHS[n + 12]) for n in range(3)]
    assert [one.ndr for one in year] == [1, 1, 0.5]
    assert [one.ndr for one in month] == [1] * 13 + [0.5]


def test_a_month_in_which_nobody_pays_is_a_month():
    assert book_of(rows_of(a=(100, 0, 100))).ndr == 0


def test_the_end_of_the_data_is_no_month_but_an_end():
    end = datetime(2023, 2, 10)
    last = pd.DataFrame([{"account_id": "a", "month": end, "arr": 110.0}])
    movements = pd.concat([rows_of(a=(100, 100)), last])
    assert len(measure_monthly(movements, months=1)) == 1
    assert book_of(movements, MONTHS[1], end).ndr == pytest.approx(1.1)


@pytest.mark.parametrize(
    ("start", "end"),
    [
        pytest.param(MONTHS[1], MONTHS[0], id="backwards"),
        pytest.param(MONTHS[0], MONTHS[0], id="no time at all"),
        pytest.param(MONTHS[0], datetime(2023, 2, 2), id="within a month"),
        pytest.param(MONTHS[0], MONTHS[9], id="after the end"),
        pytest.param(datetime(2022, 12, 1), MONTHS[1], id="before the first payment"),
    ],
)
def test_a_window_that_the_movements_do_not_hold(start, end):
    with pytest.raises(NotEnoughDataError, match=r"do not say what became(.|\n)*from 2023-01-01 to 2023-03-01"):
        measure_retention(rows_of(a=(100, 100, 100)), start=start, end=end)


@pytest.mark.parametrize(
    ("movements", "message"),
    [
        (rows_of(a=(100,) * 6), r"too short for a window of 12 months(.|\n)*6 starts of months, 2023-01-01 to 2023-06-01(.|\n)*1 to 5"),
        (rows_of(), r"too short(.|\n)*0 starts of months"),
    ],
)
def test_history_that_is_too_short(movements, message):
    with pytest.raises(NotEnoughDataError, match=message):
        measure_monthly(movements, months=12)


def test_a_frame_has_the_rates():
    frame = retention_frame(measure_monthly(rows_of(a=(100, 90, 120), b=(50, 50, 0)), months=1))
    assert list(frame["ndr"]) == pytest.approx([140 / 150, 120 / 140])
    assert set(Retention.__dataclass_fields__) | {"ndr", "grr", "logo_churn"} == set(frame.columns)


def test_a_book_without_subscriptions_has_no_movements(tmp_path):
    (tmp_path / "renewcast.toml").write_text(CONFIG + '[targets]\nkind = "usage"\n', encoding="utf-8")
    with pytest.raises(NotEnoughDataError, match=r"no subscriptions, so it has no ARR(.|\n)*accounts, telemetry"):
        read_movements(load_workspace(tmp_path, {}))


def test_movements_that_were_not_computed(tmp_path):
    (tmp_path / "renewcast.toml").write_text(CONFIG + '[tables.subscriptions]\nsource = "terms.csv"\n', encoding="utf-8")
    with pytest.raises(WorkspaceError, match=r"not been computed yet(.|\n)*renewcast features"):
        read_movements(load_workspace(tmp_path, {}))


# A real book


def test_retention_is_what_the_raw_contracts_say(tmp_path):
    """The contracts of a simulated CRM vendor, read from the file as it was delivered and summed with pandas alone."""
    raw = pd.read_csv(needs("fightchurn_crm5") / "subscriptions.csv", parse_dates=["start_date", "end_date"])
    movements = movements_of_contracts(tmp_path)

    def arr(instant):
        running = raw[(raw["start_date"] <= instant) & (raw["end_date"] > instant)]
        return 12 * running.groupby(running["account_id"].astype(str))["mrr"].sum()

    year = measure_monthly(movements, months=12)
    assert [one.end for one in year] == [datetime(2023 + n // 12, n % 12 + 1, 1) for n in range(13)]
    for found in [*year, *measure_monthly(movements, months=1)]:
        before, after = arr(found.start), arr(found.end)
        kept = after.reindex(before.index).fillna(0.0)
        assert found.accounts == len(before)
        assert found.lost_accounts == (kept == 0).sum()
        assert found.ndr == pytest.approx(kept.sum() / before.sum(), abs=1e-12)
        assert found.grr == pytest.approx(np.minimum(before, kept).sum() / before.sum(), abs=1e-12)
        assert found.new + found.reactivated == pytest.approx(after[~after.index.isin(before.index)].sum())
    assert year[-1].ndr == pytest.approx(0.943, abs=0.001)


def movements_of_contracts(folder):
    """Return the movements of the workspace whose telemetry is left out but for one day, as contracts need none."""
    config = (WORKSPACES / "fightchurn_crm5" / "renewcast.toml").read_text(encoding="utf-8")
    source = 'source = "usage_daily.parquet"\n'
    assert config.count(source) == 1
    one_day = source + "where = \"d = DATE '2023-06-01'\"\n"
    (folder / "renewcast.toml").write_text(config.replace(source, one_day), encoding="utf-8")
    workspace = load_workspace(folder, {"RENEWCAST_DATA": str(DATA)})
    check_workspace(workspace, now=datetime(2024, 2, 1))
    with Engine(threads=1) as engine:
        tables = open_tables(engine, workspace.tables)
        found = build_movements(engine, tables, data_until=workspace.config.data_until, grace_days=workspace.config.targets.grace_days)
    return found.to_pandas()
