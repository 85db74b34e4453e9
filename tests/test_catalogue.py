import json

import pytest

from features.catalogue import Catalogue, read_catalogue
from features.errors import PackageError
from features.feature import Feature, Window


def feature(name="active_users_28d", **options):
    declared = {
        "family": "usage",
        "unit": "users",
        "meaning": "people who used the product",
        "sentence": "active users {moved}",
        "expression": lambda rows: rows.count(),
        "source": Window(table="telemetry", days=28, by=("user_id",), each="event"),
        "level": "login",
        "needs": frozenset({"user_id", "product"}),
        "inputs": (),
        "empty": 0.0,
        "direction": {"churn": -1},
        "sensitivity": "vendor",
        "actionable": True,
    }
    return Feature(name=name, **(declared | options))


def test_names_are_unique():
    with pytest.raises(ValueError, match="two features share a name: active_users_28d"):
        Catalogue((feature(), feature("other"), feature()))


def test_a_file_gives_the_same_catalogue_back(tmp_path):
    catalogue = Catalogue(
        (feature(), feature("trend", source=None, inputs=("active_users_28d",), empty=None), feature("type", kind="category", empty=None))
    )
    path = tmp_path / "catalogue.json"
    path.write_text(catalogue.to_json(), encoding="utf-8")
    again = read_catalogue(path)
    assert again == catalogue
    assert again.hash == catalogue.hash
    assert again.feature("trend").inputs == ("active_users_28d",)
    assert "type" in again
    assert "tier" not in again
    assert len(again) == 3


def test_features_of_a_file_cannot_be_computed(tmp_path):
    path = tmp_path / "catalogue.json"
    path.write_text(Catalogue((feature(),)).to_json(), encoding="utf-8")
    with pytest.raises(TypeError, match="build the catalogue instead"):
        read_catalogue(path).feature("active_users_28d").expression(None)


@pytest.mark.parametrize(
    "change",
    [
        {"unit": "days"},
        {"meaning": "else"},
        {"sentence": "else"},
        {"empty": None},
        {"direction": {}},
        {"sensitivity": "shared"},
        {"actionable": False},
        {"level": None},
        {"source": Window(table="telemetry", days=28, by=("user_id",))},
        {"needs": frozenset()},
        {"kind": "category", "empty": None},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_hash_covers_all_that_is_declared(change):
    assert Catalogue((feature(**change),)).hash != Catalogue((feature(),)).hash


def test_the_hash_does_not_depend_on_the_expression():
    assert Catalogue((feature(expression=len),)).hash == Catalogue((feature(),)).hash


@pytest.mark.parametrize(
    "damage",
    [
        lambda stored: stored | {"hash": "0" * 64},
        lambda stored: stored | {"features": stored["features"][:-1]},
        lambda stored: stored | {"features": [stored["features"][0] | {"sensitivity": "shared"}]},
        lambda stored: {"hash": stored["hash"]},
        lambda stored: stored | {"features": [{"name": "only"}]},
        lambda stored: [],
    ],
)
def test_a_damaged_file_is_refused(tmp_path, damage):
    path = tmp_path / "catalogue.json"
    path.write_text(json.dumps(damage(json.loads(Catalogue((feature(),)).to_json()))), encoding="utf-8")
    with pytest.raises(PackageError, match="the feature catalogue is damaged"):
        read_catalogue(path)


def test_a_file_that_is_cut_off_is_refused(tmp_path):
    path = tmp_path / "catalogue.json"
    path.write_text(Catalogue((feature(),)).to_json()[:100], encoding="utf-8")
    with pytest.raises(PackageError, match="the feature catalogue is damaged"):
        read_catalogue(path)


@pytest.mark.parametrize("days", [1, 30, 0, -7])
def test_lookbacks_are_whole_weeks(days):
    with pytest.raises(ValueError, match="multiple of 7 days"):
        Window(table="telemetry", days=days)


def test_windows_never_end_after_their_cutoff():
    with pytest.raises(ValueError, match="never ends after its cutoff"):
        Window(table="telemetry", days=7, lag_days=-7)
