"""Files of photos, thumbnails and duplicates over HTTP."""

import asyncio
import io
import os

import numpy as np
import pytest
from PIL import Image

from rw_keras.retrieval import Index


class TestPhoto:
    def test_its_own_bytes(self, ask, shown):
        answer = ask("GET", "/v1/photos/more/03.jpg")
        assert answer.content == (shown / "photos" / "more" / "03.jpg").read_bytes()
        assert answer.headers["content-type"] == "image/jpeg"
        assert answer.headers["cache-control"] == "private, no-cache"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "last-modified" in answer.headers

    def test_what_is_known_is_not_sent_again(self, ask):
        etag = ask("GET", "/v1/photos/00.png").headers["etag"]
        for given in (etag, f'"other", W/{etag}', "*"):
            answer = ask("GET", "/v1/photos/00.png", headers={"If-None-Match": given})
            assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
        assert ask("GET", "/v1/photos/00.png", headers={"If-None-Match": '"other"'}).status_code == 200

    def test_percent_encoded(self, ask, shown):
        answer = ask("GET", "/v1/photos/more%2F03.jpg")
        assert answer.content == (shown / "photos" / "more" / "03.jpg").read_bytes()

    @pytest.mark.parametrize(
        "path",
        [
            "absent.png",
            "..%2Ftable.csv",
            "more/..%2F..%2Ftable.csv",
            "%2Fetc%2Fpasswd",
            "00.png%00",
            "%00",
            "more",
            "%FF%FE",
            "00.png/",
            "./00.png%20",
        ],
    )
    def test_only_names_of_the_index(self, ask, path):
        for suffix in ("", "/thumbnail"):
            answer = ask("GET", f"/v1/photos/{path}{suffix}")
            assert answer.status_code == 404
            assert answer.headers["content-type"] == "application/problem+json"

    def test_a_name_that_leads_out_of_the_folder(self, serve, made, shown, tmp_path):
        """An index may hold any name; what lies outside of the photos' folder is not theirs."""
        own = Index.load(made[0])
        own.add(["../table.csv"], np.ones((1, 12)), {"city": [None], "year": [None]}, [own.regions[0]])
        own.save(tmp_path / "odd", overwrite=True)

        async def run():
            async with serve(tmp_path / "odd") as client:
                assert "../table.csv" in client.served.index.names
                return [
                    (await client.get("/v1/photos/..%2Ftable.csv")).status_code,
                    (await client.get("/v1/photos/..%2Ftable.csv/thumbnail")).status_code,
                    (await client.post("/v1/search", json={"name": "../table.csv", "k": 1})).json()["hits"][0]["photo"],
                ]

        assert asyncio.run(run()) == [404, 404, None]

    def test_of_another_index(self, ask):
        assert ask("GET", "/v1/photos/00.png?index=other").status_code == 404

    def test_a_file_that_has_gone(self, serve, shown, tmp_path):
        async def run():
            async with serve() as client:
                os.rename(shown / "photos" / "08.png", tmp_path / "08.png")
                try:
                    return await client.get("/v1/photos/08.png")
                finally:
                    os.rename(tmp_path / "08.png", shown / "photos" / "08.png")

        answer = asyncio.run(run())
        assert answer.status_code == 404
        assert "is not there now" in answer.json()["detail"]


class TestThumbnail:
    def test_small(self, ask):
        answer = ask("GET", "/v1/photos/04.png/thumbnail?side=64")
        assert answer.headers["content-type"] == "image/jpeg"
        assert Image.open(io.BytesIO(answer.content)).size == (64, 43)
        assert answer.headers["cache-control"] == "private, max-age=60"
        etag = answer.headers["etag"]
        assert ask("GET", "/v1/photos/04.png/thumbnail?side=64", headers={"If-None-Match": etag}).status_code == 304
        assert ask("GET", "/v1/photos/04.png/thumbnail?side=80", headers={"If-None-Match": etag}).status_code == 200

    @pytest.mark.parametrize("side", ["63", "1025", "x", "", "1e2", "-1"])
    def test_side(self, ask, side):
        answer = ask("GET", f"/v1/photos/04.png/thumbnail?side={side}")
        assert answer.status_code == 422
        assert answer.json()["faults"][0]["field"] == "side"


class TestDuplicates:
    def test_groups(self, ask):
        answer = ask("GET", "/v1/duplicates?threshold=0.999").json()
        assert [[photo["name"] for photo in group] for group in answer["groups"]] == [["00.png", "twin.png"]]
        assert (answer["cursor"], answer["total"]) == (None, 1)
        assert answer["groups"][0][0]["size"] == [64, 48]

    def test_pages(self, ask, index):
        threshold = 0.7
        expected = index.near_duplicates(threshold, groups=True)
        assert len(expected) > 1
        found, cursor = [], ""
        while cursor is not None:
            answer = ask("GET", f"/v1/duplicates?k=1&threshold={threshold}{cursor and '&cursor=' + cursor}").json()
            (group,) = answer["groups"]
            found.append([photo["name"] for photo in group])
            assert answer["total"] == len(expected)
            cursor = answer["cursor"]
        assert found == expected

    @pytest.mark.parametrize(
        ("query", "status"),
        [
            ("threshold=0", 422),
            ("threshold=1.1", 422),
            ("threshold=nan", 422),
            ("k=0", 422),
            ("k=201", 422),
            ("cursor=nothing", 410),
            ("index=other", 404),
        ],
    )
    def test_refused(self, ask, query, status):
        assert ask("GET", f"/v1/duplicates?{query}").status_code == status

    def test_the_cursor_of_a_search_is_none_of_duplicates(self, ask, search):
        cursor = search(name="04.png", k=4).json()["cursor"]
        assert ask("GET", f"/v1/duplicates?cursor={cursor}").status_code == 410

    def test_what_takes_long_is_asked_for_again(self, serve, monkeypatch):
        import time

        real = Index.near_duplicates
        monkeypatch.setattr(Index, "near_duplicates", lambda *given, **options: (time.sleep(0.4), real(*given, **options))[1])

        async def run():
            async with serve(seconds=0.2) as client:
                first = await client.get("/v1/duplicates")
                await asyncio.sleep(0.4)
                return first, await client.get("/v1/duplicates")

        first, second = asyncio.run(run())
        assert (first.status_code, first.headers["retry-after"]) == (503, "10")
        assert second.status_code == 200
