"""Database-side augmentation, and the nearest other rows that it and diffusion begin with: against sums in float64."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rw_keras.retrieval import Index, augment, expand_query
from rw_keras.retrieval import neighbours as neighbours_
from rw_keras.retrieval import rows as rows_
from rw_keras.retrieval.neighbours import nearest_others


def collection(count=60, dimensions=6, seed=0):
    """Few enough dimensions that some neighbours point away."""
    return Index([str(number) for number in range(count)], np.random.default_rng(seed).standard_normal((count, dimensions)))


def literal(index, neighbours, alpha):
    """Each row by itself, in float64."""
    rows = np.asarray(index.descriptors, "float64")
    joined = np.zeros_like(rows)
    for number, row in enumerate(rows):
        if not row.any():
            continue
        cosines = rows @ row
        others = np.delete(np.arange(len(rows)), number)
        nearest = others[np.argsort(-cosines[others], kind="stable")][:neighbours]
        total = row + sum(max(cosines[other], 0) ** alpha * rows[other] for other in nearest)
        joined[number] = total / np.linalg.norm(total)
    return joined


@pytest.fixture(params=[(1, 1 << 22), (7, 1 << 22), (2048, 25), (2048, 1 << 22)], ids=str)
def blocks(request, monkeypatch):
    """Blocks of another size."""
    monkeypatch.setattr(rows_, "BLOCK_ROWS", request.param[0])
    monkeypatch.setattr(neighbours_, "_HELD", request.param[1])


class TestNearestOthers:
    def all(self, index, neighbours):
        parts, positions, cosines = zip(*nearest_others(index, neighbours))
        assert [part.start for part in parts] == [0, *(part.stop for part in parts[:-1])]
        assert parts[-1].stop == len(index)
        return np.concatenate(positions), np.concatenate(cosines)

    @pytest.mark.parametrize("neighbours", [1, 2, 10, 58, 59, 60, 10**12])
    def test_value(self, blocks, neighbours):
        index = collection()
        positions, cosines = self.all(index, neighbours)
        rows = np.asarray(index.descriptors, "float64")
        expected = rows @ rows.T
        np.fill_diagonal(expected, -2)
        order = np.argsort(-expected, axis=1)[:, : min(neighbours, 59)]
        np.testing.assert_array_equal(positions, order)
        np.testing.assert_allclose(cosines, np.take_along_axis(expected, order, 1), atol=1e-6)

    @given(st.data())
    def test_a_row_is_left_out_by_its_position(self, data):
        """Of equal rows, and zero ones, the row itself need not be among the first."""
        kinds = np.array([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 0], [0.6, 0.8, 0]])
        rows = kinds[data.draw(st.lists(st.integers(0, 3), min_size=2, max_size=12))]
        neighbours = data.draw(st.integers(1, 13))
        positions, _ = self.all(Index(map(str, range(len(rows))), rows), neighbours)
        for number in range(len(rows)):
            others = np.delete(np.arange(len(rows)), number)
            exact = (rows @ rows[number]).astype("float32")[others]
            expected = others[np.argsort(-exact.round(6), kind="stable")][:neighbours]
            assert positions[number].tolist() == expected.tolist()

    def test_an_approximate_searcher(self):
        pytest.importorskip("faiss")
        index = collection(400, 16)
        exact, _ = self.all(index, 5)
        index.use_searcher("faiss-ivfpq", nlist=4, nprobe=1)
        positions, _ = self.all(index, 5)
        assert positions.shape == (400, 5)
        assert (positions != np.arange(400)[:, None]).all()
        assert (positions != exact).any()  # it was asked

    def test_one_row_and_none(self):
        ((part, positions, cosines),) = nearest_others(collection(1), 3)
        assert (part, positions.shape, cosines.shape) == (slice(0, 1), (1, 0), (1, 0))
        assert list(nearest_others(collection(0), 3)) == []


class TestAugment:
    @pytest.mark.parametrize("neighbours", [1, 4, 10, 59, 1000])
    @pytest.mark.parametrize("alpha", [0, 3, *(pytest.param(alpha, marks=pytest.mark.slow) for alpha in (0.5, 1))])
    def test_value(self, blocks, neighbours, alpha):
        index = collection()
        augmented = augment(index, neighbours, alpha)
        np.testing.assert_allclose(augmented.descriptors, literal(index, neighbours, alpha), atol=1e-6)

    def test_default(self):
        index = collection()
        np.testing.assert_allclose(augment(index).descriptors, literal(index, 10, 1), atol=1e-6)

    @given(neighbours=st.integers(1, 40), alpha=st.sampled_from([0, 1, 2.5]), seed=st.integers(0, 9))
    def test_a_row_is_what_expansion_makes_of_it_without_itself(self, neighbours, alpha, seed):
        index = collection(30, seed=seed)
        augmented = augment(index, neighbours, alpha)
        for number in (0, 17):
            others = np.delete(np.arange(30), number)
            rest = Index([index.names[other] for other in others], index.descriptors[others])
            expected = expand_query(index.descriptors[number], rest, neighbours + 1, alpha=alpha)
            np.testing.assert_allclose(augmented.descriptors[number], expected, atol=1e-6)

    @pytest.mark.parametrize("alpha", [0, 1])
    def test_zero_rows(self, alpha):
        rows = np.asarray(collection(12).descriptors).copy()
        rows[[0, 5]] = 0
        index = Index(map(str, range(12)), rows)
        augmented = augment(index, 11, alpha)
        assert not np.asarray(augmented.descriptors)[[0, 5]].any()
        np.testing.assert_allclose(augmented.descriptors, literal(index, 11, alpha), atol=1e-6)
        assert not np.asarray(augment(Index("ab", np.zeros((2, 3)))).descriptors).any()

    def test_more_copies_than_neighbours(self):
        """A row is never its own neighbour, also where copies of it come before it: all copies weigh alike."""
        near, far = [1.0, 0.0], [0.6, 0.8]
        augmented = augment(Index("abcde", [near, near, near, near, far]), 2)
        np.testing.assert_allclose(augmented.descriptors[:4], [near] * 4, atol=1e-6)
        augmented = augment(Index("abc", [near, near, far]), 2, 1)
        expected = np.array([2.36, 0.48]) / np.linalg.norm([2.36, 0.48])
        np.testing.assert_allclose(augmented.descriptors[:2], [expected] * 2, atol=1e-6)

    def test_one_row_and_none(self):
        np.testing.assert_array_equal(augment(Index("a", [[0.6, 0.8]])).descriptors, np.float32([[0.6, 0.8]]))
        assert augment(Index([], np.zeros((0, 4)))).descriptors.shape == (0, 4)

    def test_a_sum_of_nothing_is_zero(self):
        assert not np.asarray(augment(Index("ab", [[1.0, 0], [-1.0, 0]]), 1, alpha=0).descriptors).any()
        np.testing.assert_array_equal(augment(Index("ab", [[1.0, 0], [-1.0, 0]]), 1).descriptors, [[1, 0], [-1, 0]])

    def test_memory_mapped_float16(self, tmp_path):
        rows = np.asarray(collection(40, 16).descriptors)
        Index(map(str, range(40)), rows.astype("float16")).save(tmp_path / "index")
        index = Index.load(tmp_path / "index")
        assert index.descriptors.dtype == np.float16
        augmented = augment(index, 6)
        assert augmented.descriptors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(augmented.descriptors, axis=1), 1, atol=1e-6)
        # The search takes a query of float16 for one of unit length, which it is to 1e-3.
        np.testing.assert_allclose(augmented.descriptors, literal(index, 6, 1), atol=1e-3)

    def test_an_index_that_has_changed(self):
        index = collection(30)
        index.remove(["3", "20"])
        index.update(["7"], [[1.0, 2, 3, 4, 5, 6]])
        index.add(["new"], [[6.0, 5, 4, 3, 2, 1]])
        augmented = augment(index, 5)
        assert augmented.names == index.names
        np.testing.assert_allclose(augmented.descriptors, literal(index, 5, 1), atol=1e-6)

    def test_what_else_an_index_holds(self, tmp_path):
        pytest.importorskip("faiss")
        recipe = {"backbone": "vgg16", "max_side": 512}
        index = Index("abc", np.eye(3), recipe=recipe, metadata={"year": [1, 2, 3]}, searcher="faiss-flat")
        index.failures = [("d", "empty")]
        before = np.array(index.descriptors)
        augmented = augment(index, 1)
        assert (augmented.names, augmented.metadata, augmented.recipe) == (["a", "b", "c"], {"year": [1, 2, 3]}, recipe)
        assert (augmented.failures, augmented.searcher_config) == (index.failures, index.searcher_config)
        augmented.add(["e"], [[1.0, 0, 0]], {"year": [5]})
        assert (index.names, index.metadata["year"]) == (["a", "b", "c"], [1, 2, 3])
        np.testing.assert_array_equal(index.descriptors, before)
        augmented.save(tmp_path / "index")
        assert Index.load(tmp_path / "index").names == augmented.names

    def test_finds_what_is_like_what_is_alike(self):
        """c is like b only, and b like a: a query for a finds c before d once b is in it."""
        angles = np.radians([0, 40, 80, -79])
        index = Index("abcd", np.stack([np.cos(angles), np.sin(angles)], axis=1))
        query = np.array([1.0, 0])
        assert index.rank(query) == ["a", "b", "d", "c"]
        assert augment(index, 1).rank(query) == ["a", "b", "c", "d"]

    @pytest.mark.parametrize("neighbours", [0, -1, 2.0, True, "5", None])
    def test_refuses_neighbours(self, neighbours):
        for index in (collection(), collection(0)):
            with pytest.raises(ValueError, match=f"^`neighbours` is a whole number of at least 1, but got {neighbours!r}.$"):
                augment(index, neighbours)

    @pytest.mark.parametrize("alpha", [-1, float("nan"), float("inf"), "1", None, True, [1]])
    def test_refuses_alpha(self, alpha):
        with pytest.raises(ValueError, match=f"^`alpha` is a finite number of at least 0, but got {re.escape(repr(alpha))}.$"):
            augment(collection(), alpha=alpha)
