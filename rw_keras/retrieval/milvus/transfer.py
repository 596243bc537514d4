"""An index from a folder into Milvus, and back, in pages; what is there and alike is not written again."""

from __future__ import annotations

import contextlib
import itertools
import os
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from rw_keras.retrieval import store
from rw_keras.retrieval.milvus.address import Address
from rw_keras.retrieval.milvus.index import missing, opened
from rw_keras.retrieval.milvus.layout import Structure
from rw_keras.retrieval.milvus.ledger import Ledger
from rw_keras.retrieval.milvus.pages import FolderPages, MilvusPages, Photo, digest_of, kept_regions
from rw_keras.retrieval.milvus.writer import MilvusWriter
from rw_keras.retrieval.writer import Writer

# Fields of an index that go with it.
_FIELDS = ("described_with", "versions", "source", "settings", "search", "preset")
# What the folder of a `pull` that is not at its end says of where it comes from.
_PULLED = "pulled"

Progress = Callable[[int], None]


class Transfer(NamedTuple):
    """What `push` or `pull` did.

    Attributes:
        photos: how many the index holds, those that cannot be read among them.
        written: how many of them were written.
        digest: of all of them, which is the same on both sides.
    """

    photos: int
    written: int
    digest: str


def push(
    folder: str | os.PathLike[str],
    place: str,
    *,
    dtype: str | None = None,
    searcher: Structure | None = None,
    progress: Progress = lambda count: None,
) -> Transfer:
    """Brings a collection of Milvus to what an index in a folder holds; made where it is not there, and compared at the end.

    Args:
        folder: the index.
        place: where it goes; see `rw_keras.retrieval.milvus.address.Address.of`.
        dtype: what descriptors are kept as there. Default: as in the collection that is there, else as in the folder.
        searcher: what Milvus is to search a new collection by. Default: "milvus-flat".
        progress: is called with the numbers of photos that are done.

    Raises:
        FileNotFoundError: when there is no index in the folder.
        ValueError: when the collection is something else's, was made in another way, or is written by another process, and when the
            two
            differ at the end.
        MilvusError: when Milvus cannot be asked. What was written stays, and the next push goes on.
    """
    own = FolderPages(pathlib.Path(folder))
    about = own.about
    own.dtype = dtype or _dtype_there(place) or about["dtype"]
    options = {"regions": about.get("regions"), "searcher": searcher}
    written, low = 0, 0
    with MilvusWriter(place, about["recipe"], about["dimensions"], own.dtype, **options) as writer:
        _set_fields(about, writer)
        writer.set("columns", own.columns)
        there = MilvusPages(writer.ledger, writer.about)
        for photos in own.pages():
            high = photos[-1].known.id + 1
            written += _bring(writer, there, photos, low, high)
            writer.commit()
            progress(len(photos))
            low = high
        stop = writer.about["next_id"]
        writer.drop([known.id for known, _ in writer.ledger.records(stop, start=low)])
        writer.include(writer.excluded() - own.excluded)
        writer.exclude(own.excluded - writer.excluded())
        writer.set("next_id", low)
        writer.finish()
        return _compared(own, there, written, folder, Address.of(place))


def _dtype_there(place):
    with contextlib.suppress(FileNotFoundError), contextlib.closing(opened(place)) as connection:
        return (Ledger(connection).about() or {}).get("dtype")
    return None


def _set_fields(about, writer):
    for field in _FIELDS:
        if about.get(field) != writer.about.get(field):
            writer.set(field, about.get(field))


def _bring(writer: MilvusWriter, there: MilvusPages, photos: list[Photo], low: int, high: int) -> int:
    """Makes those photos whose ids are from `low` to below `high` these; how many were written."""
    before, names, vectors = there.page(low, high)
    alike = {photo.known.id: photo.digest() for photo in before}
    wanted = {photo.known.id: photo for photo in photos}
    described = {number for number, photo in wanted.items() if photo.known.described}
    writer.let_go(
        vectors - described, [name for number, name in names.items() if number not in wanted or wanted[number].name != name]
    )
    new = [photo for photo in photos if alike.get(photo.known.id) != photo.digest()]
    with_row = [photo for photo in new if photo.known.described]
    if with_row:
        columns = (
            [photo.name for photo in with_row],
            [photo.known for photo in with_row],
            np.stack([photo.row for photo in with_row]),
        )
        writer.write(*columns, [photo.metadata or {} for photo in with_row], kept_regions(with_row))
    failed = [photo for photo in new if not photo.known.described]
    writer.note([photo.name for photo in failed], [photo.known for photo in failed])
    return len(new)


