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
    "blocks": ("segment", "block", "crc32"),
    "metadata_columns": ("id", "name"),
    "metadata": ("column_id", "photo", "value"),
}


def _is_summed(table, prefix=""):
    return f"{prefix}field <> '{FIELD}'" if table == "about" else "1"


def _crc(row):
    return zlib.crc32(repr(row).encode("utf8"))


def of(database: sqlite3.Connection) -> dict[str, int]:
    """Table -> sum, of all rows that there are."""
    found = {}
    for table, columns in TABLES.items():
        rows = database.execute(f"SELECT {', '.join(columns)} FROM {table} WHERE {_is_summed(table)}")
        found[table] = sum(map(_crc, rows)) % 2**64
    return found


class Sums:
    """The sums of a database that is being written: they follow every change made through one connection.

    Args:
        database: a connection; its temporary triggers and a function of its own do the work.
        known: the sums of the state that it is in; `None` where they are not known.

    Attributes:
        values: table -> sum.
    """

    def __init__(self, database: sqlite3.Connection, known: dict[str, int] | None) -> None:
        self.values = of(database) if known is None else dict(known)
        database.execute("PRAGMA temp_store = MEMORY")
        database.execute("PRAGMA recursive_triggers = ON")  # else a row that REPLACE takes away is not seen to go
        database.create_function("sum_row", -1, self._add)
        for table, columns in TABLES.items():
            goes = f"SELECT sum_row('{table}', -1, {', '.join(f'OLD.{column}' for column in columns)});"
            comes = f"SELECT sum_row('{table}', 1, {', '.join(f'NEW.{column}' for column in columns)});"
            for event, rows, steps in ("INSERT", "NEW.", comes), ("UPDATE", "NEW.", goes + comes), ("DELETE", "OLD.", goes):
                database.execute(
                    f"CREATE TEMP TRIGGER sum_{table}_{event} AFTER {event} ON main.{table} WHEN {_is_summed(table, rows)} "
                    f"BEGIN {steps} END"
                )

    def _add(self, table, sign, *row):
        self.values[table] = (self.values[table] + sign * _crc(row)) % 2**64
