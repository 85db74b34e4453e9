"""Whoever follows the feed is told each change once, in order, whatever the pages; and is told when changes were missed."""

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.errors import ServiceError
from serving.answers.feed_answers import Bookmark, latest_changes, open_bookmark, read_feed, seal_bookmark
from serving.permissions.caller import VENDOR, Caller
from serving.permissions.policy import default_policy
from serving.scores.scoring import load_score_set
from serving.scores.sharing import View
from serving.scores.standings import Archive
from tests.changes_book import make_scored_thrice

NOW = datetime.now(UTC).replace(tzinfo=None)
ALL = View(VENDOR, None, default_policy(), NOW)
PARTNER = View(Caller("p1"), None, default_policy(), NOW)


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    return make_scored_thrice(tmp_path_factory.mktemp("feed")).scores


@pytest.fixture(scope="module")
def score_set(scores):
    return load_score_set(scores)


def read(page):
    return [(change_set.version, change and change.account_id) for change_set, change in page.changes]


def walk(archive, score_set, view, limits, since=None):
    """Follow the feed to its end with pages of these sizes, then of the last size."""
    found, number = [], 0
    while True:
        page = read_feed(archive, score_set, view, since=since, limit=limits[min(number, len(limits) - 1)])
        found += read(page)
        since, number = page.bookmark, number + 1
        assert not page.reset
        if not page.more:
            return found, since


@settings(max_examples=20, deadline=None)
@given(limits=st.lists(st.integers(1, 60), min_size=1, max_size=5), partner=st.booleans())
def test_each_change_is_told_once_whatever_the_pages(scores, score_set, limits, partner):
    view = PARTNER if partner else ALL
    whole, end = walk(Archive(scores), score_set, view, [10_000])
    found, bookmark = walk(Archive(scores), score_set, view, limits)
    assert found == whole
    assert len(set(found)) == len(found)
    assert bookmark == end
    assert read(read_feed(Archive(scores), score_set, view, since=end, limit=5)) == []


def test_changes_come_in_the_order_of_the_score_sets_with_the_models_first(scores, score_set):
    found, _ = walk(Archive(scores), score_set, ALL, [10_000])
    versions = Archive(scores).versions()
    assert [version for version, _ in found] == sorted(version for version, _ in found)
    assert (versions[2], None) in found
    assert found[[version for version, _ in found].index(versions[2])] == (versions[2], None)
    assert [account_id for version, account_id in found if version == versions[2] and account_id] == sorted(
        account_id for version, account_id in found if version == versions[2] and account_id
    )
    assert set(latest_changes(Archive(scores), score_set, ALL)) == {
        account for version, account in found if version == versions[2] and account
    }


@pytest.fixture
def kept(scores, tmp_path):
    """Return a copy of the score sets from which some can be taken away."""
    shutil.copytree(scores, tmp_path / "scores")
    return tmp_path / "scores"


def test_what_was_read_to_its_end_may_go(kept, score_set):
    first, second, third = Archive(kept).versions()
    shutil.rmtree(kept / first)
    page = read_feed(Archive(kept), score_set, ALL, since=Bookmark(first, 1, whole=True), limit=10_000)
    assert not page.reset
    assert {version for version, _ in read(page)} == {second, third}


@pytest.mark.parametrize("gone", [0, 1])
def test_where_changes_were_missed_the_caller_starts_again_from_the_end(kept, score_set, gone):
    versions = Archive(kept).versions()
    shutil.rmtree(kept / versions[gone])
    since = Bookmark(versions[0], gone, whole=gone == 1)  # not read to its end when it went, or the one after it is missing
    page = read_feed(Archive(kept), score_set, ALL, since=since, limit=10)
    assert (page.reset, page.more, list(page.changes)) == (True, False, [])
    after = read_feed(Archive(kept), score_set, ALL, since=page.bookmark, limit=10)
    assert (after.reset, list(after.changes)) == (False, [])
    unknown = replace(since, version="20200101T000000000000-00000000")
    assert read_feed(Archive(kept), score_set, ALL, since=unknown, limit=10).reset


def test_what_comes_before_a_gap_is_told_before_the_reset(kept, score_set):
    bare, (first, second, third) = replace(score_set, memory={}), Archive(kept).versions()
    path = kept / third / "changes.parquet"
    table = pq.read_table(path)
    told = json.loads(table.schema.metadata[b"renewcast"]) | {"against": "20250101T000000000000-00000000"}
    pq.write_table(table.replace_schema_metadata({b"renewcast": json.dumps(told)}), path)
    page = read_feed(Archive(kept), bare, ALL, since=Bookmark(first, 1, whole=True), limit=10_000)
    assert {version for version, _ in read(page)} == {second}
    assert (page.more, page.reset, page.bookmark.version) == (True, False, second)
    assert read_feed(Archive(kept), bare, ALL, since=page.bookmark, limit=10).reset


def test_damaged_changes_are_said_to_be_unreadable(kept, score_set):
    version = Archive(kept).versions()[1]
    (kept / version / "changes.parquet").write_bytes(b"no parquet")
    with pytest.raises(ServiceError, match="older scores cannot be read"):
        read_feed(Archive(kept), replace(score_set, memory={}), ALL, since=None, limit=10)


def test_without_changes_there_is_nothing_to_follow(kept, score_set):
    for version in Archive(kept).versions():
        (kept / version / "changes.parquet").unlink()
    bare = replace(score_set, memory={})
    page = read_feed(Archive(kept), bare, ALL, since=None, limit=10)
    assert (list(page.changes), page.more, page.reset) == ([], False, False)
    assert latest_changes(Archive(kept), bare, ALL) == {}
    assert read_feed(Archive(kept), bare, ALL, since=page.bookmark, limit=10).reset


def test_a_bookmark_is_the_callers_own():
    bookmark = Bookmark("20200101T000000000000-00000000", 7, whole=False)
    sealed = seal_bookmark(bookmark, secret=b"secret", caller=VENDOR)
    assert open_bookmark(sealed, secret=b"secret", caller=VENDOR) == bookmark
    assert open_bookmark(sealed, secret=b"secret", caller=Caller("p1")) is None
    assert open_bookmark(sealed, secret=b"other", caller=VENDOR) is None
    assert open_bookmark(sealed[:-1] + ("A" if sealed[-1] != "A" else "B"), secret=b"secret", caller=VENDOR) is None
    assert open_bookmark("nonsense", secret=b"secret", caller=VENDOR) is None
