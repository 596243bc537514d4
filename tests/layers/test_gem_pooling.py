import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layers import reference
from layers.habits import LayerHabits, RefusesArguments, RefusesShapes, not_above_zero, only_on_tensorflow, run

from rw_keras.layers import GeMPooling

small_sizes = st.sampled_from([(1, 1), (2, 5), (4, 3)])
seeds = st.integers(0, 10**6)
exponents = st.floats(0.5, 50)


class TestGeMPooling(LayerHabits, RefusesShapes, RefusesArguments):
    layer = GeMPooling
    arguments = {"p": 4.5}  # noqa: RUF012
    sample = np.round(reference.sparse_map(3, 4)).clip(0, 127)
    shapes = {  # noqa: RUF012
        (None, None, None, 8): (None, 8),
        (2, 24, None, 8): (2, 8),
        (2, 24, 32, 8): (2, 8),
    }
    wrong_shapes = ((2, 3, 8), (8,), (1, 2, 3, 4, 8))
    wrong_arguments = not_above_zero("p")

    @pytest.mark.parametrize("kind", reference.MAPS)
    @pytest.mark.parametrize("size", reference.SIZES)
    def test_value(self, size, kind):
        features = reference.MAPS[kind](*size)
        np.testing.assert_allclose(run(GeMPooling(), features), reference.generalised_mean(features), rtol=reference.RELATIVE_ERROR)

    @pytest.mark.parametrize("p", [0.2, 0.5, 1, 2, 2.5, 6, 30, 500, 1e5])
    def test_value_with_another_exponent(self, p):
        for features in (reference.sparse_map(7, 9), reference.dense_map(7, 9), reference.hot_map(7, 9)):
            expected = reference.generalised_mean(features, p)
            # A p-th root of less than 1 is a power above 1: it multiplies the rounding of float32.
            np.testing.assert_allclose(run(GeMPooling(p), features), expected, rtol=reference.RELATIVE_ERROR * max(1, 1 / p))

    def test_default_exponent_is_the_published_one(self):
        assert GeMPooling().p == 3.0

    def test_a_map_worked_out_by_hand(self):
        features = np.array([[[[3, 0, 2], [4, 0, 2]], [[5, 0, 2], [0, 1, 2]]]], "float32")
        expected = [[((27 + 64 + 125) / 4) ** (1 / 3), 0.25 ** (1 / 3), 2]]
        np.testing.assert_allclose(run(GeMPooling(), features), expected, rtol=1e-6)

    def test_of_exponent_one_is_the_mean(self):
        for features in (reference.sparse_map(7, 9), reference.dense_map(24, 32)):
            np.testing.assert_allclose(
                run(GeMPooling(1), features), features.mean(axis=(1, 2), dtype="float64"), rtol=reference.RELATIVE_ERROR
            )

    def test_comes_to_the_maximum_as_the_exponent_grows(self):
        features = reference.sparse_map(7, 9)
        largest = features.max(axis=(1, 2))
        for p in (1e2, 1e3, 1e4, 1e5):
            # One of the 63 places holds the maximum, so the mean of powers is at least a 63rd of its power.
            found = run(GeMPooling(p), features)
            assert (found <= largest * (1 + 1e-6)).all()
            assert (found >= largest * (63 ** (-1 / p) - 1e-6)).all()

    def test_what_is_below_zero_counts_as_zero(self):
        features = np.random.default_rng(0).normal(size=(2, 5, 7, 8)).astype("float32")
        features[..., 3] = -np.abs(features[..., 3])
        found = run(GeMPooling(), features)
        np.testing.assert_array_equal(found, run(GeMPooling(), np.maximum(features, 0)))
        assert not found[:, 3].any()
        assert found[:, :3].all()

    @pytest.mark.parametrize("size", [1e-37, 1e-30, 1e-20, 1e20, 1e30, 1e37])
    @pytest.mark.parametrize("p", [0.5, 3, 10])
    def test_elements_whose_power_leaves_float32(self, size, p):
        features = np.array([[[[1, 2, 0]], [[2, 2, 0]]]], "float32") * np.float32(size)
        found = run(GeMPooling(p), features) / np.float64(np.float32(size))
        np.testing.assert_allclose(found, [[((1 + 2**p) / 2) ** (1 / p), 2, 0]], rtol=reference.RELATIVE_ERROR)

    def test_cubes_leave_the_range_of_float16(self, set_policy):
        features = np.full((1, 64, 48, 3), 300, "float16")
        for policy in ("mixed_float16", "mixed_bfloat16"):
            set_policy(policy)
            np.testing.assert_allclose(run(GeMPooling(), features), np.full((1, 3), 300), rtol=1e-6)

    def test_each_photo_of_a_batch_and_each_channel_is_pooled_by_itself(self):
        loud, quiet = reference.sparse_map(3, 4, batch=1, seed=1) * 1e9, reference.sparse_map(3, 4, batch=1, seed=2) * 1e-9
        together = run(GeMPooling(), np.concatenate([loud, quiet, np.zeros_like(loud)]).astype("float32"))
        np.testing.assert_allclose(together[:2], reference.generalised_mean(np.concatenate([loud, quiet])), rtol=1e-5)
        assert not together[2].any()
        features = np.concatenate([loud, quiet], axis=-1).astype("float32")
        np.testing.assert_allclose(run(GeMPooling(), features), reference.generalised_mean(features), rtol=1e-5)

    def test_one_layer_takes_maps_of_any_size(self):
        inputs = keras.Input((None, None, 8))
        model = keras.Model(inputs, GeMPooling()(inputs))
        for size in ((1, 1), (3, 4), (14, 14)):
            features = reference.sparse_map(*size)
            np.testing.assert_allclose(run(model, features), reference.generalised_mean(features), rtol=reference.RELATIVE_ERROR)

    @only_on_tensorflow("tf.function is TensorFlow's")
    def test_one_trace_serves_every_size(self):
        import tensorflow as tf

        graph = tf.function(GeMPooling(), input_signature=[tf.TensorSpec((None, None, None, 8))])
        for number, size in enumerate(reference.SIZES):
            features = reference.sparse_map(*size, batch=1 + number % 3)
            np.testing.assert_allclose(graph(features).numpy(), reference.generalised_mean(features), rtol=reference.RELATIVE_ERROR)
        assert graph.experimental_get_tracing_count() == 1

    @only_on_tensorflow("gradients are taken with TensorFlow's tape")
    def test_gradient_is_that_of_the_formula_and_zero_at_zeros(self):
        import tensorflow as tf

        values = np.array([[1, 2, 0], [3, 2, 0], [0, 2, 0]], "float32")  # three places of three channels
        for size in (1, 1e-30, 1e30):
            features = tf.constant((values * np.float32(size))[None, None])
            with tf.GradientTape() as tape:
                tape.watch(features)
                total = tf.reduce_sum(GeMPooling()(features))
            # Of (mean x^3)^(1/3): (x / the result)^2 / n, whatever the size.
            root = ((1 + 27) / 3) ** (1 / 3)
            expected = np.array([[1 / root**2, 1, 0], [9 / root**2, 1, 0], [0, 1, 0]]) / 3
            np.testing.assert_allclose(tape.gradient(total, features).numpy()[0, 0], expected, rtol=1e-5)

    @settings(max_examples=50)
    @given(small_sizes, seeds, exponents)
    def test_lies_between_the_mean_and_the_maximum(self, size, seed, p):
        features = reference.sparse_map(*size, seed=seed).astype("float64")
        bounds = features.mean(axis=(1, 2)), features.max(axis=(1, 2))
        below, above = bounds if p >= 1 else (features.min(axis=(1, 2)), bounds[0])
        found = run(GeMPooling(p), features.astype("float32"))
        assert (found >= below * (1 - 1e-5)).all()
        assert (found <= above * (1 + 1e-5)).all()

    @settings(max_examples=50)
    @given(small_sizes, seeds, exponents, st.floats(1, 10))
    def test_grows_with_the_exponent(self, size, seed, p, more):
        features = reference.sparse_map(*size, seed=seed)
        assert (run(GeMPooling(p), features) <= run(GeMPooling(p * more), features) * (1 + 1e-5)).all()

    @settings(max_examples=30)
    @given(small_sizes, seeds, exponents, st.floats(1e-20, 1e20))
    def test_multiplying_the_map_multiplies_the_result(self, size, seed, p, factor):
        features, factor = reference.sparse_map(*size, seed=seed), np.float32(factor)
        found = run(GeMPooling(p), features * factor) / np.float64(factor)
        np.testing.assert_allclose(found, run(GeMPooling(p), features), rtol=reference.RELATIVE_ERROR)

    @settings(max_examples=30)
    @given(st.integers(0, 10**6), st.permutations(range(8)), st.permutations(range(12)))
    def test_order_of_channels_is_kept_and_that_of_places_has_no_say(self, seed, channels, places):
        features = reference.sparse_map(3, 4, seed=seed)
        moved = features.reshape(2, 12, 8)[:, places][..., channels].reshape(2, 3, 4, 8)
        np.testing.assert_allclose(run(GeMPooling(), moved), run(GeMPooling(), features)[..., channels], rtol=1e-6)


