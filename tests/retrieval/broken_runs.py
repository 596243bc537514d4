"""Runs that write an index, and break: the program of `test_writer.py`.

Each run is a process that this one forks: NumPy alone, so it is fast. `steps.c`, preloaded, counts the calls that change the disk,
ends a run at one of them, or lets one fail.
"""

import contextlib
import ctypes
import dataclasses
import errno
import hashlib
import itertools
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable

import numpy as np
from service.made_up_describer import made_up, photo_bytes
from small_stores import (
    DIMENSIONS,
    RECIPE,
    REGIONS,
    as_format,
    bring_up_to_date,
    check_whole,
    regions_of,
    some_changes,
    some_photos,
    visible,
    write_old,
)

from rw_keras.retrieval import Index, store
from rw_keras.retrieval.writer import Writer
from rw_keras.service import changes

BEFORE, AFTER, HALF, FAIL, FAIL_ALWAYS, FAIL_HALF = range(1, 7)
WORDS = {BEFORE: "before", AFTER: "after", HALF: "amid", FAIL: "failing at", FAIL_ALWAYS: "failing from", FAIL_HALF: "failing amid"}


# What is broken: each scenario makes an index to start from, and a run that may be repeated until it ends.


@dataclasses.dataclass
class Scenario:
    """Args: `start(folder)` makes what is there before; `go(folder, log)` is the run; `place(folder)` is the index that it writes;
    `see(place)` is what a reader sees of that, and can be compared."""

    go: Callable
    start: Callable = lambda folder: folder.mkdir()
    place: Callable = lambda folder: folder
    see: Callable = visible


PHOTOS = some_photos(200)
FEW = {name: PHOTOS[name] for name in list(PHOTOS)[::5]}
# Described photos, one that cannot be decoded, one that comes later, and one that there is not.
EXCLUDED = [*list(PHOTOS)[5:11], "new 0001.jpg", "none.jpg"]
OLD, NEW = photo_bytes(0), photo_bytes(1)
OTHER = {**RECIPE, "max_side": 32}


def _described(folder, photos=PHOTOS):
    bring_up_to_date(folder, photos, regions=REGIONS)


def _of_format_3(folder):
    bring_up_to_date(folder, PHOTOS)
    as_format(3, folder)


def _of_format_4(folder):
    _described(folder)
    as_format(4, folder)


def _exclude(folder, log):
    with Writer(folder, RECIPE, DIMENSIONS) as writer:
        writer.exclude(EXCLUDED)
        writer.commit()


def _with_exclusions(folder):
    _with_rows_by_hand(folder)
    _exclude(folder, None)


def _take_back(folder, log):
    """Some names by themselves, one by a photo that is put."""
    with Writer(folder, RECIPE, DIMENSIONS) as writer:
        writer.include(EXCLUDED[:3])
        writer.put(EXCLUDED[3:4], np.eye(DIMENSIONS)[:1], [[7, 7]], regions=[regions_of(np.eye(DIMENSIONS)[0])])
        writer.commit()


def _regions(index, vectors):
    return None if index.regions is None else list(map(regions_of, vectors))


def _with_rows_by_hand(folder):
    _described(folder)
    index = Index.load(folder)
    index.add(["by hand 1", "by hand 2"], np.eye(DIMENSIONS)[:2], regions=_regions(index, np.eye(DIMENSIONS)[:2]))
    index.metadata = {"place": [f"row {place}" for place in range(len(index))]}
    index.save(folder)


def _save_in_place(folder, log):
    index = Index.load(folder)
    if "added.jpg" in index.names:
        with Writer(folder, RECIPE, DIMENSIONS):  # it was saved, and broken off after that
            return
    index.remove(index.names[40:170])
    index.update(index.names[3:6], np.eye(DIMENSIONS)[:3], _regions(index, np.eye(DIMENSIONS)[:3]))
    index.add(["added.jpg"], np.eye(DIMENSIONS)[3:], regions=_regions(index, np.eye(DIMENSIONS)[3:]))
    index.metadata = {"place": list(range(len(index)))}
    index.save(folder)


def _copy(folder, log):
    index = Index.load(folder / "source")
    index.remove(index.names[:9])
    index.save(folder / "copy", overwrite=True)


