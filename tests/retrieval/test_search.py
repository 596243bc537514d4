"""Batches, blocks, filters, rows that are not held in memory: against sums in float64."""

import re
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rw_keras.retrieval import Index, exact, expand_query, narrow
from rw_keras.retrieval import rows as rows_

SMALL = st.integers(-1, 1)


def unit(count, dimensions, seed=0, dtype="float32"):
    rows = np.random.default_rng(seed).standard_normal((count, dimensions))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(dtype)


def names(count):
    return [f"photo {number}" for number in range(count)]


@pytest.fixture(
    params=[(1, 1), (7, 50), (100, 1 << 12), (1000, 1 << 14)], ids=lambda sizes: f"{sizes[0]} rows, {sizes[1]} products"
)
def blocks(request, monkeypatch):
    """Blocks of another size."""
    monkeypatch.setattr(rows_, "BLOCK_ROWS", request.param[0])
    monkeypatch.setattr(narrow, "_BLOCK_ROWS", request.param[0])
    monkeypatch.setattr(exact, "_TILE", request.param[1])
    monkeypatch.setattr(exact, "_GROUPS", request.param[0])


class Lazy:
    """Rows that are read by slices and integers, and never all."""

    def __init__(self, rows, most):
        self.rows, self.shape, self.dtype, self.most = rows, rows.shape, rows.dtype, most

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, key):
        found = self.rows[key]
        assert isinstance(found, np.ndarray)
        assert found.ndim == 1 or len(found) <= self.most, "read at once"
        return found


