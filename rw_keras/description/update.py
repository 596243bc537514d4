"""What an update does to an index: which photos are described, which rows stay, and which leave.

A passing fault never takes a descriptor away. A row leaves the index only when the source that listed its photo no longer does, or
when the photo's bytes have changed and cannot be decoded any more. Where that would be much of the index, the run stops and asks.
"""

from __future__ import annotations

import array
import itertools
import os
import pathlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from rw_keras.description.batcher import Window
from rw_keras.description.reader import Reading, failed_earlier
from rw_keras.model.recipe import Recipe
from rw_keras.photos.listing import Listing, names_of
from rw_keras.photos.reading import ImageError
from rw_keras.photos.sources import Item
from rw_keras.retrieval import places, store
from rw_keras.retrieval.store import Known, Stamp

# A run that would take more than this share of an index away because the source does not list the photos stops.
_MOST_GONE = 0.5
# Up to this share of an index may leave it because changed photos cannot be decoded.
_MOST_UNDECODABLE = 0.1
# Photos that are looked up at a time: a server may take as long for one as for all of them.
_LOOKED_UP = 2048
# Notes on photos that need no describing, such as new stamps, that are written together.
_NOTES = 4096


def check_loss(folder: str | os.PathLike[str], names: Collection[str] | None, prune: bool, beside: bool = False) -> None:
    """Stops before an update that would take much of an index away.

    Args:
        folder: the index; there need be none.
        names: of all photos that the source lists; `None` where they are not known yet.
        prune: whether that is wanted.
        beside: whether a new index is to take the place of this one, which may then be damaged.

    Raises:
        ValueError: when more than half of the described photos are not among those of the source, and would leave the index.
    """
    if prune or names is None:
        return
    described = gone = 0
    try:
        for photo in places.photos(folder):
            if photo.described:
                described += 1
                gone += _is_gone(photo, names)
    except store.DamageError as error:
        if beside:
            raise _cannot_take_over(folder, error) from error
        raise
    if gone > _MOST_GONE * described:
        raise ValueError(
            f"{gone} of the {described} photos in {places.shown(folder)} are not among the {len(names)} of the source. If they are "
            "to leave the index, run again with --prune (in Python: prune=True)."
        )


def _cannot_take_over(folder, error):
    return ValueError(
        f"What was added by hand to {folder}, or excluded, cannot be taken over: {error} To do without it, run again with --force "
        "and --prune (in Python: resume=False, prune=True)."
    )


def _is_gone(photo, names):
    """Whether a source listed a photo, and lists it no longer. Names that end with "/" are of folders that cannot be listed now."""
    if photo.name in names or photo.listed is False or (photo.listed is None and photo.described):
        return False
    return not any(f"{folder}/" in names for folder in map(str, pathlib.PurePosixPath(photo.name).parents))


