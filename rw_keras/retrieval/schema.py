"""The schema of an index on disk: its database, and how names, stamps and faults stand in it.

The folder of an index holds a SQLite database, `index.sqlite`, and files of rows beside it. The database says everything but the
vectors: names, stamps, faults, metadata, the recipe, and how many rows of which file are valid, with a checksum for each block of
them. Rows are only appended, and synced before the database counts them, so every state that the database has committed is whole,
whatever happens to the process after it. `docs/collections.md` lists what is promised.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pathlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from rw_keras.model.recipe import with_runtime
from rw_keras.retrieval import old_formats
from rw_keras.retrieval.segments import BLOCK_ROWS, DamageError
from rw_keras.storage import is_url, shown

FORMAT = 5
DATABASE, LOCK = "index.sqlite", ".lock"
# Where a database grows that takes the place of another when it is whole.
BESIDE = "rebuilt.sqlite"
DTYPES = ("float32", "float16", "int8")
# Seconds that a reader waits while a writer commits, and a writer for readers to let it.
_PATIENCE = 60


class Kind(NamedTuple):
    """A kind of rows of an index, which has files of its own.

    Attributes:
        prefix: what the names of its files begin with.
        block_rows: rows that one checksum is over. A file of descriptors is read from end to end, one of region vectors here and
            there, a photo's few at a time: 128 of them are 64 KB.
        length: how many times the rows of a file of descriptors a file holds, so that it has as many bytes.
        is_split: whether rows that are written together may stand in two files. Those of one photo stand in one.
    """

    prefix: str
    block_rows: int
    length: int
    is_split: bool


# Region vectors and boxes have the same numbers: those of one region stand at the same place of both.
KINDS = {
    "descriptor": Kind("rows-", BLOCK_ROWS, 1, True),
    "region": Kind("regions-", 128, 4, False),
    "box": Kind("boxes-", BLOCK_ROWS, 4, False),
}
# The folder, inside that of an index, where extraction on a cluster keeps what it has finished.
FRAGMENTS = "fragments"
# What files are called that go when no database names them.
STRAYS = (*(kind.prefix for kind in KINDS.values()), "searcher-", ".part-")
# What a file of an index is called, so that a folder with nothing else may become one.
_OWN = (*STRAYS, BESIDE, FRAGMENTS)

# What format 4 has beyond format 3, and format 5 beyond format 4.
REGIONS = "CREATE TABLE regions(row INTEGER PRIMARY KEY, first INTEGER NOT NULL, count INTEGER NOT NULL)"
EXCLUDED = "CREATE TABLE excluded(name BLOB PRIMARY KEY) WITHOUT ROWID"
ADDED = {4: REGIONS, 5: EXCLUDED}
# `photos.id` is the order of the index. `row` is the number of the photo's row: those of a segment are `first` to `first` + `count`
# - 1, and a number is never used twice. `size`, `time` and `sha256` are the photo's stamp, by which a change is seen. `listed` is 1
# where a source listed the photo, 0 where it was added by hand, NULL where that is not known. `fault` says why it cannot be read.
# A photo with a fault and a row keeps its row. `regions` has, by the number of a descriptor's row, those of the region vectors that
# were described with it: a descriptor that takes the place of another one never finds that one's. `kind` is one of `KINDS`.
# `excluded` has the names that an update leaves out, of which none is in `photos`.
SCHEMA = (
    """
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
    + f"{REGIONS};\n{EXCLUDED}"
)

# Size in bytes and time of the last change in nanoseconds, and where it was asked for the SHA-256 of the content.
Stamp = list[Any]


