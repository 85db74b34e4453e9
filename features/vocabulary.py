"""The vocabulary of numbered telemetry: which number each account, user, kind of event and product has.

A text's number is its place among those that came before; numbers are given once and never change. A user is numbered within its account.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.forms import TEXTS
from features.numbered import in_order

__all__ = ["Vocabulary", "places_of"]

Numbers = npt.NDArray[np.int32]
_LookUp = Callable[["_Shard", Numbers, pa.Array], Numbers]

_ASIDE = "\x1f"
_SHARDS = 128
"""Users lie in so many parts, by account: that the hash table of a part fits into a processor's cache halves the time of looking up."""
_MOST_ROWS = 1 << 24
"""Rows of which users are looked up at once."""
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

    def of_users(self, blocks: Sequence[tuple[Numbers, pa.Array]]) -> list[Numbers]:
        """Return the number of each row's user, -1 without one.

        Parameters
        ----------
        blocks
            The number of each row's account and its user's name; names are places in one dictionary in all blocks, or in none.
        """
        accounts, names = zip(*blocks, strict=True)
        if not pa.types.is_dictionary(names[0].type):
            if self._users.are_many(sum(map(len, names))):
                return [numbers for part in _in_parts(blocks) for numbers in self._users.of_rows(part)]
            encoded, ends = pa.concat_arrays(names).dictionary_encode(), np.cumsum([0, *map(len, names)]).tolist()
            names = tuple(encoded[start:stop] for start, stop in pairwise(ends))
        places = [places_of(name) for name in names]
        account_of = np.full(len(names[0].dictionary) + 1, -1, dtype=np.int32)
        for account, place in zip(accounts, places, strict=True):
            account_of[place] = account
        if any(np.any((account_of[place] != account) & (place >= 0)) for account, place in zip(accounts, places, strict=True)):
            return self._of_shared_names(accounts, names)
        used = np.flatnonzero(account_of[:-1] >= 0)
        numbers = np.full(len(account_of), -1, dtype=np.int32)
        numbers[used] = self._users.numbers_of(account_of[used], names[0].dictionary.take(pa.array(used)))
        return [numbers[place] for place in places]

    def _of_shared_names(self, accounts: Sequence[Numbers], names: Sequence[pa.DictionaryArray]) -> list[Numbers]:
        """Do as `of_users` where users of several accounts have the same name, which is a place in a dictionary."""
        account, name = np.concatenate(accounts), pa.concat_arrays(names)
        named = np.flatnonzero(_are_there(name))
        different, which = _different(account[named], name.take(pa.array(named)))
        numbers = np.full(len(account), -1, dtype=np.int32)
        numbers[named] = self._users.numbers_of(*different)[which]
        return np.split(numbers, np.cumsum([len(some) for some in accounts])[:-1])


class _Users:
    """The users' numbers, by the account's number and the user's name.

    Users are looked up in a hash table for each shard of accounts, by name alone until a name is met that several accounts have. Tables
    are made of those only that many are looked up among. A few are looked for the other way round, in one pass over those that are in no
    table: a day's users are a small part of all, and making tables of all costs more than the rest of a day's numbering.
    """

    def __init__(self) -> None:
        self._shards = [_Shard() for _ in range(_SHARDS)]
        self._n_in_shards = 0
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

    def are_many(self, asked: int) -> bool:
        """Tell whether so many are asked for that tables are made of all."""
        return asked * _FEW > self._count - self._n_in_shards

    def numbers_of(self, account: Numbers, name: pa.Array) -> Numbers:
        """Return the numbers of different users; those who are new get the next ones."""
        if self.are_many(len(name)):
            return self.of_rows([(account, name)])[0]
        numbers = self._in_shards([(account, name)], _Shard.numbers_of)[0] if self._n_in_shards else np.full(len(name), -1, dtype=np.int32)
        numbers = np.maximum(numbers, self._beside_tables(account, name)) if self._beside_shards else numbers
        new = np.flatnonzero(numbers < 0)
        numbers[new] = np.arange(self._count, self._count + len(new))
        self.add(account[new], name.take(pa.array(new)))
        return numbers

    def of_rows(self, blocks: Sequence[tuple[Numbers, pa.Array]]) -> list[Numbers]:
        """Return the number of each row's user, -1 without one; those who are new get the next ones."""
        self._fill_shards()
        new = list[tuple[Numbers, pa.Array]]()
        count = self._count

        def of_shard(shard: _Shard, account: Numbers, name: pa.Array) -> Numbers:
            nonlocal count
            numbers = shard.numbers_of(account, name)
            unknown = np.flatnonzero(numbers < 0)
            if len(unknown):
                different, which = _different(account[unknown], name.take(pa.array(unknown)).dictionary_encode())
                numbers[unknown] = count + which
                count += len(different[0])
                new.append(different)
            return numbers

        numbers = self._in_shards(blocks, of_shard)
        if new:
            accounts, names = zip(*new, strict=True)
            self.add(np.concatenate(accounts), pa.concat_arrays(names))
        return numbers

    def _in_shards(self, blocks: Sequence[tuple[Numbers, pa.Array]], look_up: _LookUp) -> list[Numbers]:
        """Look the users of rows up, those of each shard together, -1 for who has no name."""
        numbers = [np.full(len(account), -1, dtype=np.int32) for account, _ in blocks]
        orders, parts = zip(*(_by_shard(account, name) for account, name in blocks), strict=True)
        found = list[list[Numbers]]()
        for shard, *of_blocks in zip(self._shards, *parts, strict=True):
            accounts, names = zip(*of_blocks, strict=True)
            together = look_up(shard, np.concatenate(accounts), pa.concat_arrays(names))
            found.append(np.split(together, np.cumsum([len(account) for account in accounts])[:-1]))
        for of_block, order, of_shards in zip(numbers, orders, zip(*found, strict=True), strict=True):
            of_block[order] = np.concatenate(of_shards)
        return numbers

    def _beside_tables(self, account: Numbers, name: pa.Array) -> Numbers:
        """Return the numbers of those of the users who are in no table, -1 for others; each of these is looked up among the few."""
        names = pc.unique(name)
        asked = account.astype(np.int64) * len(names) + pc.index_in(name, value_set=names).to_numpy()
        order = np.argsort(asked)
        numbers, first = np.full(len(name), -1, dtype=np.int32), self._n_in_shards
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
            order, parts = _by_shard(account, name)
            numbers = np.split((self._n_in_shards + order).astype(np.int32), np.cumsum([len(some) for some, _ in parts])[:-1])
            for shard, new, which in zip(self._shards, parts, numbers, strict=True):
                shard.add(*new, which)
            self._n_in_shards += len(name)
        self._beside_shards = []


