"""A fragment: some photos that follow each other, described, as one Parquet file that any tool reads."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from rw_keras.description.batcher import Window
from rw_keras.description.reader import Reading
from rw_keras.files import extra, printable
from rw_keras.photos.items import Item
from rw_keras.photos.reading import ImageError
from rw_keras.retrieval.regions import Kept, encode
from rw_keras.retrieval.schema import stamp_columns, stamp_of
from rw_keras.retrieval.store import Known, Stamp

# Photos of a fragment, whatever the cluster's size: eight windows, so that a fragment is batched as on one machine.
PHOTOS = 1024
# The key of what a file says of itself, in JSON.
_ABOUT = b"rw_keras"


class Fragment(NamedTuple):
    """Photos that were to be described, and what became of each.

    Attributes:
        names: of the photos, in their order.
        stamps: by which a change of each will be seen.
        faults: why one could not be read; `None` where it could.
        passing: whether such a fault may pass.
        rows: the row of its descriptor, of each; -1 where it has none.
        descriptors: `(n, D)` float32.
        regions: the region vectors of those n, as an index keeps them; `None` where none are kept.
        about: what the file says of itself: `described_with` and `versions` of what computed it, `recipe`, `network_seconds`.
    """

    names: list[str]
    stamps: list[Stamp | None]
    faults: list[str | None]
    passing: list[bool]
    rows: np.ndarray
    descriptors: np.ndarray
    regions: Kept | None
    about: dict[str, Any]

    def window(self, start: int, stop: int, todo: Sequence[tuple[Item, Known | None] | None]) -> Window:
        """A window of it, as `Update.take` takes it.

        Args:
            start, stop: of its photos.
            todo: of each of these, the photo and what the index knows of it now; `None` for one that is not wanted any more.
        """
        readings, places, rows = [], [], []
        for place, wanted in enumerate(todo, start):
            if wanted is None or (wanted[1] is None and self._is_same(place)):
                continue
            item, known = wanted
            error = None if self.faults[place] is None else ImageError(self.faults[place])
            # A run that was killed may have taken it already.
            is_there = known is not None and known.described and None not in (known.stamp, self.stamps[place])
            if self.rows[place] >= 0 and not (is_there and known.stamp == self.stamps[place]):
                places.append(len(readings))
                rows.append(int(self.rows[place]))
            readings.append(Reading(item, known, self.stamps[place], error=error, passing=self.passing[place]))
        return Window(readings, places, self.descriptors[rows], None if self.regions is None else _kept_of(self.regions, rows))

    def _is_same(self, place):
        """Whether a photo was found as the index has it."""
        return self.rows[place] < 0 and self.faults[place] is None


def _kept_of(kept, rows):
    starts = np.cumsum(kept.counts) - kept.counts
    places = [np.arange(starts[row], starts[row] + kept.counts[row]) for row in rows]
    places = np.concatenate([np.empty(0, "int64"), *places])
    return Kept(kept.vectors[places], kept.boxes[places], kept.counts[rows])


def table_of(
    windows: Sequence[Window], regions: dict[str, Any] | None, dimensions: int, binary: bool, about: dict[str, Any]
) -> Any:
    """What became of photos, as a `pyarrow.Table`: a row each, in their order.

    Columns: `name`; `size`, `time` and `sha256`, the photo's stamp; `descriptor`, a list of `dimensions` float32, null where there
    is none; `fault`, why the photo could not be read, and `passing`, whether that may pass; where region vectors are kept
    `regions`, a list of lists of int8 or float16, and `boxes`, a list of four uint16 each. A photo with neither descriptor nor
    fault is as an index has it.

    Args:
        windows: of the photos.
        regions: how region vectors are kept; `None`: not at all.
        dimensions: of a descriptor.
        binary: whether names and faults are kept as bytes, because a name is no text.
        about: what the file says of itself.
    """
    arrow, _ = pyarrow()
    readings = [reading for window in windows for reading in window.readings]
    rows, count = [], 0
    for window in windows:
        own = dict(zip(window.places, range(count, count + len(window.places))))
        rows += [own.get(place) for place in range(len(window.readings))]
        count += len(own)
    rows = arrow.array(rows, arrow.int64())
    descriptors = np.concatenate([np.empty((0, dimensions), "float32"), *(window.descriptors for window in windows)])
    columns = dict(zip(("size", "time", "sha256"), zip(*(stamp_columns(reading.stamp) for reading in readings))))
    faults = [None if reading.error is None else str(reading.error) for reading in readings]
    text = arrow.binary() if binary else arrow.string()
    fields = {
        "name": arrow.array([_kept_text(reading.item.name, binary) for reading in readings], text),
        "size": arrow.array(columns.get("size", []), arrow.int64()),
        "time": arrow.array(columns.get("time", []), arrow.int64()),
        "sha256": arrow.array(columns.get("sha256", []), arrow.string()),
        "descriptor": _lists(arrow, descriptors).take(rows),
        "fault": arrow.array([None if fault is None else _kept_text(fault, binary) for fault in faults], text),
        "passing": arrow.array([reading.passing for reading in readings], arrow.bool_()),
    }
    if regions is not None:
        kept = Kept(*map(np.concatenate, zip(*(encode(window.regions, regions) for window in windows), encode([], regions))))
        offsets = arrow.array(np.concatenate([[0], np.cumsum(kept.counts)]), arrow.int32())
        for field, values in (("regions", kept.vectors), ("boxes", kept.boxes)):
            fields[field] = arrow.ListArray.from_arrays(offsets, _lists(arrow, values)).take(rows)
    return arrow.table(fields).replace_schema_metadata({_ABOUT: json.dumps(about)})


def _lists(arrow, values):
    """An array `(n, D)` as n lists of D."""
    return arrow.FixedSizeListArray.from_arrays(arrow.array(np.ascontiguousarray(values).ravel()), values.shape[1])


def fragment_of(table: Any) -> Fragment:
    """What a table of `table_of` holds; a ValueError when it is none."""
    about = about_of(table)
    plain = {field: table[field].to_pylist() for field in ("name", "size", "time", "sha256", "fault", "passing")}
    descriptors = table["descriptor"].combine_chunks()
    is_there = descriptors.is_valid().to_numpy(zero_copy_only=False)
    regions = None
    if "regions" in table.column_names:
        vectors, boxes = (table[field].combine_chunks() for field in ("regions", "boxes"))
        counts = vectors.drop_null().value_lengths().to_numpy(zero_copy_only=False).astype("int64")
        regions = Kept(_array(vectors.flatten()), _array(boxes.flatten()), counts)
    return Fragment(
        list(map(_read_text, plain["name"])),
        [stamp_of(*columns) for columns in zip(plain["size"], plain["time"], plain["sha256"])],
        [None if fault is None else _read_text(fault) for fault in plain["fault"]],
        plain["passing"],
        np.where(is_there, np.cumsum(is_there) - 1, -1),
        _array(descriptors),
        regions,
        about,
    )


def about_of(table: Any) -> dict[str, Any]:
    """What a table of `table_of` says of itself."""
    return json.loads((table.schema.metadata or {})[_ABOUT])


def _array(lists):
    """The lists of D that are there as an array `(n, D)`."""
    return lists.flatten().to_numpy(zero_copy_only=False).reshape(-1, lists.type.list_size)


def is_text(*texts: str) -> bool:
    """Whether texts are such, as the names of files need not be."""
    try:
        "".join(texts).encode("utf8")
    except UnicodeEncodeError:
        return False
    return True


def _kept_text(text, binary):
    if binary:
        try:
            return os.fsencode(text)
        except UnicodeEncodeError:
            return os.fsencode(printable(text))
    return text if is_text(text) else printable(text)


def _read_text(kept):
    return kept if isinstance(kept, str) else os.fsdecode(kept)


def to_bytes(table: Any) -> bytes:
    """A table as the content of a Parquet file."""
    _, parquet = pyarrow()
    file = io.BytesIO()
    parquet.write_table(table, file, use_dictionary=False)  # descriptors repeat nothing
    return file.getvalue()


def from_bytes(content: bytes, name: str) -> Any:
    """The table of a Parquet file.

    Raises:
        ValueError: when it is none, or damaged; it says `name`.
    """
    arrow, parquet = pyarrow()
    try:
        return parquet.read_table(io.BytesIO(content))
    except (arrow.ArrowException, OSError) as error:
        raise ValueError(f"{name} is damaged: {error}; remove it, and run again to make it again.") from error


def pyarrow() -> tuple[Any, Any]:
    """`pyarrow` and `pyarrow.parquet`; an ImportError that says how to install them."""
    with extra("ray"):
        import pyarrow
        from pyarrow import parquet
    return pyarrow, parquet
