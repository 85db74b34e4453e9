"""The slow twin of the snapshot engine: every feature and label again, in plain loops over plain rows, written from the definitions.

A world is a dict from table names to lists of rows, a row a dict from column names to values; a column that a table does not have is in
none of its rows. Nothing here is taken from the engine: not its windows, not its rules of what was known, not its names of columns.
"""

import itertools
import math
import statistics
from datetime import datetime, timedelta

DAY = timedelta(days=1)
TICK = timedelta(microseconds=1)
HAPPENED = {
    "telemetry": "occurred_at",
    "subscriptions": "start_date",
    "engagement": "occurred_at",
    "tickets": "opened_at",
    "assignments": "valid_from",
    "outcomes": "agreed_at",
}
KNOWN_FROM = {
    "engagement": {"withdrawn_at": "withdrawn_at"},
    "subscriptions": {"cancelled_at": "cancelled_at", "ended_at": "ended_at"},
    "tickets": {"closed_at": "closed_at", "reopened_at": "reopened_at", "csat": "closed_at"},
    "assignments": {"valid_to": "valid_to"},
    "outcomes": {"verified_at": "verified_at", "verified_by": "verified_at", "value": "verified_at"},
}
SEVERE = {"critical", "urgent", "high", "blocker", "p1", "sev1", "1"}
CHANNELS = ("email", "meeting", "qbr", "training", "community", "content")
AMOUNTS = ("arr_start", "arr_end", "churned", "contracted", "expanded", "reactivated", "new")
RANKED = ("active_users_28d", "events_28d", "events_trend_91d", "seat_use_28d", "tickets_91d", "arr")


# What was known


def known_since(table, row):
    return row.get("recorded_at") or row[HAPPENED[table]]


def is_known(table, row, cutoff):
    return row[HAPPENED[table]] <= cutoff and known_since(table, row) <= cutoff


def is_taken_back(row, cutoff):
    return row.get("withdrawn_at") is not None and row["withdrawn_at"] <= cutoff


def hidden(table, row, cutoff):
    """Return the row without what became known after the cutoff; a field whose time of becoming known nobody knows stays hidden."""
    shown = dict(row)
    for field, known_from in KNOWN_FROM.get(table, {}).items():
        if field in row and (row.get(known_from) is None or row[known_from] > cutoff):
            shown[field] = None
    return shown


def newest_versions(terms):
    newest = {}
    for term in sorted(terms, key=lambda term: known_since("subscriptions", term)):
        newest[term["account_id"], term["subscription_id"], term["start_date"]] = term
    return list(newest.values())


def known_world(world, cutoff):
    """Return the tables as they were known at the cutoff."""
    found = {}
    for table, rows in world.items():
        if table in HAPPENED:
            rows = [row for row in rows if is_known(table, row, cutoff) and not is_taken_back(row, cutoff)]
            if table == "subscriptions":
                rows = newest_versions(rows)
            rows = [hidden(table, row, cutoff) for row in rows]
        found[table] = rows
    return found


def real_end(term):
    """Return when a term ends: on its planned day, or before where it ended earlier; None for an open end."""
    ends = [end for end in (term["end_date"], term.get("ended_at")) if end is not None]
    return min(ends, default=None)


def runs(start, end, instant):
    return start <= instant and (end is None or end > instant)


def term_runs(term, instant):
    return runs(term["start_date"], real_end(term), instant)


# Small arithmetic; None is "missing"


def share(above, below):
    return None if above is None or below is None or below == 0 else above / below


def least(values):
    return min(values, default=None)


def most(values):
    return max(values, default=None)


def total(values):
    return math.fsum(value for value in values if value is not None)


def mean(values):
    values = [value for value in values if value is not None]
    return math.fsum(values) / len(values) if values else None


def distinct(values):
    return len({value for value in values if value is not None})


