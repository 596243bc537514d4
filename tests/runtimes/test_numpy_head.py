"""The head in NumPy against the layers it states."""

import keras
import numpy as np
import pytest

import rw_keras
from rw_keras import layers, methods
from rw_keras.runtimes import numpy_head
from rw_keras.runtimes.numpy_scale import scaled

CHANNELS = 12


def model_of(method, adapt=True, **arguments):
    photos = keras.Input((None, None, 3), name="photos")
    features = keras.layers.Conv2D(CHANNELS, 1, activation="relu", name="conv")(photos)
    model = rw_keras.build_descriptor(keras.Model(photos, features, name="one"), method=method, whitening=None, **arguments)
    if adapt:
        random = np.random.default_rng(5)
        whitening = next(layer for layer in model.layers if isinstance(layer, layers.PCAWhiten))
        whitening.adapt(random.normal(0.1, 0.2, (100, CHANNELS)))
    return model


def maps(height, width, seed=0, scale=1.0):
    random = np.random.default_rng(seed)
    return np.maximum(random.normal(size=(2, height, width, CHANNELS)), 0).astype("float32") * np.float32(scale)


def both(model, features):
    """The descriptors of maps by the layers, and by NumPy."""
    network, head = numpy_head.split(model)
    return np.asarray(keras.Model(network.output, model.output)(features)), numpy_head.run(head.steps, features)[0]


class TestMethods:
    @pytest.mark.parametrize("shape", [(1, 1), (3, 7), (24, 32)])
    @pytest.mark.parametrize("method", methods.OF_RECTIFIED_MAPS)
    def test_like_the_layers(self, method, shape):
        by_layers, by_numpy = both(model_of(method), maps(*shape))
        assert by_numpy.dtype == np.float32
        np.testing.assert_allclose(by_numpy, by_layers, rtol=0, atol=1e-6)

    @pytest.mark.parametrize("method", methods.OF_RECTIFIED_MAPS)
    def test_a_zero_map_gives_a_zero_descriptor(self, method):
        features = maps(5, 6)
        features[1] = 0
        by_layers, by_numpy = both(model_of(method), features)
        assert not by_numpy[1].any() and not by_layers[1].any()
        np.testing.assert_allclose(by_numpy, by_layers, rtol=0, atol=1e-6)

    @pytest.mark.parametrize("method", ["mean", "signed_gem", "signed_rmac", "signed_rw"])
    def test_signed_maps(self, method):
        photos = keras.Input((None, None, 3), name="photos")
        network = keras.Model(photos, keras.layers.Conv2D(CHANNELS, 1, name="conv")(photos), name="one")
        model = rw_keras.build_descriptor(network, method=method, whitening=None)
        features = np.random.default_rng(0).normal(size=(2, 5, 7, CHANNELS)).astype("float32")
        features[1] = 0
        by_layers, by_numpy = both(model, features)
        np.testing.assert_allclose(by_numpy, by_layers, rtol=0, atol=1e-6)
        assert not by_numpy[1].any()

    @pytest.mark.parametrize("scale", [1e-30, 1e15])
    def test_tiny_and_huge_maps(self, scale):
        by_layers, by_numpy = both(model_of("rw", adapt=False), maps(6, 9, scale=scale))
        np.testing.assert_allclose(by_numpy, by_layers, rtol=0, atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(by_numpy, axis=1), 1, rtol=1e-6)

    def test_a_channel_that_holds_nearly_everything(self):
        features = maps(20, 20)
        features[..., 1:] = 0
        features[:, 3, 4, 1] = 1
        by_layers, by_numpy = both(model_of("rw"), features)
        np.testing.assert_allclose(by_numpy, by_layers, rtol=0, atol=1e-6)

    def test_arguments_of_layers(self):
        def method(features, levels):
            return methods.rw(features, levels, alpha=1.3, beta=0.7, epsilon=3.0, pooling="max")

        by_layers, by_numpy = both(model_of(method, levels=2, components=5, shrinkage=0.3), maps(7, 9))
        assert by_numpy.shape == (2, 5)
        np.testing.assert_allclose(by_numpy, by_layers, rtol=0, atol=1e-6)


class TestScales:
    @pytest.mark.parametrize(
        ("size", "factor", "min_side"),
        [((48, 65), 0.5, 1), ((31, 17), 2**-0.5, 16), ((20, 33), 2.0, 1), ((9, 40), 0.5, 8), ((7, 9), 1, 1)],
    )
    def test_like_the_layer(self, size, factor, min_side):
        pixels = np.random.default_rng(1).integers(0, 256, (2, *size, 3), "uint8")
        expected = np.asarray(layers.ImageScale(factor, min_side)(pixels))
        found = scaled(pixels, factor, min_side)
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-4)  # of 0..255: 13 of float32's last places

    def test_like_the_formula_in_float64(self):
        pixels = np.random.default_rng(2).integers(0, 256, (1, 30, 41, 3), "uint8")
        found = scaled(pixels, 0.37, 1)[0]

        def weights(before):
            after = int(before * 0.37 + 0.5)
            x = np.abs((np.arange(after)[:, None] + 0.5) * before / after - (np.arange(before) + 0.5)) * after / before
            kernel = np.where(x < 1, 1.5 * x**3 - 2.5 * x**2 + 1, np.where(x < 2, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2, 0))
            return kernel / kernel.sum(axis=1, keepdims=True)

        expected = np.einsum("ph,hwc,qw->pqc", weights(30), pixels[0].astype("float64"), weights(41))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


class TestSplit:
    def test_the_network_is_all_before_the_map(self):
        model = model_of("rw")
        network, head = numpy_head.split(model)
        assert network.layers[-1].name == "conv"
        assert [step.kind for step in head.steps[:3]] == ["SpatialWeight", "IDFChannelWeight", "RegionalSumPooling"]

    def test_refuses_a_layer_it_does_not_know(self):
        def method(features):
            pooled = keras.layers.GlobalAveragePooling2D(name="pooled")(features)
            return keras.layers.Reshape((2, CHANNELS), name="twice")(keras.layers.Concatenate(name="pair")([pooled, pooled]))

        with pytest.raises(ValueError, match=r"its layer 'pair' \(Concatenate\).*use runtime=\"keras\""):
            numpy_head.split(model_of(method))

    def test_a_class_of_the_same_name_is_not_taken_for_ours(self):
        class L2Norm(keras.layers.Layer):
            def call(self, inputs):
                return inputs * 2

        def method(features):
            return L2Norm(name="another")(methods.rw(features))

        with pytest.raises(ValueError, match="its layer 'another'"):
            numpy_head.split(model_of(method))
