import itertools
import threading

import pytest

from features.ahead import in_advance, made_of, side_by_side


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


def test_what_is_made_side_by_side_comes_all_and_of_each_in_its_order():
    found = list(side_by_side([iter([(lane, number) for number in range(5)]) for lane in range(3)]))
    assert [[number for of, number in found if of == lane] for lane in range(3)] == [list(range(5))] * 3
    assert not list(side_by_side([iter(()), iter(())]))
    assert not list(side_by_side([]))


def test_lanes_go_on_at_the_same_time():
    both_are_there = threading.Barrier(2, timeout=30)

    def lane():
        for number in range(3):
            both_are_there.wait()
            yield number

    assert sorted(side_by_side([lane(), lane()])) == [0, 0, 1, 1, 2, 2]


def test_lanes_may_share_what_waits():
    waiting = iter(range(1000))
    assert sorted(side_by_side([waiting, waiting, waiting])) == list(range(1000))


def test_an_error_in_a_lane_ends_all():
    def failing():
        yield 1
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        list(side_by_side([failing(), itertools.count()]))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ThreadPoolExecutor")]


def test_what_is_made_of_items_is_in_their_order_and_some_of_it_at_once():
    two_are_there = threading.Barrier(2, timeout=30)

    def make(number):
        two_are_there.wait()
        return -number

    assert made_of(range(10), make) == [-number for number in range(10)]
    assert made_of([], make) == []
    with pytest.raises(ValueError, match="invalid literal"):
        made_of(["1", "x"], int)
