import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.engine import Engine
from features.readings import filled, is_empty

BLANKS = " \t\n\r\v\f"
TEXTS = st.none() | st.text(st.sampled_from(BLANKS + "!a0\x00\x01\x1f\u00a0\u0308\u2003é漢😀"), max_size=6) | st.text(max_size=6)


@pytest.fixture(scope="module")
def engine():
    with Engine(threads=1) as opened:
        yield opened


@settings(max_examples=100, deadline=None)
@given(texts=st.lists(TEXTS, min_size=1, max_size=60))
def test_texts_are_trimmed_like_python_trims_them_and_are_empty_where_nothing_is_left(engine, texts):
    held = engine.hold(pa.table({"text": pa.array(texts, pa.string())}), name="texts")
    found = engine.to_arrow(held.select(text=filled(held.text), empty=is_empty(held.text)))
    expected = [None if text is None else text.strip(BLANKS) or None for text in texts]
    assert found["text"].to_pylist() == expected
    assert found["empty"].to_pylist() == [text is None for text in expected]
