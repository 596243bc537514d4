import numpy as np
from layers.habits import LayerHabits, RefusesShapes, run

from rw_keras.layers import RegionSum


class TestRegionSum(LayerHabits, RefusesShapes):
    layer = RegionSum
    arguments = {}  # noqa: RUF012
    sample = np.arange(-12, 12, dtype="float32").reshape(2, 4, 3)
    shapes = {  # noqa: RUF012
        (None, None, 8): (None, 8),
        (None, 21, 8): (None, 8),
        (2, None, 8): (2, 8),
        (2, 21, 8): (2, 8),
    }
    wrong_shapes = ((2, 8), (8,), (1, 2, 3, 8))

    def test_value(self):
        vectors = np.random.default_rng(0).uniform(size=(3, 21, 8)).astype("float32")
        np.testing.assert_allclose(run(RegionSum(), vectors), vectors.sum(axis=1, dtype="float64"), rtol=1e-6)

    def test_sum_of_a_single_region_is_that_region(self):
        vectors = np.random.default_rng(0).normal(size=(3, 1, 8)).astype("float32")
        np.testing.assert_array_equal(run(RegionSum(), vectors), vectors[:, 0])

    def test_sums_leave_the_range_and_the_integers_of_float16(self, set_policy):
        vectors = np.array([[[60000, 2048], [60000, 1], [60000, 1]]], "float16")
        for policy in ("mixed_float16", "mixed_bfloat16"):
            set_policy(policy)
            np.testing.assert_array_equal(run(RegionSum(), vectors), [[180000, 2050]])
