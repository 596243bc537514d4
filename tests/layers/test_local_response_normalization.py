import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from layers import reference
from layers.habits import (
    BACKEND,
    LayerHabits,
    RefusesArguments,
    RefusesShapes,
    not_above_zero,
    not_counting,
    only_on_tensorflow,
    run,
)

from rw_keras.layers import LocalResponseNormalization

SIZES = [(1, 1), (1, 7), (3, 4)]
CHANNELS = [1, 2, 3, 5, 96]
RELATIVE_ERROR = 1e-6

# A loud setting: the quotient is far from 1 for maps of ordinary size, and the sides differ from the defaults.
LOUD = {"depth_radius": 3, "bias": 2.0, "alpha": 0.5, "beta": 1.25}


def expected(features, depth_radius=2, bias=1.0, alpha=2e-5, beta=0.75):
    """The formula in float64, channel by channel."""
    features = np.asarray(features, "float64")
    found = np.empty_like(features)
    for channel in range(features.shape[-1]):
        around = features[..., max(0, channel - depth_radius) : channel + depth_radius + 1]
        found[..., channel] = features[..., channel] / (bias + alpha * (around**2).sum(axis=-1)) ** beta
    return found


def random_map(*shape, scale=300.0, seed=0):
    """Values either side of 0, of the size that AlexNet's first layers give."""
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype("float32")


