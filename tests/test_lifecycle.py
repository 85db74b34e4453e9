from datetime import datetime
from types import SimpleNamespace

import pytest

from training.lifecycle import make_challenger, make_champion, read_aliases
from training.undo import Undo
from training.versions import Version, read_version


class Store:
    """One model in memory; as MLflow's client, it fails on request."""

    def __init__(self, *, failing: str = "") -> None:
        self.aliases: dict[str, int] = {}
        self.tags: dict[str, dict[str, str]] = {"1": {}, "2": {}, "3": {}}
        self.failing = failing

    def search_registered_models(self, filter_string=None):
        assert filter_string == "name = 'renewcast-churn'"
        return [SimpleNamespace(aliases=dict(self.aliases))]

    def set_registered_model_alias(self, name, alias, version):
        if alias == self.failing:
            self.failing = ""
            raise OSError("gone")
        self.aliases[alias] = int(version)

    def delete_registered_model_alias(self, name, alias):
        del self.aliases[alias]

    def set_model_version_tag(self, name, version, key, value):
        self.tags[version][key] = value

    def delete_model_version_tag(self, name, version, key):
        del self.tags[version][key]

    def versions(self) -> tuple[Version, ...]:
        aliases, made_at = read_aliases(self, "churn"), datetime(2026, 1, 1)
        return tuple(read_version(number, tags, made_at=made_at, run_id="", aliases=aliases) for number, tags in self.tags.items())


def promote(store, version, way="hand"):
    with Undo(within=60) as undo:
        return make_champion(store, "churn", version, versions=store.versions(), way=way, reason="why not", undo=undo)


def test_a_new_champion_leaves_the_one_before_as_previous_and_is_no_challenger_any_more():
    store = Store()
    promote(store, "1")
    make_challenger(store, "churn", "2", undo=Undo(within=60))
    assert store.aliases == {"champion": 1, "challenger": 2}
    assert promote(store, "2").replaced == "1"
    assert store.aliases == {"champion": 2, "previous": 1}


def test_a_rollback_goes_back_further_each_time():
    store = Store()
    for version in ("1", "2", "3"):
        promote(store, version)
    promote(store, "2", way="rollback")
    assert store.aliases == {"champion": 2, "previous": 1}
    promote(store, "1", way="rollback")
    assert store.aliases == {"champion": 1}


@pytest.mark.parametrize("failing", ["previous", "champion"])
def test_what_fails_half_way_is_taken_back(failing):
    store = Store()
    promote(store, "1")
    make_challenger(store, "churn", "2", undo=Undo(within=60))
    tags, aliases = {version: dict(found) for version, found in store.tags.items()}, dict(store.aliases)
    store.failing = failing
    with pytest.raises(OSError, match="gone"):
        promote(store, "2")
    assert (store.tags, store.aliases) == (tags, aliases)
