"""The slow, obvious twin of the JSON of accounts: one account after the other, object by object, through the models of the schema."""

import pandas as pd

from serving.answers import schema
from serving.answers.account_answers import as_of
from serving.permissions.caller import VENDOR, Caller
from serving.permissions.policy import default_policy, parse_policy
from serving.scores.account_json import _limits
from serving.scores.explained import MOST_OTHERS
from serving.scores.reasons import Contribution, explain_score
from serving.scores.sharing import NOTHING_SUPPLIED, View, shared_explanation

OPEN = parse_policy('[families]\ncommercial = ["gold"]\n[features]\nactive_users_91d = "vendor"\n[fields.Driver]\npeers = "vendor"\n')
VIEWS = (
    View(VENDOR, None, default_policy()),
    View(Caller("p1"), None, default_policy()),
    View(Caller("p1"), "gold", OPEN),
    View(Caller("p2"), "silver", OPEN),
    View(VENDOR, None, OPEN),
)


def without_merged_factor(account):
    """The factor of the merged part is one power here and a product there: the same number but for the last digits."""
    data = account.model_dump()
    return data, [score["other_factors"].pop("odds_factor") for score in data["scores"]]


def explain(score_set, row, target, view):
    package = score_set.packages[target]
    medians = score_set.peers.get(score_set.accounts["segment"][row], {})
    contributions = [
        Contribution(
            feature=feature,
            part=float(score_set.parts[target][row, position]),
            value=plain(score_set.values[feature.name][row]),
            earlier=plain(score_set.earlier[feature.name][row]),
            peers=medians.get(feature.name),
        )
        for position, feature in enumerate(package.catalogue)
    ]
    return explain_score(
        target,
        contributions,
        base=float(score_set.parts[target][row, -1]),
        raw=float(score_set.accounts[f"{target}_raw"][row]),
        probability=float(score_set.accounts[f"{target}_probability"][row]),
        calibrator=package.calibrator_at(lambda name: score_set.values[name][row]),
        audience_of=view.policy.audience_of,
    )


def explain_features(score_set, features, target, view):
    """Explain a row of features that was sent, by way of a frame."""
    package = score_set.packages[target]
    frame = pd.DataFrame([features], columns=list(package.features), dtype=object)
    scores, parts = package.score_rows(frame), package.explain_rows(frame)
    contributions = [
        Contribution(feature=feature, part=float(parts[0, position]), value=plain(features[feature.name]))
        for position, feature in enumerate(package.catalogue)
    ]
    return explain_score(
        target,
        contributions,
        base=float(parts[0, -1]),
        raw=float(scores.raw[0]),
        probability=float(scores.probability[0]),
        calibrator=package.calibrator_at(features.get),
        audience_of=view.policy.audience_of,
    )


def account(score_set, row, view):
    found = score_set.account(row)
    explained = {target: explain(score_set, row, target, view) for target in score_set.packages}
    feature = score_set.features.get("seats")
    values = {
        "earlier_at": found.earlier_at,
        "seats": plain(score_set.values["seats"][row]) if feature is not None and view.sees(feature) else None,
        "scores": [score(score_set, explanation, view, score_set.supplies.of(row)) for explanation in explained.values()],
        "as_of": as_of(score_set, view),
    }
    return schema.Account(**view.share("Account", summary(score_set, found, explained["churn"], view) | values))


def prediction(score_set, row, view):
    found = score_set.account(row)
    values = {
        "id": found.account_id,
        "health": found.health,
        "band": found.band,
        "scores": [
            score(score_set, explain(score_set, row, target, view), view, score_set.supplies.of(row)) for target in score_set.packages
        ],
        "notes": [limit.text for limit in limits(score_set, found, view)],
    }
    return schema.Prediction(**view.share("Prediction", values))


def summary(score_set, found, churn, view):
    names = ("account_id", "name", "segment", "csm", "health", "band", "arr", "arr_at_risk", "renewal_at")
    values = {name: getattr(found, name) for name in names} | {
        "churn_probability": found.probability["churn"],
        "expansion_probability": found.probability.get("expansion"),
        **partner(score_set, found.row, view),
        "first_driver": first_driver(churn, view, score_set.supplies.of(found.row)),
        "limits": limits(score_set, found, view),
    }
    return view.share("AccountSummary", values)


def partner(score_set, row, view):
    manager = score_set.assignments.partner_of(row, view.at or score_set.manifest.scored_at)
    return {"partner_id": manager, "partner_name": None if manager is None else score_set.partners[manager].name}


def first_driver(explanation, view, supplied):
    named = shared_explanation(explanation, view, supplied=supplied).named
    if not named:
        return None
    can_act = [driver for driver in named if driver.main.feature.actionable] or named
    first = next((driver for driver in can_act if driver.effect == "raises"), can_act[0])
    return schema.FirstDriver(**view.share("FirstDriver", {"sentence": first.sentence, "effect": first.effect}))


def limits(score_set, found, view):
    return [schema.Limit(**view.share("Limit", {"code": code, "text": text})) for code, text in _limits(score_set, found)]


def score(score_set, explanation, view, supplied=NOTHING_SUPPLIED):
    model = score_set.manifest.models[explanation.target]
    shared = shared_explanation(explanation, view, supplied=supplied)
    values = {
        "target": explanation.target,
        "probability": explanation.probability,
        "book_average": model.average_probability if len(score_set) >= view.policy.numbers.peers_needed else None,
        "horizon_days": model.horizon_days,
        "lead_days": model.lead_days,
        "raw_score": explanation.raw,
        "base": explanation.base,
        "base_probability": explanation.base_probability,
        "drivers": [schema.Driver(**driver(each, view, exact=shared.sizes == "exact")) for each in shared.named],
        "other_factors": other_factors(shared.other, view),
        "sizes": shared.sizes,
        "package": model.package_hash,
    }
    return schema.Score(**view.share("Score", values))


def driver(found, view, *, exact):
    main = found.main
    values = {
        "features": [member.feature.name for member in found.members],
        "family": main.feature.family,
        "sentence": found.sentence,
        "effect": found.effect,
        "part": found.part if exact else None,
        "odds_factor": found.odds_factor if exact else None,
        "value": main.value,
        "earlier": main.earlier,
        "peers": main.peers,
        "unit": main.feature.unit,
        "actionable": any(member.feature.actionable for member in found.members),
        "sensitivity": main.feature.sensitivity,
    }
    return view.share("Driver", values)


def other_factors(other, view):
    values = {
        "part": other.part,
        "odds_factor": other.odds_factor,
        "features": list(other.features[:MOST_OTHERS]),
        "count": len(other.features),
        "confidential": other.confidential,
    }
    return schema.OtherFactors(**view.share("OtherFactors", values))


def plain(value):
    return None if value is None or value != value else value if isinstance(value, str) else float(value)
