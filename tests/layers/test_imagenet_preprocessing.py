import keras
import numpy as np
import pytest
from layers.habits import LayerHabits, RefusesShapes, run

from rw_keras.layers import ImageNetPreprocessing


class TestImageNetPreprocessing(LayerHabits, RefusesShapes):
    layer = ImageNetPreprocessing
    arguments = {"means": (100.5, 110.0, 120.25)}  # noqa: RUF012
    sample = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3)).astype("float32")
    shapes = {  # noqa: RUF012
        (None, None, None, 3): (None, None, None, 3),
        (2, 48, None, 3): (2, 48, None, 3),
        (2, 48, 64, 3): (2, 48, 64, 3),
    }
    wrong_shapes = ((4, 5, 3), (3,), (2, 4, 5, 1), (2, 4, 5, 4), (2, 3, 4, 5))

    def test_value_is_that_of_the_network_as_trained(self):
        expected = keras.applications.vgg16.preprocess_input(self.sample.copy(), data_format="channels_last")
        np.testing.assert_allclose(run(ImageNetPreprocessing(), self.sample), expected, atol=1e-4)

    def test_red_green_blue_becomes_blue_green_red_minus_means(self):
        found = run(ImageNetPreprocessing(means=(1, 2, 3)), np.array([[[[10, 20, 30]]]], "float32"))
        assert found.tolist() == [[[[29, 18, 7]]]]

    @pytest.mark.parametrize("dtype", ["uint8", "int32", "float16", "float32"])
    def test_pixels_of_any_dtype(self, dtype):
        pixels = self.sample.astype(dtype)
        found = run(ImageNetPreprocessing(), pixels)
        assert found.dtype == "float32"
        np.testing.assert_array_equal(found, run(ImageNetPreprocessing(), self.sample))
