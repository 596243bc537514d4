"""Writers of an index in Milvus that end in between, lose their lease, or come at the same time."""

import contextlib
import os
import socket
import threading
import time

import numpy as np
import pytest

from rw_keras.model.photo_regions import PhotoRegions
from rw_keras.retrieval import Index, places
from rw_keras.retrieval.milvus import Address, MilvusError, MilvusWriter, lease
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


@pytest.mark.parametrize("ending", ["_ledger", "_regions"])
def test_no_index_has_the_name_of_a_part_of_another(place, ending):
    with MilvusWriter(f"{place}?collection=my", RECIPE, DIMENSIONS) as writer:
        put(writer, "a")
    for url in (f"{place}?collection=my{ending}", f"milvus://127.0.0.1/my{ending}"):
        with pytest.raises(ValueError, match=f"is a part of an index, but got 'my{ending}'"):
            Address.of(url)
    check_holds(f"{place}?collection=my", "a")


def test_an_index_that_is_given_up_goes_while_nobody_else_writes_it(place, monkeypatch):
    dropped, drop = [], Connection.drop

    def noted(self, collection):
        with contextlib.closing(Connection(self.address)) as other:
            tokens = lease.Lease(Ledger(other))._rows() if other.describe("rw_keras_ledger") else {}
        dropped.append((collection, len(tokens)))
        drop(self, collection)

    monkeypatch.setattr(Connection, "drop", noted)
    regions = {"dtype": "int8", "dimensions": 4}
    with MilvusWriter(place, RECIPE, DIMENSIONS, regions=regions) as writer:
        writer.fail("a", "it is no photo", [1, 0])
        writer.commit()
        assert writer.abandon()
    assert dropped == [("rw_keras", 1), ("rw_keras_regions", 1), ("rw_keras_ledger", 1)]
    assert places.about(place) is None


@pytest.mark.parametrize("made", [1, 2])
def test_a_first_writer_that_is_killed_while_it_makes_the_collections(place, monkeypatch, made):
    calls, build = [], Connection.build

    def killed(self, *arguments):
        calls.append(arguments)
        if len(calls) == made:
            raise KeyboardInterrupt
        build(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Connection, "build", killed)
        with pytest.raises(KeyboardInterrupt), writing(place):
            pass
    assert places.about(place) is None
    with writing(place) as writer:
        put(writer, "ab")
    check_holds(place, "ab")


@pytest.mark.parametrize("is_dropped", [True, False])
def test_a_change_of_the_searcher_that_was_broken_off_is_put_right(place, monkeypatch, is_dropped):
    with writing(place) as writer:
        put(writer, "ab")
    build = Connection.build

    def killed(self, collection, index):
        if is_dropped:
            self._client.release_collection(collection)
            self._client.drop_index(collection, "vector")
        else:
            build(self, collection, index)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, Index.open(place) as index:
        patched.setattr(Connection, "build", killed)
        with pytest.raises(KeyboardInterrupt):
            index.use_searcher("milvus-hnsw")
    if not is_dropped:
        with writing(place):
            pass
    with Index.open(place) as index:
        assert index._connection.built("rw_keras") == "FLAT" and index.searcher.name == "milvus-flat"
        index.use_searcher("milvus-hnsw")
    built = []
    monkeypatch.setattr(Connection, "build", lambda *arguments: built.append(arguments))
    with writing(place) as writer, Index.open(place) as index:
        assert index._connection.built("rw_keras") == "HNSW" and built == []
    monkeypatch.undo()
    check_holds(place, "ab")


def test_of_a_name_that_is_put_twice_the_last_counts(place):
    regions = {"dtype": "int8", "dimensions": 4}
    own = [PhotoRegions(np.eye(4)[[number]] * 2, np.zeros((1, 4))) for number in range(3)]
    with MilvusWriter(place, RECIPE, DIMENSIONS, regions=regions) as writer:
        values = [{"n": number} for number in range(3)]
        writer.put(["a", "b", "a"], vectors_of("cba"), [[1, 0], [1, 1], [1, 2]], regions=own, metadata=values)
        writer.commit()
        assert writer.find(["a"])["a"].stamp == [1, 2] and writer.count() == 2
    check_holds(place, "ab")
    with Index.open(place) as index:
        assert list(index.metadata["n"]) == [2, 1]
        np.testing.assert_array_equal(index.regions[index.position("a")].vectors, own[2].vectors / 2)


def test_a_photo_that_fails_once_keeps_its_metadata_as_in_a_folder(place, tmp_path):
    found = []
    for out in (place, tmp_path / "folder"):
        for step in range(4):
            with places.writer(out, RECIPE, DIMENSIONS) as writer:
                if step in (0, 2, 3):
                    put(writer, "abc" if step < 3 else "b", commit=False)
                if step == 0:
                    writer.update_metadata({"city": {"a": "Oxford", "b": 'Quo"te\\ü', "c": "Paris"}, "year": {"b": 5}})
                if step in (1, 2):
                    writer.fail("b", "it is no photo", [2, step])
                if step == 1:
                    writer.fail("c", "it is no photo", [2, step])
                if step == 2:  # also while there is no row of it
                    writer.update_metadata({"year": {"a": 1, "b": None, "c": 3}, "more": {"b": [1]}})
                writer.finish()
        index = Index.open(out)
        found.append([index.metadata_of([index.position(name)])[0] for name in "abc"])
        if out == place:
            index.close()
    assert found[0] == found[1] and found[0][1] == {"city": 'Quo"te\\ü', "year": None, "more": [1]}
    assert found[0][2] == {"city": "Paris", "year": 3, "more": None}
    with writing(place) as writer:
        writer.fail("a", "it is no photo", None)
        writer.commit()
        writer.drop([writer.find(["a"])["a"].id])
        put(writer, "a")
    with Index.open(place) as index:  # a photo that left is another one when it comes again
        assert index.metadata_of([index.position("a")]) == [{"city": None, "year": None, "more": None}]
    assert places.check(place) == []
