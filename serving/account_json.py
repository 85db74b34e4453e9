"""Accounts of a score set as JSON, many at once: the pieces that answers are put together from.

The pieces are what the models of `serving.schema` would have given, byte for byte. They are made at the scoring for the views that most
requests have, and for any other view when it asks; one function makes them, so both are the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic_core import to_json

from features.feature import Feature
from serving.explained import (
    ExplainedScore,
    NamedDriver,
    book_evidence,
    closed_fields,
    json_value,
    row_evidence,
    score_features,
    scored_rows,
    teller_of,
)
from serving.health import band_of, health_of
from serving.scoring import NEW_ACCOUNT_DAYS, AccountScore, ScoreSet
from serving.sharing import NOTHING_SUPPLIED, View
from serving.wording import day

__all__ = ["Pieces", "account_json", "prediction_json", "render", "render_rows"]

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


@dataclass(frozen=True, slots=True)
class Pieces:
    """One account's JSON for one view, in pieces.

    Parameters
    ----------
    summary
        A whole `AccountSummary`.
    account
        An `Account` up to its scores.
    scores
        The array of its scores; empty if the view may not read them.
    prediction, notes
        A `Prediction` up to its scores, and from there to its end.
    """

    summary: bytes
    account: bytes
    scores: bytes
    prediction: bytes
    notes: bytes


def account_json(pieces: Pieces, as_of: bytes) -> bytes:
    """Put an `Account` together."""
    return b"".join((pieces.account, pieces.scores, b',"as_of":', as_of, b"}"))


def prediction_json(pieces: Pieces) -> bytes:
    """Put a `Prediction` together."""
    return b"".join((pieces.prediction, pieces.scores, pieces.notes))


def render(score_set: ScoreSet, rows: Sequence[int], view: View) -> list[Pieces]:
    """Return the pieces of some accounts for a view that may see them."""
    evidence = book_evidence(score_set, rows)
    tellers = {target: teller_of(score_set, target, view) for target in score_set.packages}
    scores = [
        teller.tell(scored_rows(score_set, target, rows), evidence, [NOTHING_SUPPLIED] * len(rows)) for target, teller in tellers.items()
    ]
    closed = {record: frozenset(closed_fields(view, record, fields)) for record, fields in _FIELDS.items()}
    writer = _Writer(score_set, view, closed)
    return [writer.pieces(score_set.account(row), told) for row, told in zip(rows, zip(*scores, strict=True), strict=True)]


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
    scored = {target: score_features(package, features) for target, package in score_set.packages.items()}
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
        answers.append(to_json(view.share("Prediction", record)))
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

    def pieces(self, account: AccountScore, scores: Sequence[ExplainedScore]) -> Pieces:
        limits = _limits(self.score_set, account)
        summary = self._open("AccountSummary", _summary(account, self._first_driver(scores), self._said(limits)))
        facts = {"earlier_at": _in_utc(account.earlier_at), "seats": self._seats(account.row)}
        prediction = {"id": account.account_id, "health": account.health, "band": account.band}
        hidden = "scores" in self.closed["Account"] | self.closed["Prediction"]
        return Pieces(
            summary=to_json(summary),
            account=to_json(self._open("Account", summary | facts))[:-1] + b',"scores":',
            scores=b"null" if hidden else to_json([score.record for score in scores]),
            prediction=to_json(self._open("Prediction", prediction))[:-1] + b',"scores":',
            notes=b"," + to_json(self._open("Prediction", {"notes": [text for _, text in limits]}))[1:],
        )

    def _open(self, record: str, values: Record) -> Record:
        closed = self.closed[record]
        return {name: None if name in closed else value for name, value in values.items()} if closed else values

    def _said(self, limits: Sequence[tuple[str, str]]) -> list[Record]:
        return [self._open("Limit", {"code": code, "text": text}) for code, text in limits]

    def _first_driver(self, scores: Sequence[ExplainedScore]) -> Record | None:
        """Return the strongest of the named drivers that somebody can act on, one that raises the risk first, or the strongest of all.

        The renewal date leads most explanations and stands in a column of its own; what the list should tell is what to look at.
        """
        named = next(score.named for score in scores if score.target == "churn")
        if not named:
            return None
        can_act = [driver for driver in named if driver.main.actionable] or named
        first: NamedDriver = next((driver for driver in can_act if driver.effect == "raises"), can_act[0])
        return self._open("FirstDriver", {"sentence": first.sentence, "effect": first.effect})

    def _seats(self, row: int) -> float | None:
        feature: Feature | None = self.score_set.features.get("seats")
        if feature is None or not self.view.sees(feature):
            return None
        value = json_value(self.score_set.values["seats"][row])
        return value if isinstance(value, float) else None


def _summary(account: AccountScore, first_driver: Record | None, limits: list[Record]) -> Record:
    return {
        "account_id": account.account_id,
        "name": account.name,
        "segment": account.segment,
        "csm": account.csm,
        "partner_id": account.partner_id,
        "partner_name": account.partner_name,
        "health": account.health,
        "band": account.band,
        "churn_probability": account.probability["churn"],
        "expansion_probability": account.probability.get("expansion"),
        "arr": account.arr,
        "arr_at_risk": account.arr_at_risk,
        "renewal_at": _in_utc(account.renewal_at),
        "first_driver": first_driver,
        "limits": limits,
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
