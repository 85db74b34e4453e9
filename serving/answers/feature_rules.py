"""What must hold between the features of one account, so that a what-if stays possible: found in the declarations, checked in the book.

The declarations say what may hold: features that count the same over longer windows do not get smaller, and a derived feature is a formula
on its inputs. A rule is taken only if every account of the book obeys it, now and a quarter before; so nothing is believed because of a
name alone, and no workspace's own feature is misread.

    chain      active users of 28 days <= those of 91 days
    quotient   seat use = active users / seats, or with 1 added below the line
    rank       the share of the segment's accounts that have less
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from features.feature import Feature

__all__ = ["Quotient", "Rank", "Rules", "find_rules", "window_of"]

Array = npt.NDArray[np.float64]
Columns = Mapping[str, npt.NDArray[Any]]
Value = float | str | None

_FEWEST = 10
"""A rule that fewer accounts than this could break is none."""

_EXACT = 1e-9
_WINDOW = re.compile(r"_(\d+)d(?=_|$)")
_UNCOUNTED = frozenset({"share", "ratio", "days", "amount", "points", "score", "level", "flag", ""})


@dataclass(frozen=True)
class Quotient:
    """A derived feature that is one feature over another.

    Parameters
    ----------
    added
        What is added below the line.
    """

    above: str
    below: str
    added: float

    def value(self, values: Mapping[str, Value]) -> float | None:
        """Return the feature's value of a row; missing if an input is, or if there is nothing below the line."""
        above, below = values[self.above], values[self.below]
        if not isinstance(above, float) or not isinstance(below, float) or below + self.added == 0:
            return None
        return above / (below + self.added)


@dataclass(frozen=True, eq=False)
class Rank:
    """A derived feature that is the share of the other accounts of a segment that have less of another.

    Parameters
    ----------
    peers
        `(n,)` their values, rising, the account's own among them.
    """

    ranked: str
    peers: Array

    def value(self, values: Mapping[str, Value], before: Mapping[str, Value]) -> float | None:
        """Return where an account would stand that had another value before; missing if one of the two is."""
        new, old = values[self.ranked], before[self.ranked]
        if not isinstance(new, float) or not isinstance(old, float):
            return None
        less = int(np.searchsorted(self.peers, new, side="left")) - (old < new)
        return less / (len(self.peers) - 1)


@dataclass(frozen=True, eq=False)
class Rules:
    """The rules of a book.

    Parameters
    ----------
    chains
        Features that never get smaller from one to the next.
    quotients
        By derived feature.
    ranks
        By derived feature and segment.
    whole
        Features that are whole numbers.
    """

    chains: tuple[tuple[str, ...], ...]
    quotients: Mapping[str, Quotient]
    ranks: Mapping[tuple[str, str], Rank]
    whole: frozenset[str]


def find_rules(features: Mapping[str, Feature], now: Columns, earlier: Columns, segments: npt.NDArray[Any]) -> Rules:
    """Find the rules that a book obeys.

    Parameters
    ----------
    now, earlier
        The features' values `(n,)` by name, at the cutoff and about a quarter before.
    segments
        `(n,)` each account's segment; None for none.
    """
    tables = [{name: column.astype(np.float64) for name, column in table.items() if _is_number(features[name])} for table in (now, earlier)]
    return Rules(
        chains=tuple(_chains(features, tables)),
        quotients={name: formula for name, feature in features.items() if (formula := _quotient(feature, tables)) is not None},
        ranks=dict(_ranks(features, tables[0], segments)),
        whole=frozenset(name for name, feature in features.items() if _is_counted(feature) and _is_whole(name, tables)),
    )


def window_of(name: str) -> int | None:
    """Return the days that a feature looks back, as its name has them.

    Examples
    --------
    >>> window_of("active_users_28d"), window_of("events_28d_rank"), window_of("seats")
    (28, 28, None)
    """
    found = _WINDOW.search(name)
    return int(found[1]) if found else None


def _is_number(feature: Feature) -> bool:
    return feature.kind == "number"


def _is_counted(feature: Feature) -> bool:
    """Tell whether the unit is a thing that is counted, or an empty window counts as none of them."""
    noun, per, _ = feature.unit.partition(" per ")
    money = len(noun) == 3 and noun.isupper()
    return _is_number(feature) and (feature.empty == 0.0 or not (noun in _UNCOUNTED or per or money))


def _is_whole(name: str, tables: Sequence[Mapping[str, Array]]) -> bool:
    known = np.concatenate([table[name][~np.isnan(table[name])] for table in tables])
    return len(known) >= _FEWEST and bool((known == np.floor(known)).all())


def _chains(features: Mapping[str, Feature], tables: Sequence[Mapping[str, Array]]) -> Iterator[tuple[str, ...]]:
    alike: dict[object, list[tuple[int, str]]] = {}
    for name, feature in features.items():
        days = window_of(name)
        if days is not None and _is_counted(feature) and feature.source is not None:
            same = (feature.family, _WINDOW.sub("", name), feature.unit, feature.source.table, feature.source.lag_days, feature.level)
            alike.setdefault(same, []).append((days, name))
    for found in alike.values():
        chain: list[str] = []
        for (_, shorter), (_, longer) in pairwise(sorted(found)):
            if _never_smaller(shorter, longer, tables):
                chain = [*(chain or [shorter]), longer]
                continue
            if chain:
                yield tuple(chain)
            chain = []
        if chain:
            yield tuple(chain)


def _never_smaller(shorter: str, longer: str, tables: Sequence[Mapping[str, Array]]) -> bool:
    compared = [(table[shorter], table[longer]) for table in tables]
    known = sum(int((~np.isnan(low) & ~np.isnan(high)).sum()) for low, high in compared)
    return known >= _FEWEST and not any((low > high).any() for low, high in compared)


def _quotient(feature: Feature, tables: Sequence[Mapping[str, Array]]) -> Quotient | None:
    if feature.source is not None or len(feature.inputs) != 2 or any(name not in tables[0] for name in (feature.name, *feature.inputs)):
        return None
    forms = (Quotient(*feature.inputs, added=added) for added in (0.0, 1.0))
    return next((form for form in forms if _holds(feature.name, form, tables)), None)


def _holds(name: str, form: Quotient, tables: Sequence[Mapping[str, Array]]) -> bool:
    known = 0
    for table in tables:
        above, below = table[form.above], table[form.below] + form.added
        usable = ~np.isnan(above) & ~np.isnan(below) & (below != 0)
        if not np.allclose(above[usable] / below[usable], table[name][usable], rtol=_EXACT, atol=0.0):
            return False
        known += int(usable.sum())
    return known >= _FEWEST


def _ranks(features: Mapping[str, Feature], now: Mapping[str, Array], segments: npt.NDArray[Any]) -> Iterator[tuple[tuple[str, str], Rank]]:
    ranked = {name: feature.inputs[0] for name, feature in features.items() if feature.family == "peers" and len(feature.inputs) == 1}
    for name, base in ranked.items():
        for segment in sorted({segment for segment in segments if segment is not None and base in now}):
            values, stored = now[base][segments == segment], now[name][segments == segment]
            peers = np.sort(values[~np.isnan(values)])
            found = np.searchsorted(peers, values, side="left") / max(len(peers) - 1, 1)
            known = ~np.isnan(stored)
            if len(peers) >= _FEWEST and np.allclose(found[known], stored[known], rtol=_EXACT, atol=0.0):
                yield (name, segment), Rank(base, peers)