class Row:
    """One account at one cutoff, and what was known of everybody then."""

    def __init__(self, everybody, account, cutoff):
        self.everybody, self.account, self.cutoff = everybody, account, cutoff
        self.facts = next((row for row in everybody["accounts"] if row["account_id"] == account), {})

    def of(self, table):
        return [row for row in self.everybody.get(table, []) if row["account_id"] == self.account]

    def age(self, time):
        return (self.cutoff - time) / DAY

    def within(self, table, days, *, lag=0):
        """Return the rows of `(cutoff - lag - days, cutoff - lag]`; all up to the cutoff for `days=None`."""
        upper = self.cutoff - lag * DAY
        rows = [row for row in self.of(table) if row[HAPPENED[table]] <= upper]
        return rows if days is None else [row for row in rows if row[HAPPENED[table]] > upper - days * DAY]

    @property
    def running(self):
        return [term for term in self.of("subscriptions") if term_runs(term, self.cutoff)]


# Usage


def day_of(time):
    """Return the day `(midnight, next midnight]` that holds the time, as a number."""
    return (time - TICK).toordinal()


def users_of(rows):
    return {row["user_id"] for row in rows if row.get("user_id") is not None}


def days_of(rows):
    return {day_of(row["occurred_at"]) for row in rows}


def events_of(rows):
    return total(row["events"] for row in rows)


def top_user_share(row, days):
    by_user = {}
    for event in row.within("telemetry", days):
        if event["user_id"] is not None:
            by_user[event["user_id"]] = by_user.get(event["user_id"], 0.0) + (event["events"] or 0.0)
    return share(most(by_user.values()), sum(by_user.values()))


def users_kept_share(row, days):
    now, before = users_of(row.within("telemetry", days)), users_of(row.within("telemetry", days, lag=days))
    return share(len(now & before), len(before))


def users_lost(row, days):
    return len(users_of(row.within("telemetry", days, lag=days)) - users_of(row.within("telemetry", days)))


def users_new(row, days):
    return len(users_of(row.of("telemetry")) - users_of(row.within("telemetry", None, lag=days)))


def stickiness(row, days):
    rows = [event for event in row.within("telemetry", days) if event["user_id"] is not None]
    user_days = {(event["user_id"], day_of(event["occurred_at"])) for event in rows}
    return share(len(user_days) / days, len(users_of(rows)))


def weekly_swing(row, days):
    weeks = [events_of(row.within("telemetry", 7, lag=lag)) for lag in range(0, days, 7)]
    return share(statistics.pstdev(weeks), statistics.fmean(weeks))


def gaps(row):
    days = sorted(days_of(row.within("telemetry", 364)))
    return [later - earlier for earlier, later in itertools.pairwise(days)]


def gap_deviation(row):
    return statistics.stdev(gaps(row)) if len(gaps(row)) > 1 else None


def gap_mean(row):
    return mean(gaps(row))


def last_event(row):
    return least(row.age(event["occurred_at"]) for event in row.of("telemetry"))


def silence(row):
    return None if last_event(row) is None or gap_mean(row) is None else last_event(row) / (gap_mean(row) + 1)


def events_within(row, days, *, lag=0):
    return events_of(row.within("telemetry", days, lag=lag))


def users_within(row, days, *, lag=0):
    return len(users_of(row.within("telemetry", days, lag=lag)))


def users_peak(row, days):
    return most(event["users"] for event in row.within("telemetry", days) if event["users"] is not None) or 0.0


