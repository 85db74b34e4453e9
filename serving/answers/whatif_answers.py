"""What-if for whoever asks: the models on other values of an account, under the policy of the account page.

A caller changes what it sees by name and somebody can act on, and nothing else: a feature that is kept from it does not exist here. A
partner is told what is usual, the range without the outermost hundredths, because an extreme would be somebody else's account.
"""

from collections.abc import Collection, Mapping

from features.errors import nearest
from features.feature import Feature
from serving.answers import schema_changes as schema
from serving.answers.account_answers import as_of
from serving.answers.change_answers import moves_between
from serving.answers.feature_rules import Rules, find_rules
from serving.answers.moves import standing_answer
from serving.answers.namesakes import share_alike
from serving.answers.whatif import Adjusted, ImpossibleError, Limits, adjust, limits_of
from serving.scores.scoring import ScoreSet
from serving.scores.sharing import View
from serving.scores.standings import present_standing, standing_of

__all__ = ["adjustable", "what_if_answer"]

Value = float | str | None

_TAIL = 0.01
"""The share of the training rows at either end that a partner's ranges leave out."""

_NOTE = (
    "This is what the models say of an account with these values that is like this one in all else. It is not a promise that changing the "
    "account would have this effect."
)


def what_if_answer(score_set: ScoreSet, row: int, asked: Mapping[str, Value], view: View) -> schema.WhatIf:
    """Return what the models would say of an account with other values.

    Raises
    ------
    ImpossibleError
        If a feature is none that the caller may change, or no account could have these values.
    """
    before, account = present_standing(score_set, row), score_set.account(row)
    limits, rules = _limits(score_set, row, view), _rules(score_set)
    if unknown := _unchangeable(score_set, row, asked, limits, view):
        raise ImpossibleError(unknown)
    checked = limits | _checked(score_set, row, rules, view)
    adjusted = adjust(before.values, asked, features=score_set.features, limits=checked, rules=rules, segment=account.segment)
    after = standing_of(
        account.account_id,
        adjusted.values,
        packages=score_set.packages,
        definition=score_set.manifest.health,
        cutoff=score_set.manifest.cutoff,
        supplied=before.supplied,
    )
    health, moves = moves_between(score_set.packages, before=before, after=after, view=view)
    asked_for, moved_along = _moved(score_set, row, asked, before.values, adjusted, view)
    values = {
        "account_id": account.account_id,
        "before": standing_answer(before, view),
        "after": standing_answer(after, view),
        "health": health,
        "moves": moves,
        "asked": asked_for,
        "moved_along": moved_along,
        "held": [name for name in adjusted.held if name in _seen(score_set, row, view)],
        "note": _NOTE,
        "as_of": as_of(score_set, view),
    }
    return schema.WhatIf(**share_alike(view, "WhatIf", values))


def adjustable(score_set: ScoreSet, row: int, view: View) -> list[schema.Adjustable]:
    """Return the features of an account that the caller may change in a what-if, with the values that are taken."""
    present, answers = present_standing(score_set, row), []
    for name, limits in _limits(score_set, row, view).items():
        feature = score_set.features[name]
        values = {
            "feature": name,
            "meaning": feature.meaning,
            "unit": feature.unit,
            "value": present.values[name],
            "lowest": limits.lowest,
            "highest": limits.highest,
            "levels": None if limits.levels is None else list(limits.levels),
            "whole": limits.whole,
        }
        answers.append(schema.Adjustable(**share_alike(view, "Adjustable", values)))
    return answers


def _rules(score_set: ScoreSet) -> Rules:
    """Return the rules between the features of the book, found once for a score set."""
    if "feature rules" not in score_set.memory:
        segments = score_set.accounts["segment"]
        score_set.memory["feature rules"] = find_rules(score_set.features, score_set.values, score_set.earlier, segments)
    rules: Rules = score_set.memory["feature rules"]
    return rules


def _seen(score_set: ScoreSet, row: int, view: View) -> Mapping[str, Feature]:
    """Return the features that the caller sees by name."""
    supplied = score_set.supplies.of(row)
    return {name: feature for name, feature in score_set.features.items() if view.sees(feature, supplied_by=supplied.get(name, ()))}


def _limits(score_set: ScoreSet, row: int, view: View) -> dict[str, Limits]:
    """Return the limits of all features that the caller may change."""
    rules, seen = _rules(score_set), _seen(score_set, row, view)
    follow = {name for name in seen if name in rules.quotients or any(name == ranked for ranked, _ in rules.ranks)}
    can_change = {name for name, feature in seen.items() if feature.actionable}
    free = {name for name in can_change if name not in follow or not can_change & {*seen[name].inputs}}
    return _of(score_set, row, free, rules, view)


def _checked(score_set: ScoreSet, row: int, rules: Rules, view: View) -> dict[str, Limits]:
    """Return the limits of shares that must stay possible; only of those whose two sides the caller sees, as a refusal tells of both."""
    seen = _seen(score_set, row, view)
    shares = {
        name
        for name, form in rules.quotients.items()
        if score_set.features[name].unit == "share" and {name, form.above, form.below} <= seen.keys()
    }
    found = _of(score_set, row, shares, rules, view)
    return {name: Limits(lowest=limits.lowest, highest=max(limits.highest or 1.0, 1.0)) for name, limits in found.items()}


def _of(score_set: ScoreSet, row: int, names: Collection[str], rules: Rules, view: View) -> dict[str, Limits]:
    own = present_standing(score_set, row).values
    tail = 0.0 if view.caller.is_vendor else _TAIL
    found = {
        name: limits_of(score_set.features[name], score_set.packages.values(), rules, own=own[name], tail=tail)
        for name in score_set.features
        if name in names
    }
    return {name: limits for name, limits in found.items() if limits is not None}


def _unchangeable(score_set: ScoreSet, row: int, asked: Collection[str], limits: Mapping[str, Limits], view: View) -> dict[str, str]:
    seen, problems = _seen(score_set, row, view), {}
    for name in asked:
        if name in limits:
            continue
        feature = seen.get(name)
        if feature is None:
            problems[name] = f"there is no such feature that you may change; {nearest(name, limits)}".rstrip("; ")
        elif not feature.actionable:
            problems[name] = "nobody can act on this feature"
        else:
            sources = [source for source in feature.inputs if source in limits]
            problems[name] = f"follows from other features: change {' or '.join(sources)} instead" if sources else "no value was ever seen"
    return problems


def _moved(
    score_set: ScoreSet, row: int, asked: Collection[str], before: Mapping[str, Value], adjusted: Adjusted, view: View
) -> tuple[list[schema.MovedFeature], list[schema.MovedFeature]]:
    """Return the features that were asked for, and those that moved along and that the caller sees."""
    seen = _seen(score_set, row, view)

    def answer(name: str, reason: str | None) -> schema.MovedFeature:
        direction = seen[name].direction.get("churn")
        values = {
            "feature": name,
            "earlier": before[name],
            "value": adjusted.values[name],
            "reason": reason,
            "direction": None if direction is None else "raises" if direction > 0 else "lowers",
        }
        return schema.MovedFeature(**share_alike(view, "MovedFeature", values))

    along = [answer(name, reason) for name, reason in adjusted.moved.items() if name in seen]
    return [answer(name, None) for name in asked], along
