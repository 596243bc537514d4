"""Runs that write an index, and break: the program of `test_writer.py`.

Each run is a process that this one forks: NumPy alone, so it is fast. `steps.c`, preloaded, counts the calls that change the disk,
ends a run at one of them, or lets one fail.
"""

import ctypes
import dataclasses
import errno
import itertools
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
import traceback
from collections.abc import Callable

import numpy as np

from rw_keras.description.update import Reading, Update
from rw_keras.photos.reading import ImageError
from rw_keras.photos.sources import Item
from rw_keras.retrieval import Index, store
from rw_keras.retrieval.int8 import encoded
from rw_keras.retrieval.writer import Writer

RECIPE = {"backbone": "none", "max_side": 64}
DIMENSIONS, WINDOW = 4, 16
# What becomes of a photo: its bytes are none, or they cannot be read now.
BAD, AWAY = "bad", "away"
BEFORE, AFTER, HALF, FAIL, FAIL_ALWAYS, FAIL_HALF = range(1, 7)
WORDS = {BEFORE: "before", AFTER: "after", HALF: "amid", FAIL: "failing at", FAIL_ALWAYS: "failing from", FAIL_HALF: "failing amid"}


def some_photos(count, seed=0):
    """Name -> (stamp, vector) of photos; every eleventh cannot be decoded, and one in 23 cannot be read now."""
    vectors = np.random.default_rng(seed).standard_normal((count, DIMENSIONS)).astype("float32")
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return {
        f"{number:04d}.jpg": ([100 + seed, number], BAD if number % 11 == 10 else AWAY if number % 23 == 22 else vectors[number])
        for number in range(count)
    }


def some_changes(photos):
    """The same photos later: some changed, some gone, some renamed, some new; of those that were good, two are bad, two away."""
    later, new = dict(photos), some_photos(len(photos), seed=1)
    names = list(photos)
    later.update({name: new[name] for name in names[3::5]})
    for name in names[::13]:
        del later[name]
    later.update({f"renamed {name}": later.pop(name) for name in names[4::17] if name in later})
    later.update({f"new {name}": new[name] for name in names[1::6]})
    later.update({name: ([300, 0], BAD) for name in names[1:6:4]})
    later.update({name: ([300, 0], AWAY) for name in names[2:7:4]})
    return dict(sorted(later.items()))


class _Silent:
    def advance(self, failed, new=True):
        pass


def bring_up_to_date(folder, photos, log=lambda line: None, recipe=RECIPE, **arguments):
    """What `extract` does, with vectors in place of photos. `log` hears of each photo described, and of each that is kept."""
    with Writer(folder, recipe, DIMENSIONS, **arguments) as writer:
        update = Update(writer, [Item(name, "a file", stamp) for name, (stamp, _) in photos.items()], False, False, True)
        window = []

        def keep():
            if window:
                update.put(window, np.array([photos[one.item.name][1] for one in window], "float32"))
            update.commit()
            for one in window:
                log(f"kept {one.item.name} {one.stamp}")
            window.clear()

        for item, known in update.todo(_Silent()):
            vector = photos[item.name][1]
            if vector is BAD:
                update.failed(Reading(item, known, item.stamp, error=ImageError(f"{item.name} is empty")))
            elif vector is AWAY:
                update.failed(Reading(item, known, None, error=OSError(f"{item.name} is away"), passing=True))
            else:
                log(f"described {item.name} {item.stamp}")
                window.append(Reading(item, known, item.stamp))
            if len(window) == WINDOW:
                keep()
        keep()
        update.finish()
    return update


def visible(folder):
    """All that a reader sees of an index, whatever its format: something that can be compared. `None` where there is none."""
    try:
        found = store.read(folder)
    except FileNotFoundError:
        return None
    rows = np.asarray(found.rows if found.places is None else found.rows[found.places])
    known, _, failed = store.records(pathlib.Path(folder), found.about["identity"])
    fields = ("recipe", "dimensions", "dtype", "described_with", "versions", "source")
    marked = []
    if (folder / store.DATABASE).is_file():
        with sqlite3.connect(folder / store.DATABASE) as database:
            marked = database.execute("SELECT name, fault FROM photos WHERE row IS NOT NULL AND fault IS NOT NULL").fetchall()
        database.close()
    return (
        list(found.names),
        rows.tobytes(),
        [known[number][1:] for number in found.ids.tolist()],
        found.failures,
        sorted(failed.items()),
        found.metadata,
        sorted(marked),
        [found.about.get(field) for field in fields],
    )


