"""The gradient of every layer, by the backend's own differentiation, beside differences of values in float64."""

import functools

import keras
import numpy as np
import pytest
from keras import ops
from layers import reference
from layers.habits import BACKEND

from rw_keras.layers import (
    CenterPrior,
    CroWChannelWeight,
    GeMPooling,
    IDFChannelWeight,
    ImageNetPreprocessing,
    L2Norm,
    LocalResponseNormalization,
    PCAWhiten,
    PowerNorm,
    RegionalMaxPooling,
    RegionalSumPooling,
    RegionSum,
    SpatialWeight,
)

# Of values around 1: what is rounded off and what the next order adds are both far below the tolerance. On PyTorch, Keras
# multiplies matrices of float64 in float32.
STEP, TOLERANCE = (1e-3, 2e-3) if BACKEND == "torch" else (1e-6, 1e-7)


@pytest.fixture(autouse=True)
def double_precision():
    """JAX has float64 only where it is asked for."""
    if BACKEND != "jax":
        yield
        return
    import jax

    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


def gradients(function, weights, *arrays):
    """The gradient of the weighted sum of what a function of arrays gives, with respect to each, by the backend."""

    def total(*tensors):
        return ops.sum(function(*tensors) * ops.convert_to_tensor(weights))

    if BACKEND == "tensorflow":
        import tensorflow as tf

        tensors = [tf.constant(array) for array in arrays]
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            result = total(*tensors)
        found = tape.gradient(result, tensors)
    elif BACKEND == "jax":
        import jax

        function(*(jax.numpy.asarray(array) for array in arrays))  # builds the layers
        found = jax.grad(total, argnums=tuple(range(len(arrays))))(*(jax.numpy.asarray(array) for array in arrays))
    else:
        import torch

        tensors = [torch.tensor(array, requires_grad=True) for array in arrays]
        found = torch.autograd.grad(total(*tensors), tensors)
    found = [ops.convert_to_numpy(one) for one in found]
    for one, array in zip(found, arrays):
        assert one.shape == array.shape
        assert one.dtype == array.dtype
    return found


def differences(function, weights, arrays, which, step=STEP, one_sided=False):
    """The same with respect to one of the arrays `(1, ...)`, by its value a step to either side of each element."""
    base = arrays[which]
    steps = step * np.eye(base.size).reshape(base.size, *base.shape[1:])

    def values(moved):
        many = [np.repeat(array, base.size, axis=0) for array in arrays]
        many[which] = np.broadcast_to(moved, steps.shape)
        found = ops.convert_to_numpy(function(*map(ops.convert_to_tensor, many)))
        return (found * weights).reshape(base.size, -1).sum(axis=1)

    slopes = (values(base + steps) - values(base - (0 if one_sided else steps))) / (step if one_sided else 2 * step)
    return slopes.reshape(base.shape)


def weights_of(function, *arrays):
    """For each element of what a function gives its weight in the sum that is differentiated."""
    found = ops.convert_to_numpy(function(*map(ops.convert_to_tensor, arrays)))
    assert BACKEND == "torch" or found.dtype == arrays[0].dtype
    return np.random.default_rng(7).normal(size=found.shape).astype(found.dtype)


def assert_differentiates(function, *arrays, where=None):
    """That the gradient is the slope, with respect to each array; of the first at the elements `where` alone."""
    weights = weights_of(function, *arrays)
    for which, found in enumerate(gradients(function, weights, *arrays)):
        expected = differences(function, weights, arrays, which)
        at = where if which == 0 and where is not None else np.full(found.shape, True)
        assert np.abs(found[at]).max() > 1e-3  # there is something to compare
        np.testing.assert_allclose(found[at], expected[at], atol=TOLERANCE * max(1, np.abs(expected[at]).max()), rtol=TOLERANCE)


def whitening(dtype, **arguments):
    layer = PCAWhiten(dtype=dtype, **arguments)
    layer.adapt(reference.unit(np.random.default_rng(3).gamma(1, 1, (200, 8))))
    return layer


