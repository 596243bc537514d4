"""The exact search: every product is looked at, and equal vectors have equal cosines."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import numpy as np

from rw_keras.retrieval import narrow
from rw_keras.retrieval.rows import Rows

# Numbers held at a time: 16 MB; products stay in a processor's cache until they are compared.
_TILE = 1 << 22
# Groups of rows of the first tile that are compared to see how good a hit has to be.
_GROUPS = 1024
# Scores below all others, but above -inf, which marks the rows that are not to be found.
_LOWEST = np.finfo("float32").min


def cosines(vectors: np.ndarray, query: np.ndarray) -> np.ndarray:
    """The cosines `(N,)` of unit vectors `(N, D)` with one `(D,)`, or each with its own `(N, D)`; float32, in C order.

    A matrix product may round equal rows unequally, by where they lie and how many there are. This treats every row alike.
    """
    return np.einsum("nd,d->n" if query.ndim == 1 else "nd,nd->n", vectors, query)


def rounding(dimensions: int) -> float:
    """More than the difference of two ways of adding up the products of two unit vectors in float32."""
    return max(1e-5, 2e-8 * dimensions)


def nearest(rows: Rows, queries: np.ndarray, k: int, passing: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The `k` rows with the highest cosine for each query; equal cosines in the order of the positions.

    Rows are multiplied in blocks with all queries. The product finds the candidates, and `cosines` decides between them, so
    the result depends neither on the blocks nor on the other queries.

    Args:
        rows: what is searched.
        queries: `(Q, D)` float32, of unit length or zero.
        k: how many; all, where there are fewer.
        passing: a mask by position of the rows that may be found. Default: all.

    Returns:
        Positions `(Q, k)` and cosines `(Q, k)` float32, best first.
    """
    count = len(rows) if passing is None else int(np.count_nonzero(passing))
    k = min(k, count)
    positions, scores = np.empty((len(queries), k), np.intp), np.zeros((len(queries), k), "float32")
    if positions.size == 0:
        return positions, scores
    asked = queries.any(axis=1)
    # Nothing is like a zero query: every cosine is 0.
    positions[~asked] = np.arange(k) if passing is None else np.flatnonzero(passing)[:k]
    if asked.any():
        search = _everything if k == count else _best
        positions[asked], scores[asked] = search(rows, np.ascontiguousarray(queries[asked]), k, rows.kept(passing))
    return positions, scores


