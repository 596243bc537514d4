"""The nearest other rows of every row of an index: what augmentation and diffusion begin with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from rw_keras.retrieval import places
from rw_keras.retrieval import rows as rows_
from rw_keras.retrieval.vectors import check_count

if TYPE_CHECKING:
    from rw_keras.retrieval.index import Index

# Neighbours held at a time: 48 MB of positions and cosines.
_HELD = 1 << 22


def nearest_others(index: Index, neighbours: int) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """The `neighbours` nearest rows of every row, itself left out, some rows at a time.

    The index's searcher finds them; with "numpy", all rows are multiplied with all. A row is left out by its position, so a copy of
    it counts as another row.

    Yields:
        The positions of B rows as a slice, those of their neighbours `(B, K)`, nearest first, and the cosines `(B, K)` float32.
        K is `neighbours`, or N - 1 where that is less.

    Raises:
        ValueError: for `neighbours` below 1, and an index in Milvus.
    """
    places.check_folder(getattr(index, "place", None), "The search for the neighbours of every row")
    check_count("neighbours", neighbours)
    count = max(min(int(neighbours), len(index) - 1), 0)
    step = max(1, min(rows_.BLOCK_ROWS, _HELD // (count + 1)))
    for start in range(0, len(index), step):
        part = slice(start, min(start + step, len(index)))
        positions, cosines = index.nearest_batch(np.asarray(index.descriptors[part]), count + 1)
        others = positions != np.arange(part.start, part.stop)[:, None]
        # A row that comes behind more equal ones than were asked for is not found itself; the last found is then one too many.
        others[others.all(axis=1), -1] = False
        shape = len(positions), count
        yield part, positions[others].reshape(shape), cosines[others].reshape(shape)