class TestBatch:
    @pytest.mark.parametrize("dtype", ["float32", "float16"])
    @pytest.mark.parametrize(("count", "dimensions"), [(1, 1), (300, 32), (20000, 8), (16385, 16)])
    def test_is_exact(self, count, dimensions, dtype):
        rows, queries = unit(count, dimensions, dtype=dtype), unit(30, dimensions, seed=1)
        index = Index(names(count), rows)
        assert index.descriptors is rows
        cosines = queries.astype("float64") @ rows.astype("float64").T
        for k in {1, min(10, count), max(count - 1, 1), count, count + 5}:
            positions, scores = index.nearest_batch(queries, k)
            assert positions.shape == scores.shape == (30, min(k, count))
            assert (positions.dtype.kind, scores.dtype) == ("i", np.float32)
            assert all(len(set(found)) == len(found) for found in positions.tolist())
            np.testing.assert_allclose(scores, np.take_along_axis(cosines, positions, 1), atol=1e-6)
            np.testing.assert_allclose(scores, -np.sort(-cosines, axis=1)[:, :k], atol=1e-6)

    @pytest.mark.parametrize("k", [1, 3, 40, 299, 300, 1000])
    @pytest.mark.parametrize("expand", [None, 1, 5])
    def test_each_query_finds_what_it_finds_alone(self, k, expand):
        rows = np.concatenate([unit(100, 24), unit(100, 24), unit(100, 24, seed=2)])
        index, queries = Index(names(300), rows), np.concatenate([unit(50, 24, seed=3), rows[:9], np.zeros((1, 24))])
        found = index.search_batch(queries, k, expand)
        assert found == [index.search(query, k, expand) for query in queries]
        assert found == [hits for query in queries for hits in index.search_batch([query], k, expand)]
        assert found[7:3:-1] == index.search_batch(queries[7:3:-1], k, expand)
        assert index.rank_batch(queries, expand) == [index.rank(query, expand) for query in queries]
        for query, (positions, scores) in zip(queries, zip(*index.nearest_batch(queries, k))):
            alone = index.nearest(query, k)
            assert (positions.tolist(), scores.tolist()) == (alone[0].tolist(), alone[1].tolist())

    @pytest.mark.slow
    @pytest.mark.parametrize("dimensions", [3, 100, 512])
    @pytest.mark.parametrize("k", [10, 1, 2, 1999])
    def test_the_blocks_do_not_count(self, blocks, monkeypatch, dimensions, k):
        rows = unit(500, dimensions)[np.random.default_rng(1).integers(0, 500, 2000)]  # most of them more than once
        index, queries = Index(names(2000), rows), np.concatenate([unit(40, dimensions, seed=2), rows[:10]])
        in_blocks = index.search_batch(queries, k)
        monkeypatch.undo()
        assert in_blocks == index.search_batch(queries, k)
        for query, hits in zip(queries, in_blocks):
            found = [index.position(name) for name, _ in hits]
            scores = index.scores(query)
            assert found == sorted(range(2000), key=lambda number: (-scores[number], number))[:k]

    @pytest.mark.parametrize("k", [1, 5, 2999])
    def test_equal_rows_keep_the_order_of_the_index(self, blocks, k):
        index = Index(names(3000), np.repeat(unit(1, 20), 3000, axis=0))
        for hits in index.search_batch(unit(3, 20, seed=1), k):
            assert [name for name, _ in hits] == names(k)
            assert len({score for _, score in hits}) == 1

    @given(
        rows=st.lists(st.tuples(SMALL, SMALL, SMALL), min_size=1, max_size=40),
        queries=st.lists(st.tuples(SMALL, SMALL, SMALL), min_size=1, max_size=6),
        k=st.integers(1, 45),
        block=st.integers(1, 12),
    )
    def test_few_different_cosines(self, rows, queries, k, block):
        index = Index(names(len(rows)), np.array(rows))
        with pytest.MonkeyPatch.context() as patched:
            for module, constant in ((rows_, "BLOCK_ROWS"), (exact, "_GROUPS"), (exact, "_TILE")):
                patched.setattr(module, constant, block)
            found = index.search_batch(np.array(queries), k)
        for query, hits in zip(queries, found):
            scores = index.scores(np.array(query))
            stable = sorted(range(len(rows)), key=lambda number: -scores[number])[:k]
            assert hits == [(f"photo {number}", scores[number]) for number in stable]

    def test_candidates_that_rounding_lets_pass_are_not_held(self, monkeypatch):
        """A collection of equal rows is no more to hold than another."""
        most, fewer = [], exact._fewer
        monkeypatch.setattr(exact, "_TILE", 1 << 14)
        monkeypatch.setattr(rows_, "BLOCK_ROWS", 512)
        monkeypatch.setattr(
            exact, "_fewer", lambda *arguments: (most.append(sum(len(part[0]) for part in arguments[3])), fewer(*arguments))[1]
        )
        index = Index(names(20000), np.repeat(unit(1, 8), 20000, axis=0))
        positions, _ = index.nearest_batch(unit(32, 8, seed=1), 10)
        assert (positions == np.arange(10)).all()
        assert max(most) < 40000  # of 640 000 pairs

    @pytest.mark.slow
    def test_more_queries_than_a_tile_holds(self):
        rows, queries = unit(3000, 4), unit(20000, 4, seed=1)
        positions, scores = Index(names(3000), rows).nearest_batch(queries, 2)
        cosines = queries.astype("float64") @ rows.T.astype("float64")
        np.testing.assert_allclose(scores, -np.sort(-cosines, axis=1)[:, :2], atol=1e-6)
        np.testing.assert_allclose(np.take_along_axis(cosines, positions, 1), scores, atol=1e-6)

    def test_scores_are_those_of_the_search(self):
        index, query = Index(names(20000), unit(20000, 33)), unit(1, 33, seed=1)[0]
        assert dict(index.search(query, 50)).items() <= dict(zip(index.names, index.scores(query).tolist())).items()

    def test_zero_rows_and_zero_queries(self):
        rows = unit(40, 8)
        rows[[3, 30]] = 0
        index = Index(names(40), rows)
        one, other = index.search_batch([np.zeros(8), rows[5]], 40)
        assert one == [(name, 0.0) for name in index.names]
        assert dict(other)["photo 3"] == dict(other)["photo 30"] == 0
        assert [name for name, score in other if score == 0] == ["photo 3", "photo 30"]

    def test_no_queries_and_no_rows(self):
        index = Index(names(3), np.eye(3))
        assert index.search_batch(np.zeros((0, 3))) == index.rank_batch(np.zeros((0, 3)), 4) == []
        assert index.nearest_batch(np.zeros((0, 3)), 2)[0].shape == (0, 2)
        empty = Index([], np.zeros((0, 3)))
        assert empty.search_batch(np.ones((2, 3)), expand=3) == empty.rank_batch(np.ones((2, 3))) == [[], []]
        assert empty.nearest_batch(np.ones((2, 3)), 5)[1].shape == (2, 0)
        assert empty.search(np.ones(3), within="a") == []

    @pytest.mark.parametrize("shape", [(3,), (2, 4), (2, 3, 1), ()])
    def test_refuses_queries_of_another_shape(self, shape):
        index = Index("abc", np.eye(3))
        for call in (index.search_batch, index.rank_batch, lambda queries: index.nearest_batch(queries, 2)):
            with pytest.raises(ValueError, match=r"\(Q, 3\).*" + re.escape(str(shape))):
                call(np.ones(shape))

    def test_refuses_queries_that_are_not_finite(self):
        queries = np.ones((4, 3))
        queries[2, 1] = np.nan
        with pytest.raises(ValueError, match="query vector 2 holds NaN"):
            Index("abc", np.eye(3)).search_batch(queries)

    @pytest.mark.parametrize("order", ["C", "F"])
    def test_the_layout_in_memory_does_not_count(self, order):
        rows, queries = unit(200, 40), unit(9, 40, seed=1)
        index = Index(names(200), rows)
        assert Index(names(200), np.array(rows, order=order)).search_batch(np.array(queries, order=order), 50) == (
            index.search_batch(queries, 50)
        )
        assert index.search_batch(queries, 50) == [index.search(query, 50) for query in queries]


