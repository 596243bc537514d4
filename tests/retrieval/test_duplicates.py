import itertools
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rw_keras.retrieval import Index, duplicates, exact
from rw_keras.retrieval import rows as rows_


def clustered(count, dimensions, seed=0, spread=0.1):
    """Rows around few centres, some of them equal, some zero."""
    random = np.random.default_rng(seed)
    rows = random.standard_normal((count // 8 + 1, dimensions))[random.integers(0, count // 8 + 1, count)]
    rows += spread * random.standard_normal(rows.shape) * (random.random((count, 1)) < 0.7)
    rows[random.random(count) < 0.03] = 0
    return Index([str(number) for number in range(count)], rows)


def brute(index, threshold):
    rows = np.asarray(index.descriptors, "float64")
    return {
        (one, other): float(rows[one] @ rows[other])
        for one, other in itertools.combinations(range(len(rows)), 2)
        if rows[one] @ rows[other] >= threshold
    }


def components(count, pairs):
    """Groups by joining sets, one pair at a time."""
    group = {number: {number} for number in range(count)}
    for one, other in pairs:
        joined = group[one] | group[other]
        for number in joined:
            group[number] = joined
    found = {min(members): sorted(members) for members in group.values() if len(members) > 1}
    return sorted(found.values(), key=lambda members: (-len(members), members[0]))


@pytest.fixture(params=[13, *(pytest.param(rows, marks=pytest.mark.slow) for rows in (1, 100, 16384))])
def block(request, monkeypatch):
    monkeypatch.setattr(rows_, "BLOCK_ROWS", request.param)
    monkeypatch.setattr(exact, "_TILE", 40 * request.param)


@pytest.mark.parametrize("threshold", [0.5, 0.9, 0.95, 0.999])
@pytest.mark.parametrize("dimensions", [3, 40])
def test_pairs_and_groups(block, threshold, dimensions):
    index = clustered(150, dimensions)
    expected = brute(index, threshold)
    found = list(index.near_duplicates(threshold))
    pairs = [(int(one), int(other)) for one, other, _ in found]
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == expected.keys()  # no cosine lies within rounding of a threshold
    assert len(found) > 3
    assert [-score for _, _, score in found] == sorted(-score for _, _, score in found)
    assert found == sorted(found, key=lambda pair: (-pair[2], int(pair[0]), int(pair[1])))
    for one, other, score in found:
        assert one != other
        assert score == pytest.approx(expected[int(one), int(other)], abs=1e-6)
    groups = index.near_duplicates(threshold, groups=True)
    assert [[int(name) for name in group] for group in groups] == components(150, expected)


@pytest.mark.parametrize("limit", [1, 5, 60, 10**6])
@pytest.mark.parametrize("held", [1, 20, 1 << 20])
def test_limit(block, monkeypatch, limit, held):
    monkeypatch.setattr(duplicates, "_HELD", held)
    index = clustered(150, 12)
    assert list(index.near_duplicates(0.8, limit=limit)) == list(index.near_duplicates(0.8))[:limit]


def test_limit_bounds_what_is_held(monkeypatch):
    monkeypatch.setattr(duplicates, "_HELD", 100)
    monkeypatch.setattr(exact, "_TILE", 1 << 10)
    most, sort = [], duplicates._sorted
    monkeypatch.setattr(
        duplicates, "_sorted", lambda kept, limit: (most.append(sum(len(p[0]) for p in kept)), sort(kept, limit))[1]
    )
    index = Index(map(str, range(400)), np.ones((400, 4)))
    assert [pair[:2] for pair in index.near_duplicates(limit=3)] == [("0", "1"), ("0", "2"), ("0", "3")]
    assert max(most) < 3000  # of 79 800


def test_the_blocks_do_not_count(block, monkeypatch):
    index = clustered(150, 30)
    in_blocks = list(index.near_duplicates(0.6)), index.near_duplicates(0.6, groups=True)
    monkeypatch.undo()
    assert in_blocks == (list(index.near_duplicates(0.6)), index.near_duplicates(0.6, groups=True))


@given(edges=st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=30), parts=st.integers(1, 5))
def test_joining(edges, parts):
    label = np.arange(20)
    edges = [edge for edge in edges if edge[0] != edge[1]]
    for part in range(parts):
        own = np.array(edges[part::parts], np.intp).reshape(-1, 2)
        duplicates._join(label, own[:, 0], own[:, 1])
    assert {number: label[number] for number in range(20)} == {
        number: min([number, *(min(group) for group in components(20, edges) if number in group)]) for number in range(20)
    }


def test_a_chain_is_one_group():
    angles = np.random.default_rng(0).permutation(200) * 0.01
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    index = Index(map(str, range(200)), rows)
    assert index.near_duplicates(np.cos(0.0101), groups=True) == [index.names]
    assert len(list(index.near_duplicates(np.cos(0.0101)))) == 199
    assert index.near_duplicates(np.cos(0.0099), groups=True) == []


def test_equal_rows_and_zero_rows():
    index = Index("abcdef", [[1, 0], [0, 0], [3, 0], [0, 1], [0, 0], [0, 5]])
    assert list(index.near_duplicates()) == [("a", "c", 1.0), ("d", "f", 1.0)]
    assert index.near_duplicates(1, groups=True) == [["a", "c"], ["d", "f"]]


def test_none():
    assert list(Index([], np.zeros((0, 3))).near_duplicates()) == Index([], np.zeros((0, 3))).near_duplicates(groups=True) == []
    assert list(Index("abc", np.eye(3)).near_duplicates()) == Index("abc", np.eye(3)).near_duplicates(groups=True) == []


@pytest.mark.parametrize("threshold", [0, -0.5, 1.01, "0.9", True, None, float("nan")])
def test_refuses_a_threshold(threshold):
    with pytest.raises(ValueError, match=f"`threshold` is a cosine above 0 and up to 1, but got {re.escape(repr(threshold))}"):
        Index("abc", np.eye(3)).near_duplicates(threshold)


def test_refuses_a_limit():
    with pytest.raises(ValueError, match="`limit` is a whole number of at least 1, but got 0"):
        Index("abc", np.eye(3)).near_duplicates(limit=0)
    with pytest.raises(ValueError, match=r"`limit` is for pairs.*which is 5"):
        Index("abc", np.eye(3)).near_duplicates(limit=5, groups=True)


def test_one_finds_equal_vectors_however_they_round():
    vectors = np.random.default_rng(0).standard_normal((200, 77)).astype("float32")
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = Index([*map(str, range(400))], np.concatenate([vectors, vectors]))
    assert (exact.cosines(vectors, vectors) < 1).any()
    assert len(list(index.near_duplicates(1))) == len(index.near_duplicates(1, groups=True)) == 200
    assert len(list(index.near_duplicates(1, limit=300))) == 200
