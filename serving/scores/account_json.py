"""Accounts of a score set as JSON, many at once: the pieces that answers are put together from.

The pieces are what the models of `serving.answers.schema` would have given, byte for byte. They are made at the scoring for the views that
most requests have, and for any other view when it asks; one function makes them, so both are the same.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

from features.feature import Feature
from serving import health, wording
from serving.health import band_of, health_of
from serving.permissions import policy, supplies
from serving.permissions.caller import VENDOR, Caller
from serving.permissions.policy import Policy
from serving.scores import drivers, explained, fragments, reasons, sharing
from serving.scores.explained import (
    ExplainedScore,
    book_evidence,
    closed_fields,
    json_value,
    lead_of,
    row_evidence,
    score_features,
    scored_rows,
    teller_of,
)
from serving.scores.fragments import Fragments, Pieces, Shelf, Stamp, seal_fragments, write_shelf
from serving.scores.scoring import NEW_ACCOUNT_DAYS, AccountScore, ScoreSet
from serving.scores.sharing import NOTHING_SUPPLIED, View
from serving.scores.windows import windows
from serving.wording import day
from training import calibration

__all__ = ["account_json", "as_json", "keep_pieces", "pieces_of", "prediction_json", "render", "render_rows", "tier_of", "writer_version"]

_CHUNK = 512
"""Accounts that are written at once: enough to share the work, and few enough to keep in memory."""

_WRITERS: tuple[ModuleType, ...] = (calibration, drivers, explained, fragments, health, policy, reasons, sharing, supplies, wording)

as_json: Callable[[object], bytes] = TypeAdapter(Any).dump_json
"""Writes plain values as the models of the schema write theirs."""

Record = dict[str, Any]

_SUMMARY = (
    *("account_id", "name", "segment", "csm", "partner_id", "partner_name", "health", "band", "churn_probability"),
    *("expansion_probability", "arr", "arr_at_risk", "renewal_at", "first_driver", "limits"),
)
_FIELDS: Mapping[str, tuple[str, ...]] = {
    "AccountSummary": _SUMMARY,
    "Account": (*_SUMMARY, "earlier_at", "seats", "scores", "as_of"),
    "Prediction": ("id", "health", "band", "scores", "notes"),
    "FirstDriver": ("sentence", "effect"),
    "Limit": ("code", "text"),
}


def account_json(pieces: Pieces, as_of: bytes) -> bytes:
    """Put an `Account` together."""
    return b"".join((pieces.account, pieces.scores, b',"as_of":', as_of, b"}"))


def prediction_json(pieces: Pieces) -> bytes:
    """Put a `Prediction` together."""
    return b"".join((pieces.prediction, pieces.scores, pieces.notes))


def pieces_of(score_set: ScoreSet, rows: Sequence[int], view: View) -> list[Pieces]:
    """Return the pieces of some accounts for a view that may see them: those that are kept, where they are right for the view."""
    shelf = _shelf_for(score_set, view)
    if shelf is None:
        return render(score_set, rows, view)
    now, then = score_set.assignments.partners(_instant(score_set, view)), _kept_for(score_set)
    found = [shelf.of(row) if now[row] == then[row] else None for row in rows]
    missing = [row for row, pieces in zip(rows, found, strict=True) if pieces is None]
    made = iter(render(score_set, missing, view) if missing else ())
    return [pieces or next(made) for pieces in found]


def _shelf_for(score_set: ScoreSet, view: View) -> Shelf | None:
    """Return the pieces that were kept for views like this one."""
    fragments: Fragments | None = score_set.fragments
    if fragments is None or (fragments.stamp.policy, fragments.stamp.writer) != (view.policy.fingerprint, writer_version()):
        return None
    partner = view.caller.partner_id
    if partner is None:
        return fragments.vendor
    return fragments.partner if view.tier == tier_of(score_set, partner) else None


def _kept_for(score_set: ScoreSet) -> npt.NDArray[np.object_]:
    """Return the partner of each account `(n,)` for which its pieces were kept."""
    kept: npt.NDArray[np.object_] | None = score_set.memory.get("kept for")
    if kept is None and score_set.fragments is not None:
        kept = score_set.memory["kept for"] = score_set.assignments.partners(score_set.fragments.stamp.at)
    assert kept is not None
    return kept


def tier_of(score_set: ScoreSet, partner_id: str) -> str | None:
    """Return a partner's tier in the partner programme; None if the tables do not say."""
    partner = score_set.partners.get(partner_id)
    return partner.tier if partner else None


