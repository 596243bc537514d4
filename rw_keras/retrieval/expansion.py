"""Query expansion."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from rw_keras.retrieval.vectors import check_count, unit_vector

if TYPE_CHECKING:
    from rw_keras.retrieval.index import Index


def expand_query(query: ArrayLike, index: Index, qe: int) -> np.ndarray:
    """Average query expansion: the mean of the query and the first `qe - 1` of its ranking, of unit length.

    `qe` counts the query, as the publication does: 1 is no expansion; it takes 5 for Oxford, 10 for Paris. A zero query
    (no features) stays zero.

    Args:
        query: `(D,)`.
        index: an `Index`.
        qe: how many vectors are averaged, 1 or more; at most all of the index and the query.

    Returns:
        `(D,)` float32.

    Raises:
        ValueError: for `qe` below 1, or a query that does not fit the index.
    """
    check_count("qe", qe)
    query = unit_vector(query, index.descriptors.shape[1])
    if qe == 1 or not query.any():
        return query
    nearest = index.nearest(query, qe - 1)[0]
    return unit_vector(query + index.descriptors[nearest].sum(axis=0, dtype="float64"), len(query))
