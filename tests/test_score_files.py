import json

import numpy as np
import pytest

from features.errors import ServiceError
from serving.scores.batch import score_workspace
from serving.scores.score_files import (
    current_version,
    keep_newest,
    make_current,
    peer_columns,
    publishing,
    read_columns,
    read_peers,
    verified_manifest,
    write_columns,
)
from serving.scores.scoring import load_score_set
from tests.serving_book import make_workspace

VERSIONS = [f"2025070{day}T000000000000-0123abcd" for day in range(1, 7)]


def publish(scores, version):
    with publishing(scores, version, lambda: {"version": version}, unsealed="extra*") as folder:
        (folder / "data.txt").write_text("data")
        (folder / "part").mkdir()
        (folder / "part" / "more.txt").write_text("more")
        (folder / "extra.bin").write_text("removable")
        (folder / "extra.json").write_text("{}")
    make_current(scores, version)
    return scores / version


def test_a_sealed_set_is_believed(tmp_path):
    folder = publish(tmp_path, VERSIONS[0])
    assert verified_manifest(folder) == {"version": VERSIONS[0]}
    assert current_version(tmp_path) == VERSIONS[0]
    (folder / "extra.bin").unlink()
    verified_manifest(folder)


@pytest.mark.parametrize("name", ["data.txt", "part/more.txt"])
def test_a_file_that_is_missing_cut_short_or_changed_is_named(tmp_path, name):
    folder = publish(tmp_path, VERSIONS[0])
    content = (folder / name).read_bytes()
    for damaged in (b"", content[:-1], content.replace(b"a", b"b"), content + b"."):
        if damaged != content:
            (folder / name).write_bytes(damaged)
            with pytest.raises(ValueError, match=f"^{name} has SHA-256"):
                verified_manifest(folder)
    (folder / name).unlink()
    with pytest.raises(ValueError, match=f"^{name} is missing"):
        verified_manifest(folder)


@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}"])
def test_a_manifest_that_is_missing_or_none_is_said(tmp_path, content):
    folder = publish(tmp_path, VERSIONS[0])
    manifest = folder / "manifest.json"
    manifest.unlink()
    if content is not None:
        manifest.write_text(content)
    with pytest.raises(ValueError, match=r"^manifest\.json is"):
        verified_manifest(folder)


def test_every_file_of_a_score_set_is_under_a_seal(tmp_path):
    workspace = make_workspace(tmp_path)
    folder = score_workspace(workspace).folder
    names = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
    assert {"accounts.parquet", "assignments.parquet", "supplied_by.parquet", "partners.parquet", "fragments-vendor.bin"} <= set(names)
    for name in names:
        if (name.endswith("manifest.json") and "/" not in name) or name == "fragments.json":
            continue
        content = (folder / name).read_bytes()
        flipped = bytearray(content)
        flipped[len(content) // 2] ^= 1
        (folder / name).write_bytes(bytes(flipped))
        with pytest.raises(ServiceError, match=name):
            load_score_set(workspace.scores)
        (folder / name).write_bytes(content)
    load_score_set(workspace.scores)


def test_what_fails_while_it_is_written_leaves_nothing_and_the_old_one_current(tmp_path):
    publish(tmp_path, VERSIONS[0])
    with pytest.raises(OSError, match="disk full"), publishing(tmp_path, VERSIONS[1], dict, unsealed="extra*") as folder:
        (folder / "data.txt").write_text("half")
        raise OSError("disk full")
    assert not (tmp_path / VERSIONS[1]).exists()
    assert current_version(tmp_path) == VERSIONS[0]


def test_the_newest_are_kept_and_the_current_one_always(tmp_path):
    for version in VERSIONS:
        publish(tmp_path, version)
    make_current(tmp_path, VERSIONS[0])
    (tmp_path / "notes").mkdir()
    keep_newest(tmp_path, sets=4, pieces=2, pattern="extra*")
    assert sorted(path.name for path in tmp_path.iterdir()) == [VERSIONS[0], *VERSIONS[3:], "CURRENT", "notes"]
    with_extra = [version for version in (VERSIONS[0], *VERSIONS[3:]) if list((tmp_path / version).glob("extra*"))]
    assert with_extra == [VERSIONS[0], VERSIONS[5]]
    for version in (VERSIONS[0], *VERSIONS[3:]):
        verified_manifest(tmp_path / version)


def test_who_has_a_file_open_reads_on_when_its_set_is_removed(tmp_path):
    for version in VERSIONS[:3]:
        folder = publish(tmp_path, version)
    with (tmp_path / VERSIONS[0] / "data.txt").open() as file:
        keep_newest(tmp_path, sets=1, pieces=1, pattern="extra*")
        assert file.read() == "data"
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [folder.name]


def test_columns_and_medians_come_back_as_they_were(tmp_path):
    columns = {"a": np.array([1.0, np.nan, 0.1]), "b": np.array(["x", None, "y"], dtype=object)}
    write_columns(tmp_path / "columns.parquet", columns)
    again = read_columns(tmp_path / "columns.parquet")
    np.testing.assert_array_equal(again["a"], columns["a"])
    assert again["b"].tolist() == columns["b"].tolist()
    peers, counts = {"s": {"f": 1.5, "g": 0.0}, "t": {"f": 2.0}}, {"s": {"f": 12, "g": 10}, "t": {"f": 30}}
    write_columns(tmp_path / "peers.parquet", peer_columns(peers, counts))
    assert read_peers(tmp_path / "peers.parquet") == (peers, counts)
    assert json.loads(json.dumps(peers)) == peers