class TestExpansion:
    @pytest.mark.parametrize("qe", [1, 2, 5, 400])
    def test_several_queries_as_each_alone(self, qe):
        index, queries = Index(names(200), unit(200, 16)), np.concatenate([unit(20, 16, seed=1), np.zeros((1, 16))])
        expanded = expand_query(queries, index, qe)
        assert expanded.dtype == np.float32
        np.testing.assert_array_equal(expanded, [expand_query(query, index, qe) for query in queries])
        assert not expanded[-1].any()

    def test_one_pass(self, monkeypatch):
        index, passes = Index(names(200), unit(200, 16)), []
        nearest = index.nearest_batch
        monkeypatch.setattr(index, "nearest_batch", lambda *a, **b: (passes.append(len(a[0])), nearest(*a, **b))[1])
        index.search_batch(unit(20, 16, seed=1), 5, expand=3)
        assert passes == [20, 20]


class TestMemory:
    def test_rows_are_read_in_passing(self, monkeypatch):
        monkeypatch.setattr(rows_, "BLOCK_ROWS", 100)
        monkeypatch.setattr(narrow, "_BLOCK_ROWS", 100)
        for dtype in ("float32", "float16"):
            rows = unit(2000, 16, dtype=dtype)
            lazy = Index(names(2000), Lazy(rows, 1000))
            assert isinstance(lazy.descriptors, Lazy)
            queries = unit(20, 16, seed=1)
            assert lazy.search_batch(queries, 5, expand=3) == Index(names(2000), rows).search_batch(queries, 5, expand=3)
            lazy.add(["new"], queries[:1])
            lazy.remove(["photo 3"])
            (name, _), *_ = lazy.search(queries[0])
            assert name == "new"
            list(lazy.near_duplicates(0.9))

    @pytest.mark.slow
    def test_a_mapped_file_is_never_in_memory(self, tmp_path):
        """100 MB of float16; a block of it is 34 MB of float32."""
        rows = np.lib.format.open_memmap(tmp_path / "rows.npy", "w+", "float16", (100_000, 512))
        for start in range(0, len(rows), 10_000):
            rows[start : start + 10_000] = unit(10_000, 512, seed=start)
        del rows
        own, rows = names(100_000), np.load(tmp_path / "rows.npy", mmap_mode="r")
        tracemalloc.start()
        index = Index(own, rows)
        queries = np.asarray(rows[1000:1050])
        found = index.search_batch(queries, 5, expand=3)
        index.add(["new"], queries[:1])
        index.remove(["photo 7"])
        found += index.search_batch(queries, 5)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert [hits[0][0] for hits in found] == [f"photo {number}" for number in range(1000, 1050)] * 2
        assert peak < 95e6


