"""Commercial features: what the account is, what it pays for, and how that has moved."""

from collections.abc import Callable, Collection, Mapping

import ibis
import ibis.expr.types as ir

from features.config import ATTRIBUTE, AttributeKind
from features.feature import Feature, Window
from features.slices import KnownTables, cut
from features.sums import exact_sum

__all__ = ["account_features", "commercial_features", "subscription_changes"]

_TERMS = Window(table="subscriptions")
_CHANGES = Window(table="subscription_changes")
_ACCOUNT = Window(table="accounts")
LOOKBACKS = (91, 364)


def commercial_features(currency: str) -> list[Feature]:
    """Return the features of subscriptions; amounts are in the workspace's currency."""
    return [*_contract(currency), *_terms_held(), *_renewal(), *_movement(currency), *_changes()]


def account_features(columns: Collection[str], attributes: Mapping[str, AttributeKind]) -> list[Feature]:
    """Return the features of what is known about the account itself.

    Parameters
    ----------
    columns
        Columns of the accounts table.
    attributes
        The attributes that the workspace declares, and their types.
    """
    named = [_category(name, name) for name in ("segment", "industry", "region") if name in columns]
    numbers = [_number("employees", "employees", "people")] if "employees" in columns else []
    ages = [_age("customer_days", "created_at_age_days", "it became a customer")] if "created_at" in columns else []
    declared = []
    for name, type_ in attributes.items():
        column = ATTRIBUTE + name
        if type_ == "category":
            declared.append(_category(f"account_{name}", column))
        elif type_ == "number":
            declared.append(_number(f"account_{name}", column, "as declared"))
        else:
            declared.append(_age(f"account_{name}_days", f"{column}_age_days", f"its {name.replace('_', ' ')}"))
    return [*named, *numbers, *ages, *declared]


def _category(name: str, column: str) -> Feature:
    words = name.removeprefix("account_").replace("_", " ")
    return Feature(
        name=name,
        family="commercial",
        unit="level",
        meaning=f"the account's {words}",
        sentence=f"the account's {words} is {{value}}",
        source=_ACCOUNT,
        expression=lambda rows: rows[column].max(),
        kind="category",
    )


def _number(name: str, column: str, unit: str) -> Feature:
    words = name.removeprefix("account_").replace("_", " ")
    return Feature(
        name=name,
        family="commercial",
        unit=unit,
        meaning=f"the account's {words}",
        sentence=f"the account's {words}: {{value}}",
        source=_ACCOUNT,
        expression=lambda rows: rows[column].max(),
    )


def _age(name: str, column: str, since: str) -> Feature:
    return Feature(
        name=name,
        family="commercial",
        unit="days",
        meaning=f"days since {since}",
        sentence=f"{{value}} since {since}",
        source=_ACCOUNT,
        expression=lambda rows: rows[column].max(),
    )


def _contract(currency: str) -> list[Feature]:
    return [
        Feature(
            name="arr",
            family="commercial",
            unit=currency,
            meaning="annual recurring revenue of the terms that run now",
            sentence="ARR {moved}",
            source=_TERMS,
            expression=lambda terms: exact_sum(terms.arr, where=terms.running).fill_null(0.0),
            empty=0.0,
        ),
        Feature(
            name="seats",
            family="commercial",
            unit="seats",
            meaning="seats paid for now",
            sentence="seats paid for {moved}",
            source=_TERMS,
            expression=lambda terms: exact_sum(terms.seats, where=terms.running),
            needs=frozenset({"seats"}),
        ),
        Feature(
            name="price_per_seat",
            family="commercial",
            unit=f"{currency} per seat",
            meaning="ARR for each seat paid for",
            sentence="the price of a seat {moved}",
            inputs=("arr", "seats"),
            expression=lambda row: row.arr / row.seats.nullif(0),
            sensitivity="vendor",
        ),
    ]


def _terms_held() -> list[Feature]:
    return [
        Feature(
            name="discount",
            family="commercial",
            unit="share",
            meaning="how far the running terms are below list price",
            sentence="the discount {moved}",
            source=_TERMS,
            expression=lambda terms: (
                1.0 - exact_sum(terms.arr, where=_listed(terms)) / exact_sum(terms.list_arr, where=_listed(terms)).nullif(0)
            ),
            needs=frozenset({"list_arr"}),
            sensitivity="vendor",
            actionable=True,
        ),
        Feature(
            name="products_held",
            family="commercial",
            unit="products",
            meaning="different products paid for now",
            sentence="products held {moved}",
            source=_TERMS,
            expression=lambda terms: terms["product"].nunique(where=terms.running),
            needs=frozenset({"product"}),
            empty=0.0,
        ),
        Feature(
            name="auto_renews",
            family="commercial",
            unit="flag",
            meaning="1 if a running term renews unless cancelled, else 0",
            sentence="automatic renewal: {value}",
            source=_TERMS,
            expression=lambda terms: terms.auto_renew.cast("float64").max(where=terms.running),
            needs=frozenset({"auto_renew"}),
        ),
        Feature(
            name="notice_given",
            family="commercial",
            unit="flag",
            meaning="1 if the customer has given notice on a running term, else 0",
            sentence="notice of cancellation: {value}",
            source=_TERMS,
            expression=lambda terms: terms.cancelled_at.notnull().cast("float64").max(where=terms.running),
            needs=frozenset({"cancelled_at"}),
            direction={"churn": 1},
        ),
    ]


def _listed(terms: ir.Table) -> ir.BooleanValue:
    return terms.running & terms.list_arr.notnull()