def usage_twins():
    twins = {}
    for d in (7, 28, 91, 182, 364):
        twins[f"events_{d}d"] = lambda row, d=d: events_within(row, d)
        twins[f"active_days_{d}d"] = lambda row, d=d: len(days_of(row.within("telemetry", d)))
        twins[f"active_users_{d}d"] = lambda row, d=d: users_within(row, d)
        twins[f"users_peak_{d}d"] = lambda row, d=d: users_peak(row, d)
    for d in (28, 91, 182, 364):
        twins[f"event_types_{d}d"] = lambda row, d=d: distinct(event["event"] for event in row.within("telemetry", d))
        twins[f"products_used_{d}d"] = lambda row, d=d: distinct(event["product"] for event in row.within("telemetry", d))
        twins[f"events_per_user_{d}d"] = lambda row, d=d: share(events_within(row, d), users_within(row, d))
        twins[f"top_user_share_{d}d"] = lambda row, d=d: top_user_share(row, d)
        twins[f"users_lost_{d}d"] = lambda row, d=d: users_lost(row, d)
        twins[f"users_kept_share_{d}d"] = lambda row, d=d: users_kept_share(row, d)
        twins[f"users_new_{d}d"] = lambda row, d=d: users_new(row, d)
        twins[f"weekly_swing_{d}d"] = lambda row, d=d: weekly_swing(row, d)
    for d in (28, 91, 182):
        twins[f"events_before_{d}d"] = lambda row, d=d: events_within(row, d, lag=d)
        twins[f"users_before_{d}d"] = lambda row, d=d: users_within(row, d, lag=d)
        twins[f"events_trend_{d}d"] = lambda row, d=d: share(events_within(row, d), events_within(row, d, lag=d))
        twins[f"users_trend_{d}d"] = lambda row, d=d: share(users_within(row, d), users_within(row, d, lag=d))
    for short, long in ((28, 182), (91, 182), (182, 364)):
        twins[f"events_{short}d_of_{long}d"] = lambda row, s=short, g=long: share(events_within(row, s), events_within(row, g))
        twins[f"users_{short}d_of_{long}d"] = lambda row, s=short, g=long: share(users_within(row, s), users_within(row, g))
    for d in (28, 91):
        twins[f"stickiness_{d}d"] = lambda row, d=d: stickiness(row, d)
        twins[f"seat_use_{d}d"] = lambda row, d=d: share(users_within(row, d), seats(row))
    for d in (7, 28, 91, 182):
        twins[f"seat_use_peak_{d}d"] = lambda row, d=d: share(users_peak(row, d), seats(row))
    return twins | {
        "days_since_last_event": last_event,
        "gap_longest_364d": lambda row: most(gaps(row)),
        "gap_mean_364d": gap_mean,
        "gap_deviation_364d": gap_deviation,
        "silence_against_usual": silence,
        "days_since_first_event": lambda row: most(row.age(event["occurred_at"]) for event in row.of("telemetry")),
        "events_ever": lambda row: events_of(row.of("telemetry")),
        "users_ever": lambda row: len(users_of(row.of("telemetry"))),
        "users_now_share": lambda row: share(users_within(row, 182), len(users_of(row.of("telemetry")))),
    }


def event_twins(names, carrying):
    """Return the features of kinds of event; `names` are the words by which features call the kinds."""
    twins = {}
    for kind, name in names.items():
        for d in (28, 91):
            twins[f"event_{name}_{d}d"] = lambda row, k=kind, d=d: events_of(e for e in row.within("telemetry", d) if e["event"] == k)
            if kind in carrying:
                twins[f"amount_{name}_{d}d"] = lambda row, k=kind, d=d: total(
                    e["quantity"] for e in row.within("telemetry", d) if e["event"] == k
                )
    return twins


def ratio_twins(ratios):
    def ratio(row, above, below, days):
        rows = row.within("telemetry", days)
        return share(events_of(e for e in rows if e["event"] in above), events_of(e for e in rows if e["event"] in below))

    return {f"{name}_{d}d": lambda row, a=a, b=b, d=d: ratio(row, a, b, d) for name, (a, b) in ratios.items() for d in (28, 91, 182)}


# Engagement


def word(text):
    return None if text is None else text.lower()


def contacts(row, days, chosen=lambda contact: True):
    return [contact for contact in row.within("engagement", days) if word(contact["channel"]) != "survey" and chosen(contact)]


def by_channel(row, channel, days=None):
    return [contact for contact in row.within("engagement", days) if word(contact["channel"]) == channel]


def answers(row, kind):
    return [a for a in by_channel(row, "survey") if word(a["kind"]) == kind and a["value"] is not None]


def last_answer(row, kind):
    """Return the newest answer; of several at one instant the lowest."""
    newest = sorted(answers(row, kind), key=lambda answer: (row.age(answer["occurred_at"]), answer["value"]))
    return newest[0]["value"] if newest else None