def best_of(
    rows: Rows, queries: np.ndarray, k: int, query: np.ndarray, ids: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The `k` best of the candidates of each query, by `cosines`.

    Args:
        rows, queries, k: see `nearest`.
        query, ids: `(M,)`, one candidate each: the number of a query, ascending, and the id of a row. No pair stands twice.

    Returns:
        query, ids and cosines, by query and then best first.
    """
    scores = np.empty(len(ids), "float32")
    step = max(1, _TILE // queries.shape[1])
    for start in range(0, len(ids), step):
        part = slice(start, start + step)
        vectors, owners = rows.take(ids[part]), query[part]
        bounds = [0, *(np.flatnonzero(np.diff(owners)) + 1), len(owners)]
        for low, high in itertools.pairwise(bounds):
            scores[start + low : start + high] = cosines(vectors[low:high], queries[owners[low]])
    order = np.lexsort((rows.positions(ids), -scores, query))
    query, ids, scores = query[order], ids[order], scores[order]
    kept = np.arange(len(query)) - np.searchsorted(query, query) < k
    return query[kept], ids[kept], scores[kept]


def products(
    blocks: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray | None]], queries: np.ndarray
) -> Iterator[tuple[np.ndarray, int, np.ndarray]]:
    """All products of vectors with queries, in tiles.

    Args:
        blocks: what `Rows.blocks` yields.
        queries: `(Q, D)` float32.

    Yields:
        The ids `(B,)` of the rows of a tile, the number of its first query, and the tile `(B, Q')`, which is -inf where a row is
        skipped, and overwritten when the next is asked for.
    """
    buffer = np.empty(0, "float32")  # one for all tiles: fresh memory costs a third of what the product does
    for ids, vectors, skipped in blocks:
        step = max(1, _TILE // len(vectors))
        for start in range(0, len(queries), step):
            part = queries[start : start + step]
            if buffer.size < len(vectors) * len(part):
                buffer = np.empty(len(vectors) * len(part), "float32")
            tile = buffer[: len(vectors) * len(part)].reshape(len(vectors), len(part))
            np.matmul(vectors, part.T, out=tile)
            if skipped is not None:
                tile[skipped] = -np.inf
            yield ids, start, tile


def _everything(rows, queries, k, kept):
    """All rows, sorted: there are no candidates to be found first."""
    scores, ids, done = np.empty((len(queries), k), "float32"), np.empty(k, np.intp), 0
    for block, vectors, skipped in rows.blocks(kept):
        if skipped is not None:
            block, vectors = block[~skipped], vectors[~skipped]
        ids[done : done + len(block)] = block
        for number, query in enumerate(queries):
            scores[number, done : done + len(block)] = cosines(vectors, query)
        done += len(block)
    positions = rows.positions(ids)
    order = np.argsort(positions)
    positions = positions[order]
    found = np.empty((len(queries), k), np.intp)
    for number in range(len(queries)):
        own = scores[number, order]
        best = np.argsort(-own, kind="stable")
        found[number], scores[number] = positions[best], own[best]
    return found, scores


def _best(rows, queries, k, kept):
    """Fewer than all rows: what reaches the k-th best so far is kept, and sorted now and then."""
    if narrow.suits(rows, queries):
        tiles, off = narrow.products(rows, queries, kept)
    else:
        tiles, off = products(rows.blocks(kept), queries), 0.0
    margin = 2 * (rounding(queries.shape[1]) + off)  # the k-th best and the candidate may each be off by one rounding
    least = np.full(len(queries), _LOWEST, "float32")  # of each query: the k-th best product so far
    held, fresh = [], 0  # (query, ids, products), and how many of them came since they were last sorted
    enough = 2 * k * len(queries) + _TILE // 256
    for block, start, tile in tiles:
        own = least[start : start + tile.shape[1]]
        if own[0] == _LOWEST and len(tile) > k:
            # The k-th best of the best of each of some groups: k rows at least are as good.
            count = min(len(tile), max(_GROUPS, 4 * k))
            groups = tile[: len(tile) // count * count].reshape(count, -1, tile.shape[1]).max(axis=1)
            np.maximum(own, np.partition(groups, count - k, axis=0)[count - k], out=own)
        hits = np.flatnonzero(tile >= np.maximum(own - np.float32(margin), _LOWEST))
        if len(hits):
            row, column = np.divmod(hits, tile.shape[1])
            held.append((start + column, block[row], tile.reshape(-1)[hits]))
            fresh += len(hits)
        if fresh > enough:
            held, fresh = [_fewer(rows, queries, k, held, least, margin)], 0
    query, ids, _ = _fewer(rows, queries, k, held, least, margin)
    _, ids, scores = best_of(rows, queries, k, query, ids)
    return rows.positions(ids).reshape(-1, k), scores.reshape(-1, k)


def _fewer(rows, queries, k, held, least, margin):
    """The candidates that can still be among the k best, by query; raises `least`, the k-th best product of each query."""
    query, ids, scores = (np.concatenate(column) for column in zip(*held))
    order = np.lexsort((-scores, query))
    query, ids, scores = query[order], ids[order], scores[order]
    first, count = np.searchsorted(query, np.arange(len(queries))), np.bincount(query, minlength=len(queries))
    full = count >= k
    least[full] = np.maximum(least[full], scores[first[full] + k - 1])
    kept = scores >= (least - np.float32(margin))[query]
    query, ids, scores = query[kept], ids[kept], scores[kept]
    if len(query) > k * len(queries) + _TILE // 16:
        # So many that differ by no more than rounding are equal vectors mostly, and would be held to the end.
        return best_of(rows, queries, k, query, ids)
    return query, ids, scores