def _renewal() -> list[Feature]:
    return [
        Feature(
            name="days_to_renewal",
            family="commercial",
            unit="days",
            meaning="days until the next running term ends",
            sentence="the next renewal is {value} away",
            source=_TERMS,
            expression=lambda terms: -terms.end_date_age_days.max(where=terms.running),
        ),
        Feature(
            name="term_days",
            family="commercial",
            unit="days",
            meaning="length of the longest running term",
            sentence="the contract's term is {value}",
            source=_TERMS,
            expression=lambda terms: (terms.age_days - terms.end_date_age_days).max(where=terms.running),
        ),
        Feature(
            name="days_since_term_start",
            family="commercial",
            unit="days",
            meaning="days since the newest running term began",
            sentence="the present term began {value} ago",
            source=_TERMS,
            expression=lambda terms: terms.age_days.min(where=terms.running),
        ),
        Feature(
            name="tenure_days",
            family="commercial",
            unit="days",
            meaning="days since the account's first term began",
            sentence="the account has been paying for {value}",
            source=_TERMS,
            expression=lambda terms: terms.age_days.max(),
        ),
        Feature(
            name="terms_so_far",
            family="commercial",
            unit="terms",
            meaning="terms that have begun so far, of all products",
            sentence="the account has had {value} so far",
            source=_TERMS,
            expression=lambda terms: terms.count(where=terms.age_days >= 0),
            empty=0.0,
        ),
    ]


def _running_before(terms: ir.Table, days: int) -> ir.BooleanValue:
    return (terms.age_days >= days) & (terms.ends_age_days.isnull() | (terms.ends_age_days < days))


def _movement(currency: str) -> list[Feature]:
    return [feature for days in LOOKBACKS for feature in _arr_then_and_now(days, currency)]


def _arr_then_and_now(days: int, currency: str) -> list[Feature]:
    return [
        Feature(
            name=f"arr_before_{days}d",
            family="commercial",
            unit=currency,
            meaning=f"ARR as it was {days} days ago",
            sentence=f"ARR {days} days ago {{moved}}",
            source=_TERMS,
            expression=lambda terms: exact_sum(terms.arr, where=_running_before(terms, days)).fill_null(0.0),
            empty=0.0,
        ),
        Feature(
            name=f"arr_trend_{days}d",
            family="commercial",
            unit="ratio",
            meaning=f"ARR as a multiple of what it was {days} days ago",
            sentence=f"ARR is {{value}} of what it was {days} days ago",
            inputs=("arr", f"arr_before_{days}d"),
            expression=lambda row: row.arr / row[f"arr_before_{days}d"].nullif(0),
        ),
    ]


SAME = 1e-9
"""The part of a size that may come from adding its terms up in another order; a change is larger."""


def _grew(changes: ir.Table) -> ir.BooleanValue:
    return changes.after - changes.before > SAME * changes.before


def _shrank(changes: ir.Table) -> ir.BooleanValue:
    return changes.before - changes.after > SAME * changes.before


def _changes() -> list[Feature]:
    """Return what is known of past expansions and contractions, by seats where there are any, else by ARR."""
    return [
        *_moves("expansion", "grew", _grew),
        *_moves("contraction", "shrank", _shrank),
        Feature(
            name="days_since_change",
            family="commercial",
            unit="days",
            meaning="days since the contract last grew or shrank, or since it began",
            sentence="the contract has been as it is for {value}",
            source=_CHANGES,
            expression=lambda changes: changes.age_days.min(where=_grew(changes) | _shrank(changes)),
        ),
    ]


def _moves(name: str, word: str, moved: Callable[[ir.Table], ir.BooleanValue]) -> list[Feature]:
    def of_running(changes: ir.Table) -> ir.BooleanValue:
        return (changes.before > 0) & (changes.after > 0) & moved(changes)

    return [
        Feature(
            name=f"{name}s_so_far",
            family="commercial",
            unit="times",
            meaning=f"how often the contract {word} so far, in seats where terms have them, else in ARR",
            sentence=f"the contract {word} {{value}} so far",
            source=_CHANGES,
            expression=lambda changes: changes.count(where=of_running(changes)),
            empty=0.0,
        ),
        Feature(
            name=f"days_since_{name}",
            family="commercial",
            unit="days",
            meaning=f"days since the contract last {word}",
            sentence=f"the contract last {word} {{value}} ago",
            source=_CHANGES,
            expression=lambda changes: changes.age_days.min(where=of_running(changes)),
        ),
    ]


def subscription_changes(known: KnownTables) -> ir.Table:
    """Return the instants at which an account's terms began or ended, with what ran just before and from then on.

    Returns
    -------
    ir.Table
        row, age_days (days from the instant to the cutoff, not negative), before, after: seats where the account's terms have any,
        else ARR. Several terms that begin or end at one instant are one change, so a renewal at the same size is none.
    """
    terms = cut(known.loaded("subscriptions"), known.spine, _TERMS)
    size = terms.arr
    if "seats" in terms.columns:
        seated = terms.seats.max().over(ibis.window(group_by="row")) > 0
        size = ibis.ifelse(seated, terms.seats.fill_null(0.0), terms.arr)
    terms = terms.select("row", begins=terms.age_days, ends=terms.ends_age_days, size=size)
    begun = terms.select("row", age_days=terms.begins)
    ended = terms.filter(terms.ends >= 0).select("row", age_days=terms.ends)
    instants = begun.union(ended, distinct=True)
    pairs = instants.join(terms, "row")
    open_end = pairs.ends.isnull()
    after = (pairs.begins >= pairs.age_days) & (open_end | (pairs.ends < pairs.age_days))
    before = (pairs.begins > pairs.age_days) & (open_end | (pairs.ends <= pairs.age_days))
    return pairs.group_by(["row", "age_days"]).agg(
        before=exact_sum(pairs["size"], where=before).fill_null(0.0), after=exact_sum(pairs["size"], where=after).fill_null(0.0)
    )
