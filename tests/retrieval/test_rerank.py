"""Re-ranking by regions, against a plain statement of it."""

import itertools
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rw_keras.model.descriptor import Descriptor
from rw_keras.model.photo_regions import PhotoRegions
from rw_keras.retrieval import Index, QueryRegions, Rerank, augment, expand_query
from rw_keras.retrieval import rerank as rerank_
from rw_keras.retrieval.regions import Regions

DIMENSIONS = 8


def unit(count, dimensions=DIMENSIONS, seed=0):
    rows = np.random.default_rng(seed).standard_normal((count, dimensions))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype("float32")


def photos(counts, seed=1, dimensions=DIMENSIONS):
    """Region vectors of photos with so many each, some of them zero; a sixth photo is the fifth again."""
    random = np.random.default_rng(seed)
    found = []
    for number, count in enumerate(counts):
        vectors = unit(count, dimensions, seed + number + 1)
        vectors[random.random(count) < 0.2] = 0
        found.append(PhotoRegions(vectors, random.random((count, 4)).astype("float32")))
    if len(found) > 5:
        found[5] = found[4]
    return found


def collection(count=60, seed=0, regions="int8", **arguments):
    counts = np.random.default_rng(seed).integers(0, 6, count)
    own = Regions.of(photos(counts, seed), regions)
    return Index([f"{number}.jpg" for number in range(count)], unit(count, seed=seed), regions=own, **arguments)


def plain_score(query, photo):
    """In float64, word for word: the mean over the query's vectors of the highest cosine to any of the photo's."""
    query, photo = (np.asarray(rows, "float64") for rows in (query, photo))
    query, photo = query[query.any(axis=1)], photo[photo.any(axis=1)]
    if not len(query):
        return 0.0
    if not len(photo):
        return -1.0
    query, photo = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (query, photo))
    return np.mean([max(one @ other for other in photo) for one in query])


def plain_ranking(index, query, regions, rerank, within=None):
    """Positions and scores of all rows."""
    vectors = np.asarray(index.descriptors, "float64")
    cosines = vectors @ (query / np.linalg.norm(query))
    first = [place for place in np.argsort(-cosines, kind="stable") if within is None or within[place]]
    scored = [(place, plain_score(regions, index.regions[place].vectors)) for place in first[:rerank]]
    return sorted(scored, key=lambda pair: -round(pair[1], 6)) + [(place, cosines[place]) for place in first[rerank:]]


class TestScores:
    @pytest.mark.parametrize("dtype", ["int8", "float16"])
    @pytest.mark.parametrize(("dimensions", "most", "asked"), [(1, 3, 1), (5, 1, 7), (64, 9, 4), (512, 21, 21)])
    def test_is_the_mean_of_the_highest_cosines(self, dtype, dimensions, most, asked):
        given_ = photos(np.random.default_rng(2).integers(0, most + 1, 23), dimensions=dimensions)
        regions = Regions.of(given_, dtype)
        query = unit(asked, dimensions, 9)
        found = rerank_.scores(regions, np.arange(23), query)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, [plain_score(query, regions[place].vectors) for place in range(23)], atol=2e-6)
        # What 8 bits round away.
        np.testing.assert_allclose(found, [plain_score(query, one.vectors) for one in given_], atol=5e-3)

    def test_nothing_to_compare(self):
        regions = Regions.of([np.zeros((0, 3)), np.zeros((2, 3)), -np.eye(3)[:1], np.eye(3)])
        np.testing.assert_array_equal(rerank_.scores(regions, np.arange(4), np.eye(3, dtype="float32")[:1]), [-1, -1, -1, 1])
        np.testing.assert_array_equal(rerank_.scores(regions, np.arange(4), np.zeros((0, 3), "float32")), 0)
        assert len(rerank_.scores(regions, np.arange(0), np.eye(3, dtype="float32"))) == 0

    @pytest.mark.parametrize("dtype", ["int8", "float16"])
    @pytest.mark.parametrize("piece", [1, 1000, 1 << 18])
    def test_depends_on_nothing_but_the_photo(self, dtype, piece, monkeypatch):
        """Equal photos are rounded equally, wherever they stand, whatever is scored with them."""
        monkeypatch.setattr(rerank_, "_PIECE", piece)
        own, query = unit(13, 96, 5), unit(7, 96, 6)
        given_ = [own if number % 3 == 0 else unit(number % 5 + 1, 96, number) for number in range(90)]
        regions = Regions.of(given_, dtype)
        alone = rerank_.scores(regions, np.array([0]), query)[0]
        assert set(rerank_.scores(regions, np.arange(0, 90, 3), query).tolist()) == {alone}
        mixed = np.random.default_rng(0).permutation(90)
        np.testing.assert_array_equal(rerank_.scores(regions, mixed, query), rerank_.scores(regions, np.arange(90), query)[mixed])


