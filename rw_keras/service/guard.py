"""What stands before the application: who may ask, how much and how fast. Pure ASGI; an answer of its own is a problem."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import hashlib
import hmac
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from rw_keras.files import printable
from rw_keras.service.problems import ProblemError, encoded, later
from rw_keras.service.settings import Settings

Message = MutableMapping[str, Any]
Receive, Send = Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]
App = Callable[[Any, Receive, Send], Awaitable[None]]

log = logging.getLogger(__name__)

# Nothing is loaded from another host, nor run or styled from within a page.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; font-src 'self'; "
    "manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "permissions-policy": "camera=(self), geolocation=(), microphone=(), payment=(), usb=()",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
# Probes tell nobody anything, and Kubernetes asks them by a pod's address.
_PROBES = ("/v2/health/live", "/v2/health/ready")
# Clients whose rates are known at once, and what may come at once, in seconds' worth of the rate.
_CLIENTS, _BURST = 10_000, 10
# Bytes, and seconds, that are still read of a body that was refused, so that its sender comes to read why.
_DRAINED, _DRAINING = 4 << 20, 2.0


class Guard:
    """Answers what is refused before the application sees it, and gives the rest its body as a whole.

    In this order: what the headers take; the header `Host`; the token; the client's rate; the body, by its length, while it comes,
    by its time, and by what all bodies take. Every answer, whoever gives it, gets the headers by which browsers keep pages apart.

    Args:
        app: the application.
        settings: the limits.
        is_closed: whether the service is stopping, so that connections are not kept for another request.
    """

    def __init__(self, app: App, settings: Settings, is_closed: Callable[[], bool] = lambda: False) -> None:
        self._app, self._settings, self._is_closed = app, settings, is_closed
        self._read, self._write = (_digests(tokens) for tokens in (settings.read_tokens, settings.write_tokens))
        self._rates = Rates(settings.rate)
        self._bytes_held = 0
        self._own = dict(_HEADERS)
        if settings.allowed_origins:
            self._own["cross-origin-resource-policy"] = "cross-origin"
        self._own_encoded = [(name.encode(), value.encode()) for name, value in self._own.items()]

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(self._with_headers(send), self._settings.header_seconds)
        try:
            self._check(scope)
            async with self._body(scope, receive) as body:
                await self._run(scope, body, receive, answer)
        except ProblemError as problem:
            await answer.refuse(scope, problem, receive)
        except Exception:
            if answer.is_late:
                return  # nobody takes the answer; the server closes the connection
            # The log has the reason; a client gets neither a trace nor a path.
            log.exception("%s %s failed", scope["method"], printable(scope["path"]))
            if answer.has_begun:
                raise
            await answer.refuse(scope, ProblemError(500, "The service failed at this request; its log says why."), receive)

    def _with_headers(self, send):
        async def sending(message):
            if message["type"] == "http.response.start":
                there = {name.lower() for name, _ in message["headers"]}
                own = [pair for pair in self._own_encoded if pair[0] not in there]
                if self._is_closed():
                    own.append((b"connection", b"close"))
                message = {**message, "headers": [*message["headers"], *own]}
            await send(message)

        return sending

    # Who asks.

    def _check(self, scope):
        headers = collections.defaultdict(list)
        for name, value in scope["headers"]:
            headers[name.lower()].append(value.decode("latin-1"))
        path = scope["path"]
        size = sum(len(name) + len(value) + 4 for name, value in scope["headers"]) + len(path) + len(scope.get("query_string", b""))
        if size > self._settings.header_kib * 1024:
            words = f"A request's line and headers hold at most {self._settings.header_kib:g} KiB; send less."
            raise ProblemError(431, words)
        self._check_host(headers[b"host"], path)
        if scope["method"] == "OPTIONS" and self._settings.allowed_origins:
            return  # a browser that asks whether it may ask; it sends no token
        address = (scope.get("client") or ("",))[0]
        try:
            client = self._check_token(headers[b"authorization"], needed(scope["method"], path)) or address
        except ProblemError:
            self._rates.check(address)  # tokens are not to be guessed faster than anything else is asked
            raise
        if path not in _PROBES:
            self._rates.check(client)

    def _check_host(self, given, path):
        allowed = self._settings.allowed_hosts
        if "*" in allowed or path in _PROBES:
            return
        host = _without_port(given[0]).lower() if len(given) == 1 else None
        if host is None or host not in {name.strip("[]").lower() for name in allowed}:
            said = f"names {given[0][:80]!r}" if len(given) == 1 else "is missing, or there twice"
            raise ProblemError(421, f"The header `Host` {said}, and not this service; see --allowed_hosts.")

    def _check_token(self, given, access):
        """The client, where a token says who it is."""
        token = None
        if given:
            scheme, _, token = given[0].partition(" ")
            if len(given) > 1 or scheme.lower() != "bearer":
                raise _unknown("The header `Authorization` is `Bearer TOKEN`.")
            token = hashlib.sha256(token.strip().encode("latin-1")).digest()
        may_write, may_read = _is_one(token, self._write), _is_one(token, self._read)
        if token is not None and not may_write and not may_read:
            raise _unknown("This token is not known here.")
        if access == "write" and not may_write:
            if token is not None:
                raise ProblemError(403, "This token may search, and not change an index; use one that may write.")
            raise _unknown("Changing an index takes a token that may write, in the header `Authorization: Bearer TOKEN`.")
        if access == "read" and token is None and not self._settings.open_reading:
            raise _unknown("This takes a token, in the header `Authorization: Bearer TOKEN`.")
        return token

    # What is sent.

    @contextlib.asynccontextmanager
    async def _body(self, scope, receive):
        """The whole body, which counts among those that are held until the context ends."""
        settings, held = self._settings, 0
        length = _content_length(scope)
        if length is not None and length > settings.body_bytes:
            raise _too_large(settings)
        try:
            parts: list[bytes] = []
            async with _within(settings.body_seconds):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ProblemError(400, "The body ended before all of it had come.")
                    part = message.get("body", b"")
                    if held + len(part) > settings.body_bytes:
                        raise _too_large(settings)
                    if self._bytes_held + len(part) > settings.bodies_bytes:
                        raise later(503, "The bodies of all requests together are too large now; ask again in a moment.")
                    self._bytes_held += len(part)
                    held += len(part)
                    parts.append(part)
                    more = message.get("more_body", False)
            body = b"".join(parts)
            parts.clear()
            yield body
        finally:
            self._bytes_held -= held

    async def _run(self, scope, body, receive, answer):
        """Runs the application; one that only reads ends when its client has gone."""
        sent, gone = False, asyncio.Event()

        async def replayed():
            nonlocal sent
            if not sent:
                sent = True
                return {"type": "http.request", "body": body, "more_body": False}
            await gone.wait()
            return {"type": "http.disconnect"}

        async def watch():
            while (await receive())["type"] != "http.disconnect":
                pass
            gone.set()

        running = asyncio.ensure_future(self._app(scope, replayed, answer))
        watching = asyncio.ensure_future(watch())
        try:
            await asyncio.wait({running, watching}, return_when=asyncio.FIRST_COMPLETED)
            if not running.done() and scope["method"] in ("GET", "HEAD", "POST"):
                running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
        finally:
            watching.cancel()
            if not running.done():
                running.cancel()


class _Answer:
    """The `send` of an application: each part has to be taken within a time, and it is known whether any was sent."""

    def __init__(self, send, seconds):
        self._send, self._seconds = send, seconds
        self.has_begun = self.is_late = False

    async def __call__(self, message):
        self.has_begun = True
        try:
            async with asyncio.timeout(self._seconds):
                await self._send(message)
        except TimeoutError:
            self.is_late = True
            raise

    async def refuse(self, scope, problem, receive):
        """Answers with a problem; the rest of a body is read a while, or its sender would find the connection cut."""
        with contextlib.suppress(TimeoutError):  # nobody takes it
            await self._refuse(scope, problem, receive)

    async def _refuse(self, scope, problem, receive):
        if self.has_begun:
            return
        if scope["path"].startswith("/v2"):
            response = problem.response(scope["path"])
            headers, body = list(response.raw_headers), response.body
        else:
            headers, body = encoded(problem)
        headers.append((b"connection", b"close"))
        await self({"type": "http.response.start", "status": problem.status, "headers": headers})
        await self({"type": "http.response.body", "body": body, "more_body": True})
        read = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAINING):
                while read < _DRAINED:
                    message = await receive()
                    read += len(message.get("body", b""))
                    if message["type"] == "http.disconnect" or not message.get("more_body", False):
                        break
        await self({"type": "http.response.body", "body": b"", "more_body": False})


class Rates:
    """How often each client has asked: a bucket that fills at the rate, and holds ten seconds' worth.

    Args:
        rate: requests a second; `None`: any.
        now: gives the seconds.
    """

    def __init__(self, rate: float | None, now: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._now = rate, now
        self._buckets: collections.OrderedDict[Any, tuple[float, float]] = collections.OrderedDict()

    def check(self, client: Any) -> None:
        """Counts a request; a 429 where it is one too many."""
        if self._rate is None:
            return
        most, now = max(1.0, _BURST * self._rate), self._now()
        left, then = self._buckets.pop(client, (most, now))
        left = min(most, left + (now - then) * self._rate)
        self._buckets[client] = (left - 1 if left >= 1 else left), now
        while len(self._buckets) > _CLIENTS:
            self._buckets.popitem(last=False)
        if left < 1:
            words = f"One client may ask {self._rate:g} times a second; ask again in a moment."
            raise later(429, words, (1 - left) / self._rate)


def needed(method: str, path: str) -> str:
    """What a request takes: "open", "read" or "write"."""
    if path == "/v1" or path.startswith("/v1/"):
        return "read" if method in ("GET", "HEAD", "POST") else "write"
    return "read" if method == "POST" and path.startswith("/v2/") else "open"


def _digests(tokens: Iterable[str]):
    return [hashlib.sha256(token.encode()).digest() for token in tokens]


def _is_one(token, digests):
    """In a time that does not depend on the token: each is compared, whichever fits."""
    found = False
    for digest in digests:
        found |= hmac.compare_digest(token or b"", digest)
    return found


def _unknown(detail):
    return ProblemError(401, detail, headers={"WWW-Authenticate": 'Bearer realm="rw_keras"'})


def _too_large(settings):
    return ProblemError(413, f"A body holds at most {settings.body_mib:g} MiB; send a smaller photo, or fewer.")


def _content_length(scope):
    given = [value for name, value in scope["headers"] if name.lower() == b"content-length"]
    return int(given[0]) if len(given) == 1 and given[0].isdigit() else None


def _without_port(host):
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if host.count(":") == 1 else host


@contextlib.asynccontextmanager
async def _within(seconds):
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise ProblemError(408, f"The body did not come within {seconds:g} seconds; send it faster, or a smaller one.") from None
