"""Who lives in a simulated world: the partners, and the accounts with the traits that never change.

Partners differ in *skill*, and in the *ease* of the accounts that they attract. Skill and ease pull against each other (a skilled
partner is sent the hard cases), so a partner's plain churn rate says little about its skill.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from features.world import Calendar, Codes, Flags, Floats, Ints, WorldSettings, contract_table
from features.world_names import company_names, person_names

__all__ = ["INDUSTRIES", "PLANS", "REGIONS", "SEGMENTS", "Partners", "Population", "draw_partners", "draw_population"]

SEGMENTS = ("small business", "mid-market", "enterprise")
REGIONS = ("AMER", "EMEA", "APAC")
INDUSTRIES = ("software", "manufacturing", "retail", "health", "finance", "education", "logistics", "media", "public sector")
PLANS = ("Starter", "Team", "Business", "Enterprise")
PARTNER_TYPES = ("integrator", "msp", "agency", "reseller", "isv")
PARTNER_TIERS = ("gold", "silver", "bronze")

# Shares of the term lengths (months) in each segment.
TERMS = np.array([1, 3, 6, 12, 24, 36])
TERM_SHARES = np.array([[0.36, 0.12, 0.08, 0.42, 0.02, 0.00], [0.10, 0.10, 0.08, 0.62, 0.07, 0.03], [0.00, 0.04, 0.04, 0.66, 0.15, 0.11]])


@dataclass(frozen=True)
class Partners:
    """The partners; arrays of shape `(n_partners,)`.

    `silent` ones share nothing of what they do with their accounts. `pull` is how many accounts they attract.
    """

    ids: list[str]
    skill: Floats
    ease: Floats
    pull: Floats
    region: Ints
    silent: Flags
    table: pa.Table

    def skill_of(self, partner: Ints) -> Floats:
        """Return the skill of each account's partner, and 0 where the vendor manages it (-1)."""
        return np.append(self.skill, 0.0)[partner]


@dataclass(frozen=True)
class Population:
    """The accounts' fixed traits; arrays of shape `(n_accounts,)`, days counted from the start of the period.

    Parameters
    ----------
    fit
        How well the product suits the account, standard normal; it shows in the account's health.
    frailty
        What makes some accounts leave sooner and never shows, standard normal.
    sensitivity
        How strongly the account reacts to a price rise; 1 on average, more in small businesses.
    intensity
        How much its users do compared with others, for no reason that matters.
    growth
        Log growth of its need for seats in a year.
    partner, moves_on, next_partner
        Who manages it (-1 the vendor), until which day (infinite for always), and who then.
    silent_from
        The day from which its telemetry does not arrive; minus infinity for never having arrived.
    uploads_weekly
        Whether its telemetry arrives in one batch a week.
    feature_order
        Shape `(n_accounts, n_advanced)`: the place of each advanced feature in the order in which the account takes them up.
    """

    ids: list[str]
    created: Ints
    segment: Ints
    region: Ints
    employees: Floats
    seats: Ints
    months: Ints
    list_price: Floats
    discount: Floats
    in_euro: Flags
    auto_renew: Flags
    fit: Floats
    frailty: Floats
    sensitivity: Floats
    intensity: Floats
    growth: Floats
    has_plan: Flags
    partner: Ints
    moves_on: Floats
    next_partner: Ints
    silent_from: Floats
    uploads_weekly: Flags
    feature_order: Ints
    table: pa.Table

    def __len__(self) -> int:
        return len(self.ids)

    def partner_at(self, day: float) -> Ints:
        """Return who manages each account on a day, -1 for the vendor."""
        return np.where(day < self.moves_on, self.partner, self.next_partner)


def draw_partners(settings: WorldSettings) -> Partners:
    """Draw the partners: skill, the ease of what they attract, and what the tables say of them."""
    random, n = settings.random("partners"), settings.partners
    skill = random.normal(size=n)
    ease = -0.8 * skill + 0.6 * random.normal(size=n)
    pull = random.lognormal(0.0, 0.7, n)
    ids = [f"p{number:03d}" for number in range(1, n + 1)]
    region = random.choice(len(REGIONS), n, p=[0.45, 0.35, 0.2])
    rank = np.argsort(np.argsort(-(np.log(pull) + 0.3 * skill + 0.5 * random.normal(size=n)))) / n
    tier = np.digitize(rank, [0.2, 0.55])
    columns = {
        "partner_id": ids,
        "name": company_names(random, n),
        "type": Codes(random.choice(len(PARTNER_TYPES), n), PARTNER_TYPES),
        "tier": Codes(tier, PARTNER_TIERS),
        "region": Codes(region, REGIONS),
    }
    silent = random.permutation(n) < round(n / 10)
    return Partners(ids, skill, ease, pull, region, silent, contract_table("partners", columns))


