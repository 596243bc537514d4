"""The model that gives region vectors beside the descriptor."""

import keras
import numpy as np
import pytest

import rw_keras
from rw_keras.regions import region_windows

SIZES = [(48, 64), (17, 40), (8, 8)]


def outputs(model, pixels):
    return [keras.ops.convert_to_numpy(output) for output in model.with_regions()(pixels[None])]


def unit(vectors):
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-30)


@pytest.fixture(scope="module")
def whitened(tiny_model, draw):
    model = tiny_model(shrinkage=0.1)
    rw_keras.fit_whitening(model, [draw(seed, 80, 64) for seed in range(20)], progress=False)
    return model


@pytest.mark.parametrize("method", rw_keras.methods.OF_RECTIFIED_MAPS)
@pytest.mark.parametrize("size", [SIZES[0], *(pytest.param(size, marks=pytest.mark.slow) for size in SIZES[1:])], ids=str)
def test_the_descriptor_is_the_sum_of_the_vectors(known_model, draw, method, size):
    model, pixels = known_model(method=method), draw(1, *size[::-1])
    (descriptor,), (vectors,), (boxes,) = outputs(model, pixels)
    np.testing.assert_array_equal(descriptor, np.asarray(model(pixels[None]))[0])
    np.testing.assert_allclose(unit(vectors.astype("float64").sum(axis=0)), descriptor, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    windows = region_windows(size[0] // 8, size[1] // 8).astype("float64")
    expected = windows[:, [1, 0, 3, 2]] / np.tile([size[1] // 8, size[0] // 8], 2)
    np.testing.assert_allclose(boxes, expected if method in ("rw", "root_rw", "rmac") else [[0, 0, 1, 1]], rtol=1e-6)


def test_vectors_are_whitened_as_the_formula(whitened, draw):
    """Against the pooled sums, the whitening and the norms in float64."""
    pixels = draw(2, 72, 56)
    pooled = keras.Model(whitened.input, whitened.get_layer("regions").output)(pixels[None])
    layer = whitened.get_layer("whitening")
    mean, axes, eigenvalues = (np.asarray(value, "float64") for value in (layer.mean, layer.eigenvectors, layer.eigenvalues))
    scale = 1 / np.sqrt(0.9 * eigenvalues + 0.1 * eigenvalues.mean())
    expected = unit((unit(np.asarray(pooled, "float64")[0]) - mean) @ axes * scale)
    np.testing.assert_allclose(outputs(whitened, pixels)[1][0], expected, atol=1e-5)


@pytest.mark.parametrize("scales", [(1, 2**-0.5, 0.5), (0.5, 1), (0.7,)], ids=str)
def test_several_scales_come_one_after_the_other(whitened, draw, scales):
    model, pixels = rw_keras.multi_scale(whitened, scales), draw(3, 96, 72)
    (descriptor,), (vectors,), (boxes,) = outputs(model, pixels)
    np.testing.assert_allclose(descriptor, np.asarray(model(pixels[None]))[0], atol=1e-7)
    total, begin = 0, 0
    for scale in scales:
        resized = np.asarray(rw_keras.layers.ImageScale(scale, model.min_side)(pixels[None]))[0]
        (one,), (own_vectors,), (own_boxes,) = outputs(whitened, resized)
        end = begin + len(own_vectors)
        np.testing.assert_allclose(vectors[begin:end], own_vectors, atol=1e-5)
        np.testing.assert_array_equal(boxes[begin:end], own_boxes)
        total, begin = total + one, end
    assert begin == len(vectors) == len(boxes)
    np.testing.assert_allclose(unit(total), descriptor, atol=1e-6)


@pytest.mark.parametrize("is_multi_scale", [False, True])
def test_a_black_photo_gives_zeros(known_model, draw, is_multi_scale):
    model = rw_keras.multi_scale(known_model()) if is_multi_scale else known_model()
    pixels = np.stack([np.zeros((48, 64, 3), "uint8"), draw(1)])
    descriptors, vectors, boxes = (np.asarray(output) for output in model.with_regions()(pixels))
    assert not descriptors[0].any() and not vectors[0].any()
    assert vectors[1].any()
    assert (boxes[:, :, 2:] > boxes[:, :, :2]).all()
    np.testing.assert_array_equal(boxes[0], boxes[1])


class TestMethodsOfOnesOwn:
    def boxes(self, tiny_model, draw, method):
        return outputs(tiny_model(method=method), draw(1))[2][0].tolist()

    def test_without_a_grid_it_is_not_known_where_regions_lie(self, tiny_model, draw):
        assert self.boxes(tiny_model, draw, lambda features: keras.layers.Reshape((-1, 12))(features)) == [[0, 0, 0, 0]] * 48

    def test_one_region_is_the_whole_photo(self, tiny_model, draw):
        def method(features):
            total = rw_keras.layers.RegionSum(name="total")(rw_keras.layers.RegionalMaxPooling()(features))
            return keras.layers.Reshape((1, 12))(total)

        assert self.boxes(tiny_model, draw, method) == [[0, 0, 1, 1]]

    def test_of_two_grids_it_is_not_known_which(self, tiny_model, draw):
        def method(features):
            grids = [rw_keras.layers.RegionalMaxPooling(levels)(features) for levels in (1, 2)]
            return keras.layers.Concatenate(axis=1)(grids)

        assert not np.any(self.boxes(tiny_model, draw, method))

    def test_a_grid_whose_regions_were_changed_is_not_theirs(self, tiny_model, draw):
        def method(features):
            return keras.layers.Reshape((-1, 12))(rw_keras.layers.RegionalMaxPooling()(features)[:, :-1])

        assert not np.any(self.boxes(tiny_model, draw, method))


class TestModel:
    def test_is_made_once_and_follows_the_weights(self, tiny_model, draw):
        model = tiny_model()
        several = rw_keras.multi_scale(model)
        assert model.with_regions() is model.with_regions()
        before = outputs(several, draw(1))[1]
        model.get_layer("whitening").adapt(np.random.default_rng(0).normal(size=(40, 12)))
        after = outputs(several, draw(1))[1]
        assert np.abs(after - before).max() > 0.01

    @pytest.mark.parametrize("is_multi_scale", [False, True])
    def test_a_loaded_model_has_one(self, whitened, draw, tmp_path, is_multi_scale):
        model = rw_keras.multi_scale(whitened) if is_multi_scale else whitened
        expected = outputs(model, draw(1))
        model.save(tmp_path / "model.keras")
        loaded = rw_keras.load_model(tmp_path / "model.keras")
        assert loaded.recipe == model.recipe
        for found, wanted in zip(outputs(loaded, draw(1)), expected):
            np.testing.assert_allclose(found, wanted, atol=1e-6)

    def test_can_be_saved_itself(self, known_model, draw, tmp_path):
        model = rw_keras.multi_scale(known_model())
        model.with_regions().save(tmp_path / "regions.keras")
        loaded = keras.saving.load_model(tmp_path / "regions.keras", safe_mode=True)
        for found, wanted in zip(loaded(draw(1)[None]), outputs(model, draw(1))):
            np.testing.assert_allclose(found, wanted, atol=1e-6)

    def test_predicts_batches(self, known_model, draw):
        model, pixels = known_model(), np.stack([draw(1), draw(2), draw(3)])
        found = model.with_regions().predict(pixels, batch_size=2, verbose=0)
        for one, wanted in zip(found, model.with_regions()(pixels)):
            np.testing.assert_allclose(one, wanted, atol=1e-6)

    def test_small_photos_are_refused(self, known_model):
        with pytest.raises(ValueError, match="too small for 'rw_tiny_regions': each side needs 8"):
            known_model().with_regions()(np.zeros((1, 7, 40, 3), "uint8"))

    @pytest.mark.parametrize("is_multi_scale", [False, True])
    def test_a_whitened_sum_has_no_vectors(self, known_model, is_multi_scale):
        model = known_model(whiten_on="global")
        model = rw_keras.multi_scale(model) if is_multi_scale else model
        with pytest.raises(ValueError, match=r'whiten_on="global".*build it with whiten_on="regions"'):
            model.with_regions()

    def test_a_model_around_another_is_refused(self, known_model):
        inner = known_model()
        photos = keras.Input((None, None, 3))
        around = rw_keras.model.descriptor_model.DescriptorModel(photos, inner(photos), name="around")
        with pytest.raises(ValueError, match=r"'around' is built around 'rw_tiny', but not by rw_keras\.multi_scale"):
            around.with_regions()
