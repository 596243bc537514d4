import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layers.habits import RefusesArguments, RefusesShapes, not_counting, only_on_tensorflow, run

from rw_keras.layers import PatchTokens, ResizeToMultiple, RotaryPositions


def cubic(before, after, antialias):
    """Keys' cubic with a = -0.5 in float64, `(after, before)`."""
    scale = max(before / after, 1) if antialias else 1
    x = np.abs((np.arange(after)[:, None] + 0.5) * before / after - (np.arange(before) + 0.5)) / scale
    kernel = np.where(x < 1, 1.5 * x**3 - 2.5 * x**2 + 1, np.where(x < 2, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2, 0))
    return kernel / kernel.sum(axis=1, keepdims=True)


def photos_of(height, width, batch=2):
    return np.random.default_rng(0).integers(0, 256, (batch, height, width, 3)).astype("float32")


class TestPatchTokens:
    @pytest.mark.parametrize("antialias", [False, True])
    @pytest.mark.parametrize("size", [(20, 20), (12, 32), (4, 4), (36, 8)])
    def test_value(self, size, antialias):
        layer = PatchTokens(4, 6, prefix_tokens=2, grid=(5, 5), antialias=antialias)
        photos = photos_of(*size)
        found = run(layer, photos)
        kernel, bias = (np.asarray(values, "float64") for values in layer.projection.get_weights())
        table, prefix = (keras.ops.convert_to_numpy(variable).astype("float64") for variable in (layer.positions, layer.prefix))
        rows, columns = size[0] // 4, size[1] // 4
        patches = photos.reshape(2, rows, 4, columns, 4, 3).transpose(0, 1, 3, 2, 4, 5)
        features = np.einsum("brcyxi,yxio->brco", patches.astype("float64"), kernel) + bias
        positions = np.einsum("pr,rco,qc->pqo", cubic(5, rows, antialias), table, cubic(5, columns, antialias))
        tokens = (features + positions).reshape(2, rows * columns, 6)
        expected = np.concatenate([np.broadcast_to(prefix, (2, 2, 6)), tokens], axis=1)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)  # of pixels up to 255

    def test_a_table_of_the_same_size_is_added_bit_by_bit(self):
        layer = PatchTokens(4, 6, grid=(3, 5))
        layer.build((None, None, None, 3))
        layer.projection.set_weights([np.zeros((4, 4, 3, 6)), np.zeros(6)])
        np.testing.assert_array_equal(run(layer, photos_of(12, 20))[0], keras.ops.convert_to_numpy(layer.positions).reshape(15, 6))

    def test_model_is_saved_and_takes_every_size(self, tmp_path):
        pixels = keras.Input((None, None, 3))
        model = keras.Model(pixels, PatchTokens(4, 6, 1, (5, 5), use_bias=False)(pixels))
        assert model.output_shape == (None, None, 6)
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
        for size in ((20, 20), (8, 28)):
            np.testing.assert_array_equal(run(loaded, photos_of(*size)), run(model, photos_of(*size)))

    @pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
    def test_low_precision_policy_is_followed(self, policy, set_policy):
        exact = PatchTokens(4, 6, 1, (5, 5))
        expected = run(exact, photos_of(12, 16) / 255)
        set_policy(policy)
        layer = PatchTokens(4, 6, 1, (5, 5))
        layer.build((None, None, None, 3))
        layer.set_weights(exact.get_weights())
        found = layer(photos_of(12, 16) / 255)
        assert keras.backend.standardize_dtype(found.dtype) == policy.removeprefix("mixed_")
        np.testing.assert_allclose(keras.ops.convert_to_numpy(keras.ops.cast(found, "float32")), expected, atol=0.02)

    def test_symbolic_shapes(self):
        assert PatchTokens(4, 6, 3)(keras.Input((12, 21, 3))).shape == (None, 3 + 15, 6)
        with pytest.raises(ValueError, match=r"PatchTokens .* takes pixels"):
            PatchTokens(4, 6)(keras.Input((12, 21)))


class TestResizeToMultiple(RefusesShapes, RefusesArguments):
    layer = ResizeToMultiple
    arguments = {"multiple": 4}  # noqa: RUF012
    wrong_shapes = ((2, 3, 8), (8,))
    wrong_arguments = not_counting("multiple")

    def make(self, **others):
        return ResizeToMultiple(**{**self.arguments, **others})

    @settings(max_examples=20)
    @given(st.integers(4, 40), st.integers(4, 40))
    def test_each_side_is_the_nearest_multiple(self, height, width):
        found = run(ResizeToMultiple(4), photos_of(height, width, 1))
        for before, after in zip((height, width), found.shape[1:3]):
            assert after % 4 == 0
            assert abs(after - before) <= 2
        assert ResizeToMultiple(4).compute_output_shape((1, height, width, 3)) == found.shape

    def test_value(self):
        photos = photos_of(13, 30)
        expected = np.einsum("ph,bhwc,qw->bpqc", cubic(13, 12, True), photos.astype("float64"), cubic(30, 32, True))
        np.testing.assert_allclose(run(ResizeToMultiple(4), photos), expected, atol=1e-3)

    def test_a_multiple_stays_as_it_is_where_the_size_is_unknown_too(self):
        inputs = keras.Input((None, None, 3))
        model = keras.Model(inputs, ResizeToMultiple(4)(inputs))
        np.testing.assert_array_equal(run(model, photos_of(12, 20)), photos_of(12, 20))

    @only_on_tensorflow("tf.function is TensorFlow's")
    def test_one_trace_serves_every_size(self):
        import tensorflow as tf

        graph = tf.function(ResizeToMultiple(4), input_signature=[tf.TensorSpec((None, None, None, 3))])
        for size in ((12, 20), (13, 30), (2, 9), (4, 1)):
            photos = photos_of(*size)
            np.testing.assert_allclose(graph(photos).numpy(), run(ResizeToMultiple(4), photos), atol=1e-4)

    def test_a_side_below_it_is_refused_where_it_is_known(self):
        with pytest.raises(ValueError, match="photos of 4 pixels a side or more, but got 3 x 9"):
            ResizeToMultiple(4).compute_output_shape((None, 9, 3, 3))


class TestRotaryPositions:
    def test_value(self):
        cosines, sines = (keras.ops.convert_to_numpy(values) for values in RotaryPositions(4, 8)(photos_of(12, 20)))
        frequencies = 100.0 ** -np.array([0, 0.5])
        for row in range(3):
            for column in range(5):
                places = np.array([(row + 0.5) / 3, (column + 0.5) / 5]) * 2 - 1
                angles = np.tile((2 * np.pi * places[:, None] * frequencies).ravel(), 2)
                np.testing.assert_allclose(cosines[row * 5 + column], np.cos(angles), atol=1e-6)
                np.testing.assert_allclose(sines[row * 5 + column], np.sin(angles), atol=1e-6)

    def test_symbolic_shapes(self):
        assert [values.shape for values in RotaryPositions(4, 8)(keras.Input((None, None, 3)))] == [(None, 8)] * 2
        with pytest.raises(ValueError, match="a multiple of 4 as `head_dim`, but got 6"):
            RotaryPositions(4, 6)
