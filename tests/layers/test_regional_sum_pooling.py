import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layers import reference
from layers.habits import LayerHabits, RefusesArguments, RefusesShapes, not_counting, only_on_tensorflow, run

from rw_keras.layers import IDFChannelWeight, L2Norm, RegionalSumPooling, RegionSum, SpatialWeight


class TestRegionalSumPooling(LayerHabits, RefusesShapes, RefusesArguments):
    layer = RegionalSumPooling
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
        np.testing.assert_allclose(
            run(RegionalSumPooling(), features), reference.region_sums(features), rtol=reference.RELATIVE_ERROR
        )

    @pytest.mark.parametrize("whole", [True, False])
    @pytest.mark.parametrize("levels", [1, 2, 4, 6])
    def test_value_at_other_scales(self, levels, whole):
        for features in (reference.sparse_map(14, 14), reference.dense_map(9, 31)):
            expected = reference.region_sums(features, levels, whole)
            np.testing.assert_allclose(run(RegionalSumPooling(levels, whole), features), expected, rtol=reference.RELATIVE_ERROR)

    def test_defaults_are_three_scales_and_the_whole_map(self):
        assert (RegionalSumPooling().levels, RegionalSumPooling().include_whole_map) == (3, True)
        assert run(RegionalSumPooling(), reference.dense_map(24, 32)).shape == (2, 21, 8)

    def test_first_region_is_the_whole_map(self):
        features = reference.dense_map(7, 30)
        np.testing.assert_allclose(run(RegionalSumPooling(), features)[:, 0], features.sum(axis=(1, 2), dtype="float64"), rtol=1e-6)

    def test_window_sums_leave_the_range_of_float16(self, set_policy):
        features = np.full((1, 64, 48, 3), 300, "float16")  # 48 * 48 * 300 = 691200 in a window; float16 ends at 65504
        expected = reference.region_sums(features)
        for policy in ("mixed_float16", "mixed_bfloat16"):
            set_policy(policy)
            np.testing.assert_allclose(run(RegionalSumPooling(), features), expected, rtol=reference.RELATIVE_ERROR)

    def test_one_layer_takes_maps_of_any_size(self):
        inputs = keras.Input((None, None, 8))
        model = keras.Model(inputs, RegionalSumPooling()(inputs))
        for size in ((1, 1), (3, 4), (14, 14), (4, 3)):
            features = reference.sparse_map(*size)
            np.testing.assert_allclose(run(model, features), reference.region_sums(features), rtol=reference.RELATIVE_ERROR)

    @pytest.mark.parametrize("whole", [True, False])
    def test_model_of_one_size_predicts(self, whole):
        inputs, features = keras.Input((7, 30, 8)), reference.sparse_map(7, 30, batch=3)
        model = keras.Model(inputs, RegionalSumPooling(3, whole)(inputs))
        found = model.predict(features, batch_size=2, verbose=0)
        np.testing.assert_allclose(found, reference.region_sums(features, 3, whole), rtol=reference.RELATIVE_ERROR)

    @pytest.mark.slow
    @only_on_tensorflow("a side that is known only at run time is TensorFlow's")
    def test_value_where_sides_are_known_or_not_when_a_graph_is_traced(self):
        import tensorflow as tf

        layer = RegionalSumPooling()
        for signature in ((None, None, None, 8), (2, None, None, 8), (None, 7, None, 8), (None, None, 30, 8), (2, 7, 30, 8)):
            graph = tf.function(layer, input_signature=[tf.TensorSpec(signature)])
            features = reference.sparse_map(7, 30)
            np.testing.assert_allclose(graph(features).numpy(), reference.region_sums(features), rtol=reference.RELATIVE_ERROR)

    @settings(max_examples=30)
    @given(st.sampled_from([(1, 1), (2, 5), (3, 4)]), st.integers(0, 10**6), st.permutations(range(8)))
    def test_permuted_channels_give_permuted_sums(self, size, seed, order):
        features = reference.sparse_map(*size, seed=seed)
        np.testing.assert_allclose(
            run(RegionalSumPooling(), features[..., order]), run(RegionalSumPooling(), features)[..., order], rtol=1e-6
        )


def chain(features):
    """The three layers between a feature map and its region vectors."""
    return RegionalSumPooling()(IDFChannelWeight()(SpatialWeight()(features)))


def whole_chain(features):
    """All layers from a feature map to a descriptor, not whitened."""
    return L2Norm()(RegionSum()(L2Norm()(chain(features))))


class TestWeightsThenRegions:
    @pytest.mark.parametrize("kind", reference.MAPS)
    @pytest.mark.parametrize("size", reference.SIZES)
    def test_both_weights_are_those_of_the_original_map(self, size, kind):
        features = reference.MAPS[kind](*size)
        expected = reference.region_sums(reference.weighted(features))
        found = run(chain, features)
        assert np.isfinite(found).all()
        np.testing.assert_allclose(found, expected, rtol=reference.RELATIVE_ERROR)

    def test_the_other_order_is_not_the_same(self):
        features = reference.sparse_map(14, 14)
        found = run(lambda x: SpatialWeight()(IDFChannelWeight()(x)), features)
        fires = features > 0
        assert np.abs(found[fires] / reference.weighted(features)[fires] - 1).max() > 0.01

    @pytest.mark.parametrize("size", reference.SIZES)
    def test_descriptor_has_unit_length_and_the_value_of_the_formulas(self, size):
        for make in (reference.sparse_map, reference.dense_map, reference.hot_map):
            features = make(*size)
            expected = reference.descriptor(reference.region_sums(reference.weighted(features)))
            found = run(whole_chain, features)
            np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1, rtol=1e-6)
            np.testing.assert_allclose(found, expected, rtol=reference.RELATIVE_ERROR, atol=1e-9)

    def test_descriptor_of_a_zero_map_is_zero(self):
        assert not run(whole_chain, np.zeros((2, 3, 4, 8), "float32")).any()

    @only_on_tensorflow("tf.function is TensorFlow's")
    def test_one_trace_serves_every_size(self):
        import tensorflow as tf

        graph = tf.function(whole_chain, input_signature=[tf.TensorSpec((None, None, None, 8))])
        for number, size in enumerate(reference.SIZES + [(5, 5 + n) for n in range(9)]):
            features = reference.sparse_map(*size, batch=1 + number % 3)
            expected = reference.descriptor(reference.region_sums(reference.weighted(features)))
            np.testing.assert_allclose(graph(features).numpy(), expected, rtol=reference.RELATIVE_ERROR, atol=1e-9)
        assert number + 1 == 20
        assert graph.experimental_get_tracing_count() == 1

    @pytest.mark.slow
    @settings(max_examples=30)
    @given(st.sampled_from([(1, 1), (2, 5), (3, 4)]), st.integers(0, 10**6), st.floats(1e-6, 1e6))
    def test_multiplying_the_map_leaves_the_descriptor_as_it_is(self, size, seed, factor):
        features = reference.sparse_map(*size, seed=seed)
        np.testing.assert_allclose(run(whole_chain, features * np.float32(factor)), run(whole_chain, features), atol=1e-6)

    @pytest.mark.slow
    @settings(max_examples=30)
    @given(st.sampled_from([(1, 1), (2, 5), (3, 4)]), st.integers(0, 10**6), st.permutations(range(8)))
    def test_permuting_channels_permutes_the_descriptor(self, size, seed, order):
        features = reference.sparse_map(*size, seed=seed)
        np.testing.assert_allclose(run(whole_chain, features[..., order]), run(whole_chain, features)[..., order], atol=1e-6)
