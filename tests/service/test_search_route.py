"""`POST /v1/search` answers what `Index.search_photo` gives in process."""

import asyncio
import base64
import json
import os

import numpy as np
import pytest
from small_service import SHAPES, pairs

from rw_keras.model.photo_regions import PhotoRegions
from rw_keras.retrieval import Index
from rw_keras.retrieval.rerank import Rerank


@pytest.fixture(scope="module")
def pixels(draw):
    return draw(40, 90, 70)


@pytest.fixture(scope="module")
def photo(pixels, encoded):
    return encoded(pixels)


def close(found, expected):
    def in_order(hits):  # of two copies of one photo either may come first
        return [name for name, _ in sorted(hits, key=lambda hit: (-round(hit[1], 4), hit[0]))]

    assert in_order(found) == in_order(expected)
    np.testing.assert_allclose([value for _, value in found], [value for _, value in expected], atol=2e-6)


def values(answer):
    """(name, what the hit stands by): its score where it was re-ranked, else its cosine."""
    return [(hit["name"], hit["cosine"] if hit["score"] is None else hit["score"]) for hit in answer["hits"]]


class TestEqualsSearchPhoto:
    @pytest.mark.parametrize(
        "fields",
        [
            {},
            {"k": 3},
            {"expand": 4},
            {"expand": 4, "alpha": 3.0},
            {"rerank": 5},
            {"rerank": 5, "smooth": 3},
            {"rerank": 5, "expand": 3},
            {"within": "more/"},
            {"within": "0", "k": 2},
            {"min_score": 0.2},
            {"rerank": 5, "min_score": 0.5},
            {"box": [8.0, 4.0, 60.0, 50.0]},
            {"box": [8, 4, 60, 50], "rerank": 6, "expand": 2, "within": "0", "min_score": 0.1, "k": 7},
            {"orientations": 1},
            {"orientations": 4},
            {"orientations": 4, "rerank": 5, "smooth": 3, "box": [8, 4, 60, 50]},
            {"orientations": 4, "rerank": 5, "expand": 3, "within": "0"},
        ],
        ids=str,
    )
    def test_with_fields(self, search, index, made, photo, pixels, fields):
        answer = search(photo, **fields)
        assert answer.status_code == 200, answer.text
        options = {
            field: value for field, value in fields.items() if field in ("expand", "within", "min_score", "alpha", "orientations")
        }
        if "rerank" in fields:
            options["rerank"] = Rerank(fields["rerank"], fields.get("smooth"))
        close(values(answer.json()), index.search_photo(made[1], pixels, fields.get("box"), fields.get("k", 20), **options))

    def test_conditions_on_metadata(self, search, index, made, photo, pixels):
        answer = search(photo, within=["city=Oxford", "year>=2005"]).json()
        expected = index.search_photo(made[1], pixels, k=20, within={"city": "Oxford", "year": lambda year: (year or 0) >= 2005})
        close(pairs(answer), expected)
        assert {hit["metadata"]["city"] for hit in answer["hits"]} == {"Oxford"}
        assert answer["total"] == len(expected) == 5

    def test_json_and_form_are_alike(self, search, photo):
        fields = {"k": 4, "box": [1, 2, 80, 60], "expand": 2}
        as_json = search(image=base64.b64encode(photo).decode(), **fields).json()
        as_form = search(photo, **fields).json()
        assert pairs(as_json) == pairs(as_form)

    def test_cosines_stand_beside_scores(self, search, index, made, photo, pixels):
        answer = search(photo, rerank=5).json()
        assert answer["measure"] == "score"
        assert [hit["score"] is None for hit in answer["hits"]] == [False] * 5 + [True] * 11
        plain = dict(index.search_photo(made[1], pixels, k=16, rerank=None))
        for hit in answer["hits"]:
            assert hit["cosine"] == pytest.approx(plain[hit["name"]], abs=2e-6)
        assert search(photo, rerank=5, expand=3).json()["measure"] == "cosine"

    def test_index_defaults(self, serve, index, made, photo, pixels, tmp_path):
        own = Index.load(made[0])
        own.search_defaults = {"rerank": 4, "smooth": 3, "expand": 3, "alpha": 1}
        own.save(tmp_path / "defaults", overwrite=True)

        async def run(**fields):
            async with serve(tmp_path / "defaults") as client:
                words = {field: json.dumps(value) for field, value in fields.items()}
                return (await client.post("/v1/search", data=words, files={"file": photo})).json()

        close(values(asyncio.run(run())), index.search_photo(made[1], pixels, k=20, rerank=Rerank(4, 3), expand=3, alpha=1))
        close(values(asyncio.run(run(expand=1))), index.search_photo(made[1], pixels, k=20, rerank=Rerank(4, 3)))
        close(values(asyncio.run(run(expand=1, rerank=0))), index.search_photo(made[1], pixels, k=20, rerank=None))
        close(values(asyncio.run(run(expand=1, rerank=6))), index.search_photo(made[1], pixels, k=20, rerank=Rerank(6, 3)))
        close(values(asyncio.run(run(expand=1, smooth=0))), index.search_photo(made[1], pixels, k=20, rerank=Rerank(4)))

    def test_many_at_once(self, serve, index, made, draw, encoded):
        """Queries of equal sizes go through the network, and the search, together."""
        photos = [draw(seed, *SHAPES[seed % 3]) for seed in range(50, 62)]

        async def run():
            async with serve() as client:
                asked = [client.post("/v1/search", files={"file": encoded(photo)}, data={"rerank": "4"}) for photo in photos]
                answers = await asyncio.gather(*asked)
                return [answer.json() for answer in answers], (await client.get("/metrics")).text

        found, metrics = asyncio.run(run())
        for photo, answer in zip(photos, found):
            close(values(answer), index.search_photo(made[1], photo, k=20, rerank=4))
        batches = next(line for line in metrics.splitlines() if line.startswith('rw_keras_batch_size_count{stage="network"}'))
        assert float(batches.split()[-1]) == 12


