"""An index on disk: one schema, one reader, one writer.

The folder of an index holds a SQLite database, `index.sqlite`, and files of rows beside it. The database says everything but the
vectors: names, stamps, faults, metadata, the recipe, and how many rows of which file are valid, with a checksum for each block of
them. Rows are only appended, and synced before the database counts them, so every state that the database has committed is whole,
whatever happens to the process after it. `docs/collections.md` lists what is promised.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import pathlib
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from rw_keras.retrieval import old_formats, sums
from rw_keras.retrieval.names import Names
from rw_keras.retrieval.segments import BLOCK_ROWS, DamageError, Segment, StoredRows, mapped

FORMAT = 3
DATABASE, LOCK = "index.sqlite", ".lock"
# Where a database grows that takes the place of another when it is whole.
BESIDE = "rebuilt.sqlite"
# A file of 512 dimensions in float32 grows to 128 MB, and a million photos make 16 files.
SEGMENT_ROWS = 65536
DTYPES = ("float32", "float16", "int8")
# Photos that one query reads: its answer is a few MB.
_CHUNK = 65536
# Seconds that a reader waits while a writer commits, and a writer for readers to let it.
_PATIENCE = 60
# What a file of an index is called, so that a folder with nothing else may become one.
_OWN = ("rows-", "searcher-", ".part-", BESIDE)

# `photos.id` is the order of the index. `row` is the number of the photo's row: those of a segment are `first` to `first` + `count`
# - 1, and a number is never used twice. `size`, `time` and `sha256` are the photo's stamp, by which a change is seen. `listed` is 1
# where a source listed the photo, 0 where it was added by hand, NULL where that is not known. `fault` says why it cannot be read.
# A photo with a fault and a row keeps its row. The segments of other vectors of a photo, of which it may have any number, will have
# a `kind` of their own, and a table from photos to their rows.
SCHEMA = """
CREATE TABLE about(field TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE photos(
    id INTEGER PRIMARY KEY, name BLOB NOT NULL UNIQUE, row INTEGER,
    size INTEGER, time INTEGER, sha256 TEXT, listed INTEGER, fault BLOB
);
CREATE TABLE segments(
    id INTEGER PRIMARY KEY, kind TEXT NOT NULL, file TEXT NOT NULL, first INTEGER NOT NULL, count INTEGER NOT NULL
);
CREATE TABLE blocks(segment INTEGER, block INTEGER, crc32 INTEGER NOT NULL, PRIMARY KEY(segment, block)) WITHOUT ROWID;
CREATE TABLE metadata_columns(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE metadata(column_id INTEGER, photo INTEGER, value TEXT NOT NULL, PRIMARY KEY(column_id, photo)) WITHOUT ROWID;
"""

# Size in bytes and time of the last change in nanoseconds, and where it was asked for the SHA-256 of the content.
Stamp = list[Any]


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


@dataclasses.dataclass
class Snapshot:
    """A committed state of an index.

    Attributes:
        folder: where it lies.
        about: fields of the index as a whole: `format`, `identity`, `generation`, `recipe`, `dimensions`, `dtype`, and where they
            are known `described_with`, `versions`, `source`, `searcher`.
        names: of the N described photos, in order.
        ids: `(N,)`, of these photos.
        rows: all rows `(M, D)`, memory-mapped, those that no photo has any longer among them.
        places: `(N,)`, which row is whose; `None`: each in order.
        failures: (name, reason) of the photos without a descriptor, sorted.
        metadata: column -> N values, `None` where there is none.
    """

    folder: pathlib.Path
    about: dict[str, Any]
    names: Sequence[str]
    ids: np.ndarray
    rows: StoredRows
    places: np.ndarray | None
    failures: list[tuple[str, str]]
    metadata: dict[str, list[Any]]

    def numbers(self) -> np.ndarray:
        """The numbers `(N,)` of the described photos' rows."""
        numbers = self.rows.numbers()
        return numbers if self.places is None else numbers[self.places]


def about(folder: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The fields of an index as a whole (see `Snapshot`), `None` where there is none; a ValueError when they cannot be read."""
    folder = pathlib.Path(folder)
    if (folder / DATABASE).is_file():
        with _reading(folder) as database:
            return fields_of(folder, database)
    return old_formats.about(folder)


def read(folder: str | os.PathLike[str]) -> Snapshot:
    """The state of an index that was committed last.

    Raises:
        FileNotFoundError: when there is no index.
        ValueError: when it is damaged (`DamageError`), or of a later version.
    """
    folder = pathlib.Path(folder)
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
    with _reading(folder) as database:
        return _snapshot(folder, fields_of(folder, database), database)


def _of_old(folder, old):
    fields = {**old.about, "identity": None, "generation": None}
    names = Names.of(map(name_bytes, old.names))
    ids = np.arange(len(names))
    failures = sorted((name, reason) for name, reason, _ in old.failures)
    return Snapshot(folder, fields, names, ids, old.rows, None, failures, old.metadata)


def fields_of(folder, database):
    fields = {field: json.loads(value) for field, value in database.execute("SELECT field, value FROM about")}
    if "format" not in fields:
        raise _damaged(folder, "it does not say its format")
    if fields["format"] > FORMAT:
        raise ValueError(
            f"The index at {folder} has format {fields['format']}, and this version of rw_keras reads up to {FORMAT}; install a "
            "later version."
        )
    return fields


def _snapshot(folder, fields, database):
    names, lengths, rows, ids = [], [], [], []
    for chunk in _chunks(
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
        raise _damaged(folder, "it names rows that there are not")
    taken = np.zeros(len(stored), bool)
    taken[places] = True
    if np.count_nonzero(taken) < len(places):
        raise _damaged(folder, "it gives one row to two photos")
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
    )


def described_in(database: sqlite3.Connection) -> tuple[np.ndarray, np.ndarray]:
    """The ids and the rows' numbers `(N,)` of the described photos of an index, in order."""
    both = [[], []]
    for chunk in _chunks(
        database,
        "SELECT count(*), max(id), group_concat(id), group_concat(row) FROM (SELECT id, row FROM photos WHERE row IS NOT NULL "
        "AND id > ? ORDER BY id LIMIT ?)",
    ):
        for column, text in zip(both, chunk):
            column.append(np.fromstring(text, "int64", sep=","))
    ids, rows = (np.concatenate([np.empty(0, "int64"), *column]) for column in both)
    return ids, rows


def _chunks(database, query, *arguments):
    """The answers of a query over photos, so many at a time, without their number and last id. Joined texts take a tenth of the
    memory of so many objects, and a third of the time."""
    last = -1
    while True:
        count, top, *chunk = database.execute(query, (*arguments, last, _CHUNK)).fetchone()
        if not count:
            return
        yield chunk
        last = top


def metadata_values(database, number):
    values: list[Any] = []
    for (text,) in _chunks(
        database,
        "SELECT count(*), max(id), group_concat(coalesce(value, 'null')) FROM (SELECT id, value FROM photos LEFT JOIN metadata "
        "ON column_id = ? AND photo = id WHERE row IS NOT NULL AND id > ? ORDER BY id LIMIT ?)",
        number,
    ):
        values += json.loads(f"[{text}]")
    return values


def stored_rows(folder, fields, database):
    shape = fields["dimensions"]
    segments = []
    for number, file, first, count in database.execute(
        "SELECT id, file, first, count FROM segments WHERE kind = 'descriptor' ORDER BY first"
    ).fetchall():
        checksums = [crc for (crc,) in database.execute("SELECT crc32 FROM blocks WHERE segment = ? ORDER BY block", (number,))]
        if len(checksums) != -(-count // BLOCK_ROWS) or pathlib.PurePath(file).name != file:
            raise _damaged(folder, f"its entry of {file!r} is not whole")
        segments.append(
            Segment(folder / file, mapped(folder / file, (count, shape), fields["dtype"]), first, BLOCK_ROWS, checksums)
        )
    return StoredRows(segments, shape, fields["dtype"])


def photos(folder: str | os.PathLike[str]) -> list[Listed]:
    """All photos of an index, in order; none where there is no index, or one of an earlier format."""
    folder = pathlib.Path(folder)
    if not (folder / DATABASE).is_file():
        return []
    with _reading(folder) as database:
        return list(photos_of(database))


def photos_of(database: sqlite3.Connection) -> Iterator[Listed]:
    """All photos of an index, in order."""
    for number, name, described, listed in database.execute("SELECT id, name, row IS NOT NULL, listed FROM photos ORDER BY id"):
        yield Listed(number, os.fsdecode(name), bool(described), None if listed is None else bool(listed))


def failures_of(database: sqlite3.Connection) -> list[tuple[str, str]]:
    """(name, reason) of the photos without a descriptor, sorted."""
    found = database.execute("SELECT name, fault FROM photos WHERE row IS NULL")
    return sorted((os.fsdecode(name), fault_text(fault)) for name, fault in found)


def added_by_hand(folder: pathlib.Path) -> tuple[list[str], np.ndarray, list[Stamp | None]]:
    """Names, descriptors `(n, D)` and stamps of the photos of an index that no source listed."""
    with _reading(folder) as database:
        fields = fields_of(folder, database)
        query = "SELECT name, row, size, time, sha256 FROM photos WHERE row IS NOT NULL AND listed = 0 ORDER BY id"
        found = database.execute(query).fetchall()
        if not found:
            return [], np.empty((0, fields["dimensions"])), []
        stored = stored_rows(folder, fields, database)
        rows = stored[np.searchsorted(stored.numbers(), [row for _, row, *_ in found])]
    return [os.fsdecode(name) for name, *_ in found], rows, [stamp_of(*stamp) for _, _, *stamp in found]


def metadata_by_name(folder: pathlib.Path) -> dict[str, list[tuple[bytes, str]]]:
    """Column -> (name as it is kept, value in JSON) of an index's photos that have one."""
    with _reading(folder) as database:
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
    with _reading(folder) as database:
        query = "SELECT id, name, row, size, time, sha256, listed FROM photos"
        for number, name, row, size, time, sha256, listed in database.execute(query):
            if row is None:
                failed[os.fsdecode(name)] = stamp_of(size, time, sha256)
            else:
                described[number] = row, stamp_of(size, time, sha256), None if listed is None else bool(listed)
    return described, fields, failed


def stamp_of(size: int | None, time: int | None, sha256: str | None) -> Stamp | None:
    """A stamp of its three columns."""
    return None if size is None else [size, time] if sha256 is None else [size, time, sha256]


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
        with _reading(folder) as database:
            fields = fields_of(folder, database)
            if fields["format"] == FORMAT:
                found += [Damage(DATABASE, words, []) for (words,) in database.execute("PRAGMA integrity_check") if words != "ok"]
            for table, total in sums.of(database).items() if sums.FIELD in fields else ():
                if total != fields[sums.FIELD][table]:
                    found.append(Damage(DATABASE, f"a value of its table {table!r} is not as it was written", []))
            for number, file, first, count in database.execute("SELECT id, file, first, count FROM segments").fetchall():
                found += _damages(folder, fields, database, number, file, first, count)
            if not found:
                _snapshot(folder, fields, database)
            searcher = fields.get("searcher") or {}
            if searcher.get("file") and crc_of(folder / searcher["file"]) != searcher["crc32"]:
                found.append(
                    Damage(searcher["file"], "it is not as it was written; `Index.use_engine` and `save` make it again", [])
                )
    except DamageError as error:
        found.append(Damage(DATABASE, str(error), []))
    return found


def _damages(folder, fields, database, number, file, first, count):
    def photos(start, stop):
        query = "SELECT name FROM photos WHERE row >= ? AND row < ? ORDER BY id"
        return [os.fsdecode(name) for (name,) in database.execute(query, (first + start, first + stop))]

    checksums = [crc for (crc,) in database.execute("SELECT crc32 FROM blocks WHERE segment = ? ORDER BY block", (number,))]
    try:
        array = mapped(folder / file, (count, fields["dimensions"]), fields["dtype"])
    except DamageError as error:
        return [Damage(file, str(error), photos(0, count))]
    return [
        Damage(file, f"rows {start} to {stop - 1} are not as they were written", photos(start, stop))
        for start, stop in Segment(folder / file, array, first, BLOCK_ROWS, checksums).damaged()
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


@contextlib.contextmanager
def _reading(folder):
    """The database in a read transaction: one committed state, whose files no writer takes away before it ends."""
    with said(folder, DATABASE), contextlib.closing(connected(folder / DATABASE)) as database:
        database.execute("BEGIN")
        yield database


def connected(path):
    # "rw" makes no file, and reads one that may not be written, too.
    database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", timeout=_PATIENCE, isolation_level=None, uri=True)
    # What has not been committed stays in memory: a page of it that went to the disk would keep readers out.
    database.execute("PRAGMA cache_spill = OFF")
    database.execute("PRAGMA synchronous = EXTRA")
    return database


@contextlib.contextmanager
def said(folder, file):
    """SQLite's errors as the ones that this package raises."""
    try:
        yield
    except sqlite3.Error as error:
        code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder / file)) from error
        if code == sqlite3.SQLITE_BUSY:
            raise OSError(errno.EAGAIN, f"it was held by another process for {_PATIENCE} seconds", str(folder / file)) from error
        if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
            raise OSError(errno.EIO, str(error), str(folder / file)) from error
        raise _damaged(folder, str(error)) from error
    except (KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError, OverflowError) as error:
        raise _damaged(folder, f"{type(error).__name__}: {error}") from error


def _damaged(folder, why):
    return DamageError(
        f"The index at {folder} cannot be read: {DATABASE}: {why}; restore the file, or make the index again with --force."
    )


def fault_text(fault):
    return bytes(fault or b"").decode("utf8", "surrogatepass")


def fault_bytes(fault):
    return None if fault is None else fault.encode("utf8", "surrogatepass")


def name_bytes(name: str) -> bytes:
    """A name as it is kept.

    Raises:
        ValueError: when it is no string, or holds half a character that stands for no byte.
    """
    if not isinstance(name, str):
        raise ValueError(f"A name is a string, but got {name!r}.")
    try:
        return name.encode("utf8", "surrogateescape")
    except UnicodeEncodeError:
        raise ValueError(f"The name {name!r} holds a lone surrogate, which no file's name does; choose another one.") from None


def check_target(folder: str | os.PathLike[str]) -> pathlib.Path:
    """The folder as a path; a ValueError when it holds something else than an index, or its name cannot be a folder's."""
    path = pathlib.Path(folder)
    if "\0" in str(path):
        raise ValueError(f"The name of an index holds no NUL character, but got {str(path)!r}; choose another name.")
    if not path.exists():
        return path
    own = path.is_dir() and ((path / DATABASE).is_file() or old_formats.is_one(path) or all(map(_is_own, os.listdir(path))))
    if not own:
        raise ValueError(f"{path} exists and is not an index; choose another name.")
    return path


def _is_own(name):
    return name == LOCK or name.startswith((*_OWN, *old_formats.PREFIXES))