def against_average(row, kind):
    last = last_answer(row, kind)
    return None if last is None else last - mean(answer["value"] for answer in answers(row, kind))


def newest_age(row, rows, column="occurred_at"):
    return least(row.age(found[column]) for found in rows if found[column] is not None)


def engagement_twins():
    twins = {}
    for d in (28, 91, 182):
        twins[f"contacts_{d}d"] = lambda row, d=d: len(contacts(row, d))
        twins[f"contacts_vendor_{d}d"] = lambda row, d=d: len(contacts(row, d, lambda c: word(c["source"]) == "vendor"))
        twins[f"contacts_partner_{d}d"] = lambda row, d=d: len(contacts(row, d, lambda c: word(c["source"]) not in ("vendor", None)))
        twins[f"people_met_{d}d"] = lambda row, d=d: distinct(contact["contact_id"] for contact in row.within("engagement", d))
    for channel in CHANNELS:
        for d in (91, 364):
            twins[f"{channel}_contacts_{d}d"] = lambda row, c=channel, d=d: len(by_channel(row, c, d))
        twins[f"days_since_{channel}"] = lambda row, c=channel: newest_age(row, by_channel(row, c))
    for kind in ("nps", "csat"):
        twins[f"{kind}_last"] = lambda row, k=kind: last_answer(row, k)
        twins[f"{kind}_against_average"] = lambda row, k=kind: against_average(row, k)
        twins[f"days_since_{kind}"] = lambda row, k=kind: newest_age(row, answers(row, k))
    return twins | {
        "days_since_contact": lambda row: newest_age(row, contacts(row, None)),
        "trainings_ever": lambda row: len(by_channel(row, "training")),
    }


# Support


def open_tickets(row):
    return [ticket for ticket in row.of("tickets") if ticket["closed_at"] is None]


def is_severe(ticket):
    return ticket["severity"] is not None and ticket["severity"].lower() in SEVERE


def support_twins():
    twins = {}
    for d in (28, 91, 182):
        twins[f"tickets_{d}d"] = lambda row, d=d: len(row.within("tickets", d))
        twins[f"tickets_severe_{d}d"] = lambda row, d=d: sum(is_severe(ticket) for ticket in row.within("tickets", d))
        twins[f"ticket_days_to_close_{d}d"] = lambda row, d=d: mean(
            (ticket["closed_at"] - ticket["opened_at"]) / DAY for ticket in row.within("tickets", d) if ticket["closed_at"]
        )
        twins[f"ticket_csat_{d}d"] = lambda row, d=d: mean(ticket["csat"] for ticket in row.within("tickets", d))
        twins[f"tickets_reopened_share_{d}d"] = lambda row, d=d: share(
            sum(ticket["reopened_at"] is not None for ticket in row.within("tickets", d)), len(row.within("tickets", d))
        )
    return twins | {
        "tickets_open": lambda row: len(open_tickets(row)),
        "tickets_severe_open": lambda row: sum(is_severe(ticket) for ticket in open_tickets(row)),
        "ticket_oldest_open_days": lambda row: most(row.age(ticket["opened_at"]) for ticket in open_tickets(row)) or 0.0,
        "days_since_ticket": lambda row: newest_age(row, row.of("tickets"), "opened_at"),
    }


# Commercial


def arr(row):
    return total(term["arr"] for term in row.running)


def seats(row):
    known = [term["seats"] for term in row.running if term["seats"] is not None]
    return sum(known) if known else None


def discount(row):
    listed = [term for term in row.running if term["list_arr"] is not None]
    paid = share(total(term["arr"] for term in listed), total(term["list_arr"] for term in listed))
    return None if paid is None else 1 - paid


def arr_before(row, days):
    return total(term["arr"] for term in row.of("subscriptions") if term_runs(term, row.cutoff - days * DAY))


def flag(row, of_term):
    known = [float(of_term(term)) for term in row.running if of_term(term) is not None]
    return most(known)


