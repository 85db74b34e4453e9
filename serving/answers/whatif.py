"""What-if: other values of an account's features, as long as an account could have them.

A value is refused if nobody can act on its feature, if it lies outside of what was seen when the model was trained, if a count is not a
whole number, or if it contradicts another feature. Features that follow from the changed ones move along: counts over longer windows, which
are never smaller, and derived features, which are worked out anew. See `serving.answers.feature_rules` for how the rules are found.

But: all other features stay as they are, so a what-if is an account that is like this one in all else. What the models say of it is no
promise that changing the account would have this effect.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from features.feature import Feature
from serving.answers.feature_rules import Quotient, Rules, window_of
from serving.wording import number
from training.package import Package

__all__ = ["Adjusted", "ImpossibleError", "Limits", "adjust", "limits_of"]

Value = float | str | None
Values = Mapping[str, Value]

_NEARLY = 1e-9


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Which values of a feature are taken.

    Parameters
    ----------
    lowest, highest
        Of a number, both included.
    levels
        Of a category; None for a number.
    whole
        Whether only whole numbers are.
    """

    lowest: float | None = None
    highest: float | None = None
    levels: tuple[str, ...] | None = None
    whole: bool = False


@dataclass(frozen=True, kw_only=True)
class Adjusted:
    """An account with other values.

    Parameters
    ----------
    values
        All features.
    moved
        By feature that moved along, why.
    held
        Features that depend on changed ones in a way that is not known; they stay as they are.
    """

    values: Values
    moved: Mapping[str, str]
    held: tuple[str, ...]


