"""An index that grows. Kills happen in processes that a driver forks, this file run as a program: NumPy alone, so they are fast."""

import builtins
import contextlib
import errno
import io
import itertools
import json
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rw_keras import collection
from rw_keras.collection import Collection
from rw_keras.retrieval import storage

RECIPE = {"backbone": "none", "max_side": 64}
ROWS, WINDOW = 64, 16
DIMENSIONS = 4


def some_photos(count, seed=0):
    """Name -> (stamp, vector) of photos; every eleventh has no vector: it cannot be read."""
    vectors = np.random.default_rng(seed).standard_normal((count, DIMENSIONS)).astype("float32")
    return {
        f"{number:04d}.jpg": ([100 + seed, number], None if number % 11 == 10 else vectors[number].tolist())
        for number in range(count)
    }


def some_changes(photos):
    """The same photos later: some changed, some gone, some renamed, some new; two became unreadable, one readable."""
    later, new = dict(photos), some_photos(len(photos), seed=1)
    names = list(photos)
    later.update({name: new[name] for name in names[3::5]})
    for name in names[::13]:
        del later[name]
    later.update({f"renamed {name}": later.pop(name) for name in names[4::17] if name in later})
    later.update({f"new {name}": new[name] for name in names[1::6]})
    later.update({name: ([300, 0], None) for name in names[1:6:4]})
    return dict(sorted(later.items()))


def bring_up_to_date(folder, photos, log=lambda line: None, **arguments):
    """What `extract` does, with vectors in place of photos. `log` hears of each photo described, and of each that is kept."""
    with Collection(folder, RECIPE, DIMENSIONS, **arguments) as index:
        todo = (name for name, (stamp, _) in photos.items() if name not in index.known or index.known[name] != stamp)
        while window := list(itertools.islice(todo, WINDOW)):
            for name in window:
                log(f"described {name} {photos[name][0]}")
            good = [name for name in window if photos[name][1] is not None]
            bad = [(name, f"{name} is empty", photos[name][0]) for name in window if photos[name][1] is None]
            vectors = np.array([photos[name][1] for name in good], "float32").reshape(-1, DIMENSIONS)
            index.add(good, [photos[name][0] for name in good], vectors, bad)
            for name in window:
                log(f"kept {name} {photos[name][0]}")
        return index.finish(photos)


def contents(folder):
    """The files of an index and their bytes, without the lock."""
    return {path.name: path.read_bytes() for path in pathlib.Path(folder).iterdir() if path.name != ".lock"}


def check_holds(folder, photos, dtype="float32"):
    """Checks that an index holds these photos, each once, and nothing else."""
    manifest, names, descriptors, failures = storage.read(folder)
    assert sorted(names) == sorted(name for name, (_, vector) in photos.items() if vector is not None)
    expected = np.array([photos[name][1] for name in names], dtype).reshape(-1, DIMENSIONS)
    np.testing.assert_array_equal(np.asarray(descriptors), expected, strict=True)
    assert sorted(failures) == sorted((name, f"{name} is empty") for name, (_, vector) in photos.items() if vector is None)
    assert manifest["count"] == len(names)
    assert storage.verify(folder) == []
    named = {entry[kind] for entry in manifest["shards"] for kind in ("descriptors", "photos")}
    assert set(contents(folder)) == named | {"index.json"}


# The driver.


