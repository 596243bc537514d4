"""Limits, stopping, metrics, pages and the description of the application."""

import asyncio
import threading

import pytest
from small_service import READ, WRITE

from rw_keras.service import create_app
from rw_keras.service.settings import Settings, is_loopback, read_tokens


@pytest.fixture
def slow(describer):
    """A describer that waits, what lets it go on, and what says that it has begun."""
    import dataclasses

    goes_on, begun = threading.Event(), threading.Event()

    def function(pixels, regions=False):
        begun.set()
        assert goes_on.wait(20)
        return describer.function(pixels, regions)

    yield dataclasses.replace(describer, function=function), goes_on, begun
    goes_on.set()


class TestLimits:
    def test_time(self, serve, slow, draw, encoded):
        async def run():
            async with serve(describer=slow[0], seconds=0.3) as client:
                answer = await client.post("/v1/search", files={"file": encoded(draw(1))})
                slow[1].set()
                return answer, await client.post("/v1/search", json={"name": "00.png"})

        late, next_one = asyncio.run(run())
        assert (late.status_code, next_one.status_code) == (504, 200)
        assert "0.3 seconds" in late.json()["detail"]

    def test_queue(self, serve, slow, draw, encoded):
        async def run():
            async with serve(describer=slow[0], active=1, queue=2) as client:
                photo = encoded(draw(1))
                tasks = [asyncio.ensure_future(client.post("/v1/search", files={"file": photo})) for _ in range(6)]
                while client.app.state.engine.gate.length < 2 or sum(task.done() for task in tasks) < 3:
                    await asyncio.sleep(0.01)
                waiting = (await client.get("/metrics")).text
                probe = await client.get("/v2/health/live")
                slow[1].set()
                return [answer.status_code for answer in await asyncio.gather(*tasks)], waiting, probe

        statuses, waiting, probe = asyncio.run(run())
        assert sorted(statuses) == [200, 200, 200, 429, 429, 429]
        assert "rw_keras_waiting_requests 2.0" in waiting
        assert probe.status_code == 200

    def test_stopping(self, serve, slow, draw, encoded):
        """What is under way ends, what waits is told, and nothing new is begun."""

        async def run():
            async with serve(describer=slow[0], active=1, queue=5) as client:
                photo = encoded(draw(1))
                first = asyncio.ensure_future(client.post("/v1/search", files={"file": photo}))
                while not slow[2].is_set():
                    await asyncio.sleep(0.01)
                waiting = [asyncio.ensure_future(client.post("/v1/search", files={"file": photo})) for _ in range(3)]
                while client.app.state.engine.gate.length < 3:
                    await asyncio.sleep(0.01)
                client.app.state.stop()
                answers = await asyncio.gather(*waiting)
                new = await client.post("/v1/search", json={"name": "00.png"})
                slow[1].set()
                return await first, [*answers, new]

        first, others = asyncio.run(run())
        assert first.status_code == 200
        assert first.headers["connection"] == "close"
        for answer in others:
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")

    def test_what_computes_elsewhere_is_away(self, serve, describer, draw, encoded):
        import dataclasses

        def function(pixels, regions=False):
            raise OSError("http://10.0.0.9:8501 could not be asked")

        async def run():
            async with serve(describer=dataclasses.replace(describer, function=function)) as client:
                return await client.post("/v1/search", files={"file": encoded(draw(1))})

        answer = asyncio.run(run())
        assert answer.status_code == 503
        assert "10.0.0.9" not in answer.text


class TestEmbed:
    def test_descriptor(self, ask, made, draw, encoded):
        import base64

        import numpy as np

        import rw_keras

        photo = draw(33, 70, 90)
        for content in (
            {"files": {"file": encoded(photo)}, "data": {"box": "[4, 4, 60, 60]"}},
            {"json": {"image": base64.b64encode(encoded(photo)).decode(), "box": [4, 4, 60, 60]}},
        ):
            answer = ask("POST", "/v1/embed", **content).json()
            np.testing.assert_allclose(
                answer["descriptor"], rw_keras.describe(made[1], photo, (4, 4, 60, 60), max_side=80), atol=2e-6
            )
            assert answer["recipe"]["max_side"] == 80

    def test_one_photo(self, ask, encoded, draw):
        assert ask("POST", "/v1/embed", json={}).status_code == 422
        assert ask("POST", "/v1/embed", files=[("file", encoded(draw(1)))] * 2).status_code == 422


