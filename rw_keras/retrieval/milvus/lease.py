"""Who writes an index in Milvus: one process at a time, by a row of the ledger that it renews while it is alive.

Milvus has no locks, and no way to change a row only where nobody else has. Two processes that begin within the same moment find out
by looking at the row once more after it; one that loses its row, because it could not reach Milvus for a minute, is stopped at its
next commit.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time

from rw_keras.retrieval import writer
from rw_keras.retrieval.milvus.connection import MilvusError
from rw_keras.retrieval.milvus.layout import LEASE
from rw_keras.retrieval.milvus.ledger import Ledger, row
from rw_keras.retrieval.writer import LockedError

_KEY = "lease"
# Seconds that a lease lasts, between two renewals, between two looks at another one's, and until it is seen whose it became.
_LASTS, _RENEWED, _LOOK, _SETTLED = 60.0, 10.0, 0.2, 0.5


class Lease:
    """The right to write an index.

    Args:
        ledger: of the index.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger, self._token = ledger, secrets.token_hex(8)
        self._done = threading.Event()
        self._beating: threading.Thread | None = None

    def take(self) -> bool:
        """Takes it; whether another process left it behind, which was killed.

        Raises:
            LockedError: when another process holds it, and does not end within two seconds.
        """
        until, held = time.monotonic() + writer.PATIENCE, self._held()
        while held is not None and not _is_over(held):
            if time.monotonic() > until:
                raise LockedError(f"{self._place} is being written by {_who(held)}; wait for it to end.")
            time.sleep(_LOOK)
            held = self._held()
        self._write()
        time.sleep(_SETTLED)
        self.check()
        self._beating = threading.Thread(target=self._beat, daemon=True)
        self._beating.start()
        return held is not None

    def check(self) -> None:
        """Raises a LockedError when it has become another process's."""
        held = self._held()
        if held is None or held["token"] != self._token:
            other = "another process" if held is None else _who(held)
            raise LockedError(f"{self._place} is being written by {other}, which took over; wait for it to end.")

    def give_back(self) -> None:
        """Lets others write, where it is still held."""
        self._done.set()
        if self._beating is None:
            return
        self._beating.join()
        self._beating = None
        with contextlib.suppress(MilvusError, LockedError):
            self.check()
            self._ledger.connection.delete(self._ledger.collections.ledger, "key", [_KEY])

    @property
    def _place(self):
        return self._ledger.connection.address

    def _held(self):
        found = self._ledger.connection.find(self._ledger.collections.ledger, f"kind == {LEASE}", ["value"])
        return json.loads(found[0]["value"]) if found else None

    def _write(self):
        held = {"token": self._token, "host": socket.gethostname(), "process": os.getpid(), "until": time.time() + _LASTS}
        self._ledger.write([row(_KEY, LEASE, held)])

    def _beat(self):
        while not self._done.wait(_RENEWED):
            with contextlib.suppress(MilvusError, LockedError):  # the next commit says what is wrong
                self.check()
                self._write()


def _is_over(held):
    if held["until"] < time.time():
        return True
    if held["host"] != socket.gethostname() or held["process"] == os.getpid():
        return False
    try:
        os.kill(held["process"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _who(held):
    return f"another process ({held['process']} on {held['host']})"
