"""The telemetry of a simulated world: what users did, when, and when it arrived.

An account has as many *places* for users as it ever has active users; a place is taken by one person after the other (they join and
leave, one in seven a year), the first by the champion, and stays empty while there is none. How busy a place is has a heavy tail. On a
day, a place is used with a probability that follows the weekday, the season of the region (August in EMEA, the lunar new year in APAC,
the end of the year everywhere), and health; who is there does one or several kinds of things, each a row for its hour that says how
many `events` it stands for. Kinds that the account has not taken up are done as plain viewing.
After an account has given notice, four in ten of its users stay away.

Rows arrive within two hours, or in one batch a week for a few accounts; three days' rows of everybody arrived five days late. About
4 % of the accounts send nothing at all and 2 % stop at some day, for reasons that have nothing to do with how they are.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from features.world import Calendar, Codes, Floats, Ints, WorldSettings, contract_table
from features.world_course import ADVANCED_FEATURES, Course
from features.world_population import Population

__all__ = ["EVENTS", "telemetry_table"]

_PLAIN: Final = ("signed_in", "record_viewed", "record_edited", "comment_added", "user_invited")
_ADVANCED: Final = (
    "report_run",
    "dashboard_shared",
    "export_made",
    "automation_run",
    "api_called",
    "integration_synced",
    "settings_changed",
)
EVENTS: Final = (*_PLAIN, *_ADVANCED)
_PRODUCTS: Final = ("core", "analytics", "automation")
_PRODUCT_OF: Final = np.array([0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 0])
_WEIGHTS: Final = np.array([0.22, 0.27, 0.17, 0.08, 0.01, 0.08, 0.03, 0.04, 0.04, 0.03, 0.02, 0.01])
_BATCH: Final = np.array([0.1, 3.0, 1.5, 0.5, 0.1, 0.8, 0.2, 0.3, 12.0, 25.0, 6.0, 0.5])  # events in a row, less one
_VIEWED: Final = 1
_WEEKDAY: Final = np.array([1.0, 1.06, 1.04, 1.0, 0.82, 0.14, 0.10])
_OFFICE_OPENS: Final = np.array([13, 7, 0])  # hour UTC, by region
_OUTAGE_DAYS: Final = 3

assert len(_ADVANCED) == ADVANCED_FEATURES


@dataclass(frozen=True)
class _Places:
    """The places for users of all accounts; arrays of shape `(n_places,)`."""

    account: Ints
    number: Ints
    busyness: Floats
    first_change: Floats
    second_change: Floats


def telemetry_table(settings: WorldSettings, calendar: Calendar, population: Population, course: Course) -> pa.Table:
    """Return the telemetry that arrived by the end of the period, in the order in which it happened."""
    random = settings.random("telemetry")
    places = _draw_places(random, calendar, population, course)
    weeks = [_used_places(random, calendar, population, course, places, week) for week in range(calendar.weeks)]
    place, day = (np.concatenate(parts) for parts in zip(*weeks, strict=True))
    again = 1 + random.poisson(0.9 * np.exp(0.2 * _health_on(course, places.account[place], day)))
    place, day = np.repeat(place, again), np.repeat(day, again)
    return _rows(random, calendar, population, course, places, place, day)


def _health_on(course: Course, account: Ints, day: Ints) -> Floats:
    health: Floats = np.clip(course.traces.health[account, day // 7], -4, 3)
    return health


def _draw_places(random: np.random.Generator, calendar: Calendar, population: Population, course: Course) -> _Places:
    most = np.ceil(course.traces.active_users.max(axis=1)).astype(np.int64)
    account = np.repeat(np.arange(len(population)), most)
    number = np.arange(account.size) - np.repeat(most.cumsum() - most, most)
    busyness = 0.23 * random.lognormal(-0.2, 0.75, account.size) * (1.0 + number) ** -0.3 * population.intensity[account]
    first = random.exponential(7 * 365, account.size)
    return _Places(account, number, busyness, first, first + random.exponential(7 * 365, account.size))


def _used_places(
    random: np.random.Generator, calendar: Calendar, population: Population, course: Course, places: _Places, week: int
) -> tuple[Ints, Ints]:
    """Return the places used in a week, and on which day; one pair for each place and day."""
    days = 7 * week + np.arange(7)
    taken = places.number < course.traces.active_users[places.account, week]
    taken &= (places.number > 0) | course.traces.champion[places.account, week]
    place = np.flatnonzero(taken)
    account = places.account[place]
    rhythm = _WEEKDAY[calendar.weekday(days)] * _season(calendar, days)
    chance = (places.busyness[place] * np.exp(0.40 * _health_on(course, account, days[:1])))[:, None] * rhythm[population.region[account]]
    row, weekday = np.nonzero(random.random(chance.shape, dtype=np.float32) < np.minimum(chance, 0.95))
    place, day, account = place[row], days[weekday], account[row]
    here = (day >= population.created[account]) & (day < np.minimum(course.gone[account], calendar.days))
    here &= day < population.silent_from[account]
    return place[here], day[here]


def _season(calendar: Calendar, days: Ints) -> Floats:
    """Return the season's factor, shape `(n_regions, n_days)`."""
    of_year = calendar.day_of_year(days)

    def dip(depth: float, middle: float, width: float) -> Floats:
        away = np.abs((of_year - middle + 182.5) % 365 - 182.5)
        factor: Floats = 1 - depth * np.exp(-0.5 * (away / width) ** 2)
        return factor

    year_end = dip(0.55, 360, 6)
    return np.array([year_end * dip(0.10, 200, 15), year_end * dip(0.32, 224, 13), year_end * dip(0.30, 36, 6)])


