"""The layers for maps that are below 0 in places."""

import keras
import method_reference
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layers import reference
from layers.habits import LayerHabits, RefusesArguments, RefusesShapes, not_above_zero, only_on_tensorflow, run

from rw_keras.layers import GeMPooling, NormWeight, SignedGeMPooling


def signed(height, width, seed=0, scale=1.0):
    return (np.random.default_rng(seed).normal(size=(2, height, width, 8)) * scale).astype("float32")


class TestSignedGeMPooling(LayerHabits, RefusesShapes, RefusesArguments):
    layer = SignedGeMPooling
    arguments = {"p": 4.5}  # noqa: RUF012
    sample = np.round(signed(3, 4) * 4) / 4
    shapes = {(None, None, None, 8): (None, 8), (2, 24, 32, 8): (2, 8)}  # noqa: RUF012
    wrong_shapes = ((2, 3, 8), (8,))
    wrong_arguments = not_above_zero("p")

    @pytest.mark.parametrize("p", [0.5, 1, 3, 10])
    @pytest.mark.parametrize("scale", [1e-15, 1, 1e30])
    def test_value(self, p, scale):
        for size in ((1, 1), (3, 4), (7, 30)):
            features = signed(*size, scale=scale)
            largest = np.abs(features).max(axis=(1, 2))
            found, expected = run(SignedGeMPooling(p), features) / largest, method_reference.signed_mean(features, p) / largest
            # Where powers nearly cancel, a root takes the rounding of their sum up.
            np.testing.assert_allclose(np.sign(found) * np.abs(found) ** p, np.sign(expected) * np.abs(expected) ** p, atol=1e-6)

    def test_is_gem_where_nothing_is_below_zero(self):
        features = reference.sparse_map(7, 9)
        np.testing.assert_allclose(run(SignedGeMPooling(), features), run(GeMPooling(), features), rtol=1e-6)

    @pytest.mark.slow
    @settings(max_examples=30)
    @given(st.integers(0, 10**6), st.floats(0.5, 20))
    def test_turning_signs_turns_the_result(self, seed, p):
        features = signed(3, 4, seed)
        np.testing.assert_array_equal(run(SignedGeMPooling(p), -features), -run(SignedGeMPooling(p), features))

    def test_what_cancels_is_zero_and_so_is_a_zero_map(self):
        features = np.array([[[[1, 0], [-1, 0]]]], "float32")
        assert not run(SignedGeMPooling(), features).any()

    def test_a_place_that_is_masked_out_has_no_say(self):
        features, mask = signed(3, 4), np.ones((2, 3, 4), bool)
        mask[:, 2] = False
        found = keras.ops.convert_to_numpy(SignedGeMPooling()(features, mask=mask))
        np.testing.assert_allclose(found, run(SignedGeMPooling(), features[:, :2]), rtol=1e-5, atol=1e-6)

    @only_on_tensorflow("gradients are taken with TensorFlow's tape")
    def test_gradient_is_finite_where_powers_cancel(self):
        import tensorflow as tf

        features = tf.constant([[[[1.0, 0, 2], [-1.0, 0, 1]]]])
        with tf.GradientTape() as tape:
            tape.watch(features)
            total = tf.reduce_sum(SignedGeMPooling()(features))
        assert np.isfinite(tape.gradient(total, features).numpy()).all()


class TestNormWeight(LayerHabits, RefusesShapes):
    layer = NormWeight
    arguments = {"alpha": 3.0, "beta": 1.5}  # noqa: RUF012
    sample = np.round(signed(3, 4) * 4) / 4
    shapes = {(None, None, None, 8): (None, None, None, 8), (2, 24, 32, 8): (2, 24, 32, 8)}  # noqa: RUF012
    wrong_shapes = ((2, 3, 8), (8,))

    @pytest.mark.parametrize("scale", [1e-30, 1, 1e18])
    def test_value(self, scale):
        for size in ((1, 1), (3, 4), (7, 30)):
            features = signed(*size, scale=scale)
            expected = features.astype("float64") * method_reference.length_weight(features)
            np.testing.assert_allclose(run(NormWeight(), features), expected, rtol=1e-5)

    def test_a_zero_map_stays_zero_and_a_zero_place_too(self):
        features = signed(3, 4)
        features[0], features[1, 2, 3] = 0, 0
        found = run(NormWeight(), features)
        assert not found[0].any() and not found[1, 2, 3].any()
        assert np.isfinite(found).all()

    def test_signs_have_no_say(self):
        features = signed(3, 4)
        np.testing.assert_array_equal(np.abs(run(NormWeight(), features)), run(NormWeight(), np.abs(features)))

    @only_on_tensorflow("gradients are taken with TensorFlow's tape")
    def test_gradient_is_finite_at_zeros(self):
        import tensorflow as tf

        features = signed(2, 3)
        features[0], features[1, 0, 0] = 0, 0
        features = tf.constant(features)
        with tf.GradientTape() as tape:
            tape.watch(features)
            total = tf.reduce_sum(NormWeight()(features) ** 2)
        assert np.isfinite(tape.gradient(total, features).numpy()).all()
