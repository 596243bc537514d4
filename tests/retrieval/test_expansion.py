import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rw_keras.retrieval import Index, expand_query


def collection(count=30, dimensions=16, seed=0):
    """An index, and a query of unit length."""
    random = np.random.default_rng(seed)
    names = [str(number) for number in range(count)]
    query = random.standard_normal(dimensions)
    return Index(names, random.standard_normal((count, dimensions))), query / np.linalg.norm(query)


@given(qe=st.integers(1, 31), seed=st.integers(0, 9))
def test_is_the_mean_with_the_query_counted(qe, seed):
    index, query = collection(seed=seed)
    rows = np.asarray(index.descriptors, "float64")
    best = np.argsort(-(rows @ query), kind="stable")[: qe - 1]
    mean = np.mean([query, *rows[best]], axis=0)
    np.testing.assert_allclose(expand_query(query, index, qe), mean / np.linalg.norm(mean), atol=1e-6)


@given(qe=st.integers(1, 40), scale=st.sampled_from([1e-30, 0.5, 1, 300, 1e30]))
def test_unit_length_whatever_the_length_of_the_query(qe, scale):
    index, query = collection()
    expanded = expand_query(query * scale, index, qe)
    assert expanded.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(expanded), 1, atol=1e-6)
    np.testing.assert_allclose(expanded, expand_query(query, index, qe), atol=1e-6)


def test_1_is_no_expansion():
    index, query = collection()
    np.testing.assert_allclose(expand_query(query, index, 1), query, atol=1e-7)


def test_more_than_there_are_takes_all():
    index, query = collection()
    for qe in (32, 1000):
        np.testing.assert_array_equal(expand_query(query, index, qe), expand_query(query, index, 31))
    assert (expand_query(query, index, 31) != expand_query(query, index, 30)).any()


def test_a_zero_query_stays_zero():
    index, _ = collection()
    assert not expand_query(np.zeros(16), index, 5).any()


def test_a_mean_of_nothing_is_zero():
    index = Index(["opposite"], [[-1.0, 0.0]])
    assert not expand_query(np.array([1.0, 0.0]), index, 2).any()


def test_the_query_stays_as_it_is():
    index, query = collection()
    before = query.copy()
    expand_query(query, index, 5)
    np.testing.assert_array_equal(query, before)


def test_an_empty_index():
    np.testing.assert_array_equal(expand_query(np.array([2.0, 0.0]), Index([], np.zeros((0, 2))), 5), [1, 0])


@pytest.mark.parametrize("qe", [0, -1, 2.0, True, "5", None])
def test_refuses_qe(qe):
    index, query = collection()
    with pytest.raises(ValueError, match=f"`qe` is a whole number of at least 1, but got {qe!r}"):
        expand_query(query, index, qe)


def test_refuses_a_query_that_does_not_fit():
    index, query = collection()
    with pytest.raises(ValueError, match=r"16 elements.*\(15,\)"):
        expand_query(query[:15], index, 5)
    with pytest.raises(ValueError, match="NaN"):
        expand_query(np.full(16, np.nan), index, 1)


class TestAlpha:
    def index(self, count=20, dimensions=6):
        vectors = np.random.default_rng(3).standard_normal((count, dimensions)).astype("float32")
        return Index([str(number) for number in range(count)], vectors)

    @pytest.mark.parametrize("alpha", [0, 0.5, 1, 3, 30])
    def test_value(self, alpha):
        index = self.index()
        query = np.random.default_rng(4).standard_normal(6)
        unit = query / np.linalg.norm(query)
        vectors = np.asarray(index.descriptors, "float64")
        cosines = vectors @ unit
        first = np.argsort(-cosines)[:14]  # some of them point away from the query
        assert (cosines[first] < 0).any()
        weights = np.maximum(cosines[first], 0) ** alpha if alpha else np.ones(14)
        expected = unit + weights @ vectors[first]
        np.testing.assert_allclose(expand_query(query, index, 15, alpha=alpha), expected / np.linalg.norm(expected), atol=1e-6)

    @pytest.mark.parametrize("alpha", [-1, float("nan"), float("inf"), "3", None, True])
    def test_out_of_range_is_refused(self, alpha):
        with pytest.raises(ValueError, match="`alpha` is a finite number of at least 0"):
            expand_query(np.ones(6), self.index(), 5, alpha=alpha)

    @pytest.mark.parametrize("expand", [1, 4, 15])
    @pytest.mark.parametrize("alpha", [0, 3])
    def test_an_index_searches_with_it(self, expand, alpha):
        index, queries = self.index(), np.random.default_rng(5).standard_normal((7, 6))
        expanded = expand_query(queries, index, expand, alpha=alpha)
        assert index.search_batch(queries, 9, expand, alpha=alpha) == index.search_batch(expanded, 9)
        assert index.rank_batch(queries, expand, alpha=alpha) == index.rank_batch(expanded)
        for query, own in zip(queries, expanded):
            assert index.search(query, 9, expand, alpha=alpha) == index.search(own, 9)
            assert index.rank(query, expand, alpha=alpha) == index.rank(own)
        if expand == 15:
            assert (index.rank_batch(queries, expand, alpha=alpha) == index.rank_batch(queries, expand)) == (alpha == 0)

    def test_within(self):
        index, query = self.index(), np.random.default_rng(5).standard_normal(6)
        only = Index(index.names[::2], index.descriptors[::2])
        assert index.search(query, 5, 6, within=only.names, alpha=3) == only.search(query, 5, 6, alpha=3)
        assert index.search(query, 5, 6, within=only.names, alpha=3) != only.search(query, 5, 6)

    def calls(self):
        index, query = self.index(), np.ones(6)
        return {
            index.search: query,
            index.search_batch: query[None],
            index.rank: query,
            index.rank_batch: query[None],
        }.items()

    def test_without_expansion_is_refused(self):
        for call, query in self.calls():
            with pytest.raises(ValueError, match="`alpha` weighs what `expand` averages, but got 3 without `expand`; give both"):
                call(query, alpha=3)
            assert call(query, alpha=0) == call(query)

    @pytest.mark.parametrize("alpha", [-1, float("nan"), float("inf"), "3", None, True])
    @pytest.mark.parametrize("expand", [None, 5])
    def test_out_of_range_is_refused_by_an_index(self, alpha, expand):
        for call, query in self.calls():
            with pytest.raises(ValueError, match=f"`alpha` is a finite number of at least 0, but got {alpha!r}"):
                call(query, expand=expand, alpha=alpha)