def changes(row):
    """Return (instant, before, after) for each instant at which terms began or ended."""
    terms = row.of("subscriptions")
    seated = total(term.get("seats") for term in terms) > 0
    instants = {term["start_date"] for term in terms} | {real_end(term) for term in terms}
    found = []
    for instant in sorted(time for time in instants if time is not None and time <= row.cutoff):
        just_before = [term for term in terms if term["start_date"] < instant and (real_end(term) is None or real_end(term) >= instant)]
        from_then = [term for term in terms if term_runs(term, instant)]
        before, after = (total(term["seats"] if seated else term["arr"] for term in running) for running in (just_before, from_then))
        if not math.isclose(before, after, rel_tol=1e-9):
            found.append((instant, before, after))
    return found


def expansions(row):
    return [instant for instant, before, after in changes(row) if 0 < before < after]


def contractions(row):
    return [instant for instant, before, after in changes(row) if 0 < after < before]


def since(row, instants):
    return least(row.age(instant) for instant in instants)


def commercial_twins():
    twins = {}
    for d in (91, 364):
        twins[f"arr_before_{d}d"] = lambda row, d=d: arr_before(row, d)
        twins[f"arr_trend_{d}d"] = lambda row, d=d: share(arr(row), arr_before(row, d))
    return twins | {
        "arr": arr,
        "seats": seats,
        "price_per_seat": lambda row: share(arr(row), seats(row)),
        "discount": discount,
        "products_held": lambda row: distinct(term["product"] for term in row.running),
        "auto_renews": lambda row: flag(row, lambda term: term["auto_renew"]),
        "notice_given": lambda row: flag(row, lambda term: term["cancelled_at"] is not None),
        "days_to_renewal": lambda row: least((t["end_date"] - row.cutoff) / DAY for t in row.running if t["end_date"] is not None),
        "term_days": lambda row: most((t["end_date"] - t["start_date"]) / DAY for t in row.running if t["end_date"] is not None),
        "days_since_term_start": lambda row: least(row.age(term["start_date"]) for term in row.running),
        "tenure_days": lambda row: most(row.age(term["start_date"]) for term in row.of("subscriptions")),
        "terms_so_far": lambda row: len(row.of("subscriptions")),
        "expansions_so_far": lambda row: len(expansions(row)),
        "days_since_expansion": lambda row: since(row, expansions(row)),
        "contractions_so_far": lambda row: len(contractions(row)),
        "days_since_contraction": lambda row: since(row, contractions(row)),
        "days_since_change": lambda row: since(row, [instant for instant, _, _ in changes(row)]),
    }


def days_since(row, date):
    """Return the days since a date of the account; a date that had not come was not known."""
    return None if date is None or date > row.cutoff else row.age(date)


def account_twins(columns, attributes):
    twins = {name: lambda row, n=name: row.facts[n] for name in ("segment", "industry", "region", "employees") if name in columns}
    if "created_at" in columns:
        twins["customer_days"] = lambda row: days_since(row, row.facts["created_at"])
    for name, kind in attributes.items():
        column = f"attribute_{name}"
        if kind == "date":
            twins[f"account_{name}_days"] = lambda row, c=column: days_since(row, row.facts[c])
        else:
            twins[f"account_{name}"] = lambda row, c=column: row.facts[c]
    return twins


# Outcomes


def verified(row):
    return [outcome for outcome in row.of("outcomes") if outcome["verified_at"] is not None]


def overdue(row):
    return [outcome for outcome in row.of("outcomes") if outcome["verified_at"] is None and outcome["due_at"] < row.cutoff]


def outcome_twins():
    return {
        "outcomes_agreed": lambda row: len(row.of("outcomes")),
        "outcomes_verified": lambda row: len(verified(row)),
        "outcomes_overdue": lambda row: len(overdue(row)),
        "outcomes_progress": lambda row: share(len(verified(row)), len(row.of("outcomes"))),
        "outcome_longest_overdue_days": lambda row: most(row.age(outcome["due_at"]) for outcome in overdue(row)) or 0.0,
        "days_since_outcome_verified": lambda row: newest_age(row, verified(row), "verified_at"),
        "outcomes_value_verified": lambda row: total(outcome["value"] for outcome in verified(row)),
    }


# Partners