class Update:
    """One run over a source, on the writer of an index.

    Args:
        writer: of the index.
        items: the photos of the source.
        checksum: whether a change is seen by the SHA-256 of a photo's bytes.
        strict: whether a photo that cannot be read ends the run.
        prune: whether rows may leave, however many, and a new index take the place of one with photos that cannot be read now.

    Attributes:
        described, changed: photos described; those of them that an earlier run had described.
        removed: described photos that the source no longer lists, and that left the index.
        excluded: photos of the source that were left out because their names are excluded.
        undecodable: (name, reason) of photos that left the index because their changed bytes cannot be decoded.

    Raises:
        ValueError: when too much of the index would leave it.
    """

    def __init__(self, writer: places.IndexWriter, items: Iterable[Item], checksum: bool, strict: bool, prune: bool) -> None:
        self._writer, self._items = writer, items
        self._checksum, self._strict, self._prune = checksum, strict, prune
        self.described = self.changed = self.removed = self.excluded = 0
        self._unread: dict[str, str] = {}
        self.undecodable: list[tuple[str, str]] = []
        self._changed_and_bad: dict[str, tuple[str, Stamp | None]] = {}
        self._by_name: dict[str, Item] | None = None
        self._renewed: list[tuple[int, Stamp | None]] = []
        # Those of a listing are looked up there; others are noted as they come.
        self._listed = names_of(items) if isinstance(items, Listing) else None
        self._names: Collection[str] = set() if self._listed is None else self._listed
        self._count = writer.count()
        if writer.beside:
            self._take_over()
        self._excluded = writer.excluded()

    @property
    def unread(self) -> list[tuple[str, str]]:
        """(name, reason) of photos that could not be read, and whose descriptors stay."""
        return list(self._unread.items())

    def _take_over(self):
        """Takes over, of the index whose place a new one takes, what was added by hand, since nothing can describe it again, and
        which names are excluded."""
        folder, about = self._writer.folder, self._writer.about
        try:
            replaced = store.about(folder)
            if replaced is None:
                return
            excluded = store.excluded(folder)
            self._writer.include(self._writer.excluded() - excluded)
            self._writer.exclude(excluded)
            added = store.added_by_hand(folder)
            self._drop_no_longer_by_hand({*added.names})
            differing = Recipe.from_dict(replaced["recipe"]).differences(about["recipe"], "the new one's")
            if added.names and differing:
                raise ValueError(
                    f"{folder} holds {len(added.names)} descriptors that were added by hand, and cannot be made again in another "
                    f"way: {'; '.join(differing)}. Remove them first (`Index.remove`), or choose another name."
                )
            self._writer.check_takes(added)
            # Those with a stamp were merged from other indices. The source may list them; the others are taken over at the end.
            kept = [place for place, stamp in enumerate(added.stamps) if stamp is None]
            if kept and not self._writer.find([added.names[kept[0]]]):
                self._writer.take_over(added, kept)
                self._writer.commit()
        except store.DamageError as error:
            if not self._prune:
                raise _cannot_take_over(folder, error) from error

    def _drop_no_longer_by_hand(self, names):
        """Lets go of rows that a killed run took over as added by hand, and that have been replaced by a photo's own since."""
        self._writer.drop(
            photo.id for photo in self._writer.photos() if photo.listed is False and photo.described and photo.name not in names
        )

    def todo(self, bar: Any) -> Iterator[tuple[Item, Known | None]]:
        """The photos that have to be read, each with what the index knows of it; the others are counted.

        Those that an earlier run could not read come last, so that the windows of the others are those of a run that was not
        interrupted.
        """
        items, is_list, again = iter(self._items), hasattr(self._items, "__len__"), array.array("q")
        step = _LOOKED_UP if is_list else 1  # what a dataset gives is in memory
        for start in itertools.count(0, step):
            part = list(itertools.islice(items, step))
            if not part:
                break
            if self._listed is None:
                self._names.update(item.name for item in part)
            for place, (item, known, is_wanted) in enumerate(self._looked_up(part), start):
                if is_wanted and is_list and failed_earlier(known):
                    again.append(place)
                elif is_wanted:
                    yield item, known
                else:
                    if known is not None and not known.described and self._strict:
                        raise ImageError(known.fault)
                    self.excluded += item.name in self._excluded
                    bar.advance(known is not None and not known.described, new=False)
        for start in range(0, len(again), _LOOKED_UP):
            part = [self._items[place] for place in again[start : start + _LOOKED_UP]]
            yield from ((item, known) for item, known, _ in self._looked_up(part))

    def still_todo(self, items: Sequence[Item]) -> Iterator[tuple[Item, Known | None]]:
        """Those of photos that have to be read, or `None` in the place of the others, which are not counted: for photos that
        `todo` gave, also to an earlier run. What the source does not list in that state any more need not be read."""
        looked_up = self._looked_up(self.still_listed(items))
        wanted = {item.name: (item, known) for item, known, is_wanted in looked_up if is_wanted}
        for item in items:
            yield wanted.get(item.name)

    def still_listed(self, items: Sequence[Item]) -> list[Item]:
        """Those of photos that the source lists, as they are."""
        if self._listed is not None:
            now = self._items.find([item.name for item in items])
        else:
            self._by_name = self._by_name or {item.name: item for item in self._items}
            now = self._by_name
        return [item for item in items if item.name in now and item.is_same(now[item.name])]

    def _looked_up(self, items):
        """Photos, what the index knows of each, and whether it has to be read."""
        found = self._writer.find([item.name for item in items])
        for item in items:
            known = found.get(item.name)
            is_excluded = item.name in self._excluded
            is_settled = not is_excluded and known is not None and self._is_settled(item, known)
            yield item, known, not is_excluded and not is_settled
            if len(self._renewed) >= _NOTES:
                self.commit()

    def _is_settled(self, item, known):
        """Whether a photo needs no reading; if it was found as it had been described, that is noted."""
        if known.listed is False and known.stamp is None:
            return True  # added by hand: it is not the source's
        if item.stamp is None:
            return not item.is_file and known.stamp is None and known.described
        if known.stamp is None or known.stamp[:2] != item.stamp or self._checksum:
            return False
        self._forget_fault(item.name)
        if known.described and (known.fault is not None or not known.listed):
            self._renew(known.id, known.stamp)
        return True

    def _forget_fault(self, name):
        """Forgets that a photo could not be read, once it has been: a run may come to a photo twice."""
        self._unread.pop(name, None)
        self._changed_and_bad.pop(name, None)

    def _renew(self, photo, stamp):
        self._renewed.append((photo, stamp))

    def check(self, reading: Reading) -> None:
        """Raises the error that ends a strict run: that of a photo that cannot be read, now or as an earlier run found it."""
        if self._strict and reading.error is not None:
            raise reading.error
        if self._strict and reading.pixels is None and not reading.known.described:
            raise ImageError(reading.known.fault)

    def take(self, window: Window) -> None:
        """Takes what became of photos, with the region vectors of each where the index holds such, and makes it part of the
        index."""
        described = set(window.places)
        for place, reading in enumerate(window.readings):
            if reading.error is not None:
                self._failed(reading)
            elif place not in described:
                self._found_same(reading)
        if described:
            readings = [window.readings[place] for place in window.places]
            names, stamps = [one.item.name for one in readings], [one.stamp for one in readings]
            self._writer.put(names, window.descriptors, stamps, regions=window.regions)
            for name in names:
                self._forget_fault(name)
            self.described += len(readings)
            self.changed += sum(one.known is not None and one.known.described for one in readings)
        self.commit()

    def _found_same(self, reading):
        """Notes that a photo has the bytes that were described, or found bad."""
        known = reading.known
        self._forget_fault(reading.item.name)
        if not known.described and known.stamp != reading.stamp:
            self._writer.fail(reading.item.name, known.fault, reading.stamp)
        elif known.described and (known.stamp, known.fault, known.listed) != (reading.stamp, None, True):
            self._renew(known.id, reading.stamp)

    def _failed(self, reading):
        """Notes that a photo could not be read."""
        name, reason = reading.item.name, str(reading.error)
        self._forget_fault(name)
        has_row = reading.known is not None and reading.known.described
        if not has_row:
            stamp = None if reading.passing else reading.stamp
            if reading.known is None or (reading.known.fault, reading.known.stamp) != (reason, stamp):
                self._writer.fail(name, reason, stamp)
            return
        if reading.known.fault != reason:  # else it is noted already, and an index that says the same stays as it is
            self._writer.mark(name, reason)
        if reading.passing:
            self._unread[name] = reason
        else:
            self._changed_and_bad[name] = reason, reading.stamp

    def commit(self) -> None:
        """Makes what was taken part of the index."""
        self._writer.renew(self._renewed)
        self._renewed = []
        self._writer.commit()

    def finish(self) -> None:
        """Lets go what has to leave, and ends the run.

        Raises:
            ValueError: when too much of the index would leave it. What was described stays.
        """
        self.commit()
        check_loss(self._writer.folder, self._names, self._prune, self._writer.beside)
        few = len(self._changed_and_bad) <= _MOST_UNDECODABLE * self._count
        for name, (reason, stamp) in self._changed_and_bad.items():
            if few or self._prune:
                self._writer.fail(name, reason, stamp)
                self.undecodable.append((name, reason))
            else:
                self._unread[name] = reason
        gone = [photo for photo in self._writer.photos() if _is_gone(photo, self._names)]
        self._writer.drop(photo.id for photo in gone)
        self.removed = sum(photo.described for photo in gone)
        if self._writer.beside:
            self._check_replaced()
            self._writer.take_over_rest(lossy=self._prune)
        self._writer.finish()

    def _check_replaced(self):
        """Stops before a new index takes the place of one with descriptors of photos that cannot be read now."""
        if self._prune:
            return
        failures = dict(self._writer.failures())
        described = (photo.name for photo in store.photos(self._writer.folder) if photo.described)
        missing = sorted((name, failures[name]) for name in described if name in failures)
        if missing:
            raise ValueError(
                f"{self._writer.folder} was left as it is: it holds descriptors of {len(missing)} photos that cannot be read now, "
                f"such as {missing[0][0]!r} ({missing[0][1]}). Run again with --force when they can, or also with --prune (in "
                "Python: prune=True) to do without them."
            )