class TestOrientations:
    def test_a_photo_of_the_index_by_its_name(self, search, index, made, shown):
        expected = index.search_photo(made[1], shown / "photos" / "04.png", k=20, orientations=4, rerank=5)
        close(values(search(name="04.png", orientations=4, rerank=5).json()), expected)
        found = search(name="04.png", orientations=4, leave_out_query=True).json()
        assert "04.png" not in [hit["name"] for hit in found["hits"]]

    def test_a_photo_on_its_side(self, search, pixels, encoded):
        small = pixels[:60, :48]  # pixels of one that is reduced differ by their rounding
        upright = search(encoded(small), orientations=4).json()
        turned = search(encoded(np.rot90(small).copy()), orientations=4).json()
        close(pairs(turned), pairs(upright))

    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            ({"orientations": 2, "name": "04.png"}, "orientations"),
            ({"orientations": 4, "names": ["04.png", "05.jpg"]}, "`orientations` turns exactly one photo"),
            ({"orientations": 4, "vector": [1.0] * 12}, "`orientations` turns exactly one photo"),
            ({"orientations": 4, "name": "04.png", "negatives": {"vectors": [[1.0] * 12]}}, "`orientations` turns exactly one"),
            ({"orientations": 4, "name": "04.png", "explain": True}, "`explain` draws regions of the photo as it is"),
        ],
        ids=str,
    )
    def test_what_does_not_go_together(self, search, fields, words):
        answer = search(**fields)
        assert answer.status_code == 422
        assert words in answer.text


