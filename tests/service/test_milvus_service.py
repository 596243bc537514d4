"""The service over an index in Milvus: what it answers over the same index in a folder; and 503 while Milvus is away."""

import asyncio
import shutil

import pytest
from small_service import WRITE

from rw_keras.retrieval import Index
from rw_keras.retrieval.milvus import MilvusIndex
from rw_keras.retrieval.milvus.connection import Connection
from rw_keras.retrieval.milvus.transfer import push
from rw_keras.service.photo_files import PhotoFiles
from rw_keras.service.tf_serving import TFServing

pytestmark = pytest.mark.milvus
TOKEN = {"Authorization": f"Bearer {WRITE}"}


def plain(answer):
    """An answer without what differs from one service to another."""
    return {key: value for key, value in answer.items() if key not in ("took", "generation", "cursor")}


async def searches(client, photo):
    """Answers of all kinds of searches."""
    found = []
    for asked in (
        {"name": "00.png", "k": 5},
        {"name": "00.png", "k": 5, "explain": True, "rerank": 6},
        {"name": "more/03.jpg", "within": "more/", "k": 3},
        {"name": "01.png", "within": ["city=Oxford", "year>=2003"], "expand": 3, "alpha": 2.0},
        {"positives": {"names": ["01.png", "02.png"]}, "negatives": {"names": ["04.png"]}},
        {"name": "not there"},
    ):
        answer = await client.post("/v1/search", json=asked)
        found.append((answer.status_code, plain(answer.json())))
    first = (await client.post("/v1/search", files={"file": photo}, data={"k": "4"})).json()
    second = (await client.post("/v1/search", json={"cursor": first["cursor"], "k": 4})).json()
    found += [plain(first), plain(second), (await client.get("/v1/duplicates?threshold=0.99")).json()["groups"]]
    return found


@pytest.mark.on_server
def test_it_answers_as_over_a_folder(serve, made, shown, milvus_place):
    push(made[0], milvus_place)
    photo = (shown / "photos" / "05.png").read_bytes()

    async def run():
        found = []
        for place in (made[0], milvus_place):
            async with serve(place, photos=shown / "photos") as client:
                found.append(await searches(client, photo))
                about = (await client.get("/v1/indexes")).json()["indexes"][0]
                found[-1].append({key: value for key, value in about.items() if key != "generation"})
        return found

    one, other = asyncio.run(run())
    assert one == other and one[0][0] == 200 and one[5][0] == 404


def test_photos_are_put_and_deleted(serve, made, shown, milvus_place, tmp_path, draw, encoded):
    push(made[0], milvus_place)
    shutil.copytree(shown / "photos", tmp_path / "photos")

    async def run():
        async with serve(milvus_place, photos=tmp_path / "photos") as client:
            photo = encoded(draw(60, 70, 50))
            put = await client.put("/v1/photos/new.png", content=photo, headers=TOKEN)
            found = (await client.post("/v1/search", files={"file": photo}, data={"k": "1"})).json()
            gone = await client.delete("/v1/photos/new.png", headers=TOKEN)
            left = (await client.post("/v1/search", files={"file": photo}, data={"k": "1"})).json()
            again = await client.delete("/v1/photos/new.png", headers=TOKEN)
            return put, found["hits"][0], gone, left["hits"][0], again

    put, found, gone, left, again = asyncio.run(run())
    assert (put.status_code, gone.status_code, again.status_code) == (201, 204, 404)
    assert found["name"] == "new.png" and left["name"] != "new.png" and found["cosine"] == pytest.approx(1, abs=1e-5)


def test_the_regions_of_all_hits_are_asked_for_together(serve, made, shown, milvus_place, monkeypatch):
    push(made[0], milvus_place)
    asked, find = [], Connection.find

    def counted(self, collection, *arguments):
        asked.append(collection)
        return find(self, collection, *arguments)

    async def run():
        async with serve(milvus_place, photos=shown / "photos") as client:
            monkeypatch.setattr(Connection, "find", counted)
            return (await client.post("/v1/search", json={"name": "00.png", "k": 5, "explain": True, "rerank": 0})).json()

    hits = asyncio.run(run())["hits"]
    assert len(hits) == 5 and all(hit["regions"] for hit in hits[:1])
    assert sum(collection.endswith("_regions") for collection in asked) <= 2  # of the query, and of the hits


def test_a_model_elsewhere_is_compared_with_what_is_left_of_an_index(made, shown, milvus_place, tmp_path):
    push(made[0], milvus_place)
    serving, photos = TFServing("http://127.0.0.1:1/v1/models/none"), PhotoFiles(shown / "photos", tmp_path)
    with Index.open(milvus_place) as index:
        names = list(index.names)
        index.remove(names[:-3])  # so no id is below the number of photos
        assert serving.compare(made[1], index, photos) is None
        index.update(names[-3:], index.descriptors[index.positions(names[-3:])][::-1], index.regions.at(range(3)))
        with pytest.raises(ValueError, match="is another model than the one that made the index"):
            serving.compare(made[1], index, photos)
    assert serving.compare(made[1], Index.load(made[0]), photos) is None


@pytest.mark.on_server
def test_milvus_is_away(serve, made, shown, milvus_server, milvus_place, monkeypatch):
    if ".db" in milvus_place:
        pytest.skip("milvus-lite runs in this process, and is away with it")
    push(made[0], milvus_place)
    monkeypatch.setattr("rw_keras.retrieval.milvus.index.TIMEOUT", 3.0)
    monkeypatch.setattr("rw_keras.retrieval.milvus.connection.TIMEOUT", 3.0)

    async def run():
        asked = {"json": {"name": "00.png", "k": 3}}
        async with serve(milvus_place, photos=shown / "photos") as client:
            client.served.index._connection.timeout = 3.0
            before = await client.post("/v1/search", **asked)
            milvus_server.tell("freeze")
            try:
                away = await client.post("/v1/search", **asked)
                for _ in range(40):
                    ready = await client.get("/v2/health/ready")
                    if ready.status_code != 200:
                        break
                    await asyncio.sleep(0.25)
            finally:
                milvus_server.tell("thaw")
            for _ in range(60):
                after, good = await client.post("/v1/search", **asked), await client.get("/v2/health/ready")
                if after.status_code == good.status_code == 200:
                    break
                await asyncio.sleep(0.5)
            return before, away, ready, after, good

    before, away, ready, after, good = asyncio.run(run())
    assert (before.status_code, away.status_code, ready.status_code) == (200, 503, 503), (away.text, ready.text)
    assert "Retry-After" in away.headers and "cannot be asked now" in away.json()["detail"]
    assert plain(after.json()) == plain(before.json()) and good.json() == {"ready": True, "stale": []}


def test_a_photo_that_leaves_in_a_search(serve, made, shown, milvus_place, monkeypatch):
    push(made[0], milvus_place)
    nearest = MilvusIndex.nearest_batch

    def then_gone(self, *arguments, **options):
        found = nearest(self, *arguments, **options)
        with Index.open(milvus_place) as other:
            other.remove([name for name in ["more/03.jpg"] if name in other.names])
        return found

    async def run():
        asked = {"json": {"name": "00.png", "k": 3, "expand": 50}}
        async with serve(milvus_place, photos=shown / "photos") as client:
            with monkeypatch.context() as patch:
                patch.setattr(MilvusIndex, "nearest_batch", then_gone)
                meanwhile = await client.post("/v1/search", **asked)
            return meanwhile, await client.post("/v1/search", **asked)

    meanwhile, after = asyncio.run(run())
    assert meanwhile.status_code == 503 and "Retry-After" in meanwhile.headers and after.status_code == 200
