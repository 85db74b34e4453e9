"""A score set of very many accounts, from the few of a scored workspace: each is there many times, under an id of its own."""

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features.workspace import Workspace
from serving.permissions.assignments import Assignments
from serving.permissions.supplies import Supplies
from serving.scores.causes import CAUSES
from serving.scores.score_files import write_columns
from serving.scores.score_writer import drafted, publish, write_score_set
from serving.scores.scoring import BASE, ScoreSet, load_score_set
from serving.scores.timeline import RECENT

__all__ = ["enlarge"]

SCORED_AT = datetime(2025, 7, 2)


def enlarge(workspace: Workspace, accounts: int) -> None:
    """Publish a score set of so many accounts in a workspace that was scored."""
    small = load_score_set(workspace.scores)
    rows = np.arange(accounts) % len(small)
    folder = workspace.scores / small.manifest.version
    with drafted(workspace.scores, small.packages, at=SCORED_AT) as draft:
        large = _repeated(small, rows, draft.version)
        draft.say(large.manifest)
        write_score_set(large, draft.folder)
        write_columns(draft.folder / "values.parquet", large.values)
        write_columns(draft.folder / "earlier.parquet", large.earlier)
        for target, package in large.packages.items():
            columns = dict(zip((*package.features, BASE), large.parts[target].T, strict=True))
            write_columns(draft.folder / f"parts-{target}.parquet", columns)
        recent = pq.read_table(folder / RECENT).take(pa.array(_places(folder, small)[rows]))
        place = recent.schema.get_field_index("account_id")
        pq.write_table(recent.set_column(place, "account_id", pa.array(large.accounts["account_id"])), draft.folder / RECENT)
        lines = pa.ipc.open_file(folder / CAUSES).read_all().take(pa.array(rows))
        with pa.ipc.new_file(draft.folder / CAUSES, lines.schema) as file:
            file.write_table(lines)
    publish(workspace.scores, draft.version, keep=2)


def _repeated(small: ScoreSet, rows: np.ndarray, version: str) -> ScoreSet:
    accounts = {name: np.asarray(column)[rows] for name, column in small.accounts.items()}
    ids = np.array([f"acc-{number:06d}" for number in range(len(rows))], dtype=object)
    names = np.array([f"{name} {number // len(small) + 1}" for number, name in enumerate(accounts["name"])], dtype=object)
    hands = small.assignments.columns()
    repeats = [np.flatnonzero(rows == row) for row in hands["row"]]
    columns = {name: np.repeat(column, [len(own) for own in repeats]) for name, column in hands.items()}
    columns["row"] = np.concatenate(repeats)
    order = np.lexsort((columns["changed_at"], columns["row"]))
    return replace(
        small,
        manifest=replace(small.manifest, version=version, scored_at=SCORED_AT),
        accounts=accounts | {"account_id": ids, "name": names},
        values={name: np.asarray(small.values[name])[rows] for name in small.values},
        earlier={name: np.asarray(small.earlier[name])[rows] for name in small.earlier},
        parts={target: small.parts[target][rows] for target in small.packages},
        assignments=Assignments.from_columns({name: column[order] for name, column in columns.items()}, len(rows)),
        supplies=Supplies((), small.features.values()),
        fragments=None,
        memory={},
    )


def _places(folder: Path, small: ScoreSet) -> np.ndarray:
    """Return for each account of the small book where its newest points stand."""
    ids = pq.read_table(folder / RECENT, columns=["account_id"])["account_id"].to_pylist()
    places = {account_id: place for place, account_id in enumerate(ids)}
    return np.array([places[account_id] for account_id in small.accounts["account_id"]])
