"""Features that give the outcome away: too good alone, with values that only positives have, or ordering accounts by when they leave.

A feature is named by the first probe that suspects it, and features that say the same are one finding. Rows of one account are not
independent, so accounts are counted where chance is to be ruled out, and a feature is judged on other accounts than those from which
its direction was learnt.

But: with few positives little can be told from chance. Below 20 accounts with positives no AUC is called a leak.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.special import bdtrc

from features.catalogue import Catalogue
from features.clock import MICROSECONDS_PER_DAY
from features.feature import Feature, Target
from features.findings import Finding, Severity, listed
from training.dataset import Array, Categories, Dataset, Encoded
from training.screening import Bins, Flags, Subset, auc_alone, bin_columns, order_within, pure_subset

__all__ = ["ALONE", "LEAVING", "SUBSET", "AuditedRows", "find_giveaways"]

ALONE = "a feature that alone is too good"
SUBSET = "a value that only positives have"
LEAVING = "a feature that tells when accounts leave"

_ONE_FEATURE, _ATTRIBUTE, _AHEAD, _ODD_ATTRIBUTE = 0.85, 0.7, 0.5, 0.35
"""Of the way from chance to the plausible AUC of a whole model: where one feature is too good, where an attribute is, where a feature far
ahead of all others is looked at, and where an attribute is."""
_GAP = 0.15
"""How far the best feature may be ahead of all that say something else."""
_SAME = 0.5
"""Features whose ranks correlate more say the same."""
_FEW_ACCOUNTS = 20
_CHANCE = 1e-6
_ORDERED = 0.9


def find_giveaways(rows: "AuditedRows") -> tuple[Finding, ...]:
    """Run the three probes."""
    found = [*_leaving(rows), *_lifetimes(rows)] if rows.target == "churn" else []
    found += _alone(rows, known=_named(found))
    found += _subsets(rows, known=_named(found))
    return tuple(suspicion.finding for suspicion in found)


@dataclass(frozen=True)
class _Suspicion:
    """A finding and the features that it is about."""

    finding: Finding
    features: tuple[str, ...] = ()


def _named(found: Sequence[_Suspicion]) -> set[str]:
    return {name for suspicion in found for name in suspicion.features}


@dataclass(frozen=True, eq=False)
class AuditedRows:
    """The rows of a target, and what several probes need of them."""

    data: Dataset
    encoded: Encoded
    catalogue: Catalogue
    target: Target
    plausible_auc: float

    @property
    def levels(self) -> Categories:
        """The levels of each category feature."""
        return self.encoded.categories

    @property
    def matrix(self) -> Array:
        """The features `(n, n_features)`, categories as codes."""
        return self.encoded.matrix

    @cached_property
    def bins(self) -> Bins:
        """The bins of all features."""
        return bin_columns(self.matrix, [self.levels.get(name) for name in self.catalogue.names])

    @cached_property
    def account(self) -> npt.NDArray[np.intp]:
        """The number of each row's account."""
        return np.unique(self.data.account_id, return_inverse=True)[1]

    @cached_property
    def half(self) -> Flags:
        """Rows of one half of the accounts."""
        drawn: Flags = np.random.default_rng(0).random(int(self.account.max()) + 1) < 0.5
        return drawn[self.account]

    @cached_property
    def auc(self) -> Array:
        """The AUC of each feature by itself, learnt on half of the accounts and judged on the others."""
        return auc_alone(self.bins, self.data.target, self.half)

    def accounts(self, rows: Flags) -> int:
        """Count the accounts of some rows."""
        return len(np.unique(self.account[rows]))

    @cached_property
    def positive_accounts(self) -> int:
        """Accounts that are positive at some cutoff."""
        return self.accounts(self.data.target == 1)

    def bound(self, way: float) -> float:
        """Return the AUC so far on the way from chance to the plausible one."""
        return 0.5 + way * (self.plausible_auc - 0.5)

    def alike(self, one: int, others: Sequence[int]) -> list[int]:
        """Return those of the other columns whose ranks go with those of the one, up or down."""
        codes = self.bins.code[:, [one, *others]].astype(np.float64)
        codes -= codes.mean(axis=0)
        spread = np.sqrt((codes**2).mean(axis=0)) + 1e-12
        related = np.abs((codes[:, :1] * codes[:, 1:]).mean(axis=0) / (spread[0] * spread[1:]))
        return [other for other, value in zip(others, related, strict=True) if value > _SAME]

    def tables(self, name: str) -> set[str]:
        """Return the tables from which a feature is made, over its inputs too."""
        feature = self.catalogue.feature(name)
        inputs = [self.tables(other) for other in feature.inputs if other in self.catalogue]
        return set().union(*inputs) | ({feature.source.table} if feature.source else set())


def _is_attribute(feature: Feature) -> bool:
    """Tell whether a feature is an account's attribute without a time; how long ago a date was is no such thing."""
    return feature.source is not None and feature.source.table == "accounts" and feature.unit != "days"


