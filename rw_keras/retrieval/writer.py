"""The one writer of indices: its lock, what it opens, converts and swaps. `transaction` has the changes, `store` the reader."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import sqlite3
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import filelock

from rw_keras.model.recipe import Recipe
from rw_keras.retrieval import compaction, databases, old_formats, store
from rw_keras.retrieval.regions import check_spec
from rw_keras.retrieval.schema import BESIDE, DATABASE, FORMAT, LOCK, check_target, connected, fields_of, said
from rw_keras.retrieval.segments import BLOCK_ROWS, DamageError, naming
from rw_keras.retrieval.transaction import Transaction

# Seconds that a writer waits for another one to end: a change by the service takes milliseconds.
PATIENCE = 2.0


class LockedError(ValueError):
    """An index is being written by another process, or by another thread of this one."""


class Writer(Transaction):
    """The one way to write an index: a context manager that holds its lock.

    What is changed (see `Transaction`) belongs to the index once `commit` returns, and then all of it. A process that ends in
    whatever way before leaves what was committed last.

    Args:
        folder: the index; made where it does not exist.
        recipe: how its descriptors are made, `max_side` among it; `None` where that is not known.
        dimensions: of a descriptor.
        dtype: "float32", "float16" for half the space, or "int8" for a quarter. Default: the index's own, for a new one "float32".
        beside: whether to write a new index, which takes the place of the one that is there when `finish` is called.
        go_on: whether what a killed process left of a new index is gone on with, where it is of this recipe.
        regions: how region vectors are kept, {"dtype": "int8" or "float16", "dimensions": how many, the first ones}. Default: as
            the index has it, for a new one none.
        keeps_begun: whether a new index that a killed process had begun beside this one is left, so that it can be gone on with.

    Attributes:
        beside: whether what is written is not the index yet.
        is_new: whether there was no index.
        has_converted: whether there was one of an earlier format.

    Raises:
        ValueError: when the folder is something else, another process writes it for more than two seconds (`LockedError`), or the
            index was made in another way.
        OSError: when it cannot be written.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        recipe: Mapping[str, Any] | None,
        dimensions: int,
        dtype: str | None = None,
        *,
        beside: bool = False,
        go_on: bool = False,
        regions: Mapping[str, Any] | None = None,
        keeps_begun: bool = False,
    ) -> None:
        self.folder, self._keeps_begun = pathlib.Path(folder), keeps_begun
        self._regions = None if regions is None else dict(zip(("dtype", "dimensions"), check_spec(regions)))
        self._recipe = json.loads(json.dumps(recipe))
        self._dimensions, self._dtype = int(dimensions), dtype
        self.beside, self._go_on, self.has_converted = beside, go_on, False

    # The lock, and opening.

    def __enter__(self) -> Writer:
        check_target(self.folder)
        self._made_folder = not self.folder.exists()
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = self.folder / LOCK
        self._lock = filelock.FileLock(lock)
        try:
            # The system frees it when its process ends, in whatever way.
            self._lock.acquire(timeout=PATIENCE, poll_interval=0.02)
        except filelock.Timeout:
            words = f"{self.folder} is being written by another process ({_holder(lock)}); wait for it to end."
            raise LockedError(words) from None
        try:
            with naming(lock), open(lock, "r+") as file:
                file.truncate()
                file.write(f"process {os.getpid()}")
            with said(self.folder, DATABASE):
                self._open()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._close()

    def _close(self):
        try:
            self._leave()
        finally:
            self._lock.release()

    def _leave(self):
        self.end()
        if self.beside and not self._go_on:
            databases.remove(self.folder / BESIDE)
        if not (self.folder / DATABASE).is_file() and not (self.folder / BESIDE).is_file() and not old_formats.is_one(self.folder):
            databases.remove_strays(self.folder, self.beside)
            (self.folder / LOCK).unlink(missing_ok=True)
            if self._made_folder:
                with contextlib.suppress(OSError):  # something of another's is in it
                    self.folder.rmdir()

    def _open(self):
        there, beside = self.folder / DATABASE, self.folder / BESIDE
        self.is_new = not there.is_file() and not old_formats.is_one(self.folder)
        if not there.is_file() and not self.is_new:
            self._convert()
        elif old_formats.is_one(self.folder):  # a killed process had just converted it
            old_formats.remove(self.folder)
        if not self.beside:
            if not self._keeps_begun:
                databases.remove(beside)
        elif not (self._go_on and beside.is_file() and self._is_asked_for(beside)):
            databases.remove(beside)
            self._create(beside)
        if not self.beside and not there.is_file():
            self._create(there)
        self.begin(beside if self.beside else there)
        self._check()
        self._remove_strays()

    def _create(self, path):
        fields = {
            "format": FORMAT,
            "identity": uuid.uuid4().hex,
            "generation": 0,
            "next_row": 0,
            "next_region": 0,
            "recipe": self._recipe,
            "dimensions": self._dimensions,
            "dtype": self._dtype or "float32",
            "regions": self._regions,
        }
        databases.create(path, fields)

    def _is_asked_for(self, beside):
        """Whether the database that a killed process left beside is of the very index that is asked for."""
        try:
            with contextlib.closing(connected(beside)) as database:
                database.execute("BEGIN IMMEDIATE")
                own = fields_of(self.folder, database)
        except (sqlite3.Error, ValueError):
            return False
        asked = (self._recipe, self._dimensions, self._dtype or "float32", self._regions)
        return (own["recipe"], own["dimensions"], own["dtype"], own.get("regions")) == asked

    def _check(self):
        check_alike(self.folder, self.about, self._recipe, self._dimensions, self._dtype, self._regions)

    def _convert(self):
        """An index of an earlier format becomes one of this format, in one step; nothing is described again."""
        old = old_formats.read(self.folder)
        wanted, self._dtype = self._dtype, old.about["dtype"]
        recipe, self._recipe = self._recipe, old.about["recipe"]
        dimensions, self._dimensions = self._dimensions, old.about["dimensions"]
        regions, self._regions = self._regions, None
        beside = self.folder / BESIDE
        databases.remove(beside)
        self._create(beside)
        self.begin(beside)
        for field in ("described_with", "versions", "source", "searcher"):
            if old.about.get(field):
                self.set(field, old.about[field])
        for start in range(0, len(old.names), BLOCK_ROWS):
            part = slice(start, start + BLOCK_ROWS)
            names, stamps = old.names[part], old.stamps[part]
            # A source gave the stamp.
            self.put(names, old.rows[part], stamps, [None if stamp is None else True for stamp in stamps])
        for name, reason, stamp in old.failures:
            self.fail(name, reason, stamp, listed=None)
        self.set_metadata(old.metadata)
        self.commit()
        self._swap()
        old_formats.remove(self.folder)
        self.has_converted = True
        self._dtype, self._recipe, self._dimensions, self._regions = wanted, recipe, dimensions, regions

    def _swap(self):
        """What was written beside takes the place of the index."""
        self.files.leave()
        databases.take_place(self.database, self.path, self.folder / DATABASE)
        self.end()

    # Steps that are whole.

    def compact(self) -> None:
        """Writes the rows that are left of half-empty files together, in one step, and removes those files."""
        self.commit()
        with said(self.folder, DATABASE):
            compaction.compact(self)
        self.commit()

    def finish(self) -> None:
        """Commits, gives space back, and where the index was written beside another one puts it in its place."""
        self.compact()
        if self.beside:
            with said(self.folder, DATABASE):
                self._swap()
                self.beside, self.is_new = False, False
                self.begin(self.folder / DATABASE)
        self._remove_strays()

    def _remove_strays(self):
        databases.remove_strays(self.folder, self.beside or self._keeps_begun)

    def take_over_rest(self, lossy: bool = False) -> None:
        """For an index that takes the place of another: what of that one is no photo's, its metadata and its searcher, and the rows
        that were added by hand and are not there yet.

        Args:
            lossy: whether what cannot be read of a damaged one is done without.

        Raises:
            DamageError: when that one is damaged, without `lossy`.
        """
        try:
            self._take_over_rest()
        except DamageError:
            if not lossy:
                raise

    def _take_over_rest(self):
        replaced = store.about(self.folder)
        if replaced is None:
            return
        added = store.added_by_hand(self.folder)
        self.take_over(added, [place for place, name in enumerate(added.names) if not self.find([name])])
        if replaced.get("searcher"):
            self.set("searcher", {field: replaced["searcher"][field] for field in ("name", "parameters")})
        for column, values in store.metadata_by_name(self.folder).items():
            self.set_values(column, values)

    def check_takes(self, added: store.ByHand) -> None:
        """Raises a ValueError when this index holds region vectors, and photos that were added by hand to another one have none."""
        asked, own = self.about.get("regions"), None if added.regions is None else added.regions.spec
        if added.names and asked and (own is None or own["dimensions"] < asked["dimensions"]):
            raise ValueError(
                f"{self.folder} holds {len(added.names)} descriptors that were added by hand, whose region vectors are "
                f"{_in_words(own)}, and those of the new index {_in_words(asked)}. Remove them first (`Index.remove`), or choose "
                "another name."
            )

    def take_over(self, added: store.ByHand, places: Sequence[int]) -> None:
        """Puts photos that were added by hand to another index, those at `places`; errors as for `check_takes`."""
        self.check_takes(added)
        if not places:
            return
        regions = added.regions.kept(places) if added.regions is not None and self.about.get("regions") else None
        names, stamps = ([column[place] for place in places] for column in (added.names, added.stamps))
        self.put(names, added.descriptors[places], stamps, listed=False, regions=regions)

    def abandon(self) -> bool:
        """Gives up an index that has never held a descriptor, and excludes nothing; whether it was one."""
        if self.beside or self.about["next_row"] or self.excluded():
            return False
        self.end()
        databases.remove(self.path)
        return True