class TestIndexes:
    def test_about(self, ask, made, index):
        answer = ask("GET", "/v1/indexes").json()
        (about,) = answer["indexes"]
        assert answer["limits"] == {"body_bytes": 32 << 20, "megapixels": 100, "images": 8}
        assert (about["name"], about["photos"], about["dimensions"], about["max_k"]) == ("index", 16, 12, 200)
        assert about["recipe"] == index.recipe
        assert about["metadata"] == {"city": "text", "year": "integer"}
        assert about["has_regions"] and about["has_photos"] and about["can_write"]
        assert about["rerank"] is about["expand"] is None

    def test_of_different_names(self, made, describer, tmp_path):
        from rw_keras.service.served import ServedIndex

        one = ServedIndex("a", made[0], describer, cache=tmp_path)
        for indexes in ([], [one, one]):
            with pytest.raises(ValueError, match="different names"):
                create_app(indexes)


class TestPages:
    @pytest.mark.parametrize(
        ("path", "kind"),
        [
            ("/docs", "text/html"),
            ("/docs/start.js", "text/javascript"),
            ("/docs/swagger-ui.css", "text/css"),
            ("/docs/swagger-ui-bundle.js", "text/javascript"),
            ("/openapi.json", "application/json"),
            ("/metrics", "text/plain"),
        ],
    )
    def test_files(self, ask, path, kind):
        answer = ask("GET", path, {"open_reading": False})
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(kind)
        assert "content-security-policy" in answer.headers

    def test_docs_are_within_the_policy(self, ask):
        """No code and no style in the page, and nothing from another host."""
        import html5lib

        tree = html5lib.parse(ask("GET", "/docs").text, namespaceHTMLElements=False)
        for script in tree.iter("script"):
            assert script.get("src").startswith("/docs/")
            assert not (script.text or "").strip()
        for element in tree.iter():
            assert element.tag != "style"
            assert not {name for name in element.attrib if name == "style" or name.startswith("on")}

    @pytest.mark.parametrize("path", ["/docs/index.html", "/docs/..%2Fstart.js", "/nothing", "/v1/nothing", "/page/%2e%2e/app.py"])
    def test_nothing_else(self, ask, path):
        answer = ask("GET", path)
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")

    def test_method(self, ask):
        answer = ask("DELETE", "/v1/search", headers={"Authorization": f"Bearer {WRITE}"})
        assert (answer.status_code, answer.headers["content-type"]) == (405, "application/problem+json")
        assert answer.headers["allow"] == "POST"
        assert ask("OPTIONS", "/v1/photos/a.png", headers=answer.request.headers).headers["allow"] == "DELETE, GET, PUT"
        assert ask("OPTIONS", "/v1/photos/a/thumbnail", headers=answer.request.headers).headers["allow"] == "GET"


class TestDescription:
    @pytest.mark.slow
    def test_every_error_has_a_schema(self, ask):
        found = ask("GET", "/openapi.json").json()
        routes = {
            (method, path): operation["responses"]
            for path, methods in found["paths"].items()
            for method, operation in methods.items()
        }
        assert len(routes) == 15
        for answers in routes.values():
            assert {"400", "413", "429", "503"} <= answers.keys()
            for status, answer in answers.items():
                if status >= "4":
                    assert answer["content"] == {
                        "application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}
                    }
        assert "ProblemDetails" in found["components"]["schemas"]

    def test_every_reference_leads_somewhere(self, ask):
        found = ask("GET", "/openapi.json").json()

        def references(node):
            if isinstance(node, dict):
                yield from ([node["$ref"]] if "$ref" in node else [])
                node = list(node.values())
            if isinstance(node, list):
                for part in node:
                    yield from references(part)

        for reference in set(references(found)):
            place = found
            for part in reference.removeprefix("#/").split("/"):
                place = place[part]

    def test_tokens(self, ask):
        paths = ask("GET", "/openapi.json").json()["paths"]
        assert paths["/v1/photos/{name}"]["put"]["security"] == [{"token": []}]
        assert {} in paths["/v1/search"]["post"]["security"]
        assert "security" not in paths["/metrics"]["get"]