def chain(dtype, shrinkage=0.0, boxes=False):
    """All layers from a map to a descriptor, whitened."""
    weigh = SpatialWeight(dtype=dtype), IDFChannelWeight(dtype=dtype)
    pool, whiten = RegionalSumPooling(dtype=dtype), whitening(dtype, shrinkage=shrinkage)
    after = L2Norm(dtype=dtype), RegionSum(dtype=dtype), L2Norm(dtype=dtype)
    norm = L2Norm(dtype=dtype)

    def describe(features, *boxes):
        for layer in weigh:
            features = layer(features)
        vectors = whiten(norm(pool(features, boxes=boxes[0]) if boxes else pool(features)))
        for layer in after:
            vectors = layer(vectors)
        return vectors

    return describe


def one_after_another(*makes):
    """Layers of a method, then those that make its region vectors a descriptor, whitened."""

    def make(dtype):
        stages = [one(dtype=dtype) for one in makes]
        stages += [L2Norm(dtype=dtype), whitening(dtype), L2Norm(dtype=dtype), RegionSum(dtype=dtype), L2Norm(dtype=dtype)]
        return lambda features: functools.reduce(lambda values, stage: stage(values), stages, features)

    return make


def boxed(dtype):
    layer = RegionalSumPooling(dtype=dtype)
    return lambda features, boxes: layer(features, boxes=boxes)


OF_MAPS = {
    "SpatialWeight": lambda dtype: SpatialWeight(dtype=dtype),
    "SpatialWeight of other norms": lambda dtype: SpatialWeight(1.5, 3, dtype=dtype),
    "IDFChannelWeight": lambda dtype: IDFChannelWeight(dtype=dtype),
    "CroWChannelWeight": lambda dtype: CroWChannelWeight(dtype=dtype),
    "CenterPrior": lambda dtype: CenterPrior(dtype=dtype),
    "RegionalSumPooling": lambda dtype: RegionalSumPooling(dtype=dtype),
    "RegionalMaxPooling": lambda dtype: RegionalMaxPooling(dtype=dtype),
    "GeMPooling": lambda dtype: GeMPooling(dtype=dtype),
    "GeMPooling of the mean": lambda dtype: GeMPooling(1, dtype=dtype),
    "GeMPooling of a root": lambda dtype: GeMPooling(0.5, dtype=dtype),
    "PowerNorm": lambda dtype: PowerNorm(dtype=dtype),
    "PowerNorm of a square": lambda dtype: PowerNorm(2, dtype=dtype),
    "L2Norm": lambda dtype: L2Norm(dtype=dtype),
    "L2Norm of places": lambda dtype: L2Norm(axis=1, dtype=dtype),
    "LocalResponseNormalization": lambda dtype: LocalResponseNormalization(dtype=dtype, alpha=0.3),
    "rw": chain,
    "rw with shrinkage": lambda dtype: chain(dtype, 0.2),
    "rmac": one_after_another(RegionalMaxPooling),
    "root_rw": one_after_another(SpatialWeight, IDFChannelWeight, RegionalSumPooling, PowerNorm),
    "crow over regions": one_after_another(SpatialWeight, CroWChannelWeight, RegionalSumPooling),
}
OF_VECTORS = {
    "L2Norm": lambda dtype: L2Norm(dtype=dtype),
    "PowerNorm": lambda dtype: PowerNorm(dtype=dtype),
    "PowerNorm of another exponent": lambda dtype: PowerNorm(1.7, dtype=dtype),
    "PCAWhiten": whitening,
    "PCAWhiten with shrinkage": lambda dtype: whitening(dtype, shrinkage=0.3),
    "PCAWhiten of fewer": lambda dtype: whitening(dtype, components=5),
    "PCAWhiten of zeros as of any": lambda dtype: whitening(dtype, mask_zero=False),
    "PCAWhiten, not adapted": lambda dtype: PCAWhiten(dtype=dtype),
    "RegionSum": lambda dtype: RegionSum(dtype=dtype),
}
# Top, left, bottom, right with no edge on one between cells, where the slope with respect to it jumps.
BOXES = np.array(
    [[[0.3, 1.2, 2.6, 3.7], [1.1, 0.4, 1.8, 0.9], [-1.5, -0.5, 2.5, 1.5], [0.5, 2.3, 8.5, 9.5], [2.5, 3.5, 2.9, 3.9]]], "float64"
)


def dense(dtype="float64"):
    return (reference.dense_map(3, 4, batch=1) + 0.1).astype(dtype)


