"""Descriptors that know how they were made: an array like any other, and a warning where it meets another index."""

import copy
import pickle
import warnings

import numpy as np
import pytest

import rw_keras
from rw_keras.model.build import from_recipe
from rw_keras.model.descriptor import Descriptor
from rw_keras.model.photo_regions import PhotoRegions
from rw_keras.model.recipe import Recipe
from rw_keras.retrieval import Index


@pytest.fixture
def vectors(model, draw):
    return rw_keras.describe(model, [draw(1), draw(2)], max_side=48)


class TestArray:
    def test_says_how_it_was_made(self, model, vectors, draw):
        assert vectors.recipe == {**model.recipe, "max_side": 48}
        assert rw_keras.describe(model, draw(1)).recipe.max_side == 1024
        assert rw_keras.describe(model, draw(1), max_side=None).recipe.max_side is None
        assert rw_keras.describe(model, []).recipe == model.recipe.at(1024)

    def test_parts_say_it_too(self, vectors):
        for part in (vectors[0], vectors[1:], vectors[None], *vectors):
            assert isinstance(part, Descriptor) and part.recipe == vectors.recipe
        assert isinstance(vectors[0, 0], np.float32)

    def test_what_is_computed_of_it_is_a_plain_array(self, vectors):
        mean = vectors.mean(axis=0)
        doubled = vectors.copy()
        doubled *= 2
        for plain in (
            np.asarray(vectors),
            vectors + vectors,
            1 - vectors,
            vectors @ vectors.T,
            np.dot(vectors, np.eye(12, dtype="float32")),
            np.stack([vectors[0], vectors[1]]),
            np.concatenate([vectors, vectors]),
            np.where(vectors > 0, vectors, 0),
            mean,
            doubled,
            np.add(vectors, 1, out=vectors.copy()),
        ):
            assert type(plain) is np.ndarray
        np.testing.assert_array_equal(doubled, 2 * np.asarray(vectors))
        np.testing.assert_array_equal(mean, np.asarray(vectors).mean(axis=0))
        assert np.linalg.norm(vectors[0]) == pytest.approx(1)
        assert getattr(vectors.astype("float64"), "recipe", None) is None

    def test_pickled_copied_and_saved(self, vectors, tmp_path):
        again = pickle.loads(pickle.dumps(vectors))
        assert again.recipe == vectors.recipe
        for kept in (again, copy.deepcopy(vectors), copy.copy(vectors)):
            np.testing.assert_array_equal(kept, vectors)
        np.save(tmp_path / "vectors.npy", vectors)
        np.savez(tmp_path / "vectors.npz", vectors=vectors)
        for kept in (np.load(tmp_path / "vectors.npy"), np.load(tmp_path / "vectors.npz")["vectors"]):
            assert type(kept) is np.ndarray
            np.testing.assert_array_equal(kept, vectors)

    def test_an_index_holds_plain_values(self, vectors):
        index = Index(["a", "b"], vectors, recipe=vectors.recipe)
        index.add(["c"], vectors[:1])
        assert type(index.recipe) is dict and index.recipe == vectors.recipe
        assert type(Index(["a", "b"], vectors).descriptors) is np.ndarray
        assert type(index.descriptors[:]) is np.ndarray


class TestRegions:
    """Whole rows keep the region vectors that they are the sums of."""

    @pytest.fixture
    def several(self):
        random = np.random.default_rng(0)
        regions = [PhotoRegions(random.random((count, 4), "float32"), np.zeros((count, 4), "float32")) for count in (3, 0, 5)]
        return Descriptor.of(random.random((3, 4), "float32"), Recipe(), regions)

    @pytest.mark.parametrize(
        ("key", "rows"),
        [
            (0, 0),
            (-1, 2),
            (np.int64(1), 1),
            ((2, slice(None)), 2),
            ((1, Ellipsis), 1),
            (slice(None), [0, 1, 2]),
            (slice(1, None), [1, 2]),
            (slice(None, None, -1), [2, 1, 0]),
            (slice(3, None), []),
            ([2, 0, 2], [2, 0, 2]),
            (np.array([True, False, True]), [0, 2]),
            (Ellipsis, [0, 1, 2]),
            ((Ellipsis, slice(None)), [0, 1, 2]),
            ((), [0, 1, 2]),
        ],
        ids=str,
    )
    def test_of_rows(self, several, key, rows):
        found = several[key]
        np.testing.assert_array_equal(found, np.asarray(several)[key])
        if isinstance(rows, int):
            assert found.regions is several.regions[rows]
        else:
            assert [id(own) for own in found.regions] == [id(several.regions[row]) for row in rows]

    @pytest.mark.parametrize(
        "key", [(slice(None), slice(2)), (slice(None), [0, 1]), (Ellipsis, 0), None, [[0, 1], [1, 2]], (0, None)], ids=str
    )
    def test_other_parts_have_none(self, several, key):
        assert several[key].regions is None
        assert several[several > 0.5].regions is None

    def test_of_one(self, several):
        one = several[2]
        for same in (one[:], one[...], one[()]):
            assert same.regions is one.regions
        for row in (one[None], one[None, :], np.atleast_2d(one)):
            assert row.shape == (1, 4)
            assert len(row.regions) == 1 and row.regions[0] is one.regions
        assert one[:2].regions is one[:, None].regions is None

    def test_iterated_and_pickled(self, several):
        again = pickle.loads(pickle.dumps(several))
        for own, row, kept in zip(several.regions, several, again.regions):
            assert row.regions is own
            assert isinstance(kept, PhotoRegions)
            np.testing.assert_array_equal(kept.vectors, own.vectors)
        assert isinstance(pickle.loads(pickle.dumps(several[0])).regions, PhotoRegions)

    def test_what_is_computed_has_none(self, several):
        computed = several * 2, several.astype("float64"), several.copy(), several.T, several.reshape(-1), np.stack([*several])
        for plain in computed:
            assert getattr(plain, "regions", None) is None


