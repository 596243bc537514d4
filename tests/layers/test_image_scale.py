import keras
import numpy as np
import pytest
from layers import reference
from layers.habits import LayerHabits, RefusesShapes, only_on_tensorflow, run
from PIL import Image

from rw_keras.layers import ImageScale

# (height, width): one pixel, a line, the smallest of VGG16, odd ones, a photo's.
SIZES = [(1, 1), (1, 9), (16, 16), (17, 33), (64, 48), (101, 37)]
FACTORS = [0.1, 0.5, 2**-0.5, 0.9, 1.3, 2]


def photos(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (2, height, width, 3), "uint8")


class TestImageScale(LayerHabits, RefusesShapes):
    layer = ImageScale
    arguments = {"factor": 0.5, "min_side": 3}  # noqa: RUF012
    sample = photos(9, 14).astype("float32")
    shapes = {  # noqa: RUF012
        (None, None, None, 3): (None, None, None, 3),
        (None, 4, None, 3): (None, 3, None, 3),
        (2, 48, 65, 3): (2, 24, 33, 3),
        (2, 2, 64, 1): (2, 2, 32, 1),
    }
    wrong_shapes = ((4, 5, 3), (3,), (2, 4, 5, 3, 1))

    @pytest.mark.parametrize("factor", FACTORS)
    @pytest.mark.parametrize("size", SIZES)
    def test_value(self, size, factor):
        pixels = photos(*size)
        found = run(ImageScale(factor), pixels)
        assert found.dtype == "float32"
        expected = reference.resized(pixels, *(max(int(np.floor(side * factor + 0.5)), 1) for side in size))
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, atol=255 * reference.RELATIVE_ERROR)

    @pytest.mark.parametrize("factor", [0.2, 0.5, 2**-0.5])
    def test_is_what_pillow_makes_of_a_photo(self, factor):
        """Which rounds to whole numbers after rows and after columns. (It clips too, so no pixel here is near black or white.)"""
        pixels = photos(64, 90) // 2 + 64
        found = run(ImageScale(factor), pixels)[0]
        small = Image.fromarray(pixels[0]).resize((found.shape[1], found.shape[0]), Image.Resampling.BICUBIC)
        assert np.abs(found - np.asarray(small, "float32")).max() < 1.2

    def test_factor_one_leaves_photos_as_they_are(self):
        pixels = photos(17, 33)
        found = run(ImageScale(1, min_side=20), pixels)
        assert found.dtype == "float32"
        np.testing.assert_array_equal(found, pixels)

    def test_sides_are_rounded_to_the_nearest_pixel(self):
        for factor in (2**-0.5, 0.5, 0.7071, 1.25):
            for side in (*range(1, 130), 683, 768, 1023, 1024, 4001):
                expected = max(int(np.floor(side * factor + 0.5)), 1)
                assert ImageScale(factor).compute_output_shape((None, side, side, 3)) == (None, expected, expected, 3)

    def test_no_side_is_reduced_below_the_smallest(self):
        for size, expected in (((16, 100), (16, 50)), ((20, 31), (16, 16)), ((9, 64), (9, 32))):
            assert run(ImageScale(0.5, min_side=16), photos(*size)).shape == (2, *expected, 3)
        assert run(ImageScale(2, min_side=16), photos(5, 20)).shape == (2, 10, 40, 3)

    @pytest.mark.parametrize("dtype", ["uint8", "int32", "float16", "float32"])
    def test_pixels_of_any_dtype(self, dtype):
        pixels = photos(17, 33)
        np.testing.assert_array_equal(run(ImageScale(0.5), pixels.astype(dtype)), run(ImageScale(0.5), pixels))

    def test_constant_photo_stays_so_and_black_is_zero(self):
        for factor in FACTORS:
            grey = np.full((1, 31, 20, 3), 77, "uint8")
            np.testing.assert_allclose(run(ImageScale(factor), grey), 77, rtol=1e-6)
            assert not run(ImageScale(factor), 0 * grey).any()

    @pytest.mark.parametrize("factor", [0, -0.5, 2.5, 50, float("nan"), float("inf"), "0.5", None, True])
    def test_wrong_factor_is_refused(self, factor):
        with pytest.raises(ValueError, match=r"ImageScale takes a number above 0, up to 2, as `factor`, but got") as refused:
            ImageScale(factor)
        assert repr(factor) in str(refused.value)

    @pytest.mark.parametrize("min_side", [0, -1, 1.5, "3", True])
    def test_wrong_min_side_is_refused(self, min_side):
        with pytest.raises(ValueError, match=r"ImageScale takes a whole number of at least 1 as `min_side`"):
            ImageScale(0.5, min_side)

    @only_on_tensorflow("tf.function is TensorFlow's")
    @pytest.mark.parametrize("factor", [0.5, 2**-0.5, 0.1, 1.3])
    def test_one_trace_serves_every_size(self, factor):
        import tensorflow as tf

        layer = ImageScale(factor, min_side=4)
        graph = tf.function(layer, input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8)])
        for size in (*SIZES, (5, 15), (25, 35)):
            found = graph(photos(*size)).numpy()
            assert found.shape == layer.compute_output_shape((2, *size, 3))
            np.testing.assert_allclose(found, run(layer, photos(*size)), atol=1e-3)
        assert graph.experimental_get_tracing_count() == 1

    @only_on_tensorflow("gradients are taken with TensorFlow's tape")
    def test_gradient_is_the_filters(self):
        import tensorflow as tf

        pixels = tf.constant(photos(11, 7).astype("float32"))
        with tf.GradientTape() as tape:
            tape.watch(pixels)
            total = tf.reduce_sum(ImageScale(0.5)(pixels)[:, 2, 1])
        weights = [reference.resizing(before, after)[place] for before, after, place in ((11, 6, 2), (7, 4, 1))]
        expected = np.broadcast_to(np.outer(*weights)[None, :, :, None], pixels.shape)
        np.testing.assert_allclose(tape.gradient(total, pixels).numpy(), expected, atol=1e-6)

    def test_float64_policy(self, set_policy):
        if keras.backend.backend() == "jax":
            pytest.skip("JAX has no float64 unless it is switched on")
        set_policy("float64")
        pixels = photos(17, 33)
        found = run(ImageScale(0.5), pixels)
        assert found.dtype == "float64"
        np.testing.assert_allclose(found, reference.resized(pixels, 9, 17), rtol=1e-12, atol=1e-10)
