import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.ordering import sorted_rows


@pytest.mark.parametrize("largest", [3, 2**40, 2**62], ids=["many alike", "packed", "too large to be packed"])
@given(data=st.data())
def test_rows_come_in_the_order_of_their_keys_and_of_equal_keys_as_they_stand(largest, data):
    given_keys = data.draw(st.lists(st.integers(0, largest), max_size=30))
    rows, keys = sorted_rows(np.array(given_keys, dtype=np.int64))
    assert rows.tolist() == sorted(range(len(given_keys)), key=given_keys.__getitem__)
    assert keys.tolist() == sorted(given_keys)
