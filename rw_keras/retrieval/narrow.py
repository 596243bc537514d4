"""Products of rows of 16 or 8 bits with a few queries, by SimSIMD, which reads the rows as they are kept.

To widen the rows to float32 first takes longer than the products themselves, unless many queries share it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import simsimd

from rw_keras.retrieval.rows import Rows

# Up to so many queries take less time without widening (`benchmarks/search.py`).
_FEW = 8
# Rows that are multiplied at a time: 16 MB of 512 dimensions in 16 bits.
_BLOCK_ROWS = 16384
_LARGEST = 127
# Kernels that add up products of 16 bits in 16 bits, which is too coarse to tell hits apart.
for _capability in ("sapphire", "neon_f16", "sve_f16"):
    simsimd.disable_capability(_capability)


def suits(rows: Rows, queries: np.ndarray) -> bool:
    """Whether these products take less time here than by widening."""
    return len(queries) <= _FEW and rows.stored_dtype in ("float16", "int8")


def products(
    rows: Rows, queries: np.ndarray, kept: np.ndarray | None = None
) -> tuple[Iterator[tuple[np.ndarray, int, np.ndarray]], float]:
    """All products of rows with a few queries, in tiles, as those of `rw_keras.retrieval.exact.products`.

    Queries are rounded as the rows are, those for 8 bits to two terms of 8 bits each.

    Args:
        rows: of 16 or 8 bits.
        queries: `(Q, D)` float32, of unit length.
        kept: a mask by id, see `Rows.kept`.

    Returns:
        The tiles, and a bound on how far the rounding of the queries takes a product from the exact one.
    """
    of = _Halves(queries) if rows.stored_dtype == "float16" else _Bytes(queries)
    # By the Cauchy-Schwarz inequality; rows are of unit length, but for the rounding of their elements.
    return _tiles(rows, queries, kept, of), 1.01 * of.off


def _tiles(rows, queries, kept, of):
    for ids, vectors, skipped in rows.blocks(kept, as_kept=_BLOCK_ROWS):
        # Rows that were added since the index was opened may be wider than those on the disk.
        tile = vectors @ queries.T if vectors.dtype == np.float32 else of.products(vectors)
        if skipped is not None:
            tile[skipped] = -np.inf
        yield ids, 0, tile


class _Halves:
    """Queries `(Q, D)` in 16 bits. `off` is the length of what the rounding takes away, the largest of all queries."""

    def __init__(self, queries):
        self._queries = queries.astype("float16")
        self.off = _longest(queries - self._queries)

    def products(self, vectors):
        return _products(vectors, self._queries)


class _Bytes:
    """The same in 8 bits, as the sum of two terms."""

    def __init__(self, queries):
        self._scales, self._terms, rest = [], [], queries.astype("float64")
        for _ in range(2):
            scale = np.abs(rest).max(axis=1, keepdims=True) / _LARGEST
            term = np.rint(np.divide(rest, scale, out=np.zeros_like(rest), where=scale > 0))
            rest = rest - scale * term
            self._scales.append(scale[:, 0].astype("float32"))
            self._terms.append(term.astype("int8"))
        self._zero = np.zeros((1, queries.shape[1]), "int8")
        self.off = _longest(rest)

    def products(self, vectors):
        found = sum(scale * _products(vectors, term) for scale, term in zip(self._scales, self._terms))
        squares = np.asarray(simsimd.cdist(vectors, self._zero, "sqeuclidean", threads=0), "float32").reshape(-1, 1)
        return np.divide(found, np.sqrt(squares), out=np.zeros_like(found), where=squares > 0)


def _products(vectors, queries):
    """`(B, Q)` float32."""
    # Threads share the rows of the first array.
    return np.asarray(simsimd.cdist(vectors, queries, "dot", threads=0), "float32").reshape(len(vectors), len(queries))


def _longest(vectors):
    return float(np.sqrt(np.einsum("qd,qd->q", vectors, vectors, dtype="float64")).max(initial=0))
