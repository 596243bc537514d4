import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rw_keras.retrieval import Index, exact

KINDS = ["faiss-flat", "faiss-hnsw", "faiss-ivfpq"]
SOME = {"faiss-flat": {}, "faiss-hnsw": {"m": 16}, "faiss-ivfpq": {"nlist": 8, "m": 8, "nprobe": 4}}


def clustered(count=1500, dimensions=32, seed=0):
    """Vectors around centres, as those of photos of the same things are."""
    random = np.random.default_rng(seed)
    rows = np.random.default_rng(7).standard_normal((60, dimensions))[random.integers(0, 60, count)]
    rows += 0.6 * random.standard_normal(rows.shape)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype("float32")


def made(rows, **options):
    return Index([str(number) for number in range(len(rows))], rows, **options)


class TestChoosing:
    def test_numpy_is_the_default(self):
        index = Index("ab", np.eye(2))
        assert index.searcher_config == {"name": "numpy", "parameters": {}}
        assert not index.save_searcher("nowhere")
        index.use_searcher(index.searcher_config)
        assert made(np.eye(5)).recall(np.eye(5), 3) == 1

    @pytest.mark.parametrize("name", ["faiss", "annoy", None, 7])
    def test_refuses_a_searcher(self, name):
        with pytest.raises(ValueError, match=f"no searcher {name!r}; choose from numpy, faiss-flat, faiss-hnsw, faiss-ivfpq"):
            Index("ab", np.eye(2)).use_searcher(name)

    def test_refuses_parameters_of_numpy(self):
        with pytest.raises(ValueError, match="searcher numpy has no parameters, but got 'm'"):
            Index("ab", np.eye(2)).use_searcher("numpy", m=3)

    def test_earlier_names_go_on_with_a_warning(self, tmp_path):
        called = r"is called {} now; the earlier name goes with the next release"
        with pytest.warns(FutureWarning, match=called.format("searcher=")) as caught:
            index = Index("ab", np.eye(2), engine="numpy")
        index.save(tmp_path / "index")
        with pytest.warns(FutureWarning, match=called.format("searcher=")) as loading:
            Index.load(tmp_path / "index", engine="numpy")
        with pytest.warns(FutureWarning, match=r"Index.engine_config is called Index.searcher_config now"):
            assert index.engine_config == index.searcher_config
        with pytest.warns(FutureWarning, match=called.format(r"Index\.use_searcher")) as using:
            index.use_engine("numpy")
        with pytest.warns(FutureWarning, match=called.format(r"Index\.save_searcher")):
            assert not index.save_engine(tmp_path / "structure")
        with pytest.warns(FutureWarning, match=called.format(r"Index\.load_searcher")):
            index.load_engine(tmp_path / "structure")
        assert {one.filename for one in (*caught, *loading, *using)} == {__file__}
        with pytest.raises(TypeError, match="give searcher= alone"):
            Index("ab", np.eye(2), engine="numpy", searcher="numpy")

    def test_without_faiss(self, monkeypatch, tmp_path):
        monkeypatch.setitem(sys.modules, "faiss", None)
        Index("ab", np.eye(2)).save(tmp_path / "index")
        for call in (
            lambda: Index("ab", np.eye(2), searcher="faiss-flat"),
            lambda: Index("ab", np.eye(2)).use_searcher("faiss-flat"),
            lambda: Index.load(tmp_path / "index", searcher="faiss-flat"),
        ):
            with pytest.raises(ImportError, match=r'faiss-flat needs FAISS.*pip install "rw_keras\[faiss\]"'):
                call()

    def test_faiss_is_loaded_for_its_searchers_only(self):
        script = (
            "import sys, numpy, rw_keras; index = rw_keras.retrieval.Index('ab', numpy.eye(2)); index.search([1, 0]);"
            "print([name for name in ('faiss', 'tensorflow') if name in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"

    def test_recall_needs_queries(self):
        with pytest.raises(ValueError, match="0 queries and 2 names"):
            Index("ab", np.eye(2)).recall(np.zeros((0, 2)))


class TestFaiss:
    @pytest.fixture(autouse=True)
    def faiss(self):
        return pytest.importorskip("faiss")

    def test_refuses_parameters(self):
        with pytest.raises(ValueError, match="faiss-hnsw has m, ef_construction, ef_search, but got 'nlist'"):
            Index("ab", np.eye(2)).use_searcher("faiss-hnsw", nlist=3)
        with pytest.raises(ValueError, match="`m` is a whole number of at least 1, but got 0"):
            Index("ab", np.eye(2)).use_searcher("faiss-hnsw", m=0)
        with pytest.raises(ValueError, match="from 256 rows or more, but the index has 255"):
            made(clustered(255)).use_searcher("faiss-ivfpq")
        with pytest.raises(ValueError, match=r"`m` divides the dimensions, 32.*got 7 and 8"):
            made(clustered()).use_searcher("faiss-ivfpq", m=7, nlist=8)

    @pytest.mark.parametrize("dtype", ["float32", "float16"])
    @pytest.mark.parametrize("kind", KINDS)
    def test_cosines_are_exact_and_most_is_found(self, kind, dtype):
        rows, queries = clustered().astype(dtype), clustered(40, seed=1)
        index, plain = made(rows, searcher=kind), made(rows)
        positions, scores = index.nearest_batch(queries, 10)
        assert index.searcher.built
        cosines = queries.astype("float64") @ rows.astype("float64").T
        np.testing.assert_allclose(scores, np.take_along_axis(cosines, positions, 1), atol=1e-6)
        assert (np.diff(scores) <= 0).all()
        assert all(len(set(found)) == 10 for found in positions.tolist())
        recall = np.mean([len(set(own) & set(other)) / 10 for own, other in zip(positions, plain.nearest_batch(queries, 10)[0])])
        assert index.recall(queries, 10) == pytest.approx(recall)
        assert recall == 1 if kind == "faiss-flat" else recall > 0.9
        assert index.search_batch(queries, 10) == [index.search(query, 10) for query in queries] or kind != "faiss-flat"

    def test_recall_counts_what_is_missed(self):
        index = made(clustered())
        index.use_searcher("faiss-ivfpq", nlist=50, nprobe=1, m=2, k_factor=1)
        queries = clustered(60, seed=1)
        found, best = index.nearest_batch(queries, 10)[0], made(clustered()).nearest_batch(queries, 10)[0]
        expected = np.mean([len(set(own) & set(other)) / 10 for own, other in zip(found, best)])
        assert index.recall(queries, 10) == pytest.approx(expected)
        assert 0.1 < expected < 0.95

    def test_recall_takes_any_of_equal_rows_but_not_for_a_better_one(self, monkeypatch):
        index = Index("abcd", [[1, 0], [0, 1], [0, 2], [0, 3]])
        monkeypatch.setattr(index, "nearest_batch", lambda queries, k: (np.array([[1, 2]]), np.float32([[0.8, 0.8]])))
        assert index.recall([[0.6, 0.8]], 2) == 1
        monkeypatch.setattr(index, "nearest_batch", lambda queries, k: (np.array([[1, 2]]), np.float32([[0.6, 0.6]])))
        assert index.recall([[0.8, 0.6]], 2) == 0.5

    @pytest.mark.parametrize("k", [1, 3, 30])
    def test_flat_finds_what_numpy_finds(self, k):
        rows = np.repeat(clustered(100), 15, axis=0)[np.random.default_rng(0).permutation(1500)]
        rows[:20] = 0
        index, plain, queries = made(rows, searcher="faiss-flat"), made(rows), np.concatenate([clustered(30, seed=1), rows[:60]])
        assert index.search_batch(queries, k) == plain.search_batch(queries, k)
        assert index.search_batch(queries, k, 4, within=lambda name: int(name) % 3) == plain.search_batch(
            queries, k, 4, within=lambda name: int(name) % 3
        )

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("share", [2, 5, 40])
    def test_filters(self, kind, share):
        index, queries = made(clustered(), searcher=kind), clustered(20, seed=1)
        within = lambda name: int(name) % share == 0  # noqa: E731
        found = index.search_batch(queries, 10, within=within)
        assert all(len(hits) == 10 and all(within(name) for name, _ in hits) for hits in found)
        best = made(clustered()).search_batch(queries, 10, within=within)
        assert np.mean([len(set(own) & set(other)) for own, other in zip(found, best)]) >= (10 if kind == "faiss-flat" else 9)

    @pytest.mark.parametrize("kind", KINDS)
    def test_always_as_many_as_there_are(self, kind):
        """What the structure does not find is searched for exactly."""
        index = made(clustered())
        index.use_searcher(kind, **({"nlist": 100, "nprobe": 1} if kind == "faiss-ivfpq" else {}))
        for k in (1, 100, 1400, 1500, 2000):
            positions, _ = index.nearest_batch(clustered(5, seed=1), k)
            assert positions.shape == (5, min(k, 1500))
            assert all(len(set(found)) == len(found) for found in positions.tolist())
        assert index.search(np.zeros(32), 3) == [(name, 0.0) for name in "012"]

    @settings(max_examples=6)
    @given(data=st.data(), kind=st.sampled_from(KINDS))
    def test_follows_changes(self, data, kind):
        rows, queries = clustered(600), clustered(10, seed=1)
        index, plain = made(rows), made(rows)
        index.use_searcher(kind, **SOME[kind])
        made_ = 600
        for action in data.draw(st.lists(st.sampled_from(["add", "remove", "update"]), max_size=4)):
            random = np.random.default_rng(data.draw(st.integers(0, 99)))
            names = [plain.names[number] for number in random.permutation(len(plain))[:100]]
            for one in (index, plain):
                if action == "add":
                    one.add([str(made_ + number) for number in range(60)], clustered(60, seed=made_))
                elif action == "remove":
                    one.remove(names)
                else:
                    one.update(names, clustered(100, seed=made_))
            made_ += 60
        found, best = index.search_batch(queries, 5), plain.search_batch(queries, 5)
        if kind == "faiss-flat":
            assert found == best
        assert index.names == plain.names
        for query, hits in zip(queries, found):
            scores = plain.scores(query)
            assert len(hits) == 5
            assert all(score == scores[plain.position(name)] for name, score in hits)
        assert np.mean([len(set(own) & set(other)) for own, other in zip(found, best)]) > 3.5

    @pytest.mark.parametrize("changed", [False, True])
    @pytest.mark.parametrize("kind", KINDS)
    def test_saved_and_loaded(self, kind, changed, tmp_path, monkeypatch):
        index, queries = made(clustered()), clustered(20, seed=1)
        index.use_searcher(kind, **SOME[kind])
        if changed:
            index.remove([str(number) for number in range(0, 900, 3)])
            index.update([str(number) for number in range(1, 90, 3)], clustered(30, seed=5))
            index.add(["new"], queries[:1])
        before = index.search_batch(queries, 10)
        assert index.save_searcher(tmp_path / "structure")
        assert index.search_batch(queries, 10) == before
        loaded = Index(index.names, np.asarray(index.descriptors), searcher=index.searcher_config)
        assert loaded.searcher_config == index.searcher_config
        loaded.load_searcher(tmp_path / "structure")
        monkeypatch.setattr(loaded.searcher, "_empty", None)  # it is not built again
        assert loaded.search_batch(queries, 10) == before
        loaded.remove(["2"])
        loaded.add(["newer"], queries[1:2])
        assert loaded.search(queries[1], 1) == [("newer", pytest.approx(1))]
        assert index.load_searcher(tmp_path / "structure") is None  # the changed index itself takes it, too
        assert index.search_batch(queries, 10) == before

    def test_load_refuses_what_does_not_fit(self, tmp_path):
        index = made(clustered())
        index.use_searcher("faiss-flat")
        index.save_searcher(tmp_path / "structure")
        for other, words in (
            (made(clustered(), searcher="faiss-hnsw"), "no structure of faiss-hnsw"),
            (made(clustered(1499), searcher="faiss-flat"), "other rows than the index's 1499"),
            (made(clustered(1500, 16), searcher="faiss-flat"), "32 dimensions, the index of 16"),
        ):
            with pytest.raises(ValueError, match=f"structure cannot be used: .*{words}.*`use_searcher`"):
                other.load_searcher(tmp_path / "structure")
        (tmp_path / "structure").write_bytes((tmp_path / "structure").read_bytes()[:1000])
        with pytest.raises(ValueError, match="cannot be used"):
            index.load_searcher(tmp_path / "structure")

    def test_built_at_first_use_or_by_use_searcher(self, tmp_path):
        made(clustered()).save(tmp_path / "index")
        index = Index.load(tmp_path / "index", searcher="faiss-flat")
        assert not index.searcher.built
        index.add(["new"], clustered(1, seed=4))
        assert index.search(clustered(1, seed=4)[0], 1)[0][0] == "new"
        assert index.searcher.built
        index.use_searcher("numpy")
        assert index.searcher_config["name"] == "numpy"

    def test_few_rows_go_to_numpy(self, monkeypatch):
        index, calls, nearest = made(clustered()), [], exact.nearest
        index.use_searcher("faiss-hnsw")
        monkeypatch.setattr(exact, "nearest", lambda *arguments: (calls.append(1), nearest(*arguments))[1])
        index.search(np.ones(32), 5, within=[str(number) for number in range(149)])
        assert len(calls) == 1
        index.search(np.ones(32), 5)
        assert len(calls) == 1