def _rows(
    random: np.random.Generator,
    calendar: Calendar,
    population: Population,
    course: Course,
    places: _Places,
    place: Ints,
    day: Ints,
) -> pa.Table:
    account = places.account[place]
    kind = np.searchsorted(_WEIGHTS.cumsum(), random.random(place.size) * _WEIGHTS.sum(), side="right").clip(max=len(EVENTS) - 1)
    advanced = kind - len(_PLAIN)
    order = population.feature_order[account, np.maximum(advanced, 0)]
    kind = np.where((advanced >= 0) & (order >= course.traces.features[account, day // 7]), _VIEWED, kind)
    hour = _OFFICE_OPENS[population.region[account]] + np.clip(random.normal(4.7, 2.3, place.size), 0.0, 9.99)
    occurred = day + hour / 24
    recorded = _arrivals(random, calendar, population, account, occurred)
    kept = np.flatnonzero(recorded <= calendar.days)
    kept = kept[np.argsort(occurred[kept], kind="stable")]
    place, kind = place[kept], kind[kept]
    minutes = np.round(random.lognormal(2.2, 0.8, kept.size), 1)
    columns = {
        "account_id": Codes(account[kept], population.ids),
        "occurred_at": calendar.instants(occurred[kept]),
        "event": Codes(kind, EVENTS),
        "user_id": _users(population, course, places, place, day[kept]),
        "quantity": np.where(kind <= len(_PLAIN) - 2, minutes, np.nan),
        "events": 1.0 + random.poisson(_BATCH[kind]),
        "product": Codes(_PRODUCT_OF[kind], _PRODUCTS),
        "recorded_at": calendar.instants(recorded[kept]),
    }
    return contract_table("telemetry", columns)


def _arrivals(random: np.random.Generator, calendar: Calendar, population: Population, account: Ints, occurred: Floats) -> Floats:
    """Return when rows arrived: soon, on the next Monday night, or after the outage."""
    soon = occurred + random.uniform(1 / 1440, 2 / 24, occurred.size)
    day = np.floor(occurred).astype(np.int64)
    monday = day + 7 - calendar.weekday(day) + 2 / 24
    outage = int(calendar.days * random.uniform(0.5, 0.7))
    stuck = (day >= outage) & (day < outage + _OUTAGE_DAYS)
    return np.where(population.uploads_weekly[account], monday, np.where(stuck, soon + 5, soon))


def _users(population: Population, course: Course, places: _Places, place: Ints, day: Ints) -> Codes:
    """Name the person who holds each place on each day."""
    person = (day > places.first_change[place]).astype(np.int64) + (day > places.second_change[place])
    champion = places.number[place] == 0
    person = np.where(champion, course.traces.champion_number[places.account[place], day // 7], person)
    person_of_place = place * 8 + np.minimum(person, 7)
    present, codes = np.unique(person_of_place, return_inverse=True)
    names = [
        f"{population.ids[account]}-u{number:03d}{'abcdefgh'[who]}"
        for account, number, who in zip(
            places.account[present // 8].tolist(), places.number[present // 8].tolist(), (present % 8).tolist(), strict=True
        )
    ]
    return Codes(codes, names)
