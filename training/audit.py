"""The audit of one target: what in its rows, and in how well a model did on them, looks too good or too odd to be true.

The matrix alone is looked at here; what the tables show was found when the snapshots were made (`features.probes`). Each suspicion has
one probe, and features of one cause are one finding.
"""

import numpy as np
import numpy.typing as npt

from features.catalogue import Catalogue
from features.feature import Target
from features.findings import Audit, Finding, listed
from training.dataset import Dataset, Encoded
from training.evaluation import Estimate
from training.giveaways import ALONE, LEAVING, SUBSET, AuditedRows, find_giveaways
from training.screening import MISSING, Bins, jumps

__all__ = ["audit_target"]

SUDDEN = "a feature that changes suddenly"
CEILING = "a model that is too good"
CONSTANT = "a feature that is always the same"

_PROBES = {
    ALONE: "the AUC of each feature by itself, in any shape, with missing values as a value",
    SUBSET: "values, ranges and missing values of each feature that occur almost only with positives",
    LEAVING: "whether a feature orders those who leave by the day on which they do, other than by contract",
    SUDDEN: "whether values or missing values of a feature jump within the test period or at its start",
    CEILING: "whether the model beats what such models reach",
    CONSTANT: "whether a feature has one value in all rows",
}

_JUMP, _TIMES_USUAL = 0.3, 3.0
"""A jump moves such a share of the rows, and so many times what usually moves from one block of rows to the next."""
_BLOCKS, _BLOCK_ROWS = 12, 300


def audit_target(
    data: Dataset,
    encoded: Encoded,
    catalogue: Catalogue,
    target: Target,
    *,
    first_test: np.datetime64,
    judged: Estimate,
    plausible_auc: float,
) -> Audit:
    """Look for leaks in the labelled rows of one target, and in how well its model did; leaks come first.

    Parameters
    ----------
    data
        All labelled rows.
    encoded
        The same rows, with every level that occurs in them.
    first_test
        The first cutoff on which the model was judged.
    judged
        The model's AUC on rows that it had not seen, with its interval.
    plausible_auc
        The AUC that no honest model is expected to pass.
    """
    rows = AuditedRows(data, encoded, catalogue, target, plausible_auc)
    found = (*find_giveaways(rows), *_sudden(rows, first_test), *_ceiling(rows, judged), *_constant(rows))
    return Audit(probes=_PROBES).joined(Audit(found))


def _sudden(rows: AuditedRows, first_test: np.datetime64) -> list[Finding]:
    """Name features of which the values jump from one block of rows to the next, at the start of the test period or in it, and stay there.

    Features of one table that jump at one time are one finding. What drifts from month to month is not named.
    """
    block, starts, first = _blocks(rows.data.cutoff, first_test)
    if not 0 < first < len(starts) or len(starts) < 4:
        return []
    distance = jumps(rows.bins, block)
    jumping = (distance >= _JUMP) & (distance >= _TIMES_USUAL * np.median(distance, axis=1, keepdims=True))
    jumping[:, : first - 1] = False
    causes: dict[tuple[int, str], list[int]] = {}
    for border in np.flatnonzero(jumping.any(axis=0)).tolist():
        for place in np.flatnonzero(jumping[:, border] & (_lasting(rows.bins, block, border) >= _JUMP)).tolist():
            tables = rows.tables(rows.catalogue.names[place])
            causes.setdefault((border, ", ".join(sorted(tables)) or rows.catalogue.names[place]), []).append(place)
    return [_sudden_finding(rows, block, border, places, starts[border + 1]) for (border, _), places in causes.items()]


