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
from rw_keras.retrieval.milvus.pages import PAGE, FolderPages, MilvusPages, Photo, digest_of, kept_regions
from rw_keras.retrieval.milvus.writer import MilvusWriter
from rw_keras.retrieval.segments import DamageError
from rw_keras.retrieval.writer import Writer

# Fields of an index that go with it.
_FIELDS = ("described_with", "versions", "source", "settings", "search", "preset")
# Photos that a message names.
_NAMED = 10
_ONCE_MORE = "Do it once more."
# The field by which the folder of a `pull` that is not at its end knows where it comes from.
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
    prune: bool = False,
    progress: Progress = lambda count: None,
) -> Transfer:
    """Brings a collection of Milvus to what an index in a folder holds; made where it is not there, and compared at the end.

    Photos that the folder does not hold leave the collection.

    Args:
        folder: the index.
        place: where it goes; see `rw_keras.retrieval.milvus.address.Address.of`.
        dtype: what descriptors are kept as there. Default: as in the collection that is there, else as in the folder.
        searcher: what Milvus is to search a new collection by. Default: "milvus-flat".
        prune: whether more than half of the photos that the collection holds may leave it.
        progress: is called with the numbers of photos that are done.

    Raises:
        FileNotFoundError: when there is no index in the folder.
        ValueError: when the collection is something else's, was made in another way, is searched by another structure than
            `searcher`, or is written by another process; when more than half of its described photos are not in the folder,
            without `prune`; and when the two differ at the end.
        MilvusError: when Milvus cannot be asked. What was written stays, and the next push goes on.
    """
    own = FolderPages(pathlib.Path(folder))
    about = own.about
    own.dtype = dtype or _dtype_there(place) or about["dtype"]
    options = {"regions": about.get("regions"), "searcher": searcher}
    written, low = 0, 0
    with MilvusWriter(place, about["recipe"], about["dimensions"], own.dtype, **options) as writer:
        _check_searcher(searcher, writer, Address.of(place))
        if not prune:
            _check_loss(own, writer, folder, Address.of(place))
        _set_fields(about, writer)
        writer.set("columns", own.columns)
        there = MilvusPages(writer.ledger, writer.about)
        for photos in own.pages():
            high = photos[-1].known.id + 1
            for start in range(low, high, PAGE):  # where ids are missing, the collection may have more than the folder
                part = range(start, min(start + PAGE, high))
                written += _bring(writer, there, [photo for photo in photos if photo.known.id in part], part)
            writer.commit()
            progress(len(photos))
            low = high
        _clear(writer, low)
        writer.include(writer.excluded() - own.excluded)
        writer.exclude(own.excluded - writer.excluded())
        writer.set("next_id", low)
        writer.finish()
        done = _compared(own, there, written, folder, Address.of(place))
        held = writer.ledger.connection.count(writer.ledger.collections.vectors)
        if held != len(own.names):
            raise ValueError(
                f"{Address.of(place)} holds {held} vectors, and {folder} {len(own.names)} described photos; another process may "
                f"have changed one of the two. {_ONCE_MORE}"
            )
        return done


def _check_searcher(searcher, writer, address):
    there = Structure.of(writer.about["searcher"])
    if searcher not in (None, there):
        raise ValueError(
            f"{address} is there already, and is searched by {_in_words(there)}, but got {_in_words(searcher)}; leave it out, or "
            "change it with `MilvusIndex.use_searcher`."
        )


def _in_words(structure):
    return " ".join([structure.name, *(f"{name}={value}" for name, value in structure.parameters.items())])


def _check_loss(own, writer, folder, address):
    names, described, gone = (photo.name for photo in writer.photos() if photo.described), 0, 0
    while part := list(itertools.islice(names, PAGE)):
        described += len(part)
        gone += len(part) - len(own.described(part))
    if 2 * gone > described:
        raise ValueError(
            f"{gone} of the {described} photos in {address} are not among the {len(own.names)} of {folder}. If they are to leave "
            "the collection, push again with --prune (in Python: prune=True)."
        )


def _clear(writer, low):
    """Takes away whatever has an id from `low` on: the vectors of names that the ledger has elsewhere, too."""
    ledger, stop = writer.ledger, writer.about["next_id"]
    for page in ledger.connection.pages(ledger.collections.vectors, stop, [], start=low):
        writer.let_go([row["id"] for row in page], [])
    writer.let_go([], [name for _, name in ledger.records(stop, start=low)])


def _dtype_there(place):
    with contextlib.suppress(FileNotFoundError), contextlib.closing(opened(place)) as connection:
        return (Ledger(connection).about() or {}).get("dtype")
    return None


def _set_fields(about, writer):
    for field in _FIELDS:
        if about.get(field) != writer.about.get(field):
            writer.set(field, about.get(field))


def _bring(writer: MilvusWriter, there: MilvusPages, photos: list[Photo], part: range) -> int:
    """Makes those photos whose ids are in a range these; how many were written."""
    before = there.page(part.start, part.stop)
    alike = {photo.known.id: photo.digest() for photo in before.photos}
    wanted = {photo.known.id: photo for photo in photos}
    described = {number for number, photo in wanted.items() if photo.known.described}
    others = [name for number, name in before.names if number not in wanted or wanted[number].name != name]
    writer.let_go(before.vectors - described, others)
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


def _compared(one, other, written, *places, again=_ONCE_MORE):
    """What was done, once both sides are read again and are alike."""
    (count, digest), found = (digest_of(itertools.chain.from_iterable(side.pages())) for side in (one, other))
    if (count, digest) != found:
        raise ValueError(
            f"{places[0]} holds {count} photos of the digest {digest[:16]}, and {places[1]} {found[0]} of the digest "
            f"{found[1][:16]}, though all of them were written; another process may have changed one of the two. {again}"
        )
    for what in ("columns", "excluded"):
        if set(getattr(one, what)) != set(getattr(other, what)):
            raise ValueError(f"{places[0]} and {places[1]} do not have the same {what}. {again}")
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
        ValueError: when there is an index in the folder, the two differ at the end, or photos in Milvus are not whole
            (`DamageError`).
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
        again = f"Delete {folder}, and pull it once more."  # it is an index by now, which a pull does not write over
        return _compared(FolderPages(folder), there, written, folder, Address.of(place), again=again)


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
    for page in there.read():
        if page.damaged:
            raise _not_whole(there, page.damaged)
        photos = page.photos
        new = photos[done:] if done < len(photos) else []
        done = max(0, done - len(photos))
        for described, group in itertools.groupby(new, lambda photo: photo.known.described):
            (_put if described else _fail)(writer, list(group))
        writer.commit()
        written += len(new)
        progress(len(photos))
    writer.exclude(there.excluded)
    return written


def _not_whole(there, damaged):
    shown = [f"{name!r} (one of {what})" for name, what in damaged.items()][:_NAMED]
    more = f" and {len(damaged) - _NAMED} more" if len(damaged) > _NAMED else ""
    return DamageError(
        f"{there.ledger.connection.address} cannot be pulled, because {len(damaged)} of its photos are not whole: "
        f"{', '.join(shown)}{more}. `rw-keras check` names all of them; remove them and describe them "
        "again, or push the index again."
    )


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
