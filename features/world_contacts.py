"""What people did with the accounts of a simulated world: engagement, tickets, outcomes, plays and assignments.

The vendor's customer success managers, and partners for the accounts that they manage, write mails (sent, and replied to where health is
good and there is a champion), meet, review outcomes every half year, train, and ask twice a year for a score. Answers follow health and
support pain with noise. People book what they did a few days later, partners later than the vendor; some partners book nothing.
"""

from typing import Final

import numpy as np
import pyarrow as pa

from features.world import Calendar, Codes, Flags, Floats, Ints, Rows, WorldSettings, contract_table
from features.world_course import PLAY_EFFECTS, Course
from features.world_hazard import PARTS
from features.world_population import Partners, Population

__all__ = ["assignment_table", "engagement_table", "outcome_table", "play_table", "ticket_table"]

_VENDOR: Final = -1
_CHANNELS: Final = ("email", "meeting", "qbr", "training", "community", "content", "survey")
_KINDS: Final = ("sent", "replied", "renewal_quote", "held", "cancelled", "attended", "posted", "downloaded", "nps", "csat")
_PLAY_CATEGORIES: Final = ("Implementation", "Adoption", "Growth", "Experience")
_CATEGORY_OF: Final = np.array([1, 3, 3, 0, 1, 2, 2])
_PLAY_COSTS: Final = np.array([900.0, 500.0, 650.0, 1200.0, 250.0, 400.0, 40.0])
_SEVERITIES: Final = ("low", "normal", "high", "urgent")


def engagement_table(settings: WorldSettings, calendar: Calendar, population: Population, partners: Partners, course: Course) -> pa.Table:
    """Return the contacts that were booked by the end of the period."""
    random = settings.random("engagement")
    parts = [
        *_regular_contacts(random, calendar, population, course),
        *_answers(random, calendar, population, course),
        _trainings(random, course),
        _reviews(random, population, course),
        _quotes(course),
    ]
    rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    account, source = rows["account"].astype(np.int64), rows["source"].astype(np.int64)
    occurred = np.floor(rows["day"]) + random.uniform(8, 17, account.size) / 24
    late = random.exponential(np.where(source >= 0, 3.0, 1.0))
    recorded = occurred + np.where(rows["channel"] <= 0, 0.01, np.minimum(late, 20))
    kept = (occurred >= 0) & (recorded <= calendar.days) & (occurred < course.gone[account]) & (occurred >= population.created[account])
    kept &= ~np.append(partners.silent, False)[source]
    order = np.flatnonzero(kept)[np.argsort(occurred[kept], kind="stable")]
    account, source = account[order], source[order]
    columns = {
        "account_id": Codes(account, population.ids),
        "occurred_at": calendar.instants(occurred[order]),
        "channel": Codes(rows["channel"][order].astype(np.int64), _CHANNELS),
        "kind": Codes(rows["kind"][order].astype(np.int64), _KINDS),
        "contact_id": _contact_names(random, population, course, account, occurred[order]),
        "value": rows["value"][order],
        "source": _sides(partners, source),
        "recorded_at": calendar.instants(recorded[order]),
    }
    return contract_table("engagement", columns)


def _sides(partners: Partners, source: Ints) -> Codes:
    return Codes(source + 1, ("vendor", *partners.ids))


def _present(population: Population, course: Course, calendar: Calendar) -> Flags:
    day = 7 * np.arange(calendar.weeks)
    here: Flags = (population.created[:, None] <= day) & (course.gone[:, None] > day)
    return here


def _contacts(channel: str, kind: str, account: Ints, day: Ints, source: Ints, value: Floats | None = None) -> Rows:
    codes = np.full((2, account.size), [[_CHANNELS.index(channel)], [_KINDS.index(kind)]])
    values = np.full(account.size, np.nan) if value is None else value
    return {"account": account, "day": day, "source": source, "value": values, "channel": codes[0], "kind": codes[1]}


def _regular_contacts(random: np.random.Generator, calendar: Calendar, population: Population, course: Course) -> list[Rows]:
    traces, present = course.traces, _present(population, course, calendar)
    health = np.clip(traces.health, -3, 3)
    size = np.array([0.7, 1.1, 1.6])[population.segment][:, None] * present
    rates = [
        ("email", "sent", 0.30 * size),
        ("email", "replied", 0.16 * size * np.exp(0.35 * health) * np.where(traces.champion, 1.0, 0.35)),
        ("meeting", "held", 0.05 * size * np.exp(0.3 * health) * np.where(traces.champion, 1.0, 0.5)),
        ("meeting", "cancelled", 0.008 * size * np.exp(-0.4 * health)),
        ("community", "posted", 0.02 * size * np.exp(0.3 * health)),
        ("content", "downloaded", 0.03 * size * np.exp(0.2 * health)),
    ]
    contacts = []
    for channel, kind, rate in rates:
        account, week = np.nonzero(random.random(rate.shape) < rate)
        partner = traces.partner[account, week].astype(np.int64)
        source = np.where((channel in ("email", "meeting")) & (random.random(account.size) < 0.65), partner, _VENDOR)
        contacts.append(_contacts(channel, kind, account, 7 * week + random.integers(0, 5, account.size), source))
    return contacts


