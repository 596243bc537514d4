"""Changes of an index, which count all together: what `rw_keras.retrieval.writer.Writer` does once it holds the lock."""

from __future__ import annotations

import contextlib
import itertools
import json
import pathlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from rw_keras.retrieval import queries, sums
from rw_keras.retrieval.queries import Known
from rw_keras.retrieval.regions import Kept, Regions, fitting
from rw_keras.retrieval.row_files import RowFiles
from rw_keras.retrieval.schema import (
    ADDED,
    DATABASE,
    FORMAT,
    Stamp,
    connected,
    fault_bytes,
    fields_of,
    name_bytes,
    names_bytes,
    said,
    stamp_columns,
)

# What became of a photo's region vectors when its descriptor goes; while it stays, nothing takes them away.
_FORGETTING = (
    "CREATE TEMP TRIGGER forget_replaced AFTER UPDATE OF row ON main.photos WHEN OLD.row IS NOT NEW.row "
    "BEGIN DELETE FROM regions WHERE row = OLD.row; END",
    "CREATE TEMP TRIGGER forget_dropped AFTER DELETE ON main.photos BEGIN DELETE FROM regions WHERE row = OLD.row; END",
)
# Photos that one statement puts, which takes half the time of as many statements. Their values are fewer than the 999 that every
# SQLite takes.
_TOGETHER = 64


