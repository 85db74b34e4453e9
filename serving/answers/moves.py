"""A move between two standings as one caller may read it: in numbers that add up, and in words.

The drivers are chosen, merged and withheld by the rule of `serving.scores.sharing` that explanations go by. Where sizes are withheld, so is
the model's part: whoever knew it could subtract it from the whole.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from serving.answers import schema_changes as schema
from serving.answers.namesakes import may_read, share_alike
from serving.health import band_of, health_points
from serving.scores.changes import HealthMove, Move, Standing, apportion, health_move
from serving.scores.reasons import EVENT, Driver
from serving.scores.sharing import MergedParts, View, confidential_parts, merge_parts
from serving.wording import factor, number

__all__ = ["SharedMove", "health_answer", "move_answer", "share_move", "standing_answer"]


_MOST_OTHERS = 10
"""How many of the features that are not named one by one the vendor is told, the largest first."""


@dataclass(frozen=True, kw_only=True)
class SharedMove:
    """A move as a caller may read it.

    Parameters
    ----------
    rest
        The exact sum of all that is not named, calibrated log-odds; None where sizes are withheld.
    health
        Of churn; None for the other targets.
    shown
        Whole points of the named drivers, the other factors, the model, the definition and the cut, in this order, which add up to the
        move of health that is shown; None for other targets, and where sizes are withheld.
    """

    move: Move
    merged: MergedParts
    rest: float | None
    health: HealthMove | None
    shown: tuple[int, ...] | None


def share_move(move: Move, *, before: Standing, after: Standing, view: View) -> SharedMove:
    """Choose what the caller is told of a move: whoever reads both scores could subtract, so their parts count, too."""
    supplied = {name: {*before.supplied.get(name, ()), *after.supplied.get(name, ())} for name in {*before.supplied, *after.supplied}}
    drivers = move.drivers(view.policy.audience_of)
    hidden = [driver for driver in drivers if confidential_parts([driver], view, supplied=supplied)]
    beside = move.beside({member.feature.name for driver in hidden for member in driver.members})
    merged = merge_parts(drivers, view, supplied=supplied, beside=beside)
    rest = merged.part if may_read(view, "Driver", "part") and may_read(view, "OtherFactors", "part") else None
    health = health_move(move, before=before, after=after) if move.target == "churn" else None
    shown = None
    if health is not None and rest is not None:
        parts = [*(health_points(driver.part) for driver in merged.named), health_points(rest)]
        shown = tuple(apportion([*parts, health.model, health.definition, health.cut], health.after - health.before))
    return SharedMove(move=move, merged=merged, rest=rest, health=health, shown=shown)


def standing_answer(standing: Standing, view: View) -> schema.Standing:
    """Return a standing as the caller may read it."""
    values = {
        "score_set": standing.score_set,
        "cutoff": standing.cutoff,
        "scored_at": standing.scored_at,
        "health": standing.health,
        "band": band_of(standing.health),
        "health_version": standing.definition.version,
        "probabilities": dict(standing.probability),
    }
    return schema.Standing(**share_alike(view, "Standing", values))


def health_answer(churn: SharedMove, view: View) -> schema.HealthMove:
    """Return the move of health; its parts are those of the move of churn, and two of its own."""
    health = churn.health
    assert health is not None
    values = {
        "before": health.before,
        "after": health.after,
        "moved": health.after - health.before,
        "exact": health.exact,
        "definition": health.definition,
        "definition_shown": churn.shown[-2] if churn.shown else None,
        "cut": health.cut,
        "cut_shown": churn.shown[-1] if churn.shown else None,
        "sentence": _health_sentence(churn, health),
    }
    return schema.HealthMove(**share_alike(view, "HealthMove", values))


def move_answer(shared: SharedMove, view: View, *, before: Standing, after: Standing) -> schema.Move:
    """Return the move of one target."""
    move = shared.move
    whole = move.after - move.before
    values = {
        "target": move.target,
        "log_odds": whole,
        "odds_factor": math.exp(whole),
        "drivers": [_driver(shared, position, view) for position in range(len(shared.merged.named))],
        "other_factors": _rest(shared, view),
        "model": _model(shared, view),
        "sizes": "withheld" if shared.rest is None else "exact",
        "sentence": _odds_sentence(shared, before.probability[move.target], after.probability[move.target]),
    }
    return schema.Move(**share_alike(view, "Move", values))


def _sizes(shared: SharedMove, log_odds: float | None, position: int) -> dict[str, float | int | None]:
    """Return the size of the part at this position of `SharedMove.shown`."""
    if shared.rest is None or log_odds is None:
        return {"log_odds": None, "odds_factor": None, "points": None, "points_shown": None}
    points = health_points(log_odds) if shared.health else None
    return {
        "log_odds": log_odds,
        "odds_factor": math.exp(log_odds),
        "points": points,
        "points_shown": shared.shown[position] if shared.shown else None,
    }


def _driver(shared: SharedMove, position: int, view: View) -> schema.MoveDriver:
    driver = shared.merged.named[position]
    main = driver.main
    values = {
        "features": [member.feature.name for member in driver.members],
        "family": main.feature.family,
        "sentence": _said(driver),
        "effect": driver.effect,
        "value": main.value,
        "earlier": main.earlier,
        "unit": main.feature.unit,
        "actionable": any(member.feature.actionable for member in driver.members),
        "sensitivity": main.feature.sensitivity,
    }
    return schema.MoveDriver(**share_alike(view, "MoveDriver", values | _sizes(shared, driver.part, position)))


def _rest(shared: SharedMove, view: View) -> schema.MoveRest:
    features = [member.feature.name for driver in shared.merged.rest for member in driver.members]
    sizes = _sizes(shared, shared.rest, len(shared.merged.named))
    values = {"features": features[:_MOST_OTHERS], "count": len(features), "confidential": shared.merged.confidential}
    return schema.MoveRest(**share_alike(view, "MoveRest", values | sizes))


def _model(shared: SharedMove, view: View) -> schema.ModelMove:
    move = shared.move
    features = {contribution.feature.name: contribution.feature for contribution in move.contributions}
    values = {
        "changed": not move.same_model,
        "new_features": [name for name in move.new_features if view.sees(features[name])],
    }
    return schema.ModelMove(**share_alike(view, "ModelMove", values | _sizes(shared, move.model, len(shared.merged.named) + 1)))


def _health_sentence(churn: SharedMove, health: HealthMove) -> str:
    moved = health.after - health.before
    points = f"{abs(moved)} point{'' if abs(moved) == 1 else 's'}"
    whole = f"Health {'rose' if moved > 0 else 'fell'} by {points}, from {health.before} to {health.after}"
    start = whole if moved else f"Health stayed at {health.after}"
    if churn.shown is None:
        return _withheld(start, churn.merged.named, takes="takes", gives="gives")
    names = [*map(_inside, map(_said, churn.merged.named)), "other factors", "the newer model", "the new definition of health", _CUT]
    said = [f"{name} ({_signed(points)})" for name, points in zip(names, churn.shown, strict=True) if points]
    return f"{start}: {', '.join(said)}." if said else f"{start}."


_CUT = "the cut of health to 0..100"


def _odds_sentence(shared: SharedMove, before: float, after: float) -> str:
    older, newer = (number(probability, "share") for probability in (before, after))
    event = f"The probability of {EVENT[shared.move.target]}"
    moved = f"{event} {'rose' if after > before else 'fell'} from {older} to {newer}"
    start = moved if older != newer else f"{event} stayed at {newer}"
    if shared.rest is None:
        return _withheld(start, shared.merged.named, takes="raises it", gives="lowers it")
    names = [*map(_inside, map(_said, shared.merged.named)), "other factors", "the newer model"]
    sizes = [*(driver.part for driver in shared.merged.named), shared.rest, shared.move.model]
    said = [f"{name} ({factor(math.exp(size))})" for name, size in zip(names, sizes, strict=True) if abs(size) >= _WORTH_SAYING]
    return f"{start}: {', '.join(said)}." if said else f"{start}."


_WORTH_SAYING = math.log(1.005)
"""A smaller part would be said as a factor of 1.0."""


def _withheld(start: str, named: Sequence[Driver], *, takes: str, gives: str) -> str:
    said = [f"{_inside(_said(driver))} ({takes if driver.effect == 'raises' else gives})" for driver in named]
    return f"{start}: {', '.join([*said, 'other factors'])}. How much each did is not shown."


def _said(driver: Driver) -> str:
    """Return a driver's sentence; a value that stayed can count differently beside others that moved."""
    main = driver.main
    return f"{driver.sentence}, which now counts differently" if main.value == main.earlier else driver.sentence


def _inside(sentence: str) -> str:
    """Return a sentence as it goes on after a colon: without the capital, unless it begins with an abbreviation."""
    return sentence[:1].lower() + sentence[1:] if sentence[1:2] == sentence[1:2].lower() else sentence


def _signed(points: int) -> str:
    return f"{'+' if points > 0 else '−'}{abs(points)}"