class TestFilters:
    @pytest.fixture
    def index(self):
        own = [f"{city}/{number}" for number in range(40) for city in ("oxford", "paris", "rome")]
        cities = [name.split("/")[0] for name in own]
        years = np.array([2000 + number % 7 for number in range(120)])
        return Index(own, unit(120, 16), metadata={"city": cities, "year": years})

    def forms(self, index):
        """Filters of every form, and the names that pass."""
        years = dict(zip(index.names, index.metadata["year"]))
        return [
            ("paris/", [name for name in index.names if name.startswith("paris/")]),
            ("", index.names),
            ("paris/1", [name for name in index.names if name.startswith("paris/1")]),
            ("nowhere", []),
            (["rome/3", "oxford/0", "rome/3"], ["oxford/0", "rome/3"]),
            ({"rome/3"}, ["rome/3"]),
            ([], []),
            (lambda name: name.endswith("7"), [name for name in index.names if name.endswith("7")]),
            ({"city": "rome"}, [name for name in index.names if name.startswith("rome")]),
            ({"year": lambda year: year > 2004}, [name for name in index.names if years[name] > 2004]),
            (
                {"city": "rome", "year": 2003},
                [name for name in index.names if name.startswith("rome") and years[name] == 2003],
            ),
            ({}, index.names),
            (np.arange(120) % 2 == 0, index.names[::2]),
        ]

    @pytest.mark.parametrize("form", range(13))
    @pytest.mark.parametrize("expand", [None, 4])
    @pytest.mark.parametrize("block", [1, 10, 50, 16384])
    def test_finds_what_an_index_of_the_rows_that_pass_finds(self, index, form, expand, block, monkeypatch):
        monkeypatch.setattr(rows_, "BLOCK_ROWS", block)
        within, passing = self.forms(index)[form]
        only = Index(passing, index.descriptors[[index.position(name) for name in passing]])
        queries = np.concatenate([unit(12, 16, seed=1), np.zeros((1, 16))])
        for k in (1, 3, 119, 200):
            expected = only.search_batch(queries, k, expand)
            assert index.search_batch(queries, k, expand, within=within) == expected
            assert index.search(queries[0], k, expand, within=within) == expected[0]
        positions, _ = index.nearest_batch(queries, 5, within=within)
        assert positions.shape == (13, min(5, len(passing)))
        assert {index.names[position] for position in positions.ravel()} <= set(passing)

    def test_names_from_an_iterator(self, index):
        query = unit(1, 16, seed=1)[0]
        assert index.search(query, 9, 3, within=iter(["rome/3", "oxford/0"])) == index.search(
            query, 9, 3, within=["rome/3", "oxford/0"]
        )

    def test_multiplies_only_the_rows_that_pass_where_they_are_few(self, index, monkeypatch):
        seen, products = [], exact.products
        monkeypatch.setattr(
            exact, "products", lambda *arguments: ((seen.append(len(tile[2])), tile)[1] for tile in products(*arguments))
        )
        index.search(unit(1, 16, seed=1)[0], 2, within=["rome/3", "oxford/0", "paris/9"])
        index.search(unit(1, 16, seed=1)[0], 2, within=lambda name: name != "rome/3")
        assert seen == [3, 120]

    @pytest.mark.parametrize("low", [0.3, -0.1, np.float32(0.25), 1, 2.0, -1])
    def test_min_score(self, index, low):
        queries = unit(9, 16, seed=1)
        hits = index.search_batch(queries, 30)
        found = index.search_batch(queries, 30, min_score=low)
        assert found == [[hit for hit in own if hit[1] >= low] for own in hits]
        assert found[0] == index.search(queries[0], 30, min_score=low)

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ({"k": 0}, "`k` is a whole number of at least 1, but got 0"),
            ({"expand": 0}, "`expand` is a whole number of at least 1, but got 0"),
            ({"expand": 2.0}, "`expand` is a whole number of at least 1, but got 2.0"),
            ({"alpha": -1, "expand": 2}, "`alpha` is a finite number of at least 0, but got -1"),
            ({"alpha": 3}, "`alpha` weighs what `expand` averages, but got 3 without `expand`"),
        ],
    )
    def test_refuses_arguments_before_it_searches(self, index, arguments, words, monkeypatch):
        monkeypatch.setattr(exact, "nearest", None)
        for call in (index.search, lambda query, **rest: index.search_batch([query], **rest)):
            with pytest.raises(ValueError, match=re.escape(words)):
                call(np.ones(16), **arguments)

    def test_min_score_keeps_what_is_equal(self, index):
        hits = index.search(unit(1, 16, seed=1)[0], 5)
        assert index.search(unit(1, 16, seed=1)[0], 5, min_score=hits[2][1]) == hits[:3]

    @pytest.mark.parametrize("value", ["0.5", True, [0.5], float("nan")])
    def test_refuses_min_score(self, index, value):
        with pytest.raises(ValueError, match=f"`min_score` is a cosine, but got {re.escape(repr(value))}"):
            index.search(np.ones(16), min_score=value)

    @pytest.mark.parametrize(
        ("within", "words"),
        [
            (["rome/3", "rome/99"], "no 'rome/99' in the index of 120 names"),
            ({"country": "Italy"}, "no 'country' in the index's metadata, which has 'city', 'year'"),
            (7, "a function of a name.*but got 7"),
            (b"rome", "but got b'rome'"),
            (np.ones(119, bool), r"each of the 120 names.*\(119,\)"),
        ],
    )
    def test_refuses_a_filter(self, index, within, words):
        for call in (index.search, lambda query, **rest: index.search_batch([query], **rest)):
            with pytest.raises(ValueError, match=words):
                call(np.ones(16), within=within)

    def test_refuses_a_column_where_there_are_none(self):
        with pytest.raises(ValueError, match="no 'city' in the index's metadata, which has none"):
            Index("ab", np.eye(2)).search(np.ones(2), within={"city": "rome"})

    @pytest.mark.parametrize(
        ("metadata", "words"), [({"city": ["rome"]}, "'city' holds 1 values for 2 names"), ({7: "ab"}, "string, but got 7")]
    )
    def test_refuses_metadata(self, metadata, words):
        with pytest.raises(ValueError, match=words):
            Index("ab", np.eye(2), metadata=metadata)

    def test_metadata_are_plain_values(self, index):
        assert type(index.metadata["year"][0]) is int
        assert list(index.metadata) == ["city", "year"]