class ImpossibleError(Exception):
    """Values that no account could have.

    Parameters
    ----------
    problems
        By feature, what is wrong with its value and what is allowed.
    """

    def __init__(self, problems: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{name}: {problem}" for name, problem in problems.items()))
        self.problems = dict(problems)


def limits_of(feature: Feature, packages: Iterable[Package], rules: Rules, *, own: Value, tail: float = 0.0) -> Limits | None:
    """Return which values of a feature are taken: what was seen when the models were trained, and the account's own value.

    Parameters
    ----------
    tail
        The share of the training rows that is left out at either end: where an extreme would tell a partner of somebody else's account.

    Returns
    -------
    None if no value was ever seen.
    """
    reading = [package for package in packages if feature.name in package.catalogue]
    if feature.kind == "category":
        levels = [set(package.categories[feature.name]) for package in reading]
        return Limits(levels=tuple(sorted(set.intersection(*levels)))) if levels else None
    seen = [bounds for package in reading if (bounds := _seen(package, feature.name, tail)) is not None]
    if not seen:
        return None
    whole = feature.name in rules.whole
    if whole:
        seen = [(math.ceil(lowest), math.floor(highest)) for lowest, highest in seen]
    ends = [*(end for bounds in seen for end in bounds), *([own] if isinstance(own, float) else [])]
    return Limits(lowest=float(min(ends)), highest=float(max(ends)), whole=whole)


def _seen(package: Package, name: str, tail: float) -> tuple[float, float] | None:
    quantiles = package.reference.quantiles[name]
    if quantiles is None:
        return None
    known = dict(zip(package.reference.levels, quantiles, strict=True))
    return known[tail], known[1.0 - tail]


def adjust(
    values: Values,
    asked: Mapping[str, Value],
    *,
    features: Mapping[str, Feature],
    limits: Mapping[str, Limits],
    rules: Rules,
    segment: str | None,
) -> Adjusted:
    """Change an account's features, and with them all that follow.

    Parameters
    ----------
    values
        The account as it is.
    asked
        New values by feature.
    limits
        Of the features that may be changed, and of those that are to be checked when they follow.
    segment
        The account's, for where it stands among its peers.

    Raises
    ------
    ImpossibleError
        If no account could have these values.
    """
    problems = {name: problem for name, value in asked.items() if (problem := _refused(features[name], value, limits[name])) is not None}
    problems |= {name: problem for chain in rules.chains for name, problem in _contradicted(chain, asked).items() if name not in problems}
    if problems:
        raise ImpossibleError(problems)
    changed = {**values, **{name: float(value) if isinstance(value, int) else value for name, value in asked.items()}}
    moved = {name: reason for chain in rules.chains for name, reason in _move_chain(chain, asked, changed).items()}
    moved |= _work_out(values, changed, features, rules, segment, {*asked, *moved})
    _refuse_beyond(asked, changed, moved, rules, limits)
    held = _depending({*asked, *moved}, features) - {*asked, *moved}
    return Adjusted(values=changed, moved=moved, held=tuple(name for name in features if name in held))


def _refused(feature: Feature, value: Value, limits: Limits) -> str | None:
    """Return what is wrong with a value by itself."""
    if limits.levels is not None:
        return None if value in limits.levels else f"must be one of {', '.join(limits.levels)}"
    assert limits.lowest is not None
    assert limits.highest is not None
    allowed = f"must be {'a whole number ' if limits.whole else ''}from {_exact(limits.lowest)} to {_exact(limits.highest)}"
    if isinstance(value, str) or value is None or not limits.lowest <= value <= limits.highest:
        return f"{allowed}{_unit(feature)}"
    return f"{allowed}{_unit(feature)}" if limits.whole and value != int(value) else None


def _exact(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def _unit(feature: Feature) -> str:
    said = "" if feature.unit in ("share", "ratio", "") else f" {feature.unit}"
    return f"{said}, which is what was seen when the model was trained"


def _contradicted(chain: Sequence[str], asked: Mapping[str, Value]) -> dict[str, str]:
    """Refuse counts over a window that are larger than those over a longer one, if both are asked for."""
    problems = {}
    known = [(name, value) for name in chain if isinstance(value := asked.get(name), int | float)]
    for position, (longer, most) in enumerate(known):
        for shorter, value in known[:position]:
            if value > most:
                problems[shorter] = f"must not be more than {longer}, which counts over a longer time and is to be {_exact(most)}"
    return problems


def _move_chain(chain: Sequence[str], asked: Mapping[str, Value], changed: dict[str, Value]) -> dict[str, str]:
    """Move counts over other windows as far as they must."""
    moved = {}
    for position, name in enumerate(chain):
        value = changed[name]
        if name in asked or not isinstance(value, float):
            continue
        shorter = [each for each in chain[:position] if isinstance(asked.get(each), int | float)]
        longer = [each for each in chain[position + 1 :] if isinstance(asked.get(each), int | float)]
        for others, wrong in ((shorter, "less"), (longer, "more")):
            bound = others[-1] if wrong == "less" and others else others[0] if others else None
            limit = changed[bound] if bound else None
            if bound and isinstance(limit, float) and (value < limit if wrong == "less" else value > limit):
                value = changed[name] = limit
                moved[name] = f"cannot be {wrong} than {bound}, which counts over {window_of(bound)} days"
    return moved


def _work_out(
    values: Values, changed: dict[str, Value], features: Mapping[str, Feature], rules: Rules, segment: str | None, sources: set[str]
) -> dict[str, str]:
    """Work derived features out anew, those that others are derived from first."""
    moved: dict[str, str] = {}
    left = {name for name in _depending(sources, features) - sources if name in rules.quotients or (name, segment) in rules.ranks}
    while ready := sorted(name for name in left if not left & {*features[name].inputs}):
        for name in ready:
            form = rules.quotients.get(name)
            new = form.value(changed) if form else rules.ranks[name, segment or ""].value(changed, values)
            if not _same(new, values[name]):
                changed[name] = new
                moved[name] = f"follows from {' and '.join(features[name].inputs)}"
        left -= {*ready}
    return moved


def _same(new: float | None, old: Value) -> bool:
    if isinstance(new, float) and isinstance(old, float):
        return abs(new - old) <= _NEARLY * max(abs(new), 1.0)
    return new == old


def _refuse_beyond(
    asked: Mapping[str, Value], changed: Mapping[str, Value], moved: Mapping[str, str], rules: Rules, limits: Mapping[str, Limits]
) -> None:
    """Refuse values that lead to a share which no account can have, such as more active users than seats.

    Raises
    ------
    ImpossibleError
        With the most that is possible.
    """
    problems = {}
    for name in moved:
        form, bound = rules.quotients.get(name), limits.get(name)
        share = changed[name]
        if form is None or bound is None or bound.highest is None or not isinstance(share, float) or share <= bound.highest + _NEARLY:
            continue
        culprit = form.above if form.above in asked else next(iter(asked))
        problems[culprit] = _too_much(name, form, changed, bound.highest, share, along=culprit != form.above)
    if problems:
        raise ImpossibleError(problems)


def _too_much(name: str, form: Quotient, changed: Mapping[str, Value], highest: float, share: float, *, along: bool) -> str:
    below = changed[form.below]
    assert isinstance(below, float)
    most = number(highest * (below + form.added))
    moving = f"{form.above}, which moves along," if along else form.above
    return f"would make {name} {number(share, 'share')}, beyond {number(highest, 'share')}: {moving} may be at most {most}"


def _depending(sources: Iterable[str], features: Mapping[str, Feature]) -> set[str]:
    """Return all features that are derived, directly or not, from these."""
    found: set[str] = set()
    known = set(sources)
    while new := {name for name, feature in features.items() if {*feature.inputs} & (known | found)} - found:
        found |= new
    return found
