import ast
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

import features
from features.contracts import CONTRACT
from features.errors import ConfigError, WorkspaceError
from features.simulate import World, WorldSettings, simulate, simulate_workspace, write_world
from features.workspace import load_workspace
from features.world import HORIZON_DAYS, Calendar
from features.world_contacts import assignment_table
from features.world_course import ADVANCED_FEATURES, run_course
from features.world_hazard import hazard_table
from features.world_population import draw_partners, draw_population

ARROW_TYPES = {"id": pa.string(), "text": pa.string(), "time": pa.timestamp("us"), "number": pa.float64(), "flag": pa.bool_()}
NEVER = pd.Timestamp("2100-01-01")
SMALL = WorldSettings(accounts=150, partners=5, months=9, seed=3, start=datetime(2023, 3, 1))


@pytest.fixture(scope="module")
def small():
    return simulate(SMALL)


@pytest.fixture(scope="module")
def world():
    return simulate(WorldSettings(accounts=1000, seed=1))


@pytest.fixture(scope="module")
def telemetry(world):
    return world.tables["telemetry"].select(["account_id", "user_id", "occurred_at"]).to_pandas()


@pytest.fixture(scope="module")
def constant_world():
    return simulate(WorldSettings(accounts=1000, seed=1, signal=0))


def contracts_and_truth(settings):
    """Return a world's subscriptions, assignments, hazards and skills, without its telemetry: much quicker."""
    calendar = Calendar.of(settings)
    partners = draw_partners(settings)
    population = draw_population(settings, calendar, partners, n_advanced=ADVANCED_FEATURES)
    course = run_course(settings, calendar, population, partners)
    hazards = hazard_table(calendar, population, course.outlooks(calendar, population), signal=settings.signal)
    assignments = assignment_table(calendar, population, partners, course).to_pandas()
    skills = pd.Series(partners.skill, partners.ids)
    return course.book.table().to_pandas(), assignments, hazards.to_pandas(), skills


@pytest.fixture(scope="module")
def books():
    return [contracts_and_truth(WorldSettings(accounts=4000, seed=seed)) for seed in range(3)]


@pytest.fixture(scope="module")
def panels(books):
    return [with_outcomes(subscriptions, hazards, end_of(WorldSettings())) for subscriptions, _, hazards, _ in books]


def real_terms(subscriptions):
    terms = subscriptions.assign(ends=subscriptions.ended_at.fillna(subscriptions.end_date))
    return terms.assign(usd=terms.arr * np.where(terms.currency == "EUR", 1.1, 1.0))


def arr_at(terms, instant):
    running = terms[(terms.start_date <= instant) & (terms.ends > instant)]
    return running.groupby("account_id").usd.sum()


def with_outcomes(subscriptions, hazards, until):
    """Add ARR 90 days after the cutoff, by brute force, where that and a month of grace are known."""
    terms = real_terms(subscriptions)
    parts = []
    for cutoff, rows in hazards.groupby("cutoff"):
        if cutoff + pd.Timedelta(days=HORIZON_DAYS + 30) <= until:
            before = rows.account_id.map(arr_at(terms, cutoff))
            after = rows.account_id.map(arr_at(terms, cutoff + pd.Timedelta(days=HORIZON_DAYS))).fillna(0.0)
            parts.append(rows.assign(arr=before, change=after / before, churn=after == 0))
    return pd.concat(parts)


def frame(world, table):
    return world.tables[table].to_pandas()


def end_of(settings):
    return pd.Timestamp(settings.start) + pd.DateOffset(months=settings.months)


# --- what holds whatever the settings


def test_the_same_seed_makes_the_same_world(small, tmp_path):
    write_world(small, tmp_path / "one")
    write_world(simulate(SMALL), tmp_path / "two")
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*"))
    assert len(files) == 9 + 4 + 1
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_another_seed_makes_another_world(small):
    other = simulate(WorldSettings(accounts=150, partners=5, months=9, seed=4, start=datetime(2023, 3, 1)))
    assert not other.tables["telemetry"].equals(small.tables["telemetry"])
    assert not other.truth.hazards.equals(small.truth.hazards)


def test_tables_are_those_of_the_contract(small):
    assert set(small.tables) == set(CONTRACT)


