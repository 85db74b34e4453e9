from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.answers.newest_first import Place
from serving.answers.problems import ProblemError
from serving.api.cursors import Cursors
from serving.permissions.caller import VENDOR, Caller

CALLERS = (VENDOR, Caller("p1"), Caller("p2"))
cursors = st.builds(
    Cursors,
    st.sampled_from([b"one secret", b"another"]),
    st.sampled_from(CALLERS),
    st.fixed_dictionaries({"list": st.sampled_from(["plays", "notes"])}, optional={"account_id": st.text(max_size=3), "band": st.none()}),
)
places = st.builds(Place, st.datetimes(), st.text(max_size=20))


@given(cursors, places)
def test_a_cursor_leads_back_to_its_place(made, place):
    assert made.open_place(made.seal_place(place)) == place
    assert made.open_place(made.seal_place(None)) is None


@given(cursors, cursors, places)
def test_nobody_else_can_use_it_nor_anybody_for_another_question(made, other, place):
    if made == other:
        assert other.open_place(made.seal_place(place)) == place
    else:
        with pytest.raises(ProblemError, match="does not fit"):
            other.open_place(made.seal_place(place))


@given(cursors, st.data())
def test_nobody_can_change_where_it_leads(made, data):
    sealed = made.seal_place(Place(datetime(2025, 7, 1), "a"))
    changed = data.draw(st.text(max_size=80) | st.integers(0, len(sealed) - 1).map(lambda at: sealed[:at] + "_" + sealed[at + 1 :]))
    try:
        assert made.open(changed) == made.open(sealed), "the last character has bits to spare"
    except ProblemError:
        assert changed != sealed
