import pytest

from training.undo import Undo


def test_nothing_is_taken_back_where_nothing_fails():
    done = []
    with Undo(within=1.0) as undo:
        undo.add(done.append, 1)
    assert done == []


def test_a_step_that_fails_is_tried_again_once_the_others_have_made_room():
    room, done = [], []

    def needs_room():
        done.append("tried")
        if not room:
            raise OSError("the disk is full")
        done.append("taken back")

    with pytest.raises(ValueError, match="the first error"), Undo(within=1.0) as undo:
        undo.add(room.append, True)
        undo.add(needs_room)
        raise ValueError("the first error")
    assert done == ["tried", "tried", "taken back"]


def test_an_interruption_is_taken_back_too():
    done = []
    with pytest.raises(KeyboardInterrupt), Undo(within=1.0) as undo:
        undo.add(done.append, 1)
        raise KeyboardInterrupt
    assert done == [1]


def test_no_step_is_begun_after_the_time_is_up(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr("training.undo.monotonic", lambda: next(clock))
    done = []
    with pytest.raises(ValueError, match="x"), Undo(within=2.5) as undo:
        for number in range(10):
            undo.add(done.append, number)
        raise ValueError("x")
    assert done == [9, 8]