@pytest.mark.parametrize("table", CONTRACT)
def test_columns_keep_the_contract(small, table):
    contract, rows = CONTRACT[table], small.tables[table]
    assert set(rows.column_names) <= set(contract.columns)
    for name, column in contract.columns.items():
        if name not in rows.column_names:
            assert not column.required
            continue
        assert rows[name].type == ARROW_TYPES[column.type], name
        assert column.nullable or rows[name].null_count == 0, name
        values = rows[name].drop_null().to_pandas()
        assert column.low is None or (values >= column.low).all(), name
        assert column.high is None or (values <= column.high).all(), name


@pytest.mark.parametrize("table", CONTRACT)
def test_rows_keep_the_contract(small, table):
    contract, rows = CONTRACT[table], frame(small, table)
    assert len(rows)
    assert not rows.duplicated().any()
    if contract.unique:
        assert not rows.duplicated(list(contract.unique)).any()
    for earlier, later in contract.ordered:
        assert (rows[earlier] <= rows[later].fillna(rows[earlier])).all(), (earlier, later)
    if "account_id" in rows:
        assert set(rows.account_id) <= set(frame(small, "accounts").account_id)


def test_partners_that_are_named_exist(small):
    known = {"vendor", *frame(small, "partners").partner_id}
    for table, column in (("engagement", "source"), ("assignments", "partner_id"), ("plays", "performed_by"), ("outcomes", "verified_by")):
        assert set(frame(small, table)[column].dropna()) <= known


def test_nothing_is_known_after_the_end(small):
    planned = {("subscriptions", "start_date"), ("subscriptions", "end_date"), ("outcomes", "due_at")}
    for table, rows in small.tables.items():
        for name in rows.column_names:
            if pa.types.is_timestamp(rows[name].type) and (table, name) not in planned:
                assert rows[name].to_pandas().max() <= end_of(SMALL), (table, name)


@pytest.mark.parametrize("table", ["telemetry", "engagement"])
def test_what_happened_is_recorded_later(small, table):
    rows = frame(small, table)
    lag = rows.recorded_at - rows.occurred_at
    assert lag.min() > pd.Timedelta(0)
    assert lag.max() > pd.Timedelta(days=2)


@pytest.mark.parametrize(("table", "time"), [("telemetry", "occurred_at"), ("engagement", "occurred_at"), ("tickets", "opened_at")])
def test_nothing_happens_outside_an_accounts_time(world, table, time):
    rows = frame(world, table).merge(frame(world, "accounts")[["account_id", "created_at"]])
    rows = rows.merge(world.truth.churns.to_pandas()[["account_id", "churned_at"]])
    assert (rows[time] >= rows.created_at).all()
    assert (rows[time] < rows.churned_at.fillna(NEVER)).all()


def test_terms_follow_each_other_until_churn(world):
    terms = real_terms(frame(world, "subscriptions")).sort_values("start_date")
    main = terms[~terms.subscription_id.str.contains("-")]
    churned_at = world.truth.churns.to_pandas().set_index("account_id").churned_at
    ended_early = 0
    for account, own in main.groupby("account_id"):
        assert (own.start_date.iloc[1:].to_numpy() == own.end_date.iloc[:-1].to_numpy()).all()
        assert own.ended_at.iloc[:-1].isna().all()
        last = own.iloc[-1]
        if pd.isna(churned_at[account]):
            # a renewal may not have been booked yet
            assert pd.isna(last.ended_at)
            assert last.ends > end_of(world.settings) - pd.Timedelta(days=30)
        else:
            assert last.ends == churned_at[account]
            ended_early += pd.notna(last.ended_at)
    assert ended_early > 10


def test_added_seats_end_with_the_main_term_at_its_price(world):
    terms = real_terms(frame(world, "subscriptions"))
    terms = terms.assign(price=terms.arr / terms.seats)
    added = terms.subscription_id.str.contains("-")
    pairs = terms[added].merge(terms[~added], on=["account_id", "end_date"], suffixes=("", "_main"))
    assert added.sum() > 100
    assert len(pairs) == added.sum()
    assert (pairs.start_date >= pairs.start_date_main).all()
    assert (pairs.ends == pairs.ends_main).all()
    np.testing.assert_allclose(pairs.price, pairs.price_main, rtol=1e-4)


