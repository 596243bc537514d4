"""What is refused before the application: by host, token, rate and body; and the headers of every answer."""

import asyncio
import json

import pytest
from small_service import READ, WRITE

from rw_keras.service import guard as guard_module
from rw_keras.service.guard import Guard, Rates, needed
from rw_keras.service.problems import ProblemError
from rw_keras.service.settings import Settings


@pytest.fixture(autouse=True)
def short_draining(monkeypatch):
    monkeypatch.setattr(guard_module, "_DRAINING", 0.05)


class Inner:
    """An application that answers with the length of the body; or what `does` does."""

    def __init__(self, does=None):
        self.does, self.seen = does, []

    async def __call__(self, scope, receive, send):
        message = await receive()
        self.seen.append(message)
        if self.does is not None:
            await self.does(scope, receive, send)
        body = str(len(message["body"])).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})


def asked(settings, method="GET", path="/v1/indexes", headers=(), parts=(b"",), inner=None, client=("10.0.0.1", 1), guard=None):
    """(status, headers, JSON of the body) that a guard answers; `parts`: of the body, a number being seconds before the next."""
    guard = guard or Guard(inner or Inner(), settings)
    sent, waiting = [], list(parts)

    async def receive():
        while waiting:
            part = waiting.pop(0)
            if isinstance(part, (int, float)):
                await asyncio.sleep(part)
                continue
            return {"type": "http.request", "body": part, "more_body": bool(waiting)}
        return await asyncio.sleep(3600)

    async def send(message):
        sent.append(message)

    given = [(b"host", b"localhost:8000")] if not any(name == b"host" for name, _ in headers) else []
    scope = {"type": "http", "method": method, "path": path, "headers": [*given, *headers], "client": client}
    asyncio.run(guard(scope, receive, send))
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], {name.decode(): value.decode() for name, value in sent[0]["headers"]}, json.loads(body)


def bearer(token):
    return [(b"authorization", f"Bearer {token}".encode())]


class TestHost:
    @pytest.mark.parametrize("host", [b"localhost", b"LOCALHOST:80", b"127.0.0.1:8000", b"[::1]:8000", b"[::1]"])
    def test_of_this_machine(self, host):
        assert asked(Settings(), headers=[(b"host", host)])[0] == 200

    @pytest.mark.parametrize("host", [b"evil.example", b"localhost.evil.example", b"127.0.0.1.evil.example:8000", b"", b"[::2]"])
    def test_of_another(self, host):
        status, _, problem = asked(Settings(), headers=[(b"host", host)])
        assert status == 421
        assert "--allowed_hosts" in problem["detail"]

    def test_none_or_two(self):
        assert asked(Settings(), headers=[(b"host", b"localhost"), (b"host", b"evil.example")])[0] == 421
        assert asked(Settings(allowed_hosts=("photos.example",)), headers=[(b"host", b"localhost")])[0] == 421
        assert asked(Settings(allowed_hosts=("photos.example",)), headers=[(b"host", b"photos.example")])[0] == 200
        assert asked(Settings(allowed_hosts=("*",)), headers=[(b"host", b"any.example")])[0] == 200

    def test_probes_are_asked_by_address(self):
        assert asked(Settings(), path="/v2/health/live", headers=[(b"host", b"10.1.2.3:8000")])[0] == 200
        assert asked(Settings(), path="/metrics", headers=[(b"host", b"10.1.2.3:8000")])[0] == 421


