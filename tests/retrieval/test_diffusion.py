"""Diffusion: against the linear system in float64, solved as it stands."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rw_keras.retrieval import Diffusion, Index, augment


def collection(count=80, dimensions=5, seed=0):
    """Few enough dimensions that some neighbours point away."""
    return Index([str(number) for number in range(count)], np.random.default_rng(seed).standard_normal((count, dimensions)))


def direction(dimensions=5, seed=1):
    return np.random.default_rng(seed).standard_normal(dimensions)


def literal(index, query, neighbours=50, alpha=0.99, gamma=3.0, query_neighbours=10):
    """The scores `(N,)` of every row, with whole matrices, in float64."""
    rows, query = np.asarray(index.descriptors, "float64"), np.asarray(query) / np.linalg.norm(query)
    count = len(rows)
    cosines = rows @ rows.T
    near = np.zeros((count, count), bool)
    for number in range(count):
        others = np.delete(np.arange(count), number)
        near[number, others[np.argsort(-cosines[number, others], kind="stable")][:neighbours]] = True
    affinity = np.where(near & near.T & (cosines > 0), np.maximum(cosines, 0) ** gamma, 0)
    degree = affinity.sum(axis=1)
    root = np.diag([1 / np.sqrt(own) if own else 0 for own in degree])
    y = np.zeros(count)
    nearest = np.argsort(-(rows @ query), kind="stable")[:query_neighbours]
    nearest = nearest[rows[nearest] @ query > 0]
    y[nearest] = (rows[nearest] @ query) ** gamma
    return np.linalg.solve(np.eye(count) - alpha * root @ affinity @ root, y)


def scores(diffusion, query):
    found = dict(diffusion.search(query, len(diffusion.index)))
    return np.array([found[name] for name in diffusion.index.names])


CONSTANTS = [
    {},
    {"neighbours": 1},
    {"neighbours": 7, "query_neighbours": 3},
    {"neighbours": 7, "gamma": 0},
    {"neighbours": 7, "gamma": 1.5, "query_neighbours": 1},
    {"neighbours": 7, "alpha": 0},
    {"neighbours": 7, "alpha": 0.5, "query_neighbours": 80},
    {"neighbours": 79, "alpha": 0.999},
    {"neighbours": 1000, "query_neighbours": 1000},
]


@pytest.mark.parametrize("constants", CONSTANTS, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_value(constants, seed):
    index, query = collection(seed=seed), direction(seed=seed + 10)
    expected = literal(index, query, **constants)
    np.testing.assert_allclose(scores(Diffusion(index, **constants), query), expected, atol=1e-6 * expected.max())


@settings(deadline=None)
@given(count=st.integers(1, 40), dimensions=st.integers(1, 6), neighbours=st.integers(1, 45), seed=st.integers(0, 999))
def test_value_whatever_the_size(count, dimensions, neighbours, seed):
    random = np.random.default_rng(seed)
    index = Index(map(str, range(count)), random.standard_normal((count, dimensions)) * (random.random((count, 1)) > 0.1))
    diffusion, query = Diffusion(index, neighbours, query_neighbours=4), random.standard_normal(dimensions)
    # In one dimension all cosines are 1 or -1, and which of equal rows are nearest is for the order of the index to say.
    expected = literal(Index(index.names, np.asarray(index.descriptors).round(6)), query, neighbours, query_neighbours=4)
    found = scores(diffusion, query)
    np.testing.assert_allclose(found, expected, atol=1e-4 * max(expected.max(), 1))
    assert (found >= 0).all()
    assert sorted(diffusion.rank(query)) == sorted(index.names)


def test_the_graph_is_symmetric_and_has_no_loops():
    diffusion = Diffusion(collection(), 7)
    dense = diffusion.graph.toarray()
    np.testing.assert_array_equal(dense, dense.T)
    assert not dense.diagonal().any()
    assert (dense >= 0).all() and dense.any()
    assert 0 < (dense > 0).sum(axis=1).max() <= 7
    np.testing.assert_allclose(np.abs(np.linalg.eigvalsh(dense)).max(), 1, atol=1e-12)
    assert repr(diffusion) == f"<Diffusion over 80 descriptors, {(dense > 0).sum() // 2} pairs of neighbours>"


def test_equal_rows():
    """Copies have equal scores, and come one after the other in the order of the index."""
    index, query = Index(map(str, range(48)), np.tile(np.asarray(collection(12, 3).descriptors), (4, 1))), direction(3)
    diffusion = Diffusion(index, 47, query_neighbours=8)
    expected = literal(index, query, 47, query_neighbours=8)
    found = scores(diffusion, query)
    np.testing.assert_allclose(found, expected, atol=1e-6 * expected.max())
    np.testing.assert_array_equal(found.reshape(4, 12), [found[:12]] * 4)
    hits = np.array(diffusion.rank(query), int).reshape(12, 4)
    np.testing.assert_array_equal(hits, hits[:, :1] + [0, 12, 24, 36])
    all_copies = Diffusion(Index("abcd", [[0.6, 0.8]] * 4), 3)
    assert all_copies.rank([1.0, 0]) == list("abcd")
    assert len({score for _, score in all_copies.search([1.0, 0])}) == 1


def test_rows_that_are_not_reached_follow_by_their_cosine():
    """Two planes that share no direction, and zero rows: from the first no step leads to the second."""
    random = np.random.default_rng(0)
    rows = np.zeros((22, 4))
    rows[:10, :2] = np.abs(random.standard_normal((10, 2)))
    rows[10:20, 2:] = np.abs(random.standard_normal((10, 2)))
    index = Index(map(str, range(22)), rows)
    query = np.array([1.0, 0.5, 0.2, -0.1])
    hits = Diffusion(index, 9, query_neighbours=5).search(query, 22)
    reached, rest = hits[:10], hits[10:]
    assert {name for name, _ in reached} == set(map(str, range(10)))
    assert all(score > 0 for _, score in reached)
    assert all(score == 0 for _, score in rest)
    assert [name for name, _ in rest] == [name for name in index.rank(query) if int(name) >= 10]


def test_finds_what_is_like_what_is_alike():
    """A chain of steps of 30 degrees, and a row that is nearer to the query than the chain's end, but on the other side."""
    angles = np.radians([0, 30, 60, 90, 120, 200, 250])
    index = Index("abcdexy", np.stack([np.cos(angles), np.sin(angles)], axis=1))
    query = np.array([np.cos(-0.1), np.sin(-0.1)])
    assert index.rank(query)[4] == "y"
    assert Diffusion(index, 2, query_neighbours=1).rank(query)[5:] == ["y", "x"]


