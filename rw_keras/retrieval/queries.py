"""Queries of an index's database: its photos, what is known of them, and where their rows are."""

from __future__ import annotations

import json
import os
import pathlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rw_keras.retrieval.regions import Regions
from rw_keras.retrieval.rows import Rows
from rw_keras.retrieval.schema import KINDS, Stamp, damaged, fault_text, layout, name_bytes, stamp_of
from rw_keras.retrieval.segments import Segment, mapped

# Photos that one query reads: its answer is a few MB.
_CHUNK = 65536
# Photos that are in memory as objects at once, which take 4 MB.
_PAGE = 16384
_LISTED = "SELECT id, name, row IS NOT NULL, listed FROM photos"


class Listed(NamedTuple):
    """A photo of an index: its place in the order, its name, whether there is a descriptor, and whether a source listed it (`None`
    where that is not known)."""

    id: int
    name: str
    described: bool
    listed: bool | None


class Known(NamedTuple):
    """What an index knows of a photo.

    Attributes:
        id: its place in the order of the index.
        described: whether there is a descriptor.
        stamp: by which a change is seen, or `None`.
        listed: whether a source listed it; `None` where that is not known.
        fault: why it could not be read, or `None`.
    """

    id: int
    described: bool
    stamp: Stamp | None
    listed: bool | None
    fault: str | None


def photos_of(database: sqlite3.Connection) -> Iterator[Listed]:
    """All photos of an index, in order."""
    for row in database.execute(f"{_LISTED} ORDER BY id"):
        yield _listed(*row)


def photos_after(database: sqlite3.Connection, last: int) -> list[Listed]:
    """Some photos of an index: those that come after an id, in order; none where there are no more."""
    return [_listed(*row) for row in database.execute(f"{_LISTED} WHERE id > ? ORDER BY id LIMIT ?", (last, _PAGE))]


def _listed(number, name, described, listed):
    return Listed(number, os.fsdecode(name), bool(described), None if listed is None else bool(listed))


def failures_of(database: sqlite3.Connection) -> list[tuple[str, str]]:
    """(name, reason) of the photos without a descriptor, sorted."""
    found = database.execute("SELECT name, fault FROM photos WHERE row IS NULL")
    return sorted((os.fsdecode(name), fault_text(fault)) for name, fault in found)


def known_of(database: sqlite3.Connection, names: Sequence[str]) -> dict[str, Known]:
    """What an index knows of photos, by their names; nothing for those that it does not know."""
    found = {}
    for start in range(0, len(names), 500):
        part = [name_bytes(name) for name in names[start : start + 500]]
        query = f"SELECT id, name, row, size, time, sha256, listed, fault FROM photos WHERE name IN ({','.join('?' * len(part))})"
        found |= map(_known, database.execute(query, part))
    return found


def known_after(database: sqlite3.Connection, last: int, most: int) -> list[tuple[str, Known]]:
    """(name, what is known) of the photos that come after the id `last`, described or not, in order; `most` of them."""
    query = "SELECT id, name, row, size, time, sha256, listed, fault FROM photos WHERE id > ? ORDER BY id LIMIT ?"
    return [_known(found) for found in database.execute(query, (last, most))]


def _known(found):
    number, name, row, size, time, sha256, listed, fault = found
    known = None if listed is None else bool(listed)
    stamp = stamp_of(size, time, sha256)
    return os.fsdecode(name), Known(number, row is not None, stamp, known, None if fault is None else fault_text(fault))


def excluded_in(database: sqlite3.Connection) -> set[str]:
    """The names that updates of an index leave out; none in a format that has no table of them."""
    if database.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'excluded'").fetchone() is None:
        return set()
    return {os.fsdecode(name) for (name,) in database.execute("SELECT name FROM excluded")}


def described_in(database: sqlite3.Connection) -> tuple[np.ndarray, np.ndarray]:
    """The ids and the rows' numbers `(N,)` of the described photos of an index, in order."""
    both = [[], []]
    for chunk in chunks(
        database,
        "SELECT count(*), max(id), group_concat(id), group_concat(row) FROM (SELECT id, row FROM photos WHERE row IS NOT NULL "
        "AND id > ? ORDER BY id LIMIT ?)",
    ):
        for column, text in zip(both, chunk):
            column.append(np.fromstring(text, "int64", sep=","))
    ids, rows = (np.concatenate([np.empty(0, "int64"), *column]) for column in both)
    return ids, rows


