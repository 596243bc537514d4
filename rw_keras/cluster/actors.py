"""What runs on the machines of a cluster: a model that is loaded once, and describes one fragment after the other."""

from __future__ import annotations

import contextlib
import os
import pathlib
import socket
import tempfile
import time
from typing import Any

import numpy as np

from rw_keras.cluster.fragments import about_of
from rw_keras.cluster.plan import Plan
from rw_keras.description.reader import read_item

# Seconds that an actor waits after a fragment that it could not read or write, doubled each time, so that a machine with a full
# disk leaves the fragments to others.
_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
# Beyond this share of photos whose faults are likely to pass, something is away. So many seconds an actor waits for it.
DOUBTFUL, _PATIENCE = 0.1, 60.0
# Photos of which one has to be readable again, before a fragment is described a second time in the last pass.
_TRIED = 3
# Decoding threads of an actor, at least and at most.
_WORKERS = (2, 16)
# What an actor says of a fragment before it has described it.
_NOTHING = {"photos": 0, "failed": 0, "doubtful": 0, "fault": "", "is_final": False}


class Actor:
    """Describes fragments of a plan, by their numbers, and says how many photos of each it read, and how long it took.

    The model is loaded with the first fragment, so that what is wrong with it is said in words.

    Args:
        plan: what is described.
        processors: how many it may use.
        workers: threads that read and decode; "auto": two, or one a processor where those are more, at most 16.
        again: whether fragments are there already, and described once more where photos can be read by now that could not be.
    """

    def __init__(self, plan: Plan, processors: int, workers: int | str = "auto", again: bool = False) -> None:
        self._plan, self._processors, self._again = plan, processors, again
        self._workers = min(max(_WORKERS[0], processors), _WORKERS[1]) if workers == "auto" else workers
        self._describing, self._held = None, []
        self._pause, self._patience = _PAUSE, _PATIENCE

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Describes the fragments `item`, and gives a row of each: `number`; `photos`; `failed`; `doubtful`, those whose fault is
        likely to pass; `seconds`; `fault`, why there is no fragment; `is_final`, whether another try is of no use; `node`, this
        machine."""
        rows = [self._described(int(number)) for number in batch["item"]]
        return {field: np.array([row[field] for row in rows]) for field in rows[0]}

    def _described(self, number):
        began = time.monotonic()
        row = {"number": number, **_NOTHING, "node": socket.gethostname()}
        try:
            table = self._second_try(number) if self._again else self._first_try(number)
        except (ValueError, ImportError) as error:
            row["fault"], row["is_final"] = str(error), True
        except Exception as error:  # each runtime has errors of its own
            row["fault"] = f"{type(error).__name__}: {error}"
            time.sleep(self._pause)
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        else:
            failed = table["fault"].is_valid().to_numpy()
            row |= {"photos": len(table), "failed": int(failed.sum()), "doubtful": about_of(table)["doubtful"]}
            self._pause = _PAUSE
        return {**row, "seconds": time.monotonic() - began}

    def _first_try(self, number):
        """Writes a fragment; where many photos cannot be read for now, the better of two tries, since a disk may have been away."""
        if self._describing is None:
            self.load()
        todo = self._plan.todo(number)
        table = self._describing(todo)
        if about_of(table)["doubtful"] <= DOUBTFUL * len(todo):
            self._patience = _PATIENCE
        elif self._come_back(_unread(table, todo)):
            table = min(table, self._describing(todo), key=_passing)
        self._plan.write(number, table)
        return table

    def _second_try(self, number):
        """A fragment that is there, or a better one, where photos can be read by now."""
        table, todo = self._plan.table(number), self._plan.todo(number)
        if not any(map(_can_be_read, _unread(table, todo))):
            return table
        if self._describing is None:
            self.load()
        again = self._describing(todo)
        if _passing(again) >= _passing(table):
            return table
        self._plan.write(number, again)
        return again

    def _come_back(self, items):
        """Whether one of photos that could not be read can be, after a while. What does not come back is not waited for again."""
        pause = _PAUSE
        while self._patience > 0:
            time.sleep(pause)
            if any(map(_can_be_read, items)):
                return True
            self._patience, pause = self._patience - pause, 2 * pause
        return False

    @property
    def described_with(self) -> dict[str, str]:
        """What computes here, once it is loaded."""
        return self._describing.described_with

    def load(self) -> None:
        """Loads the model; errors as for `rw_keras.cluster.describing.Describing`."""
        self._held += hold_processors(self._processors)
        # Read when TensorFlow is loaded, which nothing in this process has done before.
        os.environ["TF_NUM_INTRAOP_THREADS"] = str(self._processors)
        from rw_keras.cluster.describing import Describing

        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "model.keras")
            path.write_bytes(self._plan.model())
            self._describing = Describing(path, self._plan.settings, self._workers)


def _passing(table):
    """How many photos have a fault that may pass."""
    return int(table["passing"].to_numpy().sum())


def _unread(table, todo):
    """A few of a table's photos that have such a fault, from its beginning to its end."""
    places = np.flatnonzero(table["passing"].to_numpy())
    return [todo[place][0] for place in places[:: max(1, len(places) // _TRIED)]]


def _can_be_read(item):
    return read_item(item, None, 16, 1, False).error is None


def computed_with(plan: Plan, processors: int) -> dict[str, str]:
    """What computes the descriptors of a plan on this machine, see `rw_keras.runtimes.describer.described_with`."""
    actor = Actor(plan, processors)
    actor.load()
    return actor.described_with


def hold_processors(count: int) -> list[Any]:
    """Keeps this process to so many of the machine's processors, none of which another process of this kind has taken, so that the
    threads of several runtimes on a machine do not crowd each other out.

    Where that cannot be done, or the process may use no more than those, all stays as it is.

    Args:
        count: how many processors.

    Returns:
        What holds them, until it is closed or the process ends.
    """
    if not hasattr(os, "sched_setaffinity") or count >= len(os.sched_getaffinity(0)):
        return []
    import fcntl

    held = {}
    for processor in sorted(os.sched_getaffinity(0)):
        if len(held) < count:
            path = os.path.join(tempfile.gettempdir(), f"rw_keras-{os.getuid()}-processor-{processor}.lock")
            with contextlib.suppress(OSError):  # somebody else may have put a link there
                file = os.fdopen(os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600), "r+b")
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    held[processor] = file
                except OSError:
                    file.close()
    if len(held) < count:
        for file in held.values():
            with contextlib.suppress(OSError):
                file.close()
        return []
    os.sched_setaffinity(0, held)
    return list(held.values())
