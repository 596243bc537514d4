"""The one writer of indices; see `rw_keras.retrieval.store`, which has the schema and the reader."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import sqlite3
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import filelock
import numpy as np

from rw_keras.model.recipe import Recipe
from rw_keras.retrieval import old_formats, store, sums
from rw_keras.retrieval.int8 import encoded
from rw_keras.retrieval.segments import BLOCK_ROWS, DamageError, FullTail, Tail, naming, synced
from rw_keras.retrieval.store import (
    BESIDE,
    DATABASE,
    FORMAT,
    LOCK,
    SCHEMA,
    Known,
    Stamp,
    check_target,
    connected,
    fault_bytes,
    fault_text,
    fields_of,
    metadata_values,
    name_bytes,
    said,
    stored_rows,
)


class Writer:
    """The one way to write an index: a context manager that holds its lock.

    What is put, marked or dropped belongs to the index once `commit` returns, and then all of it. A process that ends in whatever
    way before leaves what was committed last.

    Args:
        folder: the index; made where it does not exist.
        recipe: how its descriptors are made, `max_side` among it; `None` where that is not known.
        dimensions: of a descriptor.
        dtype: "float32", "float16" for half the space, or "int8" for a quarter. Default: the index's own, for a new one "float32".
        beside: whether to write a new index, which takes the place of the one that is there when `finish` is called.
        go_on: whether what a killed process left of a new index is gone on with, where it is of this recipe.

    Attributes:
        about: the fields of the index; see `Snapshot`.
        beside: whether what is written is not the index yet.
        is_new: whether there was no index.
        has_converted: whether there was one of an earlier format.

    Raises:
        ValueError: when the folder is something else, another process writes it, or the index was made in another way.
        OSError: when it cannot be written.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        recipe: Mapping[str, Any] | None,
        dimensions: int,
        dtype: str | None = None,
        *,
        beside: bool = False,
        go_on: bool = False,
    ) -> None:
        self.folder = pathlib.Path(folder)
        self._recipe = json.loads(json.dumps(recipe))
        self._dimensions, self._dtype = int(dimensions), dtype
        self.beside, self._go_on, self.has_converted = beside, go_on, False
        self._database: Any = None
        self._forget()

    # The lock, and opening.

    def __enter__(self) -> Writer:
        check_target(self.folder)
        self._made_folder = not self.folder.exists()
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = self.folder / LOCK
        self._lock = filelock.FileLock(lock)
        try:
            self._lock.acquire(timeout=0)  # the system frees it when its process ends, in whatever way
        except filelock.Timeout:
            raise ValueError(f"{self.folder} is being written by another process ({_holder(lock)}); wait for it to end.") from None
        try:
            with naming(lock), open(lock, "r+") as file:
                file.truncate()
                file.write(f"process {os.getpid()}")
            with said(self.folder, DATABASE):
                self._open()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._close()

    def _close(self):
        try:
            self._leave()
        finally:
            self._lock.release()

    def _leave(self):
        if self._database is not None:
            self._leave_files()
            with contextlib.suppress(sqlite3.Error):
                self._database.close()  # what was not committed is rolled back
            self._database = None
        if self.beside and not self._go_on:
            _remove_database(self.folder / BESIDE)
        if not (self.folder / DATABASE).is_file() and not (self.folder / BESIDE).is_file() and not old_formats.is_one(self.folder):
            self._remove_strays()
            (self.folder / LOCK).unlink(missing_ok=True)
            if self._made_folder:
                with contextlib.suppress(OSError):  # something of another's is in it
                    self.folder.rmdir()

    def _open(self):
        there, beside = self.folder / DATABASE, self.folder / BESIDE
        self.is_new = not there.is_file() and not old_formats.is_one(self.folder)
        if not there.is_file() and not self.is_new:
            self._convert()
        elif old_formats.is_one(self.folder):  # a killed process had just converted it
            old_formats.remove(self.folder)
        if not self.beside:
            _remove_database(beside)
        elif not (self._go_on and beside.is_file() and self._is_asked_for(beside)):
            _remove_database(beside)
            self._create(beside)
        if not self.beside and not there.is_file():
            self._create(there)
        self._connect(beside if self.beside else there)
        self._check()
        self._remove_strays()

    def _connect(self, path):
        self._path = path
        self._database = connected(path)
        self._database.execute("BEGIN IMMEDIATE")
        self.about = fields_of(self.folder, self._database)
        self._sums = sums.Sums(self._database, self.about.get(sums.FIELD))
        self._forget()

    def _create(self, path):
        """A database without photos, which appears whole."""
        part = path.with_name(f".part-{uuid.uuid4().hex}.sqlite")
        fields = {
            "format": FORMAT,
            "identity": uuid.uuid4().hex,
            "generation": 0,
            "next_row": 0,
            "recipe": self._recipe,
            "dimensions": self._dimensions,
            "dtype": self._dtype or "float32",
        }
        part.touch()
        try:
            with contextlib.closing(connected(part)) as database:
                database.execute("BEGIN IMMEDIATE")
                for statement in SCHEMA.split(";"):
                    database.execute(statement)
                database.executemany("INSERT INTO about VALUES (?, ?)", [(key, json.dumps(value)) for key, value in fields.items()])
                database.execute("COMMIT")
            os.replace(part, path)
        except BaseException:
            _remove_database(part)
            raise
        synced(self.folder)

    def _is_asked_for(self, beside):
        """Whether the database that a killed process left beside is of the very index that is asked for."""
        try:
            with contextlib.closing(connected(beside)) as database:
                database.execute("BEGIN IMMEDIATE")
                own = fields_of(self.folder, database)
        except (sqlite3.Error, ValueError):
            return False
        asked = (self._recipe, self._dimensions, self._dtype or "float32")
        return (own["recipe"], own["dimensions"], own["dtype"]) == asked

    def _check(self):
        about, folder = self.about, self.folder
        if about["recipe"] is None and self._recipe is not None:
            raise ValueError(
                f"The index {folder} does not say how its descriptors were made, so none can be added in the same way; "
                "choose another name."
            )
        differing = []
        if about["recipe"] != self._recipe:
            differing = Recipe.from_dict(about["recipe"], f"The recipe of {folder}").differences(self._recipe, "the one asked for")
        if about["dimensions"] != self._dimensions:
            differing.append(f"it has {about['dimensions']} dimensions, the one asked for {self._dimensions}")
        if self._dtype not in (None, about["dtype"]):
            differing.append(f"its dtype is {about['dtype']!r}, the one asked for {self._dtype!r}")
        if differing:
            raise ValueError(
                f"The index {folder} was made in another way: {'; '.join(differing)}. Update it as it was made, make it again with "
                "--force (in Python: resume=False), or choose another name."
            )

    def _convert(self):
        """An index of an earlier format becomes one of this format, in one step; nothing is described again."""
        old = old_formats.read(self.folder)
        wanted, self._dtype = self._dtype, old.about["dtype"]
        recipe, self._recipe = self._recipe, old.about["recipe"]
        dimensions, self._dimensions = self._dimensions, old.about["dimensions"]
        beside = self.folder / BESIDE
        _remove_database(beside)
        self._create(beside)
        self._connect(beside)
        for field in ("described_with", "versions", "source", "searcher"):
            if old.about.get(field):
                self.set(field, old.about[field])
        for start in range(0, len(old.names), BLOCK_ROWS):
            part = slice(start, start + BLOCK_ROWS)
            names, stamps = old.names[part], old.stamps[part]
            rows = self._append(old.rows[part])
            listed = [None if stamp is None else True for stamp in stamps]  # a source gave the stamp
            self._upsert(names, rows.tolist(), stamps, listed, [None] * len(names))
        for name, reason, stamp in old.failures:
            self.fail(name, reason, stamp, listed=None)
        self.set_metadata(old.metadata)
        self.commit()
        self._swap()
        old_formats.remove(self.folder)
        self.has_converted = True
        self._dtype, self._recipe, self._dimensions = wanted, recipe, dimensions

    def _swap(self):
        """What was written beside takes the place of the index.

        Its content is copied, in one transaction of the database that is there. A file that took its place would meet readers that
        have opened that one and not read it yet. SQLite finds the journal of a database by its name, so they would play the new
        one's into the old one, and remove it.
        """
        self._leave_files()
        there, is_database = self.folder / DATABASE, False
        if there.is_file():
            self._database.execute("ROLLBACK")  # nothing is left to commit, and a copy needs the database free
            try:
                with contextlib.closing(connected(there)) as target:
                    self._database.backup(target, progress=_unless_held)
                is_database = True
            except sqlite3.DatabaseError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_NOTADB:  # such a file has no reader
                    raise
        self._database.close()
        self._database = None
        if is_database:
            _remove_database(self._path)
        else:
            there.with_name(f"{there.name}-journal").unlink(missing_ok=True)
            os.replace(self._path, there)
        synced(self.folder)

    def _remove_strays(self):
        """Removes files of rows that no database names: what an interrupted write has left."""
        named = set()
        for path in (self.folder / DATABASE, self.folder / BESIDE):
            if path.is_file():
                try:
                    with contextlib.closing(connected(path)) as database:
                        named |= {file for (file,) in database.execute("SELECT file FROM segments")}
                        searcher = database.execute("SELECT value FROM about WHERE field = 'searcher'").fetchone()
                        named.add(json.loads(searcher[0]).get("file") if searcher else None)
                except (sqlite3.DatabaseError, json.JSONDecodeError):
                    if self.beside:
                        return  # a damaged index does not say what is its, until another has taken its place
                    raise
        for path in self.folder.iterdir():
            if path.name.startswith(("rows-", "searcher-", ".part-")) and path.name not in named:
                path.unlink(missing_ok=True)

    # What is known.

    def find(self, names: Sequence[str]) -> dict[str, Known]:
        """What the index knows of photos, by their names; nothing for those that it does not know."""
        found = {}
        for start in range(0, len(names), 500):
            part = [name_bytes(name) for name in names[start : start + 500]]
            query = (
                f"SELECT id, name, row, size, time, sha256, listed, fault FROM photos WHERE name IN ({','.join('?' * len(part))})"
            )
            for number, name, row, size, time, sha256, listed, fault in self._database.execute(query, part):
                stamp = store.stamp_of(size, time, sha256)
                known = None if listed is None else bool(listed)
                found[os.fsdecode(name)] = Known(
                    number, row is not None, stamp, known, None if fault is None else fault_text(fault)
                )
        return found

    def count(self) -> int:
        """How many descriptors the index holds."""
        return self._database.execute("SELECT count(*) FROM photos WHERE row IS NOT NULL").fetchone()[0]

    def photos(self) -> Iterator[store.Listed]:
        """All photos, in order."""
        return store.photos_of(self._database)

    def failures(self) -> list[tuple[str, str]]:
        """(name, reason) of the photos without a descriptor, sorted."""
        return store.failures_of(self._database)

    def described(self) -> tuple[np.ndarray, np.ndarray]:
        """The ids and the rows' numbers `(N,)` of all described photos, in order."""
        return store.described_in(self._database)

    # Changes. They count from the next `commit` on.

    def put(
        self,
        names: Sequence[str],
        descriptors: np.ndarray,
        stamps: Sequence[Stamp | None],
        listed: bool | Sequence[bool | None] | None = True,
    ) -> None:
        """Adds descriptors `(n, D)`, or gives photos that are known other ones; those keep their place in the order."""
        rows = self._append(np.reshape(descriptors, (-1, self.about["dimensions"])))
        listed = listed if isinstance(listed, Sequence) else [listed] * len(names)
        self._upsert(names, rows.tolist(), stamps, listed, [None] * len(names))

    def replace(self, photos: Sequence[int], descriptors: np.ndarray) -> None:
        """Gives photos, by their ids, other descriptors `(n, D)`; their stamps stay."""
        rows = self._append(np.reshape(descriptors, (-1, self.about["dimensions"])))
        self._run("UPDATE photos SET row = ?, fault = NULL WHERE id = ?", list(zip(rows.tolist(), photos)))

    def fail(self, name: str, reason: str, stamp: Stamp | None, listed: bool | None = True) -> None:
        """Notes a photo that cannot be read; if there was a descriptor of it, it goes."""
        self._upsert([name], [None], [stamp], [listed], [reason])

    def mark(self, name: str, reason: str) -> None:
        """Notes that a photo could not be read now; what the index holds of it stays."""
        self._run("UPDATE photos SET fault = ? WHERE name = ?", [(fault_bytes(reason), name_bytes(name))])

    def renew(self, photos: Iterable[tuple[int, Stamp | None]]) -> None:
        """Notes that photos (by their ids) were found as they had been described, and the stamps they have now."""
        changes = [(*_columns(stamp), number) for number, stamp in photos]
        self._run("UPDATE photos SET size = ?, time = ?, sha256 = ?, listed = 1, fault = NULL WHERE id = ?", changes)

    def drop(self, photos: Iterable[int]) -> None:
        """Takes photos, by their ids, out of the index."""
        photos = [(int(number),) for number in photos]
        self._run("DELETE FROM photos WHERE id = ?", photos)
        if self._database.execute("SELECT 1 FROM metadata_columns").fetchone():
            self._run("DELETE FROM metadata WHERE photo = ?", photos)

    def set(self, field: str, value: Any) -> None:
        """Sets a field of the index as a whole to what JSON can hold."""
        if self.about.get(field) != value:
            self.about[field] = value
            self._run("INSERT OR REPLACE INTO about VALUES (?, ?)", [(field, json.dumps(value))])

    def set_metadata(self, metadata: Mapping[str, Sequence[Any]]) -> None:
        """Makes these the metadata: column -> a value for each described photo, in order, of what JSON can hold."""
        known = dict(self._database.execute("SELECT name, id FROM metadata_columns").fetchall())
        ids = self.described()[0].tolist() if metadata else []
        for column in known.keys() - metadata.keys():
            self._run("DELETE FROM metadata WHERE column_id = ?", [(known[column],)])
            self._run("DELETE FROM metadata_columns WHERE id = ?", [(known[column],)])
        for column, values in metadata.items():
            if column not in known:
                self._run("INSERT INTO metadata_columns(name) VALUES (?)", [(column,)])
            (number,) = self._database.execute("SELECT id FROM metadata_columns WHERE name = ?", (column,)).fetchone()
            earlier = metadata_values(self._database, number) if column in known else [None] * len(ids)
            changed = [(number, photo, json.dumps(new)) for photo, old, new in zip(ids, earlier, values) if not _same(old, new)]
            self._run("INSERT OR REPLACE INTO metadata VALUES (?, ?, ?)", changed)

    def update_metadata(self, metadata: Mapping[str, Mapping[str, Any]]) -> None:
        """Sets values of columns, column -> name -> value; names that are not in the index are passed over, other values stay."""
        for column, values in metadata.items():
            self._run("INSERT OR IGNORE INTO metadata_columns(name) VALUES (?)", [(column,)])
            self._run(
                "INSERT OR REPLACE INTO metadata SELECT (SELECT id FROM metadata_columns WHERE name = ?), id, ? FROM photos "
                "WHERE name = ?",
                [(column, json.dumps(value), name_bytes(name)) for name, value in values.items()],
            )

    def _upsert(self, names, rows, stamps, listed, faults):
        self._run(
            "INSERT INTO photos(name, row, size, time, sha256, listed, fault) VALUES (?, ?, ?, ?, ?, ?, ?) "
            "ON CONFLICT(name) DO UPDATE SET row = excluded.row, size = excluded.size, time = excluded.time, "
            "sha256 = excluded.sha256, listed = excluded.listed, fault = excluded.fault",
            [
                (name_bytes(name), row, *_columns(stamp), own, fault_bytes(fault))
                for name, row, stamp, own, fault in zip(names, rows, stamps, listed, faults)
            ],
        )

    def _run(self, statement, changes):
        if changes:
            with said(self.folder, DATABASE):
                self._database.executemany(statement, changes)
            self._changed = True

    # Rows.

    def _forget(self):
        """The state of the files is that of the database."""
        self._tail: Any = None
        self._tails: list[Tail] = []
        self._changed = False

    def _leave_files(self):
        for tail in self._tails:
            tail.leave()
        self._forget()

    def _append(self, vectors):
        """Writes rows to the files; their numbers."""
        vectors = encoded(vectors, self.about["dtype"])
        start, numbers = 0, np.arange(self.about["next_row"], self.about["next_row"] + len(vectors))
        while start < len(vectors):
            if self._tail is None or self._tail.count >= store.SEGMENT_ROWS:
                self._tail = self._next_tail(int(numbers[start]))
                self._tails.append(self._tail)
            part = vectors[start : start + store.SEGMENT_ROWS - self._tail.count]
            self._tail.write(part)
            start += len(part)
        if len(vectors):
            self.about["next_row"] += len(vectors)
            self._changed = True
        return numbers

    def _next_tail(self, row):
        """The segment for a row: the last one, where there is room and its file is whole; else a new one."""
        row_bytes = self._row_bytes()
        last = self._database.execute("SELECT id, file, first, count FROM segments ORDER BY id DESC LIMIT 1").fetchone()
        if self._tail is None and last is not None and last[3] < store.SEGMENT_ROWS and last[2] + last[3] == row:
            path = self.folder / last[1]
            if path.is_file() and path.stat().st_size >= last[3] * row_bytes:
                block = last[3] // BLOCK_ROWS
                crc = self._database.execute(
                    "SELECT crc32 FROM blocks WHERE segment = ? AND block = ?", (last[0], block)
                ).fetchone()
                return Tail(last[0], path, last[2], last[3], crc[0] if crc else 0, row_bytes)
        number = max((last or [0])[0], *(tail.number for tail in self._tails), 0) + 1
        path = self.folder / f"rows-{self.about['identity'][:8]}-{number:05d}.bin"
        return Tail(number, path, row, 0, 0, row_bytes)

    def _row_bytes(self):
        return self.about["dimensions"] * np.dtype(self.about["dtype"]).itemsize

    # Steps that are whole.

    def commit(self) -> None:
        """Makes what has changed part of the index; it is on the disk when this returns.

        Raises:
            OSError: when it cannot be written. The index is then as it was after the last commit.
        """
        if not self._changed:
            return
        try:
            with said(self.folder, DATABASE):
                for tail in self._tails:
                    tail.sync()
                    self._database.execute(
                        "INSERT OR REPLACE INTO segments VALUES (?, 'descriptor', ?, ?, ?)",
                        (tail.number, tail.path.name, tail.first, tail.count),
                    )
                    blocks = [(tail.number, block, crc) for block, crc in tail.crcs.items()]
                    self._database.executemany("INSERT OR REPLACE INTO blocks VALUES (?, ?, ?)", blocks)
                self.about["generation"] += 1
                for field in ("generation", "next_row"):
                    self._set(field, self.about[field])
                self.about[sums.FIELD] = dict(self._sums.values)
                self._set(sums.FIELD, self.about[sums.FIELD])
                self._database.execute("COMMIT")
                self._database.execute("BEGIN IMMEDIATE")
        except BaseException:
            self._roll_back()
            raise
        for tail in self._tails:
            tail.committed()
        for tail in self._tails[:-1]:
            tail.leave()
        self._tails = self._tails[-1:]
        self._changed = False

    def _set(self, field, value):
        self._database.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (field, json.dumps(value)))

    def _roll_back(self):
        # A commit that fails may count all the same, where only the folder could not be synced: no row may be cut off.
        for tail in self._tails:
            tail.close()
        self._forget()
        with contextlib.suppress(sqlite3.Error):
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            self._database.execute("BEGIN IMMEDIATE")
            self.about = fields_of(self.folder, self._database)
            self._sums.values = self.about.get(sums.FIELD) or sums.of(self._database)

    def compact(self) -> None:
        """Writes the rows that are left of half-empty files together, in one step, and removes those files."""
        self.commit()
        emptied = self._emptied()
        if not emptied:
            return
        last = self._database.execute("SELECT max(id) FROM segments").fetchone()[0]
        if last in emptied:
            self._leave_files()
            self._tail = FullTail(last, store.SEGMENT_ROWS)
        with said(self.folder, DATABASE):
            stored = stored_rows(self.folder, self.about, self._database)
            numbers = stored.numbers()
            for number in emptied:
                first, count = emptied[number]
                query = "SELECT id, row FROM photos WHERE row >= ? AND row < ? ORDER BY id"
                left = self._database.execute(query, (first, first + count)).fetchall()
                for start in range(0, len(left), BLOCK_ROWS):
                    part = left[start : start + BLOCK_ROWS]
                    rows = self._append(stored[np.searchsorted(numbers, [row for _, row in part])])
                    moved = [(row, photo) for row, (photo, _) in zip(rows.tolist(), part)]
                    self._run("UPDATE photos SET row = ? WHERE id = ?", moved)
                self._run("DELETE FROM segments WHERE id = ?", [(number,)])
                self._run("DELETE FROM blocks WHERE segment = ?", [(number,)])
        self.commit()

    def _emptied(self):
        """Segment -> its first row and count, of those with more rows that no photo has than rows that one has."""
        found = {}
        for number, first, count in self._database.execute("SELECT id, first, count FROM segments ORDER BY first").fetchall():
            query = "SELECT count(*) FROM photos WHERE row >= ? AND row < ?"
            if 2 * self._database.execute(query, (first, first + count)).fetchone()[0] < count:
                found[number] = first, count
        return found

    def finish(self) -> None:
        """Commits, gives space back, and where the index was written beside another one puts it in its place."""
        self.compact()
        if self.beside:
            with said(self.folder, DATABASE):
                self._swap()
                self.beside, self.is_new = False, False
                self._connect(self.folder / DATABASE)
        self._remove_strays()

    def take_over_rest(self, lossy: bool = False) -> None:
        """For an index that takes the place of another: what of that one is no photo's, its metadata and its searcher, and the rows
        that were added by hand and are not there yet.

        Args:
            lossy: whether what cannot be read of a damaged one is done without.

        Raises:
            DamageError: when that one is damaged, without `lossy`.
        """
        try:
            self._take_over_rest()
        except DamageError:
            if not lossy:
                raise

    def _take_over_rest(self):
        replaced = store.about(self.folder)
        if replaced is None:
            return
        names, rows, stamps = store.added_by_hand(self.folder)
        lacking = [place for place, name in enumerate(names) if not self.find([name])]
        if lacking:
            self.put([names[place] for place in lacking], rows[lacking], [stamps[place] for place in lacking], listed=False)
        if replaced.get("searcher"):
            self.set("searcher", {field: replaced["searcher"][field] for field in ("name", "parameters")})
        for column, values in store.metadata_by_name(self.folder).items():
            self._run("INSERT OR IGNORE INTO metadata_columns(name) VALUES (?)", [(column,)])
            self._run(
                "INSERT OR REPLACE INTO metadata SELECT (SELECT id FROM metadata_columns WHERE name = ?), id, ? FROM photos "
                "WHERE name = ?",
                [(column, value, name) for name, value in values],
            )

    def abandon(self) -> bool:
        """Gives up an index that has never held a descriptor; whether it was one."""
        if self.beside or self.about["next_row"]:
            return False
        self._leave_files()
        self._database.close()
        self._database = None
        _remove_database(self._path)
        return True


def _columns(stamp):
    if stamp is None:
        return None, None, None
    return stamp[0], stamp[1], stamp[2] if len(stamp) > 2 else None


def _same(old, new):
    """Whether two values are one in JSON, where 1, 1.0 and true are three."""
    return type(old) is type(new) and old == new


def _unless_held(status, remaining, total):
    """Ends a copy whose target readers have held for as long as a writer waits; left alone, it would try for ever."""
    if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        error = sqlite3.OperationalError("database is locked")
        error.sqlite_errorcode = status
        raise error


def _remove_database(path):
    path.unlink(missing_ok=True)
    path.with_name(f"{path.name}-journal").unlink(missing_ok=True)


def _holder(path):
    try:
        return path.read_text() or "its number is not known"
    except OSError:
        return "its number is not known"