class TestTokens:
    closed = Settings(read_tokens=(READ,), write_tokens=(WRITE,), open_reading=False)
    opened = Settings(write_tokens=(WRITE,))

    @pytest.mark.parametrize(
        ("method", "path", "takes"),
        [
            ("GET", "/", "open"),
            ("GET", "/page/start.js", "open"),
            ("GET", "/docs", "open"),
            ("GET", "/openapi.json", "open"),
            ("GET", "/metrics", "open"),
            ("GET", "/v2", "open"),
            ("GET", "/v2/health/live", "open"),
            ("GET", "/v2/models/index", "open"),
            ("POST", "/v2/models/index/infer", "read"),
            ("GET", "/v1/indexes", "read"),
            ("GET", "/v1", "read"),
            ("POST", "/v1/search", "read"),
            ("GET", "/v1/photos/a.jpg", "read"),
            ("PUT", "/v1/photos/a.jpg", "write"),
            ("DELETE", "/v1/photos/a.jpg", "write"),
            ("PATCH", "/v1/photos/a.jpg", "write"),
        ],
    )
    def test_what_is_needed(self, method, path, takes):
        assert needed(method, path) == takes
        expected = {
            "open": (200, 200, 200, 200),
            "read": (401, 200, 200, 200),
            "write": (401, 403, 200, 401),
        }[takes]
        found = [asked(self.closed, method, path, headers)[0] for headers in ([], bearer(READ), bearer(WRITE))]
        assert (*found, asked(self.opened, method, path)[0]) == expected

    @pytest.mark.parametrize("given", [b"Bearer wrong", b"Bearer ", b"Bearer", b"", b"Basic YTpi", b"Bearer \xff", READ.encode()])
    def test_wrong_ones(self, given):
        for settings in (self.closed, self.opened):
            status, headers, problem = asked(settings, headers=[(b"authorization", given)])
            assert (status, headers["www-authenticate"]) == (401, 'Bearer realm="rw_keras"')
            assert given.decode("latin-1").strip() not in problem["detail"] or len(given) < 8

    def test_two(self):
        assert asked(self.closed, headers=bearer(READ) * 2)[0] == 401

    def test_all_are_compared(self, monkeypatch):
        """In a time that does not tell which token was nearly right."""
        compared = []

        def compare(one, other):
            compared.append((len(one), len(other)))
            return one == other

        monkeypatch.setattr(guard_module.hmac, "compare_digest", compare)
        settings = Settings(read_tokens=(READ, "another-read-token", "a-third-read-token"), open_reading=False)
        assert asked(settings, headers=bearer(READ))[0] == 200
        assert compared == [(32, 32)] * 3

    def test_a_browser_asks_whether_it_may_ask(self):
        preflight = {"method": "OPTIONS", "path": "/v1/search"}
        assert asked(self.closed, **preflight)[0] == 401
        assert asked(Settings(allowed_origins=("https://a.example",), open_reading=False), **preflight)[0] == 200


class TestRate:
    def test_a_bucket(self):
        time = [0.0]
        rates = Rates(2, lambda: time[0])
        for _ in range(20):
            rates.check("one")
        with pytest.raises(ProblemError) as caught:
            rates.check("one")
        assert (caught.value.status, caught.value.headers) == (429, {"Retry-After": "1"})
        rates.check("other")
        time[0] += 0.5
        rates.check("one")
        with pytest.raises(ProblemError):
            rates.check("one")

    def test_none(self):
        rates = Rates(None)
        for _ in range(10_000):
            rates.check("one")

    def test_slow_ones_wait_longer(self):
        time = [0.0]
        rates = Rates(0.1, lambda: time[0])
        rates.check("one")
        with pytest.raises(ProblemError) as caught:
            rates.check("one")
        assert caught.value.headers == {"Retry-After": "10"}

    def test_clients_are_forgotten(self):
        rates = Rates(1)
        for number in range(20_000):
            rates.check(number)
        assert len(rates._buckets) == 10_000

    def test_of_a_guard(self):
        guard = Guard(Inner(), Settings(rate=0.1))
        assert [asked(None, guard=guard)[0] for _ in range(2)] == [200, 429]
        assert asked(None, guard=guard, client=("10.0.0.2", 1))[0] == 200
        assert asked(None, guard=guard, path="/v2/health/live")[0] == 200

    def test_of_wrong_tokens(self):
        guard = Guard(Inner(), Settings(rate=0.1))
        assert [asked(None, guard=guard, headers=bearer("wrong"))[0] for _ in range(2)] == [401, 429]


class TestHeaders:
    @pytest.mark.parametrize(("size", "status"), [(900, 200), (1100, 431)])
    def test_size(self, size, status):
        assert asked(Settings(header_kib=1), headers=[(b"x-large", b"x" * size)])[0] == status


