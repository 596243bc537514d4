"""The arithmetic of a search: queries put together, rankings with both their measures, and regions that agree."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from rw_keras.model.photo_regions import PhotoRegions
from rw_keras.retrieval import columns, exact, orientations
from rw_keras.retrieval.expansion import expand_query
from rw_keras.retrieval.rerank import QueryRegions, Rerank
from rw_keras.retrieval.vectors import unit_rows, unit_vector
from rw_keras.service.served import State

# What the mean of the negatives counts by, beside that of the positives: Rocchio's gamma over his beta (Manning, Raghavan and
# Schuetze, Introduction to Information Retrieval, 2008, section 9.1.1).
_NEGATIVE = 0.15 / 0.75
# The cosine from which on a hit is the photo that was asked with: rounding, or another compression of the same file, takes equal
# photos below 1.
SAME = 0.9999
# Pairs of regions that are told of a hit.
_PAIRS = 12


@dataclasses.dataclass(frozen=True)
class Options:
    """How a query is searched; queries of one kind are searched together.

    Attributes:
        count: how many hits.
        expand, alpha: see `Index.search`.
        rerank: see `Index.search`.
        within: a prefix, or conditions in words; see `rw_keras.retrieval.columns.condition`.
    """

    count: int
    expand: int | None = None
    alpha: float = 0.0
    rerank: Rerank | None = None
    within: str | tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Query:
    """A query: a vector `(D,)` of unit length, and its region vectors, where there are any."""

    vector: np.ndarray
    regions: PhotoRegions | None = None


@dataclasses.dataclass(frozen=True)
class Found:
    """A ranking.

    Attributes:
        positions: `(n,)`, in the index.
        cosines: `(n,)` float32, with the query, or with the expanded one.
        scores: `(n,)` float32, of the regions of those that were re-ranked; NaN elsewhere.
    """

    positions: np.ndarray
    cosines: np.ndarray
    scores: np.ndarray


def combined(positives: Sequence[Query], negatives: Sequence[Query], dimensions: int) -> Query:
    """One query of several: the mean of the positives, less a fifth of the mean of the negatives.

    Args:
        positives: one or more. One alone is taken as it is.
        negatives: any number.
        dimensions: of the index.

    Returns:
        The query, with the region vectors of all positives together, where each has some.
    """
    mean = np.mean([unit_vector(query.vector, dimensions) for query in positives], axis=0, dtype="float64")
    if negatives:
        away = np.mean([unit_vector(query.vector, dimensions) for query in negatives], axis=0, dtype="float64")
        mean = mean - _NEGATIVE * away
    regions = [query.regions for query in positives]
    together = None
    if all(own is not None for own in regions):
        together = regions[0] if len(regions) == 1 else PhotoRegions(*(np.concatenate(parts) for parts in zip(*regions)))
    return Query(unit_vector(mean, dimensions), together)


def find(state: State, options: Options, queries: Sequence[Query]) -> list[Found]:
    """The rankings of queries, in one pass over the index: the hits of `Index.search_batch`, with their cosines beside the scores.

    Raises:
        DamageError: when the index is damaged.
    """
    index, rerank = state.index, options.rerank
    if not state.photos:
        empty = np.zeros(0, "float32")
        return [Found(np.zeros(0, int), empty, empty) for _ in queries]
    within = mask_of(state, options.within)
    vectors = np.stack([query.vector for query in queries])
    regions = None if rerank is None else [QueryRegions.of(query.regions) for query in queries]
    if (options.expand or 1) > 1:
        vectors = expand_query(vectors, index, options.expand, within=within, alpha=options.alpha, rerank=rerank, regions=regions)
        rerank = regions = None
    positions, values = index.nearest_batch(vectors, options.count, within=within, rerank=rerank, regions=regions)
    found = []
    for vector, own, measured in zip(vectors, positions, values):
        scores = np.full(len(own), np.nan, "float32")
        cosines = measured
        if rerank is not None:
            first = slice(rerank.count)
            scores[first], cosines = measured[first], measured.copy()
            cosines[first] = cosines_of(state, own[first], vector)
        found.append(Found(own, cosines, scores))
    return found


def best_orientation(found: Sequence[Found], expand: int) -> int:
    """Which orientation of a photo is expanded, of their rankings; see `rw_keras.retrieval.orientations.best_orientation`."""
    return orientations.best_orientation(np.stack([_values(own) for own in found]), expand)


def merged(found: Sequence[Found], options: Options) -> Found:
    """The one ranking of those of a photo's orientations; see `rw_keras.retrieval.search_orientations`."""
    first = 0 if options.rerank is None else options.rerank.count
    order = orientations.merged(np.stack([own.positions for own in found]), np.stack([_values(own) for own in found]), first)
    order = order[: options.count]
    return Found(*(np.concatenate([getattr(own, field) for own in found])[order] for field in ("positions", "cosines", "scores")))


def mask_of(state: State, within: str | Sequence[str] | None) -> Any:
    """The rows that a filter in words lets pass, as the index takes it; `None`: all.

    Raises:
        ValueError: for conditions that do not fit the index.
    """
    index = state.index
    return index.passing(within if within is None or isinstance(within, str) else columns.condition(within, index.metadata))


def check_conditions(state: State, within: Sequence[str]) -> None:
    """Raises a ValueError for conditions that do not fit the index."""
    columns.condition(within, state.index.metadata)


def cosines_of(state: State, positions: np.ndarray, query: np.ndarray) -> np.ndarray:
    """The cosines of a query with photos at positions."""
    return exact.cosines(np.asarray(state.index.descriptors[positions], "float32"), query)


def kept(found: Found, min_score: float | None, left_out: np.ndarray) -> Found:
    """A ranking without hits below a score, the measure that each stands by, and without those of a mask `(n,)`."""
    stays = ~left_out
    if min_score is not None:
        stays &= _values(found) >= min_score
    return Found(found.positions[stays], found.cosines[stays], found.scores[stays])


def agreeing(query: PhotoRegions, photo: PhotoRegions) -> list[dict[str, Any]]:
    """What re-ranking compares: for each region of the query the photo's that is most like it, the most alike first.

    Regions of the query where nothing is are left out, and so are pairs whose cosine is not above 0.

    Args:
        query, photo: their region vectors; of those of more dimensions the first ones count.

    Returns:
        `{"query": box, "hit": box, "cosine": float}` each, boxes as shares of the sides.
    """
    if not len(query.vectors) or not len(photo.vectors):
        return []
    dimensions = min(query.vectors.shape[1], photo.vectors.shape[1])
    own, other = (unit_rows(np.asarray(of.vectors, "float64")[:, :dimensions]) for of in (query, photo))
    asked = np.flatnonzero(own.any(axis=1))
    cosines = np.where(other.any(axis=1), own[asked] @ other.T, -1.0)
    best = cosines.argmax(axis=1)
    pairs = sorted(zip(cosines.max(axis=1).tolist(), asked.tolist(), best.tolist()), key=lambda pair: -pair[0])
    return [
        {"query": _box(query.boxes[one]), "hit": _box(photo.boxes[two]), "cosine": min(1.0, cosine)}
        for cosine, one, two in pairs[:_PAIRS]
        if cosine > 0
    ]


def _values(found):
    """What each hit stands by."""
    return np.where(np.isnan(found.scores), found.cosines, found.scores)


def _box(shares):
    return [round(float(share), 5) for share in shares]
