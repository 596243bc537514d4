"""The bounded queue: so many requests are worked on, so many wait, and all others are told to come again."""

from __future__ import annotations

import asyncio
import collections

from rw_keras.service.problems import ProblemError, later

STOPPING = "The service is stopping; ask again in a moment, or another one."


def stopping() -> ProblemError:
    """What is answered to whoever waits, or comes, while the service stops."""
    return later(503, STOPPING, 5)


class Gate:
    """Lets requests in, in the order in which they came. Used within one event loop.

    Args:
        active: how many are let in at once.
        waiting: how many wait for that.

    Attributes:
        is_closed: whether the service is stopping.
    """

    def __init__(self, active: int, waiting: int) -> None:
        self._free, self._most = active, waiting
        self._queue: collections.deque[asyncio.Future[None]] = collections.deque()
        self.is_closed = False

    @property
    def length(self) -> int:
        """How many are waiting."""
        return sum(not future.done() for future in self._queue)

    async def enter(self) -> None:
        """Waits until a request is let in; `leave` has to follow.

        Raises:
            ProblemError: 429 when too many wait, and 503 when the service stops meanwhile.
        """
        if self.is_closed:
            raise stopping()
        if self._free:
            self._free -= 1
            return
        if self.length >= self._most:
            raise later(429, f"{self._most} requests are waiting, as many as may; ask again in a moment.")
        turn = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.leave()  # its turn had come
            raise

    def leave(self) -> None:
        """Makes room for the next one."""
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    def close(self) -> None:
        """Lets nobody in any more; whoever waits is told so. Those within go on."""
        self.is_closed = True
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_exception(stopping())
