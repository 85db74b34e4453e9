from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from training.versions import Promotion, history, predecessor, promotion_tag, read_version

START = datetime(2026, 1, 1)


def version(number, tags, aliases=None):
    return read_version(str(number), tags, made_at=START, run_id="r", aliases=aliases or {})


@given(
    at=st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1)),
    reason=st.text(),
    way=st.sampled_from(["training", "comparison", "hand", "rollback"]),
    replaced=st.none() | st.integers(1, 99).map(str),
)
def test_a_promotion_survives_its_tag(at, reason, way, replaced):
    promotion = Promotion(version="3", at=at, way=way, reason=reason, replaced=replaced)
    name, value = promotion_tag(promotion)
    assert version(3, {name: value, "decision": "x"}).promotions == (promotion,)


def test_a_version_without_measures_has_no_auc():
    assert version(1, {}).auc is None
    assert version(1, {"auc": "0.8"}).auc.value == 0.8
    assert version(1, {"auc": "0.8"}).auc.low is None


def test_a_version_knows_its_aliases():
    assert version(2, {}, {"champion": "2", "challenger": "3", "previous": "2", "mine": "2"}).aliases == ("champion", "previous")


@given(moves=st.lists(st.one_of(st.integers(1, 6), st.just("rollback")), max_size=20))
def test_going_back_walks_the_promotions_in_reverse(moves):
    """A twin that keeps a stack: a promotion puts a version on top of those that it stands on, a rollback takes one away."""
    promotions, champion, below = [], None, {}
    for number, move in enumerate(moves):
        at = START.replace(tzinfo=UTC).replace(tzinfo=None) + timedelta(seconds=number)
        if move == "rollback":
            target = predecessor(champion, promotions) if champion else None
            assert target == below.get(champion)
            if target is None:
                continue
            promotions.append(Promotion(version=target, at=at, way="rollback", reason="", replaced=champion))
            champion = target
        elif str(move) != champion:
            promotions.append(Promotion(version=str(move), at=at, way="hand", reason="", replaced=champion))
            below[str(move)], champion = champion, str(move)


def test_history_is_in_order_whatever_the_order_of_versions():
    tags = [promotion_tag(Promotion(version=str(n), at=START + timedelta(days=n), way="hand", reason="", replaced=None)) for n in (1, 2, 3)]
    versions = [version(n, dict([tag])) for n, tag in zip((1, 2, 3), tags, strict=True)]
    assert [promotion.version for promotion in history(reversed(versions))] == ["1", "2", "3"]