class TestMask:
    """Other than for sums, a place that is masked out is no zero: there is none."""

    def masked(self, features, mask, p=3.0):
        return keras.ops.convert_to_numpy(GeMPooling(p)(features, mask=mask))

    @pytest.mark.parametrize("kind", reference.MAPS)
    @pytest.mark.parametrize("p", [1, 3])
    def test_mean_is_over_the_places_that_are_left(self, kind, p):
        for size in ((3, 4), (14, 14), (7, 30)):
            features = reference.MAPS[kind](*size)
            mask = np.random.default_rng(0).random(features.shape[:3]) < 0.6
            mask[:, 0, 0] = True
            left = [reference.generalised_mean(one[kept][None, None], p) for one, kept in zip(features, mask)]
            np.testing.assert_allclose(self.masked(features, mask, p), np.concatenate(left), rtol=reference.RELATIVE_ERROR)

    def test_photo_in_a_larger_map_has_the_value_that_it_has_alone(self):
        small = reference.dense_map(3, 4)
        features, mask = np.full((2, 6, 7, 8), 9, "float32"), np.zeros((2, 6, 7), bool)
        features[:, :3, :4], mask[:, :3, :4] = small, True
        np.testing.assert_allclose(self.masked(features, mask), run(GeMPooling(), small), rtol=1e-6)

    def test_of_no_place_gives_zero(self):
        assert not self.masked(reference.dense_map(3, 4), np.zeros((2, 3, 4), bool)).any()
