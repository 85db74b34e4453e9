from datetime import datetime, timedelta

import pytest
import sqlalchemy as sa

from serving.answers.feedback import Feedback, Note, Play, Remarks
from serving.callers.identity import Principal
from serving.permissions.caller import Caller
from serving.permissions.policy import parse_policy
from serving.records.store import SERVICE
from serving.records.tables import CONTRIBUTIONS, NOTES
from serving.scores.sharing import View

NOW = datetime(2025, 7, 1, 12)
DAY = timedelta(days=1)
PLAY = Play(play="Executive call", performed_at=datetime(2025, 6, 30), category="Experience", cost=120.0, note="They want a plan")
OPINION = Feedback(target="churn", agrees=False, reason="renewal_agreed", words="Signed", score_set="s1", probability=0.7)
NOTE = Note(occurred_at=datetime(2025, 6, 30), text="New director")


@pytest.fixture
def remarks(store):
    return Remarks(store)


def who(partner_id=None, subject="ada"):
    return Principal(Caller(partner_id), "session", frozenset({"feedback"}), "csm", subject)


def view(partner_id=None, policy=""):
    return View(Caller(partner_id), None, parse_policy(policy), NOW)


def listed(remarks, kind, view, account_id="a1"):
    page = remarks.page(kind, view, account_id, limit=10)
    assert page.end is None
    return page.lines


def by(remarks, kind, **seen):
    return [one.partner_id for one in listed(remarks, kind, view(**seen))]


@pytest.mark.parametrize("what", [PLAY, OPINION, NOTE])
def test_what_is_said_is_kept_with_who_said_it_and_when(remarks, what):
    said = remarks.add(who("p1"), "a1", what, at=NOW)
    (found,) = listed(remarks, type(what), view("p1"))
    assert found == said
    assert (found.what, found.author, found.account_id) == (what, Caller("p1"), "a1")
    assert (found.subject, found.role, found.credential, found.recorded_at) == ("ada", "csm", "session", NOW)
    assert listed(remarks, type(what), view("p1"), "a2") == []


@pytest.mark.parametrize("what", [PLAY, OPINION, NOTE])
def test_the_vendor_sees_all_and_no_partner_sees_another_s_whatever_the_policy(remarks, what):
    for number, partner_id in enumerate((None, "p1", "p2")):
        remarks.add(who(partner_id), "a1", what, at=NOW + number * DAY)
    assert by(remarks, type(what)) == ["p2", "p1", None]
    open_policy = '[notes]\nvendor_plays = "shared"\nvendor_notes = "shared"\n'
    for policy in ("", open_policy):
        assert "p2" not in by(remarks, type(what), partner_id="p1", policy=policy)
        assert "p1" in by(remarks, type(what), partner_id="p1", policy=policy)


def test_what_a_partner_sees_of_the_vendor_s_is_for_the_policy_to_say_and_opinions_never(remarks):
    for what in (PLAY, OPINION, NOTE):
        remarks.add(who(), "a1", what, at=NOW)
    seen = {
        policy: [by(remarks, kind, partner_id="p1", policy=policy) for kind in (Play, Note, Feedback)]
        for policy in ("", '[notes]\nvendor_plays = "vendor"\n', '[notes]\nvendor_notes = "shared"\n')
    }
    assert list(seen.values()) == [[[None], [], []], [[], [], []], [[None], [None], []]]


def test_notes_of_a_contribution_that_was_withdrawn_are_gone(remarks):
    contribution = dict.fromkeys(("given", "accepted", "duplicates", "quarantined"), 1)
    contribution |= {
        "contribution_id": "c1",
        "partner_id": "p1",
        "received_at": NOW,
        "credential": "k",
        "content_hash": "h",
        "findings": {},
    }
    note = {"note_id": "n", "partner_id": "p1", "account_id": "a1", "recorded_at": NOW, "credential": "k", "contribution_id": "c1"}
    with remarks.store.tenant(SERVICE) as connection:
        connection.execute(sa.insert(CONTRIBUTIONS).values(contribution))
        connection.execute(sa.insert(NOTES).values(note | {"occurred_at": NOW, "text": "From a file"}))
    remarks.add(who("p1"), "a1", NOTE, at=NOW + DAY)
    assert [one.what.text for one in listed(remarks, Note, view("p1"))] == ["New director", "From a file"]
    with remarks.store.tenant(SERVICE) as connection:
        connection.execute(sa.update(CONTRIBUTIONS).values(withdrawn_at=NOW))
    for seen in (view("p1"), view()):
        assert [one.what.text for one in listed(remarks, Note, seen)] == ["New director"]
    assert [one.what.text for one in remarks.everything(Note)] == ["New director"]


def test_all_of_one_kind_comes_in_the_order_in_which_it_was_said(remarks):
    said = [
        remarks.add(who(partner), account, OPINION, at=NOW - day * DAY)
        for day, (partner, account) in enumerate((("p1", "a1"), (None, "a2")))
    ]
    assert remarks.everything(Feedback) == said[::-1]
    assert remarks.everything(Play) == []


def test_pages_cover_a_list_once_the_newest_first_also_where_lines_have_one_time(remarks):
    said = [remarks.add(who(), "a1", NOTE, at=NOW + number // 3 * DAY) for number in range(7)]
    found, after = [], None
    while not found or after is not None:
        page = remarks.page(Note, view(), "a1", after=after, limit=2)
        found, after = [*found, *page.lines], page.end
        remarks.add(who(), "a1", NOTE, at=NOW + 9 * DAY)  # what comes meanwhile stands before
    assert found == sorted(said, key=lambda one: (one.recorded_at, one.said_id), reverse=True)