def draw_population(settings: WorldSettings, calendar: Calendar, partners: Partners, *, n_advanced: int) -> Population:
    """Draw the accounts' fixed traits. Those who became customers before the period have stayed until its start."""
    random, n = settings.random("accounts"), settings.accounts
    segment = random.choice(len(SEGMENTS), n, p=[0.55, 0.32, 0.13])
    region = random.choice(len(REGIONS), n, p=[0.45, 0.35, 0.2])
    created = np.where(random.random(n) < 0.25, random.integers(0, max(1, calendar.days - 14), n), -random.integers(20, 1800, n))
    created = calendar.plus_months(created, np.zeros(n, np.int64))
    fit = random.normal(size=n)
    employees = np.rint(random.lognormal(np.array([3.4, 5.6, 8.0])[segment], 0.6))
    seats = np.maximum(2, np.rint(random.lognormal(np.log([5.0, 14.0, 42.0])[segment], 0.45))).astype(np.int64)
    ids = [f"a{number:05d}" for number in range(1, n + 1)]
    first, moves_on, then = _assign(random, settings, calendar, partners, fit=fit, segment=segment, region=region, created=created)
    return Population(
        ids=ids,
        created=created,
        segment=segment,
        region=region,
        employees=employees,
        seats=seats,
        months=_draw_terms(random, segment),
        list_price=np.array([360.0, 540.0, 780.0])[segment] * random.lognormal(0.0, 0.12, n),
        discount=np.clip(random.normal(np.array([0.04, 0.12, 0.2])[segment], 0.06), 0.0, 0.4),
        in_euro=(region == 1) & (random.random(n) < 0.4),
        auto_renew=random.random(n) < 0.7,
        fit=fit,
        frailty=random.normal(size=n),
        sensitivity=np.array([1.3, 0.9, 0.6])[segment] * random.lognormal(-0.08, 0.4, n),
        intensity=random.lognormal(0.0, 0.35, n),
        growth=random.normal(0.05, 0.12, n),
        has_plan=random.random(n) < np.array([0.6, 0.85, 0.95])[segment],
        partner=first,
        moves_on=moves_on,
        next_partner=then,
        silent_from=_draw_silence(random, calendar, n),
        uploads_weekly=random.random(n) < 0.08,
        feature_order=np.argsort(random.random((n, n_advanced)), axis=1),
        table=_account_table(random, calendar, ids=ids, created=created, segment=segment, region=region, employees=employees),
    )


def _draw_terms(random: np.random.Generator, segment: Ints) -> Ints:
    upper = TERM_SHARES.cumsum(axis=1)[segment]
    terms: Ints = TERMS[(random.random((len(segment), 1)) > upper).sum(axis=1).clip(max=len(TERMS) - 1)]
    return terms


def _draw_silence(random: np.random.Generator, calendar: Calendar, n: int) -> Floats:
    kind = random.random(n)
    lost_on = random.uniform(0, calendar.days, n)
    return np.where(kind < 0.04, -np.inf, np.where(kind < 0.06, lost_on, np.inf))


def _assign(
    random: np.random.Generator,
    settings: WorldSettings,
    calendar: Calendar,
    partners: Partners,
    *,
    fit: Floats,
    segment: Ints,
    region: Ints,
    created: Ints,
) -> tuple[Ints, Floats, Ints]:
    n = settings.accounts
    ease = 0.9 * fit + np.array([-0.4, 0.2, 0.6])[segment]
    liking = np.log(partners.pull) + 1.7 * np.outer(ease, partners.ease) + 1.0 * (region[:, None] == partners.region)
    first = np.argmax(liking + random.gumbel(size=liking.shape), axis=1)
    then = np.argmax(liking + random.gumbel(size=liking.shape), axis=1)
    first = np.where(random.random(n) < 0.6, first, -1)
    then = np.where((random.random(n) < 0.25) & (first >= 0), -1, then)
    opened = np.maximum(created, 0)
    moves_on = np.where(random.random(n) < 0.12, np.floor(random.uniform(opened + 60, np.maximum(opened + 61, calendar.days))), np.inf)
    moves_on = np.where((moves_on >= calendar.days) | (first == then), np.inf, moves_on)
    return first, moves_on, then


def _account_table(
    random: np.random.Generator, calendar: Calendar, *, ids: list[str], created: Ints, segment: Ints, region: Ints, employees: Floats
) -> pa.Table:
    n = len(ids)
    csms = person_names()
    columns = {
        "account_id": ids,
        "created_at": calendar.instants(created),
        "name": company_names(random, n),
        "segment": Codes(segment, SEGMENTS),
        "industry": Codes(random.choice(len(INDUSTRIES), n), INDUSTRIES),
        "region": Codes(region, REGIONS),
        "employees": employees,
        "csm": Codes(random.choice(min(len(csms), max(2, n // 60)), n), csms),
    }
    return contract_table("accounts", columns)
