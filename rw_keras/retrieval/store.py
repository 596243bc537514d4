"""What an index on disk holds: its committed states read, and compared with their checksums. `schema` has the tables."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from rw_keras.retrieval import old_formats, sums
from rw_keras.retrieval.names import Names
from rw_keras.retrieval.queries import (
    Known,
    Listed,
    chunks,
    excluded_in,
    failures_of,
    metadata_values,
    photos_after,
    photos_of,
    stored_regions,
    stored_rows,
)
from rw_keras.retrieval.regions import Regions
from rw_keras.retrieval.rows import Rows
from rw_keras.retrieval.schema import (
    DATABASE,
    DTYPES,
    KINDS,
    LOCK,
    Stamp,
    check_target,
    damaged,
    fields_of,
    layout,
    local_path,
    name_bytes,
    reading,
    stamp_of,
)
from rw_keras.retrieval.segments import DamageError, Segment, mapped

__all__ = [
    "DATABASE",
    "DTYPES",
    "LOCK",
    "SEGMENT_ROWS",
    "ByHand",
    "Damage",
    "DamageError",
    "Known",
    "Listed",
    "Snapshot",
    "Stamp",
    "about",
    "added_by_hand",
    "check",
    "check_target",
    "count_listed",
    "crc_of",
    "excluded",
    "metadata_by_name",
    "photos",
    "read",
    "records",
]

# A file of 512 dimensions in float32 grows to 128 MB, and a million photos make 16 files.
SEGMENT_ROWS = 65536


@dataclasses.dataclass
class Snapshot:
    """A committed state of an index.

    Attributes:
        folder: where it lies.
        about: fields of the index as a whole: `format`, `identity`, `generation`, `recipe`, `dimensions`, `dtype`, and where they
            are known `described_with`, `versions`, `source`, `searcher`, `preset`; `regions`: how region vectors are kept (see
            `rw_keras.retrieval.writer.Writer`), where there are any; `search`: see `Index.search_defaults`.
        names: of the N described photos, in order.
        ids: `(N,)`, of these photos.
        rows: all rows `(M, D)` as they are kept, memory-mapped, those that no photo has any longer among them.
        places: `(N,)`, which row is whose; `None`: each in order.
        failures: (name, reason) of the photos without a descriptor, sorted.
        metadata: column -> N values, `None` where there is none.
        regions: the region vectors of the N photos as they are kept, memory-mapped; `None` where the index holds none.
    """

    folder: pathlib.Path
    about: dict[str, Any]
    names: Sequence[str]
    ids: np.ndarray
    rows: Rows
    places: np.ndarray | None
    failures: list[tuple[str, str]]
    metadata: dict[str, list[Any]]
    regions: Regions | None = None

    def numbers(self) -> np.ndarray:
        """The numbers `(N,)` of the described photos' rows."""
        numbers = self.rows.numbers()
        return numbers if self.places is None else numbers[self.places]


