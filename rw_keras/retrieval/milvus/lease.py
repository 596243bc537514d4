"""Who writes an index in Milvus: one process at a time, by a row of the ledger that it renews while it is alive.

Milvus has no locks, and no way to change a row only where nobody else has. So each process that wants to write adds a row of its
own, and then looks: it writes where there is no other one. Of two that begin together at least one sees the other's row, and takes
its own back. Whoever finds a row whose process is no more, or that was not renewed for a minute, removes it. A writer that could
not renew its row for a minute writes nothing more.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import random
import secrets
import socket
import threading
import time
from typing import Any

from rw_keras.retrieval import writer
from rw_keras.retrieval.milvus.connection import MilvusError
from rw_keras.retrieval.milvus.layout import LEASE
from rw_keras.retrieval.milvus.ledger import Ledger, row
from rw_keras.retrieval.writer import LockedError

# Seconds that a lease lasts, between two renewals, after which one is looked at before each write, and between two looks at others.
_LASTS, _RENEWED, _CHECKED, _LOOK = 60.0, 10.0, 20.0, 0.2
# Seconds that a row of another machine is watched, which is over by this machine's clock: it may be renewed by another clock.
_WATCHED = _RENEWED + 5
# The tokens of the leases of this process.
_own: set[str] = set()


class Lease:
    """The right to write an index.

    Args:
        ledger: of the index.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger, self._token = ledger, secrets.token_hex(8)
        self._renewed = _now()
        self._done = threading.Event()
        self._beating: threading.Thread | None = None

    def take(self) -> bool:
        """Takes it; whether another writer left something behind that is to be put right.

        Raises:
            LockedError: when another process holds it, and does not end within two seconds.
        """
        try:
            others = self._claimed()
            self._watch(others)
            self._remove(list(others))
        except BaseException:
            _own.discard(self._token)  # so a row that could not be taken back is over for this process
            raise
        self._beating = threading.Thread(target=self._beat, daemon=True)
        self._beating.start()
        return bool(others)

    def _claimed(self):
        """Adds the row of this process, once there is no other one; gives those that are over."""
        until = time.monotonic() + writer.PATIENCE
        while True:
            alive, over = self._others()
            if not alive:
                self._renewed = _now()
                _own.add(self._token)
                self._write(time.time() + _LASTS)
                alive, over = self._others()
                if not alive:
                    return over
                self._remove([self._token])
            if time.monotonic() > until:
                raise LockedError(f"{self._place} is being written by {_who(alive[0])}; wait for it to end.")
            time.sleep(_LOOK * (0.5 + random.random()))  # not again at the same moment as the other

    def check(self) -> None:
        """Raises a LockedError when another process has taken over."""
        if self._token not in self._rows():
            raise LockedError(f"{self._place} is being written by another process, which took over; wait for it to end.")

    def confirm(self) -> None:
        """Raises a LockedError where another process may write by now; asks Milvus only where the last renewal is some time ago."""
        age = _now() - self._renewed
        if age > _LASTS:
            raise LockedError(
                f"This process could not tell {self._place} for {age:.0f} s that it writes, so another one may write there by now; "
                "begin again."
            )
        if age > _CHECKED:
            self.check()

    def stop(self) -> None:
        """Renews it no longer; it lasts for a minute."""
        self._done.set()
        if self._beating is not None:
            self._beating.join()
            self._beating = None
        _own.discard(self._token)

    def give_back(self, whole: bool = True) -> None:
        """Lets others write, where it is still held.

        Args:
            whole: whether all that was written is committed. Else the next writer is told to put it right.
        """
        if self._beating is None:
            return
        self.stop()
        with contextlib.suppress(MilvusError, LockedError):
            self.check()
            if whole:
                self._remove([self._token])
            else:
                self._write(0.0)

    @property
    def _place(self):
        return self._ledger.connection.address

    def _rows(self):
        """Token -> what is said of it, of all processes that write, or want to."""
        found = self._ledger.connection.find(self._ledger.collections.ledger, f"kind == {LEASE}", ["value"])
        return {held["token"]: held for held in (json.loads(one["value"]) for one in found)}

    def _others(self):
        """Of other leases those that hold, and token -> those that are over."""
        alive, over = [], {}
        for token, held in self._rows().items():
            if token != self._token and not _is_over(held):
                alive.append(held)
            elif token != self._token:
                over[token] = held
        return alive, over

    def _remove(self, tokens):
        self._ledger.connection.delete(self._ledger.collections.ledger, "key", list(map(_key, tokens)))

    def _watch(self, others):
        """Sees to it that rows of other machines, which seem to be over, are not renewed by a clock that is behind."""
        far = {token: held["until"] for token, held in others.items() if held["until"] and held.get("machine") != _machine()}
        if not far:
            return
        time.sleep(_WATCHED)
        for token, held in self._rows().items():
            if far.get(token, held["until"]) != held["until"]:
                self._remove([self._token])
                raise LockedError(
                    f"{self._place} is being written by {_who(held)}, whose clock differs from that of this machine by more than a "
                    "minute; set them, and wait for it to end."
                )

    def _write(self, until):
        held = {"token": self._token, "host": socket.gethostname(), "machine": _machine(), "process": os.getpid(), "until": until}
        self._ledger.write([row(_key(self._token), LEASE, held)])

    def _beat(self):
        while not self._done.wait(_RENEWED):
            with contextlib.suppress(MilvusError, LockedError):  # the next write says what is wrong
                self._renew()

    def _renew(self):
        began, until = _now(), time.time() + _LASTS
        self.check()
        self.confirm()
        self._write(until)
        if _now() - self._renewed <= _LASTS:  # else another process may have taken over while this one stood still
            self._renewed = began


def _key(token):
    return f"lease:{token}"


def _now():
    """Seconds that pass, where the system tells them, also while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def _machine() -> list[Any] | None:
    """What tells where a process number stands for a process: the start of the machine, and the space of its numbers."""
    try:
        return [pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.stat("/proc/self/ns/pid").st_ino]
    except OSError:
        return None


def _is_over(held):
    if held["until"] < time.time():
        return True
    if held.get("machine") is None or held["machine"] != _machine():
        return False
    if held["process"] == os.getpid():
        return held["token"] not in _own
    try:
        os.kill(held["process"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _who(held):
    return f"another process ({held['process']} on {held['host']})"
