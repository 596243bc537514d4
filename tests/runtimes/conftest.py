"""What the tests of engines share: a cache folder of their own, and small networks."""

import importlib.util

import keras
import numpy as np
import pytest

import rw_keras
from rw_keras import layers
from rw_keras.runtimes import describer


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    """The folder that engines keep their files in; the user's own is left alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "rw_keras" / "engines"


@pytest.fixture(autouse=True)
def small_check(monkeypatch):
    """Engines are checked on smaller photos than a user's, in a tenth of the time."""
    monkeypatch.setattr(describer, "_CHECK_SIDE", 96)


@pytest.fixture(scope="session", params=["openvino", "ncnn"])
def engine(request):
    """The name of each engine beside TensorFlow; a test of one that is not installed is skipped."""
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return request.param


def _vgg_like():
    photos = keras.Input((None, None, 3), name="photos")
    x = layers.ImageNetPreprocessing(name="preprocessing")(photos)
    for number, (width, pooled) in enumerate([(8, True), (16, True), (24, False)]):
        x = keras.layers.Conv2D(width, 3, padding="same", activation="relu", name=f"conv{number}")(x)
        x = keras.layers.MaxPooling2D(2, name=f"pool{number}")(x) if pooled else x
    return keras.Model(photos, x, name="vgg_like")


def _alexnet_like():
    photos = keras.Input((None, None, 3), name="photos")
    x = layers.ImageNetPreprocessing((104.0, 116.7, 122.7), name="preprocessing")(photos)
    x = keras.layers.Conv2D(16, 5, strides=2, activation="relu", name="conv1")(x)
    x = layers.LocalResponseNormalization(name="norm1")(x)
    x = keras.layers.ZeroPadding2D(((0, 1), (0, 1)), name="edge1")(x)
    x = keras.layers.MaxPooling2D(3, 2, name="pool1")(x)
    x = layers.GroupedConv2D(24, 3, padding="same", groups=2, activation="relu", name="conv2")(x)
    return keras.Model(photos, x, name="alexnet_like")


def _resnet_like():
    photos = keras.Input((None, None, 3), name="photos")
    x = keras.layers.Rescaling([1 / 58, 1 / 57, 1 / 57], [-2.1, -2.0, -1.8], name="preprocessing")(photos)
    x = keras.layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False, name="conv1")(x)
    x = keras.layers.BatchNormalization(name="bn1")(x)
    x = stem = keras.layers.Activation("relu", name="relu1")(x)
    x = keras.layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, name="depthwise")(x)
    x = keras.layers.ReLU(6.0, name="relu6")(x)
    x = keras.layers.Conv2D(8, 1, activation="silu", name="conv2")(x)
    x = keras.layers.Add(name="add")([x, stem])
    x = keras.layers.Concatenate(name="both")([x, stem])
    x = keras.layers.MaxPooling2D(3, 2, padding="same", name="pool")(x)
    x = keras.layers.AveragePooling2D(2, 1, name="mean")(x)
    return keras.Model(photos, keras.layers.ReLU(name="features")(x), name="resnet_like")


@pytest.fixture(scope="session", params=[_vgg_like, _alexnet_like, _resnet_like], ids=["vgg", "alexnet", "resnet"])
def described(request):
    """A descriptor model on a few layers with random weights, biases and statistics, for tests that leave it as it is."""
    return rw_keras.build_descriptor(with_random_weights(request.param()), whitening=None)


@pytest.fixture
def vgg_like():
    """A descriptor model on three convolutions, whitened at random, that no engine has seen yet."""
    return whitened(rw_keras.build_descriptor(with_random_weights(_vgg_like()), whitening=None))


@pytest.fixture(scope="session")
def known():
    """The same, one for all the tests that leave it as it is: what engines have built of it stays in memory."""
    return whitened(rw_keras.build_descriptor(with_random_weights(_vgg_like()), whitening=None))


def with_random_weights(network, seed=0):
    random = np.random.default_rng(seed)
    for variable in network.variables:
        values = random.normal(0.1, 0.3, variable.shape)
        if len(variable.shape) == 4:
            values = random.normal(0, (2 / np.prod(variable.shape[:3])) ** 0.5, variable.shape)
        variable.assign(np.abs(values) + 0.5 if "variance" in variable.name else values)
    return network


def whitened(model, seed=0):
    """The model with a whitening of vectors drawn at random."""
    layer = next(stage for stage in model.layers if isinstance(stage, layers.PCAWhiten))
    dimensions = layer.mean.shape[0]
    random = np.random.default_rng(seed)
    layer.adapt(random.normal(size=(200, dimensions)) @ random.normal(size=(dimensions, dimensions)) * 0.05 + 0.1)
    return model
