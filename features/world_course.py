"""How the accounts of a simulated world fare, week by week.

Each week, for every account at once:

- the *champion* leaves with probability 0.0028 and is replaced with probability 1/22;
- a *slow decline* begins with probability 0.005 and ends with probability 1/26;
- *tickets* arrive, more in large accounts and troubled installations; *pain* keeps 90 % and rises with each, most with severe ones;
- open *outcomes* are verified, sooner where health and the partner's skill are good; *value* is what was verified lately less what is
  overdue, between -1.5 and 1.5;
- *trainings* and *plays* happen, plays more often where the account looks unwell, so that a naive comparison says they harm;
- *health* keeps 92 % and moves towards ``0.60 fit - 1.1 (champion gone) - 1.8 (declining) - 0.30 (pain - 0.6) + 0.30 value + 0.30 skill
  + 0.10 training``, with noise of 0.14;
- *active users* follow the need for seats (growth, and a little health) times a logistic share of health, and never exceed the seats;
- *advanced features* are taken up one after the other, faster in good health;
- *price pressure* is ten times what the quoted rise exceeds 4 % by, and fades by 3 % a week;
- contracts end as `features.world_hazard` says; those that go on grow and shrink.

The appetite for seats is ``6.0 (share of seats used - 0.75) + 0.3 health + 0.6 (features taken up lately - 0.2)``. In a week, 12 to 55 %
more seats are bought with the rate ``exp(-5.2 + signal (appetite - 1.9))``. At a renewal, seats rise by 12 to 60 % with probability
``patience signal exp(-3.6 + appetite)``, and fall by 8 to 30 % with
``patience exp(-2.6 + signal (4.0 (share unused - 0.3) - 0.25 health))``, where patience is the root of the term's share of a year, at
most 1.

Half a year passes before the period starts, so that it does not start from nothing.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from features.world import Calendar, Flags, Floats, Ints, Rows, WorldSettings
from features.world_contracts import ContractBook
from features.world_hazard import HEALTH_MEMORY, PARTS, Outlook, attribute_cause, churn_parts, mid_term_rate, renewal_hazard
from features.world_population import Partners, Population

__all__ = ["ADVANCED_FEATURES", "PLAY_EFFECTS", "PLAY_FADING", "Course", "Events", "Traces", "run_course"]

ADVANCED_FEATURES: Final = 7
PLAY_FADING: Final = 0.08
PLAY_EFFECTS: Final = {  # what a play takes off the log hazard right after it was performed
    "adoption workshop": 0.40,
    "success plan review": 0.30,
    "executive call": 0.30,
    "integration set-up": 0.25,
    "health check": 0.15,
    "expansion briefing": 0.00,
    "newsletter": 0.00,
}

_BURN_IN_WEEKS: Final = 26
_LOG_COLUMNS: Final = {"tickets": ("severe", "slow"), "trainings": ("partner",), "plays": ("play", "partner"), "quotes": ("on", "uplift")}
_MAX_USERS: Final = 400


@dataclass(frozen=True)
class Traces:
    """What was true in each week; arrays of shape `(n_accounts, n_weeks)`, `parts` with the parts of the log hazard before."""

    parts: Floats
    health: Floats
    pull: Floats
    pressure: Floats
    active_users: Floats
    features: Ints
    champion: Flags
    champion_number: Ints
    partner: Ints


@dataclass(frozen=True)
class Events:
    """What happened, one array of shape `(n_events,)` a column, by kind of event."""

    tickets: Rows
    outcomes: Rows
    trainings: Rows
    plays: Rows
    quotes: Rows


@dataclass(frozen=True)
class Course:
    """The course of a world: what was true, what happened, and the contracts."""

    traces: Traces
    events: Events
    book: ContractBook
    gone: Floats
    cause: Ints
    at_renewal: Flags

    def outlooks(self, calendar: Calendar, population: Population) -> dict[int, Outlook]:
        """Return what is ahead of the paying accounts at each first of a month."""
        return {int(cutoff): self._outlook(int(cutoff), population) for cutoff in calendar.month_starts()}

    def _outlook(self, cutoff: int, population: Population) -> Outlook:
        terms = self.book.terms()
        account = terms["account"].astype(np.int64)
        now = np.flatnonzero((terms["start"] <= cutoff) & (terms["end"] > cutoff) & (self.gone[account] > cutoff))
        account, week = account[now], min(cutoff // 7, self.traces.health.shape[1] - 1)
        return Outlook(
            account=account,
            ends=(terms["end"][now] - cutoff).astype(np.int64),
            months=terms["months"][now].astype(np.int64),
            decides=terms["decides"][now] - cutoff,
            leaves=terms["leaves"][now] == 1,
            booked=terms["booked"][now] - cutoff,
            silent=population.silent_from[account] <= cutoff,
            parts=self.traces.parts[:, account, week].astype(np.float64),
            pull=self.traces.pull[account, week].astype(np.float64),
            pressure=self.traces.pressure[account, week].astype(np.float64),
        )


def run_course(settings: WorldSettings, calendar: Calendar, population: Population, partners: Partners) -> Course:
    """Let the weeks pass."""
    weeks = _Weeks(settings, calendar, population, partners)
    for week in range(-_BURN_IN_WEEKS, calendar.weeks):
        weeks.pass_week(week)
    return weeks.course()


class _Weeks:
    """The state of every account in the current week, and the logs of what happened so far."""

    def __init__(self, settings: WorldSettings, calendar: Calendar, population: Population, partners: Partners) -> None:
        n = len(population)
        self._signal, self._calendar, self._population, self._partners = settings.signal, calendar, population, partners
        self._random = settings.random("course")
        self._book = ContractBook(calendar, population, settings.random("contracts"), signal=settings.signal)
        self._plan = _draw_outcomes(settings.random("outcomes"), calendar, population)
        self._verified = np.full(len(self._plan["account"]), np.nan)
        self._champion, self._declining, self._champion_number = np.ones(n, bool), np.zeros(n, bool), np.zeros(n, np.int64)
        self._trouble, self._pain, self._value, self._training, self._relief = self._random.normal(0, 0.6, n), *np.zeros((4, n))
        self._pull = 0.60 * population.fit
        self._health = self._pull + 0.35 * self._random.normal(size=n)
        self._need = np.log(population.seats * 1.05) + 0.25 * self._random.normal(size=n)
        self._features, self._taken_up = self._random.integers(0, 4, n), np.zeros(n)
        self._active, self._pressure = np.zeros(n), np.zeros(n)
        self._cause, self._at_renewal = np.full(n, -1), np.zeros(n, bool)
        self._logs: dict[str, list[Rows]] = {kind: [] for kind in _LOG_COLUMNS}
        self._traces = _empty_traces(n, calendar.weeks)

    def pass_week(self, week: int) -> None:
        """Move everything by one week."""
        self._day = 7 * week
        self._present = (self._population.created < self._day + 7) & (self._book.gone > self._day)
        self._partner = self._population.partner_at(self._day)
        self._skill = self._partners.skill_of(self._partner)
        self._move_people()
        self._open_tickets()
        self._verify_outcomes()
        self._train_and_play()
        self._move_health()
        self._move_usage()
        if week >= 0:
            self._quote_prices()
            parts = self._parts()
            self._write_traces(week, parts)
            self._settle_contracts(parts)

    def _happens(self, probability: Floats | float) -> Flags:
        return (self._random.random(len(self._population)) < probability) & self._present

    def _log(self, kind: str, account: Ints, **columns: Ints | Floats | int) -> None:
        if self._day >= 0 and account.size:
            day = np.full(account.size, self._day)
            self._logs[kind].append({"account": account, "day": day} | {k: np.broadcast_to(v, account.shape) for k, v in columns.items()})

    def _move_people(self) -> None:
        leaves = self._champion & self._happens(0.0028)
        arrives = ~self._champion & self._happens(1 / 22)
        self._champion = (self._champion & ~leaves) | arrives
        self._champion_number = self._champion_number + arrives
        begins = ~self._declining & self._happens(0.005)
        ends = self._declining & self._happens(1 / 26)
        self._declining = (self._declining & ~ends) | begins

    def _open_tickets(self) -> None:
        n = len(self._population)
        self._trouble = 0.95 * self._trouble + 0.19 * self._random.normal(size=n)
        size = np.sqrt(self._book.seats)
        minor = self._random.poisson(0.055 * size * np.exp(0.5 * self._trouble)) * self._present
        major = self._random.poisson(0.012 * size * np.exp(0.9 * self._trouble)) * self._present
        self._pain = np.minimum(0.9 * self._pain + (0.4 * minor + 2.4 * major) / size, 5.0)
        slow = np.clip(np.rint(10 * self._trouble), -30, 30).astype(np.int64)
        for severe, count in ((0, minor), (1, major)):
            account = np.repeat(np.arange(n), count)
            self._log("tickets", account, severe=severe, slow=slow[account])

    def _verify_outcomes(self) -> None:
        account, plan = self._plan["account"], self._plan
        waiting = (plan["agreed"] <= self._day) & np.isnan(self._verified) & self._present[account]
        chance = 0.055 * np.exp(0.55 * self._health + 0.25 * self._skill)[account]
        done = waiting & (self._random.random(account.size) < chance) & (plan["agreed"] < self._day)
        self._verified[done] = self._day + self._random.integers(0, 7, int(done.sum()))
        overdue = waiting & ~done & (plan["due"] < self._day) & (plan["due"] > self._day - 182)
        n = len(self._population)
        self._value = 0.97 * self._value + 0.5 * np.bincount(account[done], minlength=n)
        self._overdue = 0.45 * np.bincount(account[overdue], minlength=n)

    def _train_and_play(self) -> None:
        skilled = np.exp(0.5 * self._skill)
        trained = np.flatnonzero(self._happens(np.where(self._partner >= 0, 0.02 * skilled, 0.012)))
        self._training = 0.97 * self._training
        self._training[trained] += 1.0
        self._log("trainings", trained, partner=self._partner[trained])
        looks_unwell = np.clip(-self._health + 0.7 * self._random.normal(size=len(self._population)), -2, 2)
        played = np.flatnonzero(self._happens(0.03 * np.exp(0.7 * looks_unwell)))
        play = self._random.integers(0, len(PLAY_EFFECTS), played.size)
        by_partner = (self._partner[played] >= 0) & (self._random.random(played.size) < 0.6)
        self._relief = (1 - PLAY_FADING) * self._relief
        self._relief[played] += np.array(list(PLAY_EFFECTS.values()))[play]
        self._log("plays", played, play=play, partner=np.where(by_partner, self._partner[played], -1))

    def _move_health(self) -> None:
        self._pull = 0.60 * self._population.fit - 1.1 * ~self._champion - 1.8 * self._declining - 0.3 * (self._pain - 0.6)
        self._pull += 0.3 * self._realised() + 0.3 * self._skill + 0.1 * self._training
        noise = 0.14 * self._random.normal(size=len(self._pull))
        self._health = self._pull + HEALTH_MEMORY * (self._health - self._pull) + noise

    def _realised(self) -> Floats:
        realised: Floats = np.clip(self._value - self._overdue, -1.5, 1.5)
        return realised

    def _move_usage(self) -> None:
        growth = self._population.growth + 0.08 * self._health
        self._need = np.minimum(self._need + growth / 52 + 0.012 * self._random.normal(size=len(growth)), np.log(_MAX_USERS))
        share = 1 / (1 + np.exp(-1.1 - 0.9 * self._health))
        weeks = np.maximum(self._day - self._population.created, 0) / 7 + 0.5
        self._active = np.minimum(np.exp(self._need) * share * (1 - np.exp(-weeks / 5)), self._book.seats)
        takes_up = self._happens(0.012 * np.exp(0.5 * self._health)) & (self._features < ADVANCED_FEATURES)
        self._features = self._features + takes_up
        self._taken_up = 0.95 * self._taken_up + takes_up

    def _quote_prices(self) -> None:
        quoted = self._book.quote(self._day)
        self._pressure = 0.97 * self._pressure
        self._pressure[quoted] = np.maximum(self._book.uplift[quoted] - 0.04, 0) * 10
        self._log("quotes", quoted, on=np.clip(self._book.quoted_on[quoted], 0, None), uplift=self._book.uplift[quoted])

    def _parts(self) -> Floats:
        return churn_parts(
            self._population,
            health=self._health,
            champion=self._champion,
            pain=self._pain,
            pressure=self._pressure,
            value=self._realised(),
            skill=self._skill,
            training=np.minimum(self._training, 2.0),
            relief=self._relief,
        )

    def _write_traces(self, week: int, parts: Floats) -> None:
        traces = self._traces
        traces.parts[:, :, week] = parts
        traces.health[:, week], traces.pull[:, week], traces.pressure[:, week] = self._health, self._pull, self._pressure
        after_notice = np.where(np.isfinite(self._book.gone), 0.6, 1.0)
        traces.active_users[:, week] = self._active * self._present * after_notice
        traces.features[:, week], traces.partner[:, week] = self._features, self._partner
        traces.champion[:, week], traces.champion_number[:, week] = self._champion, self._champion_number

    def _settle_contracts(self, parts: Floats) -> None:
        book, eta = self._book, parts.sum(axis=0)
        exits_on = np.where(self._happens(1 - np.exp(-mid_term_rate(eta, signal=self._signal))), self._day, -np.inf)
        exits_on += self._random.integers(1, 8, exits_on.size)
        self._exit(exits_on, parts)
        deciding = book.deciding(self._day, until=self._day + 7)
        hazard = renewal_hazard(book.months[deciding], eta[deciding], signal=self._signal)
        leaves = self._random.random(deciding.size) < 1 - np.exp(-hazard)
        self._note_causes(deciding[leaves], parts, mid_term=False)
        book.lapse(deciding[leaves])
        self._renew(deciding[~leaves])
        self._exit(exits_on, parts)
        self._add_seats()

    def _exit(self, exits_on: Floats, parts: Floats) -> None:
        """Let those leave whose day falls into the term agreed last and before its decision: called before and after decisions."""
        exits = np.flatnonzero((self._book.gone == np.inf) & (self._book.start < exits_on) & (exits_on <= self._book.decides))
        self._note_causes(exits, parts, mid_term=True)
        self._book.leave(exits, exits_on[exits].astype(np.int64))

    def _note_causes(self, account: Ints, parts: Floats, *, mid_term: bool) -> None:
        self._cause[account] = attribute_cause(parts[:, account] * self._signal, random=self._random, mid_term=mid_term)
        self._at_renewal[account] = not mid_term

    def _renew(self, account: Ints) -> None:
        """Renew with more, fewer or the same seats."""
        seats, signal = self._book.seats[account], self._signal
        unused = 1 - self._active[account] / seats
        shrinks = np.exp(-2.6 + signal * (4.0 * (unused - 0.30) - 0.25 * self._health[account])) * self._patience(account)
        grows = signal * np.exp(-3.6 + self._appetite(account)) * self._patience(account)
        draw = self._random.random(account.size)
        factor = np.where(draw < shrinks, self._random.uniform(0.7, 0.92, account.size), 1.0)
        factor = np.where(draw > 1 - grows, self._random.uniform(1.12, 1.6, account.size), factor)
        changed = np.where(factor < 1, np.minimum(np.floor(seats * factor), seats - 1), np.ceil(seats * factor))
        self._book.renew(account, np.maximum(changed, 1).astype(np.int64))

    def _patience(self, account: Ints) -> Floats:
        """Return how much of a year's changes falls on one renewal: long terms change more at each."""
        share: Floats = np.sqrt(np.minimum(self._book.months[account], 12) / 12)
        return share

    def _appetite(self, account: Ints) -> Floats:
        """Return the log odds, relative to an average account, of wanting more seats."""
        used = self._active[account] / self._book.seats[account]
        appetite: Floats = 6.0 * (used - 0.75) + 0.3 * self._health[account] + 0.6 * (self._taken_up[account] - 0.2)
        return appetite

    def _add_seats(self) -> None:
        everyone = np.arange(len(self._population))
        rate = np.exp(-5.2 + self._signal * (self._appetite(everyone) - 1.9))
        book = self._book
        undecided = (book.gone == np.inf) & (book.start <= self._day) & (book.decides >= self._day + 7)
        buys = np.flatnonzero(undecided & self._happens(rate))
        extra = np.ceil(self._book.seats[buys] * self._random.uniform(0.12, 0.55, buys.size)).astype(np.int64)
        self._book.add_seats(buys, self._day + self._random.integers(0, 7, buys.size), extra)

    def course(self) -> Course:
        """Return what came of it; who leaves only after the end of the period has not left."""
        left = self._book.gone <= self._calendar.days
        happened = {kind: _concatenated(log, _LOG_COLUMNS[kind]) for kind, log in self._logs.items()}
        return Course(
            traces=self._traces,
            events=Events(outcomes=self._plan | {"verified": self._verified}, **happened),
            book=self._book,
            gone=self._book.gone,
            cause=np.where(left, self._cause, -1),
            at_renewal=self._at_renewal,
        )


