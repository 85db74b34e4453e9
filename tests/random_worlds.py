"""Small random worlds: tables with everything that makes time hard, as plain rows and as the engine reads them."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from features.contracts import CONTRACT
from features.families import VIEWS, build_catalogue
from features.slices import KnownTables, Spine
from tests.brute_force import HAPPENED, KNOWN_FROM, is_known, known_since

ORIGIN = datetime(2024, 6, 1)
KINDS = ("login", "Export data", "ünï/code", "41")
CARRYING = ("Export data", "login")
RATIOS = {"logins_over_all": (("login",), KINDS), "exports_over_logins": (("Export data",), ("login", "41"))}
ATTRIBUTES = {"channel": "category", "score": "number", "go_live": "date"}
TABLES = ("telemetry", "subscriptions", "engagement", "tickets", "partners", "assignments", "outcomes")
CUTS = {"at once": 10**15, "per cutoff": 0}
"""Ways of cutting, as values of `features.slices.ROWS_WORTH_A_QUERY`."""

_OWN_TYPES = {"known_at": pa.timestamp("us"), "attribute_channel": pa.string(), "attribute_score": pa.float64()}
_OWN_TYPES["attribute_go_live"] = pa.timestamp("us")
_TYPES = {"id": pa.string(), "text": pa.string(), "time": pa.timestamp("us"), "number": pa.float64(), "flag": pa.bool_()}
_STEPS = (0, 0, 1, 2, 3, 6, 7, 8, 14, 27, 28, 29, 56, 90, 91, 92, 120, 181, 182, 183, 300, 363, 364, 365, 400, 728, 729)
_NUDGES = (timedelta(0), timedelta(0), timedelta(0), timedelta(microseconds=1), -timedelta(microseconds=1), timedelta(hours=7, minutes=20))


def instant(rng, *, low=-800, high=150):
    """Return a time that often lies exactly at a window's edge, at midnight or a microsecond beside them."""
    days = -rng.choice(_STEPS) + rng.choice((0, 0, 0, 31, 61)) if rng.random() < 0.7 else rng.randint(low, high)
    return ORIGIN + timedelta(days=days) + rng.choice(_NUDGES)


def later(rng, time, days):
    return time + timedelta(days=rng.choice((0, 0, 1, *days))) + rng.choice(_NUDGES[:4])


def maybe(rng, value, share=0.8):
    return value if rng.random() < share else None


def _account(rng, i):
    return {
        "account_id": f"a{i:02d}",
        "created_at": maybe(rng, instant(rng)),
        "segment": rng.choice(("small", "large", None)),
        "industry": rng.choice(("bank", "shop", None)),
        "region": rng.choice(("north", "south")),
        "employees": maybe(rng, float(rng.randint(0, 500))),
        "attribute_channel": maybe(rng, rng.choice(("web", "shop"))),
        "attribute_score": maybe(rng, rng.randint(-8, 8) / 4),
        "attribute_go_live": maybe(rng, instant(rng)),
    }


def _event(rng, account):
    occurred = instant(rng)
    return {
        "account_id": account,
        "occurred_at": occurred,
        "event": rng.choice(KINDS),
        "user_id": maybe(rng, rng.choice(("u1", "u2", "u3", "u4"))),
        "quantity": maybe(rng, rng.randint(-8, 40) / 4),
        "events": maybe(rng, rng.choice((0.0, 0.5, 1.0, 1.0, 2.0, 7.0)), 0.95),
        "users": maybe(rng, float(rng.randint(0, 9))),
        "product": maybe(rng, rng.choice(("core", "plus"))),
        "recorded_at": maybe(rng, later(rng, occurred, (3, 28, 90))),
    }


