"""Database-side augmentation."""

from __future__ import annotations

import numpy as np

from rw_keras.retrieval.index import Index
from rw_keras.retrieval.neighbours import nearest_others
from rw_keras.retrieval.vectors import check_power, unit_rows, weights


def augment(index: Index, neighbours: int = 10, alpha: float = 1.0) -> Index:
    """Database-side augmentation: an index whose every descriptor is joined with its nearest ones.

    Each is the sum of itself and its `neighbours` nearest other rows, of unit length. A neighbour is weighted by its cosine to the
    power `alpha`, and by 0 where the cosine is below 0; the row itself by 1. Zero rows (no features) stay zero.

    Source: Turcot and Lowe, "Better matching with fewer features", 2009, and Arandjelovic and Zisserman, "Three things everyone
    should know to improve object retrieval", CVPR 2012.

    Queries are searched as before, also with `expand`, and by `search_photo`. The index that is returned does not follow later
    changes of `index`, and rows that are added to it are taken as they are: change the plain index, and augment it again.

    Args:
        index: an `Index` of N descriptors `(N, D)`. It stays as it is. Its searcher finds the neighbours.
        neighbours: how many other rows are added to each, 1 or more; at most all.
        alpha: the power of the cosine, 0 or more. Default 1. With 0 all neighbours weigh as much as the row itself.

    Returns:
        An `Index` of float32, in memory, with the names, region vectors, metadata, recipe, failures and searcher of `index`.

    Raises:
        ValueError: for `neighbours` below 1, or an `alpha` that is not a finite number of at least 0.
    """
    check_power("alpha", alpha)
    vectors = np.empty(index.descriptors.shape, "float32")
    for part, nearest, cosines in nearest_others(index, neighbours):
        total = np.array(index.descriptors[part], "float64")
        shares = weights(cosines, alpha) * total.any(axis=1, keepdims=True)
        for column in range(nearest.shape[1]):  # all neighbours at once would be so many times the memory
            total += shares[:, column, None] * index.descriptors[nearest[:, column]]
        vectors[part] = unit_rows(total)
    regions = None if index.regions is None else index.regions.copy()
    augmented = Index(
        index.names, vectors, recipe=index.recipe, metadata=index.metadata, searcher=index.searcher_config, regions=regions
    )
    augmented.failures, augmented.described_with = list(index.failures), list(index.described_with)
    augmented.search_defaults = dict(index.search_defaults)
    return augmented
