"""Photos of many sizes -> batches of one size each."""

from __future__ import annotations

import concurrent.futures

import numpy as np

from rw_keras.description.describe import Batch
from rw_keras.description.reader import Reading
from rw_keras.description.runner import Runner

# Photos that are described between two writes to the disk. A photo waits for others of its size no longer than that.
WINDOW = 128
# Decoded photos that wait for others of their size.
_WAITING_BYTES = 256 << 20


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
        self._groups: dict[tuple[int, ...], list[tuple[int, np.ndarray]]] = {}
        self._running: list[tuple[list[int], concurrent.futures.Future[Batch]]] = []

    @property
    def is_full(self) -> bool:
        """Whether so many photos were taken that it is time to `close`."""
        return len(self._readings) == WINDOW

    def take(self, reading: Reading) -> None:
        """Takes a photo that was decoded, and describes a batch when it is full, or when too many bytes wait."""
        pixels = reading.pixels
        group = self._groups.setdefault(pixels.shape, [])
        group.append((len(self._readings), pixels))
        self._readings.append(reading._replace(pixels=None))
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

    def close(self) -> tuple[list[Reading], Batch]:
        """Describes what still waits, and begins anew: the readings in the order they were taken in, and what was made of them."""
        while self._groups:
            self._run(next(iter(self._groups)))
        vectors = np.empty((len(self._readings), self._runner.dimensions), "float32")
        regions = [None] * len(self._readings) if self._runner.regions else None
        for rows, result in self._running:
            described = result.result()
            vectors[rows] = described.descriptors
            for row, own in zip(rows, described.regions or ()):
                regions[row] = own
        readings = self._readings
        self._start()
        return readings, Batch(vectors, regions)
