import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from layers import reference
from layers.habits import LayerHabits, RefusesArguments, RefusesShapes, only_on_tensorflow, run

from rw_keras.layers import L2Norm


class TestL2Norm(LayerHabits, RefusesShapes, RefusesArguments):
    layer = L2Norm
    arguments = {"axis": 1}  # noqa: RUF012
    sample = np.arange(-12, 12, dtype="float32").reshape(2, 4, 3)
    shapes = {  # noqa: RUF012
        (None, None, 8): (None, None, 8),
        (None, 8): (None, 8),
        (2, 21, 8): (2, 21, 8),
        (2, None, 7, 8): (2, None, 7, 8),
    }
    wrong_shapes = ((3,), ())
    wrong_arguments = tuple(("axis", value) for value in (1.0, "1", None, True, (1, 2)))

    @pytest.mark.parametrize("kind", reference.MAPS)
    @pytest.mark.parametrize("size", reference.SIZES)
    def test_value(self, size, kind):
        vectors = reference.MAPS[kind](*size)
        np.testing.assert_allclose(run(L2Norm(), vectors), reference.unit(vectors), rtol=reference.RELATIVE_ERROR)

    @pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
    def test_value_along_another_axis(self, axis):
        vectors = np.random.default_rng(0).normal(size=(2, 5, 7)).astype("float32")
        np.testing.assert_allclose(run(L2Norm(axis), vectors), reference.unit(vectors, axis), rtol=reference.RELATIVE_ERROR)

    @pytest.mark.parametrize("shape", [(3, 4, 5), (4,)])
    @pytest.mark.parametrize("steps", [0, 1])
    def test_axis_that_the_input_does_not_have_is_refused(self, shape, steps):
        for axis in (len(shape) + steps, -len(shape) - 1 - steps):
            with pytest.raises(ValueError, match=rf"L2Norm 'stage' has axis={axis}, .* from {-len(shape)} to {len(shape) - 1}"):
                L2Norm(axis, name="stage")(keras.ops.ones(shape))

    def test_zero_vector_stays_zero_among_others(self):
        found = run(L2Norm(), np.array([[3, -4], [0, 0], [0, 2]], "float32"))
        np.testing.assert_allclose(found, [[0.6, -0.8], [0, 0], [0, 1]], rtol=1e-6)

    @pytest.mark.parametrize("length", [1e-37, 1e-30, 1e-20, 1e20, 1e30, 1e37])
    def test_length_does_not_matter_even_where_its_square_leaves_float32(self, length):
        found = run(L2Norm(), np.array([[0.6, -0.8]]).astype("float32") * np.float32(length))
        np.testing.assert_allclose(found, [[0.6, -0.8]], rtol=1e-6)

    def test_longer_than_float16_reaches(self, set_policy):
        set_policy("mixed_float16")
        vectors = np.full((1, 1024), 60000, "float16")
        np.testing.assert_allclose(run(L2Norm(), vectors), np.full((1, 1024), 1 / 32), rtol=1e-6)

    def test_mask_is_passed_on(self):
        vectors, mask = keras.ops.ones((2, 3, 4)), keras.ops.convert_to_tensor([[True, True, False], [True, False, False]])
        assert L2Norm().supports_masking
        assert L2Norm().compute_mask(vectors, mask) is mask

    @only_on_tensorflow("gradients are taken with TensorFlow's tape")
    def test_gradient_is_that_of_the_formula_and_finite_at_zero(self):
        import tensorflow as tf

        vectors = tf.constant([[3.0, 4.0], [0.0, 0.0], [4e-25, 3e-25]])
        with tf.GradientTape() as tape:
            tape.watch(vectors)
            total = tf.reduce_sum(L2Norm()(vectors)[:, 0])
        found = tape.gradient(total, vectors).numpy()
        # Of v0 / |v|: (v1^2, -v0 v1) / |v|^3.
        np.testing.assert_allclose(found[0], [16 / 125, -12 / 125], rtol=1e-5)
        np.testing.assert_allclose(found[2], [9 / 125 / 1e-25, -12 / 125 / 1e-25], rtol=1e-5)
        assert np.isfinite(found[1]).all()

    @settings(max_examples=50)
    @given(
        arrays.arrays(
            "float32", (3, 6), elements=st.just(0.0) | st.floats(-1e6, 1e6, width=32).filter(lambda value: abs(value) > 1e-6)
        )
    )
    def test_once_is_enough(self, vectors):
        once = run(L2Norm(), vectors)
        np.testing.assert_allclose(run(L2Norm(), once), once, rtol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(once, axis=-1), vectors.any(axis=-1), rtol=1e-6)
