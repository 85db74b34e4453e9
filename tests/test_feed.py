"""What changed is told of the accounts that changed, to those who manage them, and no further."""

from dataclasses import replace
from datetime import UTC, datetime

import pandas as pd
import pyarrow.parquet as pq
import pytest

from serving.permissions.caller import VENDOR, Caller
from serving.permissions.policy import default_policy, parse_policy
from serving.scores.batch import score_workspace
from serving.scores.feed import read_change_set
from serving.scores.leads import read_leads
from serving.scores.scoring import load_score_set
from serving.scores.sharing import View
from serving.scores.standings import Archive
from tests.changes_book import make_scored_thrice
from tests.feature_files import write_features
from tests.serving_book import CUTOFF, write

NOW = datetime.now(UTC).replace(tzinfo=None)
ALL = View(VENDOR, None, default_policy(), NOW)
PARTNERS = tuple(View(Caller(f"p{number}"), None, default_policy(), NOW) for number in range(1, 5))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return make_scored_thrice(tmp_path_factory.mktemp("feed"))


@pytest.fixture(scope="module")
def score_set(workspace):
    return load_score_set(workspace.scores)


def change_sets(workspace):
    archive = Archive(workspace.scores)
    return [read_change_set(archive.folder(version), archive.manifest(version)) for version in archive.versions()]


def told(change_set, view, score_set):
    return {change.account_id: change for _, change in change_set.changes_for(view, score_set)}


def same_lead(one, other):
    return (one and (set(one["features"]), one["effect"])) == (other and (set(other["features"]), other["effect"]))


def expected(before, after, side):
    """Return by account what changed between two tables of leads, worked out slowly."""
    kinds = {}
    for account_id in {*before, *after}:
        old, new = before.get(account_id), after.get(account_id)
        if old is None:
            kinds[account_id] = {"new_account"} | ({"turned_red"} if new["band"] == "red" else set())
        elif new is None:
            kinds[account_id] = {"gone_account"}
        else:
            kinds[account_id] = {"band"} if old["band"] != new["band"] else set()
            kinds[account_id] |= {"turned_red"} if new["band"] == "red" != old["band"] else set()
            kinds[account_id] |= set() if same_lead(old[side], new[side]) or new[side] is None else {"first_driver"}
    return {account_id: found for account_id, found in kinds.items() if found}


def leads(workspace):
    archive = Archive(workspace.scores)
    return [{line["account_id"]: line for line in read_leads(archive.folder(version)).to_pylist()} for version in archive.versions()]


def test_the_vendor_is_told_all_that_changed(workspace, score_set):
    sets, known = change_sets(workspace), leads(workspace)
    assert [change_set.against for change_set in sets] == [None, *(change_set.version for change_set in sets[:-1])]
    assert [change_set.models for change_set in sets] == [(), (), ("churn",)]
    assert len(sets[0]) == 0
    for before, after, change_set in zip(known, known[1:], sets[1:], strict=False):
        found = told(change_set, ALL, score_set)
        assert {account_id: set(change.kinds) for account_id, change in found.items()} == expected(before, after, "vendors_lead")
        for account_id, change in found.items():
            assert (change.health_before, change.health) == tuple(
                lines[account_id]["health"] if account_id in lines else None for lines in (before, after)
            )
    assert told(sets[1], ALL, score_set)["acc-0000"].kinds[0] == "new_account"
    assert told(sets[2], ALL, score_set)["acc-0239"].kinds == ("gone_account",)
    assert not any("acc-0239" in told(sets[2], view, score_set) for view in PARTNERS)  # it never had a partner


def test_a_partner_is_told_of_the_accounts_that_it_manages_now(workspace, score_set):
    sets, known = change_sets(workspace), leads(workspace)
    for view in PARTNERS:
        mine = {score_set.accounts["account_id"][row] for row in view.managed_rows(score_set.assignments)}
        for before, after, change_set in zip(known, known[1:], sets[1:], strict=False):
            found = {account_id: set(change.kinds) for account_id, change in told(change_set, view, score_set).items()}
            slow = expected(before, after, "partners_lead")
            assert found == {account_id: kinds for account_id, kinds in slow.items() if account_id in mine}
    later = replace(PARTNERS[3], at=datetime(2025, 7, 15))  # before acc-0000 came to p4
    assert "acc-0000" in told(sets[1], PARTNERS[3], score_set)
    assert "acc-0000" not in told(sets[1], later, score_set)


def test_no_confidential_driver_is_told_whatever_was_kept(workspace, score_set):
    view = PARTNERS[0]
    names = {
        name
        for change_set in change_sets(workspace)
        for change in told(change_set, view, score_set).values()
        if change.lead
        for name in change.lead.features
    }
    assert names
    hidden = sorted(names)[0]
    stricter = replace(view, policy=parse_policy(f'[features]\n{hidden} = "vendor"\n'))
    for change_set in change_sets(workspace):
        for change in told(change_set, stricter, score_set).values():
            assert all(lead is None or hidden not in lead.features for lead in (change.lead, change.lead_before))
            assert "first_driver" not in change.kinds or change.lead is not None


def test_an_account_that_came_by_a_change_of_hands_is_new_and_one_that_went_is_not_told(tmp_path):
    workspace = make_scored_thrice(tmp_path)
    score_set = load_score_set(workspace.scores)
    mine = score_set.accounts["account_id"][PARTNERS[0].managed_rows(score_set.assignments)].tolist()
    path = workspace.tables / "assignments.parquet"
    rows = pq.read_table(path).to_pandas()
    moved = rows[rows["account_id"] == mine[5]].assign(partner_id="p2", valid_from=datetime(2026, 1, 1), known_at=datetime(2026, 1, 1))
    write(
        path,
        pd.concat([rows, moved], ignore_index=True).astype(dict.fromkeys(("valid_from", "valid_to", "known_at"), "datetime64[us]")),
    )
    values = pq.read_table(workspace.snapshots / "features.parquet").to_pandas()
    write_features(workspace.snapshots, values[~((values["account_id"] == mine[6]) & (values["cutoff"] == CUTOFF))])
    score_workspace(workspace)
    score_set, latest = load_score_set(workspace.scores), change_sets(workspace)[-1]
    assert told(latest, PARTNERS[1], score_set)[mine[5]].kinds == ("new_account",)
    assert told(latest, PARTNERS[1], score_set)[mine[5]].health_before is None
    for change_set in change_sets(workspace):
        assert mine[5] not in told(change_set, PARTNERS[0], score_set)
        if change_set.version != latest.version:
            assert mine[5] not in told(change_set, PARTNERS[1], score_set)
    assert mine[5] not in told(latest, ALL, score_set)
    for view in (ALL, *PARTNERS):  # who is gone is told to whoever would manage it now, as far as the scores before knew
        found = told(latest, view, score_set).get(mine[6])
        assert (found and found.kinds) == (("gone_account",) if view in (ALL, PARTNERS[0]) else None)