def keep_pieces(score_set: ScoreSet, policy: Policy, folder: Path) -> None:
    """Write the pieces of all accounts into a score set's folder, for the vendor and for the partner that manages each account now."""
    at = score_set.manifest.scored_at
    vendor = View(VENDOR, None, policy, at)
    write_shelf(folder, "vendor", len(score_set), _in_windows(score_set, (vendor,)))
    ids = sorted({partner for partner in score_set.assignments.partners(at) if partner is not None})
    views = [View(Caller(partner), tier_of(score_set, partner), policy, at) for partner in ids]
    write_shelf(folder, "partner", len(score_set), _in_windows(score_set, views))
    seal_fragments(folder, Stamp(policy=policy.fingerprint, writer=writer_version(), at=at))


def _in_windows(score_set: ScoreSet, views: Sequence[View]) -> Iterator[tuple[Sequence[int], list[Pieces]]]:
    """Yield the pieces of the accounts that the views see, some at a time."""
    for begin, window in windows(score_set):
        for view in views:
            rows = view.managed_rows(window.assignments).tolist()
            for start in range(0, len(rows), _CHUNK):
                chunk = rows[start : start + _CHUNK]
                yield [begin + row for row in chunk], render(window, chunk, view)


@cache
def writer_version() -> str:
    """Return a fingerprint of the code that decides what pieces say: pieces of another code are not sent."""
    digest = sha256()
    for path in (__file__, *(module.__file__ for module in _WRITERS)):
        digest.update(Path(str(path)).read_bytes())
    return digest.hexdigest()


def render(score_set: ScoreSet, rows: Sequence[int], view: View) -> list[Pieces]:
    """Make the pieces of some accounts for a view that may see them."""
    evidence = book_evidence(score_set, rows, peers_needed=view.policy.numbers.peers_needed)
    supplied = [score_set.supplies.of(row) for row in rows]
    tellers = [(target, teller_of(score_set, target, view)) for target in score_set.packages]
    scores = [teller.tell(scored_rows(score_set, target, rows), evidence, supplied) for target, teller in tellers]
    writer = _Writer(score_set, view, {record: frozenset(closed_fields(view, record, fields)) for record, fields in _FIELDS.items()})
    managed = score_set.assignments.partners(_instant(score_set, view))
    return [writer.pieces(score_set.account(row), managed[row], told) for row, told in zip(rows, zip(*scores, strict=True), strict=True)]


def _instant(score_set: ScoreSet, view: View) -> datetime:
    return view.at or score_set.manifest.scored_at


def render_rows(score_set: ScoreSet, rows: Sequence[tuple[str, Mapping[str, float | str | None]]], view: View) -> list[bytes]:
    """Score rows of features by the score set's models and return a `Prediction` for each.

    Parameters
    ----------
    rows
        For each row the caller's name for it, and its features.

    Raises
    ------
    PackageError
        If a row lacks a feature, or a number feature holds text.
    """
    features = [given for _, given in rows]
    evidence = row_evidence(features)
    scored = score_features(score_set.packages, features)
    told = [teller_of(score_set, target, view).tell(scores, evidence, [NOTHING_SUPPLIED] * len(rows)) for target, scores in scored.items()]
    health = health_of(scored["churn"].probability, score_set.manifest.health).tolist()
    answers = []
    for (name, given), points, scores in zip(rows, health, zip(*told, strict=True), strict=True):
        record = {
            "id": name,
            "health": points,
            "band": band_of(points),
            "scores": [score.record for score in scores],
            "notes": _unseen_levels(score_set, given),
        }
        answers.append(as_json(view.share("Prediction", record)))
    return answers