def plain_smoothed(values, vectors, count):
    """In float64, photo by photo."""
    vectors = np.asarray(vectors, "float64")
    matched = [place for place in range(len(values)) if values[place] > -1]
    nearest = {}
    for place in matched:
        others = sorted((other for other in matched if other != place), key=lambda other: -(vectors[place] @ vectors[other]))
        nearest[place] = others[:count]
    found = np.array(values, "float64")
    for place in matched:
        mutual = [other for other in nearest[place] if place in nearest[other]]
        shares = [max(vectors[place] @ vectors[other], 0) ** 3 for other in mutual]
        found[place] = (values[place] + sum(share * values[other] for share, other in zip(shares, mutual))) / (1 + sum(shares))
    return found


class TestSmoothed:
    @pytest.mark.parametrize("count", [1, 3, 9, 39, 99])
    @pytest.mark.parametrize("rows", [7, 1024])
    def test_is_the_weighted_mean_over_reciprocal_neighbours(self, count, rows, monkeypatch):
        monkeypatch.setattr(rerank_, "_ROWS", rows)
        values, vectors = np.random.default_rng(0).uniform(-0.9, 1, 40).astype("float32"), unit(40)
        values[[3, 20]] = -1
        found = rerank_.smoothed(values, vectors, count)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, plain_smoothed(values, vectors, count), atol=1e-6)
        assert (found[[3, 20]] == -1).all()

    def test_of_one_photo_and_of_none(self):
        for count in (0, 1):
            np.testing.assert_array_equal(rerank_.smoothed(np.full(count, 0.5, "float32"), unit(count), 9), np.full(count, 0.5))
        np.testing.assert_array_equal(rerank_.smoothed(np.full(3, -1, "float32"), unit(3), 9), -1)

    def test_photos_that_match_nothing_keep_their_scores(self):
        values = np.array([0.9, 0.1, 0.5], "float32")
        np.testing.assert_allclose(rerank_.smoothed(values, np.eye(3, dtype="float32"), 2), values)

    @pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
    def test_a_search_takes_it(self, dtype, tmp_path):
        index, query, regions = collection(), unit(1, seed=77)[0], unit(4, seed=78)
        index.save(tmp_path / "index", dtype=dtype)
        index = Index.load(tmp_path / "index")
        hits = dict(index.search(query, 60, rerank=30, regions=regions))
        smooth = index.search(query, 60, rerank=Rerank(30, smooth=5), regions=regions)
        first = list(hits)[:30]
        rows = np.stack([index.descriptors[index.position(name)] for name in first])
        wanted = plain_smoothed(np.array([hits[name] for name in first]), rows, 5)
        np.testing.assert_allclose([dict(smooth[:30])[name] for name in first], wanted, atol=2e-6)
        assert [score for _, score in smooth[:30]] == sorted((score for _, score in smooth[:30]), reverse=True)
        assert smooth[30:] == list(hits.items())[30:]

    def test_asked_wrongly(self):
        for count, smooth in (0, None), (4, 0), (2.5, None), (4, "9"):
            with pytest.raises(ValueError, match="whole number of at least 1"):
                Rerank(count, smooth)
        assert Rerank.of_defaults({}) is None
        assert Rerank.of_defaults({"rerank": 4, "smooth": 9}) == Rerank(4, 9)