def test_arr_is_seats_at_a_price_not_above_the_list(world):
    terms = frame(world, "subscriptions")
    assert (terms.arr <= terms.list_arr + 0.01).all()
    assert (terms.seats >= 1).all()
    assert terms.arr.gt(0).all()


def test_notice_is_given_within_the_term(world):
    terms = frame(world, "subscriptions").dropna(subset=["cancelled_at"])
    assert len(terms) > 5
    assert ((terms.cancelled_at > terms.start_date) & (terms.cancelled_at < terms.end_date)).all()


def test_tickets_are_reopened_while_they_last(world):
    tickets = frame(world, "tickets")
    reopened = tickets.dropna(subset=["reopened_at"])
    assert 0.02 < len(reopened) / len(tickets) < 0.12
    assert (reopened.reopened_at > reopened.opened_at).all()
    assert (reopened.reopened_at < reopened.closed_at.fillna(NEVER)).all()


# --- what life looks like


def test_telemetry_follows_the_weekday(telemetry):
    days = telemetry.occurred_at.dt.day_of_week.value_counts()
    assert days[[5, 6]].max() < 0.25 * days[[0, 1, 2, 3]].min()
    assert days[4] < days[[0, 1, 2, 3]].min()


def test_europe_is_on_holiday_in_august(world, telemetry):
    rows = telemetry.merge(frame(world, "accounts")[["account_id", "region"]])
    rows = rows[rows.occurred_at.dt.year == 2024]
    per_day = rows.groupby(["region", rows.occurred_at.dt.month]).size().unstack()
    august = per_day[8] / per_day[[6, 10]].mean(axis=1)
    assert august["EMEA"] < 0.85
    assert august["EMEA"] < august["AMER"] - 0.08


