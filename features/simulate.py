"""Make a world of a vendor, its partners and their customers, with the truth beside the tables.

The process is written down where it is computed:

- `features.world_population`: partners and accounts, and who gets whom;
- `features.world_course`: health, people, support, value, trainings, plays and prices, week by week;
- `features.world_hazard`: every term of the hazard, and what *true* and *observable* mean;
- `features.world_contracts`: terms, renewals, seats, early exits and how they are booked;
- `features.world_telemetry`, `features.world_contacts`: what of all this the tables show, when, and what they miss.

With `signal=0` every account leaves, grows and shrinks at a constant rate, whatever it does and whenever its term ends: nothing that a
model finds in such a world is there.

But: prices are in two currencies at one fixed rate, no account comes back, nobody has two products, and the survivors of the years before
the period are all that is known of them.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features.errors import WorkspaceError, explain
from features.workspace import Workspace, load_workspace
from features.world import Calendar, Truth, World, WorldSettings, coded
from features.world_contacts import assignment_table, engagement_table, outcome_table, play_table, ticket_table
from features.world_contracts import EURO_RATE
from features.world_course import ADVANCED_FEATURES, PLAY_EFFECTS, PLAY_FADING, Course, run_course
from features.world_hazard import CHURN_CAUSES, hazard_table
from features.world_population import Partners, Population, draw_partners, draw_population
from features.world_telemetry import telemetry_table

__all__ = ["Truth", "World", "WorldSettings", "simulate", "simulate_workspace", "write_world"]


def simulate(settings: WorldSettings) -> World:
    """Make a world; the same settings give the same world.

    Examples
    --------
    >>> world = simulate(WorldSettings(accounts=20, partners=2, months=6))
    >>> world.tables["accounts"].num_rows, sorted(world.tables)[:3]
    (20, ['accounts', 'assignments', 'engagement'])
    """
    calendar = Calendar.of(settings)
    partners = draw_partners(settings)
    population = draw_population(settings, calendar, partners, n_advanced=ADVANCED_FEATURES)
    course = run_course(settings, calendar, population, partners)
    tables = {
        "accounts": population.table,
        "telemetry": telemetry_table(settings, calendar, population, course),
        "subscriptions": course.book.table(),
        "engagement": engagement_table(settings, calendar, population, partners, course),
        "tickets": ticket_table(settings, calendar, population, course),
        "partners": partners.table,
        "assignments": assignment_table(calendar, population, partners, course),
        "outcomes": outcome_table(settings, calendar, population, partners, course),
        "plays": play_table(settings, calendar, population, partners, course),
    }
    return World(settings, tables, _truth(settings, calendar, population, partners, course))


def _truth(settings: WorldSettings, calendar: Calendar, population: Population, partners: Partners, course: Course) -> Truth:
    left = course.gone <= calendar.days
    churns = {
        "account_id": population.ids,
        "churned_at": calendar.instants(np.where(left, course.gone, np.nan)),
        "cause": coded(course.cause, CHURN_CAUSES),
        "at_renewal": pa.array(course.at_renewal, mask=~left),
    }
    plays = {
        "play": list(PLAY_EFFECTS),
        "log_hazard_effect": -settings.signal * np.array(list(PLAY_EFFECTS.values())),
        "fading_per_week": np.full(len(PLAY_EFFECTS), PLAY_FADING),
    }
    return Truth(
        hazards=hazard_table(calendar, population, course.outlooks(calendar, population), signal=settings.signal),
        churns=pa.table(churns),
        partners=pa.table({"partner_id": partners.ids, "skill": partners.skill, "ease": partners.ease}),
        plays=pa.table(plays),
    )


def write_world(world: World, folder: Path) -> None:
    """Write a workspace: `tables/*.parquet`, a commented `renewcast.toml` that maps them, and `truth/*.parquet` beside."""
    for place, tables in (("tables", world.tables), ("truth", vars(world.truth))):
        (folder / place).mkdir(parents=True, exist_ok=True)
        for name, table in tables.items():
            pq.write_table(table, folder / place / f"{name}.parquet")
    end = Calendar.of(world.settings)
    until = end.start + np.timedelta64(end.days, "D")
    sources = "\n".join(f'[tables.{name}]\nsource = "tables/{name}.parquet"\n' for name in world.tables)
    (folder / "renewcast.toml").write_text(_CONFIG.format(until=until, euro=EURO_RATE, sources=sources), encoding="utf-8")


def simulate_workspace(folder: Path | str, settings: WorldSettings | None = None) -> Workspace:
    """Make a world, write it to a folder and open it as a workspace.

    Raises
    ------
    WorkspaceError
        If there is something in the folder already.
    """
    target = Path(folder)
    if target.exists() and any(target.iterdir()):
        raise WorkspaceError(
            explain("there is something else where the simulated book would be made", given=target, todo="Name a new folder.")
        )
    write_world(simulate(settings or WorldSettings()), target)
    return load_workspace(target)


_CONFIG = """\
# A simulated book. To use your own tables, change the sources below and say how their columns are called.

[workspace]
name = "Simulated book"
currency = "USD"              # reports and arr are in it
data_until = {until}       # the tables are complete until then

[currencies]                  # fixed rates to the workspace's currency
EUR = {euro}

# The tables. A source is a file, a glob or a folder, seen from this file; the columns here already have the names that Renewcast
# uses, so none is mapped. A column that is called otherwise is mapped like this:
#
#   [tables.telemetry.columns]
#   event = "event_type"                   # a column of the source
#   arr = {{ sql = "mrr * 12" }}             # SQL over the source's columns
#   currency = {{ constant = "USD" }}        # the same for all rows

{sources}
[targets]
kind = "subscription"         # or "usage", where there are no contracts
horizon_days = 90             # churn, growth and shrinking within that many days after a cutoff

[cutoffs]
every = "month"               # or "week", "renewal", {{ days = 14 }}
"""
