"""The memory that decoding takes, lent to threads in turn."""

import contextlib
import ctypes
import threading


class Memory:
    """Bytes that are lent, first come, first served. Who asks for more than there are waits until none are lent, and gets them."""

    def __init__(self, total):
        self._total, self._lent = total, 0
        self._turn, self._returned = threading.Lock(), threading.Condition()

    @contextlib.contextmanager
    def lend(self, count):
        """Lends so many bytes while it is entered."""
        with self._turn, self._returned:
            self._returned.wait_for(lambda: self._lent == 0 or self._lent + count <= self._total)
            self._lent += count
        try:
            yield
        finally:
            if _trim is not None and count > self._total // 4:
                _trim(0)
            with self._returned:
                self._lent -= count
                self._returned.notify_all()


# The C library keeps what a thread has freed for that thread, and with a few threads and large photos that is gigabytes.
try:
    _trim = ctypes.CDLL(None).malloc_trim
except (AttributeError, OSError, TypeError):  # not glibc
    _trim = None
