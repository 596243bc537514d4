"""How an index in memory is written to the disk, and what it has to do with the one there."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from rw_keras.retrieval import store
from rw_keras.retrieval.int8 import stored_dtype
from rw_keras.retrieval.regions import spec_of
from rw_keras.retrieval.rows import Rows
from rw_keras.retrieval.searching import Searchable
from rw_keras.retrieval.segments import BLOCK_ROWS
from rw_keras.retrieval.writer import Writer


@dataclasses.dataclass
class Origin:
    """Where the photos of an index that is not on the disk yet were read from.

    Attributes:
        source: the folder.
        stamps: of the photos, by their names.
    """

    source: str
    stamps: Mapping[str, store.Stamp | None]


@dataclasses.dataclass
class Stored:
    """What an index in memory has to do with one on disk.

    Attributes:
        folder, identity, generation: which index, and which state of it.
        ids: `(N,)`, by position: the ids of the photos there; -1 of one that was added since.
        rows: `(N,)`, the numbers of their rows there.
        searcher_file: the file of the searcher's structure, where it has one.
        is_saved: `(N,)`, whether the row there is the one in memory.
        all_ids: of all photos that are there.
    """

    folder: pathlib.Path
    identity: str | None
    generation: int | None
    ids: np.ndarray
    rows: np.ndarray
    searcher_file: str | None = None
    is_saved: np.ndarray = dataclasses.field(init=False)
    all_ids: np.ndarray = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.is_saved, self.all_ids = np.ones(len(self.ids), bool), self.ids

    def append(self, count: int) -> None:
        """So many rows were added behind the last."""
        self.ids, self.rows = (np.concatenate([own, np.full(count, -1)]) for own in (self.ids, self.rows))
        self.is_saved = np.concatenate([self.is_saved, np.zeros(count, bool)])

    def keep(self, kept: np.ndarray) -> None:
        """Only the rows of a mask `(N,)` are left."""
        self.ids, self.rows, self.is_saved = self.ids[kept], self.rows[kept], self.is_saved[kept]

    def change(self, positions: np.ndarray) -> None:
        """The rows at positions are others now."""
        self.is_saved[positions] = False

    def convert(self, found: store.Snapshot) -> None:
        """The index on disk, which was of an earlier format, is `found` now: the same photos in the same order."""
        self.identity, self.generation, self.all_ids = found.about["identity"], found.about["generation"], found.ids
        numbers = found.numbers()
        self.rows = np.where(self.ids < 0, -1, numbers[self.ids]) if len(numbers) else self.ids
        self.ids = np.where(self.ids < 0, -1, found.ids[self.ids]) if len(numbers) else self.ids

    def check(self, path: pathlib.Path, about: Mapping[str, Any]) -> None:
        """A ValueError when the index on disk is no longer in the state that was loaded."""
        if (about.get("identity"), about.get("generation")) != (self.identity, self.generation):
            raise ValueError(
                f"{path} has changed since this index was loaded: it was in state {self.generation} of {self.identity}, and is in "
                f"state {about.get('generation')} of {about.get('identity')}; load it again and repeat the changes, or choose "
                "another name."
            )


def save(
    index: Searchable, path: str | os.PathLike[str], dtype: str | None, overwrite: bool, own: Stored | None, origin: Origin | None
) -> Stored:
    """Writes an index; see `rw_keras.retrieval.Index.save`.

    Args:
        index: what is written.
        path, dtype, overwrite: as for `Index.save`.
        own: where it was loaded from, or saved to before.
        origin: where its photos were read from, if it was neither.

    Returns:
        What it has to do with the one on disk from now on.
    """
    dtype = stored_dtype(index.descriptors) if dtype is None else dtype
    if dtype not in store.DTYPES:
        raise ValueError(f"dtype is one of {', '.join(store.DTYPES)}, but got {dtype!r}.")
    path = store.check_target(path)
    about = store.about(path)
    if own is not None and own.folder == path.resolve() and about is not None:
        own.check(path, about)
        kept = about["dtype"], about["dimensions"], about.get("regions")
        if kept == (dtype, index.descriptors.shape[1], spec_of(index.regions)):
            return _save_changes(index, path, about, own)
    elif about is not None and not overwrite:
        listed = store.count_listed(path)
        if listed:
            raise ValueError(
                f"{path} holds an index of {listed} described photos, and this one was not loaded from there; choose another "
                "name, or pass overwrite=True to replace it."
            )
    return _save_whole(index, path, dtype, own, origin)


def _save_changes(index, path, about, own):
    rows = Rows.of(index.descriptors)
    with Writer(path, about["recipe"], about["dimensions"]) as writer:
        if writer.has_converted:
            own.convert(store.read(path))
        own.check(path, writer.about)
        writer.drop(np.setdiff1d(own.all_ids, own.ids))
        changed = np.flatnonzero(~own.is_saved & (own.ids >= 0))
        for part in _parts(len(changed)):
            places = changed[part]
            writer.replace(own.ids[places].tolist(), rows[places], _regions_of(index, places))
        added = np.flatnonzero(own.ids < 0)
        names = [index.names[position] for position in added]
        writer.drop(known.id for known in writer.find(names).values())  # they could not be read, and now have a descriptor
        for part in _parts(len(added)):
            stamps = [None] * len(names[part])
            writer.put(names[part], rows[added[part]], stamps, listed=False, regions=_regions_of(index, added[part]))
        writer.set("recipe", index.recipe)
        return _save_rest(index, writer, rows, own, own.searcher_file)


def _save_whole(index, path, dtype, own, origin):
    rows = Rows.of(index.descriptors)
    with Writer(path, index.recipe, index.descriptors.shape[1], dtype, beside=True, regions=spec_of(index.regions)) as writer:
        if own is not None and own.folder == path.resolve() and not writer.is_new:
            if writer.has_converted:
                own.convert(store.read(path))
            own.check(path, store.about(path))
        known, fields, failures = ({}, {}, {}) if own is None else store.records(own.folder, own.identity)
        for part in _parts(len(index)):
            names = index.names[part]
            stamps, listed = _from_origin(origin, names) if own is None else _from_disk(known, own.ids[part], own.rows[part])
            writer.put(names, rows[part], stamps, listed, _regions_of(index, part))
        for name, reason in index.failures:
            writer.fail(name, reason, failures.get(name), None)
        writer.exclude_rest(store.excluded(own.folder) if fields else ())
        if origin is not None:
            fields["source"] = origin.source
        for field in fields.keys() & {"source", "versions", "preset"}:
            writer.set(field, fields[field])
        return _save_rest(index, writer, rows, own, None, dtype == stored_dtype(index.descriptors))


def _regions_of(index, places):
    """The region vectors of photos, by their positions or a slice of them, as the index holds them."""
    return None if index.regions is None else index.regions.kept(places)


def _from_origin(origin, names):
    """The stamps of photos, and whether a source listed each: those that were not read from it were added by hand."""
    if origin is None:
        return [None] * len(names), False
    stamps = [origin.stamps.get(name) for name in names]
    return stamps, [stamp is not None for stamp in stamps]


def _from_disk(known, ids, numbers):
    """The same from another index on the disk, which tells of the rows that it still has.

    Args:
        known: see `store.records`.
        ids, numbers: of the photos there, and of their rows; see `Stored`.
    """
    found = [known.get(photo, (None, None, None)) for photo in ids.tolist()]
    same = [row == number for (row, *_), number in zip(found, numbers.tolist())]
    stamps = [stamp if same_ else None for (_, stamp, _), same_ in zip(found, same)]
    added = (ids < 0).tolist()
    return stamps, [False if by_hand else listed if same_ else None for by_hand, (*_, listed), same_ in zip(added, found, same)]


def _save_rest(index, writer, rows, own, searcher_file, with_structure=True):
    """What is saved alike in place and elsewhere."""
    if index.described_with:
        writer.set("described_with", index.described_with)
    if index.search_defaults or writer.about.get("search"):
        writer.set("search", dict(index.search_defaults))
    writer.set_metadata(index.metadata)
    writer.compact()
    ids, numbers = writer.described()
    entry, file = index.searcher_config, None
    searcher = index.searcher
    if with_structure and searcher.built:
        file, crc = searcher_file, (writer.about.get("searcher") or {}).get("crc32")
        if file is None or searcher.has_changed or not np.array_equal(numbers[own.is_saved], own.rows[own.is_saved]):
            file = f"searcher-{uuid.uuid4().hex[:12]}.bin"
            searcher.save(writer.folder / file, rows, numbers)
            searcher.has_changed, crc = False, store.crc_of(writer.folder / file)
        entry = {**entry, "file": file, "crc32": crc}
    writer.set("searcher", entry)
    writer.finish()
    return Stored(writer.folder.resolve(), writer.about["identity"], writer.about["generation"], ids, numbers, file)


def load_structure(index: Searchable, own: Stored, entry: Mapping[str, Any]) -> None:
    """Reads the structure that the searcher of an index was saved with, where there is one.

    Args:
        index: just loaded.
        own: where from.
        entry: the field `searcher` of the index on disk.

    Raises:
        DamageError: when its file is not as it was written.
    """
    file = own.folder / entry["file"]
    if store.crc_of(file) != entry["crc32"]:
        raise store.DamageError(
            f"{file} is not as it was written; Index.load(path, searcher='numpy') opens the index, and `use_searcher` and "
            "`save` make the file again."
        )
    index.searcher.load(file, Rows.of(index.descriptors), own.rows, partly=True)
    own.searcher_file = entry["file"]


def _parts(count) -> Iterator[slice]:
    return (slice(start, start + BLOCK_ROWS) for start in range(0, count, BLOCK_ROWS))
