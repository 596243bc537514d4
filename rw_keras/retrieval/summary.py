"""What an index holds, in numbers: counted in its database, without its rows or the names of its photos."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
from typing import Any

from rw_keras.retrieval import old_formats, queries, schema, store


@dataclasses.dataclass(frozen=True)
class Summary:
    """What an index holds.

    Attributes:
        about: its fields as a whole, see `store.Snapshot`.
        photos: how many have a descriptor.
        left_out: how many have none, because they cannot be read.
        unread: how many of `photos` could not be read when the index was last brought up to date, and keep their descriptors.
        added_by_hand: how many of `photos` no source listed.
        excluded: how many names updates leave out, because their photos were deleted.
        metadata: column -> how many photos have a value there.
        bytes: "rows", "regions", "database" and "searcher" -> the size of these files; those that another process is writing are
            among them.
    """

    about: dict[str, Any]
    photos: int
    left_out: int
    unread: int
    added_by_hand: int
    excluded: int
    metadata: dict[str, int]
    bytes: dict[str, int]


# The beginnings of the names of files, of this format and the earlier ones.
_FILES = {
    "rows": ("rows-", "descriptors-"),
    "regions": ("regions-", "boxes-"),
    "database": (schema.DATABASE, schema.BESIDE, old_formats.MANIFEST, "photos-", "names-", "journal.bin"),
    "searcher": ("searcher-", "engine-"),
}


def summary(folder: str | os.PathLike[str]) -> Summary:
    """Counts what an index holds.

    Raises:
        FileNotFoundError: when there is no index.
        ValueError: when its database is damaged, or of a later version.
    """
    folder = pathlib.Path(folder)
    if not (folder / schema.DATABASE).is_file():
        found = store.read(folder)  # says so where there is none
        values = {column: sum(value is not None for value in values) for column, values in found.metadata.items()}
        return Summary(found.about, len(found.names), len(found.failures), 0, 0, 0, values, _sizes(folder))
    with schema.reading(folder) as database:  # one state, whatever is written meanwhile
        about = schema.fields_of(folder, database)
        counts = database.execute(
            "SELECT count(row), count(*) - count(row), count(CASE WHEN row IS NOT NULL THEN fault END), "
            "count(CASE WHEN listed = 0 THEN row END) FROM photos"
        ).fetchone()
        values = dict(
            database.execute(
                "SELECT name, (SELECT count(row) FROM metadata JOIN photos ON photo = photos.id "
                "WHERE column_id = metadata_columns.id) FROM metadata_columns ORDER BY id"
            )
        )
        excluded = len(queries.excluded_in(database))
    return Summary(about, *counts, excluded, values, _sizes(folder))


def _sizes(folder):
    sizes = dict.fromkeys(_FILES, 0)
    for entry in os.scandir(folder):
        for kind, starts in _FILES.items():
            if entry.name.startswith(starts):
                with contextlib.suppress(FileNotFoundError):  # a writer takes files away
                    sizes[kind] += entry.stat().st_size
    return sizes
