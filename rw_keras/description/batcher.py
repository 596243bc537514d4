"""Photos of many sizes -> batches of one size each."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from rw_keras.description.describe import Batch
from rw_keras.description.reader import Reading, failed_earlier
from rw_keras.description.runner import Runner

# Photos that are read between two writes to the disk, also those that cannot be. A photo waits for others of its size no longer
# than that, so photos that are cut into parts of whole windows are batched as those that are not.
WINDOW = 128
# Decoded photos that wait for others of their size.
_WAITING_BYTES = 256 << 20


class Window(NamedTuple):
    """What became of photos that followed one another.

    Attributes:
        readings: of all of them in their order, without pixels.
        places: the places among them of those that were described.
        descriptors: `(n, D)` float32 of these.
        regions: the region vectors of these; `None` where they are not asked for.
    """

    readings: list[Reading]
    places: list[int]
    descriptors: np.ndarray
    regions: Any


def windows(readings: Iterable[tuple[Any, Reading]], batcher: Batcher, seen: Callable[[Reading], None]) -> Iterator[Window]:
    """Describes photos, a window at a time. Those that an earlier run could not read share no window with others.

    Args:
        readings: (anything, what became of a photo), as of `read_ahead`.
        batcher: what describes them.
        seen: called with each of them when it has been read.
    """
    is_again = False
    for _, reading in readings:
        seen(reading)
        if not batcher.is_empty and failed_earlier(reading.known) != is_again:
            yield batcher.close()
        is_again = failed_earlier(reading.known)
        batcher.take(reading)
        if batcher.is_full:
            yield batcher.close()
    if not batcher.is_empty:
        yield batcher.close()


class Batcher:
    """Puts photos into batches that depend on their order alone, a bounded number of photos at a time.

    Args:
        runner: what describes a batch, and says how many photos make one.
    """

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._start()

    def _start(self):
        self._waiting = 0
        self._readings: list[Reading] = []
        self._places: list[int] = []
        self._groups: dict[tuple[int, ...], list[tuple[int, np.ndarray]]] = {}
        self._running: list[tuple[list[int], concurrent.futures.Future[Batch]]] = []

    @property
    def is_full(self) -> bool:
        """Whether so many photos were taken that it is time to `close`."""
        return len(self._readings) == WINDOW

    @property
    def is_empty(self) -> bool:
        """Whether no photo was taken since the last `close`."""
        return not self._readings

    def take(self, reading: Reading) -> None:
        """Takes a photo; if it was decoded, describes a batch when it is full, or when too many bytes wait."""
        pixels = reading.pixels
        self._readings.append(reading._replace(pixels=None))
        if pixels is None:
            return
        group = self._groups.setdefault(pixels.shape, [])
        group.append((len(self._places), pixels))
        self._places.append(len(self._readings) - 1)
        self._waiting += pixels.nbytes
        if len(group) == self._runner.batch_of(pixels.shape):
            self._run(pixels.shape)
        while self._waiting > _WAITING_BYTES:
            self._run(next(iter(self._groups)))

    def _run(self, shape):
        group = self._groups.pop(shape)
        self._waiting -= sum(pixels.nbytes for _, pixels in group)
        rows = [row for row, _ in group]
        self._running.append((rows, self._runner.run(np.stack([pixels for _, pixels in group]))))

    def close(self) -> Window:
        """Describes what still waits, and starts over."""
        while self._groups:
            self._run(next(iter(self._groups)))
        vectors = np.empty((len(self._places), self._runner.dimensions), "float32")
        regions = [None] * len(self._places) if self._runner.regions else None
        for rows, result in self._running:
            described = result.result()
            vectors[rows] = described.descriptors
            for row, own in zip(rows, described.regions or ()):
                regions[row] = own
        window = Window(self._readings, self._places, vectors, regions)
        self._start()
        return window
