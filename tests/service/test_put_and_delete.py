"""`PUT` and `DELETE /v1/photos/{name}`, and the client."""

import asyncio
import errno
import os
import shutil

import filelock
import numpy as np
import pytest
from small_service import READ, WRITE, pairs

from rw_keras.retrieval import Index, store

TOKEN = {"Authorization": f"Bearer {WRITE}"}


@pytest.fixture
def own(shown, made, tmp_path):
    """A copy of the photos and of their index, to be changed."""
    shutil.copytree(shown, tmp_path / "own")
    return tmp_path / "own"


@pytest.fixture
def changing(serve, own):
    """A function (coroutine function of a client) -> what it gives, with an application that serves the copy."""

    def run(function, **settings):
        async def running():
            async with serve(own / "index", photos=own / "photos", **settings) as client:
                return await function(client)

        return asyncio.run(running())

    return run


class TestPut:
    def test_a_new_one(self, changing, own, made, draw, encoded):
        photo = encoded(draw(60, 70, 50))

        async def run(client):
            put = await client.put("/v1/photos/new/%C3%A4.png", content=photo, headers=TOKEN)
            found = (await client.post("/v1/search", files={"file": photo}, data={"k": "2"})).json()
            return put, found, (await client.get("/v1/photos/new/%C3%A4.png")).content

        put, found, content = changing(run)
        assert (put.status_code, put.json()) == (201, {"name": "new/ä.png", "replaced": False})
        assert pairs(found)[0] == ("new/ä.png", pytest.approx(1, abs=1e-5))
        assert content == photo == (own / "photos" / "new" / "ä.png").read_bytes()
        index = Index.load(own / "index")
        np.testing.assert_allclose(index.search_photo(made[1], own / "photos" / "new" / "ä.png", k=1)[0][1], 1, atol=1e-5)

    def test_one_that_takes_anothers_place(self, changing, draw, encoded):
        photo = encoded(draw(61))

        async def run(client):
            before = await client.get("/v1/photos/00.png")
            put = await client.put("/v1/photos/00.png", content=photo, headers={**TOKEN, "Content-Type": "image/png"})
            after = await client.get("/v1/photos/00.png", headers={"If-None-Match": before.headers["etag"]})
            return put, after

        put, after = changing(run)
        assert (put.status_code, put.json()["replaced"], after.content) == (200, True, photo)

    def test_many_at_once(self, changing, own, draw, encoded):
        async def run(client):
            photos = {f"many/{number}.png": encoded(draw(100 + number)) for number in range(6)}
            asked = [client.put(f"/v1/photos/{name}", content=photo, headers=TOKEN) for name, photo in photos.items()]
            return [answer.status_code for answer in await asyncio.gather(*asked)]

        assert changing(run) == [201] * 6
        assert len(Index.load(own / "index")) == 22

    @pytest.mark.parametrize(
        ("path", "content", "headers", "status"),
        [
            ("a.png", b"", {}, 422),
            ("a.png", b"no photo", {}, 422),
            ("a.png", b"GIF89a", {}, 422),
            ("a.png", b"x", {"Content-Type": "text/plain"}, 415),
            ("a.png", b"x", {"Content-Type": "multipart/form-data; boundary=b"}, 415),
            ("..%2Fa.png", None, {}, 422),
            ("%2Ftmp%2Fa.png", None, {}, 422),
            ("a%00.png", None, {}, 404),
            ("a.png?index=other", None, {}, 404),
        ],
    )
    def test_refused(self, changing, own, draw, encoded, path, content, headers, status):
        content = encoded(draw(1)) if content is None else content
        before = sorted(path.name for path in own.rglob("*"))

        async def run(client):
            return await client.put(f"/v1/photos/{path}", content=content, headers={**TOKEN, **headers})

        answer = changing(run)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
        assert str(own) not in answer.text
        assert sorted(path.name for path in own.rglob("*")) == before

    def test_tokens(self, changing):
        async def run(client):
            found = []
            for headers in ({}, {"Authorization": "Bearer unknown"}, {"Authorization": f"Bearer {READ}"}):
                found.append((await client.put("/v1/photos/a.png", content=b"x", headers=headers)).status_code)
                found.append((await client.delete("/v1/photos/00.png", headers=headers)).status_code)
            return found

        assert changing(run, read_tokens=(READ,)) == [401, 401, 401, 401, 403, 403]

    def test_pixels(self, changing, draw, encoded):
        async def run(client):
            return await client.put("/v1/photos/a.png", content=encoded(draw(1, 100, 101)), headers=TOKEN)

        answer = changing(run, megapixels=0.01)
        assert answer.status_code == 422
        assert "a.png is 100 x 101 pixels" in answer.json()["detail"]

    @pytest.mark.parametrize(("code", "status"), [(errno.EROFS, 403), (errno.EACCES, 403), (errno.ENOSPC, 503), (errno.EIO, 503)])
    def test_a_disk_that_refuses(self, changing, own, draw, encoded, monkeypatch, code, status):
        def refused(lock, **options):
            raise OSError(code, os.strerror(code), str(own / "index" / store.LOCK))

        async def run(client):
            monkeypatch.setattr(filelock.FileLock, "acquire", refused)
            put = await client.put("/v1/photos/a.png", content=encoded(draw(1)), headers=TOKEN)
            return put, await client.delete("/v1/photos/00.png", headers=TOKEN)

        for answer in changing(run):
            assert answer.status_code == status
            assert ("retry-after" in answer.headers) == (status == 503)
            assert str(own) not in answer.text

    @pytest.mark.usefixtures("impatient")
    def test_while_another_process_writes(self, changing, own, draw, encoded):
        async def run(client):
            with filelock.FileLock(own / "index" / store.LOCK):
                put = await client.put("/v1/photos/a.png", content=encoded(draw(1)), headers=TOKEN)
                delete = await client.delete("/v1/photos/00.png", headers=TOKEN)
            return put, delete, await client.put("/v1/photos/a.png", content=encoded(draw(1)), headers=TOKEN)

        put, delete, later = changing(run)
        for answer in (put, delete):
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert later.status_code == 201


class TestDelete:
    def test_it_leaves_the_index_for_later_updates_as_well(self, changing, own, made):
        import rw_keras

        async def run(client):
            deleted = await client.delete("/v1/photos/more/03.jpg", headers=TOKEN)
            names = [hit["name"] for hit in (await client.post("/v1/search", json={"name": "00.png", "k": 50})).json()["hits"]]
            again = await client.delete("/v1/photos/more/03.jpg", headers=TOKEN)
            return deleted, names, again, await client.get("/v1/photos/more/03.jpg")

        deleted, names, again, photo = changing(run)
        assert (deleted.status_code, deleted.content) == (204, b"")
        assert len(names) == 15
        assert "more/03.jpg" not in names
        assert again.status_code == photo.status_code == 404
        assert (own / "photos" / "more" / "03.jpg").is_file()
        rw_keras.extract(made[1], own / "photos", own / "index", progress=False, runtime="tensorflow")
        assert "more/03.jpg" not in Index.load(own / "index").names

    def test_and_comes_back_when_it_is_put(self, changing, own):
        content = (own / "photos" / "00.png").read_bytes()

        async def run(client):
            await client.delete("/v1/photos/00.png", headers=TOKEN)
            return await client.put("/v1/photos/00.png", content=content, headers=TOKEN)

        assert changing(run).status_code == 201
        assert "00.png" in Index.load(own / "index").names
