"""Work that one thread, or a few, do for many requests: what waits and is alike is done together."""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple


class Done(NamedTuple):
    """What became of a piece of work.

    Attributes:
        value: its result.
        seconds: how long the batch that it was in took.
        together: how many pieces that batch had.
    """

    value: Any
    seconds: float
    together: int


class _Piece(NamedTuple):
    key: Hashable
    item: Any
    future: Future[Done]


class Batches:
    """A queue of pieces of work, and the threads that do them.

    A thread that is free takes the piece that has waited longest, and with it those of the same key that wait already: nothing is
    waited for. A piece whose future is cancelled is left out.

    Args:
        run: does pieces of one key: `run(key, items)` gives a result each. Its error is that of each of them.
        most: how many pieces of a key are done together: `most(key)`.
        name: of the threads.
        threads: how many. Default 1.
    """

    def __init__(
        self,
        run: Callable[[Any, list[Any]], Sequence[Any]],
        most: Callable[[Any], int],
        name: str,
        threads: int = 1,
    ) -> None:
        self._run, self._most = run, most
        self._waiting: collections.deque[_Piece] = collections.deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._threads = [threading.Thread(target=self._work, name=f"{name} {number}", daemon=True) for number in range(threads)]
        for thread in self._threads:
            thread.start()

    def submit(self, key: Hashable, item: Any) -> Future[Done]:
        """Puts a piece of work into the queue; from any thread.

        Raises:
            RuntimeError: after `close`.
        """
        future: Future[Done] = Future()
        with self._changed:
            if self._is_closed:
                raise RuntimeError("This thread has ended.")
            self._waiting.append(_Piece(key, item, future))
            self._changed.notify()
        return future

    def close(self) -> None:
        """Ends the threads once the queue is empty."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _take(self):
        """The pieces to do next; none when all is done and the queue is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closed)
            if not self._waiting:
                return []
            key = self._waiting[0].key
            most, taken, left = self._most(key), [], collections.deque()
            for piece in self._waiting:
                (taken if piece.key == key and len(taken) < most else left).append(piece)
            self._waiting = left
            return taken

    def _work(self):
        while taken := self._take():
            pieces = [piece for piece in taken if piece.future.set_running_or_notify_cancel()]
            if not pieces:
                continue
            began = time.perf_counter()
            try:
                values = self._run(pieces[0].key, [piece.item for piece in pieces])
            except BaseException as error:
                for piece in pieces:
                    piece.future.set_exception(error)
                continue
            seconds = time.perf_counter() - began
            for piece, value in zip(pieces, values, strict=True):
                piece.future.set_result(Done(value, seconds, len(pieces)))