def _term(rng, account, i):
    start = instant(rng)
    end = maybe(rng, later(rng, start, (30, 91, 182, 364, 365)), 0.9)
    ended = maybe(rng, instant(rng) if end is None or rng.random() < 0.3 else start + (end - start) * rng.random() // 1, 0.3)
    return {
        "account_id": account,
        "subscription_id": f"s{i // 2}",
        "start_date": start,
        "end_date": end,
        "arr": float(rng.choice((0, 50, 100, 100, 105, 95, 200))),
        "product": maybe(rng, rng.choice(("core", "plus"))),
        "seats": maybe(rng, float(rng.choice((0, 5, 10, 10, 20)))),
        "list_arr": maybe(rng, float(rng.choice((0, 100, 125, 200)))),
        "auto_renew": maybe(rng, rng.random() < 0.5),
        "cancelled_at": maybe(rng, later(rng, start, (20, 60, 150)), 0.3),
        "ended_at": ended,
        "recorded_at": maybe(rng, later(rng, start, (-20, 10, 40))),
    }


def _corrected(rng, term):
    """Return a later version of the term."""
    known = known_since("subscriptions", term)
    changed = {"arr": term["arr"] + 50, "seats": 30.0, "end_date": term["start_date"] + timedelta(days=rng.choice((30, 200, 365)))}
    return term | changed | {"recorded_at": known + timedelta(days=rng.choice((1, 40, 100)))}


def _contact(rng, account):
    occurred = instant(rng)
    recorded = maybe(rng, later(rng, occurred, (5, 50)))
    return {
        "account_id": account,
        "occurred_at": occurred,
        "channel": rng.choice(("email", "meeting", "qbr", "training", "community", "content", "survey", "Survey", "fax")),
        "kind": maybe(rng, rng.choice(("nps", "NPS", "csat", "sent"))),
        "contact_id": maybe(rng, rng.choice(("c1", "c2"))),
        "value": maybe(rng, float(rng.randint(0, 10))),
        "source": maybe(rng, rng.choice(("vendor", "Vendor", "p1"))),
        "recorded_at": recorded,
        "withdrawn_at": maybe(rng, later(rng, recorded or occurred, (3, 28, 90)), 0.3),
    }


def _ticket(rng, account, i):
    opened = instant(rng)
    closed = maybe(rng, later(rng, opened, (1, 20, 200)), 0.7)
    return {
        "ticket_id": f"t{i}",
        "account_id": account,
        "opened_at": opened,
        "closed_at": closed,
        "reopened_at": closed and maybe(rng, later(rng, closed, (2, 30)), 0.4),
        "severity": maybe(rng, rng.choice(("High", "low", "p1"))),
        "csat": maybe(rng, float(rng.randint(1, 5))),
    }


def _assignment(rng, account):
    start = instant(rng)
    return {
        "account_id": account,
        "partner_id": rng.choice(("p1", "p2")),
        "valid_from": start,
        "valid_to": maybe(rng, later(rng, start, (30, 182, 400)), 0.5),
    }


def _outcome(rng, account, i):
    agreed = instant(rng)
    proved = maybe(rng, later(rng, agreed, (10, 100)), 0.5)
    return {
        "account_id": account,
        "outcome_id": f"o{i}",
        "agreed_at": agreed,
        "due_at": later(rng, agreed, (28, 91, 182)),
        "verified_at": proved,
        "verified_by": maybe(rng, "telemetry"),
        "value": maybe(rng, float(rng.randint(0, 1000))),
    }


def make_world(seed, sizes, *, without=()):
    """Return a world; each row depends on the seed and its own number only, so that smaller worlds are parts of larger ones.

    Parameters
    ----------
    sizes
        Rows by table; a table that is not named is missing.
    without
        Optional columns that are missing, as (table, column).
    """

    def rows(table, make):
        rngs = [random.Random(f"{seed}/{table}/{i}") for i in range(sizes.get(table, 0))]
        return [make(rng, rng.choice(accounts), i) for i, rng in enumerate(rngs)]

    accounts = [f"a{i:02d}" for i in range(sizes["accounts"])]
    world = {"accounts": [_account(random.Random(f"{seed}/accounts/{i}"), i) for i in range(sizes["accounts"])]}
    makers = {
        "telemetry": lambda rng, account, i: _event(rng, account),
        "subscriptions": _term,
        "engagement": lambda rng, account, i: _contact(rng, account),
        "tickets": _ticket,
        "assignments": lambda rng, account, i: _assignment(rng, account),
        "outcomes": _outcome,
    }
    world |= {table: rows(table, make) for table, make in makers.items() if table in sizes}
    if "partners" in sizes:
        world["partners"] = [
            {"partner_id": p, "name": p, "type": t, "tier": None, "region": "north"} for p, t in (("p1", "msp"), ("p2", "agency"))
        ]
    if "subscriptions" in sizes and ("subscriptions", "recorded_at") not in without:
        rng = random.Random(f"{seed}/corrections")
        world["subscriptions"] += [_corrected(rng, term) for term in world["subscriptions"] if rng.random() < 0.3]
    return one_of_each(drop_columns(world, without))


def drop_columns(world, without):
    gone = {table: {column for t, column in without if t == table} for table in world}
    return {table: [{c: v for c, v in row.items() if c not in gone[table]} for row in rows] for table, rows in world.items()}


def one_of_each(world):
    """Return the world as a check leaves it: no key twice within one known time."""
    if "subscriptions" not in world:
        return world
    terms = {(t["subscription_id"], t["start_date"], known_since("subscriptions", t)): t for t in world["subscriptions"]}
    return world | {"subscriptions": list(terms.values())}


OPTIONAL = [
    (table, name)
    for table in ("accounts", *TABLES)
    for name, column in CONTRACT[table].columns.items()
    if not column.required and name not in ("name", "csm", "currency", "events")
]


@dataclass(frozen=True)
class Recipe:
    """What a random world is made from: short to print, and smaller ones make smaller worlds."""

    seed: int
    sizes: Mapping[str, int]
    without: tuple[tuple[str, str], ...] = ()

    def world(self):
        return make_world(self.seed, self.sizes, without=self.without)


@st.composite
def recipes(draw, *, most_accounts=24):
    """Draw a world with some tables and columns missing."""
    present = {"telemetry", *draw(st.sets(st.sampled_from(TABLES)))} if draw(st.booleans()) else set(TABLES)
    sizes = {table: draw(st.integers(0, MOST[table])) for table in TABLES if table in present}
    sizes["accounts"] = draw(st.integers(1, most_accounts))
    without = draw(st.sets(st.sampled_from(OPTIONAL), max_size=12)) if draw(st.booleans()) else set()
    return Recipe(draw(st.integers(0, 10_000)), sizes, tuple(sorted(without)))


@st.composite
def spines(draw, accounts):
    """Draw (account, cutoff) pairs: some cutoffs that all accounts share, or cutoffs of each account's own."""
    offsets = st.sampled_from((0, 0, 31, 61, -91, -182, -364, 1, 90, -900))
    nudges = st.sampled_from((timedelta(0), timedelta(0), timedelta(hours=13, minutes=5), timedelta(microseconds=1)))
    cutoffs = st.builds(lambda days, nudge: ORIGIN + timedelta(days=days) + nudge, offsets, nudges)
    names = [f"a{i:02d}" for i in range(accounts)]
    if draw(st.booleans()):
        shared = sorted(draw(st.sets(cutoffs, min_size=1, max_size=4)))
        return [(account, cutoff) for cutoff in shared for account in names]
    return sorted(draw(st.sets(st.tuples(st.sampled_from(names), cutoffs), min_size=1, max_size=40)))


MOST = {"telemetry": 160, "subscriptions": 60, "engagement": 60, "tickets": 40, "partners": 1, "assignments": 40, "outcomes": 30}
FULL = Recipe(1, MOST | {"accounts": 24})
FULL_SHARED = (FULL, [(f"a{i:02d}", ORIGIN + timedelta(days=d, hours=h)) for d, h in ((-91, 0), (0, 0), (31, 13)) for i in range(24)])
FULL_OWN = (FULL, [(f"a{i:02d}", ORIGIN - timedelta(days=i % 5 * 61, hours=i % 5)) for i in range(24)])


@st.composite
def cases(draw):
    """Draw a recipe and the pairs of a spine."""
    recipe = draw(recipes())
    return recipe, draw(spines(recipe.sizes["accounts"]))


def columns_of(world, table):
    """Return the columns of a table; those of an empty one are the contract's."""
    rows = world[table]
    own = ["attribute_channel", "attribute_score", "attribute_go_live"] if table == "accounts" else []
    found = list(rows[0]) if rows else [*CONTRACT[table].columns, *own]
    return found + (["known_at"] if table in HAPPENED else [])


def column_types(table):
    return {name: _TYPES[column.type] for name, column in CONTRACT[table].columns.items()} | _OWN_TYPES


def as_arrow(world, table):
    types = column_types(table)
    rows = [row | ({"known_at": known_since(table, row)} if table in HAPPENED else {}) for row in world[table]]
    return pa.table({name: pa.array([row[name] for row in rows], types[name]) for name in columns_of(world, table)})


def as_spine(pairs):
    cutoffs = np.array([cutoff for _, cutoff in pairs], dtype="datetime64[us]")
    return Spine(pa.array([account for account, _ in pairs], pa.string()), pa.array(cutoffs))


def as_tables(engine, world):
    return {table: engine.hold(as_arrow(world, table), name=f"world_{table}") for table in world}


def catalogue_of(world, *, kinds=KINDS):
    columns = {table: columns_of(world, table) for table in world}
    declared = {name: kind for name, kind in ATTRIBUTES.items() if f"attribute_{name}" in columns["accounts"]}
    return build_catalogue(columns, currency="USD", events=kinds, carrying=CARRYING, ratios=RATIOS, attributes=declared)


def known_tables(engine, world, pairs, *, kinds=KINDS):
    return KnownTables(engine, as_tables(engine, world), as_spine(pairs), levels={"event": kinds}, views=VIEWS)


# Other futures


def _some_time_after(rng, cutoff):
    return cutoff + rng.choice((timedelta(microseconds=1), timedelta(days=1), timedelta(days=40), timedelta(days=400)))


def _unknown(rng, table, row, cutoff):
    """Return the row as something that became known only after the cutoff."""
    time = HAPPENED[table]
    if "recorded_at" in row and rng.random() < 0.6:
        return row | {"recorded_at": _some_time_after(rng, cutoff)}
    return row | {time: _some_time_after(rng, cutoff)} | ({"recorded_at": None} if "recorded_at" in row else {})


def _hidden_fields_changed(rng, table, row, cutoff):
    """Return a known row whose fields that were not known yet say something else."""
    late = KNOWN_FROM.get(table, {})
    open_ = {field for field, known_from in late.items() if field in row and (row.get(known_from) is None or row[known_from] > cutoff)}
    times = {field: rng.choice((None, _some_time_after(rng, cutoff))) for field in open_ if late[field] == field}
    values = {"csat": 1.0, "value": 123.0, "verified_by": "somebody"}
    return row | times | {field: rng.choice((row[field], values[field])) for field in open_ - set(times)}


def other_future(world, cutoff, rng):
    """Return a world that was the same at the cutoff and then took another course: rows added, moved, changed and left out."""
    donor = make_world(rng.randint(10_000, 20_000), {table: 12 if table in HAPPENED else len(rows) for table, rows in world.items()})
    found = dict(world)
    for table in set(world) & set(HAPPENED):
        rows = []
        for row in world[table]:
            if is_known(table, row, cutoff):
                rows.append(_hidden_fields_changed(rng, table, row, cutoff))
            elif rng.random() < 0.5:
                rows.append(_unknown(rng, table, row, cutoff))
        columns = set(columns_of(world, table))
        new = [_unknown(rng, table, {c: v for c, v in row.items() if c in columns}, cutoff) for row in donor[table]]
        if table == "subscriptions" and "recorded_at" in columns:
            new += [term | {"arr": 9.0, "end_date": None, "recorded_at": _some_time_after(rng, cutoff)} for term in world[table][::2]]
        for row in new:
            rows.insert(rng.randint(0, len(rows)), row)
        found[table] = rows
    late = [name for name in ("created_at", "attribute_go_live") if name in world["accounts"][0]]
    later_dates = [
        {n: rng.choice((None, _some_time_after(rng, cutoff))) for n in late if not row[n] or row[n] > cutoff} for row in world["accounts"]
    ]
    found["accounts"] = [row | dates for row, dates in zip(world["accounts"], later_dates, strict=True)]
    return one_of_each(found)
