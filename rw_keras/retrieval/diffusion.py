"""Diffusion: ranking by a walk over the neighbours of neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rw_keras.retrieval.index import Index
from rw_keras.retrieval.neighbours import nearest_others
from rw_keras.retrieval.rows import Rows
from rw_keras.retrieval.vectors import check_count, check_power, is_number, weights

# The residual, relative to y, at which the solver stops: with the largest alphas in use, too, the error of a score is then below
# what float32 tells apart. The publication stops earlier, for speed.
_RESIDUAL = 1e-10


class Diffusion:
    """Re-ranking by diffusion over the graph of an index's nearest neighbours.

    Rows are joined where each is among the `neighbours` nearest of the other. The affinity `A` of two joined rows is their cosine
    to the power `gamma`; a cosine that is not above 0 joins nothing. With the degrees `d = A 1` and `S = D^-1/2 A D^-1/2`, a
    query's scores `f` are what

        (I - alpha S) f = y

    is solved by, where `y` holds, for the `query_neighbours` rows nearest to the query, their cosines to the power `gamma`, and 0
    for all others. So a row is found that is unlike the query, but like what is like it.

    Source: Iscen, Tolias, Avrithis, Furon and Chum, "Efficient diffusion on region manifolds: recovering small objects with
    compact CNN representations", CVPR 2017, whose constants for global descriptors are the defaults. It solves by conjugate
    gradients, too. Here a query is never a row of the graph.

    The graph is built once, which takes the time of a search with each row as a query, and holds N x `neighbours` x 12 bytes
    at most, several times that while it is built. A query then takes one pass over the descriptors and some tens of products with
    the graph.

    Args:
        index: an `Index` of N descriptors `(N, D)`, or one that `augment` made. Its searcher finds the neighbours.
        neighbours: of how many nearest other rows joined ones are, 1 or more; at most all. Default 50.
        alpha: how far scores spread, from 0 up to below 1. Default 0.99. With 0 only the query's own neighbours have a score.
        gamma: the power of a cosine, 0 or more. Default 3.
        query_neighbours: how many rows scores spread from, 1 or more; at most all. Default 10.

    Attributes:
        graph: `S`, `(N, N)`, a `scipy.sparse.csr_array` of float64.
        index, alpha, gamma, query_neighbours: as given.

    Raises:
        ValueError: for an argument out of its range.
    """

    def __init__(
        self, index: Index, neighbours: int = 50, alpha: float = 0.99, gamma: float = 3.0, query_neighbours: int = 10
    ) -> None:
        check_count("neighbours", neighbours)
        if not is_number(alpha) or not 0 <= alpha < 1:
            raise ValueError(f"`alpha` is a number from 0 up to, but not, 1, but got {alpha!r}.")
        check_power("gamma", gamma)
        check_count("query_neighbours", query_neighbours)
        self.index, self.alpha, self.gamma, self.query_neighbours = index, alpha, gamma, query_neighbours
        self.graph = _normalised(_mutual(index, neighbours, gamma))
        self._state = _state(index)

    def __repr__(self) -> str:
        return f"<Diffusion over {len(self.index)} descriptors, {self.graph.nnz // 2} pairs of neighbours>"

    def search(self, query: ArrayLike, k: int = 10) -> list[tuple[str, float]]:
        """The `k` best matches of a query vector.

        Args:
            query: `(D,)`, as `rw_keras.describe` or `expand_query` returns it.
            k: how many; all, where there are fewer.

        Returns:
            A list of (name, score), best first. A score is no cosine: 0 or more, and comparable within one query only. Rows of
            equal scores, such as the 0 where diffusion does not reach, are in the order of the cosine, then of the index.

        Raises:
            RuntimeError: when no solution is found, with an `alpha` too close to 1.
            ValueError: for a query of other dimensions, or with NaN, `k` below 1, or an index that has changed since the graph
                was built.
        """
        check_count("k", k)
        if _state(self.index) != self._state:
            raise ValueError(
                f"The index, now of {len(self.index)} names, has changed since its graph was built; make a new Diffusion."
            )
        cosines = self.index.scores(query)
        scores = self._diffused(cosines)
        best = np.lexsort((-cosines, -scores))[:k]
        return [(self.index.names[position], score) for position, score in zip(best.tolist(), scores[best].tolist())]

    def rank(self, query: ArrayLike) -> list[str]:
        """All names, best first; arguments and errors as for `search`."""
        return [name for name, _ in self.search(query, max(len(self.index), 1))]

    def _diffused(self, cosines):
        """The scores `(N,)`, float32, so that the last digits of a solution decide between no two rows."""
        nearest = np.argsort(-cosines, kind="stable")[: self.query_neighbours]
        nearest = nearest[cosines[nearest] > 0]
        y = np.zeros(len(cosines))
        y[nearest] = weights(cosines[nearest], self.gamma)
        if not y.any():
            return np.zeros(len(y), "float32")
        from scipy.sparse import linalg

        system = linalg.LinearOperator(self.graph.shape, matvec=lambda f: f - self.alpha * (self.graph @ f), dtype="float64")
        f, failed = linalg.cg(system, y, rtol=_RESIDUAL)
        if failed:
            raise RuntimeError(f"The diffusion has no solution after {failed} steps with alpha={self.alpha!r}; take a lower alpha.")
        return np.maximum(f, 0).astype("float32")  # no score is below 0 but by rounding


def _mutual(index, neighbours, gamma):
    """The affinities `A` `(N, N)` of rows that are each among the nearest of the other."""
    from scipy import sparse

    count = len(index)
    width = min(int(neighbours), max(count - 1, 0))
    nearest, affinities = np.empty((count, width), "int32" if count < 2**31 else "int64"), np.empty((count, width))
    for part, positions, cosines in nearest_others(index, neighbours):
        nearest[part], affinities[part] = positions, np.where(cosines > 0, weights(cosines, gamma), 0)
    one_way = sparse.csr_array((affinities.ravel(), nearest.ravel(), np.arange(count + 1) * width), shape=(count, count))
    return one_way.minimum(one_way.T).tocsr()  # 0 where one is not among the nearest of the other


def _normalised(affinity):
    """`S`, of the affinities, in place; a row without neighbours stays zero."""
    affinity.eliminate_zeros()
    degrees = affinity.sum(axis=1)
    scale = 1 / np.sqrt(np.where(degrees > 0, degrees, 1))
    affinity.data *= np.repeat(scale, np.diff(affinity.indptr)) * scale[affinity.indices]
    return affinity


def _state(index) -> tuple[Any, int]:
    """What differs once an index has changed: rows that come get new ids, and those that go leave fewer."""
    return Rows.of(index.descriptors).ids_given, len(index)