def sparse():
    """A map of which the last channel and one cell are zero, as others may be; no element lies between 0 and 0.1."""
    features = reference.sparse_map(3, 4, batch=1, seed=5) / 20
    features = np.where(features > 0, features + 0.1, 0)
    features[0, 1, 2] = 0
    return features.astype("float64")


class TestIsTheSlope:
    @pytest.mark.parametrize("make", OF_MAPS.values(), ids=OF_MAPS)
    def test_of_a_map_without_zeros(self, make):
        assert_differentiates(make("float64"), dense())

    @pytest.mark.parametrize("make", OF_MAPS.values(), ids=OF_MAPS)
    def test_where_a_map_with_zeros_fires(self, make):
        features = sparse()
        assert_differentiates(make("float64"), features, where=features > 0)

    def test_of_spatial_weight_at_zeros_beside_what_fires(self):
        features = sparse()
        active = np.broadcast_to(features.sum(axis=-1, keepdims=True) > 0, features.shape)
        assert (features[active] == 0).any()
        assert_differentiates(SpatialWeight(dtype="float64"), features, where=active)

    def test_of_spatial_weight_at_a_place_where_nothing_fires_is_that_to_its_right(self):
        features, layer = sparse(), SpatialWeight(dtype="float64")
        silent = np.broadcast_to(features.sum(axis=-1, keepdims=True) == 0, features.shape)
        weights = weights_of(layer, features)
        (found,) = gradients(layer, weights, features)
        expected = differences(layer, weights, [features], 0, step=1e-9, one_sided=True)
        assert silent.any()
        np.testing.assert_allclose(found[silent], expected[silent], atol=1e-3)

    @pytest.mark.parametrize("make", OF_VECTORS.values(), ids=OF_VECTORS)
    def test_of_vectors(self, make):
        assert_differentiates(make("float64"), np.random.default_rng(1).normal(size=(1, 5, 8)))

    def test_of_signed_channels(self):
        assert_differentiates(
            LocalResponseNormalization(dtype="float64", beta=1.5), np.random.default_rng(1).normal(size=(1, 2, 3, 8))
        )

    def test_of_pixels(self):
        assert_differentiates(ImageNetPreprocessing(dtype="float64"), np.random.default_rng(1).uniform(0, 255, (1, 3, 4, 3)))

    def test_of_boxes_and_of_the_map_below_them(self):
        assert_differentiates(boxed("float64"), dense(), BOXES)
        features = sparse()
        assert_differentiates(boxed("float64"), features, BOXES, where=features > 0)

    def test_of_boxes_through_the_whole_chain(self):
        assert_differentiates(chain("float64"), dense(), BOXES)

    def test_of_a_box_by_hand(self):
        features = np.arange(1.0, 7.0).reshape(1, 2, 3, 1)  # 1 2 3 / 4 5 6
        box = np.array([[[0.5, 1, 1.25, 2.5]]])
        _, found = gradients(boxed("float64"), np.ones((1, 1, 1)), features, box)
        # Of top and bottom: the row that the edge runs through, from left to right.
        np.testing.assert_allclose(found[0, 0, [0, 2]], [-(2 + 0.5 * 3), 5 + 0.5 * 6], rtol=1e-12)
        # Of the right edge: its column, half of the upper cell and a quarter of the lower one.
        np.testing.assert_allclose(found[0, 0, 3], 0.5 * 3 + 0.25 * 6, rtol=1e-12)

    def test_is_none_of_what_is_masked(self):
        features = dense()
        mask = np.ones((1, 3, 4), bool)
        mask[0, 1] = mask[0, 2, 3] = False
        kinds = (
            SpatialWeight,
            IDFChannelWeight,
            CroWChannelWeight,
            CenterPrior,
            RegionalSumPooling,
            RegionalMaxPooling,
            GeMPooling,
        )
        for layer in (kind(dtype="float64") for kind in kinds):
            for value in (0.7, np.nan):
                given = np.where(mask[..., None], features, value)

                def function(features, layer=layer):
                    return layer(features, mask=ops.broadcast_to(ops.convert_to_tensor(mask), ops.shape(features)[:3]))

                weights = weights_of(function, given)
                (found,) = gradients(function, weights, given)
                assert not found[~mask].any()
                expected = differences(function, weights, [given], 0)
                np.testing.assert_allclose(found[mask], expected[mask], atol=TOLERANCE * 10)


