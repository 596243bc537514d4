"""Milvus as a searcher: it finds candidates, and their vectors, which come with them, say the exact cosines."""

from __future__ import annotations

from typing import Any

import numpy as np

from rw_keras.retrieval import exact
from rw_keras.retrieval.milvus.connection import MOST_HITS
from rw_keras.retrieval.milvus.layout import Structure, of_fields
from rw_keras.retrieval.milvus.views import MilvusRows, View, widened
from rw_keras.retrieval.milvus.words import name_of

# Candidates beyond k: what rounding may have put behind the last hit, and what a structure may that searches by short codes. Where
# more tie with the last hit, more are asked for.
_MARGIN, _OF_CODES = 4, 32
# Hits, with their vectors, that one request asks for: 8 MB of 512 dimensions.
_HITS = 4096


class MilvusSearcher:
    """What searches an index in Milvus; see `rw_keras.retrieval.searchers.NumpySearcher` for the methods.

    A query that Milvus finds too few rows for, as its approximate structures may, is asked again as thoroughly as they can, and
    then answered by looking at every row.

    Args:
        view: of the index.
        structure: what Milvus searches by.
    """

    built = has_changed = False

    def __init__(self, view: View, structure: Structure) -> None:
        self._view, self.structure = view, structure
        self.name, self.parameters = structure.name, dict(structure.parameters)

    def nearest(self, rows: MilvusRows, queries: np.ndarray, k: int, passing: str | None = None) -> tuple[np.ndarray, np.ndarray]:
        """See `rw_keras.retrieval.exact.nearest`; positions are ids, and `passing` is an expression.

        Raises:
            ValueError: for more than 16 384 hits, which is what Milvus gives.
        """
        if k > MOST_HITS:
            raise ValueError(
                f"Milvus gives up to {MOST_HITS} hits of a query, but got k = {k}; ask for fewer, or `pull` the index."
            )
        where = passing or ""
        asked = np.flatnonzero(queries.any(axis=1))
        found: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        margin = _OF_CODES if self.name == "milvus-ivf-sq8" else _MARGIN
        limit = min(k + margin, MOST_HITS)
        open_ = asked
        while len(open_):
            answers = self._candidates(queries[open_], limit, where)
            again = []
            for number, (ids, vectors, lowest) in zip(open_.tolist(), answers):
                found[number] = _best(ids, vectors, queries[number], k)
                scores = found[number][1]
                # As good as the last hit: others may be so, too, which come earlier in the index.
                ties = len(ids) == limit and lowest >= scores[-1] - exact.rounding(queries.shape[1])
                if ties and limit < MOST_HITS:
                    again.append(number)
            open_, limit = np.array(again, int), min(8 * limit, MOST_HITS)
        return self._whole(rows, queries, k, where, found)

    def _whole(self, rows, queries, k, where, found):
        """The hits of all queries, as many of each: where some have fewer than k, as there are."""
        lacking = [number for number in range(len(queries)) if len(found.get(number, ((), ()))[0]) < k]
        if lacking:
            k = min(k, self._view.connection.count(self._view.collections.vectors, where))
            lacking = [number for number in lacking if len(found.get(number, ((), ()))[0]) < k]
            asked = [number for number in lacking if number in found]
            if asked and self.structure.asking(1) != self.structure.asking(1, True):
                answers = self._candidates(queries[asked], min(k + _MARGIN, MOST_HITS), where, True)
                for number, (ids, vectors, _) in zip(asked, answers):
                    found[number] = _best(ids, vectors, queries[number], k)
            lacking = [number for number in lacking if len(found.get(number, ((), ()))[0]) < k]
        zero = [number for number in lacking if number not in found]
        rest = [number for number in lacking if number in found]
        first = self._first(k, where) if zero else []  # nothing is like a zero query
        every = all_of(rows, queries[rest], k, where) if rest else None
        # Rows that are not committed yet, or leave meanwhile, are counted, and do not come.
        k = min([k, *([len(first)] if zero else []), *([every[0].shape[1]] if rest else [])])
        positions, scores = np.empty((len(queries), k), "int64"), np.zeros((len(queries), k), "float32")
        for number, (ids, own) in found.items():
            count = min(k, len(ids))
            positions[number, :count], scores[number, :count] = ids[:count], own[:count]
        if zero:
            positions[zero] = first[:k]
        if rest:
            positions[rest], scores[rest] = every[0][:, :k], every[1][:, :k]
        return positions, scores

    def _candidates(self, queries, limit, where, thorough=False):
        """For each query ids, vectors as float32, and the lowest product that Milvus gave: those of one request at a time."""
        view = self._view
        params = {"params": self.structure.asking(limit, thorough)}
        step = max(1, _HITS // limit)
        for start in range(0, len(queries), step):
            hits = view.connection.search(
                view.collections.vectors, queries[start : start + step], limit, ["name", "vector"], where, params
            )
            for own in hits:
                yield self._answer(own, queries.shape[1])

    def _answer(self, hits, dimensions):
        view, hits = self._view, list(hits)  # each way through pymilvus' own sequence makes all of them again
        if not hits:
            return np.empty(0, "int64"), np.empty((0, dimensions), "float32"), -np.inf
        ids = np.array([hit["id"] for hit in hits], "int64")
        view.know({hit["id"]: name_of(hit["entity"]["name"]) for hit in hits})
        vectors = of_fields([hit["entity"]["vector"] for hit in hits], view.about["dtype"])
        return ids, widened(vectors), min(hit["distance"] for hit in hits)

    def _first(self, k, where):
        """The ids of the first k rows that hold."""
        ids: list[int] = []
        view = self._view
        for page in view.connection.pages(view.collections.vectors, view.stop, [], where):
            ids += [row["id"] for row in page]
            if len(ids) >= k:
                break
        return ids[:k]


def _best(ids: np.ndarray, vectors: np.ndarray, query: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k best of candidates by their exact cosines; equal ones in the order of the index."""
    scores = exact.cosines(vectors, query)
    order = np.lexsort((ids, -scores))[:k]
    return ids[order], scores[order]


def all_of(rows: Any, queries: np.ndarray, k: int, where: str = "") -> tuple[np.ndarray, np.ndarray]:
    """The k best rows of all that hold, found by looking at every one: ids `(Q, k)` and cosines; fewer columns of fewer rows."""
    held_ids, held = np.empty((len(queries), 0), "int64"), np.empty((len(queries), 0), "float32")
    for ids, vectors, _ in rows.blocks(where):
        products = np.stack([exact.cosines(vectors, query) for query in queries])
        held_ids = np.concatenate([held_ids, np.broadcast_to(ids, products.shape)], axis=1)
        held = np.concatenate([held, products], axis=1)
        order = np.stack([np.lexsort((own, -scores))[:k] for own, scores in zip(held_ids, held)])
        held_ids, held = np.take_along_axis(held_ids, order, 1), np.take_along_axis(held, order, 1)
    return held_ids, held