class Journal:
    """A file whose writes are steps, too."""

    def __init__(self, file, step):
        self._file, self._step = file, step

    def __getattr__(self, name):
        return getattr(self._file, name)

    def write(self, content):
        return self._step("write", lambda: self._file.write(content), lambda: self._file.write(content[: len(content) // 2]))

    def truncate(self, *size):
        return self._step("truncate", lambda: self._file.truncate(*size))


def arm(step_number, when, note):
    """From here on, the process kills itself at a step: anything that changes the disk, counted from 1."""
    count = 0

    def step(name, function, half=lambda: None):
        nonlocal count
        count += 1
        if count != step_number:
            return function()
        note(f"step {count} ({name}), {when} it")
        if when == "after":
            function()
        else:
            half()
        os.kill(os.getpid(), signal.SIGKILL)
        return None

    def stepped(name, function):
        return lambda *arguments, **keywords: step(name, lambda: function(*arguments, **keywords))

    for module, name in ((os, "replace"), (os, "chmod"), (os, "unlink"), (os, "truncate"), (os, "mkdir"), (tempfile, "mkstemp")):
        setattr(module, name, stepped(name, getattr(module, name)))
    os.fsync = stepped("fsync", lambda file: None)  # what a killed process wrote, the system has

    def opened(path, mode="r", *arguments, **keywords):
        file = builtins.open(path, mode, *arguments, **keywords)  # noqa: SIM115
        return Journal(file, step) if "b" in mode and mode != "rb" else file

    collection.open = opened


class Driver:
    def __init__(self, scratch):
        self.scratch, self.kills, self.problems = pathlib.Path(scratch), [], []
        self.log = self.scratch / "log"
        self.photos = self.start = self.expected = None

    def prepare(self, photos, start=None):
        """What is to be done, in which index, and how the result looks without kills."""
        self.photos = photos
        if start is not None:
            self.start = self.scratch / "start"
            bring_up_to_date(self.start, start)
        self.fresh("uninterrupted")
        bring_up_to_date(self.scratch / "uninterrupted", photos)
        self.expected = contents(self.scratch / "uninterrupted")
        check_holds(self.scratch / "uninterrupted", photos)

    def fresh(self, name):
        folder = self.scratch / name
        shutil.rmtree(folder, ignore_errors=True)
        if self.start is None:
            folder.mkdir()
        else:
            shutil.copytree(self.start, folder)
        self.log.write_bytes(b"")
        return folder

    def run(self, folder, step=None, when="before", delay=None):
        """Runs in a process of its own, which is killed at a step or after some seconds; whether it was."""
        child = os.fork()
        if not child:
            status = 1
            try:
                file = os.open(self.log, os.O_WRONLY | os.O_APPEND)
                if step:
                    arm(step, when, lambda words: os.write(file, f"killed at {words}\n".encode()))
                bring_up_to_date(folder, self.photos, lambda line: os.write(file, f"{line}\n".encode()))
                status = 0
            except BaseException:
                traceback.print_exc(file=sys.stdout)
                sys.stdout.flush()
            finally:
                os._exit(status)
        if delay is not None:
            time.sleep(delay)
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        if os.WIFSIGNALED(status):
            self.kills.append(f"after {1000 * delay:.2f} ms" if delay else self.log.read_text().rpartition("killed at ")[2].strip())
            return True
        if os.WEXITSTATUS(status):
            self.problems.append(f"the run after {self.kills[-1:]} failed")
        return False

    def check(self, folder, what):
        found = contents(folder)
        if found != self.expected:
            files = sorted(name for name in {*found, *self.expected} if found.get(name) != self.expected.get(name))
            self.problems.append(f"{what}: {', '.join(files)} differ")
        kept = set()
        for line in self.log.read_text().splitlines():
            word, _, photo = line.partition(" ")
            if word == "kept":
                kept.add(photo)
            elif photo in kept:
                self.problems.append(f"{what}: {photo} was kept, and described again")
                break

    def at_every_step(self):
        for when in ("before", "after"):
            for step in itertools.count(1):
                folder = self.fresh("index")
                if not self.run(folder, step, when):
                    break
                self.run(folder)
                self.check(folder, self.kills[-1])

    def at_pairs_of_steps(self):
        """Killed in the first run, in the second one, and so on, at random steps: what a restart does is hit as well."""
        chance = random.Random(0)
        while len(self.kills) < 150:
            folder, first = self.fresh("index"), len(self.kills)
            while self.run(folder, chance.choice([1, 2, 3, 5, 8, 13, 21, 34]), chance.choice(["before", "after"])):
                if len(self.kills) - first == 40:
                    self.run(folder)
                    break
            self.check(folder, "; ".join(self.kills[first:]))

    def at_random_moments(self):
        chance = random.Random(0)
        began = time.monotonic()
        self.run(self.fresh("index"))
        whole = time.monotonic() - began
        while len(self.kills) < 60:
            folder, first = self.fresh("index"), len(self.kills)
            while self.run(folder, delay=chance.uniform(0, whole / 3)):
                if len(self.kills) - first == 30:
                    self.run(folder)
                    break
            self.check(folder, f"{len(self.kills) - first} kills")

    def with_files_of_limited_size(self):
        """As on a full disk, but by the system's own refusal: no file grows beyond a limit."""
        largest = max(len(content) for content in self.expected.values())
        for limit in [*range(0, 400, 40), *range(400, largest, largest // 30)]:
            folder = self.fresh("index")
            child = os.fork()
            if not child:
                status = 1
                try:
                    status = self.limited(folder, limit)
                except BaseException:
                    print(f"with files of {limit} bytes at most:")
                    traceback.print_exc(file=sys.stdout)
                    sys.stdout.flush()
                finally:
                    os._exit(status)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            if status != 3:
                self.problems.append(f"with files of {limit} bytes at most: exit status {status}")
                continue
            self.kills.append(f"no file beyond {limit} bytes")
            self.check(folder, self.kills[-1])

    def limited(self, folder, limit):
        """Fails, then runs again in the same process: the lock is free."""
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        status = 4
        try:
            bring_up_to_date(folder, self.photos)
        except OSError as error:
            status = 3 if error.errno == errno.EFBIG else 5
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        bring_up_to_date(folder, self.photos)
        return status


def add_again(folder):
    """Adds photos: once, once without room for them, once with room again."""
    photo = np.ones((1, DIMENSIONS))
    with Collection(pathlib.Path(folder), RECIPE, DIMENSIONS) as index:
        index.add(["first.jpg"], [[1, 1]], photo, [])
        resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize(f"{folder}/journal.bin") + 50, resource.RLIM_INFINITY))
        try:
            index.add(["none.jpg"], [[1, 1]], photo, [])
        except OSError:
            print("refused")
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        index.add(["second.jpg"], [[1, 1]], photo, [])
        os.kill(os.getpid(), signal.SIGKILL)


def drive(scenario, scratch):
    storage.SHARD_ROWS = ROWS
    os.fsync = lambda file: None  # what a killed process wrote, the system has
    driver = Driver(scratch)
    way, _, what = scenario.partition(" of ")
    photos = some_photos(600 if way == "at_random_moments" else 200)
    if what == "an update":
        driver.prepare(some_changes(photos), photos)
    else:
        driver.prepare(photos)
    getattr(driver, way)()
    print(json.dumps({"kills": driver.kills, "problems": driver.problems}))


def hold(folder):
    """Holds an index's lock, until it is killed."""
    with Collection(pathlib.Path(folder), RECIPE, DIMENSIONS) as index:
        index.add(["held.jpg"], [[1, 1]], np.ones((1, DIMENSIONS)), [])
        print("held", flush=True)
        time.sleep(600)


# The tests.


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(storage, "SHARD_ROWS", ROWS)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "index"


def program(*arguments):
    """What runs this file in a process of its own, with the same packages."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return {"args": [sys.executable, __file__, *map(str, arguments)], "env": environment, "text": True}


class TestKilled:
    @pytest.mark.parametrize("what", ["a first run", "an update"])
    @pytest.mark.parametrize(
        ("way", "least"),
        [("at_every_step", 95), ("at_pairs_of_steps", 150), ("at_random_moments", 60), ("with_files_of_limited_size", 20)],
    )
    def test_the_result_is_that_of_an_uninterrupted_run(self, tmp_path, way, least, what):
        """Byte for byte, and nothing that was kept is described again."""
        run = subprocess.run(**program("drive", f"{way} of {what}", tmp_path), capture_output=True)
        assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
        *words, last = run.stdout.splitlines()
        report = json.loads(last)
        print(f"{len(report['kills'])} kills of {what}:", *report["kills"], sep="\n  ")
        assert report["problems"] == [], "\n".join([f"{len(report['problems'])} problems", *report["problems"][:20], *words[-30:]])
        assert len(report["kills"]) >= least


class TestJournal:
    def three_records(self, folder):
        """An index whose run ended after three windows; the journal's length after each, and the photos."""
        photos, ends = some_photos(60), [0]

        def note(line):
            if line.startswith("kept"):
                ends.append((folder / "journal.bin").stat().st_size)
            if len(set(ends)) == 4:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            bring_up_to_date(folder, photos, note)
        return photos, sorted(set(ends))

    def test_cut_anywhere(self, folder, monkeypatch):
        photos, ends = self.three_records(folder)
        journal = (folder / "journal.bin").read_bytes()
        assert len(journal) == ends[-1]
        monkeypatch.setattr(os, "fsync", lambda file: None)
        for length in {*range(80), *range(ends[1] - 30, ends[1] + 60), *range(ends[2] - 3, ends[3] + 1, 7), ends[3]}:
            (folder / "journal.bin").write_bytes(journal[:length])
            with Collection(folder, RECIPE, DIMENSIONS) as index:
                whole = sum(end <= length for end in ends[1:])
                assert list(index.known) == list(photos)[: 16 * whole] or set(index.known) == set(list(photos)[: 16 * whole])
            assert (folder / "journal.bin").exists() == (whole > 0)
            if whole:
                assert (folder / "journal.bin").read_bytes() == journal[: ends[whole]]

    @pytest.mark.parametrize("place", [0, 8, 16, 24, 100, -1])
    def test_a_damaged_record_and_those_after_it_are_described_again(self, folder, tmp_path, place):
        photos, ends = self.three_records(folder)
        journal = bytearray((folder / "journal.bin").read_bytes())
        journal[ends[1] + place if place >= 0 else ends[2] + place] ^= 0x41
        (folder / "journal.bin").write_bytes(journal)
        with Collection(folder, RECIPE, DIMENSIONS) as index:
            assert set(index.known) == set(list(photos)[:16])
        bring_up_to_date(folder, photos)
        bring_up_to_date(tmp_path / "uninterrupted", photos)
        assert contents(folder) == contents(tmp_path / "uninterrupted")

    def test_garbage(self, folder):
        photos = some_photos(20)
        folder.mkdir()
        (folder / "journal.bin").write_bytes(bytes(range(256)) * 9)
        bring_up_to_date(folder, photos)
        check_holds(folder, photos)


class TestFullDisk:
    @pytest.mark.parametrize("call", ["fsync", "replace"])
    def test_what_was_finished_stays(self, tmp_path, monkeypatch, call):
        """The n-th write of a run fails, for every n: in the journal, in a shard, in the manifest."""
        photos = some_photos(150)
        bring_up_to_date(tmp_path / "uninterrupted", photos)
        real, expected = getattr(os, call), contents(tmp_path / "uninterrupted")
        monkeypatch.setattr(os, "fsync", lambda file: None)
        for number in itertools.count(1):
            folder, kept, count = tmp_path / f"index {number}", set(), 0

            def failing(*arguments, number=number):
                nonlocal count
                count += 1
                if count == number:
                    raise OSError(errno.ENOSPC, "No space left on device")
                return real(*arguments) if call == "replace" else None

            def note(line, kept=kept):
                if line.startswith("kept"):
                    kept.add(line.split()[1])

            with monkeypatch.context() as patch:
                patch.setattr(os, call, failing)
                try:
                    bring_up_to_date(folder, photos, note)
                    break
                except OSError as error:
                    assert error.errno == errno.ENOSPC
            assert [path.name for path in folder.iterdir() if path.name.startswith(".part-")] == []
            with Collection(folder, RECIPE, DIMENSIONS) as index:
                assert kept <= set(index.known)
            bring_up_to_date(folder, photos)
            assert contents(folder) == expected
            shutil.rmtree(folder)
        assert number > 10

    def test_a_journal_that_cannot_be_written(self, folder, monkeypatch):
        """Half of a record reaches the disk: nothing of it is left."""
        photos = some_photos(40)
        with monkeypatch.context() as patch:
            real = open

            class Full(io.FileIO):
                def write(self, content):
                    super().write(content[: len(content) // 2])
                    raise OSError(errno.ENOSPC, "No space left on device")

            patch.setattr(
                collection,
                "open",
                lambda path, mode="r", **options: Full(path, mode) if "b" in mode else real(path, mode, **options),
                raising=False,
            )
            with pytest.raises(OSError, match="No space left"):
                bring_up_to_date(folder, photos)
        with Collection(folder, RECIPE, DIMENSIONS) as index:
            assert index.known == {}
        bring_up_to_date(folder, photos)
        check_holds(folder, photos)

    def test_photos_added_after_that_are_kept(self, folder):
        run = subprocess.run(**program("add_again", folder), capture_output=True)
        assert (run.returncode, run.stderr) == (-signal.SIGKILL, "")
        with Collection(folder, RECIPE, DIMENSIONS) as index:
            assert list(index.known) == ["first.jpg", "second.jpg"]

    def test_photos_added_after_a_failed_flush_are_kept(self, folder, monkeypatch):
        def failing(file):
            raise OSError(errno.EIO, "Input/output error")

        with Collection(folder, RECIPE, DIMENSIONS) as index:
            index.add(["first.jpg"], [[1, 1]], np.ones((1, DIMENSIONS)), [])
            with monkeypatch.context() as patch:
                patch.setattr(os, "fsync", failing)
                with pytest.raises(OSError, match="Input"):
                    index.add(["none.jpg"], [[1, 1]], np.ones((1, DIMENSIONS)), [])
            index.add(["second.jpg"], [[1, 1]], np.ones((1, DIMENSIONS)), [])
        with Collection(folder, RECIPE, DIMENSIONS) as index:
            assert list(index.known) == ["first.jpg", "second.jpg"]


class TestLock:
    def test_another_process_is_refused(self, folder):
        with subprocess.Popen(**program("hold", folder), stdout=subprocess.PIPE) as holder:
            try:
                assert holder.stdout.readline() == "held\n"
                before = contents(folder)
                for _ in range(2):
                    with pytest.raises(
                        ValueError,
                        match=f"^{re.escape(str(folder))} is being written by another process .process {holder.pid}.; wait",
                    ):
                        bring_up_to_date(folder, {})
                assert contents(folder) == before
            finally:
                holder.kill()
        # The lock of a killed process holds nobody up, and what it had finished is there.
        with Collection(folder, RECIPE, DIMENSIONS) as index:
            assert list(index.known) == ["held.jpg"]

    def test_the_same_process_is_refused(self, folder):
        with Collection(folder, RECIPE, DIMENSIONS) as index:
            with pytest.raises(ValueError, match=f"being written.*process {os.getpid()}"):
                bring_up_to_date(folder, {})
            index.add(["a.jpg"], [[1, 1]], np.ones((1, DIMENSIONS)), [])
        with Collection(folder, RECIPE, DIMENSIONS) as index:
            assert list(index.known) == ["a.jpg"]

    def test_is_free_after_an_error(self, folder):
        for error in (KeyboardInterrupt, OSError, ValueError):
            with pytest.raises(error), Collection(folder, RECIPE, DIMENSIONS):
                raise error
        refused = Collection(folder, {**RECIPE, "max_side": 9}, DIMENSIONS)
        with pytest.raises(ValueError, match="max_side"):
            refused.__enter__()
        bring_up_to_date(folder, some_photos(20))

    def test_an_old_lock_file_holds_nobody_up(self, folder):
        folder.mkdir()
        (folder / ".lock").write_text("process 1, long gone")
        bring_up_to_date(folder, some_photos(20))
        assert (folder / ".lock").read_text() == f"process {os.getpid()}"


class TestUpdate:
    def test_first_run(self, folder):
        photos = some_photos(150)
        assert bring_up_to_date(folder, photos) == 0
        check_holds(folder, photos)
        manifest, names, _, failures = storage.read(folder)
        assert names == [name for name, (_, vector) in photos.items() if vector is not None]
        assert [name for name, _ in failures] == [name for name, (_, vector) in photos.items() if vector is None]
        assert manifest["recipe"] == RECIPE
        assert all(entry["count"] <= ROWS for entry in manifest["shards"])

    def test_a_run_that_finds_nothing_new_writes_nothing(self, folder):
        photos = some_photos(150)
        bring_up_to_date(folder, photos, about={"versions": {"numpy": "1"}})
        before = {path: path.stat().st_mtime_ns for path in folder.iterdir() if path.name != ".lock"}
        log = []
        assert bring_up_to_date(folder, photos, log.append, about={"versions": {"numpy": "1"}}) == 0
        assert log == []
        assert {path: path.stat().st_mtime_ns for path in folder.iterdir() if path.name != ".lock"} == before

    def test_changes(self, folder):
        photos = some_photos(150)
        bring_up_to_date(folder, photos)
        later, log = some_changes(photos), []
        gone = [name for name in photos if name not in later and photos[name][1] is not None]
        assert bring_up_to_date(folder, later, log.append) == len(gone) > 5
        check_holds(folder, later)
        described = {line.split(" [")[0].removeprefix("described ") for line in log if line.startswith("described")}
        assert described == {name for name in later if photos.get(name, [None])[0] != later[name][0]}

    @settings(max_examples=60)
    @given(
        runs=st.lists(
            st.dictionaries(st.sampled_from("abcdefghijklmnop"), st.tuples(st.integers(0, 3), st.booleans()), max_size=16),
            min_size=1,
            max_size=5,
        ),
        stops=st.lists(st.integers(1, 6), max_size=5),
    )
    def test_any_row_of_changes(self, runs, stops):
        """A run may be interrupted after some windows; then the next one finds other photos, or the last one the same."""
        vectors = np.random.default_rng(0).standard_normal((26, 4, DIMENSIONS)).astype("float32")
        with tempfile.TemporaryDirectory() as scratch, pytest.MonkeyPatch.context() as patch:
            patch.setattr(storage, "SHARD_ROWS", 6)
            patch.setitem(globals(), "WINDOW", 2)
            patch.setattr(os, "fsync", lambda file: None)
            folder = pathlib.Path(scratch, "index")
            for run, stop in itertools.zip_longest(runs, stops[: len(runs)]):
                photos = {
                    name: ([version, 7], vectors[ord(name) - 97, version].tolist() if good else None)
                    for name, (version, good) in run.items()
                }
                # A stamp says all of a photo: one that became unreadable has another one.
                photos = {name: ([*stamp, vector is None], vector) for name, (stamp, vector) in photos.items()}
                kept = 0

                def interrupt(line, stop=stop):
                    nonlocal kept
                    kept += line.startswith("kept")
                    if stop and kept == 2 * stop:
                        raise KeyboardInterrupt

                with contextlib.suppress(KeyboardInterrupt):
                    bring_up_to_date(folder, photos, interrupt)
                    check_holds(folder, photos)
            bring_up_to_date(folder, photos)
            check_holds(folder, photos)
            with Collection(folder, RECIPE, DIMENSIONS) as index:
                assert index.known == {name: stamp for name, (stamp, _) in photos.items()}
                assert index.failed.keys() == {name for name, (_, vector) in photos.items() if vector is None}

    def test_small_updates_leave_few_files(self, folder):
        photos = {}
        for number in range(40):
            photos = some_photos(3 * number)
            bring_up_to_date(folder, photos)
        check_holds(folder, photos)
        assert len(storage.read_manifest(folder)["shards"]) <= 3 * len(photos) / ROWS

    def test_whole_updates_leave_few_files(self, folder):
        for seed in range(6):
            photos = some_photos(4 * ROWS, seed)
            bring_up_to_date(folder, photos)
            check_holds(folder, photos)
        assert len(storage.read_manifest(folder)["shards"]) <= 2 * 4

    def test_removals_leave_few_files(self, folder):
        photos = some_photos(10 * ROWS)
        bring_up_to_date(folder, photos)
        few = {name: photos[name] for name in list(photos)[::40]}
        bring_up_to_date(folder, few)
        check_holds(folder, few)
        assert len(storage.read_manifest(folder)["shards"]) <= 2

    def test_everything_gone(self, folder):
        photos = some_photos(100)
        bring_up_to_date(folder, photos)
        assert bring_up_to_date(folder, {}) == 91
        check_holds(folder, {})
        bring_up_to_date(folder, photos)
        check_holds(folder, photos)

    def test_without_a_list_of_what_is_there_nothing_is_dropped(self, folder):
        photos = some_photos(30)
        bring_up_to_date(folder, photos)
        with Collection(folder, RECIPE, DIMENSIONS) as index:
            assert index.finish() == 0
        check_holds(folder, photos)


class TestMaking:
    @pytest.mark.parametrize("dtype", ["float32", "float16"])
    def test_dtype(self, folder, dtype):
        photos = some_photos(150)
        bring_up_to_date(folder, photos, dtype=dtype)
        check_holds(folder, photos, dtype)
        assert storage.read_manifest(folder)["dtype"] == dtype

    def test_an_index_keeps_its_dtype(self, folder):
        bring_up_to_date(folder, some_photos(70), dtype="float16")
        bring_up_to_date(folder, some_photos(150), dtype="float32")
        check_holds(folder, some_photos(150), "float16")

    def test_what_else_the_manifest_says(self, folder):
        about = {"versions": {"numpy": "2.0", "keras": "3.8"}, "source": "/photos"}
        bring_up_to_date(folder, some_photos(9), about=about)
        assert about.items() <= storage.read_manifest(folder).items()

    def test_another_recipe_is_refused(self, folder):
        bring_up_to_date(folder, some_photos(9))
        before = contents(folder)
        for recipe in ({**RECIPE, "max_side": 65}, {"max_side": 64, "backbone": "other"}, {**RECIPE, "levels": 3}):
            fields = [field for field in recipe if recipe[field] != RECIPE.get(field)]
            with pytest.raises(ValueError, match=f"{re.escape(str(folder))}.*{fields[0]} differ"):
                Collection(folder, recipe, DIMENSIONS).__enter__()
        assert contents(folder) == before

    def test_something_else_is_refused(self, tmp_path):
        (tmp_path / "notes.txt").write_text("mine")
        for path in (tmp_path, tmp_path / "notes.txt"):
            with pytest.raises(ValueError, match="not an index; choose another name"):
                bring_up_to_date(path, some_photos(3))
        assert contents(tmp_path) == {"notes.txt": b"mine"}

    def test_a_folder_that_cannot_be_made(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(OSError, match="file"):
            bring_up_to_date(tmp_path / "file" / "index", some_photos(3))

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_a_folder_that_cannot_be_written(self, folder):
        folder.mkdir(mode=0o500)
        with pytest.raises(OSError, match=re.escape(str(folder))):
            bring_up_to_date(folder, some_photos(3))

    @pytest.mark.parametrize("tag", ["0a1b2c3d4e5f", "123456789012"])
    def test_an_index_of_format_1_is_taken_over(self, folder, tag):
        """It knows no stamps, so all of it is described anew, and nothing is double."""
        photos = some_photos(40)
        good = {name: photo for name, photo in photos.items() if photo[1] is not None}
        folder.mkdir()
        np.save(folder / f"descriptors-{tag}.npy", np.array([vector for _, vector in good.values()], "float32"))
        (folder / f"names-{tag}.json").write_text(json.dumps(list(good)))
        manifest = {"format": 1, "descriptors": f"descriptors-{tag}.npy", "names": f"names-{tag}.json", "count": len(good)}
        (folder / "index.json").write_text(json.dumps({**manifest, "dimensions": DIMENSIONS, "recipe": RECIPE}))
        with Collection(folder, RECIPE, DIMENSIONS) as index:
            assert set(index.known) == set(good)
        bring_up_to_date(folder, photos)
        check_holds(folder, photos)


if __name__ == "__main__":
    {"drive": drive, "hold": hold, "add_again": add_again}[sys.argv[1]](*sys.argv[2:])
