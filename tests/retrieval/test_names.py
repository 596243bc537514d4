"""The names of an index: against a list of strings."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rw_keras.retrieval.names import Names

BOUND = st.none() | st.integers(-45, 45)


class TestNames:
    BYTES = st.lists(st.binary(min_size=0, max_size=9), unique=True, max_size=12)

    @given(content=BYTES, start=BOUND, stop=BOUND, step=BOUND.filter(lambda step: step != 0))
    def test_a_sequence(self, content, start, stop, step):
        names, plain = Names.of(content), list(map(os.fsdecode, content))
        assert (len(names), list(names), list(reversed(names))) == (len(plain), plain, plain[::-1])
        assert names[start:stop:step] == plain[start:stop:step]
        assert [names[place] for place in range(-len(plain), len(plain))] == plain + plain
        for place in (len(plain), -len(plain) - 1):
            with pytest.raises(IndexError):
                names[place]

    @given(content=BYTES, other=st.binary(max_size=9))
    def test_equality_and_membership(self, content, other):
        names, plain = Names.of(content), list(map(os.fsdecode, content))
        other = os.fsdecode(other)
        assert names == plain and plain == names and names == Names.of(content)
        assert names != [*plain, "more"] and names != Names.of([*content, b"more than nine"]) and names != tuple(plain)
        assert (other in names) == (other in plain)
        assert [names.find(name) for name in plain] == list(range(len(plain)))
        assert [names.count(name) for name in plain] == [1] * len(plain)
        for odd in ("\ud800", "x\udfff", None, b"", 3):
            assert odd not in names

    @given(content=BYTES.filter(len), data=st.data())
    def test_index(self, content, data):
        names, plain = Names.of(content), list(map(os.fsdecode, content))
        name = data.draw(st.sampled_from(plain))
        bounds = data.draw(st.lists(st.integers(-14, 14), max_size=2))
        try:
            expected = plain.index(name, *bounds)
        except ValueError:
            with pytest.raises(ValueError, match="is not among the"):
                names.index(name, *bounds)
        else:
            assert names.index(name, *bounds) == expected
        with pytest.raises(ValueError, match="is not among the"):
            names.index("more than nine")

    def test_borders_between_names_count(self):
        assert Names.of([b"ab", b"c"]) != Names.of([b"a", b"bc"])

    def test_names_of_one_hash(self, monkeypatch):
        monkeypatch.setattr("rw_keras.retrieval.names.hash", lambda name: 7, raising=False)
        names = Names.of([b"a", b"b", b"c"])
        assert [names.find(name) for name in "abcd"] == [0, 1, 2, None]
