"""A query that may lie on its side: described in several orientations, and searched for by the best of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from rw_keras.retrieval.rerank import Rerank
from rw_keras.retrieval.vectors import check_count, check_expansion

if TYPE_CHECKING:
    from rw_keras.retrieval.filters import Within
    from rw_keras.retrieval.searching import Searchable

# As the photo is; and turned by a quarter, a half and three quarters as well.
ORIENTATIONS = (1, 4)


def orientations_of(pixels: np.ndarray, count: int) -> list[np.ndarray]:
    """A photo `(H, W, 3)` in its orientations: itself and, where `count` is 4, turned to the left by one, two and three quarters.

    Raises:
        ValueError: for a number that is neither 1 nor 4.
    """
    if isinstance(count, bool) or count not in ORIENTATIONS:
        raise ValueError(f"`orientations` is 1, the photo as it is, or 4, all quarter turns, but got {count!r}.")
    return [np.ascontiguousarray(np.rot90(pixels, quarters)) for quarters in range(count)]


def search_orientations(
    index: Searchable,
    queries: ArrayLike,
    k: int = 10,
    expand: int | None = None,
    *,
    rerank: int | Rerank | None = None,
    regions: Sequence[Any] | None = None,
    within: Within | None = None,
    min_score: float | None = None,
    alpha: float = 0.0,
) -> list[tuple[str, float]]:
    """The `k` best matches of a photo that was described in several orientations: each photo's score is its best one.

    With `rerank`, the first so many photos of each orientation are put in the order of their regions, and stand before all others.
    With `expand`, one orientation alone is searched for, that whose first `expand` hits have the highest mean score: the photos
    that an orientation finds wrongly would be averaged into its query, and then match it well.

    Args:
        index: see `rw_keras.retrieval.Index`.
        queries: `(T, D)`, a vector for each orientation.
        regions: with `rerank`, the region vectors of each. Default: `queries.regions`, see `Index.search`.
        k, expand, rerank, within, min_score, alpha: see `Index.search`.

    Returns:
        A list of (name, score), best first; see `Index.search`.

    Raises:
        ValueError: as for `Index.search`.
    """
    regions = getattr(queries, "regions", None) if regions is None and rerank is not None else regions
    options = {"rerank": rerank, "regions": regions, "within": within}
    check_count("k", k)
    check_expansion(expand, alpha)
    first = 0 if rerank is None else Rerank.of(rerank).count
    positions, scores = index.nearest_batch(queries, max(int(k), first, expand or 1), **options)
    if (expand or 1) > 1:
        best = best_orientation(scores, expand)
        options["regions"] = None if regions is None else [regions[best]]
        options |= {"min_score": min_score, "alpha": alpha}
        return index.search_batch(np.asarray(queries)[best][None], k, expand, **options)[0]
    order = merged(positions, scores, first)[: int(k)]
    found = zip(index.named(positions.ravel()[order].tolist()), scores.ravel()[order].tolist())
    return [(name, score) for name, score in found if min_score is None or score >= min_score]


def merged(positions: np.ndarray, scores: np.ndarray, first: int = 0) -> np.ndarray:
    """The one ranking that the rankings of several orientations make: each photo where its best score puts it.

    Args:
        positions, scores: `(T, K)`, the rankings.
        first: how many of each are re-ranked; these stand before all others.

    Returns:
        Where the photos of that ranking stand in `positions.ravel()`, best first.
    """
    follows = np.broadcast_to(np.arange(scores.shape[1]) >= first, scores.shape).ravel()
    order = np.lexsort((positions.ravel(), -scores.ravel(), follows))
    return order[np.sort(np.unique(positions.ravel()[order], return_index=True)[1])]


def best_orientation(scores: np.ndarray, expand: int) -> int:
    """Which of the orientations with the scores `(T, K)` is expanded: the one whose first `expand` have the highest mean."""
    return int(scores[:, :expand].mean(axis=1).argmax()) if scores.shape[1] else 0
