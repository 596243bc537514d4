"""Rows that are almost the same, found by multiplying all with all in blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from rw_keras.retrieval import exact
from rw_keras.retrieval.rows import Rows

# The lowest cosine that float32 may give two equal vectors.
EQUAL = 1 - 1e-6
# Pairs held before the best `limit` of them are sorted out.
_HELD = 1 << 20


def pairs(rows: Rows, threshold: float, limit: int | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pairs of rows with a cosine of at least `threshold`, or the `limit` best of them.

    Args:
        rows: N rows.
        threshold: above 0.
        limit: how many pairs are held at most. Default: as many as there are, 24 bytes each.

    Returns:
        Positions `(M,)` of the first of each pair, of the second (the higher), and cosines, descending; equal cosines by position.
    """
    kept, count, margin = [], 0, exact.rounding(rows.shape[1])
    for one, other, products in _candidates(rows, threshold):
        near = products >= threshold - margin  # the threshold rises with a limit
        one, other = one[near], other[near]
        scores = _cosines(rows, one, other)
        good = scores >= threshold
        if not good.any():
            continue
        one, other = rows.positions(one[good]), rows.positions(other[good])
        kept.append((np.minimum(one, other), np.maximum(one, other), scores[good]))
        count += len(kept[-1][0])
        if limit is not None and count > limit + _HELD:
            kept = [_sorted(kept, limit)]
            count, threshold = limit, max(threshold, kept[0][2][-1])
    return _sorted(kept, limit)


def groups(rows: Rows, threshold: float) -> list[np.ndarray]:
    """The rows that are joined by pairs of at least `threshold`, directly or by way of others.

    The pairs are not held, so the memory does not depend on how many there are.

    Returns:
        Positions of each group of two or more, ascending; the largest group first, equal ones by their first position.
    """
    label = np.arange(rows.ids_given)  # of each row: the lowest id that it is known to be joined with
    sure = threshold + exact.rounding(rows.shape[1])
    for one, other, products in _candidates(rows, threshold):
        _join(label, one[products >= sure], other[products >= sure])
        open_ = label[one] != label[other]
        one, other = one[open_], other[open_]
        good = _cosines(rows, one, other) >= threshold
        _join(label, one[good], other[good])
    return _grouped(label[rows.ids()])


def joined(one: np.ndarray, other: np.ndarray) -> list[np.ndarray]:
    """The groups that pairs of positions make; see `groups`."""
    known, places = np.unique(np.concatenate([one, other]), return_inverse=True)
    label = np.arange(len(known))
    _join(label, places[: len(one)], places[len(one) :])
    return [known[group] for group in _grouped(label)]


def best_pairs(
    found: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]], limit: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs as `pairs` gives them, of lists of such: the best first, and the `limit` best of them."""
    return _sorted(found, limit)


def _grouped(label):
    """The positions of rows with one label, of two or more such."""
    order = np.argsort(label, kind="stable")
    found = np.split(order, np.flatnonzero(np.diff(label[order])) + 1)
    return sorted((group for group in found if len(group) > 1), key=lambda group: (-len(group), group[0]))


def _candidates(rows, threshold) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields ids, ids, and products that rounding may have brought below `threshold`; each pair once."""
    margin = exact.rounding(rows.shape[1])
    kept = rows.kept()
    for first, vectors, skipped in rows.blocks(kept):
        if skipped is not None:
            first, vectors = first[~skipped], vectors[~skipped]
        for second, start, tile in exact.products(rows.blocks(kept, start=int(first[0])), vectors):
            hits = np.flatnonzero(tile >= np.float32(threshold - margin))
            row, column = np.divmod(hits, tile.shape[1])
            one, other = first[start + column], second[row]
            new = one < other
            if new.any():
                yield one[new], other[new], tile.reshape(-1)[hits[new]]


def _cosines(rows, one, other):
    step = 8192
    parts = [
        exact.cosines(rows.take(one[start : start + step]), rows.take(other[start : start + step]))
        for start in range(0, len(one), step)
    ]
    return np.concatenate([np.empty(0, "float32"), *parts])


def _sorted(kept, limit):
    empty = (np.empty(0, np.intp), np.empty(0, np.intp), np.empty(0, "float32"))
    one, other, scores = (np.concatenate(column) for column in zip(empty, *kept))
    order = np.lexsort((other, one, -scores))[:limit]
    return one[order], other[order], scores[order]


def _join(label, one, other):
    """Gives both of each pair the lower of their labels, and so all that have the higher one."""
    while len(one):
        high, low = np.maximum(label[one], label[other]), np.minimum(label[one], label[other])
        apart = high != low
        one, other = one[apart], other[apart]
        np.minimum.at(label, high[apart], low[apart])
        while not np.array_equal(label, label[label]):
            label[:] = label[label]