def _blocks(cutoff: npt.NDArray[np.datetime64], first_test: np.datetime64) -> tuple[npt.NDArray[np.intp], list[np.datetime64], int]:
    """Cut rows into blocks of neighbouring cutoffs, none across the start of the test period.

    Returns
    -------
    The number of each row's block `(n,)`, the cutoff at which each block starts, and the number of the first block of the test period.
    """
    cutoffs, place, counts = np.unique(cutoff, return_inverse=True, return_counts=True)
    size = max(_BLOCK_ROWS, -(-len(cutoff) // _BLOCKS))
    border = int(np.searchsorted(cutoffs, first_test))
    earlier, later = (_numbered(part, size) for part in (counts[:border], counts[border:]))
    first = int(earlier.max(initial=-1)) + 1
    number = np.concatenate([earlier, first + later])
    starts = [cutoffs[int(np.argmax(number == block))] for block in range(int(number.max()) + 1)]
    return number[place], starts, first


def _numbered(counts: npt.NDArray[np.intp], size: int) -> npt.NDArray[np.intp]:
    """Return the number of each cutoff's block, given its rows: a block has about `size` of them, or a few more."""
    blocks = np.minimum((np.cumsum(counts) - counts) // size, max(int(counts.sum()) // size, 1) - 1)
    return np.unique(blocks, return_inverse=True)[1]


def _lasting(bins: Bins, block: npt.NDArray[np.intp], border: int) -> npt.NDArray[np.float64]:
    """Return how much each feature differs between the three blocks before a border and the three after it."""
    near = (block > border - 3) & (block <= border + 3)
    return jumps(Bins(bins.code[near], bins.limits), (block[near] > border).astype(np.intp))[:, 0]


def _sudden_finding(rows: AuditedRows, block: npt.NDArray[np.intp], border: int, places: list[int], start: np.datetime64) -> Finding:
    names = [rows.catalogue.names[place] for place in places]
    missing = rows.bins.code[:, places[0]] == MISSING
    before, after = float(missing[block == border].mean()), float(missing[block == border + 1].mean())
    gone = f"; missing in {before:.0%} of the rows before and {after:.0%} after" if abs(after - before) > 0.1 else ""
    return Finding(
        probe=SUDDEN,
        severity="look at",
        subject=listed(names, at_most=3),
        message=(
            f"{names[0]}{f' and {len(names) - 1} more features' if names[1:] else ''} changed suddenly at {start.astype('M8[D]')}{gone}. "
            "What was learnt before may not hold after."
        ),
        todo="Look at what changed in the source at that time; if it was the recording, begin after it or leave the column out.",
        evidence={"features": len(names), "missing_before": before, "missing_after": after},
    )


def _ceiling(rows: AuditedRows, judged: Estimate) -> list[Finding]:
    """Doubt a model that is better than such models are; if all of its interval is, call it a leak."""
    if judged.value <= rows.plausible_auc:
        return []
    best = [rows.catalogue.names[place] for place in np.argsort(-rows.auc)[:3]]
    low = judged.value if judged.low is None else judged.low
    return [
        Finding(
            probe=CEILING,
            severity="leak" if low > rows.plausible_auc else "look at",
            subject=f"model of {rows.target}",
            message=(
                f"Its AUC on later rows is {judged.value:.3f} (from {low:.3f}), above the {rows.plausible_auc:.2f} that an honest model is "
                f"not expected to pass. The best features alone are {', '.join(best)}."
            ),
            todo=f"Search for what knows the outcome; if all is honest, raise {rows.target} in [training.plausible_auc].",
            evidence={"auc": judged.value, "auc_low": low, "plausible_auc": rows.plausible_auc},
        )
    ]


def _constant(rows: AuditedRows) -> list[Finding]:
    """List the features that have one value, or none, in all rows."""
    first = rows.matrix[:1]
    same = ((rows.matrix == first) | (np.isnan(rows.matrix) & np.isnan(first))).all(axis=0)
    names = [name for name, constant in zip(rows.catalogue.names, same, strict=True) if constant]
    if not names:
        return []
    return [
        Finding(
            probe=CONSTANT,
            severity="look at",
            subject=listed(names, at_most=3),
            message=f"The same value in all rows, or none: {listed(names, at_most=10)}.",
            todo="See that the columns behind are mapped to what they should be; if they are, nothing is wrong.",
            evidence={"features": len(names)},
        )
    ]
