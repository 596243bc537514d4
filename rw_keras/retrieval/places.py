"""Indices wherever they are: a folder, or Milvus. What describes, searches and serves opens, reads and writes them through this."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from rw_keras.retrieval import store
from rw_keras.retrieval import summary as summaries
from rw_keras.retrieval.milvus.address import Address, is_milvus
from rw_keras.retrieval.queries import Known, Listed
from rw_keras.retrieval.schema import Stamp
from rw_keras.retrieval.writer import Writer

Place = str | os.PathLike[str]


class IndexWriter(Protocol):
    """What describes photos asks of the writer of an index, wherever that is: a context manager that holds its lock.

    `rw_keras.retrieval.writer.Writer` writes a folder, `rw_keras.retrieval.milvus.MilvusWriter` a collection of Milvus. Their
    methods are described in `rw_keras.retrieval.transaction.Transaction`.
    """

    folder: Any
    about: dict[str, Any]
    beside: bool

    def __enter__(self) -> IndexWriter: ...
    def __exit__(self, *error: object) -> None: ...
    def find(self, names: Sequence[str]) -> dict[str, Known]: ...
    def count(self) -> int: ...
    def photos(self) -> Iterator[Listed]: ...
    def failures(self) -> list[tuple[str, str]]: ...
    def excluded(self) -> set[str]: ...
    def put(
        self,
        names: Sequence[str],
        descriptors: np.ndarray,
        stamps: Sequence[Stamp | None],
        listed: bool | Sequence[bool | None] | None = True,
        regions: Any = None,
    ) -> None: ...
    def fail(self, name: str, reason: str, stamp: Stamp | None, listed: bool | None = True) -> None: ...
    def mark(self, name: str, reason: str) -> None: ...
    def renew(self, photos: Iterable[tuple[int, Stamp | None]]) -> None: ...
    def drop(self, photos: Iterable[int]) -> None: ...
    def exclude(self, names: Iterable[str]) -> None: ...
    def include(self, names: Iterable[str]) -> None: ...
    def set(self, field: str, value: Any) -> None: ...
    def update_metadata(self, metadata: Mapping[str, Mapping[str, Any]]) -> None: ...
    def commit(self) -> None: ...
    def finish(self) -> None: ...
    def abandon(self) -> bool: ...


def writer(
    place: Place,
    recipe: Mapping[str, Any] | None,
    dimensions: int,
    dtype: str | None = None,
    *,
    beside: bool = False,
    go_on: bool = False,
    regions: Mapping[str, Any] | None = None,
    keeps_begun: bool = False,
) -> Any:
    """The writer of an index; arguments and errors as for `rw_keras.retrieval.writer.Writer`.

    Raises:
        ValueError: for an index in Milvus that is to be made again in its place.
    """
    if not is_milvus(place):
        options = {"beside": beside, "go_on": go_on, "regions": regions, "keeps_begun": keeps_begun}
        return Writer(place, recipe, dimensions, dtype, **options)
    check_target(place, beside)
    from rw_keras.retrieval.milvus import MilvusWriter

    return MilvusWriter(str(place), recipe, dimensions, dtype, regions=regions)


def shown(place: Place) -> str:
    """A place in words, without what is secret in it."""
    return str(Address.of(place)) if is_milvus(place) else str(place)


def check_target(place: Place, beside: bool = False) -> Any:
    """Where an index may be written: a path, or the address as it is; errors as for `rw_keras.retrieval.store.check_target`.

    Args:
        place: the place.
        beside: whether an index that is there is to be made again in its place.

    Raises:
        ValueError: when that cannot be done in Milvus, too.
    """
    if not is_milvus(place):
        return store.check_target(place)
    if beside and about(place) is not None:
        raise ValueError(
            f"{shown(place)} is in Milvus, where no new index can take the place of another in one step, and you asked for --force "
            "(in Python: resume=False); index into another collection, and drop this one when that is whole."
        )
    Address.of(place)
    return place


def check_folder(place: Any, what: str) -> None:
    """Raises a ValueError when an index is in Milvus, for what goes over an index in memory."""
    if is_milvus(place):
        raise ValueError(
            f"{what} goes over all rows of an index in memory, and {shown(place)} is in Milvus; `rw-keras pull` it first."
        )


def check_metadata(place: Place, metadata: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises a ValueError for values, column -> name -> value, that an index in this place does not keep."""
    if is_milvus(place):
        from rw_keras.retrieval.milvus.filters import check_values

        check_values(metadata)


def about(place: Place) -> dict[str, Any] | None:
    """The fields of an index as a whole, `None` where there is none; see `rw_keras.retrieval.store.about`."""
    if not is_milvus(place):
        return store.about(place)
    from rw_keras.retrieval.milvus import index

    return index.about(place)


def photos(place: Place) -> Iterable[Listed]:
    """All photos of an index, in order; none where there is none."""
    if not is_milvus(place):
        return store.photos(place)
    return _of_milvus(place)


def _of_milvus(place):
    from rw_keras.retrieval.milvus.index import opened
    from rw_keras.retrieval.milvus.ledger import Ledger

    with contextlib.suppress(FileNotFoundError), contextlib.closing(opened(place)) as connection:
        ledger = Ledger(connection)
        fields = ledger.about()
        if fields is not None:
            yield from ledger.photos(fields["next_id"])


def excluded(place: Place) -> set[str]:
    """The names that updates of an index leave out; none where there is none."""
    if not is_milvus(place):
        return store.excluded(place)
    from rw_keras.retrieval.milvus.index import opened
    from rw_keras.retrieval.milvus.ledger import Ledger

    with contextlib.suppress(FileNotFoundError), contextlib.closing(opened(place)) as connection:
        ledger = Ledger(connection)
        return ledger.excluded() if ledger.about() is not None else set()
    return set()


def summary(place: Place) -> summaries.Summary:
    """What an index holds, in numbers; see `rw_keras.retrieval.summary.summary`."""
    if not is_milvus(place):
        return summaries.summary(place)
    from rw_keras.retrieval.milvus import inspection

    return inspection.summary(place)


def check(place: Place) -> list[store.Damage]:
    """Reads all of an index, and says what is not as it was written; see `rw_keras.retrieval.store.check`."""
    if not is_milvus(place):
        return store.check(place)
    from rw_keras.retrieval.milvus import inspection

    return inspection.check(place)
