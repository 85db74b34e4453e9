"""Writing a score set: the book is explained window by window, and what belongs to the set is put into its folder before it is sealed."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from features.feature import Target
from features.ledger import fingerprint
from features.progress import Progress, silent
from serving.permissions.partner_facts import PartnerRow
from serving.scores.book_files import BookFiles
from serving.scores.fragments import PATTERN
from serving.scores.score_files import ColumnWriter, keep_newest, make_current, peer_columns, publishing, write_columns
from serving.scores.scoring import BASE, Manifest, ScoreSet, manifest_json
from serving.scores.windows import bounds
from training.package import Package, Scores

__all__ = ["Draft", "drafted", "explain_book", "publish", "write_score_set"]

_SETS_WITH_PIECES = 2
"""How many score sets keep their accounts as JSON: the current one, and the one before it for workers that still read it."""

_PARTNERS = pa.schema([(each.name, pa.string()) for each in fields(PartnerRow)])


@dataclass(frozen=True)
class Draft:
    """A score set in the making.

    Parameters
    ----------
    scored_at
        UTC.
    said
        What its manifest is to say; it is filled in before the end.
    """

    version: str
    scored_at: datetime
    folder: Path
    said: dict[str, Any]

    def say(self, manifest: Manifest) -> None:
        """Settle what the manifest says."""
        self.said.update(manifest_json(manifest))


@contextmanager
def drafted(scores: Path, packages: Mapping[Target, Package], *, at: datetime) -> Iterator[Draft]:
    """Make the folder of a new score set below the folder `scores`, and seal it when the block ends; if it raises, nothing is left."""
    said: dict[str, Any] = {}
    version = f"{at:%Y%m%dT%H%M%S%f}-{fingerprint([package.hash for package in packages.values()])[:8]}"
    with publishing(scores, version, lambda: said, unsealed=PATTERN) as folder:
        yield Draft(version, at, folder, said)


def publish(scores: Path, version: str, *, keep: int) -> None:
    """Make a sealed score set the current one, and remove old ones; `keep` of them stay."""
    make_current(scores, version)
    keep_newest(scores, sets=keep, pieces=_SETS_WITH_PIECES, pattern=PATTERN)


def explain_book(
    packages: Mapping[Target, Package], book: BookFiles, folder: Path, *, threads: int, on_progress: Progress = silent
) -> dict[Target, Scores]:
    """Score a book, write the exact parts of each raw score to `parts-<target>.parquet`, and return the scores.

    In each window a sample of the parts is compared with LightGBM's own. Models with deep trees have no tables to look their parts up in:
    they are walked tree by tree, which takes many times as long, and the progress says so.

    Raises
    ------
    PackageError
        If a part is not LightGBM's, or the parts of a row do not add up to its score.
    """
    found: dict[Target, list[Scores]] = {target: [] for target in packages}
    spans, walked = bounds(len(book.account_ids)), [target for target, package in packages.items() if package.tables is None]
    what = f"explanations ({', '.join(walked)}: deep trees, slow)" if walked else "explanations"
    with ExitStack() as files:
        writers = {target: files.enter_context(_parts_writer(folder, target, package)) for target, package in packages.items()}
        for done, (start, stop) in enumerate(spans, 1):
            frame = pd.DataFrame(book.values.rows(start, stop))
            for target, package in packages.items():
                scores, parts = package.score_book(frame, threads=threads)
                writers[target].write(dict(zip((*package.features, BASE), parts.T, strict=True)))
                found[target].append(scores)
            on_progress(what, done, len(spans))
    return {target: _joined(scores) for target, scores in found.items()}


def write_score_set(score_set: ScoreSet, folder: Path) -> None:
    """Write what a score set holds beside the values and the parts, which are there already."""
    write_columns(folder / "accounts.parquet", score_set.accounts)
    write_columns(folder / "peers.parquet", peer_columns(score_set.peers, score_set.peer_counts))
    write_columns(folder / "assignments.parquet", score_set.assignments.columns())
    write_columns(folder / "supplied_by.parquet", score_set.supplies.columns())
    partners = [asdict(partner) for partner in score_set.partners.values()]
    pq.write_table(pa.Table.from_pylist(partners, schema=_PARTNERS), folder / "partners.parquet")
    for target, package in score_set.packages.items():
        package.save(folder / "packages" / target)


def _parts_writer(folder: Path, target: Target, package: Package) -> ColumnWriter:
    return ColumnWriter(folder / f"parts-{target}.parquet", dict.fromkeys((*package.features, BASE), False))


def _joined(scores: list[Scores]) -> Scores:
    raw, probability = (np.concatenate([getattr(one, name) for one in scores]) for name in ("raw", "probability"))
    return Scores(raw=raw, probability=probability)