class Transaction:
    """What is put, marked or dropped belongs to the index once `commit` returns, and then all of it.

    Attributes:
        folder: the index.
        path: the database that is written.
        database: the connection to it.
        about: the fields of the index; see `rw_keras.retrieval.store.Snapshot`.
        files: where the rows go.
    """

    folder: pathlib.Path
    path: pathlib.Path
    database: Any = None
    about: dict[str, Any]
    files: Any = None
    _has_changed = False

    def begin(self, path: pathlib.Path) -> None:
        """Connects to the database `path` of an index, and begins."""
        self.path, self.database = path, connected(path)
        self.database.execute("BEGIN IMMEDIATE")
        self.about = fields_of(self.folder, self.database)
        since = self.about["format"]
        for version in range(since + 1, FORMAT + 1):
            self.database.execute(ADDED[version])
        self._sums = sums.Sums(self.database, self.about.get(sums.FIELD))
        if since < FORMAT:
            self._upgrade()
        for statement in _FORGETTING if self.about.get("regions") else ():
            self.database.execute(statement)
        self.files, self._has_changed = RowFiles(self.folder, self.database, self.about), False

    def _upgrade(self):
        """What later formats have beyond an earlier one: region vectors and excluded names, of which there are none yet. It is the
        same state of the index, so its generation stays."""
        for field, value in {"format": FORMAT, "next_region": self.about.get("next_region", 0)}.items():
            self.about[field] = value
            self._write_field(field, value)
        self._write_sums()
        self.database.execute("COMMIT")
        self.database.execute("BEGIN IMMEDIATE")

    def _write_sums(self):
        self.about[sums.FIELD] = self._sums.values()
        self._write_field(sums.FIELD, self.about[sums.FIELD])

    def end(self) -> None:
        """Closes the database and the files, without what was not committed."""
        if self.database is None:
            return
        if self.files is not None:
            self.files.leave()
        with contextlib.suppress(sqlite3.Error):
            self.database.close()  # what was not committed is rolled back
        self.database = self.files = None

    def commit(self) -> None:
        """Makes what has changed part of the index; it is on the disk when this returns.

        Raises:
            OSError: when it cannot be written. The index is then as it was after the last commit.
        """
        if not self._has_changed:
            return
        try:
            with said(self.folder, DATABASE):
                self.files.count()
                self.about["generation"] += 1
                for field in ("generation", "next_row", "next_region"):
                    self._write_field(field, self.about[field])
                self._write_sums()
                self.database.execute("COMMIT")
                self.database.execute("BEGIN IMMEDIATE")
        except BaseException:
            self._roll_back()
            raise
        self.files.committed()
        self._has_changed = False

    def _roll_back(self):
        # A commit that fails may count all the same, where only the folder could not be synced: no row may be cut off.
        self.files.close()
        self._has_changed = False
        with contextlib.suppress(sqlite3.Error):
            if self.database.in_transaction:
                self.database.execute("ROLLBACK")
            self.database.execute("BEGIN IMMEDIATE")
            self.about = fields_of(self.folder, self.database)
            self._sums.reset(self.about.get(sums.FIELD))
        self.files = RowFiles(self.folder, self.database, self.about)

    # What is known.

    def find(self, names: Sequence[str]) -> dict[str, Known]:
        """What the index knows of photos, by their names; nothing for those that it does not know."""
        return queries.known_of(self.database, names)

    def count(self) -> int:
        """How many descriptors the index holds."""
        return self.database.execute("SELECT count(*) FROM photos WHERE row IS NOT NULL").fetchone()[0]

    def photos(self) -> Iterator[queries.Listed]:
        """All photos, in order."""
        return queries.photos_of(self.database)

    def failures(self) -> list[tuple[str, str]]:
        """(name, reason) of the photos without a descriptor, sorted."""
        return queries.failures_of(self.database)

    def excluded(self) -> set[str]:
        """The names that an update leaves out."""
        return queries.excluded_in(self.database)

    def described(self) -> tuple[np.ndarray, np.ndarray]:
        """The ids and the rows' numbers `(N,)` of all described photos, in order."""
        return queries.described_in(self.database)

    # Changes. They count from the next `commit` on.

    def put(
        self,
        names: Sequence[str],
        descriptors: np.ndarray,
        stamps: Sequence[Stamp | None],
        listed: bool | Sequence[bool | None] | None = True,
        regions: Sequence[Any] | Kept | Regions | None = None,
    ) -> None:
        """Adds descriptors `(n, D)`, or gives photos that are known other ones; those keep their place in the order. Names that are
        excluded are taken back.

        Args:
            names, descriptors, stamps: of n photos.
            listed: whether a source listed them; `None` where that is not known. One for all, or a sequence of one each.
            regions: the region vectors of the n photos, a `PhotoRegions` each, where the index holds such, and only there.

        Raises:
            ValueError: for a name that is none, or region vectors that do not fit.
        """
        listed = listed if isinstance(listed, Sequence) else [listed] * len(names)
        self._put(names, self._append(descriptors, regions), stamps, listed, [None] * len(names))

    def replace(
        self, photos: Sequence[int], descriptors: np.ndarray, regions: Sequence[Any] | Kept | Regions | None = None
    ) -> None:
        """Gives photos, by their ids, other descriptors `(n, D)` and `regions`, as for `put`; their stamps stay."""
        rows = self._append(descriptors, regions)
        self.run("UPDATE photos SET row = ?, fault = NULL WHERE id = ?", list(zip(rows, photos)))

    def fail(self, name: str, reason: str, stamp: Stamp | None, listed: bool | None = True) -> None:
        """Notes a photo that cannot be read; if there was a descriptor of it, it goes."""
        self._put([name], [None], [stamp], [listed], [fault_bytes(reason)])

    def mark(self, name: str, reason: str) -> None:
        """Notes that a photo could not be read now; what the index holds of it stays."""
        self.run("UPDATE photos SET fault = ? WHERE name = ?", [(fault_bytes(reason), name_bytes(name))])

    def renew(self, photos: Iterable[tuple[int, Stamp | None]]) -> None:
        """Notes that photos (by their ids) were found as they had been described, and the stamps they have now."""
        changes = [(*stamp_columns(stamp), number) for number, stamp in photos]
        self.run("UPDATE photos SET size = ?, time = ?, sha256 = ?, listed = 1, fault = NULL WHERE id = ?", changes)

    def drop(self, photos: Iterable[int]) -> None:
        """Takes photos, by their ids, out of the index."""
        photos = [(int(number),) for number in photos]
        self.run("DELETE FROM photos WHERE id = ?", photos)
        if self.database.execute("SELECT 1 FROM metadata_columns").fetchone():
            self.run("DELETE FROM metadata WHERE photo = ?", photos)

    def exclude(self, names: Iterable[str]) -> None:
        """Takes photos out of the index, where they are in it, and lets updates leave their names out from now on."""
        names = list(names)
        self.drop(known.id for known in self.find(names).values())
        self.run("INSERT OR IGNORE INTO excluded VALUES (?)", [(name,) for name in names_bytes(names)])

    def exclude_rest(self, names: Iterable[str]) -> None:
        """Excludes those of names that the index holds no descriptor of."""
        names = list(names)
        held = {name for name, known in self.find(names).items() if known.described}
        self.exclude(name for name in names if name not in held)

    def include(self, names: Iterable[str]) -> None:
        """Takes the exclusion of names back, where they are excluded: the next update describes what its source lists of them."""
        self._include(names_bytes(list(names)))

    def set(self, field: str, value: Any) -> None:
        """Sets a field of the index as a whole to what JSON can hold."""
        if self.about.get(field) != value:
            self.about[field] = value
            self._write_field(field, value)

    def set_metadata(self, metadata: Mapping[str, Sequence[Any]]) -> None:
        """Makes these the metadata: column -> a value for each described photo, in order, of what JSON can hold."""
        known = dict(self.database.execute("SELECT name, id FROM metadata_columns").fetchall())
        ids = self.described()[0].tolist() if metadata else []
        for column in known.keys() - metadata.keys():
            self.run("DELETE FROM metadata WHERE column_id = ?", [(known[column],)])
            self.run("DELETE FROM metadata_columns WHERE id = ?", [(known[column],)])
        for column, values in metadata.items():
            if column not in known:
                self.run("INSERT INTO metadata_columns(name) VALUES (?)", [(column,)])
            (number,) = self.database.execute("SELECT id FROM metadata_columns WHERE name = ?", (column,)).fetchone()
            earlier = queries.metadata_values(self.database, number) if column in known else [None] * len(ids)
            changed = [(number, photo, json.dumps(new)) for photo, old, new in zip(ids, earlier, values) if not _same(old, new)]
            self.run("INSERT OR REPLACE INTO metadata VALUES (?, ?, ?)", changed)

    def update_metadata(self, metadata: Mapping[str, Mapping[str, Any]]) -> None:
        """Sets values of columns, column -> name -> value; names that are not in the index are passed over, other values stay."""
        for column, values in metadata.items():
            self.set_values(column, [(name_bytes(name), json.dumps(value)) for name, value in values.items()])

    def set_values(self, column: str, values: Iterable[tuple[bytes, str]]) -> None:
        """Sets values of one column, made where it is not there: (name as it is kept, value in JSON) each."""
        self.run("INSERT OR IGNORE INTO metadata_columns(name) VALUES (?)", [(column,)])
        self.run(
            "INSERT OR REPLACE INTO metadata SELECT (SELECT id FROM metadata_columns WHERE name = ?), id, ? FROM photos "
            "WHERE name = ?",
            [(column, value, name) for name, value in values],
        )

    def run(self, statement: str, changes: Sequence[Sequence[Any]]) -> None:
        """Runs a statement that changes the index, once for each sequence of parameters."""
        if changes:
            with said(self.folder, DATABASE):
                self.database.executemany(statement, changes)
            self._has_changed = True

    def _include(self, names):
        if self.database.execute("SELECT 1 FROM excluded").fetchone():
            self.run("DELETE FROM excluded WHERE name = ?", [(name,) for name in names])

    def _put(self, names, rows, stamps, listed, faults):
        columns = {"name": names_bytes(names), "row": rows, "listed": listed, "fault": faults}
        self._include(columns["name"])
        if stamps.count(None) < len(stamps):
            columns |= zip(("size", "time", "sha256"), zip(*map(stamp_columns, stamps)))
        # A column that is NULL for all of them is left out: to bind a value takes a tenth of the time that a photo does.
        given = {column: values for column, values in columns.items() if values.count(None) < len(values)}
        photos = list(zip(*given.values()))
        whole = len(photos) - len(photos) % _TOGETHER
        starts = range(0, whole, _TOGETHER)
        together = [list(itertools.chain.from_iterable(photos[start : start + _TOGETHER])) for start in starts]
        self.run(_putting(given, _TOGETHER), together)
        self.run(_putting(given, 1), photos[whole:])

    def _append(self, descriptors, regions):
        kept = fitting(regions, self.about.get("regions"), len(descriptors))
        rows = self.files.append(descriptors).tolist()
        self._has_changed |= bool(rows)
        if kept is not None:  # before a photo has the row: one that is given twice lets go of its first
            entries = zip(rows, self.files.append_regions(kept).tolist(), kept.counts.tolist())
            self.run("INSERT INTO regions VALUES (?, ?, ?)", list(entries))
        return rows

    def _write_field(self, field, value):
        self.run("INSERT OR REPLACE INTO about VALUES (?, ?)", [(field, json.dumps(value))])


def _putting(columns, count):
    """A statement that puts so many photos: their columns, one photo behind the other."""
    photo = f"({', '.join('?' * len(columns))})"
    return (
        f"INSERT INTO photos({', '.join(columns)}) VALUES {', '.join([photo] * count)} "
        "ON CONFLICT(name) DO UPDATE SET row = excluded.row, size = excluded.size, time = excluded.time, "
        "sha256 = excluded.sha256, listed = excluded.listed, fault = excluded.fault"
    )


def _same(old, new):
    """Whether two values are one in JSON, where 1, 1.0 and true are three."""
    return type(old) is type(new) and old == new
