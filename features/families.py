"""Puts a workspace's catalogue together from the families, dropping what its tables cannot give."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import ibis.expr.types as ir

from features.catalogue import Catalogue
from features.commercial import account_features, commercial_features, subscription_changes
from features.config import AttributeKind
from features.engagement import engagement_features
from features.feature import Feature
from features.kinds import event_features, ratio_features
from features.ledger import fingerprint
from features.outcomes import outcome_features
from features.partner import assigned_partner, partner_book, partner_features
from features.peers import peer_features
from features.slices import KnownTables
from features.support import support_features
from features.usage import usage_features

__all__ = ["KEYS", "MADE_FROM", "VIEWS", "build_catalogue"]

VIEWS: Mapping[str, Callable[[KnownTables], ir.Table]] = {
    "subscription_changes": subscription_changes,
    "assigned_partner": assigned_partner,
    "partner_book": partner_book,
}
"""Tables that features name and that the contract does not: each is made from contract tables."""

KEYS = frozenset({"account_id", "cutoff"})
"""Columns of the feature matrix that are no features."""

MADE_FROM: Mapping[str, str] = {"subscription_changes": "subscriptions", "assigned_partner": "assignments", "partner_book": "assignments"}
"""The contract table without which a view is not there."""


def build_catalogue(
    columns: Mapping[str, Collection[str]],
    *,
    currency: str,
    events: Sequence[str] = (),
    carrying: Collection[str] = (),
    ratios: Mapping[str, tuple[Sequence[str], Sequence[str]]] | None = None,
    attributes: Mapping[str, AttributeKind] | None = None,
) -> Catalogue:
    """Return the features that a workspace's tables allow, in a fixed order.

    Parameters
    ----------
    columns
        Columns of each canonical table that is there.
    currency
        The workspace's currency, as the unit of amounts.
    events
        Kinds of event that have features of their own.
    carrying
        Those of them whose events carry a quantity.
    ratios
        Declared ratios of kinds of event: the kinds above and the kinds below the line.
    attributes
        Declared attributes of accounts and their types.

    Examples
    --------
    >>> catalogue = build_catalogue({"accounts": ["account_id"], "telemetry": ["account_id", "occurred_at", "event"]}, currency="USD")
    >>> catalogue.feature("events_28d").meaning
    'what users did in the product in the last 28 days, in events'
    >>> "active_users_28d" in catalogue  # there is no user_id
    False
    """
    own = [
        *usage_features(),
        *engagement_features(),
        *support_features(),
        *commercial_features(currency),
        *outcome_features(),
        *partner_features(columns.get("partners", ()), subscribed="subscriptions" in columns),
        *peer_features(),
    ]
    declared = [
        *event_features(events, carrying),
        *ratio_features(ratios or {}),
        *account_features(columns["accounts"], attributes or {}),
    ]
    candidates = [*own, *_told_apart(declared, taken={feature.name for feature in own} | KEYS)]
    measured = {feature.name for feature in candidates if feature.source and _is_possible(feature, columns)}
    return Catalogue(tuple(_with_inputs(candidates, measured)))


def _told_apart(declared: Sequence[Feature], *, taken: Collection[str]) -> list[Feature]:
    """Give features whose names, made from the workspace's own words, are not theirs alone a part of their digest.

    The kinds of event `export data` and `export-data` would both be called `event_export_data_28d`.
    """
    names = Counter(feature.name for feature in declared)
    return [
        replace(feature, name=f"{feature.name}_{fingerprint(feature.meaning, feature.sentence)[:6]}")
        if names[feature.name] > 1 or feature.name in taken
        else feature
        for feature in declared
    ]


def _is_possible(feature: Feature, columns: Mapping[str, Collection[str]]) -> bool:
    assert feature.source is not None
    table = MADE_FROM.get(feature.source.table, feature.source.table)
    return table in columns and feature.needs <= set(columns[table])


def _with_inputs(candidates: Sequence[Feature], possible: set[str]) -> list[Feature]:
    """Keep the possible features and, until nothing changes, the derived ones whose inputs are all possible."""
    known = set(possible)
    while added := {feature.name for feature in candidates if not feature.source and set(feature.inputs) <= known} - known:
        known |= added
    return [feature for feature in candidates if feature.name in known]