def check_alike(
    place: Any,
    about: Mapping[str, Any],
    recipe: Mapping[str, Any] | None,
    dimensions: int,
    dtype: str | None,
    regions: Mapping[str, Any] | None,
) -> None:
    """Raises a ValueError that gives both values when an index was made in another way than is asked for.

    Args:
        place: where it is, for the message.
        about: its fields.
        recipe, dimensions, dtype, regions: what is asked for; see `Writer`.
    """
    if about["recipe"] is None and recipe is not None:
        raise ValueError(
            f"The index {place} does not say how its descriptors were made, so none can be added in the same way; choose another "
            "name."
        )
    differing = []
    if about["recipe"] != recipe:
        differing = Recipe.from_dict(about["recipe"], f"The recipe of {place}").differences(recipe, "the one asked for")
    if about["dimensions"] != dimensions:
        differing.append(f"it has {about['dimensions']} dimensions, the one asked for {dimensions}")
    if dtype not in (None, about["dtype"]):
        differing.append(f"its dtype is {about['dtype']!r}, the one asked for {dtype!r}")
    if regions not in (None, about.get("regions")):
        differing.append(f"its region vectors are {_in_words(about.get('regions'))}, those asked for {_in_words(regions)}")
    if differing:
        raise ValueError(
            f"The index {place} was made in another way: {'; '.join(differing)}. Update it as it was made, make it again with "
            "--force (in Python: resume=False), or choose another name."
        )


def _in_words(regions):
    return f"{regions['dtype']} of {regions['dimensions']} dimensions" if regions else "none"


def _holder(path):
    try:
        return path.read_text() or "its number is not known"
    except OSError:
        return "its number is not known"
