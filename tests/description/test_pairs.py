"""Whitening learned from pairs of photos."""

import itertools
import json

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import rw_keras
from rw_keras.description.pairs import MatchingVectors, nearest_to_each_other, pair_positions, read_pairs
from rw_keras.layers import PCAWhiten
from rw_keras.model.recipe import Recipe
from rw_keras.model.whitening import Whitening
from rw_keras.runtimes import numpy_head

pytestmark = pytest.mark.filterwarnings("ignore:PCAWhiten")  # few vectors


@pytest.fixture(scope="module")
def views(draw):
    """A function (number) -> eight photos: of four things, two views each, the second dimmed and moved."""

    def view(seed):
        return np.clip(np.roll(draw(seed), 9, axis=1) * 0.8 + 10, 0, 255).astype("uint8")

    return [make(seed) for seed in range(4) for make in (draw, view)]


PAIRS = [(0, 1), (2, 3), (5, 4), (6, 7)]


def vectors_of(model, photos):
    """Each photo's unit vectors, as the whitening takes them: of each scale `(R, d)`."""
    whitened = getattr(model, "inner", None) or model
    before = keras.Model(whitened.input, whitened.get_layer("whitening").input)
    found = []
    for photo in photos:
        scales = [photo[None].astype("float32")]
        if whitened is not model:
            scales = keras.Model(model.input, [layer.output for layer in model.layers if type(layer).__name__ == "ImageScale"])(
                scales[0]
            )
        found.append([np.reshape(before(one), (-1, before.output_shape[-1])) for one in scales])
    return found


