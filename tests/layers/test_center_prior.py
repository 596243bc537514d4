import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layers import reference
from layers.habits import LayerHabits, RefusesArguments, RefusesShapes, not_above_zero, only_on_tensorflow, run

from rw_keras.layers import CenterPrior

sizes = st.tuples(st.integers(1, 12), st.integers(1, 12))


def weights(height, width, **arguments):
    """The layer's weights on a map of that size."""
    return run(CenterPrior(**arguments), np.ones((1, height, width, 1), "float32"))[0, :, :, 0]


def assert_close(found, expected):
    """Far from the centre of a panorama weights fall below what float32 holds."""
    tolerance = 1e-36 * max(1, np.abs(expected).max())
    np.testing.assert_allclose(found, expected, rtol=reference.RELATIVE_ERROR, atol=tolerance)


class TestCenterPrior(LayerHabits, RefusesShapes, RefusesArguments):
    layer = CenterPrior
    arguments = {"sigma": 0.75}  # noqa: RUF012
    sample = np.round(reference.sparse_map(3, 4)).clip(0, 127)
    shapes = {  # noqa: RUF012
        (None, None, None, 8): (None, None, None, 8),
        (2, 24, None, 8): (2, 24, None, 8),
        (2, 24, 32, 8): (2, 24, 32, 8),
    }
    wrong_shapes = ((2, 3, 8), (8,), (1, 2, 3, 4, 8))
    wrong_arguments = not_above_zero("sigma")

    @pytest.mark.parametrize("kind", reference.MAPS)
    @pytest.mark.parametrize("size", reference.SIZES)
    def test_value(self, size, kind):
        features = reference.MAPS[kind](*size)
        assert_close(run(CenterPrior(), features), reference.centred(features))

    @pytest.mark.parametrize("sigma", [0.1, 0.5, 1, 2.5, 1000])
    def test_value_with_another_width(self, sigma):
        for size in ((1, 1), (7, 9), (24, 32)):
            features = reference.dense_map(*size)
            assert_close(run(CenterPrior(sigma), features), reference.centred(features, sigma))

    def test_default_is_a_third_of_the_way_to_the_border(self):
        assert CenterPrior().sigma == 1 / 3

    def test_a_map_worked_out_by_hand(self):
        # 3 x 5 cells, the closest border 1.5 from the middle, the deviation 0.5: one cell off is two deviations.
        one, two = np.exp(-(2**2) / 2), np.exp(-(4**2) / 2)
        row = np.array([two, one, 1, one, two])
        np.testing.assert_allclose(weights(3, 5), [row * one, row, row * one], rtol=1e-5)

    def test_falls_by_one_deviation_at_sigma_of_the_way_to_the_border(self):
        found = weights(30, 40, sigma=1 / 3)  # 15 to the border: a deviation of 5
        np.testing.assert_allclose(found[14, 24] / found[14, 19], np.exp(-(4.5**2 - 0.5**2) / 50), rtol=1e-5)

    def test_middle_of_an_odd_map_keeps_its_value_and_every_other_place_loses(self):
        for size in ((1, 1), (3, 7), (9, 5)):
            found = weights(*size)
            assert found[size[0] // 2, size[1] // 2] == 1
            assert (found == 1).sum() == 1

    def test_places_beyond_the_digits_of_bfloat16(self, set_policy):
        features = np.ones((1, 200, 300, 2), "float16")
        for policy in ("mixed_float16", "mixed_bfloat16"):
            set_policy(policy)
            assert_close(run(CenterPrior(), features), reference.centred(features))

    def test_one_layer_takes_maps_of_any_size(self):
        inputs = keras.Input((None, None, 8))
        model = keras.Model(inputs, CenterPrior()(inputs))
        for size in ((1, 1), (3, 4), (14, 14), (4, 3)):
            features = reference.sparse_map(*size)
            assert_close(run(model, features), reference.centred(features))

    @only_on_tensorflow("tf.function is TensorFlow's")
    def test_one_trace_serves_every_size(self):
        import tensorflow as tf

        graph = tf.function(CenterPrior(), input_signature=[tf.TensorSpec((None, None, None, 8))])
        for number, size in enumerate(reference.SIZES):
            features = reference.sparse_map(*size, batch=1 + number % 3)
            assert_close(graph(features).numpy(), reference.centred(features))
        assert graph.experimental_get_tracing_count() == 1

    def test_mask_leaves_the_middle_where_it_is(self):
        features, mask = reference.dense_map(5, 7), np.ones((2, 5, 7), bool)
        mask[:, :, 4:] = False
        found = keras.ops.convert_to_numpy(CenterPrior()(features, mask=mask))
        np.testing.assert_array_equal(found, np.where(mask[..., None], run(CenterPrior(), features), 0))

    @settings(max_examples=30)
    @given(sizes, st.floats(0.1, 10), st.integers(0, 10**6))
    def test_flipped_or_turned_photo_is_weighed_as_it_was(self, size, sigma, seed):
        features, layer = reference.sparse_map(*size, seed=seed), CenterPrior(sigma)
        found = run(layer, features)
        for move in (lambda x: x[:, :, ::-1], lambda x: x[:, ::-1], lambda x: x.transpose(0, 2, 1, 3)):
            assert_close(run(layer, np.ascontiguousarray(move(features))), move(found))

    @settings(max_examples=30)
    @given(sizes, st.floats(0.1, 10))
    def test_weights_fall_from_the_middle_to_every_border(self, size, sigma):
        found = weights(*size, sigma=sigma)
        assert (found <= 1).all()
        for rows in (found, found.T):
            lower = rows[len(rows) // 2 :]
            assert (lower[1:] <= lower[:-1]).all()

    @settings(max_examples=30)
    @given(sizes, st.floats(0.1, 10), st.floats(1.0, 10))
    def test_wider_prior_weighs_no_place_less(self, size, sigma, more):
        assert (weights(*size, sigma=sigma * more) >= weights(*size, sigma=sigma) * (1 - 1e-4)).all()

    @settings(max_examples=30)
    @given(sizes, st.integers(0, 10**6), st.permutations(range(8)), st.floats(1e-6, 1e6))
    def test_weights_depend_on_the_place_alone(self, size, seed, order, factor):
        features, factor = reference.sparse_map(*size, seed=seed), np.float32(factor)
        found = run(CenterPrior(), features[..., order] * factor)
        assert_close(found, run(CenterPrior(), features)[..., order] * np.float64(factor))
