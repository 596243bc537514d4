"""The databases of an index as files: each appears, and takes the place of another, in one step."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import sqlite3
import uuid
from collections.abc import Mapping
from typing import Any

from rw_keras.retrieval.schema import BESIDE, DATABASE, SCHEMA, STRAYS, connected
from rw_keras.retrieval.segments import synced


def create(path: pathlib.Path, fields: Mapping[str, Any]) -> None:
    """Makes the database `path` of an index without photos, with its fields; it appears whole."""
    part = path.with_name(f".part-{uuid.uuid4().hex}.sqlite")
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
        remove(part)
        raise
    synced(path.parent)


def take_place(database: sqlite3.Connection, path: pathlib.Path, there: pathlib.Path) -> None:
    """Lets a database, of which all is committed, take the place of another; closes it.

    Its content is copied, in one transaction of the database that is there. A file that took its place would meet readers that
    have opened that one and not read it yet. SQLite finds the journal of a database by its name, so they would play the new
    one's into the old one, and remove it.

    Args:
        database: the connection to the new one, in a transaction.
        path: its file.
        there: the file of the one whose place it takes; it need not exist.
    """
    is_database = False
    if there.is_file():
        database.execute("ROLLBACK")  # nothing is left to commit, and a copy needs the database free
        try:
            with contextlib.closing(connected(there)) as target:
                database.backup(target, progress=_unless_held)
            is_database = True
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_NOTADB:  # such a file has no reader
                raise
    database.close()
    if is_database:
        remove(path)
    else:
        there.with_name(f"{there.name}-journal").unlink(missing_ok=True)
        os.replace(path, there)
    synced(there.parent)


def _unless_held(status, remaining, total):
    """Ends a copy whose target readers have held for as long as a writer waits; left alone, it would try for ever."""
    if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        error = sqlite3.OperationalError("database is locked")
        error.sqlite_errorcode = status
        raise error


def remove(path: pathlib.Path) -> None:
    """Removes a database and its journal, where they are."""
    path.unlink(missing_ok=True)
    path.with_name(f"{path.name}-journal").unlink(missing_ok=True)


def remove_strays(folder: pathlib.Path, may_be_damaged: bool) -> None:
    """Removes files of rows and searchers that no database names: what an interrupted write has left.

    Args:
        folder: the index.
        may_be_damaged: whether all stays where a database cannot be read, which does not say what is its: that of an index whose
            place another one is to take, or of one that was begun beside it.

    Raises:
        sqlite3.DatabaseError, json.JSONDecodeError: when a database is damaged, and may not be.
    """
    named = set()
    for path in (folder / DATABASE, folder / BESIDE):
        if path.is_file():
            try:
                with contextlib.closing(connected(path)) as database:
                    named |= {file for (file,) in database.execute("SELECT file FROM segments")}
                    searcher = database.execute("SELECT value FROM about WHERE field = 'searcher'").fetchone()
                    named.add(json.loads(searcher[0]).get("file") if searcher else None)
            except (sqlite3.DatabaseError, json.JSONDecodeError):
                if may_be_damaged:
                    return
                raise
    for path in folder.iterdir():
        if path.name.startswith(STRAYS) and path.name not in named:
            path.unlink(missing_ok=True)