class TestQueries:
    def test_name(self, search, index):
        answer = search(name="04.png").json()
        close(pairs(answer), index.search(index.descriptors[index.position("04.png")], 20))
        assert answer["hits"][0]["name"] == "04.png"

    def test_name_reranked(self, search, index):
        position = index.position("more/03.jpg")
        expected = index.search(index.descriptors[position], 20, rerank=6, regions=index.regions[position])
        close(values(search(name="more/03.jpg", rerank=6).json()), expected)

    def test_name_with_a_box(self, search, index, made, shown):
        expected = index.search_photo(made[1], shown / "photos" / "04.png", (10, 10, 70, 60), k=20)
        close(pairs(search(name="04.png", box=[10, 10, 70, 60]).json()), expected)

    def test_vector(self, search, index):
        vector = np.random.default_rng(0).standard_normal(12)
        close(pairs(search(vector=vector.tolist()).json()), index.search(vector, 20))

    def test_several(self, search, index, made, photo, pixels):
        import rw_keras

        names = ["02.png", "05.png"]
        own = [rw_keras.describe(made[1], pixels, max_side=80), *(index.descriptors[index.position(name)] for name in names)]
        mean = np.mean(own, axis=0)
        close(pairs(search(photo, names=names).json()), index.search(mean, 20))
        away = index.descriptors[index.position("06.png")]
        moved = search(photo, names=names, negatives={"names": ["06.png"]}).json()
        close(pairs(moved), index.search(mean - 0.2 * away, 20))
        assert pairs(moved) != pairs(search(photo, names=names).json())

    def test_several_are_reranked_by_all_their_regions(self, search, index):
        positions = [index.position(name) for name in ("02.png", "05.png")]
        mean = np.mean([index.descriptors[position] for position in positions], axis=0)
        together = PhotoRegions(*(np.concatenate(parts) for parts in zip(*(index.regions[position] for position in positions))))
        expected = index.search(mean, 20, rerank=5, regions=together)
        close(values(search(names=["02.png", "05.png"], rerank=5).json()), expected)

    def test_negatives_of_every_kind(self, search, index, photo):
        fields = {"names": ["01.png"], "images": [base64.b64encode(photo).decode()], "vectors": [[1.0] * 12]}
        answer = search(name="00.png", negatives=fields)
        assert answer.status_code == 200
        assert pairs(answer.json()) != pairs(search(name="00.png").json())

    def test_leave_out_query(self, search, shown):
        assert pairs(search(name="00.png", k=2).json())[1][0] == "twin.png"
        left = search(name="00.png", leave_out_query=True).json()
        assert "00.png" not in dict(pairs(left))
        assert left["total"] == 15
        sent = (shown / "photos" / "00.png").read_bytes()
        assert not {"00.png", "twin.png"} & dict(pairs(search(sent, leave_out_query=True).json())).keys()
        assert {"00.png", "twin.png"} <= dict(pairs(search(sent).json())).keys()

    def test_a_black_photo_has_no_cosines(self, search, encoded):
        answer = search(encoded(np.zeros((40, 40, 3), "uint8")), rerank=3)
        assert answer.status_code == 200
        assert {hit["cosine"] for hit in answer.json()["hits"]} == {0.0}