def manages(assignment, instant):
    return runs(assignment["valid_from"], assignment.get("valid_to"), instant)


def assignment(row):
    """Return the assignment in force, the newest if there are several; of those that began together that of the first partner."""
    running = [found for found in row.of("assignments") if manages(found, row.cutoff)]
    return max(sorted(running, key=lambda found: found["partner_id"]), key=lambda found: found["valid_from"], default=None)


def partner_fact(row, name):
    assigned = assignment(row)
    partners = [p for p in row.everybody.get("partners", []) if assigned and p["partner_id"] == assigned["partner_id"]]
    return partners[0].get(name) if partners else None


def book(row, instant):
    """Return the accounts that the row's partner managed at the instant."""
    assigned = assignment(row)
    if assigned is None:
        return None
    mine = [found for found in row.everybody["assignments"] if found["partner_id"] == assigned["partner_id"]]
    return {found["account_id"] for found in mine if manages(found, instant)}


def pays(row, account, instant):
    terms = [term for term in row.everybody["subscriptions"] if term["account_id"] == account]
    return total(term["arr"] for term in terms if term_runs(term, instant)) > 0


def partner_retention(row):
    then = row.cutoff - 182 * DAY
    others = book(row, then)
    paid = {account for account in (others or set()) - {row.account} if pays(row, account, then)}
    return share(sum(pays(row, account, row.cutoff) for account in paid), len(paid))


def partner_twins(partner_columns, *, subscribed):
    described = [name for name in ("type", "tier", "region") if name in partner_columns]
    twins = {f"partner_{name}": lambda row, n=name: partner_fact(row, n) for name in described}
    twins |= {
        "partner_managed": lambda row: float(assignment(row) is not None),
        "partner_days": lambda row: row.age(assignment(row)["valid_from"]) if assignment(row) else None,
        "partner_book_accounts": lambda row: len(book(row, row.cutoff)) if assignment(row) else None,
    }
    return twins | ({"partner_retention_182d": partner_retention} if subscribed else {})


def all_twins(columns, *, event_names, carrying, ratios, attributes):
    """Return from the name of each feature that all tables and columns allow to its twin, ranks left out."""
    return {
        **usage_twins(),
        **event_twins(event_names, carrying),
        **ratio_twins(ratios),
        **engagement_twins(),
        **support_twins(),
        **commercial_twins(),
        **account_twins(columns["accounts"], attributes),
        **outcome_twins(),
        **partner_twins(columns.get("partners", ()), subscribed="subscriptions" in columns),
    }


def ranks(keys, segments, values, *, minimum):
    """Return the share of those of the same cutoff and segment with a smaller value, where enough have one."""
    cutoffs = [cutoff for _, cutoff in keys]
    found = []
    for cutoff, segment, value in zip(cutoffs, segments, values, strict=True):
        peers = [
            v
            for c, s, v in zip(cutoffs, segments, values, strict=True)
            if c == cutoff and s == segment and v is not None and value is not None
        ]
        enough = value is not None and len(peers) >= minimum
        found.append(share(sum(peer < value for peer in peers), len(peers) - 1) if enough else None)
    return found


def feature_values(world, spine, names, twins, *, minimum_peers):
    """Compute the named features for (account, cutoff) pairs: a dict from name to values in the order of the pairs."""
    known = {cutoff: known_world(world, cutoff) for cutoff in {cutoff for _, cutoff in spine}}
    rows = [Row(known[cutoff], account, cutoff) for account, cutoff in spine]
    values = {name: [twins[name](row) for row in rows] for name in names if name in twins}
    segments = [row.facts.get("segment") for row in rows]
    for name in names:
        if name not in twins:
            values[name] = ranks(spine, segments, values[name.removesuffix("_rank")], minimum=minimum_peers)
    return values


def is_same(value, truth):
    if value is None or truth is None or isinstance(truth, str | datetime):
        return value == truth
    return math.isclose(value, truth, rel_tol=1e-9, abs_tol=1e-9)


