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
_FEW = 8
"""How many times as many users there are as are looked up where no tables are made."""


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
        found._users.add(account, users["user_id"].combine_chunks())
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
    """The users' numbers, by the account's number and the user's name.

    Hash tables are made of those only that many are looked up among. A few are looked for the other way round, in one pass over those
    that are in no table: a day's users are a small part of all, and making tables of all costs more than the rest of a day's numbering.
    """

    def __init__(self) -> None:
        self._shards = [_Shard(pa.array([], pa.string()), np.zeros(0, dtype=np.int32))] * _SHARDS
        self._in_shards = 0
        self._beside_shards: list[tuple[Numbers, pa.Array]] = []
        self._accounts: list[Numbers] = [np.zeros(0, dtype=np.int32)]
        self._names: list[pa.Array] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def since(self, first: int) -> pa.Table:
        """Return the users from a number on, in the order of their numbers: `account`, `user_id` and `number`."""
        accounts, names = np.concatenate(self._accounts)[first:], pa.chunked_array(self._names, pa.string())[first:]
        return pa.table({"account": accounts, "user_id": names, "number": np.arange(first, self._count, dtype=np.int32)})

    def add(self, account: Numbers, name: pa.Array) -> None:
        """Give the next numbers to different users who have none."""
        if not len(account):
            return
        self._count += len(account)
        self._accounts.append(account)
        self._names.append(name)
        self._beside_shards.append((account, name))

    def numbers_of(self, account: Numbers, name: pa.Array) -> Numbers:
        """Return the numbers of different users; those who are new get the next ones, in the order in which they come."""
        if len(name) * _FEW > self._count - self._in_shards:
            self._fill_shards()
        numbers = self._in_tables(account, name) if self._in_shards else np.full(len(name), -1, dtype=np.int32)
        if self._beside_shards:
            numbers = np.maximum(numbers, self._beside_tables(account, name))
        new = np.flatnonzero(numbers < 0)
        numbers[new] = np.arange(self._count, self._count + len(new))
        self.add(account[new], name.take(pa.array(new)))
        return numbers

    def _in_tables(self, account: Numbers, name: pa.Array) -> Numbers:
        order, texts = _by_shard(account, name)
        numbers = np.empty(len(name), dtype=np.int32)
        numbers[order] = np.concatenate([known.numbers_of(some) for known, some in zip(self._shards, texts, strict=True)])
        return numbers

    def _beside_tables(self, account: Numbers, name: pa.Array) -> Numbers:
        """Return the numbers of those of the users who are in no table, -1 for others; each of these is looked up among the few."""
        names = pc.unique(name)
        asked = account.astype(np.int64) * len(names) + pc.index_in(name, value_set=names).to_numpy()
        order = np.argsort(asked)
        numbers, first = np.full(len(name), -1, dtype=np.int32), self._in_shards
        for known_account, known_name in self._beside_shards:
            place = pc.index_in(known_name, value_set=names).fill_null(-1).to_numpy()
            alike = np.flatnonzero(place >= 0)
            known = known_account[alike].astype(np.int64) * len(names) + place[alike]
            at = order[np.minimum(np.searchsorted(asked, known, sorter=order), len(order) - 1)]
            is_same = asked[at] == known
            numbers[at[is_same]] = first + alike[is_same]
            first += len(known_name)
        return numbers

    def _fill_shards(self) -> None:
        for account, name in self._beside_shards:
            order, texts = _by_shard(account, name)
            numbers = np.split((self._in_shards + order).astype(np.int32), np.cumsum([len(some) for some in texts])[:-1])
            self._shards = [known.with_new(*new) for known, *new in zip(self._shards, texts, numbers, strict=True)]
            self._in_shards += len(name)
        self._beside_shards = []


def _by_shard(account: Numbers, name: pa.Array) -> tuple[npt.NDArray[np.int64], list[pa.Array]]:
    """Return the order in which users of one shard come together, and in it, for each shard, a text for each user that no other has."""
    shard = (account % _SHARDS).astype(np.uint8)
    order = np.argsort(shard, kind="stable")
    texts = pc.binary_join_element_wise(pa.array(account).cast(pa.string()), name, _ASIDE).take(pa.array(order))
    bounds = np.searchsorted(shard[order], np.arange(_SHARDS + 1)).tolist()
    return order, [texts[start:stop] for start, stop in pairwise(bounds)]


@dataclass(frozen=True, eq=False)
class _Shard:
    """Some users: texts, and the number of each."""

    texts: pa.Array
    numbers: Numbers

    def numbers_of(self, texts: pa.Array) -> Numbers:
        """Return the number of each text, -1 for those that are not there."""
        places = pc.index_in(texts, value_set=self.texts).fill_null(-1).to_numpy()
        return np.asarray(np.append(self.numbers, np.int32(-1))[places])

    def with_new(self, texts: pa.Array, numbers: Numbers) -> "_Shard":
        """Return the shard with those added that are new."""
        return _Shard(pa.concat_arrays([self.texts, texts]), np.concatenate([self.numbers, numbers]))


def _looked_up(found: pa.Array, known: pa.Array) -> tuple[Numbers, pa.Array]:
    """Return the number of each of these different texts, and -1 after them, and all texts, the new ones in their order at the end."""
    numbers = np.append(pc.index_in(found, value_set=known).fill_null(-1).to_numpy(), np.int32(-1))
    new = np.flatnonzero(numbers[:-1] < 0)
    if len(new):
        new = new[pc.sort_indices(found.take(pa.array(new))).to_numpy()]
        numbers[new] = np.arange(len(known), len(known) + len(new))
        known = pa.concat_arrays([known, found.take(pa.array(new))])
    return numbers, known
