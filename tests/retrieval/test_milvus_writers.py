"""Writers of an index in Milvus that end in between, lose their lease, or come at the same time."""

import contextlib
import os
import socket
import threading
import time

import numpy as np
import pytest

from rw_keras.retrieval import Index, places
from rw_keras.retrieval.milvus import MilvusError, MilvusWriter, lease
from rw_keras.retrieval.milvus.connection import Connection
from rw_keras.retrieval.milvus.layout import LEASE
from rw_keras.retrieval.milvus.ledger import Ledger, row
from rw_keras.retrieval.writer import LockedError

pytestmark = pytest.mark.milvus

RECIPE = {"backbone": "none", "max_side": 64}
DIMENSIONS = 8
NAMES = "abcdefgh"


@pytest.fixture
def place(tmp_path):
    pytest.importorskip("milvus_lite", reason='opens a file of milvus-lite: pip install "rw_keras[milvus]"')
    return f"milvus://{tmp_path / 'index.db'}"


def vectors_of(names):
    """The descriptors of photos that are called by a letter."""
    return np.eye(DIMENSIONS, dtype="float32")[[NAMES.index(name) for name in names]]


def put(writer, names, commit=True):
    writer.put(list(names), vectors_of(names), [[1, NAMES.index(name)] for name in names])
    if commit:
        writer.commit()


def writing(place):
    return MilvusWriter(place, RECIPE, DIMENSIONS)


def check_holds(place, names):
    """Checks that an index holds photos, in this order, each with its own vector, and that it is whole."""
    with Index.open(place) as index:
        assert list(index.names) == list(names)
        for name in names:
            assert index.search(vectors_of(name)[0], 1) == [(name, 1.0)]
    assert places.check(place) == []


def break_writes(monkeypatch, collection):
    """Lets the next write of a collection fail, as a request that Milvus does not answer in time."""
    upsert = Connection.upsert

    def failing(self, own, rows):
        if own.endswith(collection) and any("lease" not in str(one.get("key")) for one in rows):
            raise MilvusError("Milvus did not answer in time.")
        upsert(self, own, rows)

    monkeypatch.setattr(Connection, "upsert", failing)


def test_what_was_put_and_not_committed_is_no_photo_of_the_next_writer(place):
    with writing(place) as writer:
        put(writer, "ab")
    with pytest.raises(KeyboardInterrupt), writing(place) as writer:
        put(writer, "c", commit=False)
        raise KeyboardInterrupt
    with writing(place) as writer:
        assert writer.find(["c"]) == {} and writer.count() == 2
        put(writer, "d")
    check_holds(place, "abd")
    with writing(place) as writer:
        put(writer, "c")
    check_holds(place, "abdc")


def test_a_writer_that_fails_between_the_vectors_and_the_ledger_is_put_right(place, monkeypatch):
    with writing(place) as writer:
        put(writer, "ab")
    with pytest.raises(MilvusError), writing(place) as writer, monkeypatch.context() as broken:
        break_writes(broken, "_ledger")
        put(writer, "cd")
    with pytest.raises(MilvusError), writing(place) as writer, monkeypatch.context() as broken:
        break_writes(broken, "_ledger")
        writer.fail("a", "it is no photo", [2, 0])  # its vector goes first
        writer.commit()
    with writing(place) as writer:
        assert writer.find(["a"]) == {}  # so the next update describes it
        put(writer, "e")
    check_holds(place, "be")


def test_a_commit_that_failed_is_not_half_of_the_next_one(place, monkeypatch):
    with writing(place) as writer:
        put(writer, "a")
    with pytest.raises(MilvusError), writing(place) as writer:
        put(writer, "b", commit=False)
        with monkeypatch.context() as broken:
            break_writes(broken, "_ledger")
            writer.commit()
    for name in "cb":
        with writing(place) as writer:
            put(writer, name)
    check_holds(place, "acb")