def _unseen_levels(score_set: ScoreSet, given: Mapping[str, float | str | None]) -> list[str]:
    return [
        f"{name}: the model has not seen {given[name]!r} and treats it as not known"
        for name, known in score_set.levels.items()
        if given[name] is not None and given[name] not in known
    ]


@dataclass(frozen=True)
class _Writer:
    """Writes accounts for one view; `closed` are the fields of each record that it may not read."""

    score_set: ScoreSet
    view: View
    closed: Mapping[str, frozenset[str]]

    def pieces(self, account: AccountScore, partner_id: str | None, scores: Sequence[ExplainedScore]) -> Pieces:
        limits = _limits(self.score_set, account)
        told: Record = {"partner_id": partner_id, "partner_name": self._partner_name(partner_id)}
        told |= {"first_driver": self._first_driver(scores), "limits": self._said(limits)}
        summary = self._open("AccountSummary", _summary(account, told))
        facts = {"earlier_at": _in_utc(account.earlier_at), "seats": self._seats(account.row)}
        prediction = {"id": account.account_id, "health": account.health, "band": account.band}
        return Pieces(
            prediction=as_json(self._open("Prediction", prediction))[:-1] + b',"scores":',
            notes=b"," + as_json(self._open("Prediction", {"notes": [text for _, text in limits]}))[1:],
            summary=as_json(summary),
            account=as_json(self._open("Account", summary | facts))[:-1] + b',"scores":',
            scores=as_json([score.record for score in scores]),
        )

    def _partner_name(self, partner_id: str | None) -> str | None:
        partner = None if partner_id is None else self.score_set.partners.get(partner_id)
        return partner.name if partner else None

    def _open(self, record: str, values: Record) -> Record:
        closed = self.closed[record]
        return {name: None if name in closed else value for name, value in values.items()} if closed else values

    def _said(self, limits: Sequence[tuple[str, str]]) -> list[Record]:
        return [self._open("Limit", {"code": code, "text": text}) for code, text in limits]

    def _first_driver(self, scores: Sequence[ExplainedScore]) -> Record | None:
        """Return the driver of churn to look at first."""
        named = next(score.named for score in scores if score.target == "churn")
        lead = lead_of(named)
        return None if lead is None else self._open("FirstDriver", {"sentence": named[lead].sentence, "effect": named[lead].effect})

    def _seats(self, row: int) -> float | None:
        feature: Feature | None = self.score_set.features.get("seats")
        if feature is None or not self.view.sees(feature, supplied_by=self.score_set.supplies.of(row).get("seats", ())):
            return None
        value = json_value(self.score_set.values["seats"][row])
        return value if isinstance(value, float) else None


def _summary(account: AccountScore, told: Record) -> Record:
    return {
        "account_id": account.account_id,
        "name": account.name,
        "segment": account.segment,
        "csm": account.csm,
        "partner_id": told["partner_id"],
        "partner_name": told["partner_name"],
        "health": account.health,
        "band": account.band,
        "churn_probability": account.probability["churn"],
        "expansion_probability": account.probability.get("expansion"),
        "arr": account.arr,
        "arr_at_risk": account.arr_at_risk,
        "renewal_at": _in_utc(account.renewal_at),
        "first_driver": told["first_driver"],
        "limits": told["limits"],
    }


def _limits(score_set: ScoreSet, account: AccountScore) -> list[tuple[str, str]]:
    """Return code and text of what makes the account's scores less sure."""
    said = []
    if "new_account" in account.limits:
        days = round(account.age_days or 0)
        text = f"A customer for {days} days: under {NEW_ACCOUNT_DAYS} days there is too little history to rely on the score."
        said.append(("new_account", text))
    if "no_telemetry" in account.limits:
        said.append(("no_telemetry", "No telemetry has ever arrived for this account, so the score does not know how it is used."))
    for source in score_set.manifest.sources:
        if source.silent:
            since = f"since {day(source.latest)}" if source.latest else "at all"
            said.append(("silent_source", f"Nothing has arrived in {source.table} {since}, for any account: the score leans on old data."))
    return said


def _in_utc(time: datetime | None) -> datetime | None:
    return None if time is None else time.replace(tzinfo=UTC)
