"""Exact parts of raw scores by looking them up, many times faster than by walking the trees.

The parts are those of TreeSHAP, path-dependent, as `training.explanation` has them from LightGBM; `training.boughs` says how they are
tabulated. A few rows are explained one after the other, many rows in blocks. Either way the numbers are summed in the order of the trees,
so a row has the same numbers to the last bit.

Shallow trees only: the tables grow with `2**d`, where `d` is the number of features on a path. Values are finite or missing.
"""

from dataclasses import dataclass, field

import lightgbm as lgb
import numpy as np
import numpy.typing as npt

from training.boughs import DEEPEST, boughs_of, tabulated
from training.column_tables import ColumnTables
from training.leaves import leaves_of, read_trees
from training.row_tables import RowTables

__all__ = ["LeafTables", "leaf_tables"]

Array = npt.NDArray[np.float64]

_LARGEST = 4_000_000
"""Numbers that the tables may hold: 32 MB."""

_FEW = 256
"""From so many rows on, blocks are faster than rows one by one."""


@dataclass(frozen=True, eq=False)
class LeafTables:
    """A model's boughs and their tables, ready for lookups.

    Parameters
    ----------
    base
        The average raw score.
    rows, columns
        The same tables, laid out for a few rows and for many.
    """

    base: float
    rows: RowTables = field(repr=False)
    columns: ColumnTables = field(repr=False)

    def explain(self, matrix: Array, *, threads: int = 1) -> tuple[Array, Array]:
        """Return the raw scores `(n,)` and their parts `(n, n_features + 1)`, the base last, of encoded rows `(n, n_features)`.

        The raw scores are LightGBM's to the last bit. A row's numbers do not depend on the rows beside it.

        Parameters
        ----------
        threads
            How many blocks of rows are worked on at a time.
        """
        if len(matrix) < _FEW:
            totals = np.array([self.rows.totals(values) for values in matrix]).reshape(-1, matrix.shape[1] + 1)
        else:
            totals = self.columns.totals(matrix, threads=threads)
        raw = totals[:, -1].copy()
        totals[:, -1] = self.base
        return raw, totals


def leaf_tables(booster: lgb.Booster) -> LeafTables | None:
    """Tabulate a model's boughs; None if its trees are too deep or treat zero as missing.

    Parameters
    ----------
    booster
        A model without linear trees.
    """
    trees = read_trees(booster)
    if not trees:
        return None
    leaves = [leaf for tree in trees for leaf in leaves_of(tree)]
    if max(len(leaf.questions) for leaf in leaves) > DEEPEST:
        return None
    boughs = [bough for tree in trees for bough in boughs_of(tree)]
    if sum(bough.numbers for bough in boughs) > _LARGEST:
        return None
    table = tabulated(boughs)
    features = booster.num_feature()
    base = float(np.asarray(booster.predict(np.zeros((1, features)), pred_contrib=True, num_threads=1))[0, -1])
    return LeafTables(base, RowTables.of(boughs, table, features), ColumnTables.of(boughs, table, features))