class TestFitWhitening:
    @pytest.mark.slow
    @pytest.mark.parametrize(
        "arguments", [{}, {"whiten_on": "global"}, {"scales": (1, 0.5)}, {"scales": (1, 0.5), "whiten_on": "global"}]
    )
    def test_is_the_layers_own_of_the_nearest_regions(self, tiny_model, views, arguments):
        model = tiny_model(**arguments)
        learned = rw_keras.fit_whitening(model, views, pairs=PAIRS, progress=False)
        vectors = vectors_of(model, views)
        matching = []
        for one, other in PAIRS:
            for first, second in zip(vectors[one], vectors[other]):
                cosines = first @ second.T
                for row, column in itertools.product(range(len(first)), range(len(second))):
                    if cosines[row].argmax() == column and cosines[:, column].argmax() == row:
                        matching.append((first[row], second[column]))
        layer = PCAWhiten()
        layer.adapt([one for photo in vectors for one in photo], matching=tuple(map(np.array, zip(*matching))))
        np.testing.assert_allclose(learned.mean, layer.mean, atol=1e-6)
        # Directions in which nothing differs may be turned; what counts is the metric.
        for one in (learned, layer):
            assert np.isfinite(np.asarray(one.eigenvalues)).all()
        states = [(np.asarray(one.eigenvectors, "float64"), np.asarray(one.eigenvalues, "float64")) for one in (learned, layer)]
        metrics = [axes / variances @ axes.T for axes, variances in states]
        np.testing.assert_allclose(metrics[0], metrics[1], rtol=1e-2, atol=1e-3 * np.abs(metrics[1]).max())
        assert learned.provenance["pairs"] == 4
        assert "8 photos" in learned.describe() and "4 matching pairs" in learned.describe()

    @pytest.mark.slow
    def test_paths_and_positions_and_folders_say_the_same(self, tiny_model, views, tmp_path):
        for number, photo in enumerate(views):
            (tmp_path / str(number // 2)).mkdir(exist_ok=True)
            Image.fromarray(photo).save(tmp_path / str(number // 2) / f"{number}.png")
        paths = sorted(tmp_path.rglob("*.png"))
        names = [(f"{pair[0] // 2}/{pair[0]}.png", f"{pair[1] // 2}/{pair[1]}.png") for pair in PAIRS]
        found = [
            rw_keras.fit_whitening(tiny_model(), images, pairs=pairs, progress=False)
            for images, pairs in (
                (views, PAIRS),
                (views, [*PAIRS, (1, 0)]),
                (paths, [(paths[one], str(paths[other])) for one, other in PAIRS]),
                (tmp_path, names),
                (tmp_path, "folders"),
                (iter(views), PAIRS),
            )
        ]
        for other in found[1:]:
            np.testing.assert_array_equal(other.eigenvectors, found[0].eigenvectors)
            np.testing.assert_array_equal(other.eigenvalues, found[0].eigenvalues)

    @pytest.mark.slow
    def test_everything_else_takes_it_as_any_whitening(self, tiny_model, views, tmp_path):
        """Files, saved models, recipes, components, regions, the index, and the head without Keras."""
        model = tiny_model(components=6, shrinkage=0.2)
        rw_keras.fit_whitening(model, views, pairs=PAIRS, name="things", progress=False)
        expected = rw_keras.describe(model, views)
        rw_keras.save_whitening(model, tmp_path / "learned.npz")
        assert Whitening.load(tmp_path / "learned.npz").provenance["pairs"] == 4
        again = tiny_model(components=6, shrinkage=0.2, whitening=tmp_path / "learned.npz")
        model.save(tmp_path / "model.keras")
        for other in (again, rw_keras.load_model(tmp_path / "model.keras")):
            np.testing.assert_allclose(rw_keras.describe(other, views), expected, atol=1e-6)
            assert Recipe.of(other).differences(Recipe.of(model), "the other's") == []
        network, head = numpy_head.split(model)
        for photo, descriptor in zip(views, expected):
            np.testing.assert_allclose(numpy_head.run(head.steps, network(photo[None]))[0][0], descriptor, atol=1e-5)
        index = rw_keras.retrieval.Index(list(map(str, range(8))), expected)
        index.save(tmp_path / "index")
        assert json.loads(json.dumps(model.recipe.to_dict()))["whitening"]["pairs"] == 4
        unlike = tiny_model(components=6, shrinkage=0.2)
        rw_keras.fit_whitening(unlike, views, name="things", progress=False)
        differing = Recipe.of(unlike).differences(Recipe.of(model), "the other's")
        assert any("whitening pairs" in line for line in differing)

    @pytest.mark.slow
    def test_a_file_brings_the_shrinkage_that_it_was_learned_with(self, tiny_model, views, tmp_path):
        """Few pairs of many dimensions: without it, what hardly differs in them would be all that counts."""
        model = tiny_model(shrinkage=0.3)
        rw_keras.fit_whitening(model, views, pairs=PAIRS[:2], progress=False)
        rw_keras.save_whitening(model, tmp_path / "learned.npz")
        again = tiny_model(whitening=tmp_path / "learned.npz")
        assert again.recipe["whitening"]["shrinkage"] == 0.3
        np.testing.assert_allclose(rw_keras.describe(again, views), rw_keras.describe(model, views), atol=1e-5)
        by_preset = tiny_model(whitening=tmp_path / "learned.npz", preset="recommended", method="rw", scales=None)
        assert by_preset.recipe["whitening"]["shrinkage"] == by_preset.preset.shrinkage == 0.3
        with pytest.raises(ValueError, match=r"from pairs with shrinkage 0\.3, and does not go with shrinkage 0\.5"):
            tiny_model(whitening=tmp_path / "learned.npz", shrinkage=0.5)

    @pytest.mark.slow
    def test_a_photo_that_cannot_be_read_leaves_its_pairs_out(self, tiny_model, views, tmp_path):
        broken = tmp_path / "broken.jpg"
        broken.write_bytes(b"no photo")
        with pytest.warns(UserWarning, match="1 of 9 photos were left out"):
            learned = rw_keras.fit_whitening(tiny_model(), [*views, broken], pairs=[*PAIRS, (0, broken)], progress=False)
        assert learned.provenance["pairs"] == 4
        with pytest.raises(ValueError, match="no pair of which both photos could be read"):
            rw_keras.fit_whitening(tiny_model(), [*views, broken], pairs=[(0, broken)], progress=False)

    def test_black_photos_match_nothing_and_are_not_taken_for_none(self, tiny_model, views):
        black = np.zeros_like(views[0])
        with pytest.raises(ValueError, match="no pair of which both photos could be read and show something"):
            rw_keras.fit_whitening(tiny_model(), [*views, black], pairs=[(0, 8)], progress=False)

    def test_copies_are_refused(self, tiny_model, views):
        with pytest.raises(ValueError, match="one vector twice"):
            rw_keras.fit_whitening(tiny_model(), [views[0], views[0].copy(), views[1]], pairs=[(0, 1)], progress=False)

    @pytest.mark.parametrize(
        "pairs, said",
        [
            ([], "no pair of photos to learn from"),
            ("tags", "'folders', but got 'tags'"),
            ("folders", "pass a folder of photos, or their paths"),
            ([(0, 8)], "the photo 8, of which there are 8"),
            ([(-1, 2)], "the photo -1"),
            ([(3, 3)], "one photo twice"),
            ([(0, 1, 2)], r"got \(0, 1, 2\)"),
            (["ab"], "got 'ab'"),
            ([0], "got 0"),
            ([(0, True)], "got bool"),
            ([("a.jpg", "b.jpg")], "'a.jpg', which is not among the images"),
        ],
    )
    def test_what_is_no_pair_is_refused_before_a_photo_is_read(self, model, views, computed, pairs, said):
        with pytest.raises(ValueError, match=said):
            rw_keras.fit_whitening(model, views, pairs=pairs, progress=False)
        assert not computed

    def test_a_position_that_a_stream_did_not_reach(self, tiny_model, views):
        with pytest.raises(ValueError, match="names the photo 9, but there are 8"):
            rw_keras.fit_whitening(tiny_model(), iter(views), pairs=[(0, 1), (2, 9)], progress=False)


class TestMatchingVectors:
    @given(photos=st.integers(2, 9), seed=st.integers(0, 99))
    @settings(max_examples=25)
    def test_every_pair_comes_once_and_nothing_is_kept_after(self, photos, seed):
        random = np.random.default_rng(seed)
        all_pairs = list(itertools.combinations(range(photos), 2))
        pairs = [pair for pair in all_pairs if random.random() < 0.5] or all_pairs[:1]
        unread = set(random.permutation(photos)[: photos // 4].tolist())
        found, matching = [], MatchingVectors(pairs)
        for position in range(photos):
            vectors = None if position in unread else [np.full((1, 2), position + 1.0)]
            found += [(int(one[0, 0]) - 1, int(other[0, 0]) - 1) for one, other in matching.add(position, vectors)]
        assert sorted(found) == [pair for pair in pairs if not unread & set(pair)]
        assert matching.count == len(found)
        assert matching.waiting == []
        assert not matching._kept

    def test_nearest_to_each_other(self):
        one = np.array([[1, 0], [0.6, 0.8], [0, 0]])
        other = np.array([[0.8, 0.6], [0, 1], [0, 0], [1, 0]])
        first, second = nearest_to_each_other(one, other)
        np.testing.assert_array_equal(first, [[1, 0], [0.6, 0.8]])
        np.testing.assert_array_equal(second, [[1, 0], [0.8, 0.6]])
        assert nearest_to_each_other(one[2:], other)[0].shape == (0, 2)


def test_folders_of_many_photos_pair_those_that_follow():
    photos = [f"a/{number:03}.jpg" for number in range(120)] + ["b/1.jpg", "b/2.jpg", "c/1.jpg"]
    found = pair_positions("folders", photos)
    assert (120, 121) in found
    assert len(found) == 120 * 50 - 50 * 51 // 2 + 1
    assert max(other - one for one, other in found) == 50
    with pytest.raises(ValueError, match="no folder with two photos"):
        pair_positions("folders", ["a/1.jpg", "b/1.jpg"])


class TestReadPairs:
    def test_commas_tabs_quotes_and_empty_lines(self, tmp_path):
        (tmp_path / "pairs.csv").write_text('a.jpg,b.jpg\n\n"x, y.jpg", z.jpg\nc d.jpg\te.jpg\n', "utf8")
        assert read_pairs(tmp_path / "pairs.csv") == [("a.jpg", "b.jpg"), ("x, y.jpg", "z.jpg"), ("c d.jpg", "e.jpg")]

    def test_what_is_none(self, tmp_path):
        (tmp_path / "pairs.csv").write_text("a.jpg,b.jpg\na.jpg\n")
        with pytest.raises(ValueError, match=r"Row 2 of .* is 'a.jpg'"):
            read_pairs(tmp_path / "pairs.csv")
        (tmp_path / "pairs.csv").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(ValueError, match="no text in UTF-8"):
            read_pairs(tmp_path / "pairs.csv")
        with pytest.raises(FileNotFoundError, match="There is no file"):
            read_pairs(tmp_path / "none.csv")
