"""From a score set to what a caller gets to read: the one place where the API's answers and the pages' contents are made."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from features.feature import Feature, Target
from serving import schema
from serving.health import band_of, health_of
from serving.portfolio import BookTotals
from serving.reasons import Contribution, Driver, Explanation, explain_score
from serving.scoring import NEW_ACCOUNT_DAYS, AccountScore, ScoreSet
from serving.sharing import OtherFactors, View, shared_explanation
from serving.wording import day

__all__ = ["account_answer", "as_of", "book_answer", "explain_account", "predict_account", "predict_rows", "totals_answer"]


def as_of(score_set: ScoreSet, view: View) -> schema.AsOf:
    """Return what answers from this score set stand on."""
    manifest = score_set.manifest
    values = {
        "score_set": manifest.version,
        "cutoff": manifest.cutoff,
        "scored_at": manifest.scored_at,
        "health_version": manifest.health.version,
        "currency": manifest.currency,
        "provisional": [target for target, model in manifest.models.items() if model.provisional],
        "sources": [schema.Source(**view.share("Source", vars(source))) for source in manifest.sources],
    }
    return schema.AsOf(**view.share("AsOf", values))


def book_answer(score_set: ScoreSet, rows: Iterable[int], totals: BookTotals, view: View, *, next_cursor: str | None = None) -> schema.Book:
    """Return these rows of the book, in this order, and what all that the filters leave add up to."""
    values = {
        "accounts": [schema.AccountSummary(**_summary(score_set, score_set.account(row), view)) for row in rows],
        "totals": totals_answer(totals, view),
        "next_cursor": next_cursor,
        "as_of": as_of(score_set, view),
    }
    return schema.Book(**view.share("Book", values))


def totals_answer(totals: BookTotals, view: View) -> schema.Totals:
    """Return what accounts add up to."""
    return schema.Totals(**view.share("Totals", vars(totals) | {"bands": dict(totals.bands)}))


def account_answer(score_set: ScoreSet, row: int, view: View) -> schema.Account:
    """Return one account with its scores explained."""
    account = score_set.account(row)
    values = {
        "earlier_at": account.earlier_at,
        "seats": _shared_value(score_set, "seats", row, view),
        "scores": [_score(score_set, explain_account(score_set, row, target), view) for target in score_set.packages],
        "as_of": as_of(score_set, view),
    }
    return schema.Account(**view.share("Account", _summary(score_set, account, view) | values))


def explain_account(score_set: ScoreSet, row: int, target: Target) -> Explanation:
    """Return one account's score of one target, split into drivers."""
    package = score_set.packages[target]
    parts = score_set.parts[target][row]
    medians = score_set.peers.get(score_set.accounts["segment"][row], {})
    contributions = [
        Contribution(
            feature=feature,
            part=float(part),
            value=_value(score_set.values[feature.name][row]),
            earlier=_value(score_set.earlier[feature.name][row]),
            peers=medians.get(feature.name),
        )
        for feature, part in zip(package.catalogue, parts[:-1], strict=True)
    ]
    raw = float(score_set.accounts[f"{target}_raw"][row])
    probability = float(score_set.accounts[f"{target}_probability"][row])
    calibrator = package.calibrator_at(lambda name: score_set.values[name][row])
    return explain_score(target, contributions, base=float(parts[-1]), raw=raw, probability=probability, calibrator=calibrator)


def predict_account(score_set: ScoreSet, row: int, view: View) -> schema.Prediction:
    """Return one account's scores, as the score set has them."""
    account = score_set.account(row)
    values = {
        "id": account.account_id,
        "health": account.health,
        "band": account.band,
        "scores": [_score(score_set, explain_account(score_set, row, target), view) for target in score_set.packages],
        "notes": [limit.text for limit in _limits(score_set, account, view)],
    }
    return schema.Prediction(**view.share("Prediction", values))


def predict_rows(score_set: ScoreSet, ids: Sequence[str], frame: pd.DataFrame, view: View) -> list[schema.Prediction]:
    """Score rows of features on the fly with the score set's models, and explain them.

    Raises
    ------
    PackageError
        If a feature has no column, or a number feature holds text.
    """
    explained = {target: _explain_rows(score_set, target, frame) for target in score_set.packages}
    churn = np.array([explanation.probability for explanation in explained["churn"]])
    health = health_of(churn, score_set.manifest.health)
    notes = _unseen_levels(score_set, frame)
    results = []
    for row, identifier in enumerate(ids):
        values = {
            "id": identifier,
            "health": int(health[row]),
            "band": band_of(int(health[row])),
            "scores": [_score(score_set, explanations[row], view) for explanations in explained.values()],
            "notes": notes[row],
        }
        results.append(schema.Prediction(**view.share("Prediction", values)))
    return results