def about(folder: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The fields of an index as a whole (see `Snapshot`), `None` where there is none; a ValueError when they cannot be read."""
    folder = local_path(folder)
    if (folder / DATABASE).is_file():
        with reading(folder) as database:
            return fields_of(folder, database)
    return old_formats.about(folder)


def read(folder: str | os.PathLike[str]) -> Snapshot:
    """The state of an index that was committed last.

    Raises:
        FileNotFoundError: when there is no index.
        ValueError: when it is damaged (`DamageError`), or of a later version.
    """
    folder = local_path(folder)
    if not (folder / DATABASE).is_file():
        try:
            old = old_formats.read(folder)
        except DamageError:
            if not (folder / DATABASE).is_file():  # else it has been converted meanwhile
                raise
            old = None
        if old is not None:
            return _of_old(folder, old)
    if not (folder / DATABASE).is_file():
        raise FileNotFoundError(f"There is no index at {folder} (no {DATABASE} in it); make one with `rw-keras index`.")
    with reading(folder) as database:
        return _snapshot(folder, fields_of(folder, database), database)


def _of_old(folder, old):
    fields = {**old.about, "identity": None, "generation": None}
    names = Names.of(map(name_bytes, old.names))
    ids = np.arange(len(names))
    failures = sorted((name, reason) for name, reason, _ in old.failures)
    return Snapshot(folder, fields, names, ids, old.rows, None, failures, old.metadata)


def _snapshot(folder, fields, database):
    names, lengths, rows, ids = [], [], [], []
    for chunk in chunks(
        database,
        "SELECT count(*), max(id), CAST(group_concat(CAST(name AS TEXT), '') AS BLOB), group_concat(length(name)), "
        "group_concat(row), group_concat(id) FROM (SELECT id, name, row FROM photos WHERE row IS NOT NULL AND id > ? "
        "ORDER BY id LIMIT ?)",
    ):
        names.append(chunk[0])
        for column, text in zip((lengths, rows, ids), chunk[1:]):
            column.append(np.fromstring(text, "int64", sep=","))
    lengths, rows, ids = (np.concatenate([np.empty(0, "int64"), *column]) for column in (lengths, rows, ids))
    stored = stored_rows(folder, fields, database)
    numbers = stored.numbers()
    places = np.searchsorted(numbers, rows)
    if len(rows) and (places.max() >= len(numbers) or not np.array_equal(numbers[places], rows)):
        raise damaged(folder, "it names rows that there are not")
    taken = np.zeros(len(stored), bool)
    taken[places] = True
    if np.count_nonzero(taken) < len(places):
        raise damaged(folder, "it gives one row to two photos")
    return Snapshot(
        folder,
        fields,
        Names(b"".join(names), lengths),
        ids,
        stored,
        None if len(places) == len(stored) and np.array_equal(places, np.arange(len(stored))) else places,
        failures_of(database),
        {
            name: metadata_values(database, number)
            for number, name in database.execute("SELECT id, name FROM metadata_columns ORDER BY id")
        },
        stored_regions(folder, fields, database, rows),
    )


def photos(folder: str | os.PathLike[str]) -> Iterator[Listed]:
    """All photos of an index, in order; none where there is no index, or one of an earlier format.

    They are read some at a time, so that a writer need not wait for whoever takes them, and ten million are never in memory.
    """
    folder = pathlib.Path(folder)
    last, page = -1, None
    while (page is None or page) and (folder / DATABASE).is_file():
        with reading(folder) as database:
            page = photos_after(database, last)
        yield from page
        last = page[-1].id if page else last


def excluded(folder: str | os.PathLike[str]) -> set[str]:
    """The names that updates of an index leave out, because their photos were deleted from it; none where there is no index."""
    folder = pathlib.Path(folder)
    if not (folder / DATABASE).is_file():
        return set()
    with reading(folder) as database:
        return excluded_in(database)


class ByHand(NamedTuple):
    """The n photos of an index that no source listed.

    Attributes:
        names, stamps: of each.
        descriptors: `(n, D)`, as they are kept.
        regions: their region vectors; `None` where the index holds none.
    """

    names: list[str]
    descriptors: np.ndarray
    stamps: list[Stamp | None]
    regions: Regions | None


def added_by_hand(folder: pathlib.Path) -> ByHand:
    """The photos of an index that no source listed."""
    with reading(folder) as database:
        fields = fields_of(folder, database)
        query = "SELECT name, row, size, time, sha256 FROM photos WHERE row IS NOT NULL AND listed = 0 ORDER BY id"
        found = database.execute(query).fetchall()
        if not found:
            return ByHand([], np.empty((0, fields["dimensions"])), [], None)
        stored, numbers = stored_rows(folder, fields, database), np.array([row for _, row, *_ in found])
        rows, regions = stored[stored.places(numbers)], stored_regions(folder, fields, database, numbers)
    return ByHand([os.fsdecode(name) for name, *_ in found], rows, [stamp_of(*stamp) for _, _, *stamp in found], regions)


def metadata_by_name(folder: pathlib.Path) -> dict[str, list[tuple[bytes, str]]]:
    """Column -> (name as it is kept, value in JSON) of an index's photos that have one."""
    with reading(folder) as database:
        return {
            column: database.execute(
                "SELECT name, value FROM metadata JOIN photos ON photo = photos.id WHERE column_id = ?", (number,)
            ).fetchall()
            for number, column in database.execute("SELECT id, name FROM metadata_columns ORDER BY id").fetchall()
        }


def count_listed(folder: pathlib.Path) -> int:
    """How many descriptors an index holds of photos that a source listed, or may have listed."""
    if not (folder / DATABASE).is_file():
        return len(read(folder).names)
    return sum(photo.described and photo.listed is not False for photo in photos(folder))


def records(
    folder: pathlib.Path, identity: str | None
) -> tuple[dict[int, tuple[int, Stamp | None, bool | None]], dict[str, Any], dict[str, Stamp | None]]:
    """What an index knows of its photos beside their descriptors, for one that is saved elsewhere.

    Args:
        folder: where it lies.
        identity: which index it was; one that has taken its place since knows nothing of use.

    Returns:
        id -> (number of the row, stamp, whether a source listed it) of the described photos; the fields of the index as a whole;
        and name -> stamp of those that could not be read.
    """
    fields = about(folder) if folder.is_dir() else None
    if fields is None or fields.get("identity") != identity:
        return {}, {}, {}
    if identity is None:
        old = old_formats.read(folder)
        if old is None:
            return {}, {}, {}
        known = {number: (number, stamp, stamp is not None or None) for number, stamp in enumerate(old.stamps)}
        return known, fields, {name: stamp for name, _, stamp in old.failures}
    described, failed = {}, {}
    with reading(folder) as database:
        query = "SELECT id, name, row, size, time, sha256, listed FROM photos"
        for number, name, row, size, time, sha256, listed in database.execute(query):
            if row is None:
                failed[os.fsdecode(name)] = stamp_of(size, time, sha256)
            else:
                described[number] = row, stamp_of(size, time, sha256), None if listed is None else bool(listed)
    return described, fields, failed


@dataclasses.dataclass(frozen=True)
class Damage:
    """Something of an index that is not as it was written.

    Attributes:
        file: which file.
        what: in words.
        photos: names of the photos whose descriptors are concerned; empty where that is all, or not known.
    """

    file: str
    what: str
    photos: list[str]


def check(folder: str | os.PathLike[str]) -> list[Damage]:
    """Reads all of an index and compares it with its checksums.

    Raises:
        FileNotFoundError: when there is no index.
        ValueError: when its version is a later one.
    """
    folder = pathlib.Path(folder)
    if not (folder / DATABASE).is_file():
        if not old_formats.is_one(folder):
            read(folder)  # says that there is none
        words = "it is not as it was written"
        return [Damage(file, words, photos) for file, photos in old_formats.damaged_files(folder)]
    found = []
    try:
        with reading(folder) as database:
            fields = fields_of(folder, database)
            found += [Damage(DATABASE, words, []) for (words,) in database.execute("PRAGMA integrity_check") if words != "ok"]
            for table, total in sums.of(database).items() if sums.FIELD in fields else ():
                if total != fields[sums.FIELD][table]:
                    found.append(Damage(DATABASE, f"a value of its table {table!r} is not as it was written", []))
            for number, kind, file, first, count in database.execute("SELECT * FROM segments").fetchall():
                found += _damages(folder, fields, database, number, kind, file, first, count)
            if not found:
                snapshot = _snapshot(folder, fields, database)
                if snapshot.regions is not None:
                    found += _strange_regions(database, len(snapshot.names))
                found += _strange_exclusions(database)
            searcher = fields.get("searcher") or {}
            if searcher.get("file") and crc_of(folder / searcher["file"]) != searcher["crc32"]:
                found.append(
                    Damage(searcher["file"], "it is not as it was written; `Index.use_searcher` and `save` make it again", [])
                )
    except DamageError as error:
        found.append(Damage(DATABASE, str(error), []))
    return found


def _strange_regions(database, described):
    """Region vectors of no photo: each entry is that of a described one."""
    (entries,) = database.execute("SELECT count(*) FROM regions").fetchone()
    what = f"it names region vectors of {entries} photos, and {described} are described"
    return [Damage(DATABASE, what, [])] if entries != described else []


def _strange_exclusions(database):
    """Names that are excluded and of the index's photos: each is one or the other."""
    both = sorted(excluded_in(database) & {photo.name for photo in photos_of(database)})
    return [Damage(DATABASE, f"it holds {len(both)} photos whose names are excluded", both)] if both else []


def _damages(folder, fields, database, number, kind, file, first, count):
    query = "SELECT name FROM photos WHERE row < ? AND row >= ? ORDER BY id"
    if kind != "descriptor":
        query = "SELECT name FROM photos JOIN regions USING (row) WHERE first < ? AND first + count > ? AND count > 0 ORDER BY id"

    def photos(start, stop):
        return [os.fsdecode(name) for (name,) in database.execute(query, (first + stop, first + start))]

    checksums = [crc for (crc,) in database.execute("SELECT crc32 FROM blocks WHERE segment = ? ORDER BY block", (number,))]
    try:
        dimensions, dtype = layout(fields, kind)
        array = mapped(folder / file, (count, dimensions), dtype)
    except DamageError as error:
        return [Damage(file, str(error), photos(0, count))]
    return [
        Damage(file, f"rows {start} to {stop - 1} are not as they were written", photos(start, stop))
        for start, stop in Segment(folder / file, array, first, KINDS[kind].block_rows, checksums).damaged()
    ]


def crc_of(path: pathlib.Path) -> int | None:
    """The CRC-32 of a file; `None` where there is none."""
    crc = 0
    try:
        with open(path, "rb") as file:
            while part := file.read(1 << 20):
                crc = zlib.crc32(part, crc)
    except FileNotFoundError:
        return None
    return crc