def differences(matrix, expected, pairs):
    """Return where a matrix and its twin differ, as (feature, account, cutoff, found, expected)."""
    return [
        (name, account, str(cutoff), value, truth)
        for name, values in expected.items()
        for (account, cutoff), value, truth in zip(pairs, matrix[name].to_pylist(), values, strict=True)
        if not is_same(value, truth)
    ]


# Who is a customer, and what became of it


def is_customer(world, account, cutoff, targets):
    row = Row(known_world(world, cutoff), account, cutoff)
    if targets.kind == "usage":
        return events_of(row.within("telemetry", targets.eligible_days)) >= targets.eligible_events
    paid = [term for term in row.of("subscriptions") if term["arr"] > 0]
    ran = [real_end(term) for term in paid if term_runs(term, term["start_date"])]
    return any(end is None or end > cutoff - targets.grace_days * DAY for end in ran)


class History:
    """All that is known today about one account."""

    def __init__(self, world, account):
        terms = newest_versions([term for term in world.get("subscriptions", []) if term["account_id"] == account])
        self.terms = [term for term in terms if term["arr"] > 0 and term_runs(term, term["start_date"])]
        self.telemetry = [row for row in world["telemetry"] if row["account_id"] == account]

    def arr(self, instant):
        return total(term["arr"] for term in self.terms if term_runs(term, instant))

    def held_arr(self, instant, grace_days):
        """Return the ARR, or between two terms less than the grace period apart that of the terms that ended last."""
        ends = [real_end(term) for term in self.terms if real_end(term) is not None and real_end(term) <= instant]
        starts = [term["start_date"] for term in self.terms if term["start_date"] > instant]
        if self.arr(instant) > 0 or not ends or not starts or min(starts) - max(ends) >= grace_days * DAY:
            return self.arr(instant)
        return total(term["arr"] for term in self.terms if real_end(term) == max(ends))

    def seats(self, instant):
        known = [term["seats"] for term in self.terms if term_runs(term, instant) and term["seats"] is not None]
        return sum(known) if known else None

    def events(self, after, until):
        return [row for row in self.telemetry if after < row["occurred_at"] <= until]

    def leaves(self, grace_days):
        """Return the instants at which ARR falls to zero and stays there for the grace period."""
        falls = {real_end(term) for term in self.terms if real_end(term) is not None and self.arr(real_end(term)) == 0}
        return [fall for fall in falls if not any(fall <= term["start_date"] < fall + grace_days * DAY for term in self.terms)]


def next_leave(history, cutoff, targets):
    """Return when an account that pays at the cutoff next stops paying for good, or for the grace period."""
    return least(fall for fall in history.leaves(targets.grace_days) if fall > cutoff)


def churn_label(history, cutoff, targets):
    opens = cutoff + targets.lead_days * DAY
    closes = opens + targets.horizon_days * DAY
    if targets.kind == "usage":
        return float(not history.events(opens, closes))
    if history.arr(cutoff) == 0:
        return None
    left = next_leave(history, cutoff, targets)
    if left is None or left > closes:
        return 0.0
    return 1.0 if left > opens else None


def measured(history, measure, cutoff, targets):
    opens = cutoff + targets.lead_days * DAY
    closes = opens + targets.horizon_days * DAY
    if measure in ("arr", "seats"):
        value = getattr(history, measure)
        return value(cutoff), value(closes) if history.arr(closes) > 0 else None
    value = {"active_users": lambda rows: len(users_of(rows)), "events": events_of}[measure]
    return value(history.events(cutoff - targets.horizon_days * DAY, cutoff)), value(history.events(opens, closes))


def change_label(history, cutoff, targets, name, churn):
    if churn is None or churn == 1:
        return None if churn is None else 0.0
    target = getattr(targets, name)
    before, after = measured(history, target.measure, cutoff, targets)
    if before is None or after is None:
        return None
    moved = after - before if name == "expansion" else before - after
    return float(moved > 0 and moved >= target.threshold * before and moved >= target.minimum_change)


def next_renewal(world, account, cutoff):
    row = Row(known_world(world, cutoff), account, cutoff)
    return least(term["end_date"] for term in row.running if term["end_date"] is not None)


