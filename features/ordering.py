"""Ordering: the order of rows by whole numbers."""

import numpy as np
import numpy.typing as npt

__all__ = ["sorted_rows"]

Ints = npt.NDArray[np.int64]


def sorted_rows(keys: Ints) -> tuple[Ints, Ints]:
    """Return rows and keys in the order of the keys, none of which is below 0, rows of equal keys as they stand.

    The array of keys is used up.

    Examples
    --------
    >>> rows, keys = sorted_rows(np.array([7, 0, 7, 3]))
    >>> rows.tolist(), keys.tolist()
    ([1, 3, 0, 2], [0, 3, 7, 7])
    """
    bits = max(1, len(keys).bit_length())
    if len(keys) and int(keys.max()) >= 1 << (63 - bits):
        rows = np.argsort(keys, kind="stable")
        return rows, keys[rows]
    packed = np.left_shift(keys, bits, out=keys)  # sorting numbers is several times faster than sorting positions by them
    packed |= np.arange(len(packed))
    packed.sort()
    rows = packed & ((1 << bits) - 1)
    return rows, np.right_shift(packed, bits, out=packed)