def _by_shard(account: Numbers, name: pa.Array) -> tuple[npt.NDArray[np.int64], list[tuple[Numbers, pa.Array]]]:
    """Return the order in which users of one shard come together, without those who have no name, and in it those of each shard."""
    shard = (account % _SHARDS).astype(np.uint8)
    if name.null_count:
        shard[~_are_there(name)] = _SHARDS
    order = np.argsort(shard, kind="stable")
    bounds = np.searchsorted(shard, np.arange(_SHARDS + 1), sorter=order).tolist()
    order = order[: bounds[-1]]
    accounts, names = account[order], name.take(pa.array(order))
    return order, [(accounts[start:stop], names[start:stop]) for start, stop in pairwise(bounds)]


def _are_there(name: pa.Array) -> npt.NDArray[np.bool_]:
    return np.asarray(name.is_valid().to_numpy(zero_copy_only=False))


class _Shard:
    """Some different users: the account, name and number of each; and once a name of several accounts was met, a text that no other has."""

    def __init__(self) -> None:
        self._accounts, self._numbers = np.zeros((2, 0), dtype=np.int32)
        self._names = pa.array([], pa.string())
        self._texts: pa.Array | None = None

    def numbers_of(self, account: Numbers, name: pa.Array) -> Numbers:
        """Return the numbers of users, -1 for those who are not there."""
        if self._texts is None:
            places = _places_in(self._names, name)
            if not np.any((np.append(self._accounts, np.int32(-1))[places] != account) & (places >= 0)):
                return np.append(self._numbers, np.int32(-1))[places]
            self._texts = _joined(self._accounts, self._names)  # the first with a name is somebody else
        different, which = _different(account, name.dictionary_encode())
        return np.append(self._numbers, np.int32(-1))[_places_in(self._texts, _joined(*different))][which]

    def add(self, account: Numbers, name: pa.Array, numbers: Numbers) -> None:
        """Add users who are not there yet."""
        self._accounts, self._numbers = np.concatenate([self._accounts, account]), np.concatenate([self._numbers, numbers])
        self._names = pa.concat_arrays([self._names, name])
        if self._texts is not None:
            self._texts = pa.concat_arrays([self._texts, _joined(account, name)])


def _in_parts(blocks: Sequence[tuple[Numbers, pa.Array]]) -> Iterator[Sequence[tuple[Numbers, pa.Array]]]:
    """Yield blocks that follow each other, of so many rows together that each text of a shard has its place in four bytes."""
    n_blocks = max(1, _MOST_ROWS // max(1, *(len(account) for account, _ in blocks)))
    for first in range(0, len(blocks), n_blocks):
        yield blocks[first : first + n_blocks]


def _joined(account: Numbers, name: pa.Array) -> pa.Array:
    """Return a text for each user that no other has."""
    return pc.binary_join_element_wise(pa.array(account).cast(pa.string()), name, _ASIDE)


def _different(account: Numbers, name: pa.DictionaryArray) -> tuple[tuple[Numbers, pa.Array], Numbers]:
    """Return the accounts and names of different users, and which of them each row is of, which has a name, as all names have a row."""
    place = places_of(name)
    account_of = np.zeros(len(name.dictionary), dtype=np.int32)
    account_of[place] = account
    if np.array_equal(account_of[place], account):
        return (account_of, name.dictionary), place
    pairs, which = np.unique(account.astype(np.int64) * len(account_of) + place, return_inverse=True)
    different = (pairs // len(account_of)).astype(np.int32), name.dictionary.take(pa.array(pairs % len(account_of)))
    return different, which.astype(np.int32)


def places_of(column: pa.DictionaryArray) -> Numbers:
    """Return the place of each row's text among the different ones, -1 without one."""
    return np.asarray((column.indices.fill_null(-1) if column.null_count else column.indices).to_numpy())


def _places_in(known: pa.Array, found: pa.Array) -> Numbers:
    """Return where texts first come among those that are known, -1 where they do not."""
    return np.array(pc.index_in(found, value_set=known).fill_null(-1).to_numpy())


def _looked_up(found: pa.Array, known: pa.Array) -> tuple[Numbers, pa.Array]:
    """Return the number of each of these different texts, and -1 after them, and all texts, the new ones in their order at the end."""
    numbers = np.append(_places_in(known, found), np.int32(-1))
    new = np.flatnonzero(numbers[:-1] < 0)
    if len(new):
        new = new[pc.sort_indices(found.take(pa.array(new))).to_numpy()]
        numbers[new] = np.arange(len(known), len(known) + len(new))
        known = pa.concat_arrays([known, found.take(pa.array(new))])
    return numbers, known
