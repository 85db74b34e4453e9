"""What changed from each score set to the next: written when a book is scored, and read by whoever follows.

`changes.parquet` of a score set has a line for each account of which something changed for somebody: an account that is new or gone,
another band of health, another first driver. Its own metadata says against which score set, and whose models changed. What of it a caller
may read is decided when it asks.

A partner is told of an account only if it manages it now and managed it when it was scored. An account that came to it by a change of hands
is new to it, whatever had changed of it before.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from heapq import merge
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from features.feature import Target
from serving.permissions.assignments import Assignments
from serving.permissions.caller import Caller
from serving.permissions.policy import Policy
from serving.scores.leads import LEAD, leads_of, read_leads, write_leads
from serving.scores.scoring import Manifest, ScoreSet, read_manifest
from serving.scores.sharing import View

__all__ = ["CHANGES", "AccountChange", "ChangeSet", "Kind", "Lead", "read_change_set", "write_changes"]

CHANGES = "changes.parquet"

Kind = Literal["model", "new_account", "gone_account", "turned_red", "band", "first_driver"]

_TOLD = ("name", "health", "band", "partner", "vendors_lead", "partners_lead")
_NOTHING: Mapping[str, Any] = dict.fromkeys(_TOLD)
_TYPES = {"health": pa.uint8(), "vendors_lead": LEAD, "partners_lead": LEAD}
_HAND = pa.struct([("changed_at", pa.timestamp("us")), ("partner_id", pa.string())])
_META = b"renewcast"
_TOGETHER = 4096
_SCHEMA = pa.schema(
    [
        ("account_id", pa.string()),
        *((f"{name}{side}", _TYPES.get(name, pa.string())) for side in ("_before", "") for name in _TOLD),
        ("hands", pa.list_(_HAND)),
    ]
)
"""`..._before` is missing for an account that was not there before, the others for one that is gone; `hands` is for the latter alone."""


@dataclass(frozen=True)
class Lead:
    """A driver that led an account's reasons."""

    features: tuple[str, ...]
    sentence: str
    effect: Literal["raises", "lowers"]


@dataclass(frozen=True, kw_only=True)
class AccountChange:
    """What changed of one account for one caller; what was not there is None."""

    account_id: str
    name: str
    kinds: tuple[Kind, ...]
    health_before: int | None
    health: int | None
    band_before: str | None
    band: str | None
    lead_before: Lead | None
    lead: Lead | None


@dataclass(frozen=True, kw_only=True, eq=False)
class ChangeSet:
    """What changed from one score set to the next.

    Parameters
    ----------
    against
        The version before; None for the first.
    models
        The targets whose models changed.
    hands
        Who manages the accounts that are gone, as far as the score set before knows.
    """

    version: str
    against: str | None
    cutoff: datetime
    models: tuple[Target, ...]
    lines: pa.Table
    hands: Assignments = field(repr=False)

    def __len__(self) -> int:
        return len(self.lines)

    def changes_for(self, view: View, score_set: ScoreSet, *, start: int = 0) -> Iterator[tuple[int, AccountChange]]:
        """Yield what changed for the caller from a line on, each with its line's number.

        Parameters
        ----------
        score_set
            The present one: by it it is decided who manages an account, and which features the caller sees.
        """
        managed = self._managed(view, score_set)
        for number in (start + np.flatnonzero(managed[start:])).tolist():
            line = self.lines.slice(number, 1).to_pylist()[0]
            change = _change(line, view, score_set)
            if change.kinds:
                yield number, change

    def _managed(self, view: View, score_set: ScoreSet) -> npt.NDArray[np.bool_]:
        """Tell which lines are about accounts that the caller manages now and managed then."""
        if view.caller.is_vendor:
            return np.ones(len(self), dtype=bool)
        ids = self.lines["account_id"].to_pylist()
        present = {score_set.accounts["account_id"][row] for row in view.managed_rows(score_set.assignments)}
        gone = {ids[number] for number in view.managed_rows(self.hands)} - set(score_set.index)
        now = np.array([account_id in present or account_id in gone for account_id in ids], dtype=bool)
        then = [self.lines[name].to_numpy() == view.caller.partner_id for name in ("partner", "partner_before")]
        still_there = self.lines["band"].is_valid().to_numpy()
        managed: npt.NDArray[np.bool_] = now & np.where(still_there, *then)
        return managed


def write_changes(score_set: ScoreSet, folder: Path, *, policy: Policy, before: Path | None) -> None:
    """Write into a new score set's folder what changed against the score set before, and what the next one needs for that.

    Parameters
    ----------
    before
        The folder of the score set that was served until now; None for the first.
    """
    leads = leads_of(score_set, policy)
    write_leads(leads, folder)
    older = None if before is None else read_leads(before)
    if before is None or older is None:
        _write(folder, (), against=None, models=())
        return
    manifest = read_manifest(before)
    hands = _hands(before, set(older["account_id"].to_pylist()).difference(leads["account_id"].to_pylist()))
    told = (line | {"hands": hands.get(line["account_id"])} for line in _lines(older, leads))
    _write(folder, told, against=manifest.version, models=_changed_models(manifest, score_set.manifest))


def read_change_set(folder: Path, manifest: Manifest) -> ChangeSet:
    """Return what a score set that was served says that changed.

    Raises
    ------
    OSError, ValueError, KeyError, pa.ArrowException
        If the file is not there, or damaged.
    """
    lines = pq.read_table(folder / CHANGES)
    said = json.loads(lines.schema.metadata[_META])
    hands = [(row, hand["changed_at"], hand["partner_id"]) for row, found in enumerate(lines["hands"].to_pylist()) for hand in found or ()]
    columns = {
        "row": np.array([row for row, _, _ in hands], dtype=np.int64),
        "changed_at": np.array([at for _, at, _ in hands], dtype="datetime64[us]"),
        "partner_id": np.array([partner for _, _, partner in hands], dtype=object),
    }
    return ChangeSet(
        version=manifest.version,
        against=said["against"],
        cutoff=manifest.cutoff,
        models=tuple(target for target in get_args(Target) if target in said["models"]),
        lines=lines,
        hands=Assignments.from_columns(columns, len(lines)),
    )


