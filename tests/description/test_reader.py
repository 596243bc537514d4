import os
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rw_keras.description import reader
from rw_keras.description.reader import read_ahead


class Photos:
    """Makes an array of as many bytes as an item is, and counts what is decoded and not taken."""

    def __init__(self):
        self.lock = threading.Lock()
        self.held = self.most = 0

    def read(self, size):
        with self.lock:
            self.held += size
            self.most = max(self.most, self.held)
        return np.zeros(size, "uint8")

    def taken(self, items, workers):
        """What `read_ahead` gives, taken one by one."""
        for item, pixels in read_ahead(items, self.read, lambda pixels: pixels, workers):
            with self.lock:
                self.held -= len(pixels)
            yield item, pixels


@given(sizes=st.lists(st.integers(0, 50), max_size=30), workers=st.integers(1, 6), budget=st.integers(0, 120))
@settings(max_examples=60)
def test_all_come_in_order(sizes, workers, budget):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "_BUDGET", budget)
        found = list(Photos().taken(sizes, workers))
    assert [item for item, _ in found] == [len(pixels) for _, pixels in found] == sizes


@given(
    size=st.integers(1, 50), count=st.integers(1, 30), workers=st.integers(1, 8), budget=st.integers(0, 200), is_slow=st.booleans()
)
@settings(max_examples=60)
def test_photos_of_one_size_stay_within_the_budget(size, count, workers, budget, is_slow):
    """But for the next one to be taken, which never waits."""
    photos = Photos()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "_BUDGET", budget)
        for _ in photos.taken([size] * count, workers):
            if is_slow:
                time.sleep(0.001)
    assert photos.most <= max(budget, size) + size
    assert photos.held == 0


def test_a_large_photo_among_small_ones():
    """Those that were begun before its size was known are one a thread."""
    photos = Photos()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "_BUDGET", 100)
        for _ in photos.taken([10] * 5 + [70] * 20 + [10] * 20, 4):
            time.sleep(0.002)
    assert photos.most <= 100 + 70 * 4


def test_photos_that_fit_are_read_ahead():
    """Three that wait while the first one is being described."""
    others = threading.Barrier(4, timeout=20)
    photos = Photos()

    def read(number):
        if number:
            others.wait()
        return photos.read(10)

    each = read_ahead(range(4), read, lambda pixels: pixels, 4)
    assert next(each)[0] == 0
    others.wait()
    assert [number for number, _ in each] == [1, 2, 3]


def test_results_without_pixels_weigh_nothing():
    reading = threading.Barrier(3, timeout=20)

    def read(number):
        if number:
            reading.wait()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "_BUDGET", 1)
        assert [found for _, found in read_ahead(range(7), read, lambda found: found, 3)] == [None] * 7


@pytest.mark.parametrize("budget", [0, 1 << 20])
def test_who_takes_no_more_leaves_no_thread(monkeypatch, budget):
    monkeypatch.setattr(reader, "_BUDGET", budget)
    before = threading.active_count()
    photos, read = Photos(), []
    each = read_ahead(range(1000), lambda number: read.append(number) or photos.read(10), lambda pixels: pixels, 4)
    next(each)
    each.close()
    assert threading.active_count() == before
    assert len(read) <= 4 * 2 + 2


def test_an_error_ends_it():
    def read(number):
        if number == 3:
            raise RuntimeError("no photo but a mistake")
        return np.zeros(1)

    taken = []
    with pytest.raises(RuntimeError, match="a mistake"):
        for number, _ in read_ahead(range(9), read, lambda pixels: pixels, 2):
            taken.append(number)
    assert taken == [0, 1, 2]


def test_auto_is_a_thread_for_each_processor_up_to_16(monkeypatch):
    asked, real = [], reader.concurrent.futures.ThreadPoolExecutor
    monkeypatch.setattr(reader.concurrent.futures, "ThreadPoolExecutor", lambda workers: asked.append(workers) or real(workers))
    for processors in (3, 64, None):
        monkeypatch.setattr(os, "cpu_count", lambda processors=processors: processors)
        assert list(read_ahead([1], lambda item: item, lambda found: None, "auto")) == [(1, 1)]
    assert asked == [3, 16, 1]
