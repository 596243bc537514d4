"""Re-ranking: the first photos of a ranking in the order in which their regions match those of the query."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rw_keras.retrieval.regions import Regions
from rw_keras.retrieval.rows import Rows, widened
from rw_keras.retrieval.vectors import check_count, unit_rows, weights

# The power of the cosine that a neighbour's score counts by, and photos whose cosines with all others are computed at a time.
_POWER, _ROWS = 3, 1024
# Numbers of photos' region vectors that are multiplied at a time: 1 MB, which stays in a processor's cache from one step to the
# next. With a sixteenth or sixteen times as many, 400 photos take a third more time.
_PIECE = 1 << 18
# Multiplications of one product, of one photo: OpenBLAS takes larger ones to several threads, whose meeting takes longer than these
# products do, and seconds where the processors have other work.
_PRODUCT = 1 << 18


@dataclasses.dataclass(frozen=True)
class Rerank:
    """How the first photos of a ranking are put in order by their regions: what `Index.search(..., rerank=...)` takes.

    Attributes:
        count: how many are, 1 or more.
        smooth: over how many neighbours each photo's score is averaged, see `smoothed`; 9 is what was measured, in
            `docs/methods.md`. `None`: the score of its own regions alone.

    Raises:
        ValueError: for a number below 1.
    """

    count: int
    smooth: int | None = None

    def __post_init__(self) -> None:
        check_count("rerank", self.count)
        if self.smooth is not None:
            check_count("smooth", self.smooth)

    @classmethod
    def of(cls, given: Any) -> Rerank | None:
        """What was asked for: `given` itself, where it is one or `None`; of a number, so many photos."""
        return given if given is None or isinstance(given, cls) else cls(given)

    @classmethod
    def of_defaults(cls, defaults: Mapping[str, Any]) -> Rerank | None:
        """What the search defaults of an index ask for: their "rerank" and "smooth"."""
        return None if defaults.get("rerank") is None else cls(defaults["rerank"], defaults.get("smooth"))

    def __str__(self) -> str:
        return f"{self.count}" + (f", smoothed over {self.smooth}" if self.smooth else "")


class QueryRegions:
    """The region vectors of a query, which re-ranking compares with those of photos.

    Args:
        vectors: `(R, D)`, finite; they are scaled to unit length. Zero rows, of regions where nothing is, stay, and count for
            nothing.
        boxes: `(R, 4)`: where each lies, as in `rw_keras.model.photo_regions.PhotoRegions`. Optional; no score depends on them.

    Attributes:
        vectors: `(R, D)` float32.
        boxes: `(R, 4)` float32, or `None`.

    Raises:
        ValueError: for numbers of another shape, or that are not finite.
    """

    def __init__(self, vectors: ArrayLike, boxes: ArrayLike | None = None) -> None:
        vectors = np.asarray(vectors)
        infinite = " with such values" if vectors.dtype.kind in "fiu" and not np.isfinite(vectors).all() else ""
        if vectors.ndim != 2 or vectors.dtype.kind not in "fiu" or infinite:
            raise ValueError(
                f"The regions of a query are vectors (R, D) without NaN or infinite values, but got the shape {vectors.shape} of "
                f"{vectors.dtype}{infinite}; describe the photo with `rw_keras.describe(..., regions=True)`."
            )
        self.vectors = unit_rows(vectors.astype("float64", order="C")).astype("float32")
        self.boxes = None if boxes is None else np.asarray(boxes, "float32")
        if self.boxes is not None and self.boxes.shape != (len(vectors), 4):
            raise ValueError(f"There are {len(vectors)} region vectors, but boxes of the shape {self.boxes.shape}; give one each.")

    @classmethod
    def of(cls, given: Any) -> QueryRegions:
        """`given` itself, when it is `QueryRegions`; else those of a `PhotoRegions`, or of vectors `(R, D)`."""
        if isinstance(given, cls):
            return given
        return cls(*given) if isinstance(given, tuple) else cls(given)

    def __len__(self) -> int:
        return len(self.vectors)

    def __repr__(self) -> str:
        return f"<{len(self)} region vectors of a query, {self.vectors.shape[1]} dimensions>"

    def first(self, dimensions: int) -> np.ndarray:
        """The vectors `(R', D)` that are not zero, of so many dimensions: their first ones, of unit length again.

        Raises:
            ValueError: when they have fewer.
        """
        if self.vectors.shape[1] < dimensions:
            raise ValueError(
                f"The query's region vectors have {self.vectors.shape[1]} dimensions, and those of the index {dimensions}; "
                "describe the query with the model that made the index."
            )
        vectors = self.vectors
        if vectors.shape[1] > dimensions:
            vectors = unit_rows(vectors[:, :dimensions].astype("float64")).astype("float32")
        return vectors[vectors.any(axis=1)]


def scores(regions: Regions, positions: np.ndarray, query: np.ndarray) -> np.ndarray:
    """How well the regions of photos match those of a query: the mean, over its vectors, of the highest cosine to one of a photo's.

    A photo without regions, or with zero vectors alone, has -1, the lowest. For a query without any, all have 0. The score of a
    photo depends neither on its place nor on the other photos.

    Args:
        regions: of the index.
        positions: `(P,)`, of the photos in it.
        query: `(Q, D)` float32 of unit length, without zero rows; see `QueryRegions.first`.

    Returns:
        `(P,)` float32.
    """
    found = np.full(len(positions), -1 if len(query) else 0, "float32")
    counts = regions.counts[positions] if len(query) else np.zeros(len(positions), int)
    columns = np.ascontiguousarray(query.T)
    first, last = (place[counts > 0] for place in (regions.first[positions], regions.first[positions] + counts - 1))
    regions.vectors.expect(np.concatenate([first, last]))
    for count in np.unique(counts[counts > 0]).tolist():
        alike = np.flatnonzero(counts == count)  # a product for each photo, all of one shape: equal photos are rounded equally
        step = max(1, _PIECE // (count * len(columns)))
        width = max(1, _PRODUCT // (count * len(columns)))
        buffer = np.empty((min(step, len(alike)), count, len(columns)), "float32")
        for start in range(0, len(alike), step):
            part = alike[start : start + step]
            vectors = buffer[: len(part)]
            kept = regions.vectors[(regions.first[positions[part], None] + np.arange(count)).ravel()]
            widened(kept, vectors.reshape(kept.shape))
            # 8 bits are not of unit length; to divide the products takes a twentieth of what it does to scale the vectors.
            lengths = np.sqrt(np.einsum("prd,prd->pr", vectors, vectors))[:, :, None]
            cosines = np.full((len(part), count, len(query)), -1, "float32")
            for low in range(0, len(query), width):
                own = slice(low, low + width)
                np.divide(vectors @ columns[:, own], lengths, out=cosines[:, :, own], where=lengths > 0)
            found[part] = cosines.max(axis=1).mean(axis=1, dtype="float64")
    return found


def smoothed(values: np.ndarray, vectors: np.ndarray, count: int) -> np.ndarray:
    """Scores averaged with those of photos that show the same: with a photo that matches the query its neighbours rise.

    The neighbours of a photo are those of its `count` nearest that have it among their own `count` nearest (Qin et al., 2011). Each
    counts by the third power of its cosine (as in alpha query expansion: Radenovic, Tolias and Chum, 2019), the photo itself by 1.

    Args:
        values: `(P,)`, the `scores` of photos. Those of -1, which have no regions, stay, and raise no other.
        vectors: `(P, D)` float32, their descriptors.
        count: how many nearest photos are looked at; SuperGlobal's refinement (Shao et al., 2023) takes 9.

    Returns:
        `(P,)` float32.
    """
    matched = np.flatnonzero(values > -1)
    own, total, nearest = vectors[matched], len(matched), min(count, len(matched) - 1)
    if nearest < 1:
        return values
    neighbours, cosines = np.empty((total, nearest), int), np.empty((total, nearest), "float32")
    for start in range(0, total, _ROWS):
        found = own[start : start + _ROWS] @ own.T
        found[np.arange(len(found)), start + np.arange(len(found))] = -np.inf  # none is its own neighbour
        part = np.argpartition(-found, nearest - 1, axis=1)[:, :nearest]
        neighbours[start : start + _ROWS], cosines[start : start + _ROWS] = part, np.take_along_axis(found, part, 1)
    numbers = np.arange(total)[:, None]
    mutual = np.isin(neighbours * total + numbers, numbers * total + neighbours)
    shares = weights(cosines, _POWER) * mutual
    result = values.copy()
    result[matched] = (values[matched] + (shares * values[matched][neighbours]).sum(1)) / (1 + shares.sum(1))
    return result


def reranked(
    regions: Regions, descriptors: Rows, queries: Sequence[np.ndarray], positions: np.ndarray, cosines: np.ndarray, rerank: Rerank
) -> tuple[np.ndarray, np.ndarray]:
    """Rankings whose first photos are in the order of their `scores`, or of what `smoothed` makes of them.

    Equal ones, and the others, stay in their order.

    Args:
        regions: of the index.
        descriptors: of the index.
        queries: for each of Q queries its region vectors; see `scores`.
        positions, cosines: `(Q, K)`, the first ranking of each.
        rerank: how many of the K, and how.

    Returns:
        Positions and scores `(Q, K)`: of the first photos those of their regions, of the others the cosines.
    """
    positions, found = positions.copy(), cosines.copy()
    for query, own, values in zip(queries, positions[:, : rerank.count], found[:, : rerank.count]):
        values[:] = scores(regions, own, query)
        if rerank.smooth is not None and len(query):
            values[:] = smoothed(values, np.asarray(descriptors[own], "float32"), rerank.smooth)
        order = np.argsort(-values, kind="stable")
        own[:], values[:] = own[order], values[order]
    return positions, found