def chunks(database: sqlite3.Connection, query: str, *arguments: Any) -> Iterator[list[Any]]:
    """The answers of a query over photos, some at a time.

    Args:
        database: where they are.
        query: it gives one row: how many photos, the last one's id, and more, in which the values of all of them are joined: such
            texts take a tenth of the memory of so many objects, and a third of the time. Its last two parameters are the id that
            the photos come after, and how many.
        *arguments: its parameters before these.

    Yields:
        What the query gives behind the two.
    """
    last = -1
    while True:
        count, top, *chunk = database.execute(query, (*arguments, last, _CHUNK)).fetchone()
        if not count:
            return
        yield chunk
        last = top


def metadata_values(database: sqlite3.Connection, number: int) -> list[Any]:
    """The values `(N,)` of a column, by its id, for the described photos in order; `None` where a photo has none."""
    values: list[Any] = []
    for (text,) in chunks(
        database,
        "SELECT count(*), max(id), group_concat(coalesce(value, 'null')) FROM (SELECT id, value FROM photos LEFT JOIN metadata "
        "ON column_id = ? AND photo = id WHERE row IS NOT NULL AND id > ? ORDER BY id LIMIT ?)",
        number,
    ):
        values += json.loads(f"[{text}]")
    return values


def stored_rows(folder: pathlib.Path, fields: Mapping[str, Any], database: sqlite3.Connection, kind: str = "descriptor") -> Rows:
    """All rows `(M, D)` of a kind as they are kept, those that no photo has any longer among them."""
    dimensions, dtype = layout(fields, kind)
    segments, block_rows = [], KINDS[kind].block_rows
    for number, file, first, count in database.execute(
        "SELECT id, file, first, count FROM segments WHERE kind = ? ORDER BY first", (kind,)
    ).fetchall():
        checksums = [crc for (crc,) in database.execute("SELECT crc32 FROM blocks WHERE segment = ? ORDER BY block", (number,))]
        if len(checksums) != -(-count // block_rows) or pathlib.PurePath(file).name != file:
            raise damaged(folder, f"its entry of {file!r} is not whole")
        segments.append(Segment(folder / file, mapped(folder / file, (count, dimensions), dtype), first, block_rows, checksums))
    return Rows(segments, dimensions, dtype)


def regions_in(folder: pathlib.Path, database: sqlite3.Connection) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The numbers `(n,)` of descriptors' rows, ascending, those of their first region vectors, and how many each has.

    Raises:
        DamageError: when one of them is no number.
    """
    parts = [[], [], []]
    for chunk in chunks(
        database,
        "SELECT count(*), max(row), group_concat(row), group_concat(first), group_concat(count) FROM (SELECT row, first, count "
        "FROM regions WHERE row > ? ORDER BY row LIMIT ?)",
    ):
        for column, text in zip(parts, chunk):
            column.append(np.fromstring(text, "int64", sep=","))
    rows, first, counts = (np.concatenate([np.empty(0, "int64"), *column]) for column in parts)
    if not len(rows) == len(first) == len(counts):  # a value that is no whole number ends its list
        raise damaged(folder, "it has entries of region vectors that are no numbers")
    return rows, first, counts


def stored_regions(
    folder: pathlib.Path, fields: Mapping[str, Any], database: sqlite3.Connection, rows: np.ndarray
) -> Regions | None:
    """The region vectors of photos, by the numbers `(N,)` of their descriptors' rows; `None` where the index holds none.

    Raises:
        DamageError: when one of these rows has no entry, or an entry names region vectors that there are not.
    """
    if not fields.get("regions"):
        return None
    known, first, counts = regions_in(folder, database)
    places = np.searchsorted(known, rows)
    if len(rows) and (places.max() >= len(known) or not np.array_equal(known[places], rows)):
        raise damaged(folder, "it holds descriptors without an entry of their region vectors")
    first, counts = first[places], counts[places]
    vectors, boxes = (stored_rows(folder, fields, database, kind) for kind in ("region", "box"))
    last = first + np.maximum(counts, 1) - 1
    places = [np.where(counts > 0, own.places(first), 0) for own in (vectors, boxes)]
    ends = [np.where(counts > 0, own.places(last), 0) for own in (vectors, boxes)]
    same = np.array_equal(*places) and all(np.array_equal(end, places[0] + last - first) for end in ends)
    if counts.min(initial=0) < 0 or not same or places[0].min(initial=0) < 0:
        raise damaged(folder, "it names region vectors that there are not")
    return Regions(vectors, boxes, places[0], counts)