class TestAnswer:
    def test_what_a_hit_says(self, search, index):
        hit = search(name="more/03.jpg", k=1).json()["hits"][0]
        assert hit == {
            "rank": 1,
            "name": "more/03.jpg",
            "cosine": pytest.approx(1, abs=1e-6),
            "score": None,
            "size": [50, 50],
            "metadata": {"city": "Oxford", "year": 2003},
            "photo": "/v1/photos/more/03.jpg?index=index",
            "thumbnail": "/v1/photos/more/03.jpg/thumbnail?index=index",
        }

    def test_seconds(self, search, photo):
        took = search(photo).json()["took"]
        assert set(took) == {"queue", "decode", "network", "search", "whole"}
        assert all(seconds >= 0 for seconds in took.values())
        assert took["decode"] > 0 < took["network"]
        assert sum(took.values()) - took["whole"] == pytest.approx(took["whole"], abs=1e-3)

    def test_a_photo_that_is_away_is_found_all_the_same(self, serve, made, shown, tmp_path):
        """Its file is not there; its row is."""

        async def run():
            async with serve() as client:
                os.rename(shown / "photos" / "09.png", tmp_path / "09.png")
                try:
                    return (await client.post("/v1/search", json={"name": "09.png", "k": 1})).json()
                finally:
                    os.rename(tmp_path / "09.png", shown / "photos" / "09.png")

        (hit,) = asyncio.run(run())["hits"]
        assert (hit["size"], hit["photo"], hit["thumbnail"]) == (None, None, None)

    def test_explained_by_the_regions_that_are_kept(self, search, index, made, pixels, photo):
        from rw_keras.views.explain import region_matches

        answer = search(photo, explain=True, k=3).json()
        for hit in answer["hits"]:
            matches = region_matches(made[1], pixels, index_photo(made, hit["name"]), max_side=80)
            cosines = sorted((cosine for cosine in matches.cosines if cosine > 0), reverse=True)[:12]
            np.testing.assert_allclose([pair["cosine"] for pair in hit["regions"]], cosines, atol=0.02)  # kept in 8 bits
            for pair in hit["regions"]:
                assert all(0 <= side <= 1 for side in pair["query"] + pair["hit"])

    def test_explained_without_kept_regions(self, serve, made, describer, index, photo, tmp_path):
        import rw_keras

        source = made[0].parent / "photos"
        rw_keras.extract(made[1], source, tmp_path / "plain", max_side=80, regions=None, progress=False, runtime="tensorflow")

        async def run(**settings):
            async with serve(tmp_path / "plain", **settings) as client:
                return (await client.post("/v1/search", data={"explain": "true", "k": "5"}, files={"file": photo})).json()

        hits = asyncio.run(run(explained=2))["hits"]
        assert [bool(hit.get("regions")) for hit in hits] == [True, True, False, False, False]
        kept = {}

        async def run_kept():
            async with serve() as client:
                return (await client.post("/v1/search", data={"explain": "true", "k": "5"}, files={"file": photo})).json()

        kept = {hit["name"]: hit["regions"] for hit in asyncio.run(run_kept())["hits"]}
        for hit in hits[:2]:
            found, other = ([pair["cosine"] for pair in pairs_] for pairs_ in (hit["regions"], kept[hit["name"]]))
            np.testing.assert_allclose(found, other, atol=0.02)

    def test_names_that_are_no_text(self, serve, made, describer, tmp_path, encoded, draw):
        import rw_keras

        odd = [os.fsdecode(b"not\xffutf8.png"), "two\nlines.png", "per%cent&amp?.png"]
        (tmp_path / "odd").mkdir()
        for seed, name in enumerate(odd):
            (tmp_path / "odd" / name).write_bytes(encoded(draw(seed)))
        rw_keras.extract(
            made[1], tmp_path / "odd", tmp_path / "of_odd", max_side=80, regions="int8", progress=False, runtime="tensorflow"
        )

        async def run():
            async with serve(tmp_path / "of_odd") as client:
                hits = (await client.post("/v1/search", content=json.dumps({"name": odd[0]}), headers=JSON)).json()["hits"]
                files = [(await client.get(hit["photo"])).content for hit in hits]
                small = [(await client.get(hit["thumbnail"])).headers["content-type"] for hit in hits]
                return hits, files, small

        hits, files, small = asyncio.run(run())
        assert {hit["name"] for hit in hits} == set(odd)
        assert hits[0]["photo"] == "/v1/photos/not%FFutf8.png?index=index"
        assert files == [(tmp_path / "odd" / hit["name"]).read_bytes() for hit in hits]
        assert small == ["image/jpeg"] * 3


JSON = {"Content-Type": "application/json"}


def index_photo(made, name):
    return made[0].parent / "photos" / name


