import ast
import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import logit

from features.errors import PackageError
from features.ledger import fingerprint
from training.change import ChangeModel
from training.dataset import load_dataset
from training.package import load_package
from training.segments import SegmentLevels
from training.survival import SurvivalModel

ROOT = Path(__file__).parents[1]


@pytest.fixture
def folder(synthetic_package, tmp_path):
    synthetic_package.save(tmp_path / "package")
    return tmp_path / "package"


@pytest.fixture
def rows(synthetic_snapshots, synthetic_catalogue):
    return load_dataset(synthetic_snapshots, "churn", synthetic_catalogue).features.head(200)


def test_a_loaded_package_scores_and_explains_exactly_as_the_saved_one(synthetic_package, folder, rows):
    loaded = load_package(folder)
    assert loaded.hash == synthetic_package.hash
    np.testing.assert_array_equal(loaded.score_rows(rows).raw, synthetic_package.score_rows(rows).raw)
    np.testing.assert_array_equal(loaded.score_rows(rows).probability, synthetic_package.score_rows(rows).probability)
    np.testing.assert_array_equal(loaded.explain_rows(rows), synthetic_package.explain_rows(rows))
    assert loaded.cutoff == synthetic_package.cutoff
    assert loaded.reference == synthetic_package.reference
    assert loaded.catalogue.hash == synthetic_package.catalogue.hash


def test_saving_a_loaded_package_changes_no_byte(folder, tmp_path):
    load_package(folder).save(tmp_path / "again")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()
    }


def test_a_package_holds_text_only(folder):
    assert {path.name for path in folder.iterdir()} == {"manifest.json", "package.json", "model.txt", "catalogue.json", "reference.json"}
    for path in folder.iterdir():
        path.read_text(encoding="utf-8")


