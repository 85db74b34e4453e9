"""Looking back reads what was said at the time, to the last bit, and one row of it."""

import math
from datetime import datetime

import pyarrow.parquet as pq
import pytest

from features.errors import ServiceError
from serving.scores.scoring import load_score_set
from serving.scores.standings import Archive, Moment, earlier_standing, present_standing, select_moment
from tests.changes_book import CUTOFFS, EARLIER, make_scored_thrice, older_churn
from tests.serving_book import packages


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    return make_scored_thrice(tmp_path_factory.mktemp("standings")).scores


def test_a_kept_score_set_says_what_it_said(scores):
    archive, score_set = Archive(scores), load_score_set(scores)
    assert [archive.manifest(version).cutoff for version in archive.versions()] == list(CUTOFFS)
    for account_id in ("acc-0004", "acc-0000", "acc-0100", "acc-0238"):
        present = present_standing(score_set, score_set.index[account_id])
        assert archive.standing(archive.versions()[-1], account_id, score_set.features.values()) == present
        assert present.log_odds["churn"] == pytest.approx(
            math.log(present.probability["churn"]) - math.log1p(-present.probability["churn"]), abs=1e-12
        )


def test_an_older_one_is_read_row_by_row_whatever_its_row_groups(scores, tmp_path):
    version = Archive(scores).versions()[0]
    copy = tmp_path / version
    copy.mkdir()
    for file in (scores / version).glob("*.parquet"):
        pq.write_table(pq.read_table(file), copy / file.name, row_group_size=50 if file.name == "accounts.parquet" else 70)
    (copy / "manifest.json").write_text((scores / version / "manifest.json").read_text())
    ids = pq.read_table(copy / "accounts.parquet")["account_id"].to_pylist()
    for account_id in ids[::17]:
        assert Archive(tmp_path).standing(version, account_id) == Archive(scores).standing(version, account_id)
    standing = Archive(scores).standing(version, ids[3])
    assert standing is not None
    assert standing.cutoff == EARLIER
    assert standing.models["churn"] == older_churn().hash
    assert Archive(scores).packages(version)["churn"].hash == older_churn().hash


def test_who_was_not_there_has_no_standing(scores):
    archive, score_set = Archive(scores), load_score_set(scores)
    first, *_, last = archive.versions()
    assert archive.standing(first, "acc-0000") is None
    assert archive.standing(first, "acc-0239") is not None
    assert archive.standing(last, "acc-0239") is None
    assert archive.standing(last, "nobody") is None
    assert earlier_standing(score_set, score_set.index["acc-0000"]) is None


def test_the_quarter_before_is_scored_by_the_present_models(scores):
    score_set = load_score_set(scores)
    row = score_set.index["acc-0010"]
    standing = earlier_standing(score_set, row)
    assert standing is not None
    assert (standing.cutoff, standing.score_set, standing.scored_at) == (EARLIER, None, None)
    assert standing.models["churn"] == packages()["churn"].hash
    assert standing.values["seats"] == score_set.earlier["seats"][row]
    assert isinstance(standing.health, int)


def test_the_newest_moment_by_then_is_taken(scores):
    moments = [Moment(score_set=name, cutoff=datetime(2025, 1, day)) for name, day in (("a", 1), ("b", 9), ("c", 9), ("d", 5))]
    assert select_moment(moments, datetime(2024, 12, 31)) is None
    found = [select_moment(moments, datetime(2025, 1, day)) for day in (1, 4, 5, 8, 9, 30)]
    assert [moment and moment.score_set for moment in found] == ["a", "a", "d", "d", "c", "c"]


def test_what_is_gone_or_damaged_is_said(scores, tmp_path):
    first, _, last = Archive(scores).versions()
    assert Archive(tmp_path / "none").versions() == ()
    (tmp_path / last).mkdir()
    assert Archive(tmp_path).versions() == ()
    (tmp_path / last / "manifest.json").write_text("{}")
    for damaged in (last, first):
        with pytest.raises(ServiceError, match="older scores cannot be read"):
            Archive(tmp_path).standing(damaged, "acc-0001")
