"""Readers while an index is written, and writers that would write it at the same time: real processes."""

import hashlib
import json
import os
import pathlib
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest
from small_stores import DIMENSIONS, RECIPE, bring_up_to_date, check_whole, some_photos, visible, write_old

from rw_keras.retrieval import Index, schema, store
from rw_keras.retrieval.writer import Writer


def generation(number):
    """The photos of a state: each name and each vector says which, and the size differs from one to the next."""
    count = 40 + 37 * (number % 5)
    vectors = np.random.default_rng(number).standard_normal((count, DIMENSIONS)).astype("float32")
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    # A third of the names are in every state, with other vectors.
    names = [f"{place:03d}.jpg" if place % 3 else f"{place:03d} of {number}.jpg" for place in range(count)]
    return {name: ([number, place], vector) for place, (name, vector) in enumerate(zip(names, vectors))}


def digest(names, vectors):
    pairs = sorted(zip(names, (np.asarray(vector, "float32").tobytes() for vector in vectors)))
    return hashlib.sha256(b"".join(os.fsencode(name) + vector for name, vector in pairs)).hexdigest()


# Programs.


def write(folder, log, seconds):
    """Brings an index from one state to the next, in every way there is; the log has the digest of each before it is committed."""
    store.SEGMENT_ROWS = 64
    chance, end, number = random.Random(0), time.monotonic() + float(seconds), 0
    with open(log, "a") as file:

        def expect(names, vectors):
            file.write(f"{digest(names, vectors)}\n")
            file.flush()

        while time.monotonic() < end:
            number += 1
            photos = generation(number)
            vectors = np.array([vector for _, vector in photos.values()])
            expect(photos, vectors)
            way = number % 4
            if way == 0:  # a rebuild, of many commits
                with Writer(folder, RECIPE, DIMENSIONS, beside=True) as writer:
                    for start in range(0, len(photos), 16):
                        part = list(photos)[start : start + 16]
                        writer.put(part, vectors[start : start + 16], [photos[name][0] for name in part])
                        writer.commit()
                    writer.finish()
            elif way == 1:  # all at once, and then what is left of the files is moved
                with Writer(folder, RECIPE, DIMENSIONS) as writer:
                    writer.drop([photo.id for photo in writer.photos()])
                    writer.put(list(photos), vectors, [stamp for stamp, _ in photos.values()])
                    writer.finish()
            elif way == 2:  # a save elsewhere, which takes the place of what is there
                index = Index(list(photos), vectors, recipe=RECIPE)
                expect(index.names, index.descriptors)
                index.save(folder, overwrite=True)
            else:  # removals, and a save in place
                index = Index.load(folder)
                index.remove(chance.sample(list(index.names), len(index) // 2))
                changed = list(index.names)[:10]
                index.update(changed, vectors[: len(changed)])
                index.add([f"added {number}"], np.eye(DIMENSIONS)[:1])
                expect(index.names, np.asarray(index.descriptors))
                index.save(folder)
    print(json.dumps({"states": number}))


def read(folder, log):
    """Loads and searches until it is told to end; what it has seen."""
    loads, problems, seen, generations = 0, [], set(), set()
    while os.getppid() != 1 and not pathlib.Path(f"{log}.end").exists():
        try:
            index = Index.load(folder)
            hits = index.search_batch(np.eye(DIMENSIONS), len(index))
            loads += 1
            vectors = np.asarray(index.descriptors)
            found = digest(index.names, vectors)
            seen.add(found)
            generations.add((index._stored.identity, index._stored.generation))
            if found not in pathlib.Path(log).read_text():
                problems.append(f"load {loads} saw a state of {len(index)} photos that there never was")
            if sorted(name for name, _ in hits[0]) != sorted(index.names):
                problems.append(f"load {loads}: the hits are not those of its names")
        except Exception as error:
            problems.append(f"load {loads}: {type(error).__name__}: {error}")
    print(json.dumps({"loads": loads, "problems": problems, "seen": len(seen), "generations": len(generations)}))


def hold(folder):
    """Holds an index's lock, until it is killed."""
    with Writer(folder, RECIPE, DIMENSIONS) as writer:
        writer.put(["held.jpg"], np.eye(DIMENSIONS)[:1], [[1, 1]])
        writer.commit()
        writer.put(["lost.jpg"], np.eye(DIMENSIONS)[:1], [[1, 1]])
        print("held", flush=True)
        time.sleep(600)


def break_off(path):
    """Dies amid a commit, when a part of it is in the database."""
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA cache_size = 2")
    database.execute("BEGIN IMMEDIATE")
    database.execute("UPDATE photos SET size = 7")
    os.kill(os.getpid(), signal.SIGKILL)


def program(*arguments):
    """What runs this file in a process of its own, with the same packages."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "1"}
    return {"args": [sys.executable, __file__, *map(str, arguments)], "env": environment, "text": True}


# Tests.


class TestReaders:
    @pytest.mark.parametrize("seconds", [3, pytest.param(20, marks=pytest.mark.slow)])
    def test_see_one_state_each(self, folder, tmp_path, seconds):
        """While a writer updates, removes, moves rows and rebuilds, each load is of one committed state, and none fails."""
        log, photos = tmp_path / "log", generation(0)
        log.write_text(digest(photos, [vector for _, vector in photos.values()]) + "\n")
        bring_up_to_date(folder, photos)
        readers = [subprocess.Popen(**program("read", folder, log), stdout=subprocess.PIPE) for _ in range(2)]
        try:
            written = subprocess.run(**program("write", folder, log, seconds), capture_output=True)
            pathlib.Path(f"{log}.end").touch()
            reports = [json.loads(reader.communicate(timeout=120)[0]) for reader in readers]
        finally:
            for reader in readers:
                reader.kill()
        assert written.returncode == 0, written.stderr[-3000:]
        states = json.loads(written.stdout)["states"]
        print(f"\n{states} changes; " + "; ".join(f"{one['loads']} loads saw {one['generations']} generations" for one in reports))
        assert [problem for report in reports for problem in report["problems"]] == []
        assert states >= 4 and all(report["loads"] >= 3 * seconds and report["seen"] > 3 for report in reports)
        check_whole(folder)

    @pytest.mark.slow
    def test_one_that_has_opened_the_database_leaves_the_next_one_alone(self, folder):
        """A reader that opened the index before a rebuild, and reads it after a later commit was killed."""
        photos = some_photos(300)
        bring_up_to_date(folder, photos)
        database = schema.connected(folder / "index.sqlite")
        database.execute("BEGIN")
        bring_up_to_date(folder, some_photos(300, seed=1), beside=True)
        expected = visible(folder)
        killed = subprocess.run(**program("break_off", folder / "index.sqlite"))
        assert killed.returncode == -signal.SIGKILL
        assert (folder / "index.sqlite-journal").stat().st_size > 0
        sizes = {size for (size,) in database.execute("SELECT size FROM photos WHERE row IS NOT NULL")}
        database.close()
        assert sizes in ({100}, {101})
        assert visible(folder) == expected
        check_whole(folder)

    def test_an_index_stays_readable_while_it_is_written_anew(self, folder):
        """What was loaded before keeps its rows, though their files are gone."""
        photos = generation(1)
        bring_up_to_date(folder, photos)
        index = Index.load(folder)
        before = digest(photos, [vector for _, vector in photos.values()])
        bring_up_to_date(folder, generation(2), beside=True)
        bring_up_to_date(folder, generation(3))
        assert digest(index.names, np.asarray(index.descriptors)) == before
        with pytest.raises(ValueError, match="has changed since this index was loaded"):
            index.save(folder)

    def test_of_an_old_format_while_it_is_converted(self, folder):
        write_old(folder, some_photos(40))
        index = Index.load(folder)
        before = visible(folder)
        with Writer(folder, RECIPE, DIMENSIONS):
            pass
        assert visible(folder) == before
        assert np.asarray(index.descriptors).tobytes() == before[1]


@pytest.mark.usefixtures("impatient")
class TestLock:
    def test_another_process_is_refused(self, folder):
        bring_up_to_date(folder, some_photos(20))
        loaded = Index.load(folder)
        with subprocess.Popen(**program("hold", folder), stdout=subprocess.PIPE) as holder:
            try:
                assert holder.stdout.readline() == "held\n"
                before = visible(folder)
                words = f"^{re.escape(str(folder))} is being written by another process .process {holder.pid}.; wait"
                for write in (
                    lambda: bring_up_to_date(folder, {}),
                    lambda: bring_up_to_date(folder, {}, beside=True),
                    lambda: Index(["a"], np.eye(DIMENSIONS)[:1]).save(folder, overwrite=True),
                    lambda: Index.load(folder).save(folder),
                ):
                    with pytest.raises(ValueError, match=words):
                        write()
                with pytest.raises(ValueError, match="has changed since this index was loaded"):
                    loaded.save(folder)
                assert visible(folder) == before
            finally:
                holder.kill()
        # The lock of a killed process holds nobody up, and what it had committed is there.
        with Writer(folder, RECIPE, DIMENSIONS) as writer:
            assert set(writer.find(["held.jpg", "lost.jpg"])) == {"held.jpg"}
        check_whole(folder)

    def test_extract_is_refused(self, folder, model, photo_folder):
        from rw_keras import extract

        extract(model, photo_folder, folder, runtime="tensorflow", progress=False)
        before = visible(folder)
        about = store.about(folder)
        with Writer(folder, about["recipe"], about["dimensions"]):
            for arguments in ({}, {"resume": False}):
                with pytest.raises(ValueError, match=f"being written by another process .process {os.getpid()}"):
                    extract(model, photo_folder, folder, runtime="tensorflow", progress=False, **arguments)
        assert visible(folder) == before

    def test_the_same_process_is_refused(self, folder):
        with Writer(folder, RECIPE, DIMENSIONS) as writer:
            with pytest.raises(ValueError, match=f"being written.*process {os.getpid()}"):
                bring_up_to_date(folder, {})
            writer.put(["a.jpg"], np.eye(DIMENSIONS)[:1], [[1, 1]])
            writer.commit()
        assert list(store.read(folder).names) == ["a.jpg"]

    def test_is_free_after_an_error(self, folder):
        for error in (KeyboardInterrupt, OSError, ValueError):
            with pytest.raises(error), Writer(folder, RECIPE, DIMENSIONS):
                raise error
        bring_up_to_date(folder, some_photos(9))
        with sqlite3.connect(folder / "index.sqlite") as database:
            database.execute("UPDATE about SET value = '6' WHERE field = 'format'")
        for _ in range(2):
            with pytest.raises(ValueError, match="format 6"):
                Writer(folder, RECIPE, DIMENSIONS).__enter__()
        with sqlite3.connect(folder / "index.sqlite") as database:
            database.execute("UPDATE about SET value = '5' WHERE field = 'format'")
        bring_up_to_date(folder, some_photos(20))
        check_whole(folder)

    def test_an_old_lock_file_holds_nobody_up(self, folder):
        folder.mkdir()
        (folder / ".lock").write_text("process 1, long gone")
        bring_up_to_date(folder, some_photos(20))
        assert (folder / ".lock").read_text() == f"process {os.getpid()}"

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_a_folder_that_may_only_be_read_is_read(self, folder):
        bring_up_to_date(folder, some_photos(20))
        expected = visible(folder)
        for path in (*folder.iterdir(), folder):
            path.chmod(0o500 if path == folder else 0o400)
        try:
            assert visible(folder) == expected
            assert store.check(folder) == []
            with pytest.raises(OSError, match=re.escape(str(folder))):
                bring_up_to_date(folder, {})
        finally:
            folder.chmod(0o700)


if __name__ == "__main__":
    {"write": write, "read": read, "hold": hold, "break_off": break_off}[sys.argv[1]](
        *map(pathlib.Path, sys.argv[2:4]), *sys.argv[4:]
    )