def _answers(random: np.random.Generator, calendar: Calendar, population: Population, course: Course) -> list[Rows]:
    """Ask for a recommendation every half year and for satisfaction now and then; the unwell answer less often."""
    n, weeks = len(population), calendar.weeks
    asked = (np.arange(weeks) - random.integers(0, 26, n)[:, None]) % 26 == 0
    health = np.clip(course.traces.health, -3, 3)
    answers = _present(population, course, calendar) & (random.random((n, weeks)) < 0.5 / (1 + np.exp(-0.6 * health)))
    contacts = []
    for kind, when, low, high, middle, slope in (
        ("nps", asked & answers, 0, 10, 7.6, 1.3),
        ("csat", answers & (random.random((n, weeks)) < 0.025), 1, 5, 4.0, 0.4),
    ):
        account, week = np.nonzero(when)
        pain = course.traces.parts[PARTS.index("support"), account, week]
        felt = middle + slope * health[account, week] - slope * pain + slope * random.normal(size=account.size)
        day = 7 * week + random.integers(0, 5, account.size)
        contacts.append(_contacts("survey", kind, account, day, np.full(account.size, _VENDOR), np.clip(np.rint(felt), low, high)))
    return contacts


def _trainings(random: np.random.Generator, course: Course) -> Rows:
    log = course.events.trainings
    people = 1.0 + random.poisson(3, log["account"].size)
    return _contacts("training", "attended", log["account"], log["day"] + random.integers(0, 5, people.size), log["partner"], people)


