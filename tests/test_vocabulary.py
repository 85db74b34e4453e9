import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features import vocabulary
from features.vocabulary import Vocabulary

PEOPLE = st.tuples(st.integers(0, 3), st.sampled_from(["u", "v", "w", "\x1f", "1\x1fu", "", None]))
LOOKUPS = st.lists(st.lists(PEOPLE, min_size=1, max_size=8), min_size=1, max_size=3)


def looked_up(names, people, *, coded):
    """Return the numbers of users, row by row in two blocks, whose names may be places among the different ones."""
    account = np.array([account for account, _ in people], dtype=np.int32)
    name = pa.array([name for _, name in people], pa.string())
    name = name.dictionary_encode() if coded else name
    half = len(people) // 2
    return np.concatenate(names.of_users([(account[:half], name[:half]), (account[half:], name[half:])])).tolist()


@pytest.mark.parametrize("coded", [True, False], ids=["places", "texts"])
@pytest.mark.parametrize("few", [0, 1, 8], ids=["one pass", "both", "tables"])
@given(runs=st.lists(LOOKUPS, min_size=1, max_size=4))
def test_a_user_has_one_number_however_and_whenever_it_is_looked_up(few, coded, runs):
    numbers = {}
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(vocabulary, "_FEW", few)
        patch.setattr(vocabulary, "_SHARDS", 2)
        patch.setattr(vocabulary, "_MOST_ROWS", 3)
        names = Vocabulary()
        for lookups in runs:
            names.of_accounts(pa.array(["a0", "a1", "a2", "a3"]))
            for people in lookups:
                for person, found in zip(people, looked_up(names, people, coded=coded), strict=True):
                    assert found == (-1 if person[1] is None else numbers.setdefault(person, found))
            names.write(Path(folder))
            names = Vocabulary.read(Path(folder), {})
        assert looked_up(names, [*numbers, (0, None)], coded=coded) == [*numbers.values(), -1]
    assert sorted(numbers.values()) == list(range(len(numbers)))


def test_a_name_of_a_dictionary_that_no_row_has_gets_no_number():
    names = Vocabulary()
    name = pa.DictionaryArray.from_arrays(pa.array([0, 2], pa.int32()), pa.array(["a", "nobody", "c"]))
    assert names.of_users([(np.array([3, 4], dtype=np.int32), name)])[0].tolist() == [0, 1]
    assert names.of_users([(np.array([3], dtype=np.int32), pa.array(["nobody"]))])[0].tolist() == [2]
