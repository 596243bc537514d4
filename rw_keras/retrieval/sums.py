"""Sums over the values of an index's database, by which `rw-keras check` finds one that has changed by itself.

SQLite keeps no checksum of a value. Here each table has the sum of the CRC-32 of its rows, as Python writes them, modulo 2^64, in
the field `sums` of the index. A writer takes the CRC of a row that goes out of the sum and adds that of one that comes, so a value
that was damaged before stays visible in it, whatever is written afterwards.
"""

from __future__ import annotations

import sqlite3
import zlib

FIELD = "sums"
TABLES = {
    "about": ("field", "value"),
    "photos": ("id", "name", "row", "size", "time", "sha256", "listed", "fault"),
    "segments": ("id", "kind", "file", "first", "count"),
    "regions": ("row", "first", "count"),
    "excluded": ("name",),
    "blocks": ("segment", "block", "crc32"),
    "metadata_columns": ("id", "name"),
    "metadata": ("column_id", "photo", "value"),
}


def _is_summed(table, prefix=""):
    return f"{prefix}field <> '{FIELD}'" if table == "about" else "1"


def _crc(row):
    return zlib.crc32(repr(row).encode())


def of(database: sqlite3.Connection) -> dict[str, int]:
    """Table -> sum, of all rows that there are; only for the tables that the index's format has."""
    found = {}
    known = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    for table, columns in TABLES.items():
        if table not in known:
            continue
        rows = database.execute(f"SELECT {', '.join(columns)} FROM {table} WHERE {_is_summed(table)}")
        found[table] = sum(map(_crc, rows)) % 2**64
    return found


class Sums:
    """The sums of a database that is being written: they follow every change made through one connection.

    Args:
        database: a connection; its temporary triggers and functions do the work.
        known: see `reset`.
    """

    def __init__(self, database: sqlite3.Connection, known: dict[str, int] | None) -> None:
        self._database, self._totals = database, dict.fromkeys(TABLES, 0)
        self.reset(known)
        database.execute("PRAGMA temp_store = MEMORY")
        database.execute("PRAGMA recursive_triggers = ON")  # else a row that REPLACE takes away is not seen to go
        for table, columns in TABLES.items():
            # A function for each table and direction: what a trigger hands over with every row takes time.
            comes, goes = _changing(self._totals, table)
            database.create_function(f"comes_to_{table}", len(columns), comes)
            database.create_function(f"goes_from_{table}", len(columns), goes)
            old, new = (", ".join(f"{row}.{column}" for column in columns) for row in ("OLD", "NEW"))
            goes, comes = f"SELECT goes_from_{table}({old});", f"SELECT comes_to_{table}({new});"
            for event, rows, steps in ("INSERT", "NEW.", comes), ("UPDATE", "NEW.", goes + comes), ("DELETE", "OLD.", goes):
                database.execute(
                    f"CREATE TEMP TRIGGER sum_{table}_{event} AFTER {event} ON main.{table} WHEN {_is_summed(table, rows)} "
                    f"BEGIN {steps} END"
                )

    def reset(self, known: dict[str, int] | None) -> None:
        """Takes these for the sums of the state that the database is in; `None`: they are not known, and made of its rows."""
        self._totals.update(of(self._database) if known is None else known)

    def values(self) -> dict[str, int]:
        """Table -> sum."""
        return {table: total % 2**64 for table, total in self._totals.items()}


def _changing(totals, table):
    """Two functions: one for a row that comes to a table, one for a row that goes."""

    def comes(*row):
        totals[table] += _crc(row)

    def goes(*row):
        totals[table] -= _crc(row)

    return comes, goes
