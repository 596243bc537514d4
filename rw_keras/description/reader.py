"""Reading photos ahead, on other threads, in their order and within a budget of memory."""

from __future__ import annotations

import collections
import concurrent.futures
import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from rw_keras.photos.reading import ImageError, MissingReaderError, read_image
from rw_keras.photos.sources import Item
from rw_keras.retrieval.store import Known, Stamp

# Two photos in hand for each decoding thread bridge an uneven one.
_AHEAD = 2
# What photos take that are decoded, or being decoded, before their turn: three of 24 megapixels. Of photos with a longer side of
# 1024, sixteen threads have a third of it in hand.
_BUDGET = 256 << 20


class Reading(NamedTuple):
    """What became of a photo that was to be read.

    Attributes:
        item: the photo.
        known: what the index knew of it, or `None`.
        stamp: by which a change of it will be seen.
        pixels: `(H, W, 3)`; `None` where it was not decoded:
        error: because it could not be; without an error its bytes are those that were described.
        passing: whether the error may pass, as one of a disk does.
    """

    item: Item
    known: Known | None
    stamp: Stamp | None
    pixels: np.ndarray | None = None
    error: Exception | None = None
    passing: bool = False


def failed_earlier(known: Known | None) -> bool:
    """Whether an earlier run could not read a photo, of which an index knows this."""
    return known is not None and known.fault is not None


def read_item(item: Item, known: Known | None, max_side: int | None, min_side: int, checksum: bool) -> Reading:
    """Reads a photo, or finds by its SHA-256 that it need not be; runs on any thread.

    Args:
        item: the photo.
        known: what the index knows of it; `None` for a photo that is new to it.
        max_side, min_side: see `rw_keras.photos.reading.read_image`.
        checksum: whether a change is seen by the SHA-256 of the photo's bytes.
    """
    stamp = item.stamp
    try:
        if checksum and stamp is not None:
            stamp = [*stamp, _content_digest(item)]
            if known is not None and known.stamp is not None:
                earlier = known.stamp[2] if len(known.stamp) > 2 else None
                # An earlier run that asked for no checksum has vouched for these bytes by their size and time.
                if earlier == stamp[2] or (earlier is None and known.stamp == item.stamp):
                    return Reading(item, known, stamp)
        return Reading(item, known, stamp, read_image(item.open(), None, max_side, min_side))
    except ImageError as error:
        # Of a file that could not even be looked at, or that nothing here can decode, nothing is known about its bytes.
        unknown = isinstance(error, MissingReaderError) or (stamp is None and item.is_file)
        return Reading(item, known, None if unknown else stamp, error=error, passing=unknown)
    except (OSError, MemoryError) as error:
        error = error if str(error) else ImageError(f"{item.name} cannot be read: {type(error).__name__}.")
        return Reading(item, known, None, error=error, passing=True)


def _content_digest(item):
    source = item.open()
    if hasattr(source, "read"):
        return hashlib.sha256(source.read()).hexdigest()
    with open(source, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_ahead(
    items: Iterable[Any], read: Callable[[Any], Any], pixels_of: Callable[[Any], np.ndarray | None], workers: int | str
) -> Iterator[tuple[Any, Any]]:
    """Reads on other threads, a few photos ahead of who takes them.

    A thread waits before it begins a photo that would take the photos in hand beyond 256 MB, unless that is the next one to be
    taken. Each is reckoned to be as large as the largest one so far.

    Args:
        items: what is read; iterated on the caller's thread.
        read: from an item to what came of it.
        pixels_of: from that to the pixels in it, or `None`.
        workers: how many threads; "auto": one a processor, at most 16.

    Yields:
        (item, what came of it) in the order of `items`.
    """
    workers = min(os.cpu_count() or 1, 16) if workers == "auto" else workers
    gate = _Gate(read, pixels_of, _BUDGET)
    with concurrent.futures.ThreadPoolExecutor(workers) as threads:
        waiting = collections.deque()
        try:
            for place, item in enumerate(items):
                waiting.append((item, threads.submit(gate.read, place, item)))
                if len(waiting) > _AHEAD * workers:
                    yield gate.take(*waiting.popleft())
            while waiting:
                yield gate.take(*waiting.popleft())
        finally:
            gate.close()
            threads.shutdown(wait=False, cancel_futures=True)


class _Gate:
    """Lets a thread begin a photo when those in hand leave room for it in the budget; the next one to be taken never waits."""

    def __init__(self, read, pixels_of, budget):
        self._read, self._pixels_of, self._budget = read, pixels_of, budget
        self._changed = threading.Condition()
        self._next = self._held = self._begun = 0
        self._largest = None
        self._is_closed = False

    def read(self, place, item):
        """What `read` makes of the item at a place; runs on any thread, which the places come to in order."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or place == self._next or self._has_room())
            if self._is_closed:
                return None
            self._begun += 1
        held = 0
        try:
            found = self._read(item)
            held = self._bytes_of(found)
            return found
        finally:
            with self._changed:
                self._begun -= 1
                self._held += held
                self._largest = max(self._largest or 0, held)
                self._changed.notify_all()

    def _has_room(self):
        """Whether one more photo fits. Before the first one has been read no size is known."""
        return self._largest is not None and self._held + (self._begun + 1) * self._largest <= self._budget

    def take(self, item, future):
        """The next item and what came of it, which is no longer in hand."""
        found = future.result()
        with self._changed:
            self._next += 1
            self._held -= self._bytes_of(found)
            self._changed.notify_all()
        return item, found

    def _bytes_of(self, found):
        pixels = self._pixels_of(found)
        return 0 if pixels is None else pixels.nbytes

    def close(self):
        """Sends all threads home: nothing is taken any more."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
