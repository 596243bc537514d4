"""uvicorn's HTTP/1.1 with bounds that it has none for: how long headers may take and be, and how many connections there are."""

from __future__ import annotations

import asyncio
import sys

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from rw_keras.service.problems import ProblemError, encoded, later


class BoundedProtocol(H11Protocol):
    """A connection. Subclasses have the bounds; see `bounded`."""

    header_seconds = 10.0
    most_connections = 1000
    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.most_connections:
            self._refuse(later(503, f"There are {self.most_connections} connections, as many as may be; ask again in a moment."))
            return
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._is_between_requests() and self._waiting is None:
            self._wait()
        super().data_received(data)
        if not self._is_between_requests():
            self._stop_waiting()

    def send_400_response(self, msg: str) -> None:
        """What cannot be read as a request is answered with a problem; called while the error is handled."""
        error = sys.exception() if sys.version_info >= (3, 11) else sys.exc_info()[1]
        hint = getattr(error, "error_status_hint", 400)
        if hint == 431:
            self._refuse(ProblemError(431, "The request's line and headers are too large; send less."))
        else:
            self._refuse(ProblemError(400, "This is no HTTP request that can be read."))

    def _is_between_requests(self):
        return self.cycle is None or self.cycle.response_complete

    def _wait(self):
        self._waiting = self.loop.call_later(self.header_seconds, self._give_up)

    def _stop_waiting(self):
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _give_up(self):
        self._waiting = None
        if self._is_between_requests() and not self.transport.is_closing():
            self._refuse(ProblemError(408, f"The headers did not come within {self.header_seconds:g} seconds."))

    def _refuse(self, problem):
        """Answers, where the connection is in a state that takes an answer, and closes it."""
        headers, body = encoded(problem)
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            headers += [(b"connection", b"close")]
            start = h11.Response(status_code=problem.status, headers=headers, reason=b"")
            for event in (start, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


def bounded(seconds: float, connections: int) -> type[BoundedProtocol]:
    """The protocol with its bounds: seconds that headers may take, and connections at once."""
    return type("Bounded", (BoundedProtocol,), {"header_seconds": seconds, "most_connections": connections})