def test_users_differ_much(telemetry):
    per_user = telemetry.groupby("user_id").size().sort_values(ascending=False)
    assert per_user.iloc[: len(per_user) // 10].sum() > 0.3 * per_user.sum()


def test_some_paying_accounts_are_silent(world, telemetry):
    silent = set(frame(world, "accounts").account_id) - set(telemetry.account_id)
    assert 0.02 < len(silent) / world.settings.accounts < 0.08


def test_some_partners_share_nothing_of_what_they_do(world):
    sharing = set(frame(world, "engagement").source) - {"vendor"}
    assert len(sharing) <= world.settings.partners - 2
    assert len(sharing) > world.settings.partners / 2


def test_rates_are_those_of_a_book_in_life(books, panels):
    for (subscriptions, *_), rows in zip(books, panels, strict=True):
        terms = real_terms(subscriptions)
        assert rows.arr.notna().all()
        assert 0.03 <= rows.churn.mean() <= 0.05
        assert 0.05 <= (rows.change >= 1.05).mean() <= 0.09
        assert 0.02 <= ((rows.change <= 0.95) & ~rows.churn).mean() <= 0.035
        start = arr_at(terms, pd.Timestamp("2024-12-31"))
        end = arr_at(terms, pd.Timestamp("2025-12-31")).reindex(start.index).fillna(0.0)
        assert 0.93 < end.sum() / start.sum() < 1.1
        assert 0.84 < np.minimum(start, end).sum() / start.sum() < 0.93


def test_most_churn_is_at_renewals_and_not_all(world):
    churns = world.truth.churns.to_pandas().dropna(subset=["churned_at"])
    assert 0.55 < churns.at_renewal.mean() < 0.85


def usage_fall(rows, until):
    """Return, for accounts, the rows of the last 28 days relative to a usual 28 days of the half year before."""
    age = rows.account_id.map(until) - rows.occurred_at
    late = rows[(age > pd.Timedelta(0)) & (age <= pd.Timedelta(days=28))].groupby("account_id").size()
    usual = rows[(age > pd.Timedelta(days=28)) & (age <= pd.Timedelta(days=196))].groupby("account_id").size() / 6
    usual = usual[usual > 5]
    return late.reindex(usual.index).fillna(0) / usual


def test_some_churn_comes_after_a_decline_and_some_out_of_the_blue(world, telemetry):
    churns = world.truth.churns.to_pandas().dropna(subset=["churned_at"]).set_index("account_id")
    fall = usage_fall(telemetry, churns.churned_at - pd.Timedelta(days=7))
    cause = churns.cause.reindex(fall.index)
    assert set(churns.cause) >= {"decline", "champion_left", "support_pain", "price", "sudden", "insolvency"}
    assert fall[cause == "decline"].median() < 0.9
    assert fall[cause.isin(["sudden", "insolvency"])].median() > 0.95


def test_a_champion_who_leaves_is_followed_by_another(telemetry):
    champions = telemetry.user_id.drop_duplicates()
    first_places = champions[champions.str.contains("-u000")]
    assert 50 < first_places.str.endswith("b").sum() < 0.5 * len(first_places)


def test_plays_are_done_for_the_unwell_and_help(world):
    hazards = world.truth.hazards.to_pandas()
    plays = frame(world, "plays")
    month = plays.performed_at.dt.to_period("M").dt.to_timestamp()
    played = hazards.merge(pd.DataFrame({"account_id": plays.account_id, "cutoff": month}).drop_duplicates(), how="left", indicator=True)
    unwell = played.groupby("_merge", observed=True).health.mean()
    assert unwell["both"] > unwell["left_only"] + 0.3
    assert (hazards.plays <= 0).all()
    effects = world.truth.plays.to_pandas().set_index("play").log_hazard_effect
    assert effects["adoption workshop"] < effects["health check"] < effects["newsletter"] == 0


def test_a_partners_plain_churn_does_not_tell_its_skill(books, panels):
    ranks = []
    for (_, assignments, _, skills), panel in zip(books, panels, strict=True):
        rows = panel.merge(assignments, on="account_id")
        rows = rows[(rows.valid_from <= rows.cutoff) & ~(rows.valid_to <= rows.cutoff)]
        partners = rows.groupby("partner_id").agg(churn=("churn", "mean"), accounts=("account_id", "nunique"))
        large = partners[partners.accounts >= 40]
        ranks.append(np.corrcoef(large.churn.rank(), skills[large.index].rank())[0, 1])
        assert (rows.partner * skills[rows.partner_id].to_numpy() <= 0).mean() > 0.99
    assert max(ranks) < 0.5
    assert np.mean(ranks) > -0.75


# --- the truth


@pytest.mark.parametrize("which", range(3))
def test_the_oracle_is_good_and_not_perfect(panels, which):
    rows = panels[which]
    observable = roc_auc_score(rows.churn, rows.observable_hazard)
    assert 0.78 < observable < 0.87
    assert observable - 0.005 < roc_auc_score(rows.churn, rows.true_hazard) < observable + 0.05


def test_the_true_hazard_is_a_probability(panels):
    rows = pd.concat(panels)
    assert rows.true_hazard.between(0, 1).all()
    assert rows.observable_hazard.between(0, 1).all()
    for hazard in (rows.true_hazard, rows.observable_hazard):
        groups = rows.assign(hazard=hazard).groupby(pd.qcut(hazard, [0, 0.5, 0.8, 0.95, 1]), observed=True)
        np.testing.assert_allclose(groups.churn.mean(), groups.hazard.mean(), rtol=0.25)
        assert hazard.mean() == pytest.approx(rows.churn.mean(), rel=0.12)


def test_the_truth_covers_those_who_pay(small):
    terms = real_terms(frame(small, "subscriptions"))
    hazards = small.truth.hazards.to_pandas()
    assert not hazards.duplicated(["account_id", "cutoff"]).any()
    known = hazards[hazards.cutoff < end_of(SMALL) - pd.Timedelta(days=30)]
    for cutoff, rows in known.groupby("cutoff"):
        assert set(rows.account_id) == set(arr_at(terms, cutoff).index)


def test_what_is_unobserved_moves_only_the_true_hazard(small):
    hazards = small.truth.hazards.to_pandas()
    above = hazards.unobserved > hazards.unobserved.median()
    ratio = hazards.true_hazard / hazards.observable_hazard
    assert ratio[above].mean() > 1.3 * ratio[~above].mean()


def test_without_signal_the_hazard_is_the_same_for_all(constant_world):
    hazards = constant_world.truth.hazards.to_pandas()
    assert hazards.true_hazard.nunique() == 1
    assert hazards.true_hazard.equals(hazards.observable_hazard)
    assert (constant_world.truth.plays.to_pandas().log_hazard_effect == 0).all()
    assert (hazards[["health", "champion", "price", "unobserved"]] == 0).all(axis=None)


def test_without_signal_neither_usage_nor_dates_tell_of_churn(constant_world):
    settings = constant_world.settings
    rows = with_outcomes(frame(constant_world, "subscriptions"), constant_world.truth.hazards.to_pandas(), end_of(settings))
    terms = frame(constant_world, "subscriptions")
    terms = terms[~terms.subscription_id.str.contains("-")]
    events = frame(constant_world, "telemetry")[["account_id", "occurred_at"]]
    parts = []
    for cutoff, own in rows[rows.cutoff >= "2024-03-01"].groupby("cutoff"):
        age = cutoff - events.occurred_at
        late, before = (
            events[(age >= pd.Timedelta(days=low)) & (age < pd.Timedelta(days=low + 28))].groupby("account_id").size() for low in (0, 28)
        )
        running = terms[(terms.start_date <= cutoff) & (terms.end_date > cutoff)].set_index("account_id")
        late, before = (own.account_id.map(counts).fillna(0) for counts in (late, before))
        due = own.account_id.map(running.end_date) - cutoff
        parts.append(pd.DataFrame({"churn": own.churn, "usage": -late, "trend": -late / (before + 1), "due": -due.dt.days}))
    found = pd.concat(parts)
    assert found.churn.sum() > 300
    for rule in ("usage", "trend", "due"):
        assert roc_auc_score(found.churn, found[rule]) == pytest.approx(0.5, abs=0.06), rule


def test_with_signal_health_tells_of_churn(panels):
    assert roc_auc_score(panels[0].churn, panels[0].health) > 0.65


# --- the border


@pytest.mark.parametrize(
    "wrong", [{"accounts": 0}, {"partners": 0}, {"months": 0}, {"signal": 1.5}, {"seed": -1}, {"start": datetime(2024, 1, 1, 12)}]
)
def test_settings_out_of_range_say_what_is_allowed(wrong):
    with pytest.raises(ConfigError, match="given:"):
        WorldSettings(**wrong)


@pytest.mark.parametrize("settings", [{"accounts": 1, "partners": 1, "months": 1}, {"accounts": 3, "months": 2}])
def test_tiny_worlds_are_worlds(settings):
    assert isinstance(simulate(WorldSettings(**settings)), World)


def test_a_written_world_is_a_workspace(small, tmp_path):
    write_world(small, tmp_path)
    config = load_workspace(tmp_path, {}).config
    assert set(config.tables) == set(CONTRACT)
    assert config.targets.horizon_days == HORIZON_DAYS
    assert config.currencies["EUR"] == 1.1
    assert config.data_until == end_of(SMALL).to_pydatetime()
    assert pq.read_table(tmp_path / "tables" / "telemetry.parquet").equals(small.tables["telemetry"])
    assert pq.read_table(tmp_path / "truth" / "hazards.parquet").num_rows == small.truth.hazards.num_rows


def test_a_simulated_workspace_is_made_once(tmp_path):
    workspace = simulate_workspace(tmp_path / "book", WorldSettings(accounts=20, partners=2, months=6))
    assert pq.read_table(tmp_path / "book" / "tables" / "accounts.parquet").num_rows == 20
    assert workspace.config.name == "Simulated book"
    with pytest.raises(WorkspaceError, match=r"something else where the simulated book would be made(.|\n)*Name a new folder"):
        simulate_workspace(tmp_path / "book")


def test_the_simulator_knows_nothing_of_labels():
    folder = Path(features.__file__).parent
    allowed = {"features.contracts", "features.errors", "features.simulate", "features.workspace"}
    for file in [folder / "simulate.py", *folder.glob("world*.py")]:
        imported = {node.module for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.ImportFrom)}
        foreign = {name for name in imported if name.startswith("features") and not name.startswith("features.world")}
        assert foreign <= allowed, file.name
