"""Query expansion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from rw_keras.retrieval import exact
from rw_keras.retrieval.vectors import check_count, check_power, unit_vector, unit_vectors, weights

if TYPE_CHECKING:
    from rw_keras.retrieval.filters import Within
    from rw_keras.retrieval.rerank import Rerank


def expand_query(
    query: ArrayLike,
    index: Any,
    qe: int,
    *,
    within: Within | None = None,
    alpha: float = 0.0,
    rerank: int | Rerank | None = None,
    regions: Any = None,
) -> np.ndarray:
    """Average query expansion: the mean of the query and the first `qe - 1` of its ranking, of unit length.

    With `alpha` above 0 each of the ranking is weighted by its cosine with the query to that power, and by 0 where the cosine is
    below 0: alpha query expansion (Radenovic, Tolias and Chum). 3 is usual.

    `qe` counts the query, as the publication does: 1 is no expansion; it takes 5 for Oxford, 10 for Paris. A zero query
    (no features) stays zero.

    Args:
        query: `(D,)`, or several `(Q, D)`, each expanded by its own ranking.
        index: a `rw_keras.retrieval.Index`.
        qe: how many vectors are averaged, 1 or more; at most all of the index and the query.
        within: which rows the ranking holds, as for `Index.search`. Default: all.
        alpha: the power of the cosine that a vector is weighted by, 0 or more. Default 0: all alike, as in the publication.
        rerank: how many of the ranking are put in the order of their regions first; see `Index.search`. Default: none.
        regions: with `rerank`, the region vectors of the query, or of each of several; see `Index.search` and `search_batch`.

    Returns:
        float32, of the shape of `query`.

    Raises:
        ValueError: for `qe` below 1, an `alpha` that is not a finite number of at least 0, or a query that does not fit the index.
    """
    check_count("qe", qe)
    check_power("alpha", alpha)
    dimensions = index.dimensions
    several = np.ndim(query) == 2
    queries = unit_vectors(query, dimensions) if several else unit_vector(query, dimensions)[None]
    if rerank is not None and regions is None:
        regions = getattr(query, "regions", None)
    if regions is not None and not several:
        regions = [regions]
    asked = np.flatnonzero(queries.any(axis=1))
    if qe > 1 and len(asked):
        own = None if regions is None else [regions[number] for number in asked]
        found = index.nearest_batch(queries[asked], qe - 1, within=within, rerank=rerank, regions=own)
        for number, nearest, cosines in zip(asked, *found):
            rows = np.asarray(index.descriptors[nearest])
            if rerank is not None:  # those that came are scores of regions
                cosines = exact.cosines(rows.astype("float32"), queries[number])
            mean = queries[number] + weights(cosines, alpha) @ rows.astype("float64")
            queries[number] = unit_vector(mean, dimensions)
    return queries if several else queries[0]