def zeroed(*places):
    features = reference.dense_map(3, 4, batch=1)
    for place in places:
        features[(0, *place)] = 0
    return features


EVERYWHERE = slice(None)
ZEROS = {
    "zero map": lambda: np.zeros((1, 3, 4, 8), "float32"),
    "zero channel": lambda: zeroed((EVERYWHERE, EVERYWHERE, 3)),
    "all channels zero but one": lambda: zeroed((EVERYWHERE, EVERYWHERE, slice(1, None))),
    "zero cell": lambda: zeroed((1, 2)),
    "all cells zero but one": lambda: reference.hot_map(3, 4, batch=1),
    "zero region": lambda: zeroed((EVERYWHERE, slice(0, 3))),
    "sparse": lambda: reference.sparse_map(3, 4, batch=1),
    "tiny": lambda: reference.sparse_map(3, 4, batch=1) * np.float32(1e-20),
    "huge": lambda: reference.sparse_map(3, 4, batch=1) * np.float32(1e15),
}


@pytest.mark.slow
class TestIsFinite:
    @pytest.mark.parametrize("kind", ZEROS)
    @pytest.mark.parametrize("make", OF_MAPS.values(), ids=OF_MAPS)
    def test_of_a_map(self, make, kind):
        function, features = make("float32"), ZEROS[kind]().astype("float32")
        (found,) = gradients(function, weights_of(function, features), features)
        assert np.isfinite(found).all()

    @pytest.mark.parametrize("make", OF_VECTORS.values(), ids=OF_VECTORS)
    def test_of_zero_vectors(self, make):
        vectors = np.random.default_rng(1).normal(size=(2, 5, 8)).astype("float32")
        vectors[0, 2] = vectors[1] = 0
        function = make("float32")
        (found,) = gradients(function, weights_of(function, vectors), vectors)
        assert np.isfinite(found).all()

    @pytest.mark.parametrize("kind", ZEROS)
    @pytest.mark.parametrize("make", [boxed, chain])
    def test_of_boxes(self, make, kind):
        """On and off the edges of cells, inside and outside, without an area, upside down."""
        boxes = np.array(
            [[0, 0, 3, 4], [1, 1, 2, 2], [0.5, 0.5, 1.5, 2.25], [0, 0, 0, 0], [2, 3, 1, 1], [5, 5, 9, 9], [-4, -4, -1, -1]],
            "float32",
        )[None]
        function, features = make("float32"), ZEROS[kind]().astype("float32")
        found = gradients(function, weights_of(function, features, boxes), features, boxes)
        for one in found:
            assert np.isfinite(one).all()


@pytest.mark.slow
def test_of_a_map_in_float32_is_that_in_float64():
    """As it is trained with."""
    for make in OF_MAPS.values():
        single, double = make("float32"), make("float64")
        features = dense("float32")
        weights = weights_of(single, features)
        (found,) = gradients(single, weights, features)
        (expected,) = gradients(double, weights.astype("float64"), features.astype("float64"))
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_training_moves_a_map_towards_a_descriptor():
    """A step against the gradient, through the whole chain, as an optimiser takes it."""
    describe = chain("float64")
    wanted = ops.convert_to_numpy(describe(ops.convert_to_tensor(reference.dense_map(3, 4, batch=1, seed=8).astype("float64"))))
    features = dense()

    def likeness(features):
        return ops.convert_to_numpy(describe(ops.convert_to_tensor(features))) @ wanted[0]

    before = likeness(features)
    for _ in range(10):
        (slope,) = gradients(describe, wanted, features)
        features = np.maximum(features + 0.02 * slope / np.abs(slope).max(), 0.01)
    assert likeness(features) > before + 0.01


def test_layer_of_double_precision_saves_what_it_is(tmp_path):
    inputs = keras.Input((None, None, 8), dtype="float64")
    model = keras.Model(inputs, chain("float64")(inputs))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    found, expected = (ops.convert_to_numpy(one(dense())) for one in (loaded, model))
    assert found.dtype == "float64"
    np.testing.assert_array_equal(found, expected)
