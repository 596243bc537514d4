import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from layers import reference
from layers.habits import LayerHabits, RefusesArguments, not_above_zero, only_on_tensorflow, run

from rw_keras.layers import PowerNorm

vectors = arrays.arrays(
    "float32", (3, 6), elements=st.just(0.0) | st.floats(-1e6, 1e6, width=32).filter(lambda value: abs(value) > 1e-6)
)
exponents = st.floats(0.2, 3)


class TestPowerNorm(LayerHabits, RefusesArguments):
    layer = PowerNorm
    arguments = {"exponent": 0.3}  # noqa: RUF012
    sample = np.arange(-12, 12, dtype="float32").reshape(2, 4, 3)
    shapes = {  # noqa: RUF012
        (None, None, 8): (None, None, 8),
        (None, 8): (None, 8),
        (2, 21, 8): (2, 21, 8),
        (2, None, 7, 8): (2, None, 7, 8),
    }
    wrong_arguments = not_above_zero("exponent")

    @pytest.mark.parametrize("kind", reference.MAPS)
    @pytest.mark.parametrize("size", reference.SIZES)
    def test_value(self, size, kind):
        values = reference.MAPS[kind](*size)
        values[:, ::2] *= -1
        np.testing.assert_allclose(run(PowerNorm(), values), reference.signed_power(values), rtol=reference.RELATIVE_ERROR)

    @pytest.mark.parametrize("exponent", [0.01, 0.25, 0.5, 0.75, 1, 2, 3])
    def test_value_with_another_exponent(self, exponent):
        values = np.random.default_rng(0).normal(size=(2, 5, 7)).astype("float32")
        values[0, 2] = 0
        expected = reference.signed_power(values, exponent)
        np.testing.assert_allclose(run(PowerNorm(exponent), values), expected, rtol=reference.RELATIVE_ERROR)

    def test_default_is_the_signed_square_root(self):
        assert PowerNorm().exponent == 0.5
        found = run(PowerNorm(), np.array([[4, -9, 0, 0.25, -0.0]], "float32"))
        assert found.tolist() == [[2, -3, 0, 0.5, 0]]

    def test_of_exponent_one_changes_nothing(self):
        values = np.random.default_rng(0).normal(size=(2, 5, 7)).astype("float32")
        np.testing.assert_allclose(run(PowerNorm(1), values), values, rtol=1e-6)

    @pytest.mark.parametrize("size", [1e-37, 1e-30, 1e-20, 1e20, 1e30, 1e37])
    def test_smallest_and_largest_numbers(self, size):
        values = np.array([[0.6, -0.8]], "float32") * np.float32(size)
        for exponent in (0.5, 0.3, 1):
            expected = reference.signed_power(values, exponent)
            np.testing.assert_allclose(run(PowerNorm(exponent), values), expected, rtol=reference.RELATIVE_ERROR)

    def test_powers_leave_the_range_of_float16(self, set_policy):
        values = np.array([[300, -60000, 2**-14]], "float16")
        expected = reference.signed_power(values, 2)
        for policy in ("mixed_float16", "mixed_bfloat16"):
            set_policy(policy)
            np.testing.assert_allclose(run(PowerNorm(2), values), expected, rtol=1e-6)

    def test_vector_of_any_rank(self):
        for shape in ((), (4,), (2, 3), (1, 2, 3, 4, 5)):
            values = np.random.default_rng(0).normal(size=shape).astype("float32")
            np.testing.assert_allclose(run(PowerNorm(), values), reference.signed_power(values), rtol=1e-6)

    def test_mask_is_passed_on(self):
        values, mask = keras.ops.ones((2, 3, 4)), keras.ops.convert_to_tensor([[True, True, False], [True, False, False]])
        assert PowerNorm().supports_masking
        assert PowerNorm().compute_mask(values, mask) is mask

    @only_on_tensorflow("tf.function is TensorFlow's")
    def test_one_trace_serves_every_size(self):
        import tensorflow as tf

        graph = tf.function(PowerNorm(), input_signature=[tf.TensorSpec((None, None, 8))])
        for count in (1, 5, 21):
            values = np.random.default_rng(count).normal(size=(2, count, 8)).astype("float32")
            np.testing.assert_allclose(graph(values).numpy(), reference.signed_power(values), rtol=reference.RELATIVE_ERROR)
        assert graph.experimental_get_tracing_count() == 1

    @only_on_tensorflow("gradients are taken with TensorFlow's tape")
    @pytest.mark.parametrize("exponent", [0.25, 0.5, 1, 2])
    def test_gradient_is_that_of_the_formula_and_zero_at_zero(self, exponent):
        import tensorflow as tf

        values = tf.constant([[4.0, -9.0, 0.0, 1e-20, -1e10]])
        with tf.GradientTape() as tape:
            tape.watch(values)
            total = tf.reduce_sum(PowerNorm(exponent)(values))
        magnitudes = np.abs(values.numpy().astype("float64"))
        expected = [[exponent * one ** (exponent - 1) if one else 0 for one in magnitudes[0]]]
        np.testing.assert_allclose(tape.gradient(total, values).numpy(), expected, rtol=1e-4)

    @settings(max_examples=50)
    @given(vectors, exponents)
    def test_is_odd_and_keeps_signs_and_zeros(self, values, exponent):
        found = run(PowerNorm(exponent), values)
        np.testing.assert_array_equal(run(PowerNorm(exponent), -values), -found)
        np.testing.assert_array_equal(np.sign(found), np.sign(values))

    @settings(max_examples=50)
    @given(vectors, exponents)
    def test_inverse_exponent_gives_the_values_back(self, values, exponent):
        found = run(PowerNorm(1 / exponent), run(PowerNorm(exponent), values))
        np.testing.assert_allclose(found, values, rtol=1e-4)

    @settings(max_examples=50)
    @given(vectors, st.floats(0.2, 1), st.floats(0.2, 1))
    def test_one_after_another_multiplies_the_exponents(self, values, first, second):
        found = run(PowerNorm(second), run(PowerNorm(first), values))
        np.testing.assert_allclose(found, run(PowerNorm(first * second), values), rtol=reference.RELATIVE_ERROR)

    @settings(max_examples=50)
    @given(vectors, exponents, st.floats(1e-3, 1e3))
    def test_multiplying_a_vector_multiplies_it_by_the_power(self, values, exponent, factor):
        factor = np.float32(factor)
        expected = run(PowerNorm(exponent), values) * np.float64(factor) ** exponent
        np.testing.assert_allclose(run(PowerNorm(exponent), values * factor), expected, rtol=reference.RELATIVE_ERROR)

    @settings(max_examples=50)
    @given(vectors, exponents)
    def test_keeps_the_order_of_elements(self, values, exponent):
        found = np.take_along_axis(run(PowerNorm(exponent), values), np.argsort(values, axis=-1), axis=-1)
        rounding = 1e-6 * np.abs(found[:, 1:])  # equal elements may be rounded in two ways
        assert (np.diff(found, axis=-1) >= -rounding).all()