class TestBody:
    small = Settings(body_mib=0.001)

    def test_as_a_whole(self):
        inner = Inner()
        assert asked(Settings(), "POST", parts=[b"ab", b"", b"cde"], inner=inner)[2] == 5
        assert inner.seen == [{"type": "http.request", "body": b"abcde", "more_body": False}]

    def test_by_its_length(self):
        status, headers, problem = asked(self.small, "POST", headers=[(b"content-length", b"5000")], parts=[b"x", 3600])
        assert (status, headers["connection"]) == (413, "close")
        assert "0.001 MiB" in problem["detail"]

    def test_while_it_comes(self):
        inner = Inner()
        assert asked(self.small, "POST", parts=[b"x" * 600, b"x" * 600, 3600], inner=inner)[0] == 413
        assert inner.seen == []

    def test_too_slow(self):
        assert asked(Settings(body_seconds=0.05), "POST", parts=[b"x", 0.03, b"x", 0.03, b"x", 3600])[0] == 408

    def test_of_all_requests(self):
        async def hold(scope, receive, send):
            await asyncio.sleep(0.2)

        guard = Guard(Inner(hold), Settings(bodies_mib=0.001))

        async def run():
            async def one(body, sent):
                async def receive():
                    if not sent:
                        sent.append(None)
                        return {"type": "http.request", "body": body, "more_body": False}
                    return await asyncio.sleep(3600)

                async def send(message):
                    sent.append(message)

                scope = {"type": "http", "method": "POST", "path": "/v1/search", "headers": [(b"host", b"localhost")]}
                await guard(scope, receive, send)
                return sent[1]["status"]

            together = await asyncio.gather(one(b"x" * 900, []), one(b"x" * 900, []))
            return together, await one(b"x" * 900, [])

        assert asyncio.run(run()) == ([200, 503], 200)


class TestAnswers:
    def test_headers(self):
        for settings in (Settings(), Settings(open_reading=False)):  # answers of the application, and of the guard
            _, headers, _ = asked(settings)
            policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
            assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
            assert policy["script-src"] == policy["style-src"] == "'self'"
            assert "unsafe" not in headers["content-security-policy"]
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer"
            assert headers["cross-origin-resource-policy"] == "same-origin"

    def test_a_failure_tells_nothing(self, caplog):
        async def fail(scope, receive, send):
            raise RuntimeError("/secret/path")

        status, headers, problem = asked(Settings(), inner=Inner(fail))
        assert (status, headers["content-type"]) == (500, "application/problem+json")
        assert "secret" not in json.dumps(problem)
        assert "/secret/path" in caplog.text

    def test_under_v2_as_its_clients_read_it(self):
        _, _, problem = asked(Settings(open_reading=False), "POST", "/v2/models/index/infer")
        assert problem["error"] == problem["detail"]

    def test_one_that_nobody_takes_ends(self):
        async def run():
            guard = Guard(Inner(), Settings(header_seconds=0.05))

            async def receive():
                await asyncio.sleep(0)
                return {"type": "http.request", "body": b"", "more_body": False}

            async def send(message):
                await asyncio.sleep(3600)

            scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"localhost")]}
            await asyncio.wait_for(guard(scope, receive, send), 2)

        asyncio.run(run())

    @pytest.mark.parametrize(("method", "ends"), [("POST", True), ("GET", True), ("PUT", False), ("DELETE", False)])
    def test_work_for_a_client_that_has_gone_ends(self, method, ends):
        """But not a change, which may have begun."""
        finished = []

        async def work(scope, receive, send):
            await asyncio.sleep(0.1)
            finished.append(True)

        async def run():
            guard = Guard(Inner(work), Settings(write_tokens=(WRITE,)))
            given = [{"type": "http.request", "body": b"", "more_body": False}, {"type": "http.disconnect"}]

            async def receive():
                return given.pop(0) if given else await asyncio.sleep(3600)

            async def send(message):
                pass

            scope = {"type": "http", "method": method, "path": "/v1/x", "headers": [(b"host", b"localhost"), *bearer(WRITE)]}
            await guard(scope, receive, send)

        asyncio.run(run())
        assert finished == ([] if ends else [True])