def _todo(rows: AuditedRows, names: Sequence[str]) -> str:
    if any(_is_attribute(rows.catalogue.feature(name)) for name in names):
        return (
            "An attribute is as it was at the export, not at the cutoff. Remove it from the attributes, or bring what was known at the "
            "time into a table with times."
        )
    tables = sorted(set().union(*(rows.tables(name) for name in names)))
    of = f"{', '.join(tables)}: is any column of it" if tables else "Look at how the feature is made: is anything of it"
    return f"{f'Look at {of}' if tables else of} filled in, changed or deleted when or after the outcome is decided?"


# --- one feature alone


def _alone(rows: AuditedRows, *, known: set[str]) -> list[_Suspicion]:
    """Name features with too high an AUC of their own, those together that say the same."""
    names = rows.catalogue.names
    left = [int(place) for place in np.argsort(-rows.auc) if names[place] not in known and _is_suspect(rows, int(place))]
    found = []
    while left:
        best = left[0]
        group = [best, *rows.alike(best, left[1:])]
        left = [place for place in left if place not in group]
        found.append(_alone_suspicion(rows, group))
    return found or _ahead(rows, known=known)


def _is_suspect(rows: AuditedRows, place: int) -> bool:
    attribute = _is_attribute(rows.catalogue.features[place])
    return bool(rows.auc[place] > rows.bound(_ODD_ATTRIBUTE if attribute else _ONE_FEATURE))


def _alone_suspicion(rows: AuditedRows, group: Sequence[int]) -> _Suspicion:
    names, best = tuple(rows.catalogue.names[place] for place in group), group[0]
    auc, attribute = float(rows.auc[best]), _is_attribute(rows.catalogue.features[best])
    bound = rows.bound(_ATTRIBUTE if attribute else _ONE_FEATURE)
    certain = auc > bound and rows.positive_accounts >= _FEW_ACCOUNTS
    others = f"; {listed(names[1:])} say the same" if names[1:] else ""
    kind = "an attribute without a time" if attribute else "one feature"
    verdict = f"more than the {bound:.2f} that {kind} can honestly have" if auc > bound else f"much for {kind}"
    message = f"{names[0]} alone ranks {rows.target} with an AUC of {auc:.3f}, {verdict}{others}."
    return _Suspicion(
        Finding(
            probe=ALONE,
            severity="leak" if certain else "look at",
            subject=listed(names, at_most=3),
            message=message,
            todo=_todo(rows, names[:1]),
            evidence={"auc": auc, "bound": bound, "features": len(names), "positive_accounts": rows.positive_accounts},
        ),
        names,
    )


def _ahead(rows: AuditedRows, *, known: set[str]) -> list[_Suspicion]:
    """Name the best feature if it is far ahead of all that say something else."""
    order = np.argsort(-rows.auc).tolist()
    best, name = order[0], rows.catalogue.names[order[0]]
    if name in known or rows.auc[best] < rows.bound(_AHEAD):
        return []
    alike = set(rows.alike(best, order[1:]))
    second = next((place for place in order[1:] if place not in alike), None)
    if second is None or rows.auc[best] - rows.auc[second] < _GAP:
        return []
    finding = Finding(
        probe=ALONE,
        severity="look at",
        subject=name,
        message=(
            f"{name} alone ranks {rows.target} with an AUC of {rows.auc[best]:.3f}; the best feature that says something else, "
            f"{rows.catalogue.names[second]}, has {rows.auc[second]:.3f}."
        ),
        todo=_todo(rows, [name]),
        evidence={"auc": float(rows.auc[best]), "next_auc": float(rows.auc[second])},
    )
    return [_Suspicion(finding, (name,))]


# --- values that only positives have


def _subsets(rows: AuditedRows, *, known: set[str]) -> list[_Suspicion]:
    """Name features of which some values occur almost only with positives; those together that mark the same rows."""
    found: list[tuple[str, Subset]] = []
    for place, name in enumerate(rows.catalogue.names):
        subset = pure_subset(rows.bins, place, rows.matrix[:, place], rows.data.target, purity=0.9, levels=rows.levels.get(name))
        if name not in known and subset is not None:
            found.append((name, subset))
    suspicions: list[_Suspicion] = []
    while found:
        first = found[0][1].rows
        group = [(name, subset) for name, subset in found if (first & subset.rows).sum() > 0.8 * (first | subset.rows).sum()]
        found = [entry for entry in found if entry not in group]
        suspicions += _subset_suspicion(rows, [name for name, _ in group], group[0][1])
    return suspicions


