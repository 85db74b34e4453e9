"""Memory of arrays: the C library's for a while, then whatever it was before."""

import pyarrow as pa
import pytest

from features.arrow_memory import memory_used_again


def test_arrays_take_the_c_librarys_memory_for_a_while_and_stay_when_it_is_over():
    before = pa.default_memory_pool().backend_name
    with memory_used_again():
        taken = pa.system_memory_pool().bytes_allocated()
        held = pa.array(range(10_000))
        assert pa.system_memory_pool().bytes_allocated() > taken
    assert pa.default_memory_pool().backend_name == before
    assert held.sum().as_py() == 49_995_000


def test_a_failure_leaves_memory_as_it_was():
    before = pa.default_memory_pool().backend_name
    with pytest.raises(ZeroDivisionError), memory_used_again():
        1 / 0  # noqa: B018
    assert pa.default_memory_pool().backend_name == before
