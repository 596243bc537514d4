"""Paging: one ranking, whatever becomes of the index meanwhile."""

import asyncio
import os
import time

import numpy as np
import pytest
from small_service import pairs

from rw_keras.model.photo_regions import PhotoRegions
from rw_keras.retrieval import Index
from rw_keras.service.problems import ProblemError
from rw_keras.service.rankings import DUPLICATES, SEARCH, Ranking, Rankings, cursor


@pytest.fixture
def kept(tmp_path):
    return Rankings(tmp_path, 600, 1 << 20)


class TestRanking:
    def test_is_found_again_as_it_was(self):
        names = ["a.jpg", "ä/b.jpg", os.fsdecode(b"\xff.jpg"), "two\nlines"]
        scores = np.array([1, np.nan, 0.5, np.nan], "float32")
        regions = PhotoRegions(np.ones((2, 3), "float32"), np.zeros((2, 4), "float32"))
        made = Ranking("index", 7, names, np.arange(4, dtype="float32"), scores, "score", regions)
        found = Ranking.from_bytes(made.to_bytes())
        assert (found.index, found.generation, found.names, found.measure) == ("index", 7, names, "score")
        np.testing.assert_array_equal(found.cosines, made.cosines)
        np.testing.assert_array_equal(found.scores, made.scores)
        np.testing.assert_array_equal(found.regions.vectors, regions.vectors)

    def test_of_nothing(self):
        empty = np.zeros(0, "float32")
        found = Ranking.from_bytes(Ranking("index", None, [], empty, empty).to_bytes())
        assert (found.names, len(found.cosines), found.regions) == ([], 0, None)


class TestRankings:
    def test_kept_and_found(self, kept):
        token = kept.keep(b"content", SEARCH)
        assert kept.at(cursor(token, 5, 10), SEARCH) == (token, 5, b"content")
        assert cursor(token, 10, 10) is None

    @pytest.mark.parametrize("given", ["", ".", "a.b", "../x.0", "s" * 20 + ".-1", "s" * 20 + ".0", "\udcff" * 20, "/etc/passwd.0"])
    def test_unknown(self, kept, given):
        with pytest.raises(ProblemError) as caught:
            kept.at(given, SEARCH)
        assert caught.value.status == 410

    def test_of_another_kind(self, kept):
        token = kept.keep(b"content", DUPLICATES)
        with pytest.raises(ProblemError):
            kept.at(f"{token}.0", SEARCH)

    def test_expires_after_its_last_use(self, kept, tmp_path):
        token = kept.keep(b"content", SEARCH)
        earlier = time.time() - 599
        os.utime(tmp_path / token, (earlier, earlier))
        assert kept.find(token) == b"content"
        assert time.time() - (tmp_path / token).stat().st_mtime < 5
        earlier = time.time() - 601
        os.utime(tmp_path / token, (earlier, earlier))
        assert kept.find(token) is None

    def test_the_oldest_go(self, tmp_path):
        kept = Rankings(tmp_path, 600, 10_000)
        tokens = [kept.keep(bytes(1000), SEARCH) for _ in range(49)]
        there = [token for token in tokens if kept.find(token)]
        assert len(list(tmp_path.iterdir())) == len(there) <= 10 + 16
        assert tokens[-1] in there
        assert tokens[0] not in there


class TestPaging:
    def test_pages_are_the_ranking(self, search, index):
        whole = search(name="04.png", k=16).json()
        assert whole["cursor"] is None
        answer = search(name="04.png", k=5).json()
        found, ranks = pairs(answer), [hit["rank"] for hit in answer["hits"]]
        while answer["cursor"] is not None:
            answer = search(cursor=answer["cursor"], k=4).json()
            assert answer["total"] == 16
            found += pairs(answer)
            ranks += [hit["rank"] for hit in answer["hits"]]
        assert found == pairs(whole)
        assert ranks == list(range(1, 17))

    def test_scores_and_regions_go_on(self, search):
        fields = {"name": "04.png", "rerank": 6, "explain": True}
        whole = search(k=8, **fields).json()
        first = search(k=4, **fields).json()
        second = search(cursor=first["cursor"], k=4, explain=True).json()
        assert [hit | {"rank": None} for hit in second["hits"]] == [hit | {"rank": None} for hit in whole["hits"][4:]]
        assert second["measure"] == "score"

    def test_explained_later_only_as_first(self, search):
        first = search(name="04.png", k=4).json()
        answer = search(cursor=first["cursor"], explain=True)
        assert answer.status_code == 422
        assert "first page" in answer.json()["detail"]

    def test_of_another_index(self, search):
        first = search(name="04.png", k=4).json()
        assert search(cursor=first["cursor"], index="other").status_code == 422

    @pytest.mark.slow
    def test_stays_while_the_index_changes(self, serve, made, tmp_path):
        Index.load(made[0]).save(tmp_path / "changing")

        async def run():
            async with serve(tmp_path / "changing") as client:

                async def search(**fields):
                    return (await client.post("/v1/search", json=fields)).json()

                whole = await search(name="04.png", k=16)
                first = await search(name="04.png", k=5)
                gone = whole["hits"][6]["name"]
                changed = Index.load(tmp_path / "changing")
                changed.remove([gone])
                vectors = np.tile(changed.descriptors[changed.position("04.png")], (1, 1))
                regions = [changed.regions[0]]
                changed.add(["new.png"], vectors, {"city": ["X"], "year": [1]}, regions)
                changed.save(tmp_path / "changing")
                while client.served.state.about["generation"] == first["generation"]:
                    await asyncio.sleep(0.05)
                second = await search(cursor=first["cursor"], k=16)
                anew = await search(name="04.png", k=16)
                return whole, first, gone, second, anew

        whole, first, gone, second, anew = asyncio.run(run())
        expected = [hit for hit in pairs(whole) if hit[0] != gone]
        assert pairs(first) + pairs(second) == expected
        assert "new.png" in dict(pairs(anew))
        assert first["generation"] == second["generation"] != anew["generation"]

    def test_no_more_than_the_bound(self, search):
        answer = search(settings={"ranking": 7}, name="04.png", k=5).json()
        assert (answer["total"], answer["cursor"] is None) == (7, False)
