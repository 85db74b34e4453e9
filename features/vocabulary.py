"""The vocabulary of numbered telemetry: which number each account, user, kind of event and product has.

A text's number is its place among those that came before; numbers are given once and never change. A user is numbered within its account.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.forms import TEXTS
from features.numbered import in_order

__all__ = ["Vocabulary"]

Numbers = npt.NDArray[np.int32]

_ASIDE = "\x1f"
_SHARDS = 64
"""Users lie in so many parts, by account: that the hash table of a part fits into a processor's cache halves the time of looking up."""


class Vocabulary:
    """The texts that have numbers."""

    def __init__(self) -> None:
        self._accounts = pa.array([], pa.string())
        self._users = _Users()
        self._texts = {name: pa.array([], pa.string()) for name in TEXTS}
        self._written = {"accounts": 0, "users": 0}

    @classmethod
    def read(cls, folder: Path, texts: Mapping[str, Sequence[str]]) -> "Vocabulary":
        """Read what was numbered before; the kinds of event and the products are given."""
        found = cls()
        found._accounts = in_order(folder, "accounts")["account_id"].combine_chunks()
        users = in_order(folder, "users")
        account = np.asarray(users["account"].combine_chunks().to_numpy(), dtype=np.int32)
        found._users.numbers_of(account, users["user_id"].combine_chunks())
        found._texts = {name: pa.array(words, pa.string()) for name, words in texts.items()}
        found._written = {"accounts": len(found._accounts), "users": len(found._users)}
        return found

    @property
    def texts(self) -> dict[str, tuple[str, ...]]:
        """The kinds of event and the products by their numbers."""
        return {name: tuple(texts.to_pylist()) for name, texts in self._texts.items()}

    @staticmethod
    def files(folder: Path) -> Iterable[Path]:
        """Return the files of accounts and users."""
        return [file for name in ("accounts", "users") for file in sorted(folder.glob(f"{name}-*.parquet"))]

    def write(self, folder: Path) -> None:
        """Write the accounts and users that are new, even if there are none at all yet."""
        n_accounts, n_users = self._written["accounts"], self._written["users"]
        accounts, users = self._accounts[n_accounts:], self._users.since(n_users)
        if len(accounts) or not n_accounts:
            numbers = pa.array(np.arange(n_accounts, n_accounts + len(accounts), dtype=np.int32))
            pq.write_table(pa.table({"account_id": accounts, "number": numbers}), folder / f"accounts-{n_accounts:010}.parquet")
        if len(users) or not n_users:
            pq.write_table(users, folder / f"users-{n_users:010}.parquet")

    def of_accounts(self, found: pa.Array) -> Numbers:
        """Return the numbers of different accounts."""
        numbers, self._accounts = _looked_up(found, self._accounts)
        return numbers

    def of_texts(self, name: str, found: pa.Array) -> Numbers:
        """Return the numbers of different kinds of event or products, and -1 after them."""
        numbers, self._texts[name] = _looked_up(found, self._texts[name])
        return numbers

    def of_users(self, blocks: Sequence[tuple[Numbers, Numbers]], found: pa.Array) -> list[Numbers]:
        """Return the number of each row's user, -1 without one.

        Parameters
        ----------
        blocks
            The number of each row's account, and the place of its user's name among the different names, -1 without one.
        found
            The names.
        """
        account_of = np.full(len(found) + 1, -1, dtype=np.int32)
        for account, code in blocks:
            account_of[code] = account
        if any(np.any((account_of[code] != account) & (code >= 0)) for account, code in blocks):
            return self._of_shared_names(blocks, found)
        numbers = np.append(self._users.numbers_of(account_of[:-1], found), np.int32(-1))
        return [numbers[code] for _, code in blocks]

    def _of_shared_names(self, blocks: Sequence[tuple[Numbers, Numbers]], found: pa.Array) -> list[Numbers]:
        """Do as `of_users` where users of several accounts have the same name."""
        account, code = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
        named = code >= 0
        pairs, place = np.unique(account[named].astype(np.int64) * len(found) + code[named], return_inverse=True)
        names = found.take(pa.array(pairs % len(found)))
        numbers = self._users.numbers_of((pairs // len(found)).astype(np.int32), names)
        every = np.full(len(code), -1, dtype=np.int32)
        every[named] = numbers[place]
        return np.split(every, np.cumsum([len(code) for _, code in blocks])[:-1])


class _Users:
    """The users' numbers, by the account's number and the user's name."""

    def __init__(self) -> None:
        self._shards = [_Shard(pa.array([], pa.string()), np.zeros(0, dtype=np.int32))] * _SHARDS
        self._accounts: list[Numbers] = []
        self._names: list[pa.Array] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def since(self, first: int) -> pa.Table:
        """Return the users from a number on, in the order of their numbers: `account`, `user_id` and `number`."""
        accounts = np.concatenate([np.zeros(0, dtype=np.int32), *self._accounts])
        names = pa.chunked_array(self._names, pa.string())
        numbers = np.arange(first, self._count, dtype=np.int32)
        return pa.table({"account": pa.array(accounts[first:]), "user_id": names[first:], "number": pa.array(numbers)})

    def numbers_of(self, account: Numbers, name: pa.Array) -> Numbers:
        """Return the numbers of different users; those who are new get the next ones, in the order in which they come."""
        shard = (account % _SHARDS).astype(np.uint8)
        order = np.argsort(shard, kind="stable")
        paired = pc.binary_join_element_wise(pa.array(account).cast(pa.string()), name, _ASIDE).take(pa.array(order))
        stretches = [slice(*bounds) for bounds in pairwise(np.searchsorted(shard[order], np.arange(_SHARDS + 1)).tolist())]
        found = np.concatenate([known.numbers_of(paired[part]) for known, part in zip(self._shards, stretches, strict=True)])
        numbers = np.empty(len(account), dtype=np.int32)
        numbers[order] = found
        new = np.flatnonzero(numbers < 0)
        numbers[new] = np.arange(self._count, self._count + len(new))
        self._count += len(new)
        self._accounts.append(account[new])
        self._names.append(name.take(pa.array(new)))
        if len(new):
            parts = [(paired[part], numbers[order[part]], found[part] < 0) for part in stretches]
            self._shards = [known.with_new(*part) for known, part in zip(self._shards, parts, strict=True)]
        return numbers


@dataclass(frozen=True, eq=False)
class _Shard:
    """Some users: texts, and the number of each."""

    texts: pa.Array
    numbers: Numbers

    def numbers_of(self, texts: pa.Array) -> Numbers:
        """Return the number of each text, -1 for those that are not there."""
        places = pc.index_in(texts, value_set=self.texts).fill_null(-1).to_numpy()
        return np.asarray(np.append(self.numbers, np.int32(-1))[places])

    def with_new(self, texts: pa.Array, numbers: Numbers, is_new: npt.NDArray[np.bool_]) -> "_Shard":
        """Return the shard with those texts added that are new."""
        return _Shard(pa.concat_arrays([self.texts, texts.filter(pa.array(is_new))]), np.concatenate([self.numbers, numbers[is_new]]))


def _looked_up(found: pa.Array, known: pa.Array) -> tuple[Numbers, pa.Array]:
    """Return the number of each of these different texts, and -1 after them, and all texts, the new ones in their order at the end."""
    numbers = np.append(pc.index_in(found, value_set=known).fill_null(-1).to_numpy(), np.int32(-1))
    new = np.flatnonzero(numbers[:-1] < 0)
    if len(new):
        new = new[pc.sort_indices(found.take(pa.array(new))).to_numpy()]
        numbers[new] = np.arange(len(known), len(known) + len(new))
        known = pa.concat_arrays([known, found.take(pa.array(new))])
    return numbers, known