class TestSearch:
    @settings(max_examples=60)
    @given(
        k=st.integers(1, 70),
        rerank=st.integers(1, 70),
        count=st.sampled_from([1, 2, 40, 60]),
        filtered=st.booleans(),
        dtype=st.sampled_from(["int8", "float16"]),
    )
    def test_the_first_are_in_the_order_of_their_regions(self, k, rerank, count, filtered, dtype):
        index = collection(count, regions=dtype)
        query, regions = unit(1, seed=77)[0], unit(4, seed=78)
        within = np.arange(count) % 3 != 1 if filtered else None
        hits = index.search(query, k, rerank=rerank, regions=QueryRegions(regions), within=within)
        wanted = plain_ranking(index, query, regions, rerank, within)[:k]
        assert [name for name, _ in hits] == [index.names[place] for place, _ in wanted]
        np.testing.assert_allclose([score for _, score in hits], [score for _, score in wanted], atol=2e-6)

    def test_photos_alike_keep_the_order_of_the_first_ranking(self):
        vectors = np.array([[1, 0], [0.6, 0.8], [0.8, 0.6]])
        index = Index("abc", vectors, regions=[np.eye(2)[:1]] * 3)
        assert index.search([1, 0], 3, rerank=3, regions=np.eye(2)) == [("a", 0.5), ("c", 0.5), ("b", 0.5)]

    def test_several_queries_are_as_one_by_one(self):
        index, queries = collection(), unit(7, seed=5)
        regions = [QueryRegions(unit(number, seed=number)) for number in range(7)]
        options = {"rerank": 20, "within": lambda name: "7" not in name}
        for expand, alpha in (None, 0.0), (1, 0.0), (4, 0.0), (40, 2.0):
            found = index.search_batch(queries, 15, expand, regions=regions, alpha=alpha, **options)
            alone = [index.search(query, 15, expand, regions=own, alpha=alpha, **options) for query, own in zip(queries, regions)]
            assert found == alone
        ranked = index.rank_batch(queries, rerank=9, regions=regions)
        assert ranked == [index.rank(query, rerank=9, regions=own) for query, own in zip(queries, regions)]
        assert all(sorted(names) == sorted(index.names) for names in ranked)
        for number, (positions, scores) in enumerate(zip(*index.nearest_batch(queries, 12, rerank=9, regions=regions))):
            own = index.nearest(queries[number], 12, rerank=9, regions=regions[number])
            np.testing.assert_array_equal(positions, own[0])
            np.testing.assert_array_equal(scores, own[1])
            assert [index.names[place] for place in positions] == ranked[number][:12]

    @pytest.mark.parametrize(("expand", "rerank", "alpha"), [(4, 30, 0.0), (4, 2, 3.0), (100, 60, 1.0)])
    def test_expansion_averages_the_descriptors_of_the_first_after_it(self, expand, rerank, alpha):
        index, query, regions = collection(), unit(1, seed=3)[0], unit(5, seed=4)
        vectors = np.asarray(index.descriptors, "float64")
        first = [place for place, _ in plain_ranking(index, query, regions, rerank)][: expand - 1]
        shares = np.clip(vectors[first] @ query, 0, 1) ** alpha
        mean = query + shares @ vectors[first]
        wanted = vectors @ (mean / np.linalg.norm(mean))
        hits = index.search(query, 60, expand, rerank=rerank, regions=regions, alpha=alpha)
        np.testing.assert_allclose([score for _, score in hits], np.sort(wanted)[::-1], atol=2e-6)
        assert [name for name, _ in hits] == [index.names[place] for place in np.argsort(-wanted)]
        expanded = expand_query(query, index, expand, alpha=alpha, rerank=rerank, regions=regions)
        several = expand_query(query[None], index, expand, alpha=alpha, rerank=rerank, regions=[regions])
        np.testing.assert_array_equal(several, expanded[None])
        again = index.search(expanded, 60)
        assert [name for name, _ in again] == [name for name, _ in hits]

    def test_an_expansion_over_the_query_alone_is_none(self):
        index, query, regions = collection(), unit(1, seed=3)[0], unit(5, seed=4)
        assert index.search(query, 60, 1, rerank=5, regions=regions) == index.search(query, 60, rerank=5, regions=regions)

    def test_hits_below_a_score_are_left_out(self):
        index, query, regions = collection(), unit(1, seed=3)[0], unit(5, seed=4)
        hits = index.search(query, 60, rerank=10, regions=regions)
        assert index.search(query, 60, rerank=10, regions=regions, min_score=0.3) == [hit for hit in hits if hit[1] >= 0.3]

    def test_a_zero_query_is_like_nothing(self):
        index = collection()
        black = QueryRegions(np.zeros((3, DIMENSIONS)))
        for expand in (None, 4):
            hits = index.search(np.zeros(DIMENSIONS), 5, expand, rerank=20, regions=black)
            assert hits == [(name, 0.0) for name in index.names[:5]]

    def test_an_empty_index(self):
        index = Index([], np.zeros((0, DIMENSIONS)), regions=[])
        assert index.search(unit(1)[0], 3, 2, rerank=4, regions=unit(2)) == []
        index.add(["a"], unit(1), regions=[unit(2)])
        assert index.search(unit(1)[0], 3, rerank=4, regions=unit(2))[0] == ("a", pytest.approx(1, abs=1e-4))

    def test_regions_come_with_what_describes(self):
        index, vectors = collection(), unit(2, seed=3)
        regions = [PhotoRegions(unit(count, seed=count), np.zeros((count, 4), "float32")) for count in (5, 2)]

        class Described(Descriptor):
            pass

        queries = vectors.view(Described)
        queries.regions = regions
        assert index.search_batch(queries, 9, rerank=20) == index.search_batch(vectors, 9, rerank=20, regions=regions)
        one = vectors[0].view(Described)
        one.regions = regions[0]
        for expand in (None, 3):
            assert index.search(one, 9, expand, rerank=20) == index.search(vectors[0], 9, expand, rerank=20, regions=regions[0])
        np.testing.assert_array_equal(
            expand_query(one, index, 4, rerank=20), expand_query(vectors[0], index, 4, rerank=20, regions=regions[0])
        )
        assert index.search(one, 9) == index.search(vectors[0], 9)

    @pytest.mark.parametrize("searcher", ["faiss-flat", "faiss-hnsw"])
    def test_every_searcher(self, searcher):
        pytest.importorskip("faiss")
        index, query, regions = collection(300), unit(1, seed=3)[0], unit(5, seed=4)
        wanted = index.search(query, 40, rerank=30, regions=regions)
        index.use_searcher(searcher)
        assert index.search(query, 40, rerank=30, regions=regions) == wanted

    def test_augmented(self):
        index, query, regions = collection(), unit(1, seed=3)[0], unit(5, seed=4)
        index.search_defaults = {"rerank": 7}
        augmented = augment(index, 3)
        assert augmented.search_defaults == {"rerank": 7}
        every = [dict(one.search(query, 60, rerank=60, regions=regions)) for one in (index, augmented)]
        assert every[0] == every[1]
        for one, seed in (index, 91), (augmented, 92):  # each adds what the other one does not see
            one.add(["more.jpg"], unit(1, seed=seed), regions=[unit(3, seed=seed)])
        for one, seed in (index, 91), (augmented, 92):
            np.testing.assert_allclose(one.regions[60].vectors, unit(3, seed=seed), atol=0.01)

    def test_fewer_dimensions(self):
        """The first ones of the query's vectors are compared with the index's, each of unit length."""
        given_ = photos([3, 2, 4, 1], dimensions=6)
        index = Index("abcd", unit(4), regions=Regions.of(given_, "float16", 3))
        assert index.regions.spec == {"dtype": "float16", "dimensions": 3}
        query = unit(5, 6, 8)
        hits = dict(index.search(unit(1)[0], 4, rerank=4, regions=query))
        for name, own in zip("abcd", given_):
            assert hits[name] == pytest.approx(plain_score(query[:, :3], own.vectors[:, :3]), abs=2e-3)


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"rerank": 0}, "`rerank` is a whole number of at least 1, but got 0"),
            ({"rerank": True}, "but got True"),
            ({"rerank": "auto"}, "but got 'auto'"),
            ({"rerank": 5}, "describe(..., regions=True)`, or give `regions=rw_keras.retrieval.QueryRegions"),
            ({"regions": unit(3)}, "`regions` are what `rerank` compares, but got them without it"),
            ({"rerank": 5, "regions": unit(3, 5)}, "have 5 dimensions, and those of the index 8"),
            ({"rerank": 5, "regions": np.zeros(8)}, "got the shape (8,)"),
            ({"rerank": 5, "regions": np.full((2, 8), np.nan)}, "NaN"),
        ],
    )
    @pytest.mark.parametrize("expand", [None, 3])
    def test_what_cannot_be_compared(self, options, words, expand):
        index = collection()
        with pytest.raises(ValueError, match=re.escape(words)):
            index.search(unit(1)[0], 5, expand, **options)

    def test_an_index_without_regions(self):
        index = Index("ab", unit(2))
        with pytest.raises(ValueError, match=r"holds no region vectors.*extract\(..., regions=\"int8\"\)"):
            index.search(unit(1)[0], rerank=400, regions=unit(3))
        with pytest.raises(ValueError, match="holds no region vectors"):
            index.search_photo(None, "photo.jpg", rerank=400)  # before anything is described

    def test_regions_of_another_number_of_queries(self):
        with pytest.raises(ValueError, match="of 1 queries for 2 queries"):
            collection().search_batch(unit(2), rerank=5, regions=[unit(3)])

    @pytest.mark.parametrize(
        ("regions", "words"),
        [
            ([unit(2)], "2 names for regions of 1 photos"),
            ([unit(2), np.zeros(8)], r"those of photo 1 have the shape \(8,\)"),
            ([unit(2), unit(2, 7)], "of photo 1 have 7 dimensions, and the index keeps 8"),
            ([unit(2), np.full((1, 8), np.inf)], "of photo 1 hold NaN or infinite"),
            ([unit(2), PhotoRegions(unit(2), np.zeros((3, 4)))], r"of photo 1 have the shape \(3, 4\)"),
            ([unit(2), PhotoRegions(unit(2), np.full((2, 4), 1.5))], "from 0 to 1.5"),
        ],
    )
    def test_regions_that_do_not_fit_an_index(self, regions, words):
        with pytest.raises(ValueError, match=words):
            Index("ab", unit(2), regions=regions)

    def test_another_dtype(self):
        with pytest.raises(ValueError, match="kept as int8 or float16, but got 'float32'"):
            Regions.of([unit(2)], "float32")

    @pytest.mark.parametrize("change", ["add", "update"])
    def test_changes_without_what_belongs_to_them(self, change):
        index, plain = collection(), Index("ab", unit(2))
        for one, given_, words in (
            (index, None, "holds region vectors, but got none for 1 photos; give `regions`"),
            (index, [unit(1)] * 2, "got those of 2 for 1 photos"),
            (plain, [unit(1)], "holds no region vectors, but got those of 1 for 1 photos; leave"),
        ):
            before = list(one.names), np.asarray(one.descriptors).tobytes()
            names = ["new"] if change == "add" else one.names[:1]
            with pytest.raises(ValueError, match=words):
                getattr(one, change)(names, unit(1, seed=9), regions=given_)
            assert (list(one.names), np.asarray(one.descriptors).tobytes()) == before