class TestLocalResponseNormalization(LayerHabits, RefusesShapes, RefusesArguments):
    layer = LocalResponseNormalization
    arguments = {"depth_radius": 1, "bias": 2.0, "alpha": 0.5, "beta": 0.25}  # noqa: RUF012
    sample = np.arange(-48, 48, dtype="float32").reshape(2, 3, 4, 4)
    shapes = {  # noqa: RUF012
        (None, None, None, 8): (None, None, None, 8),
        (2, 24, None, 1): (2, 24, None, 1),
        (2, 24, 32, 8): (2, 24, 32, 8),
        (None, 8): (None, 8),
        (None, None, 8): (None, None, 8),
        (5,): (5,),
    }
    wrong_shapes = ((),)
    wrong_arguments = (
        *not_counting("depth_radius"),
        *not_above_zero("bias"),
        *not_above_zero("alpha"),
        *not_above_zero("beta"),
    )

    def test_defaults_are_those_of_alexnet_in_caffe(self):
        layer = LocalResponseNormalization()
        assert (layer.depth_radius, layer.bias, layer.alpha, layer.beta) == (2, 1.0, 1e-4 / 5, 0.75)

    @pytest.mark.parametrize("settings", [{}, LOUD], ids=["defaults", "loud"])
    @pytest.mark.parametrize("channels", CHANNELS)
    @pytest.mark.parametrize("size", SIZES)
    def test_value(self, size, channels, settings):
        features = random_map(2, *size, channels)
        found = run(LocalResponseNormalization(**settings), features)
        np.testing.assert_allclose(found, expected(features, **settings), rtol=5 * RELATIVE_ERROR)

    @pytest.mark.parametrize("depth_radius", [1, 2, 4, 5, 6, 20])
    def test_value_with_other_radii(self, depth_radius):
        """Up to one that reaches beyond all channels."""
        features = random_map(2, 3, 4, 6)
        settings = {**LOUD, "depth_radius": depth_radius}
        found = run(LocalResponseNormalization(**settings), features)
        np.testing.assert_allclose(found, expected(features, **settings), rtol=5 * RELATIVE_ERROR)

    @pytest.mark.parametrize("kind", reference.MAPS)
    def test_value_of_a_relu(self, kind):
        features = reference.MAPS[kind](3, 5)
        found = run(LocalResponseNormalization(alpha=0.1), features)
        np.testing.assert_allclose(found, expected(features, alpha=0.1), rtol=2e-5)

    @pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5), (2, 3, 4, 5), (2, 2, 3, 2, 5)])
    def test_the_last_axis_is_that_of_the_channels_at_any_rank(self, shape):
        features = random_map(*shape)
        found = run(LocalResponseNormalization(), features)
        assert found.shape == shape
        np.testing.assert_allclose(found, expected(features), rtol=5 * RELATIVE_ERROR)

    @pytest.mark.parametrize("channels", CHANNELS)
    def test_zeros_stay_zeros(self, channels):
        found = run(LocalResponseNormalization(), np.zeros((2, 3, 4, channels), "float32"))
        assert not found.any()

    def test_worked_out_by_hand(self):
        """One channel that fires counts for its two neighbours on either side, and for no other."""
        features = np.array([[1, 1, 1, 3, 1, 1, 1]], "float32")
        found = run(LocalResponseNormalization(alpha=1.0, beta=1.0), features)
        np.testing.assert_allclose(found, [[1 / 4, 1 / 13, 1 / 14, 3 / 14, 1 / 14, 1 / 13, 1 / 4]], rtol=RELATIVE_ERROR)

    @pytest.mark.parametrize("hot", [0, 1, 3, 5, 6])
    def test_one_hot_channel(self, hot):
        features = np.zeros((1, 2, 2, 7), "float32")
        features[..., hot] = 500
        found = run(LocalResponseNormalization(), features)
        np.testing.assert_allclose(found[..., hot], 500 / (1 + 2e-5 * 500**2) ** 0.75, rtol=RELATIVE_ERROR)
        assert not np.delete(found, hot, axis=-1).any()

    @pytest.mark.parametrize("scale", [1e18, 1e12, 1e-3, 1e-12, 1e-18, 1e-30])
    @pytest.mark.parametrize("settings", [{}, {"beta": 0.5}], ids=["defaults", "square root"])
    def test_huge_and_tiny_values(self, scale, settings):
        features = random_map(1, 2, 3, 7, scale=scale)
        found = run(LocalResponseNormalization(**settings), features)
        np.testing.assert_allclose(found, expected(features, **settings), rtol=2e-5)

    def test_mask_is_passed_on(self):
        features, mask = keras.ops.ones((2, 3, 4)), keras.ops.convert_to_tensor([[True, True, False], [True, False, False]])
        assert LocalResponseNormalization().supports_masking
        assert LocalResponseNormalization().compute_mask(features, mask) is mask

    def test_unknown_number_of_channels_is_refused(self):
        with pytest.raises(ValueError, match=r"LocalResponseNormalization 'stage' .*\(2, None, None\)"):
            LocalResponseNormalization(name="stage")(keras.Input(batch_shape=(2, None, None)))

    @pytest.mark.skipif(BACKEND == "jax", reason="JAX computes in float32 unless it is told otherwise")
    def test_float64_policy(self, set_policy):
        set_policy("float64")
        features = random_map(2, 3, 4, 7).astype("float64")
        found = run(LocalResponseNormalization(**LOUD), features)
        assert found.dtype == "float64"
        np.testing.assert_allclose(found, expected(features, **LOUD), rtol=1e-13)

    def test_longer_than_float16_reaches(self, set_policy):
        set_policy("mixed_float16")
        features = np.full((1, 2, 2, 5), 30000, "float16")
        np.testing.assert_allclose(run(LocalResponseNormalization(), features), expected(features), rtol=2e-5)

    @pytest.mark.parametrize("settings", [{}, LOUD], ids=["defaults", "loud"])
    def test_is_that_of_pytorch_whose_alpha_is_for_all_neighbours(self, settings):
        torch = pytest.importorskip("torch", reason="the comparison needs PyTorch")
        features = random_map(2, 3, 5, 9)
        layer = LocalResponseNormalization(**settings)
        size = 2 * layer.depth_radius + 1
        theirs = torch.nn.LocalResponseNorm(size, layer.alpha * size, layer.beta, layer.bias)
        found = theirs(torch.tensor(features.astype("float64")).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        np.testing.assert_allclose(run(layer, features), found.numpy(), rtol=5 * RELATIVE_ERROR)

    @only_on_tensorflow("the comparison is with TensorFlow's own")
    @pytest.mark.parametrize("settings", [{}, LOUD], ids=["defaults", "loud"])
    def test_is_that_of_tensorflow(self, settings):
        import tensorflow as tf

        features = random_map(2, 3, 5, 9)
        layer = LocalResponseNormalization(**settings)
        found = tf.nn.local_response_normalization(features, layer.depth_radius, layer.bias, layer.alpha, layer.beta)
        np.testing.assert_allclose(run(layer, features), found, rtol=1e-5)

    @only_on_tensorflow("gradients are taken with TensorFlow's tape")
    def test_gradient_is_that_of_the_formula_and_finite_at_zero(self):
        import tensorflow as tf

        features = tf.constant([[1.0, -2.0, 0.5, 3.0], [0.0, 0.0, 0.0, 0.0]])
        settings = {"depth_radius": 1, "bias": 2.0, "alpha": 0.5, "beta": 1.25}
        with tf.GradientTape() as tape:
            tape.watch(features)
            total = tf.reduce_sum(LocalResponseNormalization(**settings)(features) * [1.0, 2.0, 3.0, 4.0])
        found = tape.gradient(total, features).numpy()
        steps = 1e-6 * np.eye(4)
        more, less = ((expected(features[0].numpy() + step, **settings) * [1, 2, 3, 4]).sum(axis=-1) for step in (steps, -steps))
        np.testing.assert_allclose(found[0], (more - less) / 2e-6, rtol=1e-5)
        np.testing.assert_allclose(found[1], np.array([1, 2, 3, 4]) / 2**1.25, rtol=RELATIVE_ERROR)

    @settings(max_examples=50)
    @given(
        arrays.arrays("float32", st.tuples(st.integers(1, 3), st.integers(1, 9)), elements=st.floats(-1e6, 1e6, width=32)),
        st.integers(1, 5),
        st.floats(0.1, 10),
        st.floats(1e-5, 1),
        st.floats(0.1, 2),
    )
    def test_keeps_the_sign_and_shrinks(self, features, depth_radius, bias, alpha, beta):
        found = run(LocalResponseNormalization(depth_radius, bias, alpha, beta), features)
        largest = np.abs(features.astype("float64")) * bias**-beta
        assert (np.abs(found) <= largest * (1 + 1e-5) + 1e-37).all()
        wanted = expected(features, depth_radius, bias, alpha, beta)
        ordinary = np.abs(wanted) > 1e-30  # below 1e-38 some processors give 0
        np.testing.assert_array_equal(np.sign(found)[ordinary], np.sign(features)[ordinary])
        np.testing.assert_allclose(found, wanted, rtol=5e-5, atol=1e-37)
