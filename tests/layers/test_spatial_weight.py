import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layers import reference
from layers.habits import LayerHabits, RefusesArguments, RefusesShapes, not_above_zero, only_on_tensorflow, run

from rw_keras.layers import SpatialWeight


class TestSpatialWeight(LayerHabits, RefusesShapes, RefusesArguments):
    layer = SpatialWeight
    arguments = {"alpha": 1.5, "beta": 3.0}  # noqa: RUF012
    sample = np.round(reference.sparse_map(3, 4)).clip(0, 127)
    shapes = {  # noqa: RUF012
        (None, None, None, 8): (None, None, None, 8),
        (2, 24, None, 8): (2, 24, None, 8),
        (2, 24, 32, 8): (2, 24, 32, 8),
    }
    wrong_shapes = ((2, 3, 8), (8,), (1, 2, 3, 4, 8))
    wrong_arguments = not_above_zero("alpha") + not_above_zero("beta")

    @pytest.mark.parametrize("kind", reference.MAPS)
    @pytest.mark.parametrize("size", reference.SIZES)
    def test_value(self, size, kind):
        features = reference.MAPS[kind](*size)
        expected = reference.spatial_weight(features) * features
        np.testing.assert_allclose(run(SpatialWeight(), features), expected, rtol=reference.RELATIVE_ERROR)

    @pytest.mark.parametrize(("alpha", "beta"), [(1, 1), (2, 1), (1, 2), (0.5, 2), (3, 0.5), (7.5, 4), (30, 2), (0.1, 2)])
    def test_value_with_other_norms_and_roots(self, alpha, beta):
        for features in (reference.sparse_map(7, 9), reference.dense_map(7, 9)):
            expected = reference.spatial_weight(features, alpha, beta) * features
            found = run(SpatialWeight(alpha, beta), features)
            # A norm of order 0.1 is a tenth power of the sum: it multiplies the rounding of float32 by ten.
            np.testing.assert_allclose(found, expected, rtol=reference.RELATIVE_ERROR * max(1, 1 / alpha))

    def test_defaults_are_the_published_ones(self):
        assert (SpatialWeight().alpha, SpatialWeight().beta) == (2.0, 2.0)

    def test_a_map_worked_out_by_hand(self):
        features = np.array([[[[1, 2], [0, 4]]]], "float32")  # sums 3 and 4, their norm 5
        expected = np.sqrt([[[[0.6], [0.8]]]]) * features
        np.testing.assert_allclose(run(SpatialWeight(), features), expected, rtol=1e-6)

    def test_place_whose_sum_is_below_zero_has_no_weight(self):
        features = np.array([[[[3, -5], [3, -3], [3, 0]]]], "float32")
        assert run(SpatialWeight(), features).tolist() == [[[[0, 0], [0, 0], [3, 0]]]]

    def test_each_photo_of_a_batch_is_weighed_by_itself(self):
        loud, quiet = reference.sparse_map(3, 4, batch=1, seed=1) * 1000, reference.sparse_map(3, 4, batch=1, seed=2)
        together = run(SpatialWeight(), np.concatenate([loud, quiet, np.zeros_like(loud)]))
        np.testing.assert_allclose(together[:1], run(SpatialWeight(), loud), rtol=1e-6)
        np.testing.assert_allclose(together[1:2], run(SpatialWeight(), quiet), rtol=1e-6)
        assert not together[2].any()

    def test_sums_over_channels_leave_the_range_of_float16(self, set_policy):
        set_policy("mixed_float16")
        features = np.full((1, 4, 4, 512), 2000, "float16")  # a sum of a million, and squares of that
        expected = reference.spatial_weight(features) * features
        np.testing.assert_allclose(run(SpatialWeight(), features), expected, rtol=reference.RELATIVE_ERROR)

    def test_one_layer_takes_maps_of_any_size(self):
        inputs = keras.Input((None, None, 8))
        model = keras.Model(inputs, SpatialWeight()(inputs))
        for size in ((1, 1), (3, 4), (14, 14)):
            features = reference.sparse_map(*size)
            expected = reference.spatial_weight(features) * features
            np.testing.assert_allclose(run(model, features), expected, rtol=reference.RELATIVE_ERROR)

    @only_on_tensorflow("gradients are taken with TensorFlow's tape")
    def test_gradient_is_finite_where_the_map_is_zero(self):
        import tensorflow as tf

        for features in (np.zeros((1, 3, 4, 8), "float32"), reference.sparse_map(3, 4), reference.hot_map(3, 4)):
            features = tf.constant(features)
            with tf.GradientTape() as tape:
                tape.watch(features)
                total = tf.reduce_sum(SpatialWeight()(features))
            assert np.isfinite(tape.gradient(total, features).numpy()).all()

    @settings(max_examples=30)
    @given(st.sampled_from([(1, 1), (2, 5), (3, 4)]), st.integers(0, 10**6), st.floats(1e-6, 1e6))
    def test_weights_do_not_change_when_the_map_is_multiplied(self, size, seed, factor):
        features = reference.sparse_map(*size, seed=seed)
        multiplied = features * np.float32(factor)
        found = run(SpatialWeight(), multiplied) * (1 / np.float64(np.float32(factor)))
        np.testing.assert_allclose(found, run(SpatialWeight(), features), rtol=reference.RELATIVE_ERROR)