def _subset_suspicion(rows: AuditedRows, names: Sequence[str], subset: Subset) -> Iterator[_Suspicion]:
    accounts, positives = rows.accounts(subset.rows), rows.accounts(subset.rows & (rows.data.target == 1))
    base = float(rows.data.target.mean())  # of one row each, as an account's rows stand for one another
    purity = float(rows.data.target[subset.rows].mean())
    chance = float(bdtrc(positives - 1, accounts, base))
    covered = positives / rows.positive_accounts
    expected = rows.catalogue.feature(names[0]).direction.get(rows.target) and covered < 0.5  # such as a notice of cancellation
    if purity < 0.95 or positives < 10 or chance > _CHANCE / len(rows.catalogue) or expected:
        return
    yield _Suspicion(
        Finding(
            probe=SUBSET,
            severity=_subset_severity(rows, names[0], purity=purity, positives=positives, covered=covered),
            subject=listed(names, at_most=3),
            message=(
                f"{positives} of the {accounts} accounts whose {names[0]} is {subset.values} are positive for {rows.target} "
                f"({purity:.0%} of these rows, {base:.1%} of all); they are {covered:.0%} of all accounts that ever are. "
                "Such a value is mostly written when the outcome is decided."
            ),
            todo=_todo(rows, names[:1]),
            evidence={"accounts": accounts, "positive_accounts": positives, "purity": purity, "covered": covered, "chance": chance},
        ),
        tuple(names),
    )


def _subset_severity(rows: AuditedRows, name: str, *, purity: float, positives: int, covered: float) -> Severity:
    """Call it a leak where no time protects it, or where it tells of many and the catalogue knows no reason."""
    feature = rows.catalogue.feature(name)
    certain = purity >= 0.99 and positives >= _FEW_ACCOUNTS and covered >= 0.2 and not feature.direction.get(rows.target)
    return "leak" if certain or _is_attribute(feature) else "look at"


# --- when accounts leave


def _leaving(rows: AuditedRows) -> list[_Suspicion]:
    """Name features that order those who leave by the day of leaving, where it was not the renewal that was known."""
    picked, days = _unforeseen(rows)
    if len(picked) < 30:
        return []
    asked = [place for place, name in enumerate(rows.catalogue.names) if not rows.tables(name) & {"subscriptions", "subscription_changes"}]
    values = rows.matrix[picked][:, asked]
    cutoff = np.unique(rows.data.cutoff[picked], return_inverse=True)[1]
    order = np.abs(order_within(values, days, cutoff))
    names = tuple(rows.catalogue.names[asked[place]] for place in np.argsort(-order) if order[place] >= _ORDERED)
    if not names:
        return []
    finding = Finding(
        probe=LEAVING,
        severity="leak",
        subject=listed(names, at_most=3),
        message=(
            f"{names[0]} orders {len(picked)} accounts that left on another day than their renewal by that day (rank correlation "
            f"{order.max():.2f}). Nobody knew the day, so it was written afterwards."
        ),
        todo=_todo(rows, names[:1]),
        evidence={"accounts": len(picked), "rank_correlation": float(order.max()), "features": len(names)},
    )
    return [_Suspicion(finding, names)]


def _lifetimes(rows: AuditedRows) -> list[_Suspicion]:
    """Name attributes that, counted from the account's beginning in days, months or years, say how long it will be there."""
    names = rows.catalogue.names
    begun = next((names.index(name) for name in ("customer_days", "tenure_days") if name in names), None)
    numbers = [place for place, feature in enumerate(rows.catalogue) if _is_attribute(feature) and feature.kind == "number"]
    if begun is None or not numbers or rows.positive_accounts < _FEW_ACCOUNTS:
        return []
    left_over = [rows.matrix[:, [place]] * np.array([1.0, 30.4375, 365.25]) - rows.matrix[:, [begun]] for place in numbers]
    auc = auc_alone(bin_columns(np.hstack(left_over), [None] * 3 * len(numbers)), rows.data.target, rows.half).reshape(-1, 3).max(axis=1)
    bound = max(rows.bound(_ATTRIBUTE), float(rows.auc[begun]) + 0.1)
    return [_lifetime(rows, names[place], float(value), bound) for place, value in zip(numbers, auc, strict=True) if value > bound]


def _lifetime(rows: AuditedRows, name: str, auc: float, bound: float) -> _Suspicion:
    finding = Finding(
        probe=LEAVING,
        severity="leak",
        subject=name,
        message=(
            f"{name} is how long the account will have been there: less its age it ranks churn with an AUC of {auc:.3f}, more than the "
            f"{bound:.2f} that such a number can honestly have."
        ),
        todo=_todo(rows, [name]),
        evidence={"auc": auc, "bound": bound},
    )
    return _Suspicion(finding, (name,))


def _unforeseen(rows: AuditedRows) -> tuple[npt.NDArray[np.intp], Array]:
    """Return one row of each account that left on another day than its renewal, and the days from there to leaving."""
    left, renewal = (rows.data.context[name].to_numpy(dtype="datetime64[us]") for name in ("left_at", "renewal_at"))
    days = _days(left - rows.data.cutoff)
    apart = ~(np.abs(_days(left - renewal)) <= 3)
    candidates = np.flatnonzero((rows.data.target == 1) & ~np.isnan(days) & apart)
    shuffled = np.random.default_rng(0).permutation(candidates)
    picked = shuffled[np.unique(rows.account[shuffled], return_index=True)[1]]
    return picked, days[picked]


def _days(span: npt.NDArray[np.timedelta64]) -> Array:
    microseconds = span.astype("timedelta64[us]").astype(np.float64)
    return np.where(np.isnat(span), np.nan, microseconds / MICROSECONDS_PER_DAY)
