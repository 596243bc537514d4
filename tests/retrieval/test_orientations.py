"""A photo that may lie on its side, against a plain statement of the best of its orientations."""

import numpy as np
import pytest
from PIL import Image

import rw_keras
from rw_keras.photos.reading import read_image
from rw_keras.retrieval import Index, Rerank, search_orientations
from rw_keras.retrieval.orientations import orientations_of


def unit(count, dimensions=8, seed=0):
    rows = np.random.default_rng(seed).standard_normal((count, dimensions))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype("float32")


@pytest.fixture
def index():
    regions = [unit(3, seed=100 + number) for number in range(40)]
    return Index([f"{number}.jpg" for number in range(40)], unit(40, seed=1), regions=regions)


@pytest.fixture
def queries():
    return unit(4, seed=2)


@pytest.fixture
def regions():
    return [unit(2, seed=number) for number in range(50, 54)]


def plain(index, queries, k, first=0, **options):
    """Each photo's best score over the rankings of all orientations; re-ranked ones stand first."""
    best = {}
    for number, query in enumerate(queries):
        own = {name: value[number] if name == "regions" else value for name, value in options.items()}
        for place, (name, score) in enumerate(index.search(query, len(index), **own)):
            best[name] = max(best.get(name, (False, -2)), (place < first, score))
    ranking = sorted(best, key=lambda name: (best[name], -index.position(name)), reverse=True)
    return [(name, best[name][1]) for name in ranking[:k]]


@pytest.mark.parametrize("k", [1, 7, 40, 100])
def test_each_photo_has_its_best_score(index, queries, k):
    assert search_orientations(index, queries, k) == plain(index, queries, k)


@pytest.mark.parametrize("k", [1, 7, 40])
@pytest.mark.parametrize("rerank", [3, Rerank(12, 2), 100])
def test_re_ranked_photos_stand_first(index, queries, regions, k, rerank):
    found = search_orientations(index, queries, k, rerank=rerank, regions=regions)
    assert found == plain(index, queries, k, Rerank.of(rerank).count, rerank=rerank, regions=regions)


def test_options_are_those_of_a_search(index, queries):
    within = [f"{number}.jpg" for number in range(0, 40, 3)]
    found = search_orientations(index, queries, 9, within=within, min_score=0.2)
    assert found == [(name, score) for name, score in plain(index, queries, 9, within=within) if score >= 0.2]
    for wrong in ({"k": 0}, {"expand": 0}, {"alpha": 1.0}, {"regions": [None]}, {"rerank": 3}):
        with pytest.raises(ValueError, match="`" + min(wrong)):
            search_orientations(index, queries, **wrong)


def test_one_orientation_is_a_search(index, queries, regions):
    for options in ({}, {"expand": 4}, {"expand": 4, "alpha": 3.0}, {"rerank": 5, "regions": regions[:1]}):
        plain_options = {**options, "regions": options["regions"][0]} if "regions" in options else options
        assert search_orientations(index, queries[:1], 9, **options) == index.search(queries[0], 9, **plain_options)


@pytest.mark.parametrize("rerank", [None, 10])
def test_the_orientation_that_matches_best_is_expanded(index, queries, regions, rerank):
    queries = queries.copy()
    queries[2] = index.descriptors[5] + 0.1 * queries[2]  # photos 5 and its neighbours are what it shows
    own = [*regions[:2], index.regions[5].vectors, *regions[3:]] if rerank else None
    found = search_orientations(index, queries, 9, 3, alpha=1.0, rerank=rerank, regions=own)
    assert found == index.search(queries[2], 9, 3, alpha=1.0, rerank=rerank, regions=own and own[2])
    assert found[0][0] == "5.jpg"


def test_an_empty_index():
    assert search_orientations(Index([], np.zeros((0, 8), "float32")), unit(4), 5, 3) == []
    assert search_orientations(Index([], np.zeros((0, 8), "float32")), unit(4), 5) == []


def test_turns(draw):
    photo = draw(0, 20, 30)
    one, left, upside_down, right = orientations_of(photo, 4)
    np.testing.assert_array_equal(one, photo)
    np.testing.assert_array_equal(left, photo.transpose(1, 0, 2)[::-1])
    np.testing.assert_array_equal(upside_down, photo[::-1, ::-1])
    np.testing.assert_array_equal(right, photo.transpose(1, 0, 2)[:, ::-1])
    for wrong in (0, 2, True, "4"):
        with pytest.raises(ValueError, match="`orientations` is 1"):
            orientations_of(photo, wrong)


class TestSearchPhoto:
    @pytest.fixture
    def described(self, model, photo_folder):
        # Of a photo that is reduced, turned or not, pixels differ by their rounding.
        return Index.from_folder(model, photo_folder, max_side=100, regions="int8", runtime="tensorflow", progress=False)

    def test_a_photo_on_its_side_is_found(self, described, model, photo_folder, tmp_path):
        turned = tmp_path / "turned.png"
        Image.open(photo_folder / "b.png").transpose(Image.Transpose.ROTATE_90).save(turned)
        for options in ({}, {"rerank": 3}, {"expand": 2}):
            found = described.search_photo(model, turned, k=6, orientations=4, **options)
            upright = described.search_photo(model, photo_folder / "b.png", k=6, orientations=4, **options)
            assert [name for name, _ in found] == [name for name, _ in upright]
            np.testing.assert_allclose([score for _, score in found], [score for _, score in upright], atol=1e-5)
            assert found[0][0] == "b.png"

    def test_a_box_is_cut_out_first(self, described, model, photo_folder):
        box = (8, 4, 60, 40)
        pixels = read_image(photo_folder / "a.png", box, 100)
        vectors = rw_keras.describe(model, [np.rot90(pixels, quarters).copy() for quarters in range(4)], max_side=100)
        found = described.search_photo(model, photo_folder / "a.png", box, orientations=4, rerank=None)
        assert found == search_orientations(described, vectors)

    def test_a_number_that_there_is_not_is_refused(self, described, model, photo_folder):
        with pytest.raises(ValueError, match="`orientations` is 1, the photo as it is, or 4, all quarter turns, but got 3"):
            described.search_photo(model, photo_folder / "a.png", orientations=3)