def _compared(one, other, written, *places):
    """What was done, once both sides are read again and are alike."""
    (count, digest), found = (digest_of(itertools.chain.from_iterable(side.pages())) for side in (one, other))
    if (count, digest) != found:
        raise ValueError(
            f"{places[0]} holds {count} photos of the digest {digest[:16]}, and {places[1]} {found[0]} of the digest "
            f"{found[1][:16]}, though all of them were written; another process may have changed one of the two. Do it once more."
        )
    for what in ("columns", "excluded"):
        if set(getattr(one, what)) != set(getattr(other, what)):
            raise ValueError(f"{places[0]} and {places[1]} do not have the same {what}; do it once more.")
    return Transfer(count, written, digest)


def pull(place: str, folder: str | os.PathLike[str], *, progress: Progress = lambda count: None) -> Transfer:
    """Writes an index in Milvus into a folder, which is an index once all of it is there and compared.

    A pull that was broken off goes on, where the index in Milvus has not changed meanwhile.

    Args:
        place: the index; see `rw_keras.retrieval.milvus.address.Address.of`.
        folder: where it goes; there is no index yet.
        progress: is called with the numbers of photos that are done.

    Raises:
        FileNotFoundError: when there is no such index.
        ValueError: when there is an index in the folder, or the two differ at the end.
        MilvusError: when Milvus cannot be asked. What was written stays, and the next pull goes on.
    """
    folder = store.check_target(folder)
    if store.about(folder) is not None:
        raise ValueError(f"There is an index at {folder} already; choose another name.")
    with contextlib.closing(opened(place)) as connection:
        ledger = Ledger(connection)
        about = ledger.about()
        if about is None:
            raise missing(place)
        there = MilvusPages(ledger, about)
        options = {"beside": True, "go_on": True, "regions": about.get("regions")}
        with Writer(folder, about["recipe"], about["dimensions"], about["dtype"], **options) as writer:
            written = _fill(writer, there, progress)
            if ledger.fields() != about:
                raise ValueError(f"{Address.of(place)} has changed while it was pulled; pull it once more.")
            writer.set(_PULLED, None)
            writer.finish()
        return _compared(FolderPages(folder), there, written, folder, Address.of(place))


def _fill(writer, there, progress):
    about = there.about
    state = [about["identity"], about["generation"]]
    if writer.about.get(_PULLED) != state:
        writer.drop([photo.id for photo in writer.photos()])
        writer.include(writer.excluded())
        writer.set(_PULLED, state)
    _set_fields(about, writer)
    for column in there.columns:  # also one without any value
        writer.set_values(column, [])
    done = sum(1 for _ in writer.photos())
    written = 0
    for photos in there.pages():
        new = photos[done:] if done < len(photos) else []
        done = max(0, done - len(photos))
        for described, group in itertools.groupby(new, lambda photo: photo.known.described):
            (_put if described else _fail)(writer, list(group))
        writer.commit()
        written += len(new)
        progress(len(photos))
    writer.exclude(there.excluded)
    return written


def _put(writer: Writer, photos: list[Photo]) -> None:
    names, rows = [photo.name for photo in photos], np.stack([photo.row for photo in photos])
    known = [photo.known for photo in photos]
    writer.put(names, rows, [own.stamp for own in known], [own.listed for own in known], kept_regions(photos))
    for photo in photos:
        if photo.known.fault is not None:
            writer.mark(photo.name, photo.known.fault)
    columns: dict[str, dict[str, Any]] = {}
    for photo in photos:
        for column, value in (photo.metadata or {}).items():
            columns.setdefault(column, {})[photo.name] = value
    writer.update_metadata(columns)


def _fail(writer: Writer, photos: list[Photo]) -> None:
    for photo in photos:
        writer.fail(photo.name, photo.known.fault, photo.known.stamp, photo.known.listed)