def nonrenewal(history, cutoff, targets, churn, renewal):
    """Return whether an account whose renewal falls into the label window was lost by then; None where none falls into it."""
    opens = cutoff + targets.lead_days * DAY
    if targets.kind == "usage" or churn is None or renewal is None or not opens < renewal <= opens + targets.horizon_days * DAY:
        return None
    return float(churn == 1 and next_leave(history, cutoff, targets) <= renewal)


def groups(world, account, cutoff):
    """Return what the account is, and who managed it as was known at the cutoff."""
    row = Row(known_world(world, cutoff), account, cutoff)
    partner = {"partner_id": assignment(row)["partner_id"] if assignment(row) else None}
    described = {f"partner_{name}": partner_fact(row, name) for name in ("type", "tier")}
    return {name: row.facts.get(name) for name in ("segment", "region", "industry")} | partner | described


def first_days(first, last):
    """Return the first midnights of months from the first instant to the last."""
    days = [datetime(first.year, first.month, 1) + timedelta(days=n) for n in range((last - first).days + 32)]
    return [day for day in days if day.day == 1 and first <= day <= last]


def movements(world, data_until, grace_days):
    """Return what every account pays at the start of each month since anybody paid, and at the end of the data, with its groups."""
    histories = {row["account_id"]: History(world, row["account_id"]) for row in world["accounts"]}
    now = datetime(data_until.year, data_until.month, data_until.day)
    began = least(term["start_date"] for history in histories.values() for term in history.terms)
    months = sorted({now, *(first_days(began, now) if began else [])})
    found = []
    for month in months:
        for account, history in sorted(histories.items()):
            held = history.held_arr(month, grace_days)
            if held > 0:
                belongs = {name: groups(world, account, month)[name] for name in ("segment", "partner_id", "partner_type")}
                found.append({"account_id": account, "month": month, "arr": held} | belongs)
    return found


def retention(rows, start, end, by=None):
    """Return the sums of `features.retention.Retention` by group, from rows of movements."""
    pays = {(row["account_id"], row["month"]): row for row in rows}
    found = {}
    for account in {row["account_id"] for row in rows}:
        now, then = pays.get((account, start)), pays.get((account, end))
        if now is None and then is None:
            continue
        group = (now or then)[by] if by else None
        sums = found.setdefault(group, dict.fromkeys(("accounts", "lost_accounts"), 0) | dict.fromkeys(AMOUNTS, 0.0))
        before, after = now["arr"] if now else 0.0, then["arr"] if then else 0.0
        if now is None:
            returned = any(row["account_id"] == account and row["month"] < start for row in rows)
            sums["reactivated" if returned else "new"] += after
            continue
        sums["accounts"] += 1
        sums["lost_accounts"] += after == 0
        sums["arr_start"] += before
        sums["arr_end"] += after
        sums["churned"] += before if after == 0 else 0.0
        sums["contracted"] += max(0.0, before - after) if after > 0 else 0.0
        sums["expanded"] += max(0.0, after - before)
    return found


def labels(world, account, cutoff, targets, data_until: datetime):
    """Return churn, contraction, expansion, arr, arr_end, renewal_at, left_at and nonrenewal; None where there is none."""
    history = History(world, account)
    closes = cutoff + (targets.lead_days + targets.horizon_days) * DAY
    subscribed = "subscriptions" in world
    grace = targets.grace_days if targets.kind == "subscription" else 0
    closed = closes + grace * DAY <= data_until
    churn = churn_label(history, cutoff, targets) if closed else None
    renewal = next_renewal(world, account, cutoff) if subscribed else None
    return {
        "churn": churn,
        "contraction": change_label(history, cutoff, targets, "contraction", churn),
        "expansion": change_label(history, cutoff, targets, "expansion", churn),
        "arr": history.arr(cutoff) if subscribed else None,
        "arr_end": history.arr(closes) if subscribed and closed else None,
        "renewal_at": renewal,
        "left_at": next_leave(history, cutoff, targets) if churn == 1 and targets.kind == "subscription" else None,
        "nonrenewal": nonrenewal(history, cutoff, targets, churn, renewal),
    }
