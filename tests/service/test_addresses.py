"""The service asks no address that a request names, and none that an index was made of, for a photo."""

import asyncio
import json
import shutil
import urllib.parse

import pytest
from servers import web_server
from small_service import WRITE

from rw_keras import storage
from rw_keras.photos import remote
from rw_keras.retrieval import store
from rw_keras.retrieval.writer import Writer

TOKEN = {"Authorization": f"Bearer {WRITE}"}


@pytest.fixture
def asked(monkeypatch):
    """What was asked of storage; it is there to be asked."""
    calls = []
    for module, name in ((storage, "filesystem"), (remote, "opened"), (remote, "photos_at")):
        monkeypatch.setattr(module, name, lambda *arguments, name=name: calls.append((name, arguments)))
    return calls


def requests_naming(url):
    """(method, path, content) of requests in which every name and field holds a URL."""
    name = urllib.parse.quote(url, safe="")
    for path in ("", "/thumbnail", "/similar", "/duplicates"):
        yield "GET", f"/v1/photos/{name}{path}", {}
        yield "GET", f"/v1/photos/{url}{path}", {}
    yield "PUT", f"/v1/photos/{name}", {"content": url.encode(), "headers": TOKEN}
    yield "DELETE", f"/v1/photos/{name}", {"headers": TOKEN}
    fields = {"name": url, "url": url, "photo": url, "file": url, "image": url, "within": url, "index": url}
    yield "POST", "/v1/search", {"data": fields}
    yield "POST", "/v1/search", {"json": fields}
    yield "POST", "/v1/search", {"files": {"file": (url, url.encode())}, "data": {"within": url}}
    yield "POST", "/v1/search", {"content": url.encode()}
    yield "GET", "/v1/search?" + urllib.parse.urlencode(fields), {}
    yield "POST", "/v1/describe", {"files": {"file": (url, url.encode())}}
    yield "POST", "/v1/describe", {"json": fields}
    yield "GET", "/v1/photos?" + urllib.parse.urlencode(fields), {}
    tensor = {"name": "image_bytes", "shape": [1], "datatype": "BYTES", "data": [url]}
    yield "POST", "/v2/models/index/infer", {"content": json.dumps({"inputs": [tensor]})}


@pytest.mark.parametrize("scheme", ["http", "s3", "file"])
def test_no_request_makes_the_service_ask_an_address(serve, made, shown, tmp_path, asked, scheme):
    with web_server(shown / "photos") as (url, seen):
        named = {"http": f"{url}/00.png", "s3": "s3://bucket/00.png", "file": f"file://{shown}/photos/00.png"}[scheme]
        folder = tmp_path / "index"
        shutil.copytree(made[0], folder)
        about = store.about(folder)
        with Writer(folder, about["recipe"], about["dimensions"]) as writer:
            writer.set("source", named.rpartition("/")[0])  # as of an index of photos in storage
            writer.commit()

        async def run():
            async with serve(folder, raises=True) as client:
                answers = [(await client.request(*request[:2], **request[2])).status_code for request in requests_naming(named)]
                shown_now = await client.get("/v1/photos/00.png/thumbnail")
                put = await client.put("/v1/photos/new.png", content=b"x", headers=TOKEN)
                found = await client.post("/v1/search", files={"file": (shown / "photos" / "00.png").read_bytes()}, data={"k": "1"})
                return answers, shown_now.status_code, put.status_code, found.json()

        answers, thumbnail, put, found = asyncio.run(run())
        assert all(400 <= status < 500 or status in (200, 501, 503) for status in answers), answers
        assert thumbnail == 404 and put in (400, 403, 404, 409, 422)
        assert found["hits"][0]["name"] in ("00.png", "twin.png")
        assert asked == [] and seen == []
