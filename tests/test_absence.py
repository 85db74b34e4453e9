from datetime import timedelta

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from features.absence import SuppliedRows, features_without, supplied_features, supplied_rows
from features.engine import Engine
from features.slices import KnownTables
from features.snapshots import build_matrix
from tests.brute_force import is_known, is_taken_back, known_since
from tests.random_worlds import FULL, ORIGIN, as_arrow, as_spine, as_tables

CUTOFFS = (ORIGIN, ORIGIN - timedelta(days=91, microseconds=1))
WORLD = FULL.world()
CONTACTS = WORLD["engagement"]


COLUMNS = as_arrow(WORLD, "engagement").column_names
WANTED = {"contacts_28d", "contacts_partner_182d", "nps_last", "days_since_contact", "people_met_91d", "events_28d"}
CATALOGUE = supplied_features(COLUMNS, WANTED)


def test_only_features_that_rows_of_engagement_feed_are_computed_again():
    assert set(CATALOGUE.names) == WANTED - {"events_28d"}
    assert "people_met_91d" not in supplied_features({"source"}, WANTED)


@pytest.mark.parametrize("cutoff", CUTOFFS)
def test_supplied_rows_are_counted_as_they_were_known(cutoff):
    with Engine() as engine:
        found = supplied_rows(engine, as_tables(engine, WORLD), cutoff=cutoff)
    known = [row for row in CONTACTS if is_known("engagement", row, cutoff) and not is_taken_back(row, cutoff) and row["source"] == "p1"]
    expected = []
    for account in sorted({row["account_id"] for row in known}):
        since = [known_since("engagement", row) for row in known if row["account_id"] == account]
        expected.append(SuppliedRows(account_id=account, partner_id="p1", rows=len(since), first_known_at=min(since)))
    assert list(found) == expected
    assert expected


def test_without_sources_or_partners_nobody_supplied_anything():
    with Engine() as engine:
        tables = as_tables(engine, WORLD)
        assert supplied_rows(engine, {name: table for name, table in tables.items() if name != "assignments"}, cutoff=ORIGIN) == ()
        assert supplied_rows(engine, tables | {"engagement": tables["engagement"].drop("source")}, cutoff=ORIGIN) == ()
        assert supplied_rows(engine, {"accounts": tables["accounts"]}, cutoff=ORIGIN) == ()


@pytest.mark.parametrize("cutoff", CUTOFFS)
def test_features_are_those_of_a_table_in_which_the_rows_never_were(cutoff):
    accounts = sorted({row["account_id"] for row in CONTACTS})
    pairs = [(account, partner) for account in accounts for partner in ("p1", "vendor", "p2")]
    with Engine() as engine:
        found = features_without(engine, as_tables(engine, WORLD)["engagement"], pairs, cutoff=cutoff, catalogue=CATALOGUE)
    assert found.column_names == list(CATALOGUE.names)
    for number, partner in enumerate(("p1", "vendor", "p2")):
        rest = WORLD | {"engagement": [row for row in CONTACTS if row["source"] != partner]}
        spine = as_spine([(account, cutoff) for account in accounts])
        with Engine() as engine:
            twin = build_matrix(KnownTables(engine, as_tables(engine, rest), spine), spine, CATALOGUE).select(list(CATALOGUE.names))
        assert found.take(pa.array(range(number, len(pairs), 3))).equals(twin), partner
    assert not found.take(pa.array(range(0, len(pairs), 3))).equals(found.take(pa.array(range(2, len(pairs), 3))))
    assert pc.sum(found["contacts_28d"]).as_py() is not None