@pytest.mark.parametrize(("query", "order"), [([0.0, 0.0], "abc"), ([-1.0, 0.0], "cba")], ids=["zero", "opposite"])
def test_a_query_that_nothing_is_like_ranks_by_cosine(query, order):
    index = Index("abc", [[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    assert Diffusion(index).search(query) == [(name, 0.0) for name in order]
    assert Diffusion(index).rank(query) == index.rank(query)


def test_one_row_and_none():
    (hit,) = Diffusion(Index("a", [[0.6, 0.8]])).search([1.0, 0.0])
    assert hit == ("a", pytest.approx(0.6**3))
    assert Diffusion(Index("a", [[0.0, 0.0]])).search([1.0, 0.0]) == [("a", 0.0)]
    empty = Diffusion(Index([], np.zeros((0, 2))))
    assert empty.search([1.0, 0.0]) == empty.rank([1.0, 0.0]) == []


@pytest.mark.parametrize("gamma", [0, 3])
def test_a_zero_row_is_joined_to_nothing(gamma):
    rows = np.asarray(collection(20).descriptors).copy()
    rows[[0, 7]] = 0
    index = Index(map(str, range(20)), rows)
    diffusion = Diffusion(index, 19, gamma=gamma)
    assert not diffusion.graph.toarray()[[0, 7]].any()
    expected = literal(index, direction(), 19, gamma=gamma)
    np.testing.assert_allclose(scores(diffusion, direction()), expected, atol=1e-6 * expected.max())


def test_memory_mapped_float16(tmp_path):
    Index(map(str, range(60)), np.asarray(collection(60, 24).descriptors).astype("float16")).save(tmp_path / "index")
    index = Index.load(tmp_path / "index")
    assert index.descriptors.dtype == np.float16
    expected = literal(index, direction(24), 10)
    np.testing.assert_allclose(scores(Diffusion(index, 10), direction(24)), expected, atol=3e-3 * expected.max())


def test_search_and_rank():
    index, query = collection(), direction()
    diffusion = Diffusion(index, 7)
    every = diffusion.search(query, 1000)
    assert diffusion.rank(query) == [name for name, _ in every]
    assert diffusion.search(query) == every[:10]
    assert diffusion.search(query, 3) == every[:3]
    assert [score for _, score in every] == sorted((score for _, score in every), reverse=True)
    assert {(type(name), type(score)) for name, score in every} == {(str, float)}
    for scale in (1e-30, 7, 1e30):
        assert diffusion.rank(scale * query) == diffusion.rank(query)


def test_defaults_are_the_publications():
    index, query = collection(150), direction()
    assert Diffusion(index).search(query) == Diffusion(index, 50, 0.99, 3.0, 10).search(query)
    assert Diffusion(index, 49).search(query) != Diffusion(index).search(query)


def test_after_augmentation():
    index, query = augment(collection(), 4), direction()
    expected = literal(index, query, 7)
    np.testing.assert_allclose(scores(Diffusion(index, 7), query), expected, atol=1e-6 * expected.max())


@pytest.mark.parametrize(
    "change",
    [
        lambda index: index.add(["new"], [[1.0, 2, 3, 4, 5]]),
        lambda index: index.remove(["3"]),
        lambda index: index.update(["3"], [[1.0, 2, 3, 4, 5]]),
        lambda index: (index.add(["new"], [[1.0, 2, 3, 4, 5]]), index.remove(["3"])),
    ],
    ids=["add", "remove", "update", "add and remove"],
)
def test_an_index_that_has_changed_is_refused(change):
    index = collection()
    index.remove(["0"])
    diffusion = Diffusion(index)
    diffusion.rank(direction())
    change(index)
    for call in (diffusion.search, diffusion.rank):
        with pytest.raises(ValueError, match=rf"The index, now of {len(index)} names, has changed.*; make a new Diffusion\.$"):
            call(direction())
    expected = literal(index, direction())
    np.testing.assert_allclose(scores(Diffusion(index), direction()), expected, atol=1e-6 * expected.max())


@pytest.mark.parametrize("name", ["neighbours", "query_neighbours"])
@pytest.mark.parametrize("value", [0, -1, 2.0, True, "5", None])
def test_refuses_a_count(name, value):
    with pytest.raises(ValueError, match=f"^`{name}` is a whole number of at least 1, but got {value!r}.$"):
        Diffusion(collection(), **{name: value})


@pytest.mark.parametrize("value", [-0.1, 1, 1.5, float("nan"), float("inf"), "1", None, True])
def test_refuses_alpha(value):
    with pytest.raises(ValueError, match=f"^`alpha` is a number from 0 up to, but not, 1, but got {value!r}.$"):
        Diffusion(collection(), alpha=value)


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "1", None, True, [3]])
def test_refuses_gamma(value):
    with pytest.raises(ValueError, match=f"^`gamma` is a finite number of at least 0, but got {re.escape(repr(value))}.$"):
        Diffusion(collection(), gamma=value)


@pytest.mark.parametrize(
    ("query", "k", "words"),
    [
        (np.ones(5), 0, "`k` is a whole number of at least 1, but got 0"),
        (np.ones(5), 2.0, "`k` is a whole number of at least 1, but got 2.0"),
        (np.ones(4), 1, r"5 elements.*\(4,\)"),
        (np.ones((1, 5)), 1, r"5 elements.*\(1, 5\)"),
        (np.full(5, np.nan), 1, "NaN"),
    ],
)
def test_refuses_a_search(query, k, words):
    with pytest.raises(ValueError, match=words):
        Diffusion(collection()).search(query, k)


def test_a_solver_that_does_not_come_to_an_end(monkeypatch):
    import scipy.sparse.linalg

    diffusion = Diffusion(collection(), alpha=0.9)
    monkeypatch.setattr(scipy.sparse.linalg, "cg", lambda system, y, **options: (y, 800))
    with pytest.raises(RuntimeError, match=r"no solution after 800 steps with alpha=0\.9; take a lower alpha\.$"):
        diffusion.rank(direction())
