import itertools
import threading

import pytest

from features.ahead import in_advance, made_of, meanwhile, side_by_side


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
    found = list(side_by_side(iter("abcde"), iter("vwxyz")))
    assert [item for item in found if item < "m"] == list("abcde")
    assert [item for item in found if item > "m"] == list("vwxyz")
    assert list(side_by_side(iter(()), iter("x"))) == ["x"]
    assert list(side_by_side(iter("x"), iter(()))) == ["x"]
    assert not list(side_by_side(iter(()), iter(())))


def test_two_go_on_at_the_same_time_and_one_in_the_thread_of_the_caller():
    both_are_there, threads = threading.Barrier(2, timeout=30), []

    def items():
        for number in range(3):
            both_are_there.wait()
            yield number
        threads.append(threading.current_thread())

    assert sorted(side_by_side(items(), items())) == [0, 0, 1, 1, 2, 2]
    assert len(set(threads)) == 2 and threading.current_thread() in threads


def test_two_may_share_what_waits():
    waiting = iter(range(1000))
    assert sorted(side_by_side(waiting, waiting)) == list(range(1000))


def failing():
    yield 1
    raise OSError("gone")


@pytest.mark.parametrize("two", [lambda: (failing(), itertools.count()), lambda: (itertools.count(), failing())], ids=["here", "there"])
def test_an_error_of_one_ends_both(two):
    with pytest.raises(OSError, match="gone"):
        for _ in side_by_side(*two()):
            pass
    assert not _working()


def test_who_leaves_ends_both():
    coming = side_by_side(itertools.count(), itertools.count())
    next(coming)
    coming.close()
    assert not _working()


def _working():
    return [thread for thread in threading.enumerate() if thread.name.startswith("ThreadPoolExecutor")]


def test_what_is_done_meanwhile_is_done_at_the_end():
    is_begun, done = threading.Event(), []

    def do():
        assert is_begun.wait(30)
        done.append(1)

    with meanwhile(do):
        is_begun.set()
    assert done == [1]


def test_an_error_meanwhile_comes_at_the_end_and_is_told_beside_another():
    def do():
        raise OSError("full")

    with pytest.raises(OSError, match="full"), meanwhile(do):
        pass
    with pytest.raises(ValueError, match="bad") as failed, meanwhile(do):
        raise ValueError("bad")
    assert "full" in failed.value.__notes__[0]


def test_what_is_made_of_items_is_in_their_order_and_some_of_it_at_once():
    two_are_there = threading.Barrier(2, timeout=30)

    def make(number):
        two_are_there.wait()
        return -number

    assert made_of(range(10), make) == [-number for number in range(10)]
    assert made_of([], make) == []
    with pytest.raises(ValueError, match="invalid literal"):
        made_of(["1", "x"], int)
