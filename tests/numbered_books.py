"""Telemetry of random worlds as pieces of a check, delivered in parts, and numbered after each delivery."""

import shutil

import pyarrow as pa
import pyarrow.compute as pc

from features import folding
from features.numbering import number_telemetry
from features.pieces import DELIVERY, DIGEST, PLACE, Manifest, PieceWriter
from tests.random_worlds import as_arrow


def make_all_forms(patch):
    """Let each numbered piece of single events have all shorter forms, be they short or not."""
    patch.setattr(folding, "_WORTH", 0)
    patch.setattr(folding, "_WORTH_WHOLE", 0)
    patch.setattr(folding, "_PLACES_A_ROW", 10**9)


def deliver(engine, world, numbers, folder):
    """Write the world's telemetry, of which row i came with delivery `numbers[i]`, as pieces in place of those that were there.

    There is a piece for each year and delivery: months would be many small files.
    """
    rows = as_arrow(world, "telemetry")
    rows = rows.append_column(DELIVERY, pa.array(numbers, pa.int32()))
    rows = rows.append_column(PLACE, pa.array(range(len(rows)), pa.int64())).append_column(DIGEST, pa.array(["-"] * len(rows)))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    writer = PieceWriter(engine, folder, next_piece=0)
    years = pc.year(rows["occurred_at"])
    for number in sorted(set(numbers)):
        for year in sorted(set(years.to_pylist())):
            part = rows.filter(pc.and_(pc.equal(rows[DELIVERY], number), pc.equal(years, year)))
            writer.add(engine.hold(part, name="delivered").order_by("known_at", PLACE), str(year))
    Manifest(
        mark="", columns={}, sources={}, deliveries=(), pieces=tuple(writer.pieces), next_delivery=0, next_piece=writer.next_piece
    ).write(folder)


def numbered(engine, world, numbers, folder):
    """Return numbered telemetry that was brought up to date after each delivery; None without any."""
    found = None
    for last in sorted(set(numbers)):
        came = [number <= last for number in numbers]
        so_far = world | {"telemetry": [row for row, is_here in zip(world["telemetry"], came, strict=True) if is_here]}
        deliver(engine, so_far, [number for number in numbers if number <= last], folder / "pieces")
        found = number_telemetry(folder / "pieces", folder / "numbered")
    return found