class TestSearch:
    @pytest.fixture
    def index(self, model, photo_folder):
        return Index.from_folder(model, photo_folder, max_side=40, runtime="tensorflow", progress=False)

    def test_another_size_is_warned_of_with_both_values(self, index, model, photo_folder):
        query = rw_keras.describe(model, photo_folder / "a.png")
        words = r"described in another way than the query: its max_side is 40, the query's 1024\. Ask with `search_photo`"
        for search, given in ((index.search, query), (index.search_batch, query[None])):
            with pytest.warns(UserWarning, match=words) as caught:
                search(given)
            assert [one.filename for one in caught] == [__file__]

    def test_another_model_is_warned_of(self, index, tiny_model, photo_folder):
        query = rw_keras.describe(tiny_model(seed=1), photo_folder / "a.png", max_side=40)
        with pytest.warns(UserWarning, match=r"its weights is '.*, the query's '"):
            index.search(query)

    def test_the_same_recipe_is_silent(self, index, model, photo_folder, tmp_path):
        index.save(tmp_path / "index")
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            for opened in (index, Index.load(tmp_path / "index")):
                opened.search(rw_keras.describe(model, photo_folder / "a.png", max_side=40))
                opened.search_photo(model, photo_folder / "a.png")
                opened.search(np.asarray(rw_keras.describe(model, photo_folder / "a.png")))
                opened.search(rw_keras.describe(model, photo_folder / "a.png", max_side=40) / 2, expand=2)

    def test_an_index_that_does_not_say_it_is_silent(self, model, vectors):
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            Index(["a", "b"], vectors).search(vectors[0])
            Index(["a", "b"], vectors, recipe=model.recipe).search(vectors[0])


class TestDefaultSize:
    """A query is described as its index was, where the model comes from the index's recipe."""

    @pytest.mark.slow
    def test_of_a_model(self, model, photo_folder, tmp_path):
        model.save(tmp_path / "model.keras")
        index = Index.from_folder(model, photo_folder, max_side=40, runtime="tensorflow", progress=False)
        built = from_recipe(index.recipe, model=tmp_path / "model.keras")
        found = rw_keras.describe(built, photo_folder / "a.png")
        np.testing.assert_array_equal(found, rw_keras.describe(model, photo_folder / "a.png", max_side=40))
        assert found.recipe == index.recipe
        assert index.search_photo(built, photo_folder / "a.png") == index.search_photo(model, photo_folder / "a.png")
        without = rw_keras.describe(built, photo_folder / "more" / "a.png", max_side=None)
        np.testing.assert_array_equal(without, rw_keras.describe(model, photo_folder / "more" / "a.png"))
        several = rw_keras.multi_scale(built)
        assert rw_keras.describe(several, photo_folder / "a.png").recipe.max_side == 40

    def test_no_limit_is_a_size(self, tiny_model, draw):
        model = tiny_model()
        model.note_max_side(None)
        assert rw_keras.describe(model, draw(1)).recipe.max_side is None
        assert rw_keras.runtimes.load(model, "tensorflow").recipe.max_side is None

    def test_of_a_describer(self, tiny_model, photo_folder):
        model = tiny_model()
        model.note_max_side(40)
        describer = rw_keras.runtimes.load(model, "tensorflow")
        found = rw_keras.describe(describer, photo_folder / "a.png")
        np.testing.assert_array_equal(found, rw_keras.describe(model, photo_folder / "a.png", max_side=40))

    def test_another_word_is_refused(self, model, draw):
        with pytest.raises(ValueError, match=r"max_side.*'automatic'"):
            rw_keras.describe(model, draw(1), max_side="automatic")
