"""Partner features: who manages the account, and how that partner's other accounts fare."""

from collections.abc import Collection

import ibis
import ibis.expr.types as ir

from features.feature import Feature, Window
from features.slices import KnownTables, cut

__all__ = ["assigned_partner", "partner_book", "partner_features"]

RETENTION_DAYS = 182

_ASSIGNMENTS = Window(table="assignments")
_TERMS = Window(table="subscriptions")
_ASSIGNED = Window(table="assigned_partner")
_BOOK = Window(table="partner_book")


def partner_features(partner_columns: Collection[str], *, subscribed: bool) -> list[Feature]:
    """Return the partner features.

    Parameters
    ----------
    partner_columns
        Columns of the partners table; empty where there is none.
    subscribed
        Whether there is a subscriptions table, from which retention is read.
    """
    described = [name for name in ("type", "tier", "region") if name in partner_columns]
    return [*(_described(name) for name in described), *_relation(), *(_retention() if subscribed else [])]


def _described(name: str) -> Feature:
    return Feature(
        name=f"partner_{name}",
        family="partner",
        unit="level",
        meaning=f"the {name} of the partner that manages the account",
        sentence=f"the partner's {name} is {{value}}",
        source=_ASSIGNED,
        expression=lambda rows: rows[f"partner_{name}"].max(),
        kind="category",
    )


def _relation() -> list[Feature]:
    return [
        Feature(
            name="partner_managed",
            family="partner",
            unit="flag",
            meaning="1 if a partner manages the account, else 0",
            sentence="managed by a partner: {value}",
            source=_ASSIGNED,
            expression=lambda rows: rows.count().cast("float64").clip(upper=1.0),
            empty=0.0,
        ),
        Feature(
            name="partner_days",
            family="partner",
            unit="days",
            meaning="days since the partner took the account over",
            sentence="the partner has managed the account for {value}",
            source=_ASSIGNED,
            expression=lambda rows: rows.age_days.min(),
        ),
        Feature(
            name="partner_book_accounts",
            family="partner",
            unit="accounts",
            meaning="accounts that the partner manages",
            sentence="the partner's book {moved} accounts",
            source=_BOOK,
            expression=lambda book: book.managed.max(),
            sensitivity="vendor",
        ),
    ]


def _retention() -> list[Feature]:
    return [
        Feature(
            name=f"partner_retention_{RETENTION_DAYS}d",
            family="partner",
            unit="share",
            meaning=f"share of the partner's other accounts that paid {RETENTION_DAYS} days ago and still pay",
            sentence=f"the share of the partner's other accounts that stayed {{moved}} in {RETENTION_DAYS} days",
            source=_BOOK,
            expression=lambda book: book.stayed.max() / book.paid.max().nullif(0),
            sensitivity="vendor",
        )
    ]


def assigned_partner(known: KnownTables) -> ir.Table:
    """Return the assignment in force at each row's cutoff, the newest if there are several, with what is known of the partner.

    Returns
    -------
    ir.Table
        row, cutoff, account, partner_id, age_days, and partner_type, partner_tier, partner_region where the partners table has them.
    """
    assignments = cut(known.loaded("assignments"), known.spine, _ASSIGNMENTS)
    running = assignments.filter(assignments.running).select("row", "cutoff", "account", "partner_id", "age_days")
    newest_first = ibis.window(group_by="row", order_by=[running.age_days, running.partner_id])
    assigned = running.filter(ibis.row_number().over(newest_first) == 0)
    if "partners" not in known:
        return assigned
    partners = known.tables["partners"]
    described = {f"partner_{name}": partners[name] for name in ("type", "tier", "region") if name in partners.columns}
    return assigned.left_join(partners.select("partner_id", **described), "partner_id").drop("partner_id_right")


def partner_book(known: KnownTables) -> ir.Table:
    """Return what each row's partner had in its book at the cutoff, the row's own account left out of the retention.

    Returns
    -------
    ir.Table
        row, managed (accounts that the partner manages at the cutoff), and, where there are subscriptions, paid (other accounts that
        it managed and that paid `RETENTION_DAYS` ago) and stayed (those of them that pay at the cutoff).
    """
    assigned = known.engine.table(assigned_partner(known).select("row", "cutoff", "account", "partner_id"), name="assigned")
    pairs = assigned.select("cutoff", account=assigned.partner_id).distinct()
    numbers = ibis.row_number().over(ibis.window(order_by=["cutoff", "account"]))
    pairs = known.engine.table(pairs.mutate(row=numbers.cast("int32")), name="partner_cutoffs")
    members = known.engine.table(_members(known, pairs), name="partner_members")
    sums = members.group_by("pair").agg(managed=members.managed.sum(), paid=members.paid.sum(), stayed=(members.paid * members.pays).sum())
    rows = assigned.join(pairs.select("cutoff", pair=pairs.row, partner_id=pairs.account), ["cutoff", "partner_id"])
    rows = rows.join(known.accounts, "account").join(sums, "pair")
    own = members.select("pair", "account_id", own_paid=members.paid, own_stayed=members.paid * members.pays)
    rows = rows.left_join(own, ["pair", "account_id"])
    return rows.select("row", "managed", paid=rows.paid - rows.own_paid.fill_null(0), stayed=rows.stayed - rows.own_stayed.fill_null(0))


def _members(known: KnownTables, pairs: ir.Table) -> ir.Table:
    """Return, for each numbered (partner, cutoff), its accounts: pair, account_id, and 0 or 1 for managed, paid (then) and pays (now)."""
    assignments = known.in_microseconds("assignments").rename(member="account_id", account="partner_id")
    held = cut(assignments, pairs, _ASSIGNMENTS)
    then = (held.age_days >= RETENTION_DAYS) & (held.ends_age_days.isnull() | (held.ends_age_days < RETENTION_DAYS))
    members = held.group_by(["row", "cutoff", "member"]).agg(
        managed=held.running.cast("int32").max(), managed_then=then.cast("int32").max()
    )
    if "subscriptions" not in known:
        none = ibis.literal(0, "int32")
        return members.select("managed", pair=members.row, account_id=members.member, paid=none, pays=none)
    terms = cut(known.in_microseconds("subscriptions").rename(account="account_id"), members.rename(account="member"), _TERMS)
    then = (terms.age_days >= RETENTION_DAYS) & (terms.ends_age_days.isnull() | (terms.ends_age_days < RETENTION_DAYS))
    payments = terms.group_by(["row", "account"]).agg(
        paid_then=terms.arr.max(where=then).fill_null(0.0), pays_now=terms.arr.max(where=terms.running).fill_null(0.0)
    )
    members = members.left_join(payments, [members.row == payments.row, members.member == payments.account])
    return members.select(
        "managed",
        pair=members.row,
        account_id=members.member,
        paid=(members.managed_then * (members.paid_then > 0).cast("int32")).fill_null(0),
        pays=(members.pays_now > 0).cast("int32").fill_null(0),
    )