def _reviews(random: np.random.Generator, population: Population, course: Course) -> Rows:
    """Book a review where outcomes were agreed, one for each account and day."""
    plan = course.events.outcomes
    pairs = np.unique(np.stack([plan["account"], plan["agreed"]]).astype(np.int64), axis=1)
    account, day = pairs[:, (pairs[1] >= 0) & (pairs[1] < 7 * course.traces.health.shape[1])]
    partner = course.traces.partner[account, day // 7].astype(np.int64)
    return _contacts("qbr", "held", account, day, np.where(random.random(account.size) < 0.5, partner, _VENDOR))


def _quotes(course: Course) -> Rows:
    """Mail the quoted rise of the price, in percent."""
    log = course.events.quotes
    value = np.round(100 * log["uplift"], 1)
    return _contacts("email", "renewal_quote", log["account"], log["on"], np.full(value.size, _VENDOR), value)


def _contact_names(
    random: np.random.Generator, population: Population, course: Course, account: Ints, occurred: Floats
) -> list[str | None]:
    """Name the champion in most contacts while there is one, else somebody else."""
    week = np.minimum(occurred // 7, course.traces.health.shape[1] - 1).astype(np.int64)
    number = course.traces.champion_number[account, week]
    is_champion = course.traces.champion[account, week] & (random.random(account.size) < 0.6)
    other = random.integers(1, 5, account.size)
    rows = zip(account.tolist(), is_champion.tolist(), number.tolist(), other.tolist(), strict=True)
    return [f"{population.ids[a]}-u{0 if c else o:03d}{'abcdefgh'[min(k, 7)] if c else 'a'}" for a, c, k, o in rows]


def ticket_table(settings: WorldSettings, calendar: Calendar, population: Population, course: Course) -> pa.Table:
    """Return the tickets; the severe ones of troubled installations stay open for weeks, and some are reopened on the way."""
    random, log = settings.random("tickets"), course.events.tickets
    account, severe, n = log["account"], log["severe"] == 1, log["account"].size
    opened = log["day"] + random.integers(0, 7, n) + random.uniform(6, 20, n) / 24
    needs = random.lognormal(np.where(severe, 1.6, 0.5) + 0.06 * log["slow"], 0.8)
    kept = (opened < np.minimum(course.gone[account], calendar.days)) & (opened >= population.created[account])
    order = np.flatnonzero(kept)[np.argsort(opened[kept], kind="stable")]
    account, severe, opened = account[order], severe[order], opened[order]
    closed = opened + needs[order]
    again = random.random(order.size) < 0.05 * np.exp(0.05 * log["slow"][order])
    reopened = np.where(again, opened + random.uniform(0.4, 0.9, order.size) * needs[order], np.nan)
    closed = np.where(closed <= calendar.days, closed, np.nan)
    satisfied = np.clip(np.rint(4.3 - 0.25 * np.log1p(needs[order]) - 0.6 * severe + 0.8 * random.normal(size=order.size)), 1, 5)
    rated = ~np.isnan(closed) & (random.random(order.size) < 0.35)
    columns = {
        "ticket_id": [f"t{number:06d}" for number in range(1, order.size + 1)],
        "account_id": Codes(account, population.ids),
        "opened_at": calendar.instants(opened),
        "closed_at": calendar.instants(closed),
        "reopened_at": calendar.instants(np.where(reopened <= calendar.days, reopened, np.nan)),
        "severity": Codes(2 * severe + (random.random(order.size) < np.where(severe, 0.25, 0.6)), _SEVERITIES),
        "csat": np.where(rated, satisfied, np.nan),
    }
    return contract_table("tickets", columns)


def outcome_table(settings: WorldSettings, calendar: Calendar, population: Population, partners: Partners, course: Course) -> pa.Table:
    """Return the outcomes agreed by the end of the period, verified or not."""
    random, plan = settings.random("outcome words"), course.events.outcomes
    account = plan["account"].astype(np.int64)
    kept = (plan["agreed"] < np.minimum(course.gone[account], calendar.days)) & (plan["agreed"] >= population.created[account])
    order = np.flatnonzero(kept)[np.lexsort((account[kept], plan["agreed"][kept]))]
    account, agreed = account[order], plan["agreed"][order] + 0.6
    verified = np.where(
        plan["verified"][order] + 0.7 < np.minimum(course.gone[account], calendar.days), plan["verified"][order] + 0.7, np.nan
    )
    done = ~np.isnan(verified)
    week = np.clip(np.nan_to_num(verified) // 7, 0, course.traces.health.shape[1] - 1).astype(np.int64)
    partner = np.where(random.random(order.size) < 0.5, course.traces.partner[account, week], _VENDOR).astype(np.int64)
    columns = {
        "account_id": Codes(account, population.ids),
        "outcome_id": [f"o{number:06d}" for number in range(1, order.size + 1)],
        "agreed_at": calendar.instants(agreed),
        "due_at": calendar.instants(plan["due"][order]),
        "verified_at": calendar.instants(verified),
        "verified_by": Codes(np.where(done, partner + 1, -1), ("vendor", *partners.ids)),
        "value": np.where(done, np.round(random.lognormal(9.3, 0.8, order.size), -2), np.nan),
    }
    return contract_table("outcomes", columns)


def play_table(settings: WorldSettings, calendar: Calendar, population: Population, partners: Partners, course: Course) -> pa.Table:
    """Return the plays that were performed."""
    random, log = settings.random("play words"), course.events.plays
    account, play = log["account"], log["play"]
    performed = log["day"] + random.integers(0, 5, account.size) + random.uniform(8, 17, account.size) / 24
    kept = (performed < np.minimum(course.gone[account], calendar.days)) & (performed >= population.created[account])
    order = np.flatnonzero(kept)[np.argsort(performed[kept], kind="stable")]
    account, play = account[order], play[order]
    columns = {
        "account_id": Codes(account, population.ids),
        "play": Codes(play, tuple(PLAY_EFFECTS)),
        "performed_at": calendar.instants(performed[order]),
        "performed_by": _sides(partners, log["partner"][order]),
        "category": Codes(_CATEGORY_OF[play], _PLAY_CATEGORIES),
        "cost": np.round(_PLAY_COSTS[play] * random.lognormal(0, 0.25, order.size), -1),
    }
    return contract_table("plays", columns)


def assignment_table(calendar: Calendar, population: Population, partners: Partners, course: Course) -> pa.Table:
    """Return who managed which account when; an assignment ends when the account moves on or leaves."""
    end = np.minimum(population.moves_on, course.gone)
    first = (population.partner >= 0) & (population.created < calendar.days)
    then = (population.next_partner >= 0) & (population.moves_on < np.minimum(course.gone, calendar.days))
    account = np.concatenate([np.flatnonzero(first), np.flatnonzero(then)])
    partner = np.concatenate([population.partner[first], population.next_partner[then]])
    since = np.concatenate([population.created[first] + 0.0, population.moves_on[then]])
    until = np.concatenate([end[first], course.gone[then]])
    order = np.lexsort((since, account))
    columns = {
        "account_id": Codes(account[order], population.ids),
        "partner_id": Codes(partner[order], partners.ids),
        "valid_from": calendar.instants(since[order]),
        "valid_to": calendar.instants(np.where(until[order] <= calendar.days, until[order], np.nan)),
    }
    return contract_table("assignments", columns)