class TestCors:
    def test_off_by_default(self, ask):
        answer = ask("GET", "/v1/indexes", headers={"Origin": "https://a.example"})
        assert "access-control-allow-origin" not in answer.headers

    def test_of_an_origin(self, ask):
        settings = {"allowed_origins": ("https://a.example",)}
        answer = ask("GET", "/v1/indexes", settings, headers={"Origin": "https://a.example"})
        assert answer.headers["access-control-allow-origin"] == "https://a.example"
        assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
        other = ask("GET", "/v1/indexes", settings, headers={"Origin": "https://b.example"})
        assert "access-control-allow-origin" not in other.headers
        asked = {
            "Origin": "https://a.example",
            "Access-Control-Request-Method": "PUT",
            "Access-Control-Request-Headers": "Authorization",
        }
        preflight = ask("OPTIONS", "/v1/photos/a.jpg", settings, headers=asked)
        assert preflight.status_code == 200


class TestMetrics:
    def test_measures(self, serve, draw, encoded):
        async def run():
            async with serve(read_tokens=(READ,), open_reading=False) as client:
                own = {"Authorization": f"Bearer {READ}"}
                await client.post("/v1/search", files={"file": encoded(draw(1))}, headers=own)
                await client.post("/v1/search", files={"file": b"broken"}, headers=own)
                await client.post("/v1/search", json={})
                await client.get("/nothing")
                await client.get("/v1/photos/00.png", headers=own)
                await asyncio.sleep(0.1)
                return (await client.get("/metrics")).text

        lines = dict(line.rsplit(" ", 1) for line in asyncio.run(run()).splitlines() if not line.startswith("#"))
        for stage in ("queue", "decode", "network", "search", "whole"):
            assert lines[f'rw_keras_stage_seconds_count{{stage="{stage}"}}'] == "1.0"
        for method, route, status in (
            ("POST", "/v1/search", 200),
            ("POST", "/v1/search", 422),
            ("POST", "other", 401),
            ("GET", "other", 404),
            ("GET", "/v1/photos/{name}", 200),
        ):
            assert lines[f'rw_keras_requests_total{{method="{method}",route="{route}",status="{status}"}}'] == "1.0"
        assert lines['rw_keras_photos{index="index"}'] == "16.0"
        assert lines["rw_keras_waiting_requests"] == "0.0"


class TestSettings:
    @pytest.mark.parametrize("field", ["active", "queue", "seconds", "max_k", "body_mib", "rate"])
    @pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "8", True])
    def test_limits_are_numbers_above_0(self, field, value):
        with pytest.raises(ValueError, match=field):
            Settings(**{field: value})

    def test_whole_ones(self):
        with pytest.raises(ValueError, match="a whole number above 0, but got"):
            Settings(active=1.5)
        assert Settings(rate=None).rate is None

    @pytest.mark.parametrize("token", ["short", "x" * 15, "with a space in it, long", "ümlauts-are-no-ascii"])
    def test_tokens(self, token):
        with pytest.raises(ValueError, match="16 or more visible ASCII") as caught:
            Settings(read_tokens=(token,))
        assert token not in str(caught.value)

    @pytest.mark.parametrize(("host", "is_own"), [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("[::1]", True)])
    def test_loopback(self, host, is_own):
        assert is_loopback(host)

    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org", "", "127.0.0.1.example"])
    def test_no_loopback(self, host):
        assert not is_loopback(host)

    def test_a_file_of_tokens(self, tmp_path):
        path = tmp_path / "tokens"
        path.write_text(f"# who\n\nread {READ}\nwrite {WRITE}\nread another-one\n")
        given = {"RW_KERAS_READ_TOKEN": "of-the-environment", "RW_KERAS_WRITE_TOKEN": ""}
        assert read_tokens(path, given) == (("of-the-environment", READ, "another-one"), (WRITE,))
        assert read_tokens(None, {}) == ((), ())
        path.write_text(f"read {READ}\nadmin {WRITE}\n")
        with pytest.raises(ValueError, match="Line 2") as caught:
            read_tokens(path, {})
        assert WRITE not in str(caught.value)
