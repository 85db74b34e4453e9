import threading

import pytest

from features.ahead import in_advance


def test_everything_comes_in_its_order():
    assert list(in_advance(iter(range(5)))) == list(range(5))
    assert not list(in_advance(iter(())))


def test_the_next_is_made_while_one_is_looked_at():
    is_begun = [threading.Event() for _ in range(3)]

    def items():
        for number, event in enumerate(is_begun):
            event.set()
            yield number

    for number in in_advance(items()):
        assert number == 2 or is_begun[number + 1].wait(30)


def test_an_error_comes_where_its_item_would():
    def items():
        yield 1
        raise OSError("gone")

    coming = in_advance(items())
    assert next(coming) == 1
    with pytest.raises(OSError, match="gone"):
        next(coming)