def _of_a_folder(folder):
    """An index that knows a photo of `put.png`, and excludes `more/put.png`."""
    (folder / "photos").mkdir(parents=True)
    _with_rows_by_hand(folder / "index")
    (folder / "photos" / "put.png").write_bytes(OLD)
    changes.put(folder / "index", folder / "photos", "put.png", OLD, made_up())
    with Writer(folder / "index", RECIPE, DIMENSIONS) as writer:
        writer.exclude(["more/put.png"])
        writer.commit()


def _put(name):
    return lambda folder, log: changes.put(folder / "index", folder / "photos", name, NEW, made_up())


def _delete(folder, log):
    with contextlib.suppress(KeyError):  # it was deleted, and broken off after that
        changes.delete(folder / "index", "put.png")


def _without_times(place):
    """What a reader sees but for the times of files, which another run does not have; a row that is new has its file."""
    state = visible(place)
    for name, (stamp, _) in zip(state[0], state[2]):
        if stamp is not None and stamp[2:] == [hashlib.sha256(NEW).hexdigest()]:
            assert (place.parent / "photos" / name).read_bytes() == NEW
    listed = [(stamp and [*stamp[:1], *stamp[2:]], listed) for stamp, listed in state[2]]
    return (*state[:2], listed, *state[3:])


def _index_in(folder):
    return folder / "index"


def _two_indices(folder):
    _described(folder / "source")
    _described(folder / "copy", FEW)


SCENARIOS = {
    "a first run": Scenario(lambda folder, log: bring_up_to_date(folder, PHOTOS, log, regions=REGIONS)),
    "an update": Scenario(lambda folder, log: bring_up_to_date(folder, some_changes(PHOTOS), log), _described),
    "a compaction": Scenario(lambda folder, log: bring_up_to_date(folder, FEW, log), _described),
    "a rebuild": Scenario(
        lambda folder, log: bring_up_to_date(folder, some_changes(PHOTOS), log, beside=True, go_on=True, regions=REGIONS),
        _with_rows_by_hand,
    ),
    "a rebuild without region vectors": Scenario(
        lambda folder, log: bring_up_to_date(folder, some_changes(PHOTOS), log, beside=True, go_on=True), _with_rows_by_hand
    ),
    "an update of format 3": Scenario(lambda folder, log: bring_up_to_date(folder, some_changes(PHOTOS), log), _of_format_3),
    "an update of format 4": Scenario(lambda folder, log: bring_up_to_date(folder, some_changes(PHOTOS), log), _of_format_4),
    "an exclusion": Scenario(_exclude, _with_rows_by_hand),
    "an exclusion of format 3": Scenario(_exclude, _of_format_3),
    "an exclusion taken back": Scenario(_take_back, _with_exclusions),
    "an update with exclusions": Scenario(
        lambda folder, log: bring_up_to_date(folder, some_changes(PHOTOS), log), _with_exclusions
    ),
    "a rebuild with exclusions": Scenario(
        lambda folder, log: bring_up_to_date(folder, some_changes(PHOTOS), log, beside=True, go_on=True, regions=REGIONS),
        _with_exclusions,
    ),
    "a conversion": Scenario(
        lambda folder, log: bring_up_to_date(folder, some_changes(PHOTOS), log),
        lambda folder: write_old(folder, PHOTOS, journal=20),
    ),
    "a conversion of format 1": Scenario(
        lambda folder, log: bring_up_to_date(folder, PHOTOS, log), lambda folder: write_old(folder, PHOTOS, version=1)
    ),
    "a save in place": Scenario(_save_in_place, _described),
    "a save in place of format 3": Scenario(_save_in_place, _of_format_3),
    "a save elsewhere": Scenario(_copy, _two_indices, lambda folder: folder / "copy"),
    "a put": Scenario(_put("more/put.png"), _of_a_folder, _index_in, _without_times),
    "a put in place of a photo": Scenario(_put("put.png"), _of_a_folder, _index_in, _without_times),
    "a deletion": Scenario(_delete, _of_a_folder, _index_in, _without_times),
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
        self.states = [self.scenario.see(self.scenario.place(self.folder))]
        self.after = [0]  # part -> the state that can be seen when it is done

        def note():
            state = self.scenario.see(self.scenario.place(self.folder))
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
            state = self.scenario.see(place)
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
            if self.scenario.see(place) != self.states[-1]:
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
            state = self.scenario.see(place)
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