def test_a_writer_that_stood_still_for_a_minute_writes_nothing_more(place, monkeypatch):
    now, passed = lease._now, [0.0]
    with writing(place) as writer:
        put(writer, "a")
    stopped = writing(place)
    with pytest.raises(LockedError, match=r"could not tell .* for 6"), stopped as writer, monkeypatch.context() as frozen:
        frozen.setattr(lease, "_now", lambda: now() + passed[0])
        put(writer, "b", commit=False)
        leave_over(writer)
        with writing(place) as other:
            put(other, "c")
            passed[0] = 61.0
            put(writer, "d")
    check_holds(place, "ac")


def leave_over(writer):
    """Lets a writer's lease be over, as that of a process of another machine that stands still."""
    held = writer._lease._rows()[writer._lease._token]
    writer.ledger.write([row(f"lease:{held['token']}", LEASE, {**held, "until": 0.0})])


def test_a_writer_that_lost_its_lease_is_stopped_before_it_writes(place, monkeypatch):
    now = lease._now
    with pytest.raises(LockedError, match="took over"), writing(place) as writer:
        put(writer, "a")
        leave_over(writer)
        with writing(place) as other:
            put(other, "b")
        monkeypatch.setattr(lease, "_now", lambda: now() + lease._CHECKED + 1)
        put(writer, "c", commit=False)
    monkeypatch.undo()
    check_holds(place, "ab")


def test_a_renewal_that_took_a_minute_does_not_steal_the_lease_back(place, monkeypatch):
    with writing(place) as writer:
        put(writer, "a")
        own, now, passed = writer._lease, lease._now, [0.0]
        monkeypatch.setattr(lease, "_now", lambda: now() + passed[0])
        write = own._write

        def standing_still(until):
            write(until)
            passed[0] = lease._LASTS + 1

        monkeypatch.setattr(own, "_write", standing_still)
        own._renew()
        with pytest.raises(LockedError, match="another one may write there by now"):
            put(writer, "b", commit=False)
        monkeypatch.undo()
    check_holds(place, "a")


def test_of_many_writers_that_begin_together_one_writes(place, monkeypatch):
    monkeypatch.setattr("rw_keras.retrieval.writer.PATIENCE", 30.0)
    with writing(place) as writer:
        put(writer, "a")
    inside, most, failed = [], [], []

    def write(name):
        try:
            with writing(place) as writer:
                inside.append(name)
                most.append(len(inside))
                put(writer, name)
                inside.remove(name)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(name,)) for name in "bcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == [] and most == [1, 1, 1]
    with Index.open(place) as index:
        assert sorted(index.names) == list("abcd")
    assert places.check(place) == []


@pytest.mark.parametrize("renewed", [False, True])
def test_a_lease_of_another_machine_is_watched_before_it_is_taken(place, monkeypatch, renewed):
    monkeypatch.setattr(lease, "_WATCHED", 0.3)
    with writing(place) as writer:
        put(writer, "a")
        ledger, other = writer.ledger, row("lease:other", LEASE, elsewhere(time.time() - 1))
        ledger.write([other])
    with contextlib.closing(Connection(writer._address)) as connection:
        if renewed:
            sleep = time.sleep
            monkeypatch.setattr(
                lease.time,
                "sleep",
                lambda seconds: (
                    Ledger(connection).write([row("lease:other", LEASE, elsewhere(time.time() - 0.5))]),
                    sleep(seconds),
                ),
            )
            with pytest.raises(LockedError, match="whose clock differs"), writing(place):
                pass
        else:
            with writing(place) as writer:
                put(writer, "b")
    check_holds(place, "a" if renewed else "ab")


def elsewhere(until):
    """The lease of a process of a container with the name of this machine, and other numbers of processes."""
    host = socket.gethostname()
    return {"token": "other", "host": host, "machine": ["another", 1], "process": 2**22 + 1, "until": until}


@pytest.mark.parametrize(("machine", "is_over"), [(None, False), (["another", 1], False), ("own", True)])
def test_a_process_number_counts_only_where_it_was_given(machine, is_over):
    held = {**elsewhere(time.time() + 30), "machine": lease._machine() if machine == "own" else machine}
    assert lease._is_over(held) == is_over
    assert not lease._is_over({**held, "process": os.getppid()})
