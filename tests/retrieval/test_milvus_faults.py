"""A Milvus server that is killed, frozen and away while it is written and searched.

With the variable RW_KERAS_TEST_MILVUS set to `all` the server is stopped and started again more often.
"""

import os
import secrets
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from rw_keras.retrieval import Index, places
from rw_keras.retrieval.milvus import MilvusError, MilvusIndex, MilvusWriter

pytestmark = pytest.mark.milvus
restarts = pytest.mark.skipif(
    os.environ.get("RW_KERAS_TEST_MILVUS") != "all", reason="waits a minute for the server's restarts: set RW_KERAS_TEST_MILVUS=all"
)

RECIPE = {"backbone": "none", "max_side": 64}
DIMENSIONS, WINDOW = 16, 128


def vectors_of(numbers):
    """The descriptors of the photos `0.jpg`, `1.jpg` and so on, the same in every process."""
    found = np.stack([np.random.default_rng(number).standard_normal(DIMENSIONS) for number in numbers])
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype("float32")


def write(place, start=0, stop=None, told=print):
    """Writes windows of photos until it fails, and tells how many were acknowledged."""
    with MilvusWriter(place, RECIPE, DIMENSIONS, timeout=10) as writer:
        while stop is None or start < stop:
            numbers = range(start, start + WINDOW)
            writer.put([f"{number}.jpg" for number in numbers], vectors_of(numbers), [[1, number] for number in numbers])
            writer.commit()
            start += WINDOW
            told(start, flush=True)


@pytest.fixture
def place(milvus_server):
    return f"milvus://127.0.0.1:{milvus_server.port}/faults_{secrets.token_hex(4)}"


def check_holds(place, count):
    """Checks that an index holds so many photos, in order, each with its own vector."""
    with Index.open(place) as index:
        assert list(index.names) == [f"{number}.jpg" for number in range(count)]
        numbers = np.arange(0, count, 7)
        found = index.nearest_batch(vectors_of(numbers), 1)
        assert index.named(found[0][:, 0]) == [f"{number}.jpg" for number in numbers]
        np.testing.assert_allclose(found[1], 1, atol=1e-5)


def started(place):
    """Another process that writes, and its acknowledged number so far."""
    process = subprocess.Popen(
        [sys.executable, __file__, place], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/"
    )
    told = []
    thread = threading.Thread(target=lambda: told.extend(iter(process.stdout.readline, "")), daemon=True)
    thread.start()
    return process, told, thread


def acknowledged(process, told, thread, most=4):
    deadline = time.monotonic() + 60
    while len(told) < most and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    assert len(told) >= most, process.communicate()[1]


def test_a_server_that_is_killed_keeps_what_it_acknowledged(milvus_server, place):
    writing = started(place)
    acknowledged(*writing)
    milvus_server.tell("kill")
    began = time.monotonic()
    process, told, thread = writing
    assert process.wait(60) != 0 and time.monotonic() - began < 45  # an error in bounded time, in words
    assert "MilvusError: milvus://127.0.0.1" in process.stderr.read()
    thread.join()
    milvus_server.tell("start")
    count = int(told[-1])
    write(place, count, count + 2 * WINDOW, lambda *_, **__: None)  # what was written beyond is put right first
    check_holds(place, count + 2 * WINDOW)
    assert places.check(place) == []


def test_a_writer_that_is_killed_leaves_what_was_acknowledged(place):
    process, told, thread = writing = started(place)
    acknowledged(*writing)
    process.kill()
    process.wait()
    thread.join()
    count = int(told[-1])
    with MilvusWriter(place, RECIPE, DIMENSIONS) as writer:  # at once: its process is no more
        assert writer.about["next_id"] in (count, count + WINDOW)  # the last commit, or one that was not told any more
        count = writer.about["next_id"]
    check_holds(place, count)
    assert places.check(place) == []


@restarts
def test_a_server_that_goes_away_in_a_search(milvus_server, place):
    write(place, 0, 2 * WINDOW, lambda *_, **__: None)
    with MilvusIndex(place, timeout=4) as index:
        query, before = vectors_of([3])[0], index.search(vectors_of([3])[0], 5)
        for command in ("freeze", "thaw"), ("kill", "start"):
            milvus_server.tell(command[0])
            began = time.monotonic()
            with pytest.raises(MilvusError, match=r"milvus://127.0.0.1:\d+/faults_\w+ could not search"):
                index.search(query, 5)
            assert time.monotonic() - began < 12
            milvus_server.tell(command[1])
            assert again(lambda: index.search(query, 5)) == before  # the same connection


def again(search):
    """What a search gives once the server is back."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return search()
        except MilvusError:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


@restarts
def test_the_recall_after_a_restart(milvus_server, place):
    rows = np.random.default_rng(0).standard_normal((5000, DIMENSIONS)).astype("float32")
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    queries = np.random.default_rng(1).standard_normal((50, DIMENSIONS))
    with MilvusWriter(place, RECIPE, DIMENSIONS) as writer:
        for start in range(0, len(rows), 1000):
            own = rows[start : start + 1000]
            writer.put([f"{start + number}.jpg" for number in range(len(own))], own, [None] * len(own))
        writer.finish()
    with MilvusIndex(place) as index:
        index.use_searcher("milvus-hnsw", m=8, ef_construction=40, ef_search=16)
        before = index.recall(queries)
    milvus_server.tell("stop")
    milvus_server.tell("start")
    with MilvusIndex(place) as index:
        after = index.recall(queries)
        exact = Index([f"{number}.jpg" for number in range(len(rows))], rows)
        own = dict(exact.search(queries[0], 5000))
        assert all(own[name] == score for name, score in index.search(queries[0], 10))
    assert 0.5 < before <= 1 and 0.5 < after <= 1


if __name__ == "__main__":
    write(sys.argv[1])
