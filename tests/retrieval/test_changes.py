"""Rows that are added, removed and updated: against an index that is made anew."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rw_keras.retrieval import Index
from rw_keras.retrieval import rows as rows_
from rw_keras.retrieval.rows import Rows

DIMENSIONS = 4


def vectors(count, seed):
    """Rows of which many are equal, or zero."""
    return np.random.default_rng(seed).integers(-1, 2, (count, DIMENSIONS)).astype("float32")


class Plain:
    """What an index should hold: names, rows and metadata in a list."""

    def __init__(self, dtype):
        self.rows, self.dtype = [], dtype

    def index(self):
        descriptors = Index([], np.zeros((0, DIMENSIONS))).descriptors
        if self.rows:
            descriptors = Index([row[0] for row in self.rows], np.array([row[1] for row in self.rows])).descriptors
        return Index(
            [row[0] for row in self.rows], descriptors.astype(self.dtype), metadata={"colour": [row[2] for row in self.rows]}
        )


def check_same(index, rebuilt):
    assert index.names == rebuilt.names
    assert index.metadata == rebuilt.metadata
    assert len(index) == len(rebuilt) == len(index.descriptors)
    assert [index.position(name) for name in index.names] == list(range(len(index)))
    assert index.descriptors.shape == rebuilt.descriptors.shape
    assert index.descriptors.dtype == rebuilt.descriptors.dtype
    np.testing.assert_array_equal(np.asarray(index.descriptors), rebuilt.descriptors)
    queries = np.concatenate([vectors(5, 99), np.random.default_rng(98).standard_normal((3, DIMENSIONS))])
    for k in (1, 3, 1000):
        assert index.search_batch(queries, k) == rebuilt.search_batch(queries, k)
        assert index.search_batch(queries, k, 3, within={"colour": 1}) == rebuilt.search_batch(queries, k, 3, within={"colour": 1})
    for query in queries:
        np.testing.assert_array_equal(index.scores(query), rebuilt.scores(query))
    assert list(index.near_duplicates(0.7)) == list(rebuilt.near_duplicates(0.7))
    assert index.near_duplicates(0.7, groups=True) == rebuilt.near_duplicates(0.7, groups=True)


def array_reads_alike(rows, plain):
    count = len(plain)
    for key in (
        slice(None),
        slice(1, 4),
        slice(None, None, -1),
        slice(-3, None, 2),
        [],
        np.arange(count)[::-1],
        np.arange(count) % 2 == 0,
    ):
        key = np.array(key, np.intp) if isinstance(key, list) else key
        np.testing.assert_array_equal(rows[key], plain[key])
        assert isinstance(rows[key], np.ndarray)
        assert rows[key].dtype == plain.dtype
    if count:
        np.testing.assert_array_equal(rows[count - 1], plain[-1])
        np.testing.assert_array_equal(rows[-1], plain[-1])
        np.testing.assert_array_equal(rows[[0, 0, count - 1]], plain[[0, 0, -1]])
    with pytest.raises(IndexError):
        rows[count]


ACTIONS = st.lists(st.tuples(st.sampled_from(["add", "remove", "update"]), st.integers(0, 6), st.integers(0, 999)), max_size=8)


@pytest.mark.slow
@settings(max_examples=60)
@given(actions=ACTIONS, first=st.integers(0, 12), dtype=st.sampled_from(["float32", "float16"]), block=st.integers(1, 9))
def test_is_like_one_made_anew(actions, first, dtype, block):
    plain, given_ = Plain(dtype), vectors(first, 0)
    plain.rows = [(str(number), given_[number], number % 2) for number in range(first)]
    index = plain.index()
    base, before, made = index.descriptors, index.descriptors.copy(), first
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(rows_, "BLOCK_ROWS", block)
        for action, count, seed in actions:
            random = np.random.default_rng(seed)
            index.rank(np.ones(DIMENSIONS))  # what a search remembers does not outlive a change
            if action == "add":
                new = [(str(made + number), row, seed % 2) for number, row in enumerate(vectors(count, seed))]
                made += count
                index.add(
                    [row[0] for row in new],
                    np.array([row[1] for row in new]).reshape(-1, DIMENSIONS),
                    {"colour": [row[2] for row in new]},
                )
                plain.rows += new
                continue
            chosen = random.permutation(len(plain.rows))[:count]
            if action == "remove":
                index.remove([plain.rows[number][0] for number in chosen])
                plain.rows = [row for number, row in enumerate(plain.rows) if number not in chosen]
            else:
                rows = vectors(len(chosen), seed)
                index.update([plain.rows[number][0] for number in chosen], rows)
                for number, row in zip(chosen, rows):
                    plain.rows[number] = (plain.rows[number][0], row, plain.rows[number][2])
        check_same(index, plain.index())
        array_reads_alike(index.descriptors, plain.index().descriptors)
    np.testing.assert_array_equal(base, before)  # the given array is left alone


class TestChanges:
    @pytest.fixture
    def index(self):
        return Index("abcd", np.eye(4), metadata={"city": ["rome", "rome", "oxford", "paris"]})

    def test_the_array_is_not_copied(self, tmp_path):
        rows = np.eye(6, dtype="float32")
        Index("abcdef", rows).save(tmp_path / "index")
        index = Index.load(tmp_path / "index")
        mapped = index.descriptors
        index.add("g", [[1, 1, 0, 0, 0, 0]])
        index.remove("b")
        index.update("c", [[0, 2, 0, 0, 0, 0]])
        assert isinstance(index.descriptors, Rows)
        assert index.descriptors.segments[0].array is mapped
        assert [name for name, _ in index.search([0, 1, 0, 0, 0, 0], 2)] == ["c", "g"]
        index.save(tmp_path / "changed")
        loaded = Index.load(tmp_path / "changed")
        assert loaded.names == index.names == list("acdefg")
        np.testing.assert_array_equal(loaded.descriptors, np.asarray(index.descriptors))
        np.testing.assert_array_equal(rows, np.eye(6))

    def test_many_small_additions(self):
        index = Index([], np.zeros((0, 3)))
        rows = np.random.default_rng(0).standard_normal((700, 3))
        for number, row in enumerate(rows):
            index.add([str(number)], row[None])
        assert index.rank(rows[5]) == Index(map(str, range(700)), rows).rank(rows[5])

    def test_a_name_may_come_back(self, index):
        index.remove(["b"])
        index.add(["b"], [[0, 0, 0, -3]], {"city": ["bath"]})
        assert index.names == ["a", "c", "d", "b"]
        assert index.search([0, 0, 0, -1], 1) == [("b", 1.0)]
        assert index.metadata["city"][-1] == "bath"

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda index: index.add("e", np.ones((1, 3)), {"city": ["x"]}), "have 4 dimensions, but got 3"),
            (lambda index: index.add("ef", np.ones((1, 4)), {"city": ["x"]}), "2 names for 1 descriptors"),
            (lambda index: index.add("ee", np.ones((2, 4)), {"city": "xy"}), "'e' stands at positions 4 and 5"),
            (lambda index: index.add("b", np.ones((1, 4)), {"city": "x"}), "'b' is in the index already; `update`"),
            (lambda index: index.add([7], np.ones((1, 4)), {"city": "x"}), "a string, but got 7"),
            (lambda index: index.add("e", np.full((1, 4), np.nan), {"city": "x"}), "'e' .position 0. holds NaN"),
            (lambda index: index.add("e", np.ones((1, 4))), re.escape("columns ['city'], but got []")),
            (lambda index: index.add("e", np.ones((1, 4)), {"town": "x"}), re.escape("columns ['city'], but got ['town']")),
            (lambda index: index.add("e", np.ones((1, 4)), {"city": "xy"}), "2 values for 1 names"),
            (lambda index: index.remove(["a", "z"]), "no 'z' in the index of 4 names"),
            (lambda index: index.remove(["a", "b", "a"]), "'a' is given 2 times"),
            (lambda index: index.update(["a", "z"], np.ones((2, 4))), "no 'z' in the index of 4 names"),
            (lambda index: index.update("aa", np.ones((2, 4))), "'a' is given 2 times"),
            (lambda index: index.update("a", np.ones((1, 5))), "have 4 dimensions, but got 5"),
            (lambda index: index.update("a", np.full((1, 4), np.inf)), "'a' .position 0. holds NaN or infinite"),
        ],
    )
    def test_a_change_that_is_refused_changes_nothing(self, index, change, words):
        with pytest.raises(ValueError, match=words):
            change(index)
        check = Index("abcd", np.eye(4), metadata={"city": ["rome", "rome", "oxford", "paris"]})
        assert (index.names, index.metadata, len(index)) == (check.names, check.metadata, 4)
        np.testing.assert_array_equal(index.descriptors[:], check.descriptors)
        assert index.rank(np.ones(4)) == check.rank(np.ones(4))
        assert index.position("d") == 3