class TestRefused:
    @pytest.mark.parametrize(
        ("fields", "status", "words"),
        [
            ({}, 422, "what to search for"),
            ({"name": "00.png", "k": 0}, 422, "greater than or equal to 1"),
            ({"name": "00.png", "k": 201}, 422, "at most 200"),
            ({"name": "00.png", "k": True}, 422, "valid integer"),
            ({"name": "00.png", "k": "5"}, 422, "valid integer"),
            ({"name": "00.png", "unknown": 1}, 422, "unknown"),
            ({"name": "00.png", "box": [1, 2, 3]}, 422, "4 items"),
            ({"name": "00.png", "box": [0, 0, 900, 10]}, 422, "leaves 00.png"),
            ({"names": ["00.png", "01.png"], "box": [0, 0, 20, 20]}, 422, "exactly one"),
            ({"vector": [1.0] * 12, "box": [0, 0, 20, 20]}, 422, "exactly one"),
            ({"vector": [1.0] * 11}, 422, "12 dimensions"),
            ({"vector": [1.0] * 12, "rerank": 4}, 422, "a vector has none"),
            ({"vector": [1.0] * 12, "explain": True}, 422, "a vector has none"),
            ({"name": "00.png", "smooth": 3}, 422, "re-ranked"),
            ({"name": "00.png", "alpha": 2}, 422, "without `expand`"),
            ({"name": "00.png", "within": ["city=Oxford", "year"]}, 422, "no condition"),
            ({"name": "absent.png"}, 404, "no photo 'absent.png'"),
            ({"name": "00.png", "index": "other"}, 404, "no index 'other'"),
            ({"names": ["00.png"] * 9}, 422, "at most 8"),
            ({"image": "no base64!"}, 422, "no base64"),
            ({"image": "aGVsbG8="}, 422, "not an image"),
            ({"image": ""}, 422, "empty"),
            ({"cursor": "nothing"}, 410, "expired"),
            ({"cursor": "../../../../etc/passwd.0"}, 410, "expired"),
            ({"cursor": "nothing", "name": "00.png"}, 422, "takes no name"),
        ],
        ids=str,
    )
    def test_in_a_sentence(self, search, fields, status, words):
        answer = search(**fields)
        problem = answer.json()
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
        assert words in problem["detail"] or any(words in fault["message"] for fault in problem.get("faults", []))
        assert problem["status"] == status
        assert "/" not in problem["detail"].replace("application/", "")

    @pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
    def test_numbers_that_are_none(self, ask, number):
        body = '{"vector": [' + ",".join([number] * 12) + "]}"
        assert ask("POST", "/v1/search", content=body, headers=JSON).status_code == 422

    @pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b"\xff", b"null", b"[]"])
    def test_bodies_that_are_none(self, ask, body):
        assert ask("POST", "/v1/search", content=body, headers=JSON).status_code in (400, 422)

    @pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "image/png", ""])
    def test_type(self, ask, kind):
        answer = ask("POST", "/v1/search", content=b"{}", headers={"Content-Type": kind})
        assert answer.status_code == 415

    def test_compressed_bodies(self, ask):
        assert ask("POST", "/v1/search", content=b"{}", headers={**JSON, "Content-Encoding": "gzip"}).status_code == 415

    @pytest.mark.slow
    def test_forms(self, ask, photo):
        def status(**content):
            return ask("POST", "/v1/search", **content).status_code

        form = {"Content-Type": "multipart/form-data"}
        assert status(content=b"x", headers=form) == 400
        assert status(content=b"x", headers={"Content-Type": "multipart/form-data; boundary=b"}) == 400
        assert status(files={"other": photo}) == 422
        assert status(files={"file": photo}, data={"k": "no number"}) == 422
        assert status(files={"file": photo}, data={"box": "[" * 5000}) == 422
        assert status(files=[("file", photo)] * 9) == 422
        assert status(files=[("file", photo)] * 60) == 413
        assert status(files={"file": photo}, data={"within": "a" * 300_000}) == 413

    @pytest.mark.slow
    def test_a_bomb(self, search, encoded):
        from PIL import Image

        bomb = encoded(Image.new("1", (20_000, 20_000)))
        assert len(bomb) < 100_000
        answer = search(bomb)
        assert answer.status_code == 422
        assert "too large" in answer.json()["detail"]

    def test_pixels(self, search, photo, encoded):
        assert search(photo, {"megapixels": 90 * 70 / 1e6}).status_code == 200
        answer = search(photo, {"megapixels": 90 * 69 / 1e6})
        assert answer.status_code == 422
        assert "query.png is 90 x 70 pixels" in answer.json()["detail"]

    def test_a_photo_that_is_cut_short(self, search, photo):
        answer = search(photo[:-2000])
        assert answer.status_code == 422
        assert "query.png" in answer.json()["detail"]