def check_holds(folder, photos, dtype="float32", before=None):
    """Checks that an index holds these photos, each once, and nothing else; those that are away as they were `before`."""
    before = before or {}
    expected = {name: vector for name, (_, vector) in photos.items() if not isinstance(vector, str)}
    expected.update({name: before[name][1] for name, (_, vector) in photos.items() if vector is AWAY and name in before})
    expected = {name: vector for name, vector in expected.items() if not isinstance(vector, str)}
    found = store.read(folder)
    assert sorted(found.names) == sorted(expected)
    rows = np.asarray(found.rows if found.places is None else found.rows[found.places])
    wanted = np.array([expected[name] for name in found.names], dtype).reshape(-1, DIMENSIONS)
    np.testing.assert_array_equal(rows, wanted, strict=True)
    why = {BAD: "is empty", AWAY: "is away"}
    assert found.failures == sorted(
        (name, f"{name} {why[vector]}") for name, (_, vector) in photos.items() if isinstance(vector, str) and name not in expected
    )
    check_whole(folder)


def check_whole(folder):
    """Checks that an index is sound, and that its folder holds no file that is none of it."""
    damages = store.check(folder)
    assert damages == [], damages
    with sqlite3.connect(folder / store.DATABASE) as database:
        files = {file for (file,) in database.execute("SELECT file FROM segments")}
    database.close()
    about = store.about(folder)
    if (about.get("searcher") or {}).get("file"):
        files.add(about["searcher"]["file"])
    # A journal that was broken off before it said anything stays until the next commit; SQLite passes it over.
    found = {path.name for path in folder.iterdir()} - {store.LOCK, f"{store.DATABASE}-journal"}
    assert found == files | {store.DATABASE}, sorted(found ^ (files | {store.DATABASE}))