def test_no_module_imports_anything_that_unpickles():
    unsafe = re.compile(r"^(pickle|cloudpickle|joblib|dill|shelve|marshal)(\.|$)")
    for path in [*ROOT.glob("features/*.py"), *ROOT.glob("training/*.py"), *ROOT.glob("serving/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            assert not any(unsafe.match(name) for name in names), path
            assert not (isinstance(node, ast.Attribute) and node.attr in {"read_pickle", "to_pickle", "load_model"}), path


@pytest.mark.parametrize("name", ["package.json", "model.txt", "catalogue.json", "reference.json"])
@pytest.mark.parametrize("fault", ["truncated", "changed", "missing"])
def test_a_damaged_file_is_refused_by_name(folder, name, fault):
    path = folder / name
    content = path.read_bytes()
    if fault == "missing":
        path.unlink()
    else:
        path.write_bytes(content[: len(content) // 2] if fault == "truncated" else content.replace(b"0", b"1", 1))
    with pytest.raises(PackageError, match=re.escape(name)):
        load_package(folder)


def test_a_truncated_manifest_is_refused(folder):
    path = folder / "manifest.json"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(PackageError, match="not JSON"):
        load_package(folder)


def test_a_file_of_another_package_is_refused(folder, synthetic_package, tmp_path):
    from dataclasses import replace

    replace(synthetic_package, base_rate=0.5).save(tmp_path / "other")
    (folder / "package.json").write_bytes((tmp_path / "other" / "package.json").read_bytes())
    with pytest.raises(PackageError, match=r"package\.json has SHA-256"):
        load_package(folder)


def test_files_that_agree_with_a_forged_manifest_but_not_with_each_other_are_refused(folder, synthetic_package, tmp_path):
    from dataclasses import replace

    from features.catalogue import Catalogue

    fewer = Catalogue(synthetic_package.catalogue.features[1:])
    replace(synthetic_package, catalogue=fewer).save(tmp_path / "other")
    with pytest.raises(PackageError, match="not the features of the catalogue"):
        load_package(tmp_path / "other")


@pytest.mark.parametrize(("key", "value", "said"), [("version", 3, "format version 3"), ("format", "zip", "not a Renewcast model package")])
def test_an_unknown_format_is_refused(folder, key, value, said):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(PackageError, match=said):
        load_package(folder)


def test_a_manifest_that_names_other_files_is_refused(folder):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"]["../escape.txt"] = hashlib.sha256(b"").hexdigest()
    path.write_text(json.dumps(manifest))
    with pytest.raises(PackageError, match="does not agree with itself"):
        load_package(folder)


def test_a_folder_without_a_package_says_what_to_do(tmp_path):
    with pytest.raises(PackageError, match="renewcast train"):
        load_package(tmp_path)


def test_column_order_does_not_matter_and_a_missing_column_is_named(synthetic_package, rows):
    expected = synthetic_package.score_rows(rows).raw
    np.testing.assert_array_equal(synthetic_package.score_rows(rows[rows.columns[::-1]]).raw, expected)
    with pytest.raises(PackageError, match="active_users_28d"):
        synthetic_package.score_rows(rows.drop(columns="active_users_28d"))


def test_an_unseen_level_scores_as_a_missing_one(synthetic_package, rows):
    unseen = synthetic_package.score_rows(rows.assign(partner_tier="platinum")).raw
    missing = synthetic_package.score_rows(rows.assign(partner_tier=None)).raw
    np.testing.assert_array_equal(unseen, missing)


def test_probability_rises_strictly_with_the_raw_score(synthetic_package, rows):
    scores = synthetic_package.score_rows(rows)
    order = np.argsort(scores.raw)
    raw, probability = scores.raw[order], scores.probability[order]
    assert np.all((np.diff(probability) > 0) == (np.diff(raw) > 0))


def test_no_rows_give_no_scores(synthetic_package, rows):
    empty = rows.head(0)
    assert len(synthetic_package.score_rows(empty).raw) == 0
    assert synthetic_package.explain_rows(empty).shape == (0, rows.shape[1] + 1)


def test_reference_describes_the_training_rows(synthetic_package, synthetic_snapshots, synthetic_catalogue):
    data = load_dataset(synthetic_snapshots, "churn", synthetic_catalogue).features
    reference = synthetic_package.reference
    middle = reference.levels.index(0.5)
    assert reference.quantiles["arr"][middle] == pytest.approx(data["arr"].median())
    assert reference.missing["discount"] == pytest.approx(data["discount"].isna().mean())
    assert sum(reference.shares["partner_tier"].values()) == pytest.approx(1)
    assert reference.shares["partner_tier"]["gold"] == pytest.approx((data["partner_tier"].dropna() == "gold").mean())


def test_a_row_alone_scores_as_it_does_among_others(synthetic_package, rows):
    together = synthetic_package.score_rows(rows, threads=2).raw
    alone = np.array([synthetic_package.score_rows(pd.DataFrame(rows.iloc[[i]])).raw[0] for i in range(5)])
    np.testing.assert_array_equal(alone, together[:5])


def test_a_segment_may_have_a_level_of_its_own(tmp_path, synthetic_package, synthetic_snapshots, synthetic_catalogue):
    frame = load_dataset(synthetic_snapshots, "churn", synthetic_catalogue).features.head(40)
    levels = SegmentLevels(feature="partner_tier", shifts={"gold": 0.7}, other=-0.2)
    package = replace(synthetic_package, levels=levels)
    package.save(tmp_path)
    loaded = load_package(tmp_path)
    plain, found = synthetic_package.score_rows(frame), loaded.score_rows(frame)
    shift = np.where(frame["partner_tier"] == "gold", 0.7, -0.2)
    np.testing.assert_allclose(logit(found.probability), logit(plain.probability) + shift)
    np.testing.assert_array_equal(found.raw, plain.raw)
    for row in range(len(frame)):
        calibrator = loaded.calibrator_at(frame.iloc[row].get)
        assert calibrator.probability(found.raw[row : row + 1])[0] == pytest.approx(found.probability[row])


def test_what_follows_an_outcome_is_kept_with_the_model(tmp_path, synthetic_package):
    survival = SurvivalModel(intercept=-0.1, slope=1.2, days_slope=0.0, rows=100, lost=30)
    change = ChangeModel(atoms=((0.5, 0.75),), tree="", rows=2)
    replace(synthetic_package, survival=survival, change=change).save(tmp_path)
    loaded = load_package(tmp_path)
    assert loaded.survival == survival
    assert (loaded.change.atoms, loaded.change.tree, loaded.change.rows) == (change.atoms, "", 2)


def test_the_first_format_is_still_read(tmp_path, synthetic_package):
    synthetic_package.save(tmp_path)
    facts = json.loads((tmp_path / "package.json").read_text())
    for name in ("recipe", "levels", "survival", "change"):
        del facts[name]
    (tmp_path / "package.json").write_text(json.dumps(facts))
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["files"]["package.json"] = hashlib.sha256((tmp_path / "package.json").read_bytes()).hexdigest()
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"version": 1, "hash": fingerprint(manifest["files"])}))
    loaded = load_package(tmp_path)
    assert (loaded.recipe, loaded.levels, loaded.survival, loaded.change) == ({}, None, None, None)
    assert loaded.model == synthetic_package.model


@pytest.mark.parametrize("tables", [True, False])
def test_a_book_has_the_scores_and_parts_of_its_rows_checked(synthetic_package, rows, tables):
    package = replace(synthetic_package)  # with nothing kept
    if not tables:
        vars(package)["tables"] = None  # as of a model with deep trees
    scores, explained = package.score_book(rows, threads=2)
    assert (scores.raw == package.score_rows(rows).raw).all()
    assert (scores.probability == package.score_rows(rows).probability).all()
    assert (explained == package.explain_rows(rows)).all()


def test_a_book_is_not_scored_with_damaged_tables(synthetic_package, rows):
    package = replace(synthetic_package)
    package.tables.rows.table[:] *= 1.001
    with pytest.raises(PackageError, match="the parts of a score do not add up to it"):
        package.score_book(rows)
