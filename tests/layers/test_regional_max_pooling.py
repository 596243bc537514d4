import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layers import reference
from layers.habits import LayerHabits, RefusesArguments, RefusesShapes, not_counting, only_on_tensorflow, run

from rw_keras.layers import RegionalMaxPooling, RegionalSumPooling

small_sizes = st.sampled_from([(1, 1), (2, 5), (4, 3)])
seeds = st.integers(0, 10**6)


class TestRegionalMaxPooling(LayerHabits, RefusesShapes, RefusesArguments):
    layer = RegionalMaxPooling
    arguments = {"levels": 2, "include_whole_map": False}  # noqa: RUF012
    sample = np.round(reference.sparse_map(3, 4)).clip(0, 127)
    shapes = {  # noqa: RUF012
        (None, None, None, 8): (None, None, 8),
        (2, 24, None, 8): (2, None, 8),
        (2, None, 32, 8): (2, None, 8),
        (None, 24, 32, 8): (None, 2 + 6, 8),
        (2, 14, 14, 8): (2, 1 + 4, 8),
    }
    wrong_shapes = ((2, 3, 8), (8,), (1, 2, 3, 4, 8))
    wrong_arguments = (*not_counting("levels"), ("levels", 17), ("levels", 99999999))

    @pytest.mark.parametrize("kind", reference.MAPS)
    @pytest.mark.parametrize("size", reference.SIZES)
    def test_value(self, size, kind):
        features = reference.MAPS[kind](*size)
        np.testing.assert_array_equal(run(RegionalMaxPooling(), features), reference.region_maxima(features))

    @pytest.mark.parametrize("whole", [True, False])
    @pytest.mark.parametrize("levels", [1, 2, 4, 6])
    def test_value_at_other_scales(self, levels, whole):
        for features in (reference.sparse_map(14, 14), reference.dense_map(9, 31), reference.dense_map(31, 9)):
            expected = reference.region_maxima(features, levels, whole)
            np.testing.assert_array_equal(run(RegionalMaxPooling(levels, whole), features), expected)

    def test_defaults_are_three_scales_and_the_whole_map(self):
        assert (RegionalMaxPooling().levels, RegionalMaxPooling().include_whole_map) == (3, True)
        assert run(RegionalMaxPooling(), reference.dense_map(24, 32)).shape == (2, 21, 8)

    def test_a_map_worked_out_by_hand(self):
        features = np.array([[5, 1, 2], [0, 3, 4]], "float32")[None, :, :, None]
        # One more window than on a square: side 2 from columns 0 and 1; then side 1, two rows of columns 0, 1 and 2.
        assert run(RegionalMaxPooling(2), features).ravel().tolist() == [5, 5, 4, 5, 1, 2, 0, 3, 4]

    @pytest.mark.parametrize("size", reference.SIZES)
    def test_maximum_of_what_is_below_zero_is_below_zero(self, size):
        """Cells outside a window, and beyond the map, have no say: not even as zeros."""
        features = -reference.dense_map(*size)
        np.testing.assert_array_equal(run(RegionalMaxPooling(), features), reference.region_maxima(features))

    def test_largest_and_smallest_numbers(self):
        limits = np.finfo("float32")
        for value in (limits.max, limits.min, np.float32(1e-37)):
            features = np.full((1, 5, 7, 3), value, "float32")
            assert (run(RegionalMaxPooling(), features) == value).all()

    def test_sums_of_zeros_and_ones_are_above_zero_where_the_maximum_is_one(self):
        for size in reference.SIZES:
            features = (reference.sparse_map(*size) > 0).astype("float32")
            np.testing.assert_array_equal(run(RegionalMaxPooling(), features), run(RegionalSumPooling(), features) > 0.5)

    def test_each_photo_of_a_batch_is_pooled_by_itself(self):
        maps = [reference.sparse_map(3, 4, batch=1, seed=1), -reference.dense_map(3, 4, batch=1), np.zeros((1, 3, 4, 8), "float32")]
        together = run(RegionalMaxPooling(), np.concatenate(maps))
        np.testing.assert_array_equal(together, np.concatenate([run(RegionalMaxPooling(), one) for one in maps]))

    def test_one_layer_takes_maps_of_any_size(self):
        inputs = keras.Input((None, None, 8))
        model = keras.Model(inputs, RegionalMaxPooling()(inputs))
        for size in ((1, 1), (3, 4), (14, 14), (4, 3)):
            features = reference.sparse_map(*size)
            np.testing.assert_array_equal(run(model, features), reference.region_maxima(features))

    @pytest.mark.parametrize("whole", [True, False])
    def test_model_of_one_size_predicts(self, whole):
        inputs, features = keras.Input((7, 30, 8)), reference.sparse_map(7, 30, batch=3)
        model = keras.Model(inputs, RegionalMaxPooling(3, whole)(inputs))
        expected = reference.region_maxima(features, 3, whole)
        np.testing.assert_array_equal(model.predict(features, batch_size=2, verbose=0), expected)

    @pytest.mark.slow
    @only_on_tensorflow("a side that is known only at run time is TensorFlow's")
    def test_value_where_sides_are_known_or_not_when_a_graph_is_traced(self):
        import tensorflow as tf

        layer, features = RegionalMaxPooling(), reference.sparse_map(7, 30)
        for signature in ((None, None, None, 8), (2, None, None, 8), (None, 7, None, 8), (None, None, 30, 8), (2, 7, 30, 8)):
            graph = tf.function(layer, input_signature=[tf.TensorSpec(signature)])
            np.testing.assert_array_equal(graph(features).numpy(), reference.region_maxima(features))

    @only_on_tensorflow("tf.function is TensorFlow's")
    @pytest.mark.parametrize("whole", [True, False])
    def test_one_trace_serves_every_size(self, whole):
        import tensorflow as tf

        graph = tf.function(RegionalMaxPooling(3, whole), input_signature=[tf.TensorSpec((None, None, None, 8))])
        for number, size in enumerate(reference.SIZES):
            features = reference.sparse_map(*size, batch=1 + number % 3)
            np.testing.assert_array_equal(graph(features).numpy(), reference.region_maxima(features, 3, whole))
        assert graph.experimental_get_tracing_count() == 1

    @pytest.mark.slow
    @settings(max_examples=30)
    @given(small_sizes, seeds, st.permutations(range(8)))
    def test_permuted_channels_give_permuted_maxima(self, size, seed, order):
        features = reference.sparse_map(*size, seed=seed)
        np.testing.assert_array_equal(
            run(RegionalMaxPooling(), features[..., order]), run(RegionalMaxPooling(), features)[..., order]
        )

    @pytest.mark.slow
    @settings(max_examples=30)
    @given(small_sizes, seeds, st.integers(-60, 60))
    def test_multiplying_the_map_multiplies_the_maxima(self, size, seed, power):
        features, factor = reference.sparse_map(*size, seed=seed), np.float32(2.0**power)
        np.testing.assert_array_equal(run(RegionalMaxPooling(), features * factor), run(RegionalMaxPooling(), features) * factor)

    @settings(max_examples=30)
    @given(small_sizes, seeds)
    def test_no_region_exceeds_the_whole_map_and_the_whole_map_is_the_first(self, size, seed):
        features = reference.sparse_map(*size, seed=seed)
        found = run(RegionalMaxPooling(), features)
        np.testing.assert_array_equal(found.max(axis=1), found[:, 0])
        np.testing.assert_array_equal(found[:, 0], features.max(axis=(1, 2)))

    @pytest.mark.slow
    @settings(max_examples=30)
    @given(small_sizes, seeds)
    def test_turned_map_has_the_same_maxima_in_another_order(self, size, seed):
        features = reference.sparse_map(*size, channels=1, seed=seed)
        features[:, 0, 0, 0] += 1
        found = [np.sort(run(RegionalMaxPooling(), one), axis=1) for one in (features, features.transpose(0, 2, 1, 3))]
        np.testing.assert_array_equal(*found)