def write_old(folder, photos, version=2, dtype="float32", recipe=RECIPE, shards=3, journal=0):
    """An index as version 0.1 (format 1) wrote it, or the ones before this store (format 2): shards, and a journal of the last."""
    import hashlib
    import zlib

    folder.mkdir(parents=True, exist_ok=True)
    good = [(name, *photo) for name, photo in photos.items() if not isinstance(photo[1], str)]
    bad = [[name, f"{name} is empty", stamp] for name, (stamp, vector) in photos.items() if isinstance(vector, str)]
    about = {"format": version, "dimensions": DIMENSIONS, "recipe": recipe}

    def vectors(part):
        return encoded(np.array([vector for _, _, vector in part], "float32").reshape(-1, DIMENSIONS), dtype)

    if version == 1:
        np.save(folder / "descriptors-0a1b2c3d4e5f.npy", vectors(good))
        (folder / "names-0a1b2c3d4e5f.json").write_text(json.dumps([name for name, *_ in good]))
        files = {"descriptors": "descriptors-0a1b2c3d4e5f.npy", "names": "names-0a1b2c3d4e5f.json", "count": len(good)}
        (folder / "index.json").write_text(json.dumps({**about, **files}))
        return
    last, entries = good[len(good) - journal :] if journal else [], []
    good = good[: len(good) - len(last)]
    for number in range(shards):
        part = good[number * len(good) // shards : (number + 1) * len(good) // shards]
        content = {"names": [name for name, *_ in part], "stamps": [stamp for _, stamp, _ in part], "failures": []}
        content["metadata"] = {"length": [len(name) for name, *_ in part], "even": [stamp[1] % 2 == 0 for _, stamp, _ in part]}
        if number == 0:
            content["failures"] = bad
        array, text = vectors(part), json.dumps(content).encode()
        digest, photos_digest = hashlib.sha256(array.tobytes()).hexdigest(), hashlib.sha256(text).hexdigest()
        entry = {"descriptors": f"descriptors-{number:05d}-{digest[:12]}.npy", "photos": f"photos-{number:05d}-{digest[:12]}.json"}
        np.save(folder / entry["descriptors"], array)
        (folder / entry["photos"]).write_bytes(text)
        entries.append({**entry, "count": len(part), "sha256": digest, "photos_sha256": photos_digest})
    if last:
        content = {
            "shard": shards,
            "names": [name for name, *_ in last],
            "stamps": [stamp for _, stamp, _ in last],
            "failures": [] if shards else bad,
        }
        text, rows = json.dumps(content).encode(), vectors(last).tobytes()
        numbers = np.array([len(text), len(rows), zlib.crc32(text + rows)], "<u8").tobytes()
        (folder / "journal.bin").write_bytes(numbers + text + rows)
    more = {"source": "/photos", "described_with": [{"engine": "none", "precision": "exact"}], "versions": {"numpy": "2"}}
    more |= {"dtype": dtype, "count": len(good), "next_shard": shards, "engine": {"name": "numpy", "parameters": {}}}
    (folder / "index.json").write_text(json.dumps({**about, **more, "shards": entries}))


# What is broken: each scenario makes an index to start from, and a run that may be repeated until it ends.


@dataclasses.dataclass
class Scenario:
    """Args: `start(folder)` makes what is there before; `go(folder, log)` is the run; `place(folder)` is the index it writes."""

    go: Callable
    start: Callable = lambda folder: folder.mkdir()
    place: Callable = lambda folder: folder


PHOTOS = some_photos(200)
FEW = {name: PHOTOS[name] for name in list(PHOTOS)[::5]}
OTHER = {**RECIPE, "max_side": 32}


def _with_rows_by_hand(folder):
    bring_up_to_date(folder, PHOTOS)
    index = Index.load(folder)
    index.add(["by hand 1", "by hand 2"], np.eye(DIMENSIONS)[:2])
    index.metadata = {"place": [f"row {place}" for place in range(len(index))]}
    index.save(folder)


def _save_in_place(folder, log):
    index = Index.load(folder)
    if "added.jpg" in index.names:
        with Writer(folder, RECIPE, DIMENSIONS):  # it was saved, and broken off after that
            return
    index.remove(index.names[40:170])
    index.update(index.names[3:6], np.eye(DIMENSIONS)[:3])
    index.add(["added.jpg"], np.eye(DIMENSIONS)[3:])
    index.metadata = {"place": list(range(len(index)))}
    index.save(folder)


def _copy(folder, log):
    index = Index.load(folder / "source")
    index.remove(index.names[:9])
    index.save(folder / "copy", overwrite=True)


def _two_indices(folder):
    bring_up_to_date(folder / "source", PHOTOS)
    bring_up_to_date(folder / "copy", FEW)


SCENARIOS = {
    "a first run": Scenario(lambda folder, log: bring_up_to_date(folder, PHOTOS, log)),
    "an update": Scenario(
        lambda folder, log: bring_up_to_date(folder, some_changes(PHOTOS), log), lambda folder: bring_up_to_date(folder, PHOTOS)
    ),
    "a compaction": Scenario(
        lambda folder, log: bring_up_to_date(folder, FEW, log), lambda folder: bring_up_to_date(folder, PHOTOS)
    ),
    "a rebuild": Scenario(
        lambda folder, log: bring_up_to_date(folder, some_changes(PHOTOS), log, beside=True, go_on=True), _with_rows_by_hand
    ),
    "a conversion": Scenario(
        lambda folder, log: bring_up_to_date(folder, some_changes(PHOTOS), log),
        lambda folder: write_old(folder, PHOTOS, journal=20),
    ),
    "a conversion of format 1": Scenario(
        lambda folder, log: bring_up_to_date(folder, PHOTOS, log), lambda folder: write_old(folder, PHOTOS, version=1)
    ),
    "a save in place": Scenario(_save_in_place, lambda folder: bring_up_to_date(folder, PHOTOS)),
    "a save elsewhere": Scenario(_copy, _two_indices, lambda folder: folder / "copy"),
}


class Breaker:
    """Breaks runs of one scenario, and notes what was found."""

    def __init__(self, scenario, scratch):
        self.scenario, self.scratch = SCENARIOS[scenario], pathlib.Path(scratch)
        self.log, self.start, self.folder = self.scratch / "log", self.scratch / "start", self.scratch / "run"
        self.breaks, self.problems, self.refused = 0, [], 0
        self.shim = ctypes.CDLL(None)
        self.shim.steps_kinds.restype = self.shim.steps_last.restype = ctypes.c_char_p
        self.scenario.start(self.start)
        self._count_steps()

    def _count_steps(self):
        """One run that nothing breaks: its steps, what can be seen after each part of it, and how it ends."""
        self.fresh()
        self.states = [visible(self.scenario.place(self.folder))]
        self.after = [0]  # part -> the state that can be seen when it is done

        def note():
            state = visible(self.scenario.place(self.folder))
            if state != self.states[-1]:
                self.states.append(state)
            self.after.append(len(self.states) - 1)

        self.arm(0, 0)
        with _Told(note):
            self.scenario.go(self.folder, lambda line: None)
        self.shim.steps_disarm()
        self.kinds = self.shim.steps_kinds().decode()
        self.check_end("without a break")

    def arm(self, step, mode, error=0):
        self.shim.steps_arm(os.fsencode(self.folder), ctypes.c_long(step), mode, error)

    def fresh(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.start, self.folder)
        self.log.write_bytes(b"")
        self.was_done = False

    def run(self, step=0, mode=0, delay=None):
        """A run in a process of its own, which may be killed; whether it was."""
        child = os.fork()
        if not child:
            status = 1
            try:
                self.child(step, mode)
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
            self.breaks += 1
            return True
        if os.WEXITSTATUS(status):
            self.problems.append("a run that went on failed")
        return False

    def child(self, step=0, mode=0):
        file = os.open(self.log, os.O_WRONLY | os.O_APPEND)
        self.arm(step, mode)
        with _Told(lambda: os.write(file, b"part\n")):
            self.scenario.go(self.folder, lambda line: os.write(file, f"{line}\n".encode()))
        self.shim.steps_disarm()

    def check_between(self, what):
        """A reader sees the state before or after the last step that is whole, and nothing is damaged."""
        part = self.log.read_bytes().count(b"part\n")
        allowed = {self.after[min(part, len(self.after) - 1)], self.after[min(part + 1, len(self.after) - 1)]}
        place = self.scenario.place(self.folder)
        try:
            state = visible(place)
            self.was_done = self.was_done or state == self.states[-1]
            if state not in [self.states[number] for number in allowed]:
                found = self.states.index(state) if state in self.states else "none"
                self.problems.append(f"{what}: the state is {found} of {len(self.states)}, not {sorted(allowed)}")
            if state is not None and (damages := store.check(place)):
                self.problems.append(f"{what}: {damages[0]}")
        except Exception as error:
            self.problems.append(f"{what}: a reader fails: {type(error).__name__}: {error}")

    def check_end(self, what):
        """The result is that of a run without a break, with no file too many, and nothing that was kept was described again."""
        place, kept = self.scenario.place(self.folder), set()
        try:
            if visible(place) != self.states[-1]:
                self.problems.append(f"{what}: the result is another one")
            check_whole(place)
        except Exception as error:
            self.problems.append(f"{what}: at the end: {type(error).__name__}: {error}")
        # What was done when it was broken is done again, where that is asked for: a rebuild.
        for line in () if self.was_done else self.log.read_text().splitlines():
            word, _, photo = line.partition(" ")
            if word == "kept":
                kept.add(photo)
            elif photo in kept and word == "described":
                self.problems.append(f"{what}: {photo} was kept, and described again")
                break

    def some_steps(self, share):
        """The steps that are to be broken: all, each in every way, or so many of them, each in one of the ways in turn."""
        last = len(self.kinds) - 1
        steps = range(last + 1) if share is None else sorted({number * last // (share - 1) for number in range(share)})
        return [step + 1 for step in steps], itertools.cycle(range(3))

    def kills(self, share=None):
        steps, turn = self.some_steps(share)
        for step in steps:
            modes = [BEFORE, AFTER, HALF] if self.kinds[step - 1] == "w" else [BEFORE, AFTER]
            for mode in modes if share is None else [modes[next(turn) % len(modes)]]:
                what = f"killed {WORDS[mode]} step {step} ({self.kinds[step - 1]})"
                self.fresh()
                if not self.run(step, mode):
                    self.problems.append(f"{what}: it was not killed")
                self.check_between(what)
                self.run()
                self.check_end(what)

    def failures(self, share=None):
        """A full disk, or one with errors, at a step or from one on; then the same process goes on."""
        steps, turn = self.some_steps(share)
        for step in steps:
            modes = [FAIL, FAIL_ALWAYS, FAIL_HALF] if self.kinds[step - 1] == "w" else [FAIL, FAIL_ALWAYS]
            for mode in modes if share is None else [modes[next(turn) % len(modes)]]:
                error = errno.ENOSPC if (step + mode) % 2 else errno.EIO
                self.fresh()
                self.in_a_process(f"{errno.errorcode[error]}, {WORDS[mode]} step {step}", lambda: self.arm(step, mode, error))  # noqa: B023

    def limited(self, count=25):
        """As on a full disk, but by the system's own refusal: no file grows beyond a limit."""
        largest = max(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())
        for number in range(count):
            limit = largest * number * number // (count * count)
            self.fresh()
            what = f"no file beyond {limit} bytes"
            self.in_a_process(what, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY)))  # noqa: B023

    def in_a_process(self, what, break_it):
        sys.stdout.flush()
        child = os.fork()
        if not child:
            status = 1
            try:
                status = self.fails(what, break_it)
            except BaseException:
                print(f"{what}: it could not go on")
                traceback.print_exc(file=sys.stdout)
            finally:
                sys.stdout.flush()
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        self.breaks += 1
        self.refused += status == 3
        if status not in (0, 3):
            self.problems.append(f"{what}: exit status {status}")
        self.check_end(what)

    def fails(self, what, break_it):
        lines, status, error = [], 0, None  # in memory, since the log's file is limited, too
        with _Told(lambda: lines.append("part")):
            break_it()
            try:
                self.scenario.go(self.folder, lines.append)
            except OSError as caught:
                error, status = caught, 3
            self.shim.steps_disarm()
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        print(f"{what}: {self.shim.steps_last().decode()}: {error}")
        if error is not None and str(self.folder) not in str(error):
            traceback.print_exception(error, file=sys.stdout)
            print(f"{what}: it does not name the file: {error!r}")
            status = 4
        self.log.write_text("".join(f"{line}\n" for line in lines))
        problems = len(self.problems)
        self.check_between(what)
        if self.was_done:
            self.log.write_bytes(b"")
        if len(self.problems) > problems:
            print(*self.problems[problems:], sep="\n")
            return 5
        self.child()
        return status

    def pairs(self, count=150):
        """Killed in the first run, in the second one, and so on, at random steps: what a restart does is hit as well."""
        chance = random.Random(0)
        while self.breaks < count:
            self.fresh()
            steps = []
            while True:
                steps.append((chance.choice([1, 2, 3, 5, 8, 13, 21, 34, 55, 89]), chance.choice([BEFORE, AFTER, HALF])))
                if not self.run(*steps[-1]):
                    break
                self.check_readable(f"killed at {steps}")
                if len(steps) == 25:
                    self.run()
                    break
            self.check_end(f"killed at {steps}")

    def moments(self, count=60):
        chance = random.Random(0)
        self.fresh()
        began = time.monotonic()
        self.run()
        whole = time.monotonic() - began
        while self.breaks < count:
            self.fresh()
            first = self.breaks
            while self.run(delay=chance.uniform(0, whole / 2)):
                self.check_readable(f"kill {self.breaks} at a random moment")
                if self.breaks - first == 20:
                    self.run()
                    break
            self.check_end(f"{self.breaks - first} kills at random moments")

    def check_readable(self, what):
        place = self.scenario.place(self.folder)
        try:
            state = visible(place)
            self.was_done = self.was_done or state == self.states[-1]
            if state is not None and (damages := store.check(place)):
                self.problems.append(f"{what}: {damages[0]}")
        except Exception as error:
            self.problems.append(f"{what}: a reader fails: {type(error).__name__}: {error}")


class _Told:
    """While it is entered, `note` is called after each step of a writer that is whole."""

    def __init__(self, note):
        self._note = note
        self._real = {name: getattr(Writer, name) for name in ("__enter__", "commit", "finish")}

    def __enter__(self):
        def told(function):
            def run(writer, *arguments):
                result = function(writer, *arguments)
                self._note()
                return result

            return run

        for name, function in self._real.items():
            setattr(Writer, name, told(function))

    def __exit__(self, *error):
        for name, function in self._real.items():
            setattr(Writer, name, function)


def drive(scenario, scratch, way, arguments):
    store.SEGMENT_ROWS = 64
    for name in SCENARIOS if scenario == "each" else [scenario]:
        with tempfile.TemporaryDirectory(dir=scratch) as own:
            breaker = Breaker(name, own)
            getattr(breaker, way)(*json.loads(arguments))
            report = {"scenario": name, "breaks": breaker.breaks, "steps": len(breaker.kinds), "states": len(breaker.states)}
            print("report", json.dumps({**report, "refused": breaker.refused, "problems": breaker.problems}), flush=True)


if __name__ == "__main__":
    drive(*sys.argv[1:])
