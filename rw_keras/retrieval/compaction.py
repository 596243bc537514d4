"""How half-empty files of rows are given up: what is left of them is written together, to other files."""

from __future__ import annotations

import numpy as np

from rw_keras.retrieval.queries import described_in, regions_in, stored_regions, stored_rows
from rw_keras.retrieval.segments import BLOCK_ROWS
from rw_keras.retrieval.transaction import Transaction


def compact(writer: Transaction) -> None:
    """Moves the rows that are left of half-empty files; it counts from the next `commit` on.

    Args:
        writer: of the index; all that it did before is committed.

    Raises:
        DamageError: when a row that is left is not as it was written.
    """
    _compact_descriptors(writer)
    if writer.about.get("regions"):
        _compact_regions(writer)


def _compact_descriptors(writer):
    _, rows = described_in(writer.database)
    emptied = _emptied(writer, "descriptor", np.sort(rows), np.ones(len(rows), int))
    if not emptied:
        return
    stored = stored_rows(writer.folder, writer.about, writer.database)
    _retire(writer, "descriptor", emptied)
    for first, count in emptied.values():
        query = "SELECT id, row FROM photos WHERE row >= ? AND row < ? ORDER BY id"
        left = writer.database.execute(query, (first, first + count)).fetchall()
        for start in range(0, len(left), BLOCK_ROWS):
            ids, old = zip(*left[start : start + BLOCK_ROWS])
            new = writer.files.append(stored[stored.places(np.array(old))]).tolist()
            if writer.about.get("regions"):  # before the photos have their new rows: the entries of rows that no photo has go
                writer.run("INSERT INTO regions SELECT ?, first, count FROM regions WHERE row = ?", list(zip(new, old)))
            writer.run("UPDATE photos SET row = ? WHERE id = ?", list(zip(new, ids)))
    _remove(writer, emptied)


def _compact_regions(writer):
    """The same of region vectors; their boxes stand at the same places of files of the same lengths."""
    rows, first, counts = regions_in(writer.folder, writer.database)
    order = np.argsort(first, kind="stable")
    rows, first, counts = rows[order], first[order], counts[order]
    emptied = _emptied(writer, "region", first, counts)
    if not emptied:
        return
    stored = stored_regions(writer.folder, writer.about, writer.database, rows)
    boxes = _emptied(writer, "box", first, counts)
    _retire(writer, "region", emptied)
    _retire(writer, "box", boxes)
    for start, count in emptied.values():
        left = np.flatnonzero((first >= start) & (first < start + count) & (counts > 0))
        for part in range(0, len(left), BLOCK_ROWS):
            chosen = left[part : part + BLOCK_ROWS]
            new = writer.files.append_regions(stored.kept(chosen)).tolist()
            writer.run("UPDATE regions SET first = ? WHERE row = ?", list(zip(new, rows[chosen].tolist())))
    _remove(writer, emptied)
    _remove(writer, boxes)


def _emptied(writer, kind, first, counts):
    """Segment -> its first row and count, of those with more rows that no photo has than rows that one has.

    Args:
        writer, kind: of the index, and of its segments.
        first, counts: the numbers of rows that photos have, ascending, and how many from there on.
    """
    behind = np.concatenate([[0], np.cumsum(counts)])
    found = {}
    query = "SELECT id, first, count FROM segments WHERE kind = ? ORDER BY first"
    for number, start, count in writer.database.execute(query, (kind,)).fetchall():
        low, high = np.searchsorted(first, [start, start + count])
        if 2 * (behind[high] - behind[low]) < count:
            found[number] = start, count
    return found


def _retire(writer, kind, segments):
    """Lets rows go to a new segment where the last one is among those that are given up."""
    query = "SELECT max(id) FROM segments WHERE kind = ?"
    if writer.database.execute(query, (kind,)).fetchone()[0] in segments:
        writer.files.retire(kind)


def _remove(writer, segments):
    for table, column in ("segments", "id"), ("blocks", "segment"):
        writer.run(f"DELETE FROM {table} WHERE {column} = ?", [(number,) for number in segments])