def _changed_models(before: Manifest, after: Manifest) -> tuple[Target, ...]:
    hashes = [{target: model.package_hash for target, model in manifest.models.items()} for manifest in (before, after)]
    return tuple(target for target in get_args(Target) if hashes[0].get(target) != hashes[1].get(target))


def _lines(older: pa.Table, newer: pa.Table) -> Iterator[dict[str, Any]]:
    """Yield the accounts of which anything changed for anybody, in the order of their ids."""
    for account_id, was, is_now in _paired(older, newer):
        same = all(was[name] == is_now[name] for name in ("band", "partner"))
        if not same or any(_key(was[name]) != _key(is_now[name]) for name in ("vendors_lead", "partners_lead")):
            yield {"account_id": account_id} | {f"{name}_before": was[name] for name in _TOLD} | {name: is_now[name] for name in _TOLD}


def _paired(older: pa.Table, newer: pa.Table) -> Iterator[tuple[str, Mapping[str, Any], Mapping[str, Any]]]:
    """Yield each account's line of either table, in the order of their ids; only a few lines are in hand at a time."""
    merged = merge(_each(older, 0), _each(newer, 1), key=itemgetter(0))
    for account_id, found in groupby(merged, key=itemgetter(0)):
        lines = {side: line for _, side, line in found}
        yield account_id, lines.get(0, _NOTHING), lines.get(1, _NOTHING)


def _each(leads: pa.Table, side: int) -> Iterator[tuple[str, int, Mapping[str, Any]]]:
    for batch in leads.sort_by("account_id").to_batches(max_chunksize=_TOGETHER):
        for line in batch.to_pylist():
            yield line["account_id"], side, line


def _hands(before: Path, gone: Collection[str]) -> dict[str, list[dict[str, Any]]]:
    """Return the changes of hands of the accounts that are gone, as the score set before has them."""
    ids = pq.read_table(before / "accounts.parquet", columns=["account_id"])["account_id"].to_pylist()
    found: dict[str, list[dict[str, Any]]] = {}
    for change in pq.read_table(before / "assignments.parquet").to_pylist() if gone else ():
        if ids[change["row"]] in gone:
            found.setdefault(ids[change["row"]], []).append({"changed_at": change["changed_at"], "partner_id": change["partner_id"]})
    return found


def _write(folder: Path, lines: Iterable[Mapping[str, Any]], *, against: str | None, models: Sequence[Target]) -> None:
    schema = _SCHEMA.with_metadata({_META: json.dumps({"against": against, "models": list(models)})})
    left = iter(lines)
    with pq.ParquetWriter(folder / CHANGES, schema, compression="zstd") as file:
        while block := list(islice(left, _TOGETHER)):
            file.write_table(pa.Table.from_pylist(block, schema))


def _key(lead: Mapping[str, Any] | None) -> object:
    """Return what makes a driver another one: its features and its effect, not the numbers in its sentence."""
    return lead and (frozenset(lead["features"]), lead["effect"])


def _change(line: Mapping[str, Any], view: View, score_set: ScoreSet) -> AccountChange:
    gone = line["band"] is None
    new = line["band_before"] is None or not _knew(view.caller, line)
    older, newer = (_lead(line, side, view, score_set) for side in ("_before", ""))
    kinds: list[Kind] = []
    if gone:
        kinds = ["gone_account"]
    elif new:
        kinds = ["new_account", "turned_red"] if line["band"] == "red" and line["band_before"] is None else ["new_account"]
    elif line["band"] != line["band_before"]:
        kinds = ["turned_red", "band"] if line["band"] == "red" else ["band"]
    if not gone and not new and newer is not None and _lead_key(older) != _lead_key(newer):
        kinds.append("first_driver")
    return AccountChange(
        account_id=line["account_id"],
        name=line["name_before"] if gone else line["name"],
        kinds=tuple(kinds),
        health_before=None if new else line["health_before"],
        health=line["health"],
        band_before=None if new else line["band_before"],
        band=line["band"],
        lead_before=None if new else older,
        lead=newer,
    )


def _knew(caller: Caller, line: Mapping[str, Any]) -> bool:
    """Tell whether the account was the caller's to see at the score set before."""
    return caller.is_vendor or line["partner_before"] == caller.partner_id


def _lead_key(lead: Lead | None) -> object:
    return lead and (frozenset(lead.features), lead.effect)


def _lead(line: Mapping[str, Any], side: str, view: View, score_set: ScoreSet) -> Lead | None:
    """Return the first driver of one side, if the caller may see all of its features today."""
    stored = line[f"{'vendors' if view.caller.is_vendor else 'partners'}_lead{side}"]
    if stored is None or not all(_sees(view, score_set, line["account_id"], name) for name in stored["features"]):
        return None
    return Lead(tuple(stored["features"]), stored["sentence"], stored["effect"])


def _sees(view: View, score_set: ScoreSet, account_id: str, name: str) -> bool:
    if view.caller.is_vendor:
        return True
    feature, row = score_set.features.get(name), score_set.index.get(account_id)
    if feature is None or row is None:
        return False
    return view.sees(feature, supplied_by=score_set.supplies.of(row).get(name, ()))
