"""Whose data an account's values were made from, where it was not the vendor's.

What a partner supplied, it sees and the vendor, and no later partner of the account. So each account of a score set remembers which
partners supplied rows of engagement about it, ever: all features that such rows feed are theirs, whichever windows hold the rows. And
what the features say about the account's partner itself, its type or its tier, is about those that managed the account at the cutoff and
at the earlier one: after a change of hands it is no business of the next.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from features.feature import Feature

__all__ = ["ABOUT_PARTNERS", "SUPPLIED", "Supplies", "Supply", "fed_by"]

SUPPLIED = "engagement"
"""The table that partners supply rows to, and that says of each row who did."""

ABOUT_PARTNERS = "assigned_partner"
"""What the engine calls the table of accounts with their partners, which describes a partner rather than an account."""

Partners = frozenset[str]


@dataclass(frozen=True, order=True)
class Supply:
    """One partner's share in one account: rows that it supplied to a table, or rows about it.

    Parameters
    ----------
    row
        The account's row in the score set.
    table
        `SUPPLIED` or `ABOUT_PARTNERS`.
    """

    row: int
    table: str
    partner_id: str


class Supplies:
    """Whose data the values of each account of a score set were made from.

    Parameters
    ----------
    features
        The features of the models.
    """

    def __init__(self, supplies: Iterable[Supply], features: Iterable[Feature]) -> None:
        self._supplies, self._features = sorted(set(supplies)), tuple(features)
        fed = fed_by(self._features)
        by_row: dict[int, dict[str, set[str]]] = {}
        for supply in self._supplies:
            by_row.setdefault(supply.row, {}).setdefault(supply.table, set()).add(supply.partner_id)
        self._by_row = {row: tuple((table, frozenset(partners)) for table, partners in own.items()) for row, own in by_row.items()}
        of_kind: dict[tuple[tuple[str, Partners], ...], Mapping[str, Partners]] = {}
        for kind in self._by_row.values():  # few kinds of accounts, many accounts
            if kind not in of_kind:
                of_kind[kind] = {name: partners for table, partners in kind for name in fed.get(table, ())}
        self._of_kind = of_kind

    @classmethod
    def from_columns(cls, columns: Mapping[str, npt.NDArray[Any]], features: Iterable[Feature]) -> "Supplies":
        """Return what `columns` gave, as it comes from a file."""
        values = (columns[name].tolist() for name in ("row", "table", "partner_id"))
        return cls((Supply(*supply) for supply in zip(*values, strict=True)), features)

    def slice(self, start: int, stop: int) -> "Supplies":
        """Return those of the accounts in some rows, which count from the first of these."""
        first, last = (bisect_left(self._supplies, row, key=lambda supply: supply.row) for row in (start, stop))
        return Supplies((replace(supply, row=supply.row - start) for supply in self._supplies[first:last]), self._features)

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """Return the supplies as columns: row, table, partner_id."""
        return {
            "row": np.array([supply.row for supply in self._supplies], dtype=np.int64),
            "table": np.array([supply.table for supply in self._supplies], dtype=object),
            "partner_id": np.array([supply.partner_id for supply in self._supplies], dtype=object),
        }

    def of(self, row: int) -> Mapping[str, Partners]:
        """Return the partners behind an account's values, by feature; a feature that is not there has only the vendor's data in it."""
        kind = self._by_row.get(row)
        return {} if kind is None else self._of_kind[kind]


def fed_by(features: Iterable[Feature]) -> dict[str, tuple[str, ...]]:
    """Return the names of the features that each table of partners feeds: those measured on it, and all that are derived from these."""
    listed = list(features)
    fed: dict[str, set[str]] = {SUPPLIED: set(), ABOUT_PARTNERS: set()}
    for table, names in fed.items():
        names |= {feature.name for feature in listed if feature.source is not None and feature.source.table == table}
        grown = True
        while grown:
            derived = {feature.name for feature in listed if names & set(feature.inputs)}
            grown = not derived <= names
            names |= derived
    families = {SUPPLIED: "engagement", ABOUT_PARTNERS: "partner"}
    for table, family in families.items():  # what a derived one is made from may not be among the models' features
        fed[table] |= {feature.name for feature in listed if feature.source is None and feature.family == family}
    return {table: tuple(sorted(names)) for table, names in fed.items()}