class TestQueryRegions:
    def test_is_of_unit_length(self):
        given_ = np.array([[3, 4], [0, 0], [1e-30, 0]], "float64")
        own = QueryRegions(given_, np.zeros((3, 4)))
        np.testing.assert_allclose(own.vectors, [[0.6, 0.8], [0, 0], [1, 0]], atol=1e-7)
        assert len(own) == 3 and own.boxes.shape == (3, 4) and QueryRegions.of(own) is own
        np.testing.assert_allclose(own.first(1), [[1], [1]])

    def test_boxes_of_another_number(self):
        with pytest.raises(ValueError, match=r"3 region vectors, but boxes of the shape \(2, 4\)"):
            QueryRegions(np.eye(3), np.zeros((2, 4)))


class TestOnDisk:
    def same(self, one, other):
        assert list(one.names) == list(other.names) and one.regions.spec == other.regions.spec
        for position in range(len(one)):
            for own, others in zip(one.regions[position], other.regions[position]):
                np.testing.assert_array_equal(own, others)
        query, regions = unit(1, seed=3)[0], unit(5, seed=4)
        assert one.search(query, 60, rerank=30, regions=regions) == other.search(query, 60, rerank=30, regions=regions)

    @pytest.mark.parametrize("regions", ["int8", "float16"])
    @pytest.mark.parametrize("dtype", ["float32", "int8"])
    def test_what_was_saved_is_loaded(self, folder, tmp_path, dtype, regions):
        index = collection(regions=regions)
        index.search_defaults = {"rerank": 400, "expand": None, "alpha": 0}
        index.save(folder)
        loaded = Index.load(folder)
        assert loaded.search_defaults == index.search_defaults
        self.same(loaded, index)
        loaded.save(tmp_path / "copy", dtype=dtype)
        copy = Index.load(tmp_path / "copy")
        if dtype == "float32":
            self.same(copy, index)
        loaded.save(folder, dtype=dtype)  # anew, where the dtype is another one
        again = Index.load(folder)
        self.same(again, copy)
        assert again.search_defaults == index.search_defaults
        boxes = [one.boxes for one in photos(np.random.default_rng(0).integers(0, 6, 60), 0)]
        np.testing.assert_allclose(again.regions[7].boxes, boxes[7], atol=1e-5)

    def test_changes_are_those_of_an_index_made_anew(self, folder):
        index = collection()
        index.save(folder)
        plain = {name: (vector, index.regions[place]) for place, (name, vector) in enumerate(zip(index.names, index.descriptors))}
        made = itertools.count()
        for round_ in range(4):
            index = Index.load(folder)
            gone = index.names[round_ :: 3 + round_]
            index.remove(gone)
            vectors = unit(4, seed=50 + round_)
            own = photos([round_, 5, 0, 2], 60 + round_)
            named = [*index.names[5:7], f"new {next(made)}", f"new {next(made)}"]
            index.update(named[:2], vectors[:2], own[:2])
            index.add(named[2:], vectors[2:], regions=own[2:])
            plain = {name: value for name, value in plain.items() if name not in gone}
            plain |= dict(zip(named, zip(vectors, own)))
            index.save(folder)
            anew = Index(plain, [vector for vector, _ in plain.values()], regions=[regions for _, regions in plain.values()])
            self.same(index, anew)
            self.same(Index.load(folder), anew)