def _explain_rows(score_set: ScoreSet, target: Target, frame: pd.DataFrame) -> list[Explanation]:
    package = score_set.packages[target]
    scores, parts = package.score_rows(frame), package.explain_rows(frame)
    columns = [frame[feature.name].to_numpy(dtype=object) for feature in package.catalogue]
    explanations = []
    for row in range(len(frame)):
        contributions = [
            Contribution(feature=feature, part=float(parts[row, position]), value=_value(columns[position][row]))
            for position, feature in enumerate(package.catalogue)
        ]
        explanation = explain_score(
            target,
            contributions,
            base=float(parts[row, -1]),
            raw=float(scores.raw[row]),
            probability=float(scores.probability[row]),
            calibrator=package.calibrator_at(frame.iloc[row].get),
        )
        explanations.append(explanation)
    return explanations


def _unseen_levels(score_set: ScoreSet, frame: pd.DataFrame) -> list[list[str]]:
    levels = {name: set(known) for package in score_set.packages.values() for name, known in package.categories.items()}
    said = "{name}: the model has not seen {value!r} and treats it as not known"
    return [
        [said.format(name=name, value=row[name]) for name, known in levels.items() if row[name] is not None and row[name] not in known]
        for row in frame[list(levels)].to_dict("records")
    ]


def _summary(score_set: ScoreSet, account: AccountScore, view: View) -> dict[str, Any]:
    values = {
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
        "renewal_at": account.renewal_at,
        "first_driver": _first_driver(score_set, account.row, view),
        "limits": _limits(score_set, account, view),
    }
    return view.share("AccountSummary", values)


def _first_driver(score_set: ScoreSet, row: int, view: View) -> schema.FirstDriver | None:
    """Return the strongest of the named drivers that somebody can act on, one that raises the risk first, or the strongest of all.

    The renewal date leads most explanations and stands in a column of its own; what the list should tell is what to look at.
    """
    named = shared_explanation(explain_account(score_set, row, "churn"), view).named
    if not named:
        return None
    can_act = [driver for driver in named if driver.main.feature.actionable] or named
    first = next((driver for driver in can_act if driver.effect == "raises"), can_act[0])
    return schema.FirstDriver(**view.share("FirstDriver", {"sentence": first.sentence, "effect": first.effect}))


def _limits(score_set: ScoreSet, account: AccountScore, view: View) -> list[schema.Limit]:
    said = []
    if "new_account" in account.limits:
        days = round(account.age_days or 0)
        said.append(
            ("new_account", f"A customer for {days} days: under {NEW_ACCOUNT_DAYS} days there is too little history to rely on the score.")
        )
    if "no_telemetry" in account.limits:
        said.append(("no_telemetry", "No telemetry has ever arrived for this account, so the score does not know how it is used."))
    for source in score_set.manifest.sources:
        if source.silent:
            since = f"since {day(source.latest)}" if source.latest else "at all"
            said.append(("silent_source", f"Nothing has arrived in {source.table} {since}, for any account: the score leans on old data."))
    return [schema.Limit(**view.share("Limit", {"code": code, "text": text})) for code, text in said]


def _score(score_set: ScoreSet, explanation: Explanation, view: View) -> schema.Score:
    model = score_set.manifest.models[explanation.target]
    shared = shared_explanation(explanation, view)
    exact = shared.sizes == "exact"
    values = {
        "target": explanation.target,
        "probability": explanation.probability,
        "book_average": model.average_probability if len(score_set) >= view.policy.numbers.peers_needed else None,
        "horizon_days": model.horizon_days,
        "lead_days": model.lead_days,
        "raw_score": explanation.raw,
        "base": explanation.base,
        "base_probability": explanation.base_probability,
        "drivers": [schema.Driver(**_driver(driver, view, sizes=_sizes(driver) if exact else _NO_SIZES)) for driver in shared.named],
        "other_factors": _other_factors(shared.other, view),
        "sizes": shared.sizes,
        "package": model.package_hash,
    }
    return schema.Score(**view.share("Score", values))


_NO_SIZES = {"part": None, "odds_factor": None}


def _sizes(driver: Driver) -> dict[str, float]:
    return {"part": driver.part, "odds_factor": driver.odds_factor}


def _driver(driver: Driver, view: View, *, sizes: dict[str, Any]) -> dict[str, Any]:
    main = driver.main
    values = {
        "features": [member.feature.name for member in driver.members],
        "family": main.feature.family,
        "sentence": driver.sentence,
        "effect": driver.effect,
        "value": main.value,
        "earlier": main.earlier,
        "peers": main.peers,
        "unit": main.feature.unit,
        "actionable": any(member.feature.actionable for member in driver.members),
        "sensitivity": main.feature.sensitivity,
    }
    return view.share("Driver", values | sizes)


def _other_factors(other: OtherFactors, view: View) -> schema.OtherFactors:
    return schema.OtherFactors(**view.share("OtherFactors", vars(other) | {"features": list(other.features)}))


def _shared_value(score_set: ScoreSet, name: str, row: int, view: View) -> float | None:
    feature: Feature | None = score_set.features.get(name)
    if feature is None or not view.sees(feature):
        return None
    value = _value(score_set.values[name][row])
    return value if isinstance(value, float) else None


def _value(value: Any) -> float | str | None:
    """Return a feature's value as JSON knows it: missing ones as None."""
    if value is None or value != value:
        return None
    return value if isinstance(value, str) else float(value)