def _empty_traces(n: int, weeks: int) -> Traces:
    return Traces(
        parts=np.zeros((len(PARTS), n, weeks), np.float32),
        health=np.zeros((n, weeks), np.float32),
        pull=np.zeros((n, weeks), np.float32),
        pressure=np.zeros((n, weeks), np.float32),
        active_users=np.zeros((n, weeks), np.float32),
        features=np.zeros((n, weeks), np.int16),
        champion=np.zeros((n, weeks), bool),
        champion_number=np.zeros((n, weeks), np.int16),
        partner=np.zeros((n, weeks), np.int16),
    )


def _concatenated(log: list[Rows], columns: tuple[str, ...]) -> Rows:
    empty = np.zeros(0, np.int64)
    return {name: np.concatenate([empty, *(entry[name] for entry in log)]) for name in ("account", "day", *columns)}


def _draw_outcomes(random: np.random.Generator, calendar: Calendar, population: Population) -> Rows:
    """Agree one to three outcomes a month after the start and every half year; they are due in 60 to 150 days."""
    n, reviews = len(population), calendar.days // 182 + 3
    phase = np.where(population.created > -182, population.created + 30, random.integers(-182, 0, n))
    agreed = phase[:, None] + 182 * np.arange(reviews) + random.integers(0, 21, (n, reviews))
    count = (1 + random.binomial(2, 0.35, (n, reviews))) * population.has_plan[:, None]
    account, day = np.repeat(np.repeat(np.arange(n), reviews), count.ravel()), np.repeat(agreed.ravel(), count.ravel())
    return {"account": account, "agreed": day, "due": day + random.integers(60, 151, len(day))}
