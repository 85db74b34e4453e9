"""Pieces that are kept are sent only to whom they were made for, and are the ones that would be made now."""

from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pytest

from serving.permissions.caller import VENDOR, Caller
from serving.permissions.policy import default_policy, parse_policy
from serving.scores import account_json
from serving.scores.account_json import pieces_of, render
from serving.scores.batch import score_workspace
from serving.scores.fragments import Pieces, Stamp, read_fragments, seal_fragments, write_shelf
from serving.scores.scoring import load_score_set
from serving.scores.sharing import View
from tests.serving_book import PARTNERS, make_workspace

STAMP = Stamp(policy="p", writer="w", at=datetime(2025, 7, 1))


@pytest.fixture(scope="module")
def score_set(tmp_path_factory):
    workspace = make_workspace(tmp_path_factory.mktemp("book"))
    score_workspace(workspace)
    return load_score_set(workspace.scores)


@pytest.fixture
def rendered(monkeypatch):
    """The rows that are written anew."""
    rows = []

    def counting(score_set, wanted, view):
        rows.extend(wanted)
        return render(score_set, wanted, view)

    monkeypatch.setattr(account_json, "render", counting)
    return rows


def views(score_set, policy):
    at = score_set.manifest.scored_at
    return [View(VENDOR, None, policy, at), *(View(Caller(partner), None, policy, at) for partner in PARTNERS)]


def test_kept_pieces_are_the_ones_that_would_be_made(score_set, rendered):
    for view in views(score_set, default_policy()):
        rows = view.managed_rows(score_set.assignments).tolist()
        assert len(rows) > 10
        assert pieces_of(score_set, rows, view) == render(score_set, rows, view)
    assert rendered == [], "all of them came from the files"


def test_another_policy_or_another_tier_is_written_anew(score_set, rendered):
    stricter = parse_policy('[families]\nusage = "vendor"\n')
    for view in views(score_set, stricter)[:2]:
        assert pieces_of(score_set, [7], view) == render(score_set, [7], view)
    at = score_set.manifest.scored_at
    gold = View(Caller("p1"), "gold", default_policy(), at)
    assert pieces_of(score_set, [7], gold) == render(score_set, [7], gold)
    assert rendered == [7, 7, 7]


def test_pieces_of_another_code_are_not_sent(score_set, rendered, monkeypatch):
    monkeypatch.setattr(account_json, "writer_version", lambda: "another")
    view = views(score_set, default_policy())[0]
    pieces_of(score_set, [3, 4], view)
    assert rendered == [3, 4]


def test_an_account_that_changed_hands_is_written_anew_and_names_its_new_partner(score_set, rendered):
    row = score_set.index["acc-0004"]
    vendor = View(VENDOR, None, default_policy(), score_set.manifest.scored_at)
    partner = score_set.assignments.partner_of(row, vendor.at)
    changes = score_set.assignments.columns()
    moved = {name: np.append(column[changes["row"] <= row], column[changes["row"] > row]) for name, column in changes.items()}
    place = int((changes["row"] <= row).sum())
    tomorrow = vendor.at + timedelta(days=1)
    for name, value in (("row", row), ("changed_at", np.datetime64(tomorrow, "us")), ("partner_id", "p2")):
        moved[name] = np.insert(moved[name], place, value)
    changed = replace(score_set, assignments=type(score_set.assignments).from_columns(moved, len(score_set)), memory={})
    later = replace(vendor, at=tomorrow + timedelta(seconds=1))
    before, after = pieces_of(changed, [row, row + 1], vendor), pieces_of(changed, [row, row + 1], later)
    assert f'"partner_id":"{partner}"'.encode() in before[0].summary
    assert b'"partner_id":"p2","partner_name":"Blue Harbour MSP"' in after[0].summary
    assert before[1] == after[1]
    assert rendered == [row]
    new = View(Caller("p2"), None, default_policy(), later.at)
    assert pieces_of(changed, [row], new) == render(changed, [row], new)
    assert partner.encode() not in b"".join(pieces_of(changed, [row], new)[0].summary.split(b'"name"')[1:])


def test_without_kept_pieces_all_is_written_anew(score_set):
    bare = replace(score_set, fragments=None, memory={})
    view = views(score_set, default_policy())[0]
    assert pieces_of(bare, range(20), view) == pieces_of(score_set, range(20), view)


def pieces(number):
    return Pieces(*(f"{name} {number}".encode() for name in Pieces.__slots__))


def test_pieces_come_back_as_they_were_written_in_any_order(tmp_path):
    write_shelf(tmp_path, "vendor", 5, [([3, 0], [pieces(3), pieces(0)]), ([4], [pieces(4)])])
    write_shelf(tmp_path, "partner", 5, [])
    assert read_fragments(tmp_path) is None, "they are not sealed yet"
    seal_fragments(tmp_path, STAMP)
    fragments = read_fragments(tmp_path)
    assert fragments.stamp == STAMP
    assert [fragments.vendor.of(row) for row in range(5)] == [pieces(0), None, None, pieces(3), pieces(4)]
    assert fragments.partner.of(2) is None


@pytest.mark.parametrize("name", ["fragments-vendor.bin", "fragments-vendor.npy", "fragments-partner.npy"])
def test_damaged_pieces_are_refused_and_named(tmp_path, name):
    for side in ("vendor", "partner"):
        write_shelf(tmp_path, side, 1, [([0], [pieces(0)])])
    seal_fragments(tmp_path, STAMP)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[:-1] + b"!")
    with pytest.raises(ValueError, match=name):
        read_fragments(tmp_path)