def fields_of(folder: pathlib.Path, database: sqlite3.Connection) -> dict[str, Any]:
    """The fields of an index as a whole (see `Snapshot`); a ValueError when its format is a later one, or none."""
    fields = {field: json.loads(value) for field, value in database.execute("SELECT field, value FROM about")}
    if "format" not in fields:
        raise damaged(folder, "it does not say its format")
    if fields["format"] > FORMAT:
        raise ValueError(
            f"The index at {folder} has format {fields['format']}, and this version of rw_keras reads up to {FORMAT}; install a "
            "later version."
        )
    if fields.get("described_with"):
        fields["described_with"] = [with_runtime(entry) for entry in fields["described_with"]]
    return fields


def layout(fields: Mapping[str, Any], kind: str) -> tuple[int, str]:
    """The dimensions and the dtype of the rows of a kind."""
    if kind == "box":
        return 4, "uint16"
    own = fields if kind == "descriptor" else fields["regions"]
    return own["dimensions"], own["dtype"]


@contextlib.contextmanager
def reading(folder: pathlib.Path) -> Iterator[sqlite3.Connection]:
    """The database in a read transaction: one committed state, whose files no writer takes away before it ends."""
    with said(folder, DATABASE), contextlib.closing(connected(folder / DATABASE)) as database:
        database.execute("BEGIN")
        yield database


def connected(path: pathlib.Path) -> sqlite3.Connection:
    """A connection to a database that is there, without a transaction."""
    # "rw" makes no file, and reads one that may not be written, too.
    database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", timeout=_PATIENCE, isolation_level=None, uri=True)
    # What has not been committed stays in memory: a page of it that went to the disk would keep readers out.
    database.execute("PRAGMA cache_spill = OFF")
    database.execute("PRAGMA synchronous = EXTRA")
    return database


@contextlib.contextmanager
def said(folder: pathlib.Path, file: str) -> Iterator[None]:
    """SQLite's errors as the ones that this package raises.

    Raises:
        OSError: for what the system refuses, or another process holds.
        DamageError: for all others, and for what a database holds that this package never writes.
    """
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
        raise damaged(folder, str(error)) from error
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError, UnicodeDecodeError, OverflowError) as error:
        raise damaged(folder, f"{type(error).__name__}: {error}") from error


def damaged(folder: pathlib.Path, why: str) -> DamageError:
    """The error that a database is not as it was written, with the mend."""
    return DamageError(
        f"The index at {folder} cannot be read: {DATABASE}: {why}; restore the file, or make the index again with --force."
    )


def fault_text(fault: bytes | None) -> str:
    """Why a photo cannot be read, of its column."""
    return bytes(fault or b"").decode("utf8", "surrogatepass")


def fault_bytes(fault: str | None) -> bytes | None:
    """Why a photo cannot be read, as it is kept."""
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


def names_bytes(names: Sequence[str]) -> list[bytes]:
    """`name_bytes` of several."""
    try:
        return [name.encode("utf8", "surrogateescape") for name in names]
    except (AttributeError, UnicodeEncodeError):
        return [name_bytes(name) for name in names]  # says which


def local_path(folder: str | os.PathLike[str]) -> pathlib.Path:
    """The folder as a path; a ValueError for a URL, since an index is read and written on a disk of this machine."""
    if is_url(folder):
        raise ValueError(
            f"{shown(folder)} is no folder on this machine; `rw-keras pull URL NAME` fetches an index from there, and "
            "`rw-keras push NAME URL` sends one."
        )
    return pathlib.Path(folder)


def check_target(folder: str | os.PathLike[str]) -> pathlib.Path:
    """The folder as a path; a ValueError when it holds something else than an index, or its name cannot be a folder's."""
    path = local_path(folder)
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


def stamp_of(size: int | None, time: int | None, sha256: str | None) -> Stamp | None:
    """A stamp of its three columns."""
    return None if size is None else [size, time] if sha256 is None else [size, time, sha256]


def stamp_columns(stamp: Stamp | None) -> tuple[Any, Any, Any]:
    """The three columns of a stamp."""
    if stamp is None:
        return None, None, None
    return stamp[0], stamp[1], stamp[2] if len(stamp) > 2 else None
