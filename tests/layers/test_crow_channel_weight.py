import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layers import reference
from layers.habits import LayerHabits, RefusesShapes, only_on_tensorflow, run

from rw_keras.layers import CroWChannelWeight, IDFChannelWeight

small_sizes = st.sampled_from([(1, 1), (2, 5), (3, 4)])
seeds = st.integers(0, 10**6)


class TestCroWChannelWeight(LayerHabits, RefusesShapes):
    layer = CroWChannelWeight
    arguments = {}  # noqa: RUF012
    sample = np.round(reference.sparse_map(3, 4)).clip(0, 127)
    shapes = {  # noqa: RUF012
        (None, None, None, 8): (None, None, None, 8),
        (2, 24, None, 8): (2, 24, None, 8),
        (2, 24, 32, 8): (2, 24, 32, 8),
    }
    wrong_shapes = ((2, 3, 8), (8,), (1, 2, 3, 4, 8))

    @pytest.mark.parametrize("kind", reference.MAPS)
    @pytest.mark.parametrize("size", reference.SIZES)
    def test_value(self, size, kind):
        features = reference.MAPS[kind](*size)
        expected = reference.channel_weight_by_proportions(features) * features
        np.testing.assert_allclose(run(CroWChannelWeight(), features), expected, rtol=reference.RELATIVE_ERROR)

    def test_a_map_worked_out_by_hand(self):
        features = np.array([[[[5, 0.1, 0], [2, 0, 0], [1, 0, 0]]]], "float32")  # shares 1, 1/3 and 0
        expected = np.array([np.log(4 / 3), np.log(4), 0]) * features
        np.testing.assert_allclose(run(CroWChannelWeight(), features), expected, rtol=1e-6)

    def test_are_proportions_and_no_counts(self):
        once = np.array([[[[1, 1], [1, 0]]]], "float32")
        twice = np.concatenate([once, once], axis=1)
        weights = [run(CroWChannelWeight(), features)[0, 0, 0] for features in (once, twice)]
        np.testing.assert_allclose(weights, np.log([[3 / 2, 3]] * 2), rtol=1e-6)

    def test_weight_of_the_only_channel_that_fires_is_zero(self):
        features = np.zeros((1, 24, 32, 5), "float32")
        features[..., 2] = 1
        assert not run(CroWChannelWeight(), features).any()
        assert not run(CroWChannelWeight(), reference.hot_map(7, 9)).any()

    def test_weight_close_to_zero_keeps_its_digits(self):
        features = np.zeros((1, 300, 400, 3), "float32")
        features[..., 0], features[0, 0, 0, 1] = 1, 1  # 120000 places and one
        found = run(CroWChannelWeight(), features)[0, 0, 0]
        np.testing.assert_allclose(found, [np.log1p(1 / 120000), np.log(120001), 0], rtol=1e-6)

    def test_what_is_below_zero_does_not_fire(self):
        features = np.array([[[[1, -1], [1, 3], [1, -2]]]], "float32")
        np.testing.assert_allclose(run(CroWChannelWeight(), features), np.log([4 / 3, 4]) * features, rtol=1e-6)

    def test_each_photo_of_a_batch_is_counted_by_itself(self):
        maps = [reference.sparse_map(3, 4, batch=1, seed=1), reference.dense_map(3, 4, batch=1), np.zeros((1, 3, 4, 8), "float32")]
        together = run(CroWChannelWeight(), np.concatenate(maps))
        np.testing.assert_allclose(together, np.concatenate([run(CroWChannelWeight(), one) for one in maps]), rtol=1e-6)

    def test_counts_leave_the_integers_of_float16_and_bfloat16(self, set_policy):
        features = np.zeros((1, 64, 48, 4), "float16")
        features[..., 0], features[0, :43, :, 1], features[0, 0, 0, 2] = 1, 1, 1  # 3072, 2064 and 1
        expected = reference.channel_weight_by_proportions(features) * features
        for policy in ("mixed_float16", "mixed_bfloat16"):
            set_policy(policy)
            np.testing.assert_allclose(run(CroWChannelWeight(), features), expected, rtol=reference.RELATIVE_ERROR)

    def test_one_layer_takes_maps_of_any_size(self):
        inputs = keras.Input((None, None, 8))
        model = keras.Model(inputs, CroWChannelWeight()(inputs))
        for size in ((1, 1), (3, 4), (14, 14)):
            features = reference.sparse_map(*size)
            expected = reference.channel_weight_by_proportions(features) * features
            np.testing.assert_allclose(run(model, features), expected, rtol=reference.RELATIVE_ERROR)

    @only_on_tensorflow("tf.function is TensorFlow's")
    def test_one_trace_serves_every_size(self):
        import tensorflow as tf

        graph = tf.function(CroWChannelWeight(), input_signature=[tf.TensorSpec((None, None, None, 8))])
        for number, size in enumerate(reference.SIZES):
            features = reference.sparse_map(*size, batch=1 + number % 3)
            expected = reference.channel_weight_by_proportions(features) * features
            np.testing.assert_allclose(graph(features).numpy(), expected, rtol=reference.RELATIVE_ERROR)
        assert graph.experimental_get_tracing_count() == 1

    @settings(max_examples=30)
    @given(small_sizes, seeds, st.floats(1e-6, 1e6))
    def test_weights_do_not_depend_on_how_strongly_a_channel_fires(self, size, seed, factor):
        features = reference.sparse_map(*size, seed=seed)
        found = run(CroWChannelWeight(), np.where(features > 0, np.float32(factor), 0).astype("float32"))
        weights = reference.channel_weight_by_proportions(features)
        expected = np.where(features > 0, weights * np.float64(np.float32(factor)), 0)
        np.testing.assert_allclose(found, expected, rtol=reference.RELATIVE_ERROR)

    @settings(max_examples=30)
    @given(small_sizes, seeds, st.permutations(range(8)))
    def test_permuted_channels_are_weighed_as_before(self, size, seed, order):
        features = reference.sparse_map(*size, seed=seed)
        np.testing.assert_allclose(
            run(CroWChannelWeight(), features[..., order]), run(CroWChannelWeight(), features)[..., order], rtol=1e-6
        )

    @settings(max_examples=30)
    @given(small_sizes, seeds, st.integers(1, 4), st.integers(1, 4))
    def test_repeating_the_map_changes_no_weight(self, size, seed, down, across):
        features = reference.sparse_map(*size, seed=seed)
        found = run(CroWChannelWeight(), np.tile(features, (1, down, across, 1)))
        np.testing.assert_allclose(found, np.tile(run(CroWChannelWeight(), features), (1, down, across, 1)), rtol=1e-6)

    @settings(max_examples=30)
    @given(small_sizes, seeds)
    def test_is_the_idf_weight_without_its_constant(self, size, seed):
        features = reference.sparse_map(*size, seed=seed)
        found = run(CroWChannelWeight(), features)
        assert (found >= 0).all()
        np.testing.assert_allclose(found, run(IDFChannelWeight(1e-7), features), rtol=1e-5, atol=1e-6 * features.max())
